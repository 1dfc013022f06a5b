"""Stored tracers behave like the ndarrays that they are as long as their values are known.

Job: operators, conversions, NumPy calls, methods, in-place operators and views for `Stored`; in-place
operators for every tracer.
Input: importing this module.  Output: methods on `Stored` and `Tracer`, entries in METHODS and FUNCTIONS.
Invariant: with known values alone the result is computed at once and is known again; as soon as something
traced, or an array from outside, takes part, the same call is recorded instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.trace.arrays.assignment import write_mask
from graphjit.trace.arrays.buffers import (
    Stored,
    Unknown,
    assign,
    known_array,
    known_values,
    local,
    setitem,
    stored,
)
from graphjit.trace.arrays.copies import MEMORY_METHODS
from graphjit.trace.arrays.layout import in_order, model
from graphjit.trace.arrays.sharing import VIEW_METHODS, VIEWS
from graphjit.trace.numpy.arguments import as_bool, node_of, tracing, unchecked, wrap
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import METHODS, Array, Tracer, implements

# ------------------------------------------------------------------------------------- operators, conversions

OPERATORS = (
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ "
    "__and__ __rand__ __or__ __ror__ __xor__ __rxor__ __lshift__ __rlshift__ __rshift__ __rrshift__ __lt__ __le__ __gt__ __ge__ __eq__ __ne__ "
    "__neg__ __abs__ __invert__ __pos__ __divmod__ __matmul__ __rmatmul__"
).split()
CONVERSIONS = (
    "__bool__ __float__ __int__ __index__ __complex__ __contains__ __round__ __reduce__ item tolist".split()
)


def _known_first(name: str, wrapped: Callable[[Any], Any]) -> Callable[..., Any]:
    """The ndarray's method on known values, the tracer's otherwise."""
    traced = getattr(Array, name)

    def method(self: Stored, *others: Any) -> Any:
        known = self.known()
        if known is None:
            return traced(self, *others)
        try:
            plain = known_values(others)
        except Unknown:
            return traced(self, *others)
        found = getattr(known, name)(*plain)
        return found if found is NotImplemented else wrapped(found)

    method.__name__ = name
    return method


for _name in OPERATORS:
    setattr(Stored, _name, _known_first(_name, local))
for _name in CONVERSIONS:
    setattr(Stored, _name, _known_first(_name, lambda found: found))


def _array(self: Stored) -> Any:
    """``__array__``: the known values themselves."""
    if self.known() is None:
        return Tracer.__array__.fget(self)  # type: ignore[attr-defined]

    def convert(dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.known(), dtype=dtype, copy=copy)

    return convert


def _array_ufunc(self: Stored, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
    """``__array_ufunc__``: known arguments are computed at once, ``out=`` in place."""
    try:
        plain, options = known_values(args), known_values(kwargs)
    except Unknown:
        return METHODS["__array_ufunc__"](self, ufunc, method, *args, **kwargs)
    found = getattr(ufunc, method)(*plain, **options)
    out = kwargs.get("out")
    if out is None:
        return local(found)
    return out[0] if isinstance(out, tuple) and len(out) == 1 else out


def _array_function(self: Stored, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
    """``__array_function__``: known arguments are computed at once."""
    if function in VIEWS:
        return in_order(VIEWS[function](*args, **kwargs), function, args, kwargs)
    try:
        plain, options = known_values(args), known_values(kwargs)
    except Unknown:
        return Tracer.__array_function__(self, function, types, args, kwargs)
    return _fresh(function(*plain, **options), plain, function.__name__)


def _fresh(found: Any, operands: Any, name: str) -> Any:
    """Results that share memory with an operand are copies which refuse to be written."""
    arrays = [a for a in (operands if isinstance(operands, tuple) else ()) if isinstance(a, np.ndarray)]
    parts = found if isinstance(found, tuple | list) else [found]
    if any(isinstance(part, np.ndarray) and np.may_share_memory(part, a) for part in parts for a in arrays):
        copies = [np.array(part) for part in parts]
        return local(type(found)(copies) if isinstance(found, tuple | list) else copies[0], shared=name)
    return local(found)


def _attribute(self: Stored, name: str) -> Any:
    """Other attributes and methods."""
    known = self.known()
    if known is None or name in VIEW_METHODS or name in MEMORY_METHODS or name.startswith("__"):
        return Tracer.__getattr__(self, name)
    found = getattr(known, name)
    if not callable(found):
        return local(found)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            plain, options = known_values(args), known_values(kwargs)
        except Unknown:
            return Tracer.__getattr__(self, name)(*args, **kwargs)
        return _fresh(found(*plain, **options), (known,), name)

    return call


for _name, _behaviour in {
    "__array__": property(_array),
    "__array_ufunc__": _array_ufunc,
    "__array_function__": _array_function,
    "__getattr__": _attribute,
}.items():
    setattr(Stored, _name, _behaviour)

# ----------------------------------------------------------------------------------------- in-place operators


def _in_place(name: str, ufunc: np.ufunc) -> Callable[[Tracer, Any], Any]:
    """``x += y`` and kin: the object stays, dtype and shape stay; NumPy scalars (0-d results) are rebound as
    in NumPy.
    """

    def method(self: Tracer, other: Any) -> Any:
        known = known_array(self)
        if known is not None:
            try:
                getattr(known, name)(known_values(other))
            except Unknown:
                pass
            else:
                return self
        if isinstance(other, list | tuple):
            other = wrap(tracing(), node_of(tracing(), other))
        if not isinstance(other, Tracer | int | float | np.ndarray | np.generic):
            return NotImplemented
        value = ufunc(self, other)
        if not np.can_cast(value.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"Cannot cast ufunc '{ufunc.__name__}' output from {value.dtype!r} to {self.dtype!r} with casting rule 'same_kind' "
                f"(at {user_location()})"
            )
        if value.shape != self.shape:
            raise ValueError(
                f"non-broadcastable output operand with shape {self.shape} doesn't match the broadcast shape {value.shape} (at {user_location()})"
            )
        assign(self, value)
        return self

    return method


for _name, _ufunc in {
    "__iadd__": np.add,
    "__isub__": np.subtract,
    "__imul__": np.multiply,
    "__itruediv__": np.true_divide,
    "__ifloordiv__": np.floor_divide,
    "__imod__": np.remainder,
    "__ipow__": np.power,
    "__iand__": np.bitwise_and,
    "__ior__": np.bitwise_or,
    "__ixor__": np.bitwise_xor,
    "__ilshift__": np.left_shift,
    "__irshift__": np.right_shift,
    "__imatmul__": np.matmul,
}.items():
    setattr(Array, _name, _in_place(_name, _ufunc))


def fill(x: Tracer, value: Any) -> None:
    """x.fill."""
    setitem(x, ..., value)


METHODS["fill"] = fill


def _same_place(a: Any, b: Any) -> bool:
    """Whether two arrays are the same elements in the same order."""
    if not (isinstance(a, Array) and isinstance(b, Array)) or a.dtype != b.dtype:
        return False
    first, second = model(a), model(b)
    return (first.ctypes.data, first.shape, first.strides) == (
        second.ctypes.data,
        second.shape,
        second.strides,
    )


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """np.copyto; of an array to itself it does nothing, not even ask whether it may be written."""
    if isinstance(dst, Tracer) and not isinstance(dst, Array):
        raise TypeError(
            f"copyto() argument 1 must be a numpy.ndarray, not {dst._class.__name__} (at {user_location()})"
        )
    if dst is src or _same_place(dst, src):
        return
    value = src if isinstance(src, Tracer) else np.asarray(src)
    weak = type(src) is int and dst.dtype.kind in "iuf"
    if not weak and not np.can_cast(value.dtype, dst.dtype, casting):
        raise TypeError(
            f"Cannot cast array data from {value.dtype!r} to {dst.dtype!r} according to the rule '{casting}'"
        )
    src = unchecked(src)
    setitem(dst, ..., src if where is True else np.where(where, src, dst))


@implements(np.putmask)
def putmask(a: Any, mask: Any, values: Any) -> None:
    """np.putmask with values of one element or of a's shape."""
    if isinstance(values, Array | np.ndarray) and not np.can_cast(values.dtype, a.dtype):
        raise TypeError(
            f"Cannot cast array data from {values.dtype!r} to {a.dtype!r} according to the rule 'safe' (at {user_location()})"
        )
    if np.ndim(values) and np.size(values) > 1:
        setitem(a, ..., np.where(mask, values, a))
    else:
        trace = tracing()
        held = stored(a)
        held.replace(
            write_mask(
                trace,
                held.node(),
                as_bool(trace, node_of(trace, mask)),
                np.reshape(values, ()) if np.ndim(values) else values,
            )
        )


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """np.fill_diagonal."""
    if a.ndim < 2:
        raise ValueError("array must be at least 2-d")
    if a.ndim > 2 and len(set(a.shape)) != 1:
        raise ValueError("All dimensions of input must be of equal length")
    columns = a.shape[1]
    step = columns + 1 if a.ndim == 2 else 1 + sum(columns**power for power in range(1, a.ndim))
    end = columns * columns if a.ndim == 2 and not wrap else None
    a.flat[slice(None, end, step)] = val
