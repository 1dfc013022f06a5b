"""Loops that do the same are one loop.

The way back through a loop runs the way there a second time, to keep what it needs. Both compute the same
carries from the same arguments. This pass makes one loop of such two, with the results of both.

Example: ``h`` after a `scan`, and the `scan` that stacks every ``h``, become one `scan` with both results.

Input and output: a graph.
Invariant: loops are joined only if each carry of the smaller one is a carry of the other, computed by the
same operations, and neither needs a result of the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.passes.bodies import inside

LOOPS = ("scan", "while")


def join_loops(graph: Graph) -> Graph:
    """``graph`` without loops that do what another one does."""
    nodes = graph.nodes()
    loops = [node for node in nodes if node.op.name in LOOPS]
    if not loops:
        return graph
    graph = inside(graph, join_loops)
    nodes = graph.nodes()
    loops = [node for node in nodes if node.op.name in LOOPS]
    pairs = _pairs(loops)
    return graph if not pairs else _joined(graph, pairs)


@dataclass
class _Opened:
    """A loop on inputs that stand for its arguments: equal arguments have one input."""

    node: Node
    inputs: list[Node]
    after: list[Node]
    others: list[Node]
    test: Node | None

    @property
    def carries(self) -> list[Node]:
        """The inputs of the carries."""
        first = len(self.inputs) - _sliced(self.node) - len(self.after)
        return self.inputs[first : first + len(self.after)]


def _sliced(node: Node) -> int:
    count: Any = node.attrs.get("sliced", 0)
    return int(count)


class _Shelf:
    """Inputs by what they stand for."""

    def __init__(self) -> None:
        self.b = Builder()
        self.known: dict[Hashable, Node] = {}

    def input(self, x: Node, key: Hashable) -> Node:
        """The input that stands for ``key``."""
        if key not in self.known:
            self.known[key] = self.b.input(x.type, str(x.attrs["name"]))
        return self.known[key]

    def opened(self, node: Node) -> _Opened:
        """A loop on these inputs."""
        body: Any = node.attrs["body"]
        test: Any = node.attrs.get("test")
        carried: Any = node.attrs["carried"]
        first = len(node.args) - _sliced(node) - carried
        inputs, times = [], dict[Node, int]()
        for i, (arg, x) in enumerate(zip(node.args, body.graph.inputs, strict=True)):
            kind = "constant" if i < first else "carry" if i < first + carried else "slice"
            # Carries that begin alike are told apart by their order.
            times[arg] = times.get(arg, 0) + (kind == "carry")
            inputs.append(self.input(x, (kind, arg, times[arg] if kind == "carry" else 0)))
        outputs = self.b.inline(body.graph, tuple(inputs))
        tests = self.b.inline(test.graph, tuple(inputs)) if test is not None else (None,)
        return _Opened(node, inputs, list(outputs[:carried]), list(outputs[carried:]), tests[0])


def _pairs(loops: Sequence[Node]) -> list[tuple[_Opened, _Opened]]:
    """Loops, and the larger one that does the same; each stands in one pair at most."""
    groups: dict[Hashable, list[Node]] = {}
    for node in loops:
        groups.setdefault((node.op.name, node.attrs.get("length"), node.attrs.get("reverse")), []).append(
            node
        )
    pairs: list[tuple[_Opened, _Opened]] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        shelf = _Shelf()
        opened = [shelf.opened(node) for node in group]
        taken: set[Node] = set()
        for i, one in enumerate(opened):
            for other in opened[i + 1 :]:
                small, large = sorted((one, other), key=lambda loop: len(loop.after))
                if {small.node, large.node}.isdisjoint(taken) and _same(small, large):
                    pairs.append((small, large))
                    taken |= {small.node, large.node}
    return pairs


def _same(small: _Opened, large: _Opened) -> bool:
    """Whether a loop computes nothing but what another one does, and both can run at once."""
    steps = dict(zip(large.carries, large.after, strict=True))
    if small.test is not large.test or any(
        steps.get(x) is not after for x, after in zip(small.carries, small.after, strict=True)
    ):
        return False
    if not small.after and not set(small.inputs) & set(large.inputs):
        return False  # loops without carries that have nothing in common
    return small.node not in set(reachable(large.node.args)) and large.node not in set(
        reachable(small.node.args)
    )


def _joined(graph: Graph, pairs: Sequence[tuple[_Opened, _Opened]]) -> Graph:
    """``graph`` with one loop for each pair."""
    partner = {loop.node: pair for pair in pairs for loop in pair}
    b = Builder()
    replaced: dict[Node, Node] = dict(zip(graph.inputs, graph.inputs, strict=True))
    results: dict[Node, list[Node]] = {}
    stack = list(reversed(graph.outputs))
    while stack:
        node = stack[-1]
        pair = partner.get(node)
        needed = node.args if pair is None else (*pair[0].node.args, *pair[1].node.args)
        waiting = [arg for arg in needed if arg not in replaced and arg not in results]
        if node in replaced or node in results:
            stack.pop()
        elif waiting:
            stack += waiting
        elif pair is not None:
            for loop, values in zip(pair, _one(b, pair, replaced), strict=True):
                results[loop.node] = values
        elif node.op.name == "item" and node.args[0] in results:
            replaced[node] = results[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
        else:
            replaced[node] = b.copy(node, tuple(replaced[arg] for arg in node.args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _one(
    b: Builder, pair: tuple[_Opened, _Opened], replaced: dict[Node, Node]
) -> tuple[list[Node], list[Node]]:
    """One loop for two; the results of each."""
    small, large = pair
    args = dict(zip((*small.inputs, *large.inputs), (*small.node.args, *large.node.args), strict=True))
    carries = large.carries
    sliced = [x for loop in (large, small) for x in loop.inputs[len(loop.inputs) - _sliced(loop.node) :]]
    slices = list(dict.fromkeys(sliced))
    constants = [x for x in dict.fromkeys((*large.inputs, *small.inputs)) if x not in {*carries, *slices}]
    others = list(dict.fromkeys((*large.others, *small.others)))
    inputs = [*constants, *carries, *slices]
    name = large.node.attrs["body"].graph.name  # type: ignore[attr-defined]
    attrs = {**large.node.attrs, "body": Body(Graph(name, inputs, [*large.after, *others]))}
    if large.test is not None:
        attrs |= {"test": Body(Graph("test", inputs, [large.test])), "taped": len(others)}
    else:
        attrs["sliced"] = len(slices)
    node = b.like(large.node).emit(large.node.op, *(replaced[args[x]] for x in inputs), **attrs)
    items = [b.item(node, index=k) for k in range(len(node.parts))]
    of_carry = dict(zip(carries, items, strict=False))
    of_other = dict(zip(others, items[len(carries) :], strict=True))
    return tuple(  # type: ignore[return-value]
        [*(of_carry[x] for x in loop.carries), *(of_other[y] for y in loop.others)] for loop in pair
    )
