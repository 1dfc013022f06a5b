"""Passes on loops and choices, and on the graphs inside them.

Input: a graph, a pass. Output: the graph whose bodies have gone through the pass (`inside`), or whose loops
were made others (`remade`).
Invariant: a body keeps its inputs and the types of its outputs; a loop keeps the results that are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node

Remake = Callable[[Builder, Node, list[Node], Collection[int]], Sequence[Node | None] | None]
"""Makes a node of control flow another: from its arguments and the numbers of the results that are read to
its results, or to None if it stays as it is.
"""


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
