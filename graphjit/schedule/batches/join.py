"""Loops over one batch, one of which reads what the other stacks, become one loop over the batch.

The way back of a gradient reads what the way there stacked: for 10 000 elements and 200 steps of a small
system that is far more than a cache holds. But an element of the batch needs its own part only. So the way
there, what lies between, and the way back become the body of a loop of one step, which runs for a few
elements of the batch at a time (`graphjit.loops.lowering.points`). What they stack for each other lies in
cache.

    way there, loss' of the last state, way back    ->    for each 16 elements: way there, loss', way back

Input and output: a graph whose bodies are optimised.
Invariant: the same nodes are computed; loops are joined only where the elements of the batch do not meet in
any of them, nor between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.opdef import Scalar, View
from graphjit.schedule.batches.axes import shared_results
from graphjit.schedule.loops.registers import batches_in_registers, is_pointwise, is_stack


def join_batches(graph: Graph) -> Graph:
    """``graph`` with such loops joined."""
    while True:
        loops = [node for node in graph.nodes() if node.op.name == "scan" and _has_steps(node)]
        found = (_joined(graph, first, last) for last in loops for first in loops if first is not last)
        made = next((made for made in found if made is not None), None)
        if made is None:
            return graph
        graph = made


def _has_steps(node: Node) -> bool:
    """Whether a loop runs in lanes, and more than once."""
    return node.attrs["length"] != 1 and bool(batches_in_registers(node))


def _joined(graph: Graph, first: Node, last: Node) -> Graph | None:
    """``graph`` with two loops and all between as one; None if that is not possible."""
    inside = _between(graph, first, last)
    if not any(map(is_stack, inside)):
        return None
    outside = _read_outside(graph, inside)
    wanted = dict.fromkeys([*(arg for node in outside for arg in node.args), *graph.outputs])
    outputs = [x for x in wanted if x in inside and x not in outside]
    group = _group({node: None for node in graph.nodes() if node in inside}, outputs)
    batches = batches_in_registers(group)
    if len(batches) != 1 or shared_results(group, batches):
        return None
    return _replaced(graph, outputs, group, outside)


def _between(graph: Graph, first: Node, last: Node) -> set[Node]:
    """Two loops, what the second needs that the first computes, and their results; nothing if the second does
    not need the first.
    """
    before = set(reachable(last.args))
    if first not in before or batches_in_registers(first)[0].extent != batches_in_registers(last)[0].extent:
        return set()
    found = {first, last}
    for node in graph.nodes():
        if (node in before or node.op.name == "item") and any(arg in found for arg in node.args):
            found.add(node)
    return found


def _read_outside(graph: Graph, inside: set[Node]) -> dict[Node, None]:
    """What is not ``inside``, in order, and what it reads there that is computed where it is read: views, and
    what is made of a stack, which is then read instead.
    """
    again: set[Node] = set()
    for node in graph.nodes():
        made = is_pointwise(node) and any(is_stack(arg) or arg in again for arg in node.args)
        if node in inside and (made or isinstance(node.op.lower, View)):
            again.add(node)
    wanted, found = set(graph.outputs), list[Node]()
    for node in reversed(graph.nodes()):
        if node not in inside or (node in again and node in wanted):
            found.append(node)
            wanted.update(node.args)
    return dict.fromkeys(reversed(found))


def _group(nodes: dict[Node, None], outputs: list[Node]) -> Node:
    """A loop of one step that computes ``outputs`` by ``nodes``."""
    b = Builder()
    inputs: dict[Node, Node] = {}
    known: dict[Node, Node] = {}

    def copy(node: Node) -> Node:
        if node not in known:
            if node in nodes or _is_number(node):
                known[node] = b.copy(node, tuple(map(copy, node.args)))
            else:
                known[node] = inputs[node] = b.input(node.type, "whole")
        return known[node]

    for node in nodes:
        copy(node)
    body = Body(Graph("batch", inputs.values(), [known[x] for x in outputs]))
    b.like(next(iter(nodes)))
    attrs: dict[str, Any] = {"carried": 0, "sliced": 0, "length": 1, "reverse": False}
    return b.emit("scan", *inputs, body=body, **attrs)


def _is_number(node: Node) -> bool:
    """Whether all elements of an array are one number."""
    if isinstance(node.op.lower, Scalar | View) and node.op.name != "recompute":
        return all(map(_is_number, node.args))
    return node.is_const and node.type.size == 1


def _replaced(graph: Graph, outputs: list[Node], group: Node, outside: Mapping[Node, None]) -> Graph:
    """``graph`` of what is ``outside``, with the results of ``group`` in the places of ``outputs``."""
    b = Builder()
    known: dict[Node, Node] = dict(zip(graph.inputs, graph.inputs, strict=True))
    later = set(outputs)
    for node in outside:
        if any(arg in later for arg in node.args):
            later.add(node)

    def copy(nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node not in known:
                known[node] = b.copy(node, tuple(known[arg] for arg in node.args))

    copy(node for node in outside if node not in later)
    made = b.copy(group, tuple(known[arg] for arg in group.args))
    for k, x in enumerate(outputs):
        known[x] = b.reshape(b.item(made, index=k), shape=x.shape)
    copy(outside)
    return Graph(graph.name, graph.inputs, [known[x] for x in graph.outputs])
