"""Memory of large results, used again.

Job: give large output arrays memory that was written before, because the first touch of fresh pages costs
more than the work of most programs (six arrays of 128 KB: 234 us fresh, 14 us used again).
Output: a NumPy memory policy (NEP 49): arrays made under it own their data like any other array and hand it
back here when they die. Only the arrays that compiled functions return are made under it.
Invariant: every block is held by one array or by the list of free blocks; free blocks never exceed the
limit, oldest leave first; all of it runs under the GIL.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from graphjit.backend.llvm.entry.cpython import WORD
from graphjit.backend.llvm.writing.text import Module

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


def _malloc() -> str:
    # NumPy asks for huge pages for its own large arrays as well.
    advise = f"""
  %number = ptrtoint ptr %made to i64
  %number.up = add i64 %number, {_PAGE - 1}
  %page = and i64 %number.up, -{_PAGE}
  %lost = sub i64 %page, %number
  %length = sub i64 %size, %lost
  %page.ptr = inttoptr i64 %page to ptr
  call i32 @madvise(ptr %page.ptr, i64 %length, i32 {_MADV_HUGEPAGE})"""
    return f"""define ptr @gj_block_malloc(ptr %context, i64 %size) nounwind {{
entry:
  %slot = alloca ptr
  %count = load i64, ptr @gj_block_count
  br label %search
search:
  %i = phi i64 [ %count, %entry ], [ %before, %look ]
  %none = icmp eq i64 %i, 0
  br i1 %none, label %fresh, label %look
look:
  %before = sub i64 %i, 1
  %offset = mul i64 %before, {_ENTRY}
  %entry.at = getelementptr i8, ptr @gj_block_table, i64 %offset
  %size.at = getelementptr i8, ptr %entry.at, i64 {WORD}
  %size.here = load i64, ptr %size.at
  %fits = icmp eq i64 %size.here, %size
  br i1 %fits, label %take, label %search
take:
  %block = load ptr, ptr %entry.at
  %rest.at = getelementptr i8, ptr %entry.at, i64 {_ENTRY}
  %rest = sub i64 %count, %i
  %rest.bytes = mul i64 %rest, {_ENTRY}
  call void @llvm.memmove.p0.p0.i64(ptr %entry.at, ptr %rest.at, i64 %rest.bytes, i1 false)
  %count.left = sub i64 %count, 1
  store i64 %count.left, ptr @gj_block_count
  %total = load i64, ptr @gj_block_total
  %total.left = sub i64 %total, %size
  store i64 %total.left, ptr @gj_block_total
  ret ptr %block
fresh:
  %status = call i32 @posix_memalign(ptr %slot, i64 {_ALIGNMENT}, i64 %size)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %got, label %failed
got:
  %made = load ptr, ptr %slot
  %large = icmp uge i64 %size, {_HUGE}
  br i1 %large, label %advise, label %end
advise:{advise if sys.platform == "linux" else ""}
  br label %end
end:
  ret ptr %made
failed:
  ret ptr null
}}"""


# Called with room <= limit, so that an empty list is never crowded.
_EVICT = f"""define void @gj_block_evict(i64 %room) nounwind {{
entry:
  br label %again
again:
  %total = load i64, ptr @gj_block_total
  %count = load i64, ptr @gj_block_count
  %limit = load i64, ptr @gj_block_limit
  %wanted = add i64 %total, %room
  %over = icmp ugt i64 %wanted, %limit
  %full = icmp eq i64 %count, {_ENTRIES}
  %crowded = or i1 %over, %full
  br i1 %crowded, label %oldest, label %end
oldest:
  %block = load ptr, ptr @gj_block_table
  %size.at = getelementptr i8, ptr @gj_block_table, i64 {WORD}
  %size = load i64, ptr %size.at
  call void @free(ptr %block)
  %total.left = sub i64 %total, %size
  %count.left = sub i64 %count, 1
  store i64 %total.left, ptr @gj_block_total
  store i64 %count.left, ptr @gj_block_count
  %second = getelementptr i8, ptr @gj_block_table, i64 {_ENTRY}
  %bytes = mul i64 %count.left, {_ENTRY}
  call void @llvm.memmove.p0.p0.i64(ptr @gj_block_table, ptr %second, i64 %bytes, i1 false)
  br label %again
end:
  ret void
}}"""

_FREE = f"""define void @gj_block_free(ptr %context, ptr %block, i64 %size) nounwind {{
entry:
  %limit = load i64, ptr @gj_block_limit
  %large = icmp uge i64 %size, {SMALLEST}
  %fits = icmp ule i64 %size, %limit
  %keep = and i1 %large, %fits
  br i1 %keep, label %store, label %drop
drop:
  call void @free(ptr %block)
  ret void
store:
  call void @gj_block_evict(i64 %size)
  %count = load i64, ptr @gj_block_count
  %offset = mul i64 %count, {_ENTRY}
  %entry.at = getelementptr i8, ptr @gj_block_table, i64 %offset
  %size.at = getelementptr i8, ptr %entry.at, i64 {WORD}
  store ptr %block, ptr %entry.at
  store i64 %size, ptr %size.at
  %count.more = add i64 %count, 1
  store i64 %count.more, ptr @gj_block_count
  %total = load i64, ptr @gj_block_total
  %total.more = add i64 %total, %size
  store i64 %total.more, ptr @gj_block_total
  ret void
}}"""

_CALLOC = """define ptr @gj_block_calloc(ptr %context, i64 %count, i64 %size) nounwind {
entry:
  %made = call ptr @calloc(i64 %count, i64 %size)
  ret ptr %made
}"""

_REALLOC = """define ptr @gj_block_realloc(ptr %context, ptr %block, i64 %size) nounwind {
entry:
  %made = call ptr @realloc(ptr %block, i64 %size)
  ret ptr %made
}"""

_DECLARATIONS = {
    "free": "declare void @free(ptr)",
    "calloc": "declare ptr @calloc(i64, i64)",
    "realloc": "declare ptr @realloc(ptr, i64)",
    "posix_memalign": "declare i32 @posix_memalign(ptr, i64, i64)",
    "madvise": "declare i32 @madvise(ptr, i64, i32)",
    "llvm.memmove": "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)",
}
_GLOBALS = {
    "gj_block_table": f"@gj_block_table = global [{_ENTRIES * _ENTRY} x i8] zeroinitializer, align 16",
    "gj_block_count": "@gj_block_count = global i64 0",
    "gj_block_total": "@gj_block_total = global i64 0",
    "gj_block_limit": f"@gj_block_limit = global i64 {LIMIT}",
    "gj_block_policy": "@gj_block_policy = global ptr null",
}


def add_blocks(module: Module) -> None:
    """Define the policy's functions in ``module``."""
    for name, line in _DECLARATIONS.items():
        module.declare(name, line)
    for name, line in _GLOBALS.items():
        module.add_global(name, line)
    texts = {"malloc": _malloc(), "evict": _EVICT, "free": _FREE, "calloc": _CALLOC, "realloc": _REALLOC}
    for name, text in texts.items():
        module.ensure(f"gj_block_{name}", lambda _, text=text: text)  # type: ignore[misc]


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
