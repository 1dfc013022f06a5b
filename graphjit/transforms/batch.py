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
from graphjit.ir.batching import size_between
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.opdef import OverBody, Part
from graphjit.ir.rule import OpRule, rule_of
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
    size = next((size_between(one, wide) for one, wide in varying.items()), 0)
    return [
        made if flag else None if made is node else repeated(b, made, size)
        for node, (made, flag) in zip(outputs, spread(b, outputs, varying), strict=True)
    ]


def spread(b: Builder, outputs: Sequence[Node], varying: Mapping[Node, Node]) -> list[tuple[Node, bool]]:
    """`batch`, which says of each output whether it varies.

    One that does not may still be another node: a result of a loop whose other results vary is that of a loop
    without these.
    """
    found: dict[Node, Node] = dict(varying)
    same: dict[Node, Node] = {}
    several: dict[Node, Sequence[tuple[Node, bool]]] = {}
    """What nodes become that vary; that do not; results of nodes whose op has a rule."""
    first = min((node.serial for node in varying), default=0)
    for node in sorted(reachable(outputs, varying), key=lambda node: node.serial):
        if node.serial <= first:
            continue
        if isinstance(node.op.derivative, Part) and node.args[0] in several:
            made, flag = several[node.args[0]][node.attrs["index"]]  # type: ignore[call-overload]
            (found if flag else same)[node] = made
            continue
        args = [found.get(arg, same.get(arg, arg)) for arg in node.args]
        flags = [arg in found for arg in node.args]
        rule = rule_of(node)
        if any(flags) and isinstance(rule, OpRule):
            several[node] = rule.batch(b.like(node), node, args, flags, varying)
        elif any(flags):
            found[node] = over_batch(b, node, args, flags, varying)
        elif args != list(node.args):
            same[node] = b.copy(node, tuple(args))
    return [(found.get(node, same.get(node, node)), node in found) for node in outputs]


def batch_size(node: Node, args: Sequence[Node]) -> int:
    """The number of elements of the batch over which ``args`` are those of ``node``."""
    return next(size_between(x, wide) for x, wide in zip(node.args, args, strict=True) if x.type != wide.type)


def over_batch(
    b: Builder, node: Node, args: Sequence[Node], flags: Sequence[bool], varying: Mapping[Node, Node]
) -> Node:
    """One node over a batch, given its arguments, and which of them vary."""
    b.like(node)
    rule = node.op.batch
    if rule is None:
        raise IRError(f"{node.op.name} has no arguments, so it cannot vary")
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
    rule = rule_of(node)
    size = batch_size(node, args)
    graph = body_of(node)
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
    wide_rule = node.attrs["rule"] if rule is None else rule.over_batch(node, batched, size, outside)
    return b.emit(node.op, *args, body=Body(Graph(graph.name, inputs, outputs)), rule=wide_rule)


def repeated(b: Builder, node: Node, size: int) -> Node:
    """A node that does not vary, once for each element of a batch."""
    return b.broadcast_to(node, shape=(size, *node.shape))
