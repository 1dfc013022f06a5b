"""How arguments of NumPy's functions are read: array-likes as nodes, axes, dtypes, sizes, options that are
refused.

Every function of the families begins here. `node_of` makes a node of anything that NumPy would make an array
of: a tracer, an array, a number, nested lists. `promoted` and `aligned` do so for several values, in NumPy's
common dtype and shape. `axes_tuple` and `integers` read what decides about a shape, `static_array` the values
that are known while a function is traced. `refuse` names an option that is not compiled.

Errors for wrong axes and shapes are NumPy's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.answers import STATIC, value_needed
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.promotion import common, common_shape, python_kind
from graphjit.trace.recording.tracer import (
    METHODS,
    Array,
    Trace,
    Tracer,
    any_tracer,
    check_dtype,
    is_python_number,
    is_weak,
    traced,
)

ABSENT: Any = np._NoValue  # NumPy's own mark for "not given"; its methods pass it on explicitly


def tracing() -> Trace:
    """The active trace.

    Raises:
        TraceError: a tracer outlived its trace.
    """
    trace = active_trace()
    if trace is None:
        raise TraceError(
            f"a traced value was used at {user_location()} after its function had been traced: it leaked out of the "
            "function through a global, an attribute or a mutable default"
        )
    return trace


def node_of(trace: Trace, value: Any) -> Node:
    """The node of any array-like; a list without tracers is a constant."""
    if isinstance(value, Tracer | np.ndarray | np.generic) or any_tracer(value):
        return trace.node(value)
    array = np.asarray(value)
    check_dtype(array.dtype)
    return trace.builder.const(array, array.dtype)


def wrap(trace: Trace, node: Node) -> Tracer:
    """A new tracer for ``node``."""
    return traced(trace, node)


def wrap_array(trace: Trace, node: Node) -> Tracer:
    """A new array for ``node``, even one without axes: for NumPy's functions that never return a scalar."""
    return Array(trace, node)


def given(value: Any) -> bool:
    """Whether a value was passed for an optional argument."""
    return value is not None and value is not ABSENT


def refuse(function: str, advice: str = "", **options: Any) -> None:
    """Refuse the options that were given.

    Raises:
        UnsupportedError: names function and option.
    """
    for name, value in options.items():
        if given(value):
            hint = advice or ("assign the result instead" if name == "out" else "leave the option out")
            raise UnsupportedError(
                f"np.{function}(..., {name}=...) is not compiled (at {user_location()}): {hint}"
            )


def axes_tuple(axis: Any, ndim: int) -> tuple[int, ...]:
    """``axis`` as sorted non-negative axes; None means all of them.

    Raises:
        numpy.exceptions.AxisError: out of bounds.
        ValueError: an axis given twice.
    """
    if axis is None or axis is ABSENT:
        return tuple(range(ndim))
    if isinstance(axis, int) and 0 <= axis < ndim:
        return (axis,)
    return tuple(sorted(normalize_axis_tuple(axis, ndim, "axis")))


def reduced_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """`axes_tuple` as ufunc.reduce reads it, which accepts the axes 0 and -1 of a value without axes."""
    return () if not ndim and isinstance(axis, int) and axis in (0, -1) else axes_tuple(axis, ndim)


def axis_number(axis: Any, ndim: int) -> int:
    """One axis as a non-negative number."""
    return normalize_axis_index(axis, ndim)


def promotion_key(value: Any) -> Any:
    """What ``np.result_type`` should see of a value. Python numbers, and tracers of them, adapt to the dtypes
    of the others (they are weak, NEP 50).
    """
    if issubclass(type(value), Tracer):
        return {"f": 0.0, "i": 0}.get(value.dtype.kind, value.dtype) if is_weak(value) else value.dtype
    if is_python_number(value) or isinstance(value, np.ndarray | np.generic | np.dtype):
        return value if not isinstance(value, np.ndarray) or value.dtype != object else tracer_of(value).dtype
    return tracer_of(value).dtype


def tracer_of(value: Any) -> Tracer:
    """Any array-like as a tracer."""
    if isinstance(value, Tracer):
        return value
    trace = tracing()
    return Tracer(trace, node_of(trace, value))


def common_dtype(*values: Any) -> np.dtype:
    """NumPy's promoted dtype of array-likes."""
    kinds = []
    for key in map(promotion_key, values):
        kind = python_kind(key)
        kinds.append(kind if kind is not None else key if isinstance(key, np.dtype) else key.dtype)
    return common(tuple(kinds))


def as_dtype(trace: Trace, value: Any, dtype: np.dtype) -> Node:
    """The node of ``value`` in ``dtype``; Python numbers become constants of it at once, NumPy's integers too
    where a signed integer is wanted.

    Raises:
        OverflowError: a number does not fit.
    """
    if issubclass(type(value), Tracer):
        return trace.convert(trace.node(value), dtype)
    if is_python_number(value) or (isinstance(value, np.integer) and dtype.kind == "i"):
        return trace.number(int(value) if isinstance(value, np.integer) else value, dtype)
    return trace.convert(node_of(trace, value), dtype)


def unchecked(value: Any) -> Any:
    """A value to be written into an array: NumPy casts its own scalars like arrays there, and does not check
    that they fit.
    """
    return tracer_of(value) if isinstance(value, np.generic) else value


def cast(trace: Trace, value: Any, dtype: np.dtype) -> Node:
    """The node of ``value`` in ``dtype`` where NumPy makes an array of it before it casts: a Python number
    that does not fit wraps around.
    """
    return full(trace, value, dtype, ()) if is_python_number(value) else as_dtype(trace, value, dtype)


def promoted_arrays(trace: Trace, *values: Any) -> list[Node]:
    """Array-likes in the common dtype of arrays: NumPy's products make arrays of Python numbers first, and
    arrays do not adapt to the dtypes of others.
    """
    nodes = [node_of(trace, value) for value in values]
    dtype = np.result_type(*[node.dtype for node in nodes])
    check_dtype(dtype)
    return [trace.convert(node, dtype) for node in nodes]


def promoted(trace: Trace, *values: Any) -> list[Node]:
    """Array-likes in their common dtype."""
    dtype = common_dtype(*values)
    return [as_dtype(trace, value, dtype) for value in values]


def aligned(trace: Trace, *values: Any) -> list[Node]:
    """Array-likes in their common dtype and broadcast shape."""
    nodes = promoted(trace, *values)
    shape = common_shape(*nodes)
    return [trace.broadcast(node, shape) for node in nodes]


def full(trace: Trace, value: Any, dtype: np.dtype, shape: tuple[int, ...]) -> Node:
    """``value`` everywhere."""
    return trace.broadcast(trace.number(value, dtype, wraps=True), shape)


def as_bool(trace: Trace, node: Node) -> Node:
    """Truth values."""
    return trace.convert(node, BOOL)


def as_index(trace: Trace, node: Node) -> Node:
    """Integers as int64."""
    return trace.convert(node, I64)


def inexact(trace: Trace, node: Node) -> Node:
    """Integers and bools as float64; floats unchanged."""
    return node if node.dtype.kind == "f" else trace.convert(node, np.dtype(np.float64))


def checked_dtype(dtype: Any) -> np.dtype:
    """A user's dtype argument."""
    checked = np.dtype(dtype)
    check_dtype(checked)
    return checked


def static_array(value: Any) -> np.ndarray | None:
    """The values of an array-like when they are known and cannot change later, else None.

    Known are Python numbers and lists, NumPy scalars, read-only arrays that own their memory, and arrays that
    the traced function made itself.
    """
    if isinstance(value, Tracer):
        values: np.ndarray | None = getattr(type(value), "known", _unknown)(value)
        return values
    if isinstance(value, np.ndarray):
        return value if is_frozen(value) else None
    if isinstance(value, list | tuple):
        if not any_tracer(value):
            return np.asarray(value)
        parts = [static_array(item) for item in value]
        return None if any(part is None for part in parts) else np.array(parts)
    return np.asarray(value)


def is_frozen(array: np.ndarray) -> bool:
    """Whether nobody can write to an array: read-only, and its memory is its own."""
    return (
        type(array) is np.ndarray
        and not array.flags.writeable
        and array.base is None
        and array.dtype != object
    )


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only copy: its values count as known."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def _unknown(value: Tracer) -> None:
    """A plain tracer has no known values."""
    return None


def integers(value: Any, what: str) -> tuple[int, ...]:
    """A static int or sequence of ints (sizes, shifts, repetitions).

    Raises:
        TraceError: a traced value where a shape depends on it.
    """
    array = static_array(value)
    if array is None:
        array = METHODS["__concretise__"](tracer_of(value), what)
    if array is None:
        raise value_needed(
            what, tracer_of(value)._node.type, f"The shape of the result depends on it. {STATIC}"
        )
    if array.dtype.kind not in "iub" and array.size:
        raise TypeError(f"{what} must be integers, not {array.dtype}")
    return tuple(int(n) for n in array.reshape(-1))


def shape_of(value: Any) -> tuple[int, ...]:
    """A static shape argument."""
    return integers(value, "a shape")
