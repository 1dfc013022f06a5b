"""The tables that native calls follow: their layout, and the LLVM text that reads them.

Job: fix, in one place, what a record and its operations look like in memory, for the code that makes them
(`entry.py`) and for the native code that follows them (`walk.py`, `deliver.py`).
Invariant: every operation is `OP_WORDS` words long and its first word is its code.

A record is `RECORD` (one word per field) and three tables of operations: the *walk* over the arguments,
the *preparation* of output slots, the *construction* of the result. Everything that belongs to one call
lies in one frame, and operations name places by their byte offset in it: registers (borrowed objects),
input slots, scalars, output slots, leaves, a stack of results.
"""

from __future__ import annotations

from enum import IntEnum

from graphjit.backend.llvm.entry.cpython import WORD

RECORD = (
    "program", "owner", "positional", "keywords", "names", "frame_bytes", "walk", "prepare", "build",
    "inputs", "outputs", "stack", "held", "held_count", "release_gil", "on_error", "wrap",
)  # fmt: skip
OP_WORDS = 8
MISMATCH = 1
"""What ``@gj_run`` returns, as a pointer, for a call of another signature."""
STACK_LIMIT = 1 << 13
"""Frames above this many bytes are allocated on the heap: threads may have small stacks."""


class Walk(IntEnum):
    """Operations on arguments; ``a`` ... ``g`` are words 1 ... 7."""

    END = 0
    ARRAY = 1  # a register, b input slot, c descr, d ndim, e shape, f type numbers
    HIDDEN = 2  # as ARRAY, a the array itself
    VALUE = 3  # a register, b input slot, c type, d twin type, e scalar
    INT = 4  # a register, b input slot, e scalar
    STATIC = 5  # a register, c object
    TUPLE = 6  # a register, b first register of the items, c length
    LIST = 7  # as TUPLE
    DICT = 8  # as TUPLE, d keys
    WORDS = 9  # a table of addresses and the words expected there, b its end
    GLOBAL = 10  # a dict, b name, c expected object or 0
    SEQUENCE = 11  # a list, b its length, c expected objects, d their bytes
    MAPPING = 12  # a dict, b its number of entries, c expected keys, d expected values
    VERSION = 13  # a address of the version of a dict or class, b version when it was last seen to be right (0: never), c its bits, d bytes to skip if it is the same
    RENEW = 14  # a bytes back to the operation VERSION: what stands between was seen to be right
    CONTENT = 15  # a array, b expected bytes, c descr, d ndim, e shape, f number of bytes
    BLOCK = 16  # a address, b expected bytes, c number of bytes
    CONTEXT = 17  # a context variable, b expected object, c what stands for none


class Prepare(IntEnum):
    """Operations on output slots."""

    END = 0
    ARRAY = 1  # a output slot, b leaf, c descr, d ndim, e shape
    SCALAR = 2  # a output slot, b scalar
    BLOCK = 3  # as ARRAY, in memory that is used again (`blocks.py`)
    APART = 4  # a table of arrays, b its length: whether donors may be used (`donation.py`)
    DONOR = 5  # as ARRAY, f register of the donated array, g whether a fresh one would be BLOCK
    ORDERED = 7  # as ARRAY, f strides in bytes: an array that is not row-major
    SPARE = 6  # as ARRAY, f and g arrays of this type to hand out again when nobody else holds them


class Build(IntEnum):
    """Operations of the stack machine that builds the result."""

    END = 0
    ARRAY = 1  # a leaf
    SCALAR = 2  # a scalar, b type, c its tp_alloc, d and e objects of it to hand out again when nobody else holds them
    BOOL = 3  # a scalar
    STATIC = 4  # a object
    TUPLE = 5  # a length
    LIST = 6  # a length
    DICT = 7  # a length, b keys


def get(name: str, kind: str, base: str, offset: int) -> str:
    """Load ``%name`` from ``base + offset`` bytes."""
    return f"%{name}.at = getelementptr i8, ptr {base}, i64 {offset}\n  %{name} = load {kind}, ptr %{name}.at"


def field(name: str, kind: str, which: str) -> str:
    """Load a field of the record."""
    return get(name, kind, "%record", WORD * RECORD.index(which))


def word(name: str, kind: str, index: int, op: str = "%op") -> str:
    """Load a word of operation ``op``."""
    return get(name, kind, op, WORD * index)


def place(name: str, index: int, op: str = "%op") -> str:
    """Pointer to the place in the frame that word ``index`` of ``op`` names."""
    offset = word(f"{name}.offset", "i64", index, op)
    return f"{offset}\n  %{name} = getelementptr i8, ptr %frame, i64 %{name}.offset"


def register(name: str, index: int, op: str = "%op") -> str:
    """Load what stands in the place in the frame that word ``index`` of ``op`` names."""
    return f"{place(f'{name}.place', index, op)}\n  %{name} = load ptr, ptr %{name}.place"


def dispatch(codes: type[IntEnum], op: str, prefix: str) -> str:
    """Branch on the code of operation ``op``; tables are made by us, so that no other code exists."""
    cases = " ".join(f"i64 {code.value}, label %{prefix}.{code.name.lower()}" for code in codes)
    return (
        f"{word(f'{prefix}.code', 'i64', 0, op)}\n  switch i64 %{prefix}.code, label %{prefix}.end [{cases}]"
    )


def following(name: str, op: str) -> str:
    """Pointer to the operation after ``op``."""
    return f"%{name} = getelementptr i8, ptr {op}, i64 {WORD * OP_WORDS}"
