"""Whether guards still hold, checked in Python, and what a guard watches, in words for people.

Native code checks guards at each call (`backend/llvm/entry/matching.py`). When that fails, or cannot look
into a kind of guard, `dispatch` comes here. The texts explain why a function was traced once more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphjit.backend import signature
from graphjit.backend.signature import MISSING, Guard

SMALL = 1 << 16
"""Bytes of an array up to which its contents are compared at each call."""


def holds(guard: Guard) -> bool:
    """Whether what a guard watches is as it was."""
    match guard:
        case signature.CellGuard():
            return _cell_holds(guard)
        case signature.GlobalGuard():
            return dict.get(guard.items, guard.name, MISSING) is guard.expected
        case signature.SequenceGuard():
            return _same(list.__iter__(guard.items), guard.snapshot)
        case signature.MappingGuard():
            return _same(dict.keys(guard.items), guard.keys) and _same(dict.values(guard.items), guard.values)
        case signature.MemoryGuard():
            return _memory_is(guard.address, guard.expected)
        case signature.ClassGuard():
            return all(map(holds, guard.entries))
        case signature.ContentGuard():
            return _content_holds(guard)
        case signature.BlockGuard():
            return all(_memory_is(address, expected) for address, expected in guard.blocks)
        case signature.ContextGuard():
            return guard.variable.get(MISSING) is guard.expected
        case signature.ForeignGuard():
            return _same(guard.read(guard.owner), guard.expected)


def _cell_holds(guard: signature.CellGuard) -> bool:
    try:
        return guard.cell.cell_contents is guard.expected
    except ValueError:  # the cell is empty
        return False


def _content_holds(guard: signature.ContentGuard) -> bool:
    array = guard.array
    return array.dtype == guard.dtype and array.shape == guard.shape and content(array) == guard.expected


def content(array: np.ndarray) -> bytes:
    """The elements of an array in C order, byte by byte."""
    return np.ndarray.tobytes(array)


def _memory_is(address: int, expected: bytes) -> bool:
    return ctypes.string_at(address, len(expected)) == expected


def _same(now: Iterable[Any], expected: tuple[Any, ...]) -> bool:
    """The same objects in the same order."""
    objects = tuple(now)
    return len(objects) == len(expected) and all(a is b for a, b in zip(objects, expected, strict=True))


def guard_text(guard: Guard) -> str:
    """What a guard watches, for people: the subject of "... was changed"."""
    match guard:
        case signature.CellGuard():
            return f"a variable of the enclosing function that held {_short(guard.expected)}"
        case signature.GlobalGuard():
            return f"{guard.name!r}, which was {'absent' if guard.expected is MISSING else _short(guard.expected)},"
        case signature.SequenceGuard():
            return f"a captured list of {len(guard.snapshot)} items"
        case signature.MappingGuard():
            return f"a captured dict of {len(guard.keys)} items"
        case signature.MemoryGuard():
            return guard.what
        case signature.ClassGuard():
            changed = next((entry for entry in guard.entries if not holds(entry)), None)
            return f"the class {guard.kind.__name__}" if changed is None else guard_text(changed)
        case signature.ContentGuard():
            return f"the contents of a captured array of {guard.dtype}{list(guard.shape)}, whose values were compiled in,"
        case signature.ContextGuard():
            return f"the context variable {guard.variable.name!r}"
        case signature.BlockGuard() | signature.ForeignGuard():
            return f"a captured object of type {type(guard.owner).__name__}"


def _short(value: Any) -> str:
    """A short number or string itself, of anything else its type."""
    if type(value) in (int, float, str) and len(repr(value)) < 40:
        return repr(value)
    return f"of type {type(value).__name__}"
