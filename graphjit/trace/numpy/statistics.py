"""Weighted means, covariances, and the functions that ignore NaN: average, cov, corrcoef, nansum and kin.

NumPy composes them of other functions, and they are composed in the same way here. An element that is
replaced because it is NaN has derivative zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from graphjit.ir.node import Node
from graphjit.trace.numpy.arguments import (
    ABSENT,
    common_dtype,
    full,
    given,
    node_of,
    reduced_axes,
    refuse,
    static_array,
    tracer_of,
    tracing,
    wrap,
)
from graphjit.trace.numpy.joining import concatenate
from graphjit.trace.numpy.reductions import finish, mean, sum_, var
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements


@implements(np.average)
def average(
    a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = ABSENT
) -> Any:
    """np.average."""
    trace = tracing()
    value = tracer_of(a)
    keepdims = given(keepdims) and keepdims
    if weights is None:
        result: Any = mean(value, axis, keepdims=keepdims)
        if not returned:
            return result
        return result, np.full_like(result, value.size // max(result.size, 1))
    weight = tracer_of(weights)
    values = static_array(weights)
    if values is not None and np.any(values.sum(axis if values.shape == value.shape else None) == 0):
        raise ZeroDivisionError(f"Weights sum to zero, can't be normalized (np.average at {user_location()})")
    dtype = common_dtype(value, weight, *([np.dtype(np.float64)] if value.dtype.kind in "iub" else []))
    if weight.shape != value.shape:
        if axis is None:
            raise TypeError("Axis must be specified when shapes of a and weights differ.")
        axes = normalize_axis_tuple(axis, value.ndim)
        if weight.shape != tuple(value.shape[i] for i in axes):
            raise ValueError("Shape of weights must be consistent with shape of a along specified axis.")
        order = sorted(range(len(axes)), key=axes.__getitem__)
        sorted_weight = trace.emit("transpose", weight._node, perm=tuple(order))
        weight = wrap(
            trace,
            trace.emit(
                "reshape",
                sorted_weight,
                shape=tuple(n if i in axes else 1 for i, n in enumerate(value.shape)),
            ),
        )
    scaled = wrap(trace, trace.convert(weight._node, dtype))
    full_weight: Any = wrap(trace, trace.broadcast(scaled._node, value.shape))
    total: Any = sum_(full_weight, axis, keepdims=keepdims)
    result = (
        sum_(
            trace.ufunc(np.multiply, wrap(trace, trace.convert(value._node, dtype)), full_weight),
            axis,
            keepdims=keepdims,
        )
        / total
    )
    return (result, np.copy(np.broadcast_to(total, result.shape))) if returned else result


@implements(np.cov)
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    """np.cov without weights."""
    refuse("cov", "multiply the observations by their weights", fweights=fweights, aweights=aweights)
    trace = tracing()
    rows = [_observations(trace, m, rowvar)] + ([] if y is None else [_observations(trace, y, rowvar)])
    wanted = np.result_type(
        np.float64 if dtype is None else dtype, *([row.dtype for row in rows] if dtype is None else [])
    )
    data: Any = concatenate([wrap(trace, trace.convert(row, wanted)) for row in rows], 0)
    count = data.shape[1]
    degrees = count - ((0 if bias else 1) if ddof is None else ddof)
    off = data - mean(data, 1, keepdims=True)
    covariance = np.matmul(off, np.transpose(off)) / max(degrees, 0)
    return np.squeeze(covariance)


def _observations(trace: Trace, values: Any, rowvar: bool) -> Node:
    """The variables as rows, the observations as columns."""
    node = node_of(trace, values)
    if len(node.shape) > 2:
        raise ValueError("m has more than 2 dimensions")
    if len(node.shape) < 2:
        return trace.emit("reshape", node, shape=(1, node.type.size))
    return node if rowvar or node.shape[0] == 1 else trace.emit("transpose", node, perm=(1, 0))


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """np.corrcoef."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.ndim:
        return c / c
    spread = np.sqrt(np.diag(c))
    correlation = c / spread[:, None] / spread[None, :]
    return np.clip(correlation, -1, 1)


# ----------------------------------------------------------------------------------------------- NaN-ignoring


def _without_nans(trace: Trace, a: Any, fill: Any) -> tuple[Node, Node | None]:
    """Values with NaN replaced, and the mask of numbers (None where NaN cannot be)."""
    x = node_of(trace, a)
    if x.dtype.kind != "f":
        return x, None
    numbers = trace.emit("eq", x, x)
    return trace.emit("select", numbers, x, full(trace, fill, x.dtype, x.shape)), numbers


def _axis(x: Node, axis: Any) -> Any:
    """The axis to reduce. NumPy sums floating-point numbers here by ufuncs, which accept the axes 0 and -1 of
    a value without axes; they mean all of it.
    """
    return None if x.dtype.kind == "f" and not x.shape and not reduced_axes(axis, 0) else axis


def _mask(trace: Trace, numbers: Node | None, where: Any) -> Any:
    """NaN mask and the user's ``where`` in one."""
    if numbers is None:
        return where
    not_nan = wrap(trace, numbers)
    return not_nan if where is ABSENT or where is True else not_nan & tracer_of(where)


@implements(np.nansum)
def nansum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = ABSENT,
    where: Any = True,
) -> Tracer:
    """np.nansum."""
    trace = tracing()
    return sum_(wrap(trace, _without_nans(trace, a, 0)[0]), axis, dtype, out, keepdims, initial, where)


@implements(np.nanprod)
def nanprod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = ABSENT,
    where: Any = True,
) -> Any:
    """np.nanprod."""
    trace = tracing()
    return np.prod(wrap(trace, _without_nans(trace, a, 1)[0]), axis, dtype, out, keepdims, initial, where)  # type: ignore[call-overload]


@implements(np.nancumsum)
def nancumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """np.nancumsum."""
    trace = tracing()
    return np.cumsum(wrap(trace, _without_nans(trace, a, 0)[0]), axis, dtype, out)  # type: ignore[call-overload]


@implements(np.nancumprod)
def nancumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """np.nancumprod."""
    trace = tracing()
    return np.cumprod(wrap(trace, _without_nans(trace, a, 1)[0]), axis, dtype, out)  # type: ignore[call-overload]


@implements(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Tracer:
    """np.nanmean."""
    trace = tracing()
    x, numbers = _without_nans(trace, a, 0)
    return mean(wrap(trace, x), _axis(x, axis), dtype, out, keepdims, where=_mask(trace, numbers, where))


@implements(np.nanvar)
def nanvar(
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
) -> Any:
    """np.nanvar; NaN where fewer than ddof + 1 numbers are left."""
    trace = tracing()
    x, numbers = _without_nans(trace, a, 0)
    mask = _mask(trace, numbers, where)
    axis = _axis(x, axis)
    variance: Any = var(
        wrap(trace, x), axis, dtype, out, ddof, keepdims, where=mask, mean=mean, correction=correction
    )
    if numbers is None:
        return variance
    count = sum_(mask, axis, keepdims=keepdims)
    enough: Any = np.where(count > (correction if given(correction) else ddof), variance, np.nan)
    return wrap(trace, enough._node)


@implements(np.nanstd)
def nanstd(a: Any, *args: Any, **kwargs: Any) -> Any:
    """np.nanstd."""
    trace = tracing()
    return wrap(trace, trace.emit("rooted", node_of(trace, nanvar(a, *args, **kwargs)), root=2.0, power=1.0))


def _nan_extremum(function: Any, fill: float, a: Any, axis: Any, keepdims: Any) -> Any:
    """np.max or np.min without NaN, which ``fill`` replaces; NaN where there is no number."""
    trace = tracing()
    x, numbers = _without_nans(trace, a, fill)
    extremum = function(wrap(trace, x), axis, keepdims=keepdims)
    if numbers is None:
        return extremum
    axes = reduced_axes(axis, len(x.shape))
    any_number = finish(trace, trace.emit("any", numbers, axes=axes), x.shape, axes, keepdims)
    return wrap(tracing(), np.where(any_number, extremum, np.nan)._node)  # type: ignore[attr-defined]


@implements(np.nanmax)
def nanmax(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = ABSENT, where: Any = True
) -> Any:
    """np.nanmax; NaN where there is no number."""
    refuse("nanmax", out=out, initial=initial, where=None if where is True else where)
    return _nan_extremum(np.max, -np.inf, a, axis, keepdims)


@implements(np.nanmin)
def nanmin(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = ABSENT, where: Any = True
) -> Any:
    """np.nanmin; NaN where there is no number."""
    refuse("nanmin", out=out, initial=initial, where=None if where is True else where)
    return _nan_extremum(np.min, np.inf, a, axis, keepdims)


def _nan_position(function: Any, fill: float, a: Any, axis: Any, keepdims: Any) -> Any:
    """np.argmax or np.argmin without NaN, which ``fill`` replaces."""
    trace = tracing()
    return function(
        wrap(trace, _without_nans(trace, a, fill)[0]), axis, keepdims=given(keepdims) and keepdims
    )


@implements(np.nanargmax)
def nanargmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """np.nanargmax (a row of NaNs alone gives 0 where NumPy raises)."""
    refuse("nanargmax", out=out)
    return _nan_position(np.argmax, -np.inf, a, axis, keepdims)


@implements(np.nanargmin)
def nanargmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """np.nanargmin (a row of NaNs alone gives 0 where NumPy raises)."""
    refuse("nanargmin", out=out)
    return _nan_position(np.argmin, np.inf, a, axis, keepdims)
