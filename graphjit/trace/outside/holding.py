"""Whether guards still hold, and what they watch, for people: the slow path's half of
`backend/llvm/entry/matching.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphjit.backend.signature import (
    MISSING,
    BlockGuard,
    CellGuard,
    ClassGuard,
    ContentGuard,
    ContextGuard,
    ForeignGuard,
    GlobalGuard,
    Guard,
    MappingGuard,
    MemoryGuard,
    SequenceGuard,
)

SMALL = 1 << 16
"""Bytes of an array up to which its contents are compared at each call."""


def holds(guard: Guard) -> bool:
    """Whether a guard still finds what it found."""
    match guard:
        case CellGuard():
            try:
                return guard.cell.cell_contents is guard.expected
            except ValueError:
                return False
        case GlobalGuard():
            return dict.get(guard.items, guard.name, MISSING) is guard.expected
        case SequenceGuard():
            return _same(list.__iter__(guard.items), guard.snapshot)
        case MappingGuard():
            return _same(dict.keys(guard.items), guard.keys) and _same(dict.values(guard.items), guard.values)
        case MemoryGuard():
            return ctypes.string_at(guard.address, len(guard.expected)) == guard.expected
        case ClassGuard():
            return all(holds(entry) for entry in guard.entries)
        case ContentGuard():
            array = guard.array
            return (
                array.dtype == guard.dtype and array.shape == guard.shape and content(array) == guard.expected
            )
        case BlockGuard():
            return all(
                ctypes.string_at(address, len(expected)) == expected for address, expected in guard.blocks
            )
        case ContextGuard():
            return guard.variable.get(MISSING) is guard.expected
        case ForeignGuard():
            return _same(guard.read(guard.owner), guard.expected)


def content(array: np.ndarray) -> bytes:
    """The elements of an array in C order, byte by byte."""
    return np.ndarray.tobytes(array)


def _same(now: Iterable[Any], expected: tuple[Any, ...]) -> bool:
    """The same objects in the same order."""
    found = tuple(now)
    return len(found) == len(expected) and all(a is b for a, b in zip(found, expected, strict=True))


def guard_text(guard: Guard) -> str:
    """What a guard watches, for people."""
    match guard:
        case CellGuard():
            return f"a variable of the enclosing function that held {_short(guard.expected)}"
        case GlobalGuard():
            return f"{guard.name!r}, which was {'absent' if guard.expected is MISSING else _short(guard.expected)},"
        case SequenceGuard():
            return f"a captured list of {len(guard.snapshot)} items"
        case MappingGuard():
            return f"a captured dict of {len(guard.keys)} items"
        case MemoryGuard():
            return guard.what
        case ClassGuard():
            return next(
                (guard_text(entry) for entry in guard.entries if not holds(entry)),
                f"the class {guard.kind.__name__}",
            )
        case ContentGuard():
            return f"the contents of a captured array of {guard.dtype}{list(guard.shape)}, whose values were compiled in,"
        case ContextGuard():
            return f"the context variable {guard.variable.name!r}"
        case BlockGuard() | ForeignGuard():
            return f"a captured object of type {type(guard.owner).__name__}"


def _short(value: Any) -> str:
    return (
        repr(value)
        if type(value) in (int, float, str) and len(repr(value)) < 40
        else f"of type {type(value).__name__}"
    )
