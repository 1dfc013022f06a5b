"""Keep the branch that ``np.where`` did not take out of every derivative.

A derivative there may be inf or NaN, and ``0 * inf`` is NaN. So the selection of a masked cotangent is
carried outward past each linear step: ``select(c, t, 0) * p`` becomes ``select(c, t * p, 0)``.

Input: cotangent nodes as reverse mode builds them. Output: the same values with one selection outermost.
Invariants: for a cotangent ``select(c, t, 0)`` every linear step keeps the form ``select(c', t', 0)``; each
step adds a bounded number of nodes.
"""

from __future__ import annotations

import functools
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.patterns import is_zero
from graphjit.ir.types import BOOL
from graphjit.ops.masking import Masked, along_rows, holds, masked, peel, remask, scale

__all__ = ["lift_mask", "masked_where_zero", "scale"]

POINTWISE = ("neg", "convert", "copy")
SINGULAR = frozenset(
    "sqrt cbrt pow div reciprocal log log2 log10 log1p arcsin arccos arccosh arctanh arctan2 logit xlogy xlog1py "
    "gammaln digamma trigamma polygamma".split()
)
"""Ops whose local derivative can be inf or NaN at finite arguments."""
DEPTH = 16
"""How far below a tangent its zeros are searched."""
MOVES = ("reshape", "broadcast_to", "transpose", "slice", "flip", "embed")


def masked_where_zero(b: Builder, tangent: Node) -> Node:
    """A tangent that holds zeros put there by padding, joining or assignment, as a selection of the rest.

    Reverse mode cuts such elements away before it multiplies; forward mode would multiply them with a local
    derivative that may be inf.
    """
    if masked(tangent) is not None:
        return tangent
    rest = _support(b, tangent, DEPTH)
    return tangent if rest is None else b.select(rest, tangent, b.full(0.0, tangent.type))


def _support(b: Builder, node: Node, depth: int) -> Node | None:
    """Where a tangent is not zero by the way it was built, as bools; None where that is everywhere.

    It asks no values, so it does not depend on the tangent: a selection by it stays linear.
    """
    name = node.op.name
    if is_zero(node):
        return b.full(False, node.type.with_dtype(BOOL))
    if name == "embed":
        inner = _support(b, node.args[0], depth - 1) if depth else None
        inner = _everywhere(b, node.args[0]) if inner is None else inner
        return b.emit(node.op, inner, **node.attrs)
    if not depth:
        return None
    if name in POINTWISE or name == "div":
        return _support(b, node.args[0], depth - 1)
    if name in MOVES or name == "gather":
        inner = _support(b, node.args[0], depth - 1)
        return None if inner is None else b.emit(node.op, inner, *node.args[1:], **node.attrs)
    if name == "sum":
        inner = _support(b, node.args[0], depth - 1)
        return None if inner is None else b.any(inner, axes=node.attrs["axes"])
    return _joint_support(b, node, depth)


def _everywhere(b: Builder, node: Node) -> Node:
    return b.full(True, node.type.with_dtype(BOOL))


def _joint_support(b: Builder, node: Node, depth: int) -> Node | None:
    """`_support` of what is made of several tangents."""
    name = node.op.name
    if name not in ("add", "sub", "mul", "concatenate", "scatter_set", "scatter_add"):
        return None
    count = {"scatter_set": 2, "scatter_add": 1}.get(name, len(node.args))
    parts = [_support(b, arg, depth - 1) for arg in node.args[:count]]
    if name in ("add", "sub"):
        return None if None in parts else b.emit("or", *parts)  # type: ignore[arg-type]
    if name == "mul":
        known = [part for part in parts if part is not None]
        return functools.reduce(lambda p, q: b.emit("and", p, q), known) if known else None
    filled = [_everywhere(b, x) if part is None else part for x, part in zip(node.args, parts, strict=False)]
    if name == "scatter_add":  # what it does not add to stays zero
        ones = b.convert(filled[0], dtype=node.dtype)
        return b.ne(b.emit(node.op, ones, *node.args[1:], **node.attrs), b.full(0.0, node.type))
    if all(part is None for part in parts):
        return None
    return b.emit(node.op, *filled, *node.args[count:], **node.attrs)


def lift_mask(b: Builder, node: Node) -> Node:
    """Push a selection outward past one linear step that was just built on a masked cotangent.

    Covers negation, conversion, moves of elements, sums over axes as far as the condition is constant along
    them, and additions of two masked cotangents (which are masked where both are).
    """
    name = node.op.name
    if name == "select":
        mask = peel(b, node)
        return (
            node
            if mask is None or mask.value in node.args
            else remask(b, mask.condition, mask.taken, mask.value)
        )
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
    """``select(c, x, 0) + select(c, 0, y)`` is ``select(c, x, y)``; masks inside the branches stay
    outermost.
    """
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
