"""What `grad` and `value_and_grad` do at a call: find the arguments to differentiate, and shape the result.

``argnums`` and ``argnames`` are read against the call at hand; value, aux and gradients are put together.

Input: a call on traced values. Output: what the user asked for, traced.
Invariant: one gradient stands alone only if one position or one name was asked for, and not a sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError
from graphjit.pullback import current_trace
from graphjit.trace import differentiate
from graphjit.trace.marks import name_of

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


class Gradient:
    """``value_and_grad`` of a function, to be called on traced values."""

    def __init__(
        self, fun: Callable[..., Any], argnums: Any, argnames: Any, has_aux: bool, with_value: bool
    ) -> None:
        self.fun = fun
        self.argnames = names(argnames)
        self.argnums = positions(argnums if argnums is not None else () if self.argnames else 0)
        if self.argnames:
            self.single = isinstance(argnames, str) and argnums is None
        else:
            self.single = argnums is None or isinstance(argnums, int | np.integer)
        self.has_aux = has_aux
        self.with_value = with_value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Value and gradients at traced arguments."""
        by_name = self._named(args, kwargs)
        wanted = self._numbered(args) + [i for i in by_name.values() if i is not None]
        keywords = [name for name, i in by_name.items() if i is None]
        value, aux, found = differentiate.value_and_grad(
            current_trace(), self.fun, args, kwargs, wanted, keywords, self.has_aux
        )
        gradients = found[0] if self.single else tuple(found)
        if self.with_value:
            return ((value, aux) if self.has_aux else value), gradients
        return (gradients, aux) if self.has_aux else gradients

    def _numbered(self, args: tuple[Any, ...]) -> list[int]:
        """Positions in ``argnums``, counted from the front."""
        for i in self.argnums:
            if not -len(args) <= i < len(args):
                raise DerivativeError(
                    f"argnums={i}, but {name_of(self.fun)} was called with {len(args)} positional arguments; pass "
                    "the argument by position or name it in argnames"
                )
        return [i % len(args) for i in self.argnums]

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, int | None]:
        """Where each of ``argnames`` was passed: its position, or None for a keyword."""
        found: dict[str, int | None] = {}
        for name in self.argnames:
            if name in kwargs:
                found[name] = None
                continue
            parameters = list(inspect.signature(self.fun).parameters)
            if name not in parameters or parameters.index(name) >= len(args):
                raise DerivativeError(
                    f"argnames names {name!r}, which {name_of(self.fun)} was not called with"
                )
            found[name] = parameters.index(name)
        return found
