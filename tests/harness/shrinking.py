"""The smallest graph that still fails: what is left of a random graph once nothing more can be taken away."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node


def substitute(graph: Graph, replaced: dict[Node, Node], outputs: Collection[Node] | None = None) -> Graph:
    """``graph`` (or other ``outputs`` of it) with some nodes replaced by earlier nodes or new inputs; no rule
    applied.
    """
    made: dict[Node, Node] = {}
    inputs = [
        *graph.inputs,
        *(node for node in replaced.values() if node.op.name == "input" and node not in graph.inputs),
    ]
    for node in graph.nodes():
        target = replaced.get(node)
        if target is not None:
            made[node] = made.get(target, target)
        else:
            args = tuple(made[arg] for arg in node.args)
            made[node] = (
                node
                if args == node.args
                else Node(node.op, args, node.attrs, node.type, node.loc, node.origin)
            )
    return Graph(graph.name, inputs, [made[node] for node in (graph.outputs if outputs is None else outputs)])


def shrink(graph: Graph, fails: Callable[[Graph], bool], attempts: int = 2000) -> Graph:
    """The smallest graph found for which ``fails`` still holds.

    Greedy: drop outputs, take an inner node for an output, replace nodes by an argument of their type or by a
    new input, drop inputs that nothing reads.
    """
    assert fails(graph), "shrink needs a graph that fails"
    left = attempts
    changed = True
    while changed and left > 0:
        changed = False
        for candidate in _smaller(graph):
            left -= 1
            if left <= 0:
                break
            if fails(candidate):
                graph, changed = candidate, True
                break
    return graph


def _smaller(graph: Graph) -> Iterator[Graph]:
    """Smaller graphs, most promising first."""
    yield from _fewer_outputs(graph)
    for i, node in enumerate(graph.outputs):
        for arg in dict.fromkeys(node.args):
            if not arg.is_bundle:
                yield Graph(graph.name, graph.inputs, [*graph.outputs[:i], arg, *graph.outputs[i + 1 :]])
    yield from _fewer_nodes(graph)
    read = {arg for node in graph.nodes() for arg in node.args} | set(graph.outputs)
    used = [node for node in graph.inputs if node in read]
    if len(used) < len(graph.inputs):
        yield Graph(graph.name, used, graph.outputs)


def _fewer_outputs(graph: Graph) -> Iterator[Graph]:
    """Each output alone, then all but one."""
    if len(graph.outputs) > 1:
        for node in graph.outputs:
            yield Graph(graph.name, graph.inputs, [node])
        for i in range(len(graph.outputs)):
            yield Graph(graph.name, graph.inputs, [*graph.outputs[:i], *graph.outputs[i + 1 :]])


def _fewer_nodes(graph: Graph) -> Iterator[Graph]:
    """A node replaced by an argument of its type, then by a new input."""
    nodes = [node for node in graph.nodes() if node.op.name != "input"]
    for node in reversed(nodes):
        for arg in dict.fromkeys(node.args):
            if arg.type == node.type:
                yield substitute(graph, {node: arg})
    for node in nodes:
        if node.args and node not in graph.outputs and not node.is_bundle:
            yield substitute(graph, {node: Builder().input(node.type, f"cut{math.trunc(node.serial)}")})
