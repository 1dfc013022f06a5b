"""Guards on words of CPython's own memory: code and defaults of functions, slots, classes and dicts of
objects, sets, deques, weak references.

What a traced function reads may be rebound between two calls: ``f.__defaults__ = ...``, ``obj.slot = ...``,
``a_set.add(...)``. Such a change overwrites a word in the object's memory, and native code compares a word
with the expected one in half a nanosecond. Each function here stands for one such thing and returns guards
of the words in which CPython keeps it.

At which offset a word stands depends on the version of Python. Offsets are found by trial on objects made
here, and one that was not seen to be right is not used: the functions return None then, or `version` 0, and
the caller compares through Python.
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
CLASS_OFFSET = object.__basicsize__ - _WORD
"""Where an object has the pointer to its class (``ob_type``)."""
_VERSION = 384  # tp_version_tag in PyTypeObject on 64-bit machines, CPython 3.11 to 3.13
_MANAGED_DICT = 1 << 4  # Py_TPFLAGS_MANAGED_DICT
_MEMBER = object.__basicsize__ + 3 * _WORD  # d_member in PyMemberDescrObject
_OFFSET = 2 * _WORD  # offset in PyMemberDef
_FIELDS = object.__basicsize__
_DEQUE_BLOCK = 64  # BLOCKLEN in _collectionsmodule.c


def _words(value: Any, count: int) -> list[int]:
    """The first words of an object."""
    return list((ctypes.c_size_t * count).from_address(id(value)))


def _memory_guard(owner: Any, offset: int, size: int, kept: Any, what: str) -> MemoryGuard:
    """These bytes of an object must stay as they are; ``kept`` are the objects that they point to."""
    address = id(owner) + offset
    return MemoryGuard(owner, address, ctypes.string_at(address, size), kept, what)


def class_of(value: Any) -> Guards:
    """The class of an object, which may be assigned."""
    return [
        _memory_guard(
            value,
            CLASS_OFFSET,
            _WORD,
            type(value),
            f"the class of an object, which was {type(value).__name__},",
        )
    ]


@cache
def _mro_offset() -> int | None:
    """Where a class has its MRO; None: not found."""
    metaclass: Any = type
    words = _words(_Sample, metaclass.__basicsize__ // _WORD)
    offsets = [i * _WORD for i, word in enumerate(words) if word == id(_Sample.__mro__)]
    return offsets[0] if len(offsets) == 1 else None


def mro(kind: type) -> Guards | None:
    """The classes in which a class looks up names; its bases may be assigned."""
    offset, classes = _mro_offset(), type.__dict__["__mro__"].__get__(kind)
    if offset is None or ctypes.c_size_t.from_address(id(kind) + offset).value != id(classes):
        return None
    return [_memory_guard(kind, offset, _WORD, classes, f"the bases of the class {kind.__name__}")]


def dict_of(value: Any, attributes: dict[str, Any]) -> Guards | None:
    """The dict of an object's attributes, which may be assigned."""
    kind: Any = type(value)
    offsets = [kind.__dictoffset__] if kind.__dictoffset__ > 0 else []
    if kind.__flags__ & _MANAGED_DICT:
        # before the object; where depends on the version of Python
        offsets += [-3 * _WORD, -_WORD, -2 * _WORD, -4 * _WORD]
    for offset in offsets:
        if ctypes.c_size_t.from_address(id(value) + offset).value == id(attributes):
            what = f"the __dict__ of an object of type {kind.__name__}"
            return [_memory_guard(value, offset, _WORD, attributes, what)]
    return None


@cache
def _function_offset() -> int | None:
    """Where a function has code, defaults and keyword defaults, in a row; None: not found."""

    def sample(a: Any = (1,), *, b: Any = 2) -> None:
        """A function with all fields."""

    fields = [id(sample.__code__), id(sample.__defaults__), id(sample.__kwdefaults__)]
    words = _words(sample, types.FunctionType.__basicsize__ // _WORD)
    return next((i * _WORD for i in range(len(words) - 2) if words[i : i + 3] == fields), None)


def function_fields(function: types.FunctionType) -> Guards | None:
    """Code, defaults and keyword defaults of a function, which may be assigned."""
    offset = _function_offset()
    if offset is None:
        return None
    kept = (function.__code__, function.__defaults__, function.__kwdefaults__)
    what = f"the code or the defaults of the function {function.__qualname__}"
    return [_memory_guard(function, offset, 3 * _WORD, kept, what)]


class _Sample:
    __slots__ = ("first", "second")


def _slot_offset(descriptor: Any) -> int:
    """Where an object has the slot that a descriptor (an entry of its class) reads."""
    member = ctypes.c_size_t.from_address(id(descriptor) + _MEMBER).value
    return ctypes.c_ssize_t.from_address(member + _OFFSET).value


@cache
def _slots_found() -> bool:
    """Whether `_slot_offset` is right in this Python."""
    sample = _Sample()
    sample.first, sample.second = object(), object()  # type: ignore[attr-defined]
    offsets = [_slot_offset(vars(_Sample)[name]) for name in ("first", "second")]
    if not all(0 < offset < _Sample.__basicsize__ for offset in offsets):
        return False
    return [ctypes.c_size_t.from_address(id(sample) + offset).value for offset in offsets] == [
        id(sample.first),  # type: ignore[attr-defined]
        id(sample.second),  # type: ignore[attr-defined]
    ]


def slot(owner: Any, descriptor: Any, value: Any) -> Guards | None:
    """A slot of an object (``__slots__``), which holds ``value``."""
    if not _slots_found():
        return None
    return [_memory_guard(owner, _slot_offset(descriptor), _WORD, value, f"the slot {descriptor.__name__!r}")]


@cache
def _order_offset() -> int | None:
    """Where an OrderedDict counts its changes of order: the only word that such a change alters."""
    sample = OrderedDict(a=1, b=2)
    count = OrderedDict.__basicsize__ // _WORD
    before = _words(sample, count)
    sample.move_to_end("a")
    sample.move_to_end("b")
    changed = [
        i for i, (old, new) in enumerate(zip(before, _words(sample, count), strict=True)) if old != new
    ]
    return changed[0] * _WORD if len(changed) == 1 else None


def dict_order(items: OrderedDict[Any, Any]) -> Guards | None:
    """The order of an ordered dict: a counter of its changes."""
    offset = _order_offset()
    if offset is None:
        return None
    return [_memory_guard(items, offset, _WORD, None, "the order of an OrderedDict")]


def _table(items: set[Any] | frozenset[Any]) -> tuple[int, int]:
    """Where the entries of a set stand, pairs of an object and its hash, and how many words that is."""
    used, mask, table = _words(items, 6)[3:]
    return (table, 2 * (mask + 1)) if used == len(items) and mask < 1 << 40 else (0, 0)


@cache
def _tables_found() -> bool:
    """Whether `_table` is right in this Python."""
    for count in (0, 3, 100):
        items = {object() for _ in range(count)}
        address, words = _table(items)
        if not address:
            return False
        table = list((ctypes.c_size_t * words).from_address(address))
        if not {(id(item), hash(item)) for item in items} <= {*zip(table[::2], table[1::2], strict=True)}:
            return False
    return True


def set_items(items: set[Any]) -> Guards | None:
    """The items of a set, in its order: its fields, and the table that they point to."""
    if not _tables_found():
        return None
    address, words = _table(items)
    kept = tuple(set.__iter__(items))
    header = _memory_guard(items, _FIELDS, 4 * _WORD, None, f"a captured set of {len(kept)} items")
    return [header, BlockGuard(items, ((address, ctypes.string_at(address, words * _WORD)),), kept)]


def _blocks(items: collections.deque[Any]) -> list[tuple[int, int]]:
    """The runs of words in which a deque keeps its items: address and length."""
    block, last_block, start, end = _words(items, 7)[3:]
    runs: list[tuple[int, int]] = []
    while block != last_block and len(runs) * _DEQUE_BLOCK <= len(items):
        runs.append((block + (1 + start) * _WORD, _DEQUE_BLOCK - start))
        block, start = ctypes.c_size_t.from_address(block + (1 + _DEQUE_BLOCK) * _WORD).value, 0
    return [*runs, (block + (1 + start) * _WORD, end + 1 - start)] if len(items) else []


@cache
def _deques_found() -> bool:
    """Whether `_blocks` is right in this Python."""
    for count in (1, 40, 300):
        items = collections.deque(object() for _ in range(count))
        for step in (0, 3, -70):
            items.rotate(step)
            words = [
                word
                for address, length in _blocks(items)
                for word in (ctypes.c_size_t * length).from_address(address)
            ]
            if words != [id(item) for item in items]:
                return False
    return True


def deque_items(items: collections.deque[Any]) -> Guards | None:
    """The items of a deque, in its order: its fields, which count what was put in and taken out, and the
    blocks that hold the items.
    """
    if not _deques_found():
        return None
    blocks = tuple((address, ctypes.string_at(address, length * _WORD)) for address, length in _blocks(items))
    kept = tuple(collections.deque.__iter__(items))
    header = _memory_guard(items, _FIELDS, 7 * _WORD, None, f"a captured deque of {len(kept)} items")
    return [header, BlockGuard(items, blocks, kept)]


def referent(reference: weakref.ref[Any]) -> Guards | None:
    """What a weak reference leads to, which becomes None when it dies."""
    target = weakref.ref.__call__(reference)
    if _words(reference, 3)[2] != id(target):
        return None
    return [_memory_guard(reference, _FIELDS, _WORD, None, "what a weak reference leads to")]


def _read_version(kind: type) -> int:
    return ctypes.c_uint32.from_address(id(kind) + _VERSION).value


@cache
def _versions_found() -> bool:
    """Whether `_VERSION` is right in this Python: each change of a class or a base gives another number."""
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
        # a look-up gives the class its version
        _ = kind.a if "a" in vars(kind) or "a" in vars(base) else None
        _ = getattr(kind, "a", None)
        seen.append(_read_version(kind))
    # a version of its own before each change, none or another one after it
    before, after = seen[::2], seen[1::2]
    return all(after) and len(set(after)) == 4 and all(before[i] not in after[:i] for i in range(1, 4))


def version(kind: type) -> int:
    """The address of the version of a class, a number that changes whenever the class or one of its bases
    changes; 0: it was not found.
    """
    if not _versions_found():
        return 0
    with suppress(AttributeError):
        type.__getattribute__(kind, "_graphjit_no_such_name")  # a look-up gives the class its version
    return id(kind) + _VERSION
