"""Diagonals and triangles: diagonal, trace, diag, diagflat, tril, triu, vander.

A diagonal is a strided slice of the flattened matrix, and a matrix with a given diagonal is the op `embed`,
so that neither needs positions to gather from.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from graphjit.ir.node import Node
from graphjit.trace.numpy.arguments import axis_number, full, given, node_of, refuse, tracing, wrap
from graphjit.trace.numpy.reductions import sum_
from graphjit.trace.numpy.shapes import flattened
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements


def diagonal_node(trace: Trace, x: Node, offset: int, axis1: int, axis2: int) -> Node:
    """The diagonal of two axes, as the last axis."""
    rest = [i for i in range(len(x.shape)) if i not in (axis1, axis2)]
    rows, columns = x.shape[axis1], x.shape[axis2]
    x = trace.emit("transpose", x, perm=(*rest, axis1, axis2))
    lead = x.shape[:-2]
    length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    flat = trace.emit("reshape", x, shape=(*lead, rows * columns))
    start = offset if offset >= 0 else -offset * columns
    whole = (0,) * len(lead)
    if not length:
        return trace.emit("slice", flat, starts=(*whole, 0), limits=(*lead, 0), steps=(1,) * (len(lead) + 1))
    return trace.emit(
        "slice",
        flat,
        starts=(*whole, start),
        limits=(*lead, start + (length - 1) * (columns + 1) + 1),
        steps=(*(1 for _ in lead), columns + 1),
    )


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tracer:
    """np.diagonal."""
    offset = operator.index(offset)
    trace = tracing()
    x = node_of(trace, a)
    if len(x.shape) < 2:
        raise ValueError("diag requires an array of at least two dimensions")
    first, second = axis_number(axis1, len(x.shape)), axis_number(axis2, len(x.shape))
    if first == second:
        raise ValueError("axis1 and axis2 cannot be the same")
    return wrap(trace, diagonal_node(trace, x, offset, first, second))


def linalg_diagonal(x: Any, /, *, offset: int = 0) -> Tracer:
    """np.linalg.diagonal."""
    return diagonal(x, offset, -2, -1)


@implements(np.trace)
def trace(
    a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None
) -> Tracer:
    """np.trace."""
    refuse("trace", out=out)
    return sum_(diagonal(a, offset, axis1, axis2), -1, dtype)


@implements(np.linalg.trace)
def linalg_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tracer:
    """np.linalg.trace."""
    return trace(x, offset, -2, -1, dtype)


def diag(v: Any, k: int = 0) -> Tracer:
    """np.diag: matrix from a vector, or diagonal of a matrix."""
    k = operator.index(k)
    recorded = tracing()
    x = node_of(recorded, v)
    if len(x.shape) == 2:
        return wrap(recorded, diagonal_node(recorded, x, k, 0, 1))
    if len(x.shape) != 1:
        raise ValueError("Input must be 1- or 2-d.")
    side = x.shape[0] + abs(k)
    if not x.shape[0]:
        return wrap(recorded, full(recorded, 0, x.dtype, (side, side)))
    start = k if k >= 0 else -k * side
    flat = recorded.emit("embed", x, shape=(side * side,), starts=(start,), steps=(side + 1,))
    return wrap(recorded, recorded.emit("reshape", flat, shape=(side, side)))


@implements(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Tracer:
    """np.diagflat."""
    recorded = tracing()
    x = node_of(recorded, v)
    return diag(wrap(recorded, flattened(recorded, x)), k)


def _triangle(m: Any, k: int, lower: bool) -> Tracer:
    """The elements with column <= row + k (lower) or column > row + k; zero elsewhere."""
    recorded = tracing()
    x = node_of(recorded, m)
    if not x.shape:
        raise TypeError(f"tril and triu need at least one axis (at {user_location()})")
    if len(x.shape) == 1:  # NumPy broadcasts a vector against the square mask
        x = recorded.broadcast(x, x.shape * 2)
    index = np.dtype(np.int64)
    plane = x.shape[-2:]
    rows = recorded.emit("iota", dtype=index, shape=plane, axis=0)
    columns = recorded.emit("iota", dtype=index, shape=plane, axis=1)
    shifted = recorded.emit("add", rows, full(recorded, k, index, plane)) if k else rows
    mask = recorded.emit("ge" if lower else "lt", shifted, columns)
    mask = recorded.broadcast(mask, x.shape)
    return wrap(recorded, recorded.emit("select", mask, x, full(recorded, 0, x.dtype, x.shape)))


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Tracer:
    """np.tril."""
    return _triangle(m, k, lower=True)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Tracer:
    """np.triu."""
    return _triangle(m, k - 1, lower=False)


@implements(np.vander)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tracer:
    """np.vander."""
    recorded = tracing()
    node = node_of(recorded, x)
    if len(node.shape) != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    count = node.shape[0] if not given(N) else int(N)  # type: ignore[arg-type]
    node = recorded.convert(node, np.promote_types(node.dtype, np.int64))
    if not count:
        return wrap(recorded, full(recorded, 0, node.dtype, (node.shape[0], 0)))
    base = wrap(recorded, node)
    powers = [wrap(recorded, full(recorded, 1, node.dtype, node.shape))]
    while len(powers) < count:
        powers.append(powers[-1] * base)
    columns = powers[:count] if increasing else powers[:count][::-1]
    shape = (node.shape[0], 1)
    return wrap(
        recorded,
        recorded.emit(
            "concatenate", *[recorded.emit("reshape", c._node, shape=shape) for c in columns], axis=1
        ),
    )
