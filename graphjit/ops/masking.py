"""Cotangents that are zero outside a condition, ``select(condition, value, 0)``: taken apart and rebuilt.

Derivative rules use this so that the branch which ``np.where`` did not take contributes exactly zero.

Input: nodes of cotangents. Output: the same values in a normal form: one selection, outermost.
Invariant: nested selections are joined into one condition, so that a chain of n selections never carries n
masks along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Partials, Scalar, ZeroDerivative
from graphjit.ir.patterns import is_zero


class Masked(NamedTuple):
    """``value`` where ``condition`` is ``taken``, exactly zero elsewhere."""

    condition: Node
    taken: bool
    value: Node


def masked(ct: Node) -> Masked | None:
    """``ct`` taken apart, when it is ``select(condition, value, 0)`` or ``select(condition, 0, value)``."""
    if ct.op.name == "select":
        condition, x, y = ct.args
        if is_zero(y):
            return Masked(condition, True, x)
        if is_zero(x):
            return Masked(condition, False, y)
    return None


def peel(b: Builder, ct: Node) -> Masked | None:
    """`masked` with nested selections joined."""
    found = masked(ct)
    while found is not None and (inner := masked(found.value)) is not None:
        if (found.condition, found.taken) == (inner.condition, inner.taken):
            found = inner
        else:
            found = Masked(b.emit("and", holds(b, found), holds(b, inner)), True, inner.value)
    return found


def holds(b: Builder, mask: Masked) -> Node:
    """The condition under which the value may be other than zero."""
    return mask.condition if mask.taken else b.emit("not", mask.condition)


def remask(b: Builder, condition: Node, taken: bool, value: Node) -> Node:
    """The inverse of `masked`."""
    zero = b.full(0.0, value.type)
    return b.select(condition, value, zero) if taken else b.select(condition, zero, value)


def scale(b: Builder, ct: Node, local: Node) -> Node:
    """``ct * local``; ``select(c, t, 0) * p`` becomes ``select(c, t * p, 0)``: no 0 * inf outside the
    condition.
    """
    mask = peel(b, ct)
    if mask is None:
        return b.mul(ct, local)
    return remask(b, mask.condition, mask.taken, b.mul(mask.value, local))


def summed(b: Builder, ct: Node, axes: tuple[int, ...]) -> Node:
    """The sum of a cotangent over axes, with the selection outermost as far as it says something of whole
    rows.
    """
    mask = peel(b, ct)
    row = None if mask is None else along_rows(b, mask, axes)
    if mask is None or row is None:
        return b.sum(ct, axes=axes)
    return remask(b, row.condition, True, b.sum(mask.value if row.exact else ct, axes=axes))


class RowCondition(NamedTuple):
    """A condition that is necessary for any element of a row to be other than zero; ``exact`` when it is also
    sufficient.
    """

    condition: Node
    exact: bool


def along_rows(b: Builder, mask: Masked, axes: tuple[int, ...]) -> RowCondition | None:
    """What a mask says about whole rows: its parts that do not vary along ``axes``, with those axes
    removed.
    """
    return _row_condition(b, mask.condition, mask.taken, axes, DEPTH)


DEPTH = 8
"""How far below a condition its broadcasts are searched; deeper ones count as varying."""


def _row_condition(
    b: Builder, condition: Node, holding: bool, axes: tuple[int, ...], depth: int
) -> RowCondition | None:
    """What must hold of a row where ``condition`` holds (or, unless ``holding``, where it does not)."""
    name = condition.op.name
    if depth and name == "not":
        return _row_condition(b, condition.args[0], not holding, axes, depth - 1)
    if depth and name in ("and", "or"):
        parts = [_row_condition(b, arg, holding, axes, depth - 1) for arg in condition.args]
        return _either(b, parts) if (name == "or") == holding else _both(b, parts)
    row = without_axes(b, condition, axes, depth)
    return None if row is None else RowCondition(row if holding else b.emit("not", row), True)


def _both(b: Builder, parts: Sequence[RowCondition | None]) -> RowCondition | None:
    """The row condition of two that hold together: each of them is necessary, so one is enough."""
    one, other = parts
    if one is None or other is None:
        only = other if one is None else one
        return None if only is None else RowCondition(only.condition, False)
    return RowCondition(b.emit("and", one.condition, other.condition), one.exact and other.exact)


def _either(b: Builder, parts: Sequence[RowCondition | None]) -> RowCondition | None:
    """The row condition of two of which one holds: nothing is necessary unless both are known."""
    one, other = parts
    if one is None or other is None:
        return None
    return RowCondition(b.emit("or", one.condition, other.condition), one.exact and other.exact)


def without_axes(b: Builder, node: Node, axes: tuple[int, ...], depth: int = DEPTH) -> Node | None:
    """``node`` with ``axes`` removed, when it is an elementwise expression of broadcasts that do not vary
    along them.
    """
    if node.op.name == "broadcast_to":
        return _narrower_broadcast(b, node, axes)
    if not depth or not _is_pointwise(node):
        return None
    args = []
    for arg in node.args:
        row = without_axes(b, arg, axes, depth - 1)
        if row is None:
            return None
        args.append(row)
    return b.emit(node.op, *args)


def _narrower_broadcast(b: Builder, node: Node, axes: tuple[int, ...]) -> Node | None:
    """A broadcast with ``axes`` removed, when its argument does not vary along them."""
    inner = node.args[0]
    lead = len(node.shape) - len(inner.shape)
    if any(a >= lead and inner.shape[a - lead] != 1 for a in axes):
        return None
    kept = [a for a in range(len(node.shape)) if a not in axes]
    inner = b.reshape(inner, shape=tuple(inner.shape[a - lead] for a in kept if a >= lead))
    return b.broadcast_to(inner, shape=tuple(node.shape[a] for a in kept))


def _is_pointwise(node: Node) -> bool:
    """Whether each element of ``node`` is computed from the elements of its arguments at the same index, and
    from nothing else.
    """
    op = node.op
    if not isinstance(op.lower, Scalar) and not isinstance(op.derivative, Partials | ZeroDerivative):
        return False
    return bool(node.args) and not node.attrs and all(arg.shape == node.shape for arg in node.args)
