"""Batches: the graph of a function, run over many arguments at once, as one graph.

`batch` puts one more axis in front of chosen nodes and carries it through everything that depends on them.
Each op says in its declaration how (`OpDef.batch`). What does not depend on them stays as it is and is
computed once.

Example: of ``mul(x, w)`` with ``x : f64[3]`` and a batch ``f64[100,3]`` in its place, the result is
``mul(batch, broadcast_to(w, (100, 3))) : f64[100,3]``.

Input: nodes, and the batch that takes the place of each varying one. Output: the nodes over the batch.
Invariants: the axis of the batch is always the first; a node that does not vary is shared, not copied;
iterative and linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.errors import IRError
from graphjit.ir.batching import size_of
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.opdef import OverBody
from graphjit.ir.rule import Rule
from graphjit.transforms.substitute import body_of


def batch(b: Builder, outputs: Sequence[Node], varying: Mapping[Node, Node]) -> list[Node | None]:
    """``outputs`` over a batch.

    Args:
        b: builder of the nodes.
        outputs: nodes of one element.
        varying: for each node that varies from element to element its batch, which has one more axis in
            front.

    Returns:
        For each output its batch, or None where it does not vary.
    """
    found: dict[Node, Node] = dict(varying)
    first = min((node.serial for node in varying), default=0)
    for node in sorted(reachable(outputs, varying), key=lambda node: node.serial):
        if node.serial > first and any(arg in found for arg in node.args):
            found[node] = over_batch(b, node, [found.get(arg) for arg in node.args], varying)
    return [found.get(node) for node in outputs]


def over_batch(b: Builder, node: Node, batches: Sequence[Node | None], varying: Mapping[Node, Node]) -> Node:
    """One node over a batch, given the batches of those of its arguments that vary."""
    b.like(node)
    rule = node.op.batch
    if rule is None:
        raise IRError(f"{node.op.name} has no arguments, so it cannot vary")
    args = [arg if batch is None else batch for arg, batch in zip(node.args, batches, strict=True)]
    flags = [batch is not None for batch in batches]
    made: Node = (
        _over_body(b, node, args, flags, varying)
        if isinstance(rule, OverBody)
        else rule(b, node, args, flags)
    )
    return made


def _over_body(
    b: Builder,
    node: Node,
    args: Sequence[Node],
    batched: Sequence[bool],
    outside: Mapping[Node, Node],
) -> Node:
    """A node with a body over a batch: each of its results varies."""
    graph, rule = body_of(node), node.attrs["rule"]
    size = size_of(args, batched)
    inputs = [
        b.input(arg.type, str(x.attrs["name"])) if flag else x
        for x, arg, flag in zip(graph.inputs, args, batched, strict=True)
    ]
    varying = {x: wide for x, wide, flag in zip(graph.inputs, inputs, batched, strict=True) if flag}
    found = batch(b, graph.outputs, varying)
    outputs = [
        repeated(b, one, size) if wide is None else wide
        for one, wide in zip(graph.outputs, found, strict=True)
    ]
    wide_rule = rule.over_batch(node, batched, size, outside) if isinstance(rule, Rule) else rule
    return b.emit(node.op, *args, body=Body(Graph(graph.name, inputs, outputs)), rule=wide_rule)


def repeated(b: Builder, node: Node, size: int) -> Node:
    """A node that does not vary, once for each element of a batch."""
    return b.broadcast_to(node, shape=(size, *node.shape))
