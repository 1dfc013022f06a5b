"""The calls of converted functions that are under way, and what they return.

Invariant: a function that calls itself under a condition on a traced value is an error before Python's stack
ends.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any

from graphjit.errors import TraceError
from graphjit.trace.converted.values import Undefined
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location

DEEP = 50
"""Calls of a function by itself under a condition, up to which it may come to an end."""


class _Depths(threading.local):
    def __init__(self) -> None:
        self.of: Counter[CodeType] = Counter()


_depths = _Depths()


class FunctionScope:
    """One call of a converted function."""

    def __init__(self, name: str, variable: str, options: None) -> None:
        self.name = name
        self.code = sys._getframe(1).f_code

    def __enter__(self) -> FunctionScope:
        trace = active_trace()
        if trace is not None and trace.within is not None and trace.within.open:
            if _depths.of[self.code] >= DEEP:
                raise TraceError(
                    f"{self.name} calls itself at {user_location()} under a condition that is only known when the compiled code runs, so there is no end. "
                    "Write it as a loop"
                )
        _depths.of[self.code] += 1
        return self

    def __exit__(self, *error: object) -> None:
        _depths.of[self.code] -= 1

    def ret(self, value: Any, returned: Any) -> Any:
        """What the function returns.

        Raises:
            TraceError: only one way returns something.
        """
        if isinstance(value, Undefined):
            if value.message:
                raise TraceError(f"{self.name}: {value.message}")
            return None
        if not isinstance(returned, bool):
            raise TraceError(
                f"{self.name} returns a value only where a test holds that is only known when the compiled code runs, and None where not (at "
                f"{user_location()}). Return a value there too"
            )
        return value


def with_function_scope(thunk: Callable[[FunctionScope], Any], variable: str, options: None) -> Any:
    """One call of a converted lambda."""
    scope = FunctionScope("<lambda>", variable, options)
    with scope:
        return thunk(scope)
