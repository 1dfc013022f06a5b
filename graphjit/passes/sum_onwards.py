"""Large sums of loops that begin where another sum ended.

The way back through a loop adds up what its steps contribute to the gradient of an array, from zeros on, and
the result is added to what others contributed. Inside another loop that is an array of zeros and an addition
of whole arrays in every step, even if the inner loop adds a single element. So such a loop goes on with the
other sum instead.

    total = unwind(zeros, ...)     total = unwind(others, ...)
    sum   = others + total         sum   = total

Input and output: a graph; its loops begin with other carries.
Invariant: a loop adds the same numbers in the same order; they are added to the others one by one instead of
in one, so the last bits may differ.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, in_order, reachable, users
from graphjit.ir.patterns import splat
from graphjit.ops.control import SMALL
from graphjit.passes.bodies import inside
from graphjit.transforms.control.loops import kinds_of

Added = dict[Node, tuple[Node, Node]]
"""Additions that go away: the other summand, and the item of a loop."""


def sum_onwards(graph: Graph) -> Graph:
    """``graph`` whose loops go on with the sums that theirs would be added to."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    graph = inside(graph, lambda body: sum_onwards(one_by_one(body)))
    nodes = graph.nodes()
    readers = users(nodes)
    added: Added = {}
    for node in nodes:
        if node.op.name == "add" and node.type.size > SMALL:
            for other, total in (node.args, node.args[::-1]):
                if _is_sum(total, readers, graph.outputs) and not _needs(other, total.args[0], added):
                    added[node] = other, total
                    break
    return _rebuilt(graph, added) if added else graph


def one_by_one(graph: Graph) -> Graph:
    """``graph`` where elements that are added to each other and then to a large array are added to that one
    after the other: ``x + (a + b)`` becomes ``(x + a) + b``, where a and b are zeros but for one element.
    """
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in graph.nodes():
        args = [replaced[arg] for arg in node.args]
        parts = next((parts for parts in map(_elements, args) if len(parts) > 1), [])
        if node.op.name == "add" and parts and not all(map(_elements, args)):
            b.like(node)
            made = args[0] if _elements(args[1]) else args[1]
            for part in parts:
                made = b.add(made, part)
            replaced[node] = made
        else:
            replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _elements(node: Node) -> list[Node]:
    """The summands of a large array each of which is zeros but for one element; none of another array."""
    if node.is_bundle or node.type.size <= SMALL:
        return []
    if node.op.name in ("scatter_add", "embed"):
        return [node] if node.args[0].type.size == 1 else []
    if node.op.name != "add":
        return []
    first, second = map(_elements, node.args)
    return [*first, *second] if first and second else []


def _needs(value: Node, loop: Node, added: Added) -> bool:
    """Whether a value depends on a loop, or on one that goes on with what depends on it."""
    stops = {total.args[0]: other for other, total in added.values()}
    seen: set[Node] = set()
    stack = [value]
    while stack:
        found = set(reachable([stack.pop()], seen))
        if loop in found:
            return True
        seen |= found
        stack += [stops[node] for node in found if node in stops and stops[node] not in seen]
    return False


def _is_sum(total: Node, readers: dict[Node, list[Node]], outputs: Collection[Node]) -> bool:
    """Whether a value is what a loop adds up from zeros on, and nobody else reads it."""
    if (
        total.op.name != "item"
        or total.args[0].op.name not in ("scan", "while", "unwind")
        or total in outputs
    ):
        return False
    loop, k = total.args[0], _number(total)
    carried: Any = loop.attrs["carried"]
    if k >= carried or len(readers[total]) != 1 or total.dtype.kind != "f":
        return False
    zeros = splat(loop.args[kinds_of(loop)[1]][k])
    return zeros is not None and zeros == 0 and adds_up(loop, k)


def _number(item: Node) -> int:
    index: Any = item.attrs["index"]
    return int(index)


def adds_up(loop: Node, k: int) -> bool:
    """Whether the steps of a loop do nothing with a carry but add to it."""
    body: Any = loop.attrs["body"]
    graph: Graph = body.graph
    place = kinds_of(loop)[1].start + k
    test: Any = loop.attrs.get("test")
    if test is not None and test.graph.inputs[place] in reachable(test.graph.outputs):
        return False
    node: Node | None = graph.inputs[place]
    readers = users(graph.nodes())
    while node is not None:
        reading = readers.get(node, [])
        ends = [out for out in graph.outputs if out is node]
        if node is graph.outputs[k] and len(ends) == 1 and not reading:
            return node is not graph.inputs[place]
        node = None if ends or len(reading) != 1 else _sum_after(node, reading[0], readers)
    return False


def _sum_after(node: Node, reader: Node, readers: dict[Node, list[Node]]) -> Node | None:
    """What the one that reads a sum adds to it; None if it does something else."""
    if reader.op.name == "add" and reader.args[0] is not reader.args[1]:
        return reader
    if reader.op.name in ("scan", "while", "unwind") and node in reader.args[kinds_of(reader)[1]]:
        number = reader.args.index(node) - kinds_of(reader)[1].start
        items = [x for x in readers[reader] if _number(x) == number]
        if len(items) == 1 and adds_up(reader, number):
            return items[0]
    return None


def _rebuilt(graph: Graph, added: Added) -> Graph:
    """The graph without the additions."""
    first: dict[Node, dict[int, Node]] = {}
    for other, total in added.values():
        first.setdefault(total.args[0], {})[_number(total)] = other
    after = {loop: list(others.values()) for loop, others in first.items()}
    nodes = in_order(graph.nodes(), after)
    assert nodes is not None
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in nodes:
        if node in added:
            replaced[node] = replaced[added[node][1]]
            continue
        args = [replaced[arg] for arg in node.args]
        for k, other in first.get(node, {}).items():
            args[kinds_of(node)[1].start + k] = replaced[other]
        replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])
