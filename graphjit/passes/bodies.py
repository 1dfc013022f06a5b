"""Passes on loops and choices, and on the graphs inside them.

Input: a graph, a pass. Output: the graph whose bodies have gone through the pass (`inside`), whose loops were
made others (`remade`), or of which two loops each became one (`joined`).
Invariant: a body keeps its inputs and the types of its outputs; a loop keeps the results that are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node

Remake = Callable[[Builder, Node, list[Node], Collection[int]], Sequence[Node | None] | None]
"""Makes a node of control flow another: from its arguments and the numbers of the results that are read to
its results, or to None if it stays as it is.
"""

Join = Callable[[Builder, Node, Node, Mapping[Node, Node]], tuple[Sequence[Node], Sequence[Node]]]
"""Makes one loop of two: from both, and what stands for their arguments, to the results of each."""


def remade(graph: Graph, work: Remake) -> Graph:
    """``graph`` with ``work`` done on its loops and choices."""
    nodes = graph.nodes()
    read: dict[Node, set[int]] = {}
    for node in nodes:
        if node.op.name == "item":
            read.setdefault(node.args[0], set()).add(node.attrs["index"])  # type: ignore[arg-type]
    b = Builder()
    replaced: dict[Node, Node] = {}
    results: dict[Node, Sequence[Node | None]] = {}
    for node in nodes:
        if node.op.name == "item" and node.args[0] in results:
            value = results[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
            assert value is not None
            replaced[node] = value
            continue
        args = [replaced[arg] for arg in node.args]
        made = None
        if node.is_bundle and node.op.name != "custom":
            made = work(b.like(node), node, args, read.get(node, ()))
        if made is None:
            replaced[node] = b.copy(node, tuple(args))
        else:
            results[node] = made
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def inside(graph: Graph, work: Callable[[Graph], Graph]) -> Graph:
    """``graph`` with ``work`` done on each body of its loops and choices."""
    nodes = graph.nodes()
    if not any(node.is_bundle and node.op.name != "custom" for node in nodes):
        return graph
    b = Builder()
    replaced: dict[Node, Node] = {}
    done: dict[Body, Body] = {}

    def worked(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(worked(part) for part in value)
        if not isinstance(value, Body):
            return value
        if value not in done:
            done[value] = Body(work(value.graph))
        return done[value]

    for node in nodes:
        args = tuple(replaced[arg] for arg in node.args)
        if node.is_bundle and node.op.name != "custom":
            attrs = {name: worked(value) for name, value in node.attrs.items()}
            replaced[node] = b.like(node).emit(node.op, *args, **attrs)
        else:
            replaced[node] = b.copy(node, args)
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def joined(graph: Graph, pairs: Sequence[tuple[Node, Node]], join: Join) -> Graph:
    """``graph`` with one loop for each pair of loops. Of the first one's results the second may read some:
    what stands for these is not asked for.
    """
    partner = {node: pair for pair in pairs for node in pair}
    b = Builder()
    replaced: dict[Node, Node] = dict(zip(graph.inputs, graph.inputs, strict=True))
    results: dict[Node, Sequence[Node]] = {}
    stack = list(reversed(graph.outputs))
    while stack:
        node = stack[-1]
        pair = partner.get(node)
        needed = node.args if pair is None else _outside(*pair)
        waiting = [arg for arg in needed if arg not in replaced and arg not in results]
        if node in replaced or node in results:
            stack.pop()
        elif waiting:
            stack += waiting
        elif pair is not None:
            results.update(zip(pair, join(b.like(pair[1]), *pair, replaced), strict=True))
        elif node.op.name == "item" and node.args[0] in results:
            replaced[node] = results[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
        else:
            replaced[node] = b.copy(node, tuple(replaced[arg] for arg in node.args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _outside(first: Node, second: Node) -> list[Node]:
    """What two loops read, but for what the second reads of the first."""
    return [x for x in (*first.args, *second.args) if first not in x.args]
