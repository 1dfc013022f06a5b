"""Memory of large results, used again.

The first touch of fresh pages costs more than the work of most programs: six arrays of 128 KB take 234 us in
fresh memory, 14 us in memory that was written before. So large results are made under a NumPy memory policy
(NEP 49) of ours. They own their data like any other array, and hand the memory back here when they die. Only
the arrays that compiled functions return are made under it.

Every block is held by one array or by the table of free blocks. Free blocks never exceed the limit; the
oldest leave first. All of it runs under the GIL.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphjit.backend.llvm.writing.fields import WORD, words

if TYPE_CHECKING:  # writes code, which importing graphjit does not need
    from graphjit.backend.llvm.writing.native import Body, Source, Value

SMALLEST = 1 << 15
"""Bytes from which on arrays use the policy; below, malloc itself keeps pages."""
LIMIT = 1 << 28
"""Default limit of free memory that is kept, in bytes."""
_ENTRIES, _ENTRY = 64, 2 * WORD
_ALIGNMENT, _PAGE, _HUGE, _MADV_HUGEPAGE = 64, 4096, 1 << 22, 14
_NAME_BYTES, _VERSION = 127, 1


class _Handler(ctypes.Structure):
    """NumPy's ``PyDataMem_Handler``."""

    _fields_ = [
        ("name", ctypes.c_char * _NAME_BYTES),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    ]


EXTERNALS = {
    "free": "void (ptr)",
    "calloc": "ptr (i64, i64)",
    "realloc": "ptr (ptr, i64)",
    "posix_memalign": "i32 (ptr, i64, i64)",
    "madvise": "i32 (ptr, i64, i32)",
    "llvm.memmove.p0.p0.i64": "void (ptr, ptr, i64, i1)",
}
STRUCTS = {"block": words("ptr start, u64 size")}
"""A free block; the table of them is sorted by age."""
_GLOBALS = {
    "gj_block_table": f"global [{_ENTRIES * _ENTRY} x i8] zeroinitializer, align 16",
    "gj_block_count": "global i64 0",
    "gj_block_total": "global i64 0",
    "gj_block_limit": f"global i64 {LIMIT}",
    "gj_block_policy": "global ptr null",
}


def add_blocks(source: Source) -> None:
    """Define the policy's functions."""
    for name, definition in _GLOBALS.items():
        source.add_global(name, definition)
    _add_malloc(source)
    _add_evict(source)
    _add_free(source)
    with source.function("gj_block_calloc", "ptr", context="ptr", count="i64", size="i64") as (
        w,
        _,
        count,
        size,
    ):
        w.ret(w.call("calloc", count, size))
    with source.function("gj_block_realloc", "ptr", context="ptr", block="ptr", size="i64") as (
        w,
        _,
        block,
        size,
    ):
        w.ret(w.call("realloc", block, size))


def _state(w: Body) -> tuple[Value, Value, Value, Value]:
    """The table of free blocks; where their number, their bytes and the limit of these stand."""
    counters = (w.symbol(f"gj_block_{name}", "u64[]") for name in ("count", "total", "limit"))
    return w.symbol("gj_block_table", "block"), *counters  # type: ignore[return-value]


def _remove(w: Body, block: Value, size: Value, after: Value) -> None:
    """Take a free block out of the table, in which ``after`` others follow."""
    _, count, total, _ = _state(w)
    w.call("llvm.memmove.p0.p0.i64", block, block.offset(_ENTRY), after * _ENTRY, False)
    count[0] = count[0] - 1
    total[0] = total[0] - size


def _add_malloc(source: Source) -> None:
    """``gj_block_malloc``: the youngest free block of that size, else a fresh one."""
    with source.function("gj_block_malloc", "ptr", context="ptr", size="u64") as (w, _, size):
        table, count, _, _ = _state(w)
        number = count[0]
        i = w.variable("i", "i64", number)
        with w.forever():
            w.break_if(i == 0)
            i.set(i - 1)
            block = table.offset(i * _ENTRY)
            with w.if_(block["size"] == size):
                start = block["start"]
                _remove(w, block, size, number - i - 1)
                w.ret(start)
        fresh = w.local("ptr")
        with w.if_(w.call("posix_memalign", fresh, _ALIGNMENT, size) != 0):
            w.ret(None)
        if sys.platform == "linux":
            with w.if_(size >= _HUGE):
                _advise_huge_pages(w, fresh[0], size)
        w.ret(fresh[0])


def _advise_huge_pages(w: Body, start: Value, size: Value) -> None:
    """Ask for huge pages, as NumPy does for its own large arrays."""
    number = start.to("u64")
    page = (number + (_PAGE - 1)) & -_PAGE
    w.call("madvise", page.to("ptr"), size - (page - number), _MADV_HUGEPAGE)


def _add_evict(source: Source) -> None:
    """``gj_block_evict``: free the oldest blocks until there is room for one of that size.

    The room is never above the limit, so that an empty table is never full.
    """
    with source.function("gj_block_evict", room="u64") as (w, room):
        table, count, total, limit = _state(w)
        with w.forever():
            number = count[0]
            over = total[0] + room > limit[0]
            w.break_if(~(over | (number == _ENTRIES)))
            size = table["size"]
            w.call("free", table["start"])
            _remove(w, table, size, number - 1)


def _add_free(source: Source) -> None:
    """``gj_block_free``: keep a block that is large enough and fits, free another."""
    with source.function("gj_block_free", context="ptr", start="ptr", size="u64") as (w, _, start, size):
        table, count, total, limit = _state(w)
        with w.if_((size < SMALLEST) | (size > limit[0])):
            w.call("free", start)
            w.ret()
        w.call("gj_block_evict", size)
        number = count[0]
        block = table.offset(number * _ENTRY)
        block["start"] = start
        block["size"] = size
        count[0] = number + 1
        total[0] = total[0] + size


class Blocks:
    """The free blocks of the compiled library at the given addresses."""

    def __init__(self, function: Callable[[str], int], variable: Callable[[str], int]) -> None:
        names = ("malloc", "calloc", "realloc", "free")
        self._handler = _Handler(
            b"graphjit", _VERSION, None, *(function(f"gj_block_{name}") for name in names)
        )
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
            ("PyCapsule_New", ctypes.pythonapi)
        )
        # NumPy looks the capsule up by this name; both must live as long as the last array.
        self._name = ctypes.c_char_p(b"mem_handler")
        self.policy = make(ctypes.addressof(self._handler), self._name, None)
        ctypes.c_void_p.from_address(variable("gj_block_policy")).value = id(self.policy)
        self._count = ctypes.c_int64.from_address(variable("gj_block_count"))
        self._total = ctypes.c_int64.from_address(variable("gj_block_total"))
        self._limit = ctypes.c_int64.from_address(variable("gj_block_limit"))
        self._evict = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(function("gj_block_evict"))

    @property
    def held(self) -> tuple[int, int]:
        """Number and bytes of the free blocks."""
        return self._count.value, self._total.value

    def set_limit(self, limit: int) -> None:
        """Keep at most ``limit`` bytes from now on; 0 gives everything back to the system."""
        self._limit.value = limit
        self._evict(0)
