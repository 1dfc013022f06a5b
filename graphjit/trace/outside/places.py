"""Where CPython keeps what guards watch: fields of functions, slots of objects, versions of classes and of
ordered dicts.

Job: find the offsets in this very interpreter, by trial on objects made here.
Output: `MemoryGuard`s and versions of classes; None or 0 where the trial failed, so that the caller looks
through Python instead.
Invariant: an offset that was not seen to be right is not used.
"""

from __future__ import annotations

import collections
import ctypes
import types
import weakref
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from typing import Any

from graphjit.backend.signature import BlockGuard, MemoryGuard

Guards = list[MemoryGuard | BlockGuard]

_WORD = ctypes.sizeof(ctypes.c_void_p)
_TYPE = object.__basicsize__ - _WORD
_VERSION = 384  # tp_version_tag in PyTypeObject on 64-bit machines, CPython 3.11 to 3.13
_MANAGED_DICT = 1 << 4  # Py_TPFLAGS_MANAGED_DICT
_MEMBER = object.__basicsize__ + 3 * _WORD  # d_member in PyMemberDescrObject
_OFFSET = 2 * _WORD  # offset in PyMemberDef
_FIELDS = object.__basicsize__
_DEQUE_BLOCK = 64  # BLOCKLEN in _collectionsmodule.c


def _words(value: Any, count: int) -> list[int]:
    return list((ctypes.c_size_t * count).from_address(id(value)))


def memory(owner: Any, offset: int, size: int, kept: Any, what: str) -> MemoryGuard:
    """These bytes of an object must stay as they are."""
    address = id(owner) + offset
    return MemoryGuard(owner, address, ctypes.string_at(address, size), kept, what)


def kind_of(value: Any) -> Guards:
    """The class of an object, which may be assigned."""
    return [
        memory(value, _TYPE, _WORD, type(value), f"the class of an object, which was {type(value).__name__},")
    ]


@cache
def _mro_offset() -> int | None:
    metaclass: Any = type
    words = _words(_Sample, metaclass.__basicsize__ // _WORD)
    found = [i * _WORD for i, word in enumerate(words) if word == id(_Sample.__mro__)]
    return found[0] if len(found) == 1 else None


def mro(kind: type) -> Guards | None:
    """The classes in which a class looks up names; its bases may be assigned."""
    offset, found = _mro_offset(), type.__dict__["__mro__"].__get__(kind)
    if offset is None or ctypes.c_size_t.from_address(id(kind) + offset).value != id(found):
        return None
    return [memory(kind, offset, _WORD, found, f"the bases of the class {kind.__name__}")]


def dict_of(value: Any, own: dict[str, Any]) -> Guards | None:
    """The dict of an object's attributes, which may be assigned."""
    kind: Any = type(value)
    offsets = [kind.__dictoffset__] if kind.__dictoffset__ > 0 else []
    if kind.__flags__ & _MANAGED_DICT:
        offsets += [
            -3 * _WORD,
            -_WORD,
            -2 * _WORD,
            -4 * _WORD,
        ]  # before the object; where depends on the version of Python
    for offset in offsets:
        if ctypes.c_size_t.from_address(id(value) + offset).value == id(own):
            return [memory(value, offset, _WORD, own, f"the __dict__ of an object of type {kind.__name__}")]
    return None


@cache
def _function_offset() -> int | None:
    def sample(a: Any = (1,), *, b: Any = 2) -> None:
        """A function with all fields."""

    fields = [id(sample.__code__), id(sample.__defaults__), id(sample.__kwdefaults__)]
    words = _words(sample, types.FunctionType.__basicsize__ // _WORD)
    return next((i * _WORD for i in range(len(words) - 2) if words[i : i + 3] == fields), None)


def function_fields(function: types.FunctionType) -> Guards | None:
    """Code and defaults of a function."""
    offset = _function_offset()
    if offset is None:
        return None
    kept = (function.__code__, function.__defaults__, function.__kwdefaults__)
    return [
        memory(
            function,
            offset,
            3 * _WORD,
            kept,
            f"the code or the defaults of the function {function.__qualname__}",
        )
    ]


class _Sample:
    __slots__ = ("first", "second")


def _slot_offset(descriptor: Any) -> int:
    member = ctypes.c_size_t.from_address(id(descriptor) + _MEMBER).value
    return ctypes.c_ssize_t.from_address(member + _OFFSET).value


@cache
def _slots_found() -> bool:
    sample = _Sample()
    sample.first, sample.second = object(), object()  # type: ignore[attr-defined]
    places = [_slot_offset(vars(_Sample)[name]) for name in ("first", "second")]
    if not all(0 < place < _Sample.__basicsize__ for place in places):
        return False
    return [ctypes.c_size_t.from_address(id(sample) + place).value for place in places] == [
        id(sample.first),  # type: ignore[attr-defined]
        id(sample.second),  # type: ignore[attr-defined]
    ]


def slot(owner: Any, descriptor: Any, value: Any) -> Guards | None:
    """A slot of an object (``__slots__``), which holds ``value``."""
    if not _slots_found():
        return None
    return [memory(owner, _slot_offset(descriptor), _WORD, value, f"the slot {descriptor.__name__!r}")]


@cache
def _order_offset() -> int | None:
    sample = OrderedDict(a=1, b=2)
    count = OrderedDict.__basicsize__ // _WORD
    before = _words(sample, count)
    sample.move_to_end("a")
    sample.move_to_end("b")
    changed = [
        i for i, (old, new) in enumerate(zip(before, _words(sample, count), strict=True)) if old != new
    ]
    return changed[0] * _WORD if len(changed) == 1 else None


def order(items: OrderedDict[Any, Any]) -> Guards | None:
    """The order of an ordered dict, which has a version of its own."""
    offset = _order_offset()
    return None if offset is None else [memory(items, offset, _WORD, None, "the order of an OrderedDict")]


def _table(items: set[Any] | frozenset[Any]) -> tuple[int, int]:
    """Where the entries of a set stand, pairs of an object and its hash, and how many words that is."""
    used, mask, table = _words(items, 6)[3:]
    return (table, 2 * (mask + 1)) if used == len(items) and mask < 1 << 40 else (0, 0)


@cache
def _tables_found() -> bool:
    for count in (0, 3, 100):
        items = {object() for _ in range(count)}
        address, words = _table(items)
        if not address:
            return False
        found = list((ctypes.c_size_t * words).from_address(address))
        if not {(id(item), hash(item)) for item in items} <= {*zip(found[::2], found[1::2], strict=True)}:
            return False
    return True


def members(items: set[Any]) -> Guards | None:
    """What a set holds, in its order."""
    if not _tables_found():
        return None
    address, words = _table(items)
    kept = tuple(set.__iter__(items))
    header = memory(items, _FIELDS, 4 * _WORD, None, f"a captured set of {len(kept)} items")
    return [header, BlockGuard(items, ((address, ctypes.string_at(address, words * _WORD)),), kept)]


def _blocks(items: collections.deque[Any]) -> list[tuple[int, int]]:
    """The runs of words in which a deque keeps its items: address and length."""
    left, right, first, last = _words(items, 7)[3:]
    runs: list[tuple[int, int]] = []
    while left != right and len(runs) * _DEQUE_BLOCK <= len(items):
        runs.append((left + (1 + first) * _WORD, _DEQUE_BLOCK - first))
        left, first = ctypes.c_size_t.from_address(left + (1 + _DEQUE_BLOCK) * _WORD).value, 0
    return [*runs, (left + (1 + first) * _WORD, last + 1 - first)] if len(items) else []


@cache
def _deques_found() -> bool:
    for count in (1, 40, 300):
        items = collections.deque(object() for _ in range(count))
        for step in (0, 3, -70):
            items.rotate(step)
            found = [
                word
                for address, length in _blocks(items)
                for word in (ctypes.c_size_t * length).from_address(address)
            ]
            if found != [id(item) for item in items]:
                return False
    return True


def queued(items: collections.deque[Any]) -> Guards | None:
    """What a deque holds, in its order: its fields have a counter of what was put in and taken out, its
    blocks the items.
    """
    if not _deques_found():
        return None
    blocks = tuple((address, ctypes.string_at(address, length * _WORD)) for address, length in _blocks(items))
    kept = tuple(collections.deque.__iter__(items))
    header = memory(items, _FIELDS, 7 * _WORD, None, f"a captured deque of {len(kept)} items")
    return [header, BlockGuard(items, blocks, kept)]


def referent(reference: weakref.ref[Any]) -> Guards | None:
    """What a weak reference leads to, which becomes None when it dies."""
    held = weakref.ref.__call__(reference)
    found = _words(reference, 3)[2] == id(held)
    return [memory(reference, _FIELDS, _WORD, None, "what a weak reference leads to")] if found else None


def _read_version(kind: type) -> int:
    return ctypes.c_uint32.from_address(id(kind) + _VERSION).value


@cache
def _versions_found() -> bool:
    base = type("Base", (), {"a": 1})
    kind: Any = type("Kind", (base,), {})
    seen = []
    for change in (
        lambda: None,
        lambda: setattr(kind, "a", 2),
        lambda: setattr(base, "b", 3),
        lambda: setattr(kind, "__bases__", (type("Other", (), {}),)),
    ):
        change()
        seen.append(_read_version(kind))
        _ = (
            kind.a if "a" in vars(kind) or "a" in vars(base) else None
        )  # a look-up gives the class its version
        _ = getattr(kind, "a", None)
        seen.append(_read_version(kind))
    # a version of its own before each change, none or another one after it
    given = seen[1::2]
    return all(given) and len(set(given)) == 4 and all(seen[2 * i] not in given[:i] for i in range(1, 4))


def version(kind: type) -> int:
    """The address of the version of a class, which changes whenever it or a base changes; 0: there is
    none.
    """
    if not _versions_found():
        return 0
    with suppress(AttributeError):
        type.__getattribute__(kind, "_graphjit_no_such_name")  # a look-up gives the class its version
    return id(kind) + _VERSION
