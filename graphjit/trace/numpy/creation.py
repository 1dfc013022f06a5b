"""New arrays in the shape of a traced one, and conversions: zeros_like and kin, linspace, isreal and kin,
round, fix, result_type and kin.

Most need only the shape and dtype of a tracer. Arrays made without a traced argument (``np.zeros(3)``) are in
`patches`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.trace.numpy.arguments import (
    as_dtype,
    checked_dtype,
    common_dtype,
    full,
    given,
    inexact,
    integers,
    node_of,
    promotion_key,
    refuse,
    shape_of,
    tracer_of,
    tracing,
    wrap,
    wrap_array,
)
from graphjit.trace.numpy.joining import concatenate
from graphjit.trace.numpy.shapes import moveaxis, sliced
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import common_shape
from graphjit.trace.recording.tracer import Tracer, implements, is_python_number


def _like(a: Any, value: Any, dtype: Any, shape: Any) -> Tracer:
    """``value`` everywhere, in the dtype and shape of ``a`` where none are given."""
    trace = tracing()
    model = tracer_of(a)
    wanted = checked_dtype(dtype) if given(dtype) else model.dtype
    size = shape_of(shape) if given(shape) else model.shape
    if isinstance(value, Tracer | np.ndarray | list | tuple):
        return wrap_array(trace, trace.broadcast(as_dtype(trace, value, wanted), size))
    number = trace.number(value, wanted) if is_python_number(value) else full(trace, value, wanted, ())
    return wrap_array(trace, trace.broadcast(number, size))


@implements(np.zeros_like)
def zeros_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Tracer:
    """np.zeros_like."""
    return _like(a, 0, dtype, shape)


@implements(np.empty_like)
def empty_like(
    prototype: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Tracer:
    """np.empty_like, filled with zeros."""
    return _like(prototype, 0, dtype, shape)


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Tracer:
    """np.ones_like."""
    return _like(a, 1, dtype, shape)


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Tracer:
    """np.full_like; the value may be traced."""
    return _like(a, fill_value, dtype, shape)


@implements(np.linspace)
def linspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: Any = 0,
    *,
    device: Any = None,
) -> Any:
    """np.linspace between traced ends."""
    trace = tracing()
    ends = [as_dtype(trace, end, common_dtype(start, stop, 1.0)) for end in (start, stop)]
    first, last = (trace.broadcast(end, common_shape(*ends)) for end in ends)
    (count,) = integers(num, "num")
    if count < 0:
        raise ValueError(f"Number of samples, {count}, must be non-negative.")
    low, high = wrap(trace, first), wrap(trace, last)
    gaps = count - 1 if endpoint else count
    delta: Any = high - low
    step = delta / gaps if gaps > 0 else delta * np.nan
    shape = (count, *first.shape)
    ramp = trace.emit("iota", dtype=first.dtype, shape=shape, axis=0)
    line: Any = wrap(trace, ramp) * (step if gaps > 0 else delta) + low
    if endpoint and count > 1:
        end = wrap(trace, trace.emit("reshape", last, shape=(1, *last.shape)))
        line = concatenate([wrap(trace, sliced(trace, line._node, 0, 0, count - 1)), end], 0)
    line = moveaxis(line, 0, axis) if axis != 0 else line
    if given(dtype):
        wanted = checked_dtype(dtype)
        line = np.floor(line) if wanted.kind in "iu" else line
        line = wrap(trace, trace.convert(line._node, wanted))
    return (line, step) if retstep else line


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """np.iscomplexobj."""
    return False


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    """np.isrealobj."""
    return True


@implements(np.isreal)
def isreal(x: Any) -> Tracer:
    """np.isreal: all True."""
    return ones_like(x, bool)


@implements(np.iscomplex)
def iscomplex(x: Any) -> Tracer:
    """np.iscomplex: all False."""
    return zeros_like(x, bool)


@implements(np.round, np.around)
def round_(a: Any, decimals: int = 0, out: Any = None) -> Tracer:
    """np.round, as NumPy does it: scale, rint, scale back."""
    refuse("round", out=out)
    trace = tracing()
    node = node_of(trace, a)
    kind = node.dtype.kind
    if kind in "iu" and decimals >= 0:
        return wrap(trace, node)
    if decimals == 0:
        return trace.ufunc(np.rint, a)  # type: ignore[no-any-return]
    if kind == "b":
        raise TypeError(
            f"np.round of bools to {decimals} decimals has no bool result, as in NumPy (at {user_location()})"
        )
    value = inexact(trace, node)
    factor = full(trace, 10.0 ** abs(decimals), value.dtype, node.shape)
    scale, unscale = ("mul", "div") if decimals > 0 else ("div", "mul")
    rounded = trace.emit(unscale, trace.emit("rint", trace.emit(scale, value, factor)), factor)
    return wrap(trace, trace.convert(rounded, node.dtype))


@implements(np.fix)
def fix(x: Any, out: Any = None) -> Tracer:
    """np.fix."""
    refuse("fix", out=out)
    return np.trunc(tracer_of(x))  # type: ignore[return-value]


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """np.result_type."""
    return np.result_type(*[promotion_key(a) if isinstance(a, Tracer) else a for a in arrays_and_dtypes])


@implements(np.can_cast)
def can_cast(from_: Any, to: Any, casting: str = "safe") -> bool:
    """np.can_cast."""
    return np.can_cast(
        from_.dtype if isinstance(from_, Tracer) else from_,
        to.dtype if isinstance(to, Tracer) else to,
        casting,  # type: ignore[arg-type]
    )


@implements(np.common_type)
def common_type(*arrays: Any) -> Any:
    """np.common_type."""
    return np.common_type(*[np.empty(0, tracer_of(a).dtype) for a in arrays])


@implements(np.min_scalar_type)
def min_scalar_type(a: Any) -> np.dtype:
    """np.min_scalar_type: the dtype itself (values are unknown)."""
    if not np.ndim(a):
        raise TraceError(f"np.min_scalar_type needs the value of a traced scalar at {user_location()}")
    return tracer_of(a).dtype
