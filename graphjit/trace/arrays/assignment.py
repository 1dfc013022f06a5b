"""Which nodes an assignment makes: the new value of an array after ``x[key] = value``, ``x[mask] = value`` or
``np.add.at``.

Input: the old node, a `Plan` of the key (or a mask), the value. Output: the node of the whole array
afterwards. Its counterpart is `indexing.read`.
Invariants: nothing is mutated; a box along one axis is a concatenation, another box an `embed` under a mask,
integer arrays one `scatter_set`; the value is converted to the array's dtype as NumPy does (unsafe casting)
and broadcast to the indexed part.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL
from graphjit.trace.arrays.indexing import Plan, boxed, index_nodes, kept_axes, placed
from graphjit.trace.numpy.arguments import as_bool, as_dtype, full, unchecked
from graphjit.trace.numpy.shapes import sliced
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace


def fitted(trace: Trace, value: Any, dtype: np.dtype, shape: tuple[int, ...]) -> Node:
    """A value to be written, in dtype and shape of the place.

    Raises:
        ValueError: it does not broadcast to the place.
    """
    node = as_dtype(trace, value, dtype)
    if node.type.shape == shape:
        return node
    extra = len(node.shape) - len(shape)
    if extra > 0 and all(n == 1 for n in node.shape[:extra]):  # NumPy drops leading axes of length 1 here
        node = trace.emit("reshape", node, shape=node.shape[extra:])
    lead = len(shape) - len(node.shape)
    if lead < 0 or any(n not in (1, shape[lead + i]) for i, n in enumerate(node.shape)):
        raise ValueError(
            f"could not broadcast input array from shape {node.shape} into shape {shape} (at {user_location()})"
        )
    return trace.broadcast(node, shape)


def write(trace: Trace, x: Node, p: Plan, value: Any) -> Node:
    """``x`` after ``x[key] = value``."""
    shape = np.shape(value)
    if (
        not p.basic and 0 in p.final and 0 in shape
    ):  # of nothing written to nothing, NumPy does not look at leading axes
        value = np.zeros(shape[max(0, len(shape) - len(p.final)) :], x.dtype)
    part = fitted(trace, value, x.dtype, p.final)
    if not part.type.size:
        return x
    if p.basic:
        return _write_box(trace, x, p, trace.emit("reshape", part, shape=tuple(p.counts)))
    kept, axes = kept_axes(p)
    part = _for_scatter(trace, part, p, kept)
    box = trace.emit("reshape", boxed(trace, x, p), shape=tuple(p.counts[i] for i in kept))
    box = trace.emit("scatter_set", box, part, *index_nodes(trace, p.indices, p.index_shape), axes=axes)
    return _write_box(trace, x, p, trace.emit("reshape", box, shape=tuple(p.counts)))


def _for_scatter(trace: Trace, part: Node, p: Plan, kept: list[int]) -> Node:
    """A value to be scattered: in the shape of the indexed part, with the index axes in front."""
    rest = tuple(p.counts[i] for i in kept if i not in p.axes)
    moved = (*rest[: p.lead], *p.index_shape, *rest[p.lead :])
    order = placed(p, len(moved))
    part = trace.emit("reshape", part, shape=moved)
    return trace.emit("transpose", part, perm=tuple(sorted(range(len(order)), key=order.__getitem__)))


def _write_box(trace: Trace, x: Node, p: Plan, part: Node) -> Node:
    """``x`` with its box replaced by ``part`` (same number of axes)."""
    if p.flipped:
        part = trace.emit("flip", part, axes=tuple(p.flipped))
    partial = [
        axis for axis, (count, size) in enumerate(zip(p.counts, x.shape, strict=True)) if count != size
    ]
    if not partial:
        return part
    if part.op.name == "slice" and part is boxed(trace, x, p):
        return x  # what ``x[key] += y`` writes back was written already
    if len(partial) == 1 and p.steps[partial[0]] == 1:
        axis = partial[0]
        start, stop, size = p.starts[axis], p.starts[axis] + p.counts[axis], x.shape[axis]
        pieces = [part]
        if start:
            pieces.insert(0, sliced(trace, x, axis, 0, start))
        if stop < size:
            pieces.append(sliced(trace, x, axis, stop, size))
        return trace.emit("concatenate", *pieces, axis=axis)
    position: dict[str, Any] = {"shape": x.shape, "starts": tuple(p.starts), "steps": tuple(p.steps)}
    mask = trace.emit("embed", full(trace, True, BOOL, part.shape), **position)
    return trace.emit("select", mask, trace.emit("embed", part, **position), x)


def write_mask(trace: Trace, x: Node, mask: Node, value: Any) -> Node:
    """``x`` after ``x[mask] = value`` with a mask that is only known at run time: a select.

    Raises:
        TraceError: the value has one element for each selected one, whose number is unknown.
        IndexError: the mask does not fit.
    """
    if mask.shape != x.shape[: len(mask.shape)]:
        raise IndexError(
            f"boolean index of shape {mask.shape} does not match an array of shape {x.shape} (at {user_location()})"
        )
    rest = x.shape[len(mask.shape) :]
    value = unchecked(value)
    node = as_dtype(trace, value, x.dtype)
    ones = len(node.shape) - len(rest)
    if ones > 0 and any(n != 1 for n in node.shape[:ones]):
        raise TraceError(
            f"x[mask] = value with one element for each True at {user_location()}: how many there are is only known when the compiled code "
            "runs. Use x[...] = np.where(mask, values, x) with values of x's own shape."
        )
    part = trace.broadcast(fitted(trace, value, x.dtype, rest), x.shape)
    spread = trace.emit("reshape", as_bool(trace, mask), shape=mask.shape + (1,) * len(rest))
    return trace.emit("select", trace.broadcast(spread, x.shape), part, x)


def add_at(trace: Trace, x: Node, p: Plan, value: Any) -> Node:
    """``x`` after ``np.add.at(x, key, value)``: repeated positions add up."""
    if np.ndim(value) > len(p.final):
        raise ValueError(f"array is not broadcastable to correct shape (at {user_location()})")
    part = fitted(trace, value, x.dtype, p.final)
    if p.basic:
        box = trace.emit("reshape", part, shape=tuple(p.counts))
    else:
        kept, axes = kept_axes(p)
        part = _for_scatter(trace, part, p, kept)
        shape = tuple(p.counts[i] for i in kept)
        added = trace.emit(
            "scatter_add", part, *index_nodes(trace, p.indices, p.index_shape), shape=shape, axes=axes
        )
        box = trace.emit("reshape", added, shape=tuple(p.counts))
    if p.flipped:
        box = trace.emit("flip", box, axes=tuple(p.flipped))
    if tuple(p.counts) != x.shape:
        box = trace.emit("embed", box, shape=x.shape, starts=tuple(p.starts), steps=tuple(p.steps))
    return trace.emit("add", x, box)
