"""Differences, sums over a grid, sliding products, polynomials: diff, ediff1d, gradient, trapezoid, convolve,
correlate, polyval, sinc.

All are composed of other operations, as in NumPy, except for convolve and correlate: both are the op
``correlate``, convolve with one series reversed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, F32
from graphjit.trace.numpy.arguments import (
    ABSENT,
    axis_number,
    inexact,
    node_of,
    promoted,
    tracer_of,
    tracing,
    wrap,
)
from graphjit.trace.numpy.joining import concatenate
from graphjit.trace.numpy.reductions import sum_
from graphjit.trace.numpy.shapes import flattened, sliced, with_size
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements


def _part(trace: Trace, x: Tracer, axis: int, start: int, stop: int, step: int = 1) -> Tracer:
    """``x[start:stop:step]`` on one axis."""
    return wrap(trace, sliced(trace, x._node, axis, start, stop, step))


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: Any = -1, prepend: Any = ABSENT, append: Any = ABSENT) -> Tracer:
    """np.diff."""
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n!r}")
    value = tracer_of(a)
    if n == 0:
        return value
    if not value.ndim:
        raise ValueError("diff requires input that is at least one dimensional")
    trace = tracing()
    number = axis_number(axis, value.ndim)
    parts: list[Any] = [value]
    thin = with_size(value.shape, number, 1)
    for extra, front in ((prepend, True), (append, False)):
        if extra is not ABSENT:
            edge = tracer_of(extra)
            edge = edge if edge.ndim else wrap(trace, trace.broadcast(edge._node, thin))
            parts.insert(0 if front else len(parts), edge)
    value = concatenate(parts, number) if len(parts) > 1 else value
    for _ in range(n):
        size = value.shape[number]
        high, low = (
            _part(trace, value, number, min(1, size), size),
            _part(trace, value, number, 0, max(size - 1, 0)),
        )
        value = trace.ufunc(np.not_equal if value.dtype.kind == "b" else np.subtract, high, low)
    return value


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Tracer:
    """np.ediff1d."""
    trace = tracing()
    x = node_of(trace, ary)
    flat, size = wrap(trace, flattened(trace, x)), x.type.size
    steps = trace.ufunc(
        np.subtract, _part(trace, flat, 0, min(1, size), size), _part(trace, flat, 0, 0, max(size - 1, 0))
    )
    ends: list[Any] = []
    for extra in (to_begin, to_end):
        if extra is not None:
            node = node_of(trace, extra)
            if not np.can_cast(node.dtype, x.dtype, "same_kind"):
                raise TypeError(
                    "dtype of `to_begin` or `to_end` must be compatible with input `ary` under the `same_kind` rule."
                )
            node = trace.convert(node, x.dtype)
            ends.append(wrap(trace, flattened(trace, node)))
        else:
            ends.append(None)
    return concatenate([part for part in (ends[0], steps, ends[1]) if part is not None])


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """np.gradient: second-order central differences (on uneven grids as in NumPy), first or second order at
    the edges.
    """
    trace = tracing()
    node = node_of(trace, f)
    value = wrap(
        trace, node if node.dtype.kind == "b" else inexact(trace, node)
    )  # differences of bools are NumPy's error
    axes = tuple(range(value.ndim)) if axis is None else normalize_axis_tuple(axis, value.ndim)
    if edge_order > 2:
        raise ValueError("'edge_order' greater than 2 not supported")
    spacing: list[Any] = list(varargs) if varargs else [1.0]
    if len(spacing) == 1 and np.ndim(spacing[0]) == 0:
        spacing = spacing * len(axes)
    if len(spacing) != len(axes):
        raise TypeError("invalid number of arguments")
    slopes = [_slope(trace, value, number, h, edge_order) for number, h in zip(axes, spacing, strict=True)]
    slopes = [wrap(trace, trace.convert(slope._node, value.dtype)) for slope in slopes]
    return slopes[0] if len(axes) == 1 else tuple(slopes)


def _slope(trace: Trace, f: Any, axis: int, h: Any, edge_order: int) -> Any:
    """The derivative of ``f`` along one axis, with the spacing or the coordinates ``h``."""
    size = f.shape[axis]
    if size < edge_order + 1:
        raise ValueError(
            "Shape of array too small to calculate a numerical gradient, at least (edge_order + 1) elements are required."
        )

    def at(start: int, stop: int) -> Any:
        return _part(trace, f, axis, start, stop)

    left, mid, right = at(0, size - 2), at(1, size - 1), at(2, size)
    if np.ndim(h) == 0:
        inner = (right - left) / (2.0 * h)
        if edge_order == 1:
            first, last = (at(1, 2) - at(0, 1)) / h, (at(size - 1, size) - at(size - 2, size - 1)) / h
        else:
            first = -1.5 / h * at(0, 1) + 2.0 / h * at(1, 2) + -0.5 / h * at(2, 3)
            last = (
                0.5 / h * at(size - 3, size - 2)
                + -2.0 / h * at(size - 2, size - 1)
                + 1.5 / h * at(size - 1, size)
            )
        return concatenate([first, inner, last], axis)
    grid = tracer_of(h)
    if grid.ndim != 1 or grid.shape[0] != size:
        raise ValueError("when 1d, distances must match the length of the corresponding dimension")
    steps: Any = diff(wrap(trace, inexact(trace, grid._node)))
    column = (-1,) + (1,) * (f.ndim - 1 - axis)

    def step(start: int, stop: int) -> Any:
        return np.reshape(_part(trace, steps, 0, start, stop), column)

    d1, d2 = step(0, size - 2), step(1, size - 1)
    inner = -d2 / (d1 * (d1 + d2)) * left + (d2 - d1) / (d1 * d2) * mid + d1 / (d2 * (d1 + d2)) * right
    if edge_order == 1:
        first = (at(1, 2) - at(0, 1)) / step(0, 1)
        last = (at(size - 1, size) - at(size - 2, size - 1)) / step(size - 2, size - 1)
    else:
        a, b = step(0, 1), step(1, 2)
        first = (
            -(2.0 * a + b) / (a * (a + b)) * at(0, 1)
            + (a + b) / (a * b) * at(1, 2)
            + -a / (b * (a + b)) * at(2, 3)
        )
        a, b = step(size - 3, size - 2), step(size - 2, size - 1)
        last = (
            b / (a * (a + b)) * at(size - 3, size - 2)
            + -(b + a) / (a * b) * at(size - 2, size - 1)
            + (2.0 * b + a) / (b * (a + b)) * at(size - 1, size)
        )
    return concatenate([first, inner, last], axis)


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: Any = -1) -> Any:
    """np.trapezoid."""
    trace = tracing()
    value = tracer_of(y)
    number = axis_number(axis, value.ndim)
    size = value.shape[number]
    width: Any = dx
    if x is not None:
        grid = tracer_of(x)
        width = diff(grid, axis=0 if grid.ndim == 1 else axis)
        if grid.ndim == 1:
            width = np.reshape(width, tuple(-1 if i == number else 1 for i in range(value.ndim)))
    high: Any = _part(trace, value, number, min(1, size), size)
    low: Any = _part(trace, value, number, 0, max(size - 1, 0))
    return sum_(width * (high + low) / 2.0, number)


# ----------------------------------------------------------------------------------------- products of series


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Tracer:
    """np.convolve."""
    trace = tracing()
    x, y = _series(trace, a, v)
    if not x.shape[0] or not y.shape[0]:
        raise ValueError(f"{'v' if x.shape[0] else 'a'} cannot be empty (at {user_location()})")
    if y.shape[0] > x.shape[0]:
        x, y = y, x
    return _slide(trace, x, trace.emit("flip", y, axes=(0,)), mode)


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Tracer:
    """np.correlate; the results stand in the opposite order where the second series is the longer one, as in
    NumPy.
    """
    trace = tracing()
    if not np.ndim(a) or not np.ndim(v):
        raise ValueError(
            f"object of too small depth for desired array: np.correlate needs series (at {user_location()})"
        )
    x, y = _series(trace, a, v)
    if not x.shape[0] or not y.shape[0]:
        raise ValueError(
            f"{'second' if x.shape[0] else 'first'} array argument cannot be empty (at {user_location()})"
        )
    if y.shape[0] <= x.shape[0]:
        return _slide(trace, x, y, mode)
    reversed_result = _slide(trace, y, x, mode)
    return wrap(trace, trace.emit("flip", reversed_result._node, axes=(0,)))


def _series(trace: Trace, a: Any, v: Any) -> tuple[Node, Node]:
    """Two series of one dtype; a number is a series of one element."""
    x, y = promoted(trace, tracer_of(a), tracer_of(v))
    x, y = (node if node.shape else trace.emit("reshape", node, shape=(1,)) for node in (x, y))
    if len(x.shape) > 1 or len(y.shape) > 1:
        raise ValueError(
            f"object too deep for desired array: series have one axis, not shapes {x.shape} and {y.shape} (at {user_location()})"
        )
    return x, y


def _slide(trace: Trace, x: Node, w: Node, mode: Any) -> Tracer:
    """The correlation of a series with one that is not longer."""
    n, m = x.shape[0], w.shape[0]
    modes = {"full": (m - 1, n + m - 1), "same": (m // 2, n), "valid": (0, n - m + 1)}
    if mode not in modes:
        raise ValueError(
            f"mode must be one of 'valid', 'same', or 'full' (got {mode!r}) (at {user_location()})"
        )
    low, length = modes[mode]
    if x.dtype.kind == "b":  # any of ands: a sum of ones is not 0, even where float32 no longer counts them
        counts = trace.emit("correlate", trace.convert(x, F32), trace.convert(w, F32), low=low, length=length)
        return wrap(trace, trace.convert(counts, BOOL))
    return wrap(trace, trace.emit("correlate", x, w, low=low, length=length))


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """np.polyval by Horner's rule."""
    trace = tracing()
    coefficients = node_of(trace, p)
    value = tracer_of(x)
    result: Any = np.zeros_like(value)
    if not coefficients.shape:
        raise TypeError(
            f"iteration over a 0-d array: np.polyval needs a sequence of coefficients (at {user_location()})"
        )
    for i in range(coefficients.shape[0]):
        term = wrap(
            trace,
            trace.emit("reshape", sliced(trace, coefficients, 0, i, i + 1), shape=coefficients.shape[1:]),
        )
        result = result * value + term
    return result


_SINC_SERIES = [(-1) ** k / math.factorial(2 * k + 1) for k in range(11)]
"""Taylor coefficients of sin(t) / t in t**2: the first ten derivatives, too, are right to the last few bits
for t < 1.
"""


@implements(np.sinc)
def sinc(x: Any) -> Any:
    """np.sinc; at 0 the value is 1 and the derivative 0.

    Near 0 it is a series: the derivative of the quotient is a difference of two terms of size 1/x, which
    leaves nothing of it there.
    """
    value = tracer_of(x)
    scaled: Any = np.pi * value
    one = scaled.dtype.type(1)
    near: Any = np.abs(scaled) < one
    square = scaled * scaled
    series: Any = scaled.dtype.type(_SINC_SERIES[-1])
    for coefficient in reversed(_SINC_SERIES[:-1]):
        series = series * square + scaled.dtype.type(coefficient)
    safe: Any = np.where(near, one, scaled)
    return np.where(near, series, np.sin(safe) / safe)
