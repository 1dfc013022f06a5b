"""Masked cotangents: values known to be zero outside a condition.

Job: recognise ``select(condition, value, 0)``, take it apart and put it together again.
Input: nodes of cotangents.  Output: the same values in the normal form below.
Invariant: the normal form has one selection, outermost; nested selections are joined into one condition, so that a chain of n selections
never carries n masks along.
"""

from __future__ import annotations

from typing import NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
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
    """``ct * local``; ``select(c, t, 0) * p`` becomes ``select(c, t * p, 0)``, so 0 * inf never happens outside the condition."""
    mask = peel(b, ct)
    if mask is None:
        return b.mul(ct, local)
    return remask(b, mask.condition, mask.taken, b.mul(mask.value, local))


def without_axes(b: Builder, condition: Node, axes: tuple[int, ...]) -> Node | None:
    """The condition with ``axes`` removed, when it does not vary along them."""
    name = condition.op.name
    if name in ("and", "or", "not"):
        parts = [without_axes(b, arg, axes) for arg in condition.args]
        ready = [part for part in parts if part is not None]
        return b.emit(name, *ready) if len(ready) == len(parts) else None
    if name != "broadcast_to":
        return None
    inner = condition.args[0]
    lead = len(condition.shape) - len(inner.shape)
    if any(a >= lead and inner.shape[a - lead] != 1 for a in axes):
        return None
    kept = [a for a in range(len(condition.shape)) if a not in axes]
    inner = b.reshape(inner, shape=tuple(inner.shape[a - lead] for a in kept if a >= lead))
    return b.broadcast_to(inner, shape=tuple(condition.shape[a] for a in kept))
