"""Tangents for many directions: what a chain of elementwise operations does to one is found out once.

In ``focal * (1 + r * (k1 + k2 * r))`` everything depends on the input through ``r`` alone. For each
direction the tangent of the whole is that of ``r`` times one slope, which does not depend on the direction:
so the slope is computed once, and each direction costs one product instead of one for each operation.
(A. Griewank and A. Walther, Evaluating Derivatives, 2008, call it preaccumulation.)

Input: an input node, output nodes. Output: a function from a seed to the tangents of the outputs.
Invariant: the same tangents as `forward.tangents` but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Partials
from graphjit.ir.patterns import is_zero
from graphjit.transforms.forward import push, tangents
from graphjit.transforms.masked import SINGULAR, lift_mask, scale
from graphjit.transforms.reverse import active_nodes

Derive = Callable[[Node], list[Node | None]]


def along_chains(b: Builder, x: Node, outputs: Sequence[Node]) -> Derive:
    """Tangents of ``outputs`` for a seed of ``x``."""
    active = active_nodes(outputs, [x])
    if any(node.is_bundle for node in active):
        return lambda seed: tangents(b, {x: seed}, outputs)
    heads = _heads(active, x)
    slopes = _slopes(b, heads, active, outputs)

    def derive(seed: Node) -> list[Node | None]:
        found: dict[Node, Node | None] = {x: seed}

        def tangent(node: Node) -> Node | None:
            if node not in found:
                before = found.get(heads[node]) if node in heads else None
                slope = slopes.get(node)
                made = None if before is None or slope is None else lift_mask(b, scale(b, before, slope))
                found[node] = made
            return found[node]

        for node in active:
            if node is not x and heads[node] is node:
                b.like(node, origin=f"jvp of {node.op.name}")
                made = push(b, node, [tangent(arg) for arg in node.args])
                found[node] = None if made is None or is_zero(made) else lift_mask(b, made)
        return [tangent(node) for node in outputs]

    return derive


def _heads(active: Sequence[Node], x: Node) -> dict[Node, Node]:
    """For each node the one through which alone it depends on the input, element by element; itself where
    there is none.

    A selection, and an op whose derivative can be infinite, end a chain: a zero of a tangent must stay zero
    there (`masked`), so they get each tangent itself.
    """
    heads: dict[Node, Node] = {x: x}
    for node in active:
        if node is x:
            continue
        before = {heads[arg] for arg in node.args if arg in heads}
        head = next(iter(before))
        elementwise = isinstance(node.op.derivative, Partials) and node.op.name not in SINGULAR
        alike = all(arg.shape == node.shape for arg in node.args if arg in heads)
        chained = len(before) == 1 and elementwise and alike and head.type == node.type
        heads[node] = head if chained else node
    return heads


def _slopes(
    b: Builder, heads: dict[Node, Node], active: Sequence[Node], outputs: Sequence[Node]
) -> dict[Node, Node]:
    """The derivative by its head of each node that is read at the end of a chain."""
    read = [arg for node in active if heads[node] is node for arg in node.args]
    ends: dict[Node, list[Node]] = {}
    for node in dict.fromkeys((*read, *outputs)):
        if node in heads and heads[node] is not node:
            ends.setdefault(heads[node], []).append(node)
    slopes: dict[Node, Node] = {}
    for head, nodes in ends.items():
        found = tangents(b, {head: b.full(1.0, head.type)}, nodes)
        slopes |= {node: slope for node, slope in zip(nodes, found, strict=True) if slope is not None}
    return slopes
