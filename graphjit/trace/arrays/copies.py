"""What is a copy and what the same array: copy, astype, asarray and kin, real and imag; and what NumPy shows
of memory: flat, strides, flags, base.

Job: NumPy's rule of when a conversion returns its argument itself, and in which memory order a copy lies.
Input: a traced value and the options of NumPy's function. Output: the same value, or a new one.
Invariants: a copy is a new traced value of the same node, so a later write to either does not reach the
other; its model has the order that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.types import Type
from graphjit.trace.arrays import layout
from graphjit.trace.arrays.buffers import (
    Lens,
    Stored,
    Unknown,
    known_array,
    known_values,
    local,
    ultimate_base,
    writable_storage,
)
from graphjit.trace.arrays.items import write_key
from graphjit.trace.arrays.sharing import ravel, reshape
from graphjit.trace.numpy.arguments import (
    as_dtype,
    checked_dtype,
    given,
    node_of,
    tracer_of,
    tracing,
    unchecked,
    wrap_array,
)
from graphjit.trace.numpy.methods import attribute, method
from graphjit.trace.outside.captured_class import is_captured
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tables import SHARING_METHODS
from graphjit.trace.recording.tracer import METHODS, Array, Tracer, implements

# ----------------------------------------------------------------------------------------------------- copies


def copied(x: Any, order: Any, dtype: Any = None) -> Any:
    """A new array with the elements of ``x`` in this memory order."""
    known = known_array(x)
    if known is not None:
        return local(np.array(known, dtype=dtype, order=order, copy=True))
    trace = tracing()
    node = as_dtype(trace, x, checked_dtype(dtype)) if given(dtype) else node_of(trace, x)
    return layout.in_memory_of(wrap_array(trace, node), x, order)


@implements(np.copy)
def copy_function(a: Any, order: Any = "K", subok: bool = False) -> Any:
    """np.copy: always an array."""
    return copied(a, order)


@method("copy")
def copy_method(x: Tracer, order: Any = "C") -> Any:
    """x.copy: of a scalar a scalar."""
    return copied(x, order) if isinstance(x, Array) else x


@method("__copy__")
def dunder_copy(x: Array) -> Any:
    """copy.copy and copy.deepcopy keep the memory order."""
    return copied(x, "K")


@method("flatten")
def flatten(x: Tracer, order: Any = "C") -> Any:
    """x.flatten: always a copy."""
    return copied(ravel(x, order), "C")


def _laid_out(x: Array, order: Any) -> bool:
    """Whether an array already lies in this order (A: C or Fortran, either will do)."""
    if order in (None, "K"):
        return True
    flags = layout.model(x).flags
    return bool(flags.c_contiguous if order == "C" else flags.f_contiguous if order == "F" else flags.forc)


def _checked(dtype: Any, source: np.dtype, casting: str) -> np.dtype:
    target = checked_dtype(dtype)
    if not np.can_cast(source, target, casting):  # type: ignore[arg-type]
        raise TypeError(
            f"Cannot cast array data from {source!r} to {target!r} according to the rule {casting!r} (at {user_location()})"
        )
    return target


@method("astype")
def astype(
    x: Tracer, dtype: Any, order: Any = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
) -> Any:
    """x.astype: a copy, or with ``copy=False`` the array itself where nothing has to change."""
    target = _checked(dtype, x.dtype, casting)
    if not isinstance(x, Array):
        return Tracer(tracing(), tracing().convert(node_of(tracing(), x), target))
    if not copy and target == x.dtype and _laid_out(x, order):
        return x
    return copied(x, order, target)


@implements(np.astype)
def astype_function(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """np.astype."""
    if not isinstance(x, Array):
        raise TypeError(
            f"Input should be a NumPy array. It is of type {type(x)._class if isinstance(x, Tracer) else type(x)} (at {user_location()})"
        )
    return astype(x, dtype, copy=copy)


# ------------------------------------------------------------------------------------------------ conversions


def converted(
    a: Any,
    dtype: Any = None,
    *,
    copy: Any = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    like: Any = None,
    device: Any = None,
) -> Any:
    """np.array, and with ``copy=None`` np.asarray, of something that is or holds a traced value.

    Raises:
        ValueError: ``copy=False`` where a copy is needed.
    """
    if not isinstance(copy, bool | None):
        copy = {"ALWAYS": True, "NEVER": False, "IF_NEEDED": None}[
            copy.name
        ]  # SciPy passes NumPy's own words
    value = a if isinstance(a, Tracer) else tracer_of(a)
    target = (
        checked_dtype(dtype)
        if given(dtype)
        else node_of(tracing(), value).dtype
        if not isinstance(value, Array)
        else value.dtype
    )
    same = isinstance(value, Array) and value is a and target == value.dtype and _laid_out(value, order)
    if copy is False and not same:
        raise ValueError(
            f"Unable to avoid creating a copy while creating an array as requested (at {user_location()}). If using `np.array(obj, copy=False)` "
            "replace it with `np.asarray(obj)` to allow a copy when needed."
        )
    result = value if same and not copy else copied(value, order, target)
    return result if result.ndim >= ndmin else reshape(result, (1,) * (ndmin - result.ndim) + result.shape)


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, device: Any = None, copy: Any = None, like: Any = None
) -> Any:
    """np.asarray and np.asanyarray."""
    return converted(a, dtype, copy=copy, order=order)


def ascontiguousarray(a: Any, dtype: Any = None, *, like: Any = None) -> Any:
    """np.ascontiguousarray: at least one axis."""
    return converted(a, dtype, copy=None, order="C", ndmin=1)


def asfortranarray(a: Any, dtype: Any = None, *, like: Any = None) -> Any:
    """np.asfortranarray."""
    return converted(a, dtype, copy=None, order="F")


CONVERSIONS: dict[str, Callable[..., Any]] = {
    "array": converted,
    "asarray": asarray,
    "asanyarray": asarray,
    "ascontiguousarray": ascontiguousarray,
    "asfortranarray": asfortranarray,
}
"""By the name in NumPy; these functions have no protocol, so `hooks` leads calls that hold traced values
here.
"""

SHARING_METHODS.update(
    ("copy", "flatten", "astype", "real", "imag", "conj", "conjugate", "strides", "flags", "base", "flat")
)

# ---------------------------------------------------------------------------------------------- real and imag


@implements(np.real)
@attribute("real")
def real(x: Any) -> Any:
    """x.real: traced values are real, so this is the array itself."""
    return x if isinstance(x, Tracer) else tracer_of(x)


@implements(np.imag)
@attribute("imag")
def imag(x: Any) -> Any:
    """x.imag: zeros that cannot be written to."""
    zeros = np.zeros_like(x)
    if isinstance(zeros, Array):
        layout.model(zeros).flags.writeable = False
    return zeros


@implements(np.real_if_close)
def real_if_close(a: Any, tol: float = 100) -> Any:
    """np.real_if_close: traced values are real already."""
    return asarray(a)


@method("conj", "conjugate")
def conjugate(x: Tracer, out: Any = None) -> Any:
    """x.conj: the array itself; np.conj makes a copy."""
    return x


# ------------------------------------------------------------------------------------------ what memory shows


@attribute("strides")
def strides(x: Tracer) -> tuple[int, ...]:
    """x.strides in bytes, as NumPy's array would have."""
    if not isinstance(x, Array):
        return ()
    shown = layout.model(x)
    return tuple(step // shown.itemsize * x.itemsize for step in shown.strides)


class Flags:
    """x.flags for reading: what NumPy's array would show."""

    def __init__(self, x: Array) -> None:
        self._flags = layout.model(x).flags

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flags, name)

    def __getitem__(self, name: Any) -> bool:
        return self._flags[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_flags":
            raise UnsupportedError(
                f"setting flags of a traced array is not compiled (at {user_location()}): set them on the array outside"
            )
        object.__setattr__(self, name, value)

    def __setitem__(self, name: Any, value: Any) -> None:
        setattr(self, str(name), value)

    def __repr__(self) -> str:
        return repr(self._flags)


@attribute("flags")
def flags(x: Tracer) -> Any:
    """x.flags."""
    return Flags(x) if isinstance(x, Array) else np.empty((), bool)[()].flags


@attribute("base")
def base(x: Tracer) -> Any:
    """x.base: of a view the array that owns the elements."""
    return ultimate_base(x) if isinstance(x, Stored) else None


@attribute("data", "ctypes")
def memory(x: Tracer) -> NoReturn:
    """Addresses and buffers."""
    raise TraceError(
        f"a traced array has no memory of its own (at {user_location()}): data and ctypes do not exist while the function is traced"
    )


@implements(np.shares_memory, np.may_share_memory)
def shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    """Whether two arrays share elements.

    Raises:
        TraceError: both came as arguments, so the answer can differ between calls.
    """
    a, b = (METHODS["__outside__"](tracing(), x) if is_captured(x) else x for x in (a, b))
    if not (isinstance(a, Array) and isinstance(b, Array)):
        return False
    first, second = (ultimate_base(x) if isinstance(x, Stored) else x for x in (a, b))
    if first is not second and all(
        any(x is argument for argument in tracing().arguments) for x in (first, second)
    ):
        raise TraceError(
            f"np.shares_memory of two arguments at {user_location()}: the answer depends on the arrays of each call. Compare them outside."
        )
    return bool(np.shares_memory(layout.model(a), layout.model(b)))


# ------------------------------------------------------------------------------------------------------- flat


class Flat:
    """x.flat: reads give copies, writes go to ``x``; always in row-major order."""

    __slots__ = ("array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def base(self) -> Array:
        """The array."""
        return self.array

    def _all(self) -> Any:
        return copied(ravel(self.array), "C")

    def __len__(self) -> int:
        return self.array.size

    def __getitem__(self, key: Any) -> Any:
        _check_flat(key)
        part = ravel(self.array)[key]
        return copied(part, "C") if isinstance(part, Array) else part

    def __setitem__(self, key: Any, value: Any) -> None:
        _check_flat(key)
        known = writable_storage(self.array).known()
        if known is not None:
            try:
                known.flat[known_values(key)] = known_values(value)
            except Unknown:
                pass
            else:
                return
        size = self.array.size
        rows = Lens(
            self.array,
            Type(self.array.dtype, (size,)),
            lambda array: array.reshape(-1),
            lambda trace, node: trace.emit("reshape", node, shape=(size,)),
            lambda trace, base, value: trace.emit("reshape", value, shape=base.shape),
        )
        if not isinstance(key, int):
            write_key(rows, key, _repeated(unchecked(value), len(np.empty(size, bool)[known_values(key)])))
            return
        try:
            write_key(rows, key, _repeated(value, 1))
        except OverflowError as error:  # NumPy's class here
            raise ValueError(f"Error setting single item of array: {error} (at {user_location()})") from None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def copy(self) -> Any:
        """A one-dimensional copy."""
        return self._all()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*[a._all() if isinstance(a, Flat) else a for a in args], **kwargs)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return function(*[a._all() if isinstance(a, Flat) else a for a in args], **kwargs)

    def __eq__(self, other: Any) -> Any:
        return self._all() == other

    def __ne__(self, other: Any) -> Any:
        return self._all() != other


def _check_flat(key: Any) -> None:
    if key is None or (isinstance(key, tuple) and len(key) != 1):
        raise IndexError(f"unsupported iterator index (at {user_location()})")


def _repeated(value: Any, count: int) -> Any:
    """Values for ``x.flat[key] = value``: NumPy takes them again and again until every place has one."""
    many = np.size(value) > 1 and np.size(value) != count
    return (
        np.ravel(value)[np.arange(count) % np.size(value)]
        if many
        else np.ravel(value)
        if np.ndim(value) > 1
        else value
    )


@attribute("flat")
def flat(x: Tracer) -> Any:
    """x.flat."""
    return Flat(x) if isinstance(x, Array) else Flat(copied(x, "C"))
