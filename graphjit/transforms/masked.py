"""Keep the branch that `where` did not take out of every derivative.

Job: carry the selection of a masked cotangent outward past each linear step of reverse mode, so that a local
derivative of inf or NaN is only ever multiplied where the branch was taken.
Input: cotangent nodes as reverse mode builds them.  Output: the same values with one selection outermost.
Invariants: for a cotangent ``select(c, t, 0)`` every linear step keeps the form ``select(c', t', 0)``; each step adds
a bounded number of nodes.
"""

from __future__ import annotations

from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ops.masking import Masked, along_rows, holds, masked, peel, remask, scale

__all__ = ["lift_mask", "scale"]

POINTWISE = ("neg", "convert", "copy")
MOVES = ("reshape", "broadcast_to", "transpose", "slice", "flip", "embed")


def lift_mask(b: Builder, node: Node) -> Node:
    """Push a selection outward past one linear step that was just built on a masked cotangent.

    Covers negation, conversion, moves of elements, sums over axes as far as the condition is constant along them, and
    additions of two masked cotangents (which are masked where both are).
    """
    name = node.op.name
    if name == "select":
        mask = peel(b, node)
        return node if mask is None or mask.value in node.args else remask(b, mask.condition, mask.taken, mask.value)
    if name == "add":
        return _sum_of_two(b, node)
    if name not in POINTWISE and name not in MOVES and name != "sum":
        return node
    mask = peel(b, node.args[0])
    if mask is None:
        return node
    if name == "sum":
        axes: Any = node.attrs["axes"]
        row = along_rows(b, mask, axes)
        if row is None:
            return node
        return remask(b, row.condition, True, b.sum(mask.value, axes=axes) if row.exact else node)
    if name in POINTWISE:
        return remask(b, mask.condition, mask.taken, b.emit(node.op, mask.value, **node.attrs))
    if name == "embed" and not mask.taken:  # it fills with False, and what is outside must count as masked
        condition = b.emit(node.op, holds(b, mask), **node.attrs)
        return remask(b, condition, True, b.emit(node.op, mask.value, **node.attrs))
    condition = b.emit(node.op, mask.condition, **node.attrs)
    return remask(b, condition, mask.taken, b.emit(node.op, mask.value, **node.attrs))


def _sum_of_two(b: Builder, node: Node) -> Node:
    left, right = masked(node.args[0]), masked(node.args[1])
    if left is None or right is None:
        return node
    if left.condition is right.condition:
        if left.taken == right.taken:
            return remask(b, left.condition, left.taken, b.add(left.value, right.value))
        return _two_branches(b, left if left.taken else right, right if left.taken else left)
    either = b.emit("or", holds(b, left), holds(b, right))
    return b.select(either, node, b.full(0.0, node.type))


def _two_branches(b: Builder, yes: Masked, no: Masked) -> Node:
    """``select(c, x, 0) + select(c, 0, y)`` is ``select(c, x, y)``; masks inside the branches stay outermost."""
    first, second = peel(b, yes.value), peel(b, no.value)
    both = b.select(yes.condition, yes.value, no.value)
    if first is None and second is None:
        return both
    everywhere = b.full(True, yes.condition.type)
    inside = b.select(
        yes.condition,
        everywhere if first is None else holds(b, first),
        everywhere if second is None else holds(b, second),
    )
    return b.select(inside, both, b.full(0.0, both.type))
