"""What the public transformations do with their options: positions and names of arguments, static arguments,
and the compiled companions of a function.

Input: options as users write them. Output: the same in one form.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError
from graphjit.trace.marks import dispatcher_of, name_of
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import Trace

Positions = int | Sequence[int]
Names = str | Sequence[str]


def positions(value: Positions) -> tuple[int, ...]:
    """Positions of arguments as a tuple."""
    if isinstance(value, int | np.integer):
        return (int(value),)
    if isinstance(value, str) or not all(isinstance(number, int | np.integer) for number in value):
        raise TypeError(f"positions of arguments are integers, not {value!r}")
    return tuple(map(int, value))


def names(value: Names) -> tuple[str, ...]:
    """Names of arguments as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def numbered(argnums: Sequence[int], args: Sequence[Any], fun: Callable[..., Any]) -> list[int]:
    """Positions of arguments to differentiate, counted from the front of a call.

    Raises:
        DerivativeError: the call has no such argument.
    """
    for i in argnums:
        if not -len(args) <= i < len(args):
            raise DerivativeError(
                f"argnums={i}, but {name_of(fun)} was called with {len(args)} positional arguments; pass "
                "the argument by position or name it in argnames"
            )
    return [i % len(args) for i in argnums]


def inner_statics(
    fun: Callable[..., Any], static_argnums: Positions, static_argnames: Names
) -> tuple[Callable[..., Any], tuple[tuple[int, ...], tuple[str, ...]]]:
    """The user's function behind ``fun``, and its static arguments: those that are given, else those of the
    compiled function that ``fun`` is.
    """
    statics = (positions(static_argnums), names(static_argnames))
    inner = dispatcher_of(fun)
    if inner is None:
        return fun, statics
    return inner.function, (statics[0] or inner.static_nums, statics[1] or tuple(inner.static_names))


def current_trace() -> Trace:
    """The trace under which a transformed function runs."""
    trace = active_trace()
    assert trace is not None, "transformed functions run under a trace"
    return trace


_COMPANIONS = "__graphjit_companions__"


def kept(key: Any, make: Callable[[], Any]) -> Any:
    """The compiled companion of a function, kept in the function's own ``__dict__`` so that both die
    together.

    Other callables (methods, partials) have none: they are traced again, and the structural cache still holds
    their code.
    """
    fun, *rest = key
    if not isinstance(fun, types.FunctionType):
        return make()
    row = fun.__dict__.setdefault(_COMPANIONS, {})
    kind = tuple(rest)
    if kind not in row:
        row[kind] = make()
    return row[kind]


def require_callable(fun: Any, what: str) -> None:
    if not callable(fun):
        raise TypeError(f"{what} takes a function, not {type(fun).__name__}")
