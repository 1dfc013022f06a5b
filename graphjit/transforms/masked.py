"""Keep the branch that `where` did not take out of every derivative.

Job: carry the selection of a masked cotangent outward past each linear step of reverse mode, so that a local derivative of inf or NaN is
only ever multiplied where the branch was taken.
Input: cotangent nodes as reverse mode builds them.  Output: the same values with one selection outermost.
Invariants: for a cotangent ``select(c, t, 0)`` every linear step keeps the form ``select(c', t', 0)``; each step adds a bounded number of nodes.
"""

from __future__ import annotations

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ops.masking import Masked, holds, masked, peel, remask, scale, without_axes

__all__ = ["lift_mask", "scale"]

POINTWISE = ("neg", "convert", "copy")
MOVES = ("reshape", "broadcast_to", "transpose", "slice", "flip", "embed")


def lift_mask(b: Builder, node: Node) -> Node:
    """Push a selection outward past one linear step that was just built on a masked cotangent.

    Covers negation, conversion, moves of elements, sums over axes along which the condition is constant, and additions of two masked
    cotangents (which are masked where both are).
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
    condition: Node | None = mask.condition
    if name == "sum":
        condition = without_axes(b, mask.condition, node.attrs["axes"])  # type: ignore[arg-type]
    elif name == "embed" and not mask.taken:
        condition = b.emit(node.op, holds(b, mask), **node.attrs)  # embed fills with False: outside is not taken
        return remask(b, condition, True, b.emit(node.op, mask.value, **node.attrs))
    elif name in MOVES:
        condition = b.emit(node.op, mask.condition, **node.attrs)
    if condition is None:
        return node
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
    """``select(c, x, 0) + select(c, 0, y)`` is ``select(c, x, y)``; what is masked inside the branches stays masked outside."""
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
