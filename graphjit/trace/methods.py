"""ndarray methods and properties on tracers.

Job: fill ``tracer.METHODS``: name -> function whose first argument is the tracer; a property carries ``is_property``.
Invariant: same arguments as ndarray's methods.  0-d tracers inside object arrays are called by ufunc name (``np.sin`` of such an array calls
``x.sin()``), so every unary ufunc is a method as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from graphjit.errors import TraceError, UnsupportedError
from graphjit.trace.functions import creation, diagonals, joining, linear, reductions, selection, shapes
from graphjit.trace.functions.arguments import checked_dtype, tracing
from graphjit.trace.location import user_location
from graphjit.trace.tracer import BOUND, METHODS, UFUNCS, Tracer


def method(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a method."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            METHODS[name] = function
        return function

    return register


def attribute(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a property."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        function.is_property = True  # type: ignore[attr-defined]
        return method(*names)(function)

    return register


def _axes(args: tuple[Any, ...]) -> Any:
    """``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    return args[0] if len(args) == 1 and not isinstance(args[0], int | np.integer) else args


@method("reshape")
def reshape(x: Tracer, *shape: Any, order: Any = "C", copy: Any = None) -> Tracer:
    """x.reshape."""
    return shapes.reshape(x, _axes(shape), order)


@method("transpose")
def transpose(x: Tracer, *axes: Any) -> Tracer:
    """x.transpose."""
    if not axes or axes == (None,):
        return shapes.transpose(x)
    return shapes.transpose(x, _axes(axes))


@attribute("T")
def transposed(x: Tracer) -> Tracer:
    """x.T."""
    return shapes.transpose(x)


@attribute("mT")
def matrix_transposed(x: Tracer) -> Tracer:
    """x.mT."""
    if x.ndim < 2:
        raise ValueError("matrix transpose with ndim < 2 is undefined")
    return shapes.swapaxes(x, -1, -2)


@attribute("real")
def real(x: Tracer) -> Tracer:
    """x.real."""
    return x


@attribute("imag")
def imag(x: Tracer) -> Tracer:
    """x.imag: zeros."""
    return creation.zeros_like(x)


@attribute("flat")
def flat(x: Tracer) -> Tracer:
    """x.flat, for reading: the flattened array."""
    return shapes.ravel(x)


@attribute("base")
def base(x: Tracer) -> None:
    """x.base: traced values own their elements."""
    return


@method("flatten")
def flatten(x: Tracer, order: Any = "C") -> Tracer:
    """x.flatten."""
    return shapes.ravel(x, order)


@method("astype")
def astype(x: Tracer, dtype: Any, order: Any = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True) -> Tracer:
    """x.astype."""
    target = checked_dtype(dtype)
    if not np.can_cast(x.dtype, target, casting):  # type: ignore[arg-type]
        raise TypeError(f"Cannot cast array data from {x.dtype!r} to {target!r} according to the rule '{casting}'")
    return creation.astype(x, target)


@method("copy")
def copy(x: Tracer, order: Any = "C") -> Tracer:
    """x.copy."""
    return creation.copy(x)


@method("clip")
def clip(x: Tracer, min: Any = None, max: Any = None, out: Any = None, **kwargs: Any) -> Tracer:
    """x.clip."""
    return selection.clip(x, min, max, out, **kwargs)


@method("repeat")
def repeat(x: Tracer, repeats: Any, axis: Any = None) -> Tracer:
    """x.repeat."""
    return joining.repeat(x, repeats, axis)


@method("compress")
def compress(x: Tracer, condition: Any, axis: Any = None, out: Any = None) -> Tracer:
    """x.compress."""
    return selection.compress(condition, x, axis, out)


@method("choose")
def choose(x: Tracer, choices: Any, out: Any = None, mode: str = "raise") -> Tracer:
    """x.choose."""
    return selection.choose(x, choices, out, mode)


@method("conj", "conjugate")
def conjugate(x: Tracer) -> Tracer:
    """x.conj: traced values are real."""
    return x


@method("byteswap", "getfield", "setfield", "setflags", "view", "resize", "tobytes", "tofile", "dump", "dumps")
def layout(x: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
    """Methods about memory."""
    raise UnsupportedError(f"a traced array has no memory of its own (at {user_location()}): methods that show bytes are not compiled")


@method("searchsorted", "sort", "argsort", "partition", "argpartition")
def ordering(x: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
    """Sorting methods."""
    raise UnsupportedError(f"sorting is not compiled (at {user_location()}): order the data outside and pass it in")


@method("nonzero")
def nonzero(x: Tracer) -> NoReturn:
    """x.nonzero: refused with advice."""
    selection.nonzero(x)
    raise AssertionError


@method("put", "itemset")
def put(x: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
    """x.put."""
    raise UnsupportedError(f"ndarray.put is not compiled (at {user_location()}): assign with x[index] = value")


@attribute("strides", "data", "ctypes", "flags")
def memory(x: Tracer) -> NoReturn:
    """Attributes about memory."""
    raise TraceError(f"a traced array has no memory of its own (at {user_location()}): strides, data, ctypes and flags do not exist")


for _name, _function in {
    "sum": reductions.sum_,
    "prod": reductions.prod,
    "mean": reductions.mean,
    "var": reductions.var,
    "std": reductions.std,
    "max": reductions.max_,
    "min": reductions.min_,
    "ptp": reductions.ptp,
    "any": reductions.any_,
    "all": reductions.all_,
    "argmax": reductions.argmax,
    "argmin": reductions.argmin,
    "cumsum": reductions.cumsum,
    "cumprod": reductions.cumprod,
    "ravel": shapes.ravel,
    "squeeze": shapes.squeeze,
    "swapaxes": shapes.swapaxes,
    "dot": linear.dot,
    "take": selection.take,
    "diagonal": diagonals.diagonal,
    "trace": diagonals.trace,
    "round": creation.round_,
}.items():
    METHODS[_name] = _function


def _by_ufunc_name(ufunc: np.ufunc) -> Callable[[Tracer], Any]:
    def call(x: Tracer) -> Any:
        return tracing().ufunc(ufunc, x)

    return call


for _ufunc in (*BOUND, *UFUNCS):
    if _ufunc.nin == 1:
        METHODS.setdefault(_ufunc.__name__, _by_ufunc_name(_ufunc))
