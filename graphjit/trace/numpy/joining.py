"""Joining, taking apart and repeating: concatenate, the stack family, append, block, the split family,
unstack, tile, repeat, resize.

Joined arrays of several dtypes promote as in ``np.result_type``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.ir.node import Node
from graphjit.trace.numpy.arguments import (
    as_dtype,
    axis_number,
    checked_dtype,
    common_dtype,
    given,
    integers,
    node_of,
    refuse,
    tracing,
    wrap,
)
from graphjit.trace.numpy.shapes import (
    along_axis,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    flattened,
    joined,
    sliced,
)
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements


def sequence(arrays: Any) -> list[Any]:
    """The arrays of a list, a tuple, or the rows of one array."""
    return list(arrays)


def _nodes(trace: Trace, arrays: list[Any], dtype: Any, casting: Any) -> list[Node]:
    """The arrays in their common dtype, or in ``dtype`` as far as ``casting`` allows."""
    if not arrays:
        raise ValueError("need at least one array to concatenate")
    nodes = [node_of(trace, array) for array in arrays]
    target = checked_dtype(dtype) if given(dtype) else common_dtype(*[node.dtype for node in nodes])
    for node in nodes:
        if not np.can_cast(node.dtype, target, casting):
            raise TypeError(
                f"Cannot cast array data from {node.dtype!r} to {target!r} according to the rule '{casting}'"
            )
    return [trace.convert(node, target) for node in nodes]


def _concatenated(trace: Trace, nodes: list[Node], axis: Any) -> Node:
    """Concatenation after NumPy's checks of axis and shapes; axis None joins the flat arrays."""
    if axis is None:
        return joined(trace, [flattened(trace, node) for node in nodes], 0)
    ndim = len(nodes[0].shape)
    if ndim == 0:
        raise ValueError("zero-dimensional arrays cannot be concatenated")
    number = axis_number(axis, ndim)
    first = nodes[0].shape
    for position, node in enumerate(nodes):
        if len(node.shape) != ndim:
            raise ValueError(
                "all the input array dimensions except for the concatenation axis must match exactly, but along dimension 0, the "
                f"array at index 0 has {ndim} dimension(s) and the array at index {position} has {len(node.shape)} dimension(s)"
            )
        for i, (n, m) in enumerate(zip(first, node.shape, strict=True)):
            if i != number and n != m:
                raise ValueError(
                    "all the input array dimensions except for the concatenation axis must match exactly, but along dimension "
                    f"{i}, the array at index 0 has size {n} and the array at index {position} has size {m}"
                )
    return joined(trace, nodes, number)


@implements(np.concatenate)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Tracer:
    """np.concatenate."""
    refuse("concatenate", out=out)
    trace = tracing()
    return wrap(trace, _concatenated(trace, _nodes(trace, sequence(arrays), dtype, casting), axis))


@implements(np.stack)
def stack(
    arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Tracer:
    """np.stack."""
    refuse("stack", out=out)
    trace = tracing()
    items = sequence(arrays)
    if not items:
        raise ValueError("need at least one array to stack")
    nodes = _nodes(trace, items, dtype, casting)
    if len({node.shape for node in nodes}) != 1:
        raise ValueError(f"all input arrays must have the same shape (at {user_location()})")
    shape = nodes[0].shape
    number = axis_number(axis, len(shape) + 1)
    grown = (*shape[:number], 1, *shape[number:])
    return wrap(
        trace,
        trace.emit("concatenate", *[trace.emit("reshape", node, shape=grown) for node in nodes], axis=number),
    )


def _grown(grow: Any, tup: Any) -> list[Any]:
    """Each array with the axes that ``grow`` adds."""
    items = sequence(tup)
    if not items:
        raise ValueError("need at least one array to concatenate")
    return [grow(item) for item in items]


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Tracer:
    """np.vstack."""
    return concatenate(_grown(atleast_2d, tup), 0, dtype=dtype, casting=casting)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Tracer:
    """np.hstack."""
    items = _grown(atleast_1d, tup)
    return concatenate(items, 0 if items[0].ndim == 1 else 1, dtype=dtype, casting=casting)


@implements(np.dstack)
def dstack(tup: Any) -> Tracer:
    """np.dstack."""
    return concatenate(_grown(atleast_3d, tup), 2)


@implements(np.column_stack)
def column_stack(tup: Any) -> Tracer:
    """np.column_stack."""
    trace = tracing()
    columns = []
    for item in sequence(tup):
        x = node_of(trace, item)
        columns.append(
            wrap(trace, trace.emit("reshape", x, shape=(x.type.size, 1)) if len(x.shape) < 2 else x)
        )
    return concatenate(columns, 1)


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Tracer:
    """np.append."""
    return concatenate([arr, values], axis)


@implements(np.block)
def block(arrays: Any) -> Tracer:
    """np.block."""
    depth, ndim = _block_depth(arrays)
    return _block(arrays, depth, max(depth, ndim))


def _block_depth(arrays: Any) -> tuple[int, int]:
    """How deep the lists are nested, and the most axes of an array in them."""
    if not isinstance(arrays, list):
        return 0, np.ndim(arrays)
    if not arrays:
        raise ValueError("List at arrays cannot be empty")
    inner = [_block_depth(item) for item in arrays]
    if len({depth for depth, _ in inner}) != 1:
        raise ValueError("List depths are mismatched.")
    return inner[0][0] + 1, max(ndim for _, ndim in inner)


def _block(arrays: Any, depth: int, ndim: int) -> Tracer:
    """The lists joined from the innermost outwards: the innermost along the last axis."""
    trace = tracing()
    if depth == 0:
        x = node_of(trace, arrays)
        return wrap(trace, trace.emit("reshape", x, shape=(1,) * (ndim - len(x.shape)) + x.shape))
    return concatenate([_block(item, depth - 1, ndim) for item in arrays], ndim - depth)


# ------------------------------------------------------------------------------------------------------ split


def _pieces(trace: Trace, x: Node, cuts: Sequence[int], axis: int) -> list[Tracer]:
    """The parts of ``x`` between the cuts."""
    size = x.shape[axis]
    pieces = []
    for start, stop in zip((0, *cuts), (*cuts, size), strict=True):
        low, high, _ = slice(start, stop).indices(size)
        pieces.append(wrap(trace, sliced(trace, x, axis, low, max(low, high))))
    return pieces


def array_split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tracer]:
    """np.array_split."""
    trace = tracing()
    x = node_of(trace, ary)
    number = axis_number(axis, len(x.shape))
    if np.ndim(indices_or_sections):
        return _pieces(trace, x, [int(i) for i in integers(indices_or_sections, "split points")], number)
    (sections,) = integers(indices_or_sections, "the number of sections")
    if sections <= 0:
        raise ValueError("number sections must be larger than 0.")
    each, extra = divmod(x.shape[number], sections)
    sizes = [each + 1] * extra + [each] * (sections - extra)
    return _pieces(trace, x, [sum(sizes[: i + 1]) for i in range(sections - 1)], number)


def split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tracer]:
    """np.split."""
    if not np.ndim(indices_or_sections):
        (sections,) = integers(indices_or_sections, "the number of sections")
        if sections <= 0 or np.shape(ary)[axis] % sections:
            raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def hsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """np.hsplit."""
    if np.ndim(ary) == 0:
        raise ValueError("hsplit only works on arrays of 1 or more dimensions")
    return split(ary, indices_or_sections, 1 if np.ndim(ary) > 1 else 0)


def vsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """np.vsplit."""
    if np.ndim(ary) < 2:
        raise ValueError("vsplit only works on arrays of 2 or more dimensions")
    return split(ary, indices_or_sections, 0)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """np.dsplit."""
    if np.ndim(ary) < 3:
        raise ValueError("dsplit only works on arrays of 3 or more dimensions")
    return split(ary, indices_or_sections, 2)


def unstack(x: Any, /, *, axis: Any = 0) -> tuple[Tracer, ...]:
    """np.unstack."""
    trace = tracing()
    node = node_of(trace, x)
    if not node.shape:
        raise ValueError("Input array must be at least 1-d.")
    number = axis_number(axis, len(node.shape))
    rest = node.shape[:number] + node.shape[number + 1 :]
    parts = (sliced(trace, node, number, i, i + 1) for i in range(node.shape[number]))
    return tuple(wrap(trace, trace.emit("reshape", part, shape=rest)) for part in parts)


# ------------------------------------------------------------------------------------------------- repetition


def tile(A: Any, reps: Any) -> Tracer:
    """np.tile."""
    trace = tracing()
    x = node_of(trace, A)
    counts = integers(reps, "reps")
    ndim = max(len(counts), len(x.shape))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - len(x.shape)) + x.shape
    between = trace.emit("reshape", x, shape=tuple(n for size in shape for n in (1, size)))
    copies = trace.broadcast(between, tuple(n for pair in zip(counts, shape, strict=True) for n in pair))
    return wrap(
        trace, trace.emit("reshape", copies, shape=tuple(c * n for c, n in zip(counts, shape, strict=True)))
    )


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Tracer:
    """np.repeat by static counts."""
    trace = tracing()
    x, number = along_axis(trace, node_of(trace, a), axis)
    counts = integers(repeats, "repeats")
    if any(count < 0 for count in counts):
        raise ValueError("repeats may not contain negative values.")
    before, size, after = x.shape[:number], x.shape[number], x.shape[number + 1 :]
    if len(counts) == 1:
        tall = trace.emit("reshape", x, shape=(*before, size, 1, *after))
        wide = trace.broadcast(tall, (*before, size, counts[0], *after))
        return wrap(trace, trace.emit("reshape", wide, shape=(*before, size * counts[0], *after)))
    if len(counts) != size:
        raise ValueError(f"operands could not be broadcast together with shape ({size},) ({len(counts)},)")
    pieces = [
        trace.broadcast(sliced(trace, x, number, i, i + 1), (*before, count, *after))
        for i, count in enumerate(counts)
        if count
    ]
    return wrap(trace, joined(trace, pieces, number) if pieces else sliced(trace, x, number, 0, 0))


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Tracer:
    """np.resize: the flat values again and again."""
    trace = tracing()
    x = node_of(trace, a)
    shape = integers(new_shape, "new_shape")
    if any(n < 0 for n in shape):
        raise ValueError("all elements of `new_shape` must be non-negative")
    total = math.prod(shape)
    flat = flattened(trace, x)
    if not x.type.size:
        return wrap(trace, as_dtype(trace, np.zeros(shape), x.dtype))
    copies = tile(wrap(trace, flat), -(-total // x.type.size))._node
    return wrap(trace, trace.emit("reshape", sliced(trace, copies, 0, 0, total), shape=shape))
