"""What a ``for`` goes over in converted code, where it has an element for each number: ranges and arrays.

Input: what the user's code iterates over. Output: `Steps`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import TraceError
from graphjit.trace.converted.values import is_traced
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Array, Number, Tracer


class Steps(NamedTuple):
    """Something to go over, by numbers from ``first`` to before ``end``."""

    first: Any
    end: Any
    """Both may be traced."""
    element: Callable[[Any], Any]
    """The element of a number."""

    @property
    def known(self) -> bool:
        """Whether the number of elements is known."""
        return isinstance(self.first, int) and isinstance(self.end, int)

    @property
    def length(self) -> int:
        """The number of elements, if it is known."""
        return int(self.end - self.first)


class TracedRange:
    """``range`` of traced numbers."""

    def __init__(self, *args: Any) -> None:
        for arg in args:
            if not isinstance(arg, Tracer):
                operator.index(arg)
            elif arg._node.shape or arg._node.dtype.kind not in "iu":
                raise TypeError(
                    f"'{arg._class.__name__}' object cannot be interpreted as an integer (at {user_location()})"
                )
        self.start, self.stop, self.step = (
            args if len(args) == 3 else (*args, 1) if len(args) == 2 else (0, *args, 1)
        )

    def __len__(self) -> int:
        raise TraceError(
            f"len() of range(...) at {user_location()}: its bounds are only known when the compiled code runs"
        )

    def __iter__(self) -> Iterator[Any]:
        raise TraceError(
            f"range(...) at {user_location()} is gone through by other means than a for statement; its bounds are only known when the compiled code "
            "runs"
        )

    def steps(self) -> Steps:
        """Its elements by number."""
        if type(self.step) is int and self.step == 1:
            return Steps(_number(self.start), _number(self.stop), lambda k: k)
        count = np.maximum(-((self.start - self.stop) // self.step), 0)
        return Steps(0, _number(count), lambda k: self.start + k * self.step)


def _number(value: Any) -> Any:
    """A number as Python's, which a range gives."""
    return Number(value._trace, value._trace.node(value)) if isinstance(value, Tracer) else value


def range_(*args: Any) -> Any:
    """``range(*args)``."""
    return TracedRange(*args) if any(map(is_traced, args)) else range(*args)


def steps_of(iterated: Any) -> Steps | None:
    """The elements by number; None: they can only be gone through."""
    if isinstance(iterated, TracedRange):
        return iterated.steps()
    if type(iterated) is range:
        return Steps(0, len(iterated), lambda k: iterated.start + k * iterated.step)
    if isinstance(iterated, Array) and iterated.shape:
        return Steps(0, iterated.shape[0], lambda k: iterated[k])
    return None
