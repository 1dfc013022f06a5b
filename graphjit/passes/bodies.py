"""Passes on the graphs inside loops and choices.

Input: a graph, a pass. Output: the graph whose bodies have gone through the pass.
Invariant: a body keeps its inputs and the types of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node


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
