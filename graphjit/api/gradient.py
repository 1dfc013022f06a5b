"""What `grad` and `value_and_grad` do at a call: find the arguments to differentiate, and shape the result.

``argnums`` and ``argnames`` are read against the call at hand; value, aux and gradients are put together.

Input: a call on traced values. Output: what the user asked for, traced.
Invariant: one gradient stands alone only if one position or one name was asked for, and not a sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.api.options import current_trace, names, numbered, positions
from graphjit.errors import DerivativeError
from graphjit.trace.marks import name_of
from graphjit.trace.transformed import derivatives


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
        wanted = numbered(self.argnums, args, self.fun) + [i for i in by_name.values() if i is not None]
        keywords = [name for name, i in by_name.items() if i is None]
        value, aux, found = derivatives.value_and_grad(
            current_trace(), self.fun, args, kwargs, wanted, keywords, self.has_aux
        )
        gradients = found[0] if self.single else tuple(found)
        if self.with_value:
            return ((value, aux) if self.has_aux else value), gradients
        return (gradients, aux) if self.has_aux else gradients

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
