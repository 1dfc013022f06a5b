"""Reductions and running values: sum, prod, mean, var, std, max, min, ptp, argmax, argmin, any, all,
count_nonzero, cumsum, cumprod, cumulative_sum, cumulative_prod.

All options of NumPy's are there: axis, keepdims, dtype, initial, where, ddof. So are its dtypes: small
integers and bools are summed in 64 bits, means of integers are float64, float32 stays float32. ``var`` passes
twice over the values, as in NumPy. ``std`` has derivative 0 where the variance is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.node import Node
from graphjit.ir.types import I64
from graphjit.trace.numpy.arguments import (
    ABSENT,
    as_bool,
    as_dtype,
    axes_tuple,
    axis_number,
    checked_dtype,
    full,
    given,
    inexact,
    node_of,
    reduced_axes,
    refuse,
    tracing,
    wrap,
)
from graphjit.trace.numpy.shapes import along_axis, flattened, with_size
from graphjit.trace.recording.tracer import Trace, Tracer, implements


def keep(trace: Trace, reduced: Node, shape: tuple[int, ...], axes: tuple[int, ...]) -> Node:
    """A reduced node with axes of length 1 where ``axes`` were."""
    return trace.emit("reshape", reduced, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))


def finish(
    trace: Trace, reduced: Node, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: Any
) -> Tracer:
    """The result with or without the reduced axes."""
    return wrap(trace, keep(trace, reduced, shape, axes) if given(keepdims) and keepdims else reduced)


def spread(trace: Trace, reduced: Node, shape: tuple[int, ...], axes: tuple[int, ...]) -> Node:
    """A reduced node back in ``shape``."""
    return trace.broadcast(keep(trace, reduced, shape, axes), shape)


def accumulator(dtype: np.dtype) -> np.dtype:
    """The dtype in which NumPy sums: at least 64 bit for integers and bools."""
    if dtype.kind in "bi" and dtype.itemsize < 8:
        return I64
    return np.dtype(np.uint64) if dtype.kind == "u" and dtype.itemsize < 8 else dtype


def masked(trace: Trace, x: Node, where: Any, fill: Node) -> Node:
    """``x`` with ``fill`` (0-d) where the mask is False."""
    if where is ABSENT or where is True or where is None:
        return x
    mask = trace.broadcast(as_bool(trace, node_of(trace, where)), x.shape)
    return trace.emit("select", mask, x, trace.broadcast(fill, x.shape))


def folded(trace: Trace, op: str, x: Node, axes: tuple[int, ...]) -> Node:
    """A reduction by an op such as "sum". NumPy's sums begin at 0.0, so that the sum of a single -0.0 is 0.0;
    the op's would be the element, so 0.0 is added.
    """
    result = trace.emit(op, x, axes=axes)
    alone = op == "sum" and x.dtype.kind == "f" and all(x.shape[a] == 1 for a in axes)
    return trace.emit("add", result, full(trace, 0, x.dtype, result.shape)) if alone else result


def _fold(
    op: str,
    ufunc: np.ufunc,
    identity: int,
    a: Any,
    axis: Any,
    dtype: Any,
    keepdims: Any,
    initial: Any,
    where: Any,
) -> Tracer:
    """A sum or product; ``initial`` is combined with the result by ``ufunc``."""
    trace = tracing()
    x = node_of(trace, a)
    x = trace.convert(x, checked_dtype(dtype) if given(dtype) else accumulator(x.dtype))
    if x.dtype.kind == "b":
        refuse(op, "dtype=bool sums are np.any or np.all", dtype=dtype)
    x = masked(trace, x, where, full(trace, identity, x.dtype, ()))
    axes = reduced_axes(axis, len(x.shape))
    result = finish(trace, folded(trace, op, x, axes), x.shape, axes, keepdims)
    return trace.ufunc(ufunc, result, as_scalar(trace, initial, x.dtype)) if given(initial) else result


def as_scalar(trace: Trace, value: Any, dtype: np.dtype) -> Tracer:
    """An ``initial`` value in the reduction's dtype."""
    return wrap(trace, as_dtype(trace, value, dtype))


@implements(np.sum)
def sum_(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = ABSENT,
    where: Any = True,
) -> Tracer:
    """np.sum."""
    refuse("sum", out=out)
    return _fold("sum", np.add, 0, a, axis, dtype, keepdims, initial, where)


@implements(np.prod)
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = ABSENT,
    where: Any = True,
) -> Tracer:
    """np.prod."""
    refuse("prod", out=out)
    return _fold("prod", np.multiply, 1, a, axis, dtype, keepdims, initial, where)


def _extremum(op: str, ufunc: np.ufunc, a: Any, axis: Any, keepdims: Any, initial: Any, where: Any) -> Tracer:
    """A maximum or minimum; a mask needs ``initial``, which stands for the masked elements."""
    trace = tracing()
    x = node_of(trace, a)
    axes = reduced_axes(axis, len(x.shape))
    if not given(initial):
        if not (where is ABSENT or where is True or where is None):
            raise ValueError(
                f"reduction operation '{ufunc.__name__}' does not have an identity, so to use a where mask one has to specify 'initial'"
            )
        return finish(trace, folded(trace, op, x, axes), x.shape, axes, keepdims)
    start = as_scalar(trace, initial, x.dtype)
    x = masked(trace, x, where, start._node)
    if x.type.size == 0:
        reduced_shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        return finish(trace, trace.broadcast(start._node, reduced_shape), x.shape, axes, keepdims)
    return trace.ufunc(ufunc, finish(trace, folded(trace, op, x, axes), x.shape, axes, keepdims), start)


@implements(np.max, np.amax)
def max_(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = ABSENT, where: Any = True
) -> Tracer:
    """np.max; ties share the derivative evenly."""
    refuse("max", out=out)
    return _extremum("max", np.maximum, a, axis, keepdims, initial, where)


@implements(np.min, np.amin)
def min_(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = ABSENT, where: Any = True
) -> Tracer:
    """np.min; ties share the derivative evenly."""
    refuse("min", out=out)
    return _extremum("min", np.minimum, a, axis, keepdims, initial, where)


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Tracer:
    """np.ptp."""
    refuse("ptp", out=out)
    return max_(a, axis, keepdims=keepdims) - min_(a, axis, keepdims=keepdims)


def _truth(op: str, a: Any, axis: Any, keepdims: Any, where: Any, identity: bool) -> Tracer:
    """any or all; masked elements count as ``identity``."""
    trace = tracing()
    x = as_bool(trace, node_of(trace, a))
    x = masked(trace, x, where, full(trace, identity, x.dtype, ()))
    axes = reduced_axes(axis, len(x.shape))
    return finish(trace, folded(trace, op, x, axes), x.shape, axes, keepdims)


@implements(np.any)
def any_(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Tracer:
    """np.any."""
    refuse("any", out=out)
    return _truth("any", a, axis, keepdims, where, False)


@implements(np.all)
def all_(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Tracer:
    """np.all."""
    refuse("all", out=out)
    return _truth("all", a, axis, keepdims, where, True)


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Tracer:
    """np.count_nonzero, as int64."""
    trace = tracing()
    return sum_(wrap(trace, as_bool(trace, node_of(trace, a))), axis, I64, keepdims=keepdims)


# ---------------------------------------------------------------------------------------------------- moments


def _count(trace: Trace, shape: tuple[int, ...], axes: tuple[int, ...], where: Any) -> int | Node:
    """Elements that enter each result: a number, or a node when a mask decides."""
    if where is ABSENT or where is True or where is None:
        total = 1
        for axis in axes:
            total *= shape[axis]
        return total
    mask = trace.broadcast(as_bool(trace, node_of(trace, where)), shape)
    return trace.emit("sum", trace.convert(mask, I64), axes=axes)


def _divided(trace: Trace, total: Node, count: int | Node, ddof: Any = 0) -> Node:
    """``total / max(count - ddof, 0)``."""
    if isinstance(count, int):
        divisor = full(trace, max(count - ddof, 0), total.dtype, total.shape)
    else:
        fewer = trace.ufunc(np.subtract, wrap(trace, count), ddof) if ddof else wrap(trace, count)
        divisor = trace.convert(trace.ufunc(np.maximum, fewer, 0)._node, total.dtype)
    return trace.emit("div", total, divisor)


def mean_node(trace: Trace, x: Node, axes: tuple[int, ...], where: Any = True) -> Node:
    """Mean over ``axes`` of a floating node."""
    values = masked(trace, x, where, full(trace, 0, x.dtype, ()))
    return _divided(trace, folded(trace, "sum", values, axes), _count(trace, x.shape, axes, where))


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Tracer:
    """np.mean; of integers and bools in float64."""
    refuse("mean", out=out)
    trace = tracing()
    x = node_of(trace, a)
    x = trace.convert(x, checked_dtype(dtype)) if given(dtype) else inexact(trace, x)
    if x.dtype.kind != "f":
        refuse("mean", "means are floating point; round or convert the result", dtype=dtype)
    axes = axes_tuple(axis, len(x.shape))
    return finish(trace, mean_node(trace, x, axes, where), x.shape, axes, keepdims)


def var_node(
    trace: Trace,
    x: Node,
    axes: tuple[int, ...],
    ddof: Any,
    where: Any,
    center: Node | None,
    exact: Node | None = None,
) -> Node:
    """Two-pass variance over ``axes`` of a floating node; ``center`` is a mean with kept axes, ``exact`` the
    integers that ``x`` was rounded from.
    """
    if center is None:
        middle = spread(trace, mean_node(trace, x, axes, where), x.shape, axes)
    else:
        middle = trace.broadcast(trace.convert(center, x.dtype), x.shape)
    off = (
        trace.emit("sub", x, middle)
        if exact is None
        else trace.ufunc(np.subtract, wrap(trace, exact), wrap(trace, middle))._node
    )
    squares = masked(
        trace, trace.convert(trace.emit("mul", off, off), x.dtype), where, full(trace, 0, x.dtype, ())
    )
    return _divided(trace, trace.emit("sum", squares, axes=axes), _count(trace, x.shape, axes, where), ddof)


def _variance(
    name: str,
    a: Any,
    axis: Any,
    dtype: Any,
    ddof: Any,
    keepdims: Any,
    where: Any,
    mean: Any,
    correction: Any,
    root: bool,
) -> Tracer:
    """np.var, and np.std with ``root``."""
    trace = tracing()
    values = node_of(trace, a)
    x = trace.convert(values, checked_dtype(dtype)) if given(dtype) else inexact(trace, values)
    if x.dtype.kind != "f":
        refuse(name, "variances are floating point; round or convert the result", dtype=dtype)
    if given(correction):
        if ddof != 0:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        ddof = correction
    axes = axes_tuple(axis, len(x.shape))
    center = node_of(trace, mean) if given(mean) else None
    result = var_node(
        trace, x, axes, ddof, where, center, values if given(dtype) and values.dtype.kind in "iu" else None
    )
    return finish(
        trace, trace.emit("rooted", result, root=2.0, power=1.0) if root else result, x.shape, axes, keepdims
    )


@implements(np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = ABSENT,
    correction: Any = ABSENT,
) -> Tracer:
    """np.var, two-pass."""
    refuse("var", out=out)
    return _variance("var", a, axis, dtype, ddof, keepdims, where, mean, correction, root=False)


@implements(np.std)
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = ABSENT,
    correction: Any = ABSENT,
) -> Tracer:
    """np.std; where the variance is zero its derivative is 0."""
    refuse("std", out=out)
    return _variance("std", a, axis, dtype, ddof, keepdims, where, mean, correction, root=True)


# ----------------------------------------------------------------------------------------- positions, running


def _position(op: str, a: Any, axis: Any, keepdims: Any) -> Tracer:
    """np.argmax or np.argmin; axis None means the position in the flat array."""
    trace = tracing()
    x = node_of(trace, a)
    if axis is None or (not x.shape and not reduced_axes(axis, 0)):
        position = trace.emit(op, flattened(trace, x), axes=(0,))
        return wrap(
            trace, trace.emit("reshape", position, shape=(1,) * len(x.shape)) if keepdims else position
        )
    number = axis_number(axis, len(x.shape))
    return finish(trace, trace.emit(op, x, axes=(number,)), x.shape, (number,), keepdims)


@implements(np.argmax)
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Tracer:
    """np.argmax: the first of equals, NaN wins."""
    refuse("argmax", out=out)
    return _position("argmax", a, axis, given(keepdims) and keepdims)


@implements(np.argmin)
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Tracer:
    """np.argmin: the first of equals, NaN wins."""
    refuse("argmin", out=out)
    return _position("argmin", a, axis, given(keepdims) and keepdims)


def _running(op: str, a: Any, axis: Any, dtype: Any) -> Tracer:
    """np.cumsum or np.cumprod; axis None means that of the flat array."""
    trace = tracing()
    x = node_of(trace, a)
    x = trace.convert(x, checked_dtype(dtype) if given(dtype) else accumulator(x.dtype))
    x, number = along_axis(trace, x, axis)
    return wrap(trace, trace.emit(op, x, axis=number, reverse=False))


@implements(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
    """np.cumsum."""
    refuse("cumsum", out=out)
    return _running("cumsum", a, axis, dtype)


@implements(np.cumprod)
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
    """np.cumprod."""
    refuse("cumprod", out=out)
    return _running("cumprod", a, axis, dtype)


def _cumulative(op: str, x: Any, axis: Any, dtype: Any, include_initial: bool, start: int) -> Tracer:
    """np.cumulative_sum or np.cumulative_prod: `_running`, with ``start`` in front if asked for."""
    if axis is None:
        if np.ndim(x) > 1:
            raise ValueError("For arrays which have more than one dimension ``axis`` argument is required.")
        axis = 0
    result = _running(op, x, axis, dtype)
    if not include_initial:
        return result
    trace = tracing()
    node = result._node
    number = axis_number(axis, len(node.shape))
    first = full(trace, start, node.dtype, with_size(node.shape, number, 1))
    return wrap(trace, trace.emit("concatenate", first, node, axis=number))


@implements(np.cumulative_sum)
def cumulative_sum(
    x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
) -> Tracer:
    """np.cumulative_sum."""
    refuse("cumulative_sum", out=out)
    return _cumulative("cumsum", x, axis, dtype, include_initial, 0)


@implements(np.cumulative_prod)
def cumulative_prod(
    x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
) -> Tracer:
    """np.cumulative_prod."""
    refuse("cumulative_prod", out=out)
    return _cumulative("cumprod", x, axis, dtype, include_initial, 1)
