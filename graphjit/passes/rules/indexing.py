"""Rules on gathers and scatters at known positions: they become slices, which are views and need no check."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.passes.rules.rule import Rule


class Ramp(NamedTuple):
    """Evenly spaced positions: ``start``, ``start + step`` ... (``length`` of them, ``step`` not 0)."""

    start: int
    length: int
    step: int


def _ramp(index: Node, size: int) -> Ramp | None:
    """The positions that a constant index node holds, when they are in range and evenly spaced."""
    if not index.is_const or not index.type.size:
        return None
    value: Any = index.attrs["value"]
    flat = value.array.reshape(-1)
    if flat.min() < -size or flat.max() >= size:
        return None
    flat = np.where(flat < 0, flat + size, flat)
    step = int(flat[1] - flat[0]) if flat.size > 1 else 1
    if step == 0 or (np.diff(flat) != step).any():
        return None
    return Ramp(int(flat[0]), flat.size, step)


def _along(axis: int, ndim: int, value: int, other: int) -> tuple[int, ...]:
    return tuple(value if i == axis else other for i in range(ndim))


def _gather_ramp(b: Builder, node: Node) -> Node | None:
    axes: Any = node.attrs["axes"]
    if len(axes) != 1:
        return None
    x, index = node.args
    (axis,) = axes
    ramp = _ramp(index, x.shape[axis])
    if ramp is None:
        return None
    last = ramp.start + (ramp.length - 1) * ramp.step
    low, high = min(ramp.start, last), max(ramp.start, last)
    ndim = len(x.shape)
    value = b.slice(
        x,
        starts=_along(axis, ndim, low, 0),
        limits=tuple(high + 1 if i == axis else n for i, n in enumerate(x.shape)),
        steps=_along(axis, ndim, abs(ramp.step), 1),
    )
    if ramp.step < 0:
        value = b.flip(value, axes=(axis,))
    value = b.transpose(value, perm=(axis, *(i for i in range(ndim) if i != axis)))
    return b.reshape(value, shape=node.shape)


def _scatter_ramp(b: Builder, node: Node) -> Node | None:
    axes: Any = node.attrs["axes"]
    if len(axes) != 1:
        return None
    updates, index = node.args
    (axis,) = axes
    ramp = _ramp(index, node.shape[axis])
    if ramp is None:
        return None
    ndim = len(node.shape)
    value = b.reshape(updates, shape=(ramp.length, *(n for i, n in enumerate(node.shape) if i != axis)))
    value = b.transpose(value, perm=(*range(1, axis + 1), 0, *range(axis + 1, ndim)))
    if ramp.step < 0:
        value = b.flip(value, axes=(axis,))
    low = min(ramp.start, ramp.start + (ramp.length - 1) * ramp.step)
    return b.embed(
        value,
        shape=node.shape,
        starts=_along(axis, ndim, low, 0),
        steps=_along(axis, ndim, abs(ramp.step), 1),
    )


RULES = (
    Rule(
        "gather_ramp",
        ("gather",),
        _gather_ramp,
        "x[[3, 5, 7]] with known, evenly spaced positions in range -> slice.",
    ),
    Rule(
        "scatter_ramp",
        ("scatter_add",),
        _scatter_ramp,
        "scatter_add at known, evenly spaced positions -> embed.",
        bound="a zero keeps its sign where 0.0 + -0.0 gave 0.0",
    ),
)
