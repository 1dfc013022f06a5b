"""Choosing elements: where, select, choose, clip, nan_to_num, take, take_along_axis, compress, extract,
delete, isclose, allclose, array_equal.

The branch of a `where` that is not taken contributes exactly zero to every derivative. Functions whose result
has a shape that depends on values need these while the function is traced: a mask for compress, extract and
delete; nonzero is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import I64
from graphjit.trace.arrays.indexing import gathered, wrapped_indices
from graphjit.trace.numpy.arguments import (
    ABSENT,
    aligned,
    as_bool,
    as_index,
    axis_number,
    cast,
    common_dtype,
    frozen,
    integers,
    node_of,
    refuse,
    static_array,
    tracer_of,
    tracing,
    wrap,
    wrap_array,
)
from graphjit.trace.numpy.reductions import all_
from graphjit.trace.numpy.shapes import along_axis, flattened, with_size
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import common_shape
from graphjit.trace.recording.tracer import METHODS, Array, Tracer, implements


@implements(np.where)
def where(condition: Any, x: Any = ABSENT, y: Any = ABSENT, /) -> Tracer:
    """np.where with three arguments."""
    if x is ABSENT and y is ABSENT:
        return nonzero(condition)
    if x is ABSENT or y is ABSENT:
        raise ValueError("either both or neither of x and y should be given")
    trace = tracing()
    dtype = common_dtype(x, y)
    mask = as_bool(trace, node_of(trace, condition))
    first, second = cast(trace, x, dtype), cast(trace, y, dtype)
    shape = common_shape(mask, first, second)
    return wrap_array(
        trace, trace.emit("select", *[trace.broadcast(node, shape) for node in (mask, first, second)])
    )


@implements(np.nonzero, np.flatnonzero, np.argwhere)
def nonzero(a: Any) -> Tracer:
    """Refused: how many elements there are is only known at run time."""
    raise TraceError(
        f"np.nonzero, np.flatnonzero, np.argwhere and np.where(condition) of traced values at {user_location()}: the shape of the "
        "result depends on values. Keep the shape: np.where(condition, x, 0), or multiply by the mask."
    )


@implements(np.clip)
def clip(
    a: Any,
    a_min: Any = ABSENT,
    a_max: Any = ABSENT,
    out: Any = None,
    *,
    min: Any = ABSENT,
    max: Any = ABSENT,
    **kwargs: Any,
) -> Tracer:
    """np.clip: minimum(maximum(a, a_min), a_max). An element that equals a bound gets half of the derivative,
    as in np.maximum and np.minimum.
    """
    refuse("clip", out=out, **kwargs)
    low, high = _clip_bounds(a_min, a_max, min, max)
    trace = tracing()
    dtype = tracer_of(a).dtype
    if dtype.kind in "iu":  # a Python int beyond the dtype's range is no bound
        low = None if type(low) is int and low <= np.iinfo(dtype).min else low
        high = None if type(high) is int and high >= np.iinfo(dtype).max else high
    bounds = [bound for bound in (low, high) if bound is not None]
    if not bounds:
        return np.positive(tracer_of(a))  # type: ignore[return-value]
    nodes = iter(aligned(trace, a, *bounds))
    x = next(nodes)
    if low is not None:
        x = trace.emit("maximum", x, next(nodes))
    return wrap(trace, x if high is None else trace.emit("minimum", x, next(nodes)))


def _clip_bounds(a_min: Any, a_max: Any, min: Any, max: Any) -> tuple[Any, Any]:
    """The lower and the upper bound, given in the old style or in the new one; None: there is none.

    Raises:
        TypeError: one of ``a_min`` and ``a_max`` is missing.
        ValueError: both styles at once.
    """
    if a_min is ABSENT and a_max is ABSENT:
        return (None if min is ABSENT else min), (None if max is ABSENT else max)
    if min is not ABSENT or max is not ABSENT:
        raise ValueError(
            "Passing `min` or `max` keyword argument when `a_min` and `a_max` are provided is forbidden."
        )
    if a_min is ABSENT or a_max is ABSENT:
        raise TypeError("clip() missing 1 required positional argument")
    return a_min, a_max


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Tracer:
    """np.nan_to_num; replaced elements have derivative zero. With ``copy=False`` the array itself is
    changed.
    """
    if not copy and isinstance(x, Array):
        x[...] = nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)
        return x
    trace = tracing()
    node = node_of(trace, x)
    if node.dtype.kind != "f":
        return wrap(trace, node)
    limits = np.finfo(node.dtype)
    value: Any = wrap(trace, node)
    infinite = np.array(np.inf, node.dtype)[()]
    value = where(value != value, as_scalar_of(nan, node), value)
    value = where(value == infinite, as_scalar_of(limits.max if posinf is None else posinf, node), value)
    value = where(value == -infinite, as_scalar_of(limits.min if neginf is None else neginf, node), value)
    return wrap(trace, value._node)


def as_scalar_of(value: Any, like: Node) -> Any:
    """A replacement value in the dtype of ``like``."""
    trace = tracing()
    return wrap(trace, trace.convert(node_of(trace, value), like.dtype))


@implements(np.select)
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tracer:
    """np.select: the first condition that holds decides."""
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    if not condlist:
        raise ValueError("select with an empty condition list is not possible")
    trace = tracing()
    conditions = [node_of(trace, condition) for condition in condlist]
    for i, condition in enumerate(conditions):
        if condition.dtype.kind != "b":
            raise TypeError(f"invalid entry {i} in condlist: should be boolean ndarray")
    dtype = common_dtype(*choicelist, default)
    *choices, last = (cast(trace, value, dtype) for value in (*choicelist, default))
    shape = common_shape(*conditions, *choices, last)
    result = trace.broadcast(last, shape)
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        result = trace.emit(
            "select", trace.broadcast(condition, shape), trace.broadcast(choice, shape), result
        )
    return wrap(trace, result)


@implements(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Tracer:
    """np.choose with mode 'clip' or 'wrap', or a static index array."""
    refuse("choose", out=out)
    trace = tracing()
    position = node_of(trace, a)
    if not np.can_cast(position.dtype, I64):
        raise TypeError(
            f"Cannot cast array data from {position.dtype!r} to dtype('int64') according to the rule 'safe' (at {user_location()})"
        )
    index = as_index(trace, position)
    dtype = common_dtype(*choices)
    options = [cast(trace, value, dtype) for value in choices]
    shape = common_shape(index, *options)
    values = static_array(a)
    if (
        values is not None
        and mode == "raise"
        and values.size
        and not 0 <= values.min() <= values.max() < len(options)
    ):
        raise ValueError("invalid entry in choice array")
    if values is None and mode == "raise":
        raise UnsupportedError(
            f"np.choose(mode='raise') of a traced index is not compiled (at {user_location()}): use 'clip' or 'wrap'"
        )
    picked: Any = wrap(trace, trace.broadcast(index, shape))
    picked = picked % len(options) if mode == "wrap" else picked
    result = trace.broadcast(options[-1], shape)
    for number in range(len(options) - 2, -1, -1):
        reached = (picked <= number)._node
        result = trace.emit("select", reached, trace.broadcast(options[number], shape), result)
    return wrap(trace, result)


@implements(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Tracer:
    """np.take."""
    refuse("take", out=out)
    trace = tracing()
    x, number = along_axis(trace, node_of(trace, a), axis)
    index = wrapped_indices(trace, indices, x.shape[number], number, mode)
    taken = gathered(trace, x, [index], (number,))
    lead = len(index.shape)
    perm = (*range(lead, lead + number), *range(lead), *range(lead + number, len(taken.shape)))
    return wrap(trace, trace.emit("transpose", taken, perm=perm))


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Tracer:
    """np.take_along_axis."""
    trace = tracing()
    x = node_of(trace, arr)
    if axis is None:
        if np.ndim(indices) != 1:
            raise ValueError("when axis=None, `indices` must have a single dimension.")
        x, axis = flattened(trace, x), 0
    number = axis_number(axis, len(x.shape))
    if np.ndim(indices) != len(x.shape):
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    index = wrapped_indices(trace, indices, x.shape[number], number, "raise")
    shape = np.broadcast_shapes(index.shape, with_size(x.shape, number, 1))
    all_indices = []
    for i in range(len(shape)):
        if i == number:
            all_indices.append(trace.broadcast(index, shape))
        elif x.shape[i] == 1:
            all_indices.append(trace.broadcast(trace.builder.const(0, I64), shape))
        else:
            all_indices.append(trace.emit("iota", dtype=I64, shape=shape, axis=i))
    return wrap(trace, gathered(trace, x, all_indices, tuple(range(len(shape)))))


def _static_mask(function: str, condition: Any) -> np.ndarray:
    """The values of a mask, which decide about the shape of the result."""
    mask = static_array(condition)
    if mask is None:
        mask = METHODS["__concretise__"](tracer_of(condition), f"np.{function}")
    if mask is None:
        raise TraceError(
            f"np.{function} with a mask that may change at {user_location()}: the shape of the result depends on it. "
            "Use np.where(mask, x, 0), or make the mask read-only."
        )
    return mask


@implements(np.compress)
def compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Tracer:
    """np.compress with a static mask."""
    refuse("compress", out=out)
    mask = _static_mask("compress", condition)
    if mask.ndim != 1:
        raise ValueError("condition must be a 1-d array")
    return take(a, frozen(np.nonzero(mask)[0]), axis)


@implements(np.extract)
def extract(condition: Any, arr: Any) -> Tracer:
    """np.extract with a static mask."""
    return take(arr, frozen(np.nonzero(np.ravel(_static_mask("extract", condition)))[0]))


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Tracer:
    """np.delete of static positions."""
    trace = tracing()
    x = node_of(trace, arr)
    if axis is None:
        x, axis = flattened(trace, x), 0
    number = axis_number(axis, len(x.shape))
    if isinstance(obj, Tracer) and obj.dtype.kind != "b":
        obj = np.reshape(integers(obj, "the positions of np.delete"), obj.shape)
    elif not isinstance(obj, slice | int | np.integer):
        obj = _static_mask("delete", obj)
    positions = np.delete(np.arange(x.shape[number]), obj)
    return take(wrap(trace, x), frozen(positions), number)


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1.0e-5, atol: Any = 1.0e-8, equal_nan: bool = False) -> Tracer:
    """np.isclose."""
    x, y = tracer_of(a), tracer_of(b)
    y_float: Any = y if y.dtype.kind == "f" else y.astype(np.float64)
    near = np.less_equal(abs(x - y_float), atol + rtol * abs(y_float)) & np.isfinite(y_float)
    result: Any = near | (x == y_float)
    return result | (np.isnan(x) & np.isnan(y_float)) if equal_nan else result


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1.0e-5, atol: Any = 1.0e-8, equal_nan: bool = False) -> Tracer:
    """np.allclose, as a traced bool."""
    return all_(isclose(a, b, rtol, atol, equal_nan))


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """np.array_equal, as a traced bool (or False when the shapes differ)."""
    if np.shape(a1) != np.shape(a2):
        return False
    same: Any = tracer_of(a1) == a2
    if equal_nan:
        same = same | (np.isnan(tracer_of(a1)) & np.isnan(tracer_of(a2)))
    return all_(same)
