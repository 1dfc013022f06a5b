"""Conversions such as ``np.asarray(x)``, ``np.array([x, y])`` and ``np.float64(x)`` of traced values, whoever
calls them.

These are C functions without a protocol. Given a traced value they would ask it for its numbers, which nobody
knows yet. So while a function is traced they lead to Python: called with a traced value they return it,
converted or copied. In this way library code that begins with ``np.asarray`` (SciPy's mostly does) is traced
as far as its operations go.

Only calls that hold a traced value, in the thread that traces, see a difference. A traced value whose numbers
are known is handed to libraries as an ndarray.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from graphjit.backend.llvm.entry.callable import library_address
from graphjit.backend.llvm.entry.numpy_hooks import FUNCTIONS, TYPES, Hooks
from graphjit.trace.arrays.buffers import known_array
from graphjit.trace.arrays.copies import CONVERSIONS, Flat, asarray
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import in_library
from graphjit.trace.recording.tracer import Tracer

ORIGINALS: dict[str, Any] = {name: getattr(np, name) for name in FUNCTIONS}
"""NumPy's own functions, before `patches` puts anything in their place."""


def holds_traced(content: Any) -> bool:
    """Whether a value is traced, or a list or tuple with one somewhere."""
    if isinstance(content, list | tuple):
        return any(map(holds_traced, content))
    return isinstance(content, Tracer | Flat)


def _conversion(name: str) -> Callable[[Any], Any]:
    """What makes the Python function behind np.asarray and kin from the original."""

    def make(original: Any) -> Any:
        def convert(*args: Any, **kwargs: Any) -> Any:
            if active_trace() is None or not args or not holds_traced(args[0]):
                return original(*args, **kwargs)
            values = known_array(args[0])
            if values is not None and in_library(sys._getframe(1)):
                return original(values, *args[1:], **kwargs)
            return CONVERSIONS[name](*args, **kwargs)

        return convert

    return make


def _scalar(kind: type[np.generic]) -> Callable[[Any], Any]:
    """What makes the Python function behind the constructor of a scalar type from the original."""

    def make(original: Any) -> Any:
        def construct(made: type, args: tuple[Any, ...], keywords: Any) -> Any:
            if made is not kind or len(args) != 1 or active_trace() is None or not holds_traced(args[0]):
                return original(made, args, keywords)
            value = asarray(args[0], kind)
            return value if value.ndim else value[()]

        return construct

    return make


@cache
def _hooks() -> Hooks:
    kinds = {name: np.dtype(name).type for name in TYPES}
    return Hooks(
        library_address,
        {name: (function, _conversion(name)) for name, function in ORIGINALS.items()},
        {name: (kind, _scalar(kind)) for name, kind in kinds.items()},
    )


def put(on: bool) -> None:
    """Put the hooks in or take them out."""
    if on or _hooks.cache_info().currsize:
        _hooks().put(on)
