"""Methods and properties of ndarray on tracers: ``x.sum()``, ``x.clip(0, 1)``, ``x.sort()``.

This file fills the table ``METHODS``: name -> function whose first argument is the tracer; a property carries
``is_property``. Arguments are those of ndarray's methods. Methods that are not compiled raise with advice.

Every ufunc of one argument is a method as well, since ``np.sin`` of an object array calls ``x.sin()`` on each
tracer in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.trace.numpy import creation, diagonals, joining, linear, reductions, selection
from graphjit.trace.numpy.arguments import tracing
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import BOUND, METHODS, UFUNCS, Tracer


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


@method("byteswap", "getfield", "setfield", "setflags", "resize", "tobytes", "tofile", "dump", "dumps")
def layout(x: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
    """Methods that show or change bytes, refused."""
    raise UnsupportedError(
        f"a traced array has no memory of its own (at {user_location()}): methods that show bytes are not compiled"
    )


@method("sort", "argsort", "partition", "argpartition")
def ordering(x: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
    """Sorting methods, refused."""
    raise UnsupportedError(
        f"sorting is not compiled (at {user_location()}): order the data outside and pass it in"
    )


@method("nonzero")
def nonzero(x: Tracer) -> NoReturn:
    """x.nonzero: refused with advice."""
    selection.nonzero(x)
    raise AssertionError


@method("put", "itemset")
def put(x: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
    """x.put, refused."""
    raise UnsupportedError(
        f"ndarray.put is not compiled (at {user_location()}): assign with x[index] = value"
    )


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
    "dot": linear.dot,
    "take": selection.take,
    "trace": diagonals.trace,
    "round": creation.round_,
}.items():
    METHODS[_name] = _function


def _by_ufunc_name(ufunc: np.ufunc) -> Callable[[Tracer], Any]:
    """The method that calls a ufunc of one argument."""

    def call(x: Tracer) -> Any:
        return tracing().ufunc(ufunc, x)

    return call


for _ufunc in (*BOUND, *UFUNCS):
    if _ufunc.nin == 1:
        METHODS.setdefault(_ufunc.__name__, _by_ufunc_name(_ufunc))
