"""What a compiled call's tables look like in memory: the record of a signature and its three tables.

`specialise.py` makes them; the native code of `matching.py` and `delivery.py` follows them.

A record is one word for each field of `RECORD`. Three of them point to tables of operations: the *walk* over
the arguments, the *preparation* of the output slots, the *construction* of the result. Every operation is
`OP_WORDS` words long. The first word is its code; `STRUCTS` names the others.

Everything that belongs to one call lies in one frame, and operations name places by their byte offset in it:
registers (borrowed objects), input slots, scalars, output slots, leaves, a stack of results.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from graphjit.backend.llvm.writing.fields import WORD, Fields, words

RECORD = words(
    "ptr program, object owner, i64 positional, i64 keywords, object names, u64 frame_bytes, "
    "operation walk, operation prepare, operation build, i64 inputs, i64 outputs, i64 stack, "
    "i64[] held, i64 held_count, i64 release_gil, object on_error, object wrap"
)
OP_WORDS = 8
OP_BYTES = OP_WORDS * WORD
WORDS_AT_ONCE = 4
"""Words of memory that are compared with one branch; tables of them are a multiple of this long."""
MISMATCH = 1
"""What ``@gj_run`` returns, as a pointer, for a call of another signature."""
STACK_LIMIT = 1 << 13
"""Frames above this many bytes are allocated on the heap: threads may have small stacks."""


class Walk(IntEnum):
    """Operations on arguments."""

    END = 0
    ARRAY = 1  # an array in a register
    HIDDEN = 2  # a captured array
    VALUE = 3  # a scalar whose object holds its bits
    INT = 4  # a Python int
    STATIC = 5  # an object that was compiled in
    TUPLE = 6  # of a class; its items go to registers
    LIST = 7
    DICT = 8
    WORDS = 9  # a table of addresses and the words expected there
    GLOBAL = 10  # an entry of a dict; expected 0: none
    SEQUENCE = 11  # the items of a list
    MAPPING = 12  # the entries of a dict
    VERSION = 13  # what follows holds if the version of a dict or class is that seen last (0: never)
    RENEW = 14  # what stands since the operation VERSION was seen to be right
    CONTENT = 15  # the elements of an array
    BLOCK = 16  # memory of an object
    CONTEXT = 17  # a context variable


class Prepare(IntEnum):
    """Operations on output slots."""

    END = 0
    ARRAY = 1  # a fresh array
    SCALAR = 2
    BLOCK = 3  # a fresh array in memory that is used again (`large_results.py`)
    APART = 4  # whether donors may be used (`donation.py`)
    DONOR = 5  # the array of an argument; `large`: a fresh one instead would be BLOCK
    SPARE = 6  # arrays of this type to hand out again when nobody else holds them
    ORDERED = 7  # a fresh array that is not row-major


class Build(IntEnum):
    """Operations of the stack machine that builds the result."""

    END = 0
    ARRAY = 1
    SCALAR = 2  # `one` and `two`: objects of it to hand out again when nobody else holds them
    BOOL = 3
    STATIC = 4
    TUPLE = 5
    LIST = 6
    DICT = 7


_ARRAY_IN = "i64 slot, ptr descr, i32 rank, i64[] shape, i64 numbers"
_ARRAY_OUT = "i64 slot, i64 leaf, object descr, i32 rank, i64[] shape"
_SEQUENCE = "i64 register, i64 items, i64 length"

_WALK_FIELDS = {
    Walk.END: "",
    Walk.ARRAY: f"i64 register, {_ARRAY_IN}",
    Walk.HIDDEN: f"object array, {_ARRAY_IN}",
    Walk.VALUE: "i64 register, i64 slot, ptr type, ptr twin, i64 scalar",
    Walk.INT: "i64 register, i64 slot, i64 scalar",
    Walk.STATIC: "i64 register, object expected",
    Walk.TUPLE: f"{_SEQUENCE}, ptr type",
    Walk.LIST: _SEQUENCE,
    Walk.DICT: f"{_SEQUENCE}, object[] keys",
    Walk.WORDS: "word pairs, word end",
    Walk.GLOBAL: "object names, object name, object expected",
    Walk.SEQUENCE: "object list, i64 length, ptr expected, i64 bytes",
    Walk.MAPPING: "object dict, i64 length, object[] keys, object[] values",
    Walk.VERSION: "i64[] place, i64 expected, i64 bits, i64 skip",
    Walk.RENEW: "i64 back",
    Walk.CONTENT: "object array, ptr expected, ptr descr, i32 rank, i64[] shape, i64 bytes",
    Walk.BLOCK: "ptr place, ptr expected, i64 bytes",
    Walk.CONTEXT: "object variable, object expected, object missing",
}

_PREPARE_FIELDS = {
    Prepare.END: "",
    Prepare.ARRAY: _ARRAY_OUT,
    Prepare.SCALAR: "i64 slot, i64 scalar",
    Prepare.BLOCK: _ARRAY_OUT,
    Prepare.APART: "argument arrays, i64 count",
    Prepare.DONOR: f"{_ARRAY_OUT}, i64 register, i64 large",
    Prepare.SPARE: f"{_ARRAY_OUT}, object one, object two",
    Prepare.ORDERED: f"{_ARRAY_OUT}, i64[] strides",
}

_BUILD_FIELDS = {
    Build.END: "",
    Build.ARRAY: "i64 leaf",
    Build.SCALAR: "i64 scalar, object type, ptr allocate, object one, object two",
    Build.BOOL: "i64 scalar",
    Build.STATIC: "object value",
    Build.TUPLE: "i64 length",
    Build.LIST: "i64 length",
    Build.DICT: "i64 length, object[] keys, object template",
}


def operation(code: IntEnum) -> str:
    """Name of the struct of an operation."""
    return f"{type(code).__name__}.{code.name}"


_HEAD = object.__basicsize__
OBJECT_FIELDS: Fields = {
    "vectorcall": ("ptr", _HEAD),
    "dict": ("object", _HEAD + WORD),
    "weakrefs": ("object", _HEAD + 2 * WORD),
    "fallback": ("object", _HEAD + 3 * WORD),
    "chain": ("object", _HEAD + 4 * WORD),
}
"""What a compiled function, a Python object, consists of."""
OBJECT_SIZE = _HEAD + 5 * WORD

STRUCTS: dict[str, Fields] = {
    "record": RECORD,
    "operation": words("i64 code"),
    **{
        operation(code): words(f"i64 code, {fields}" if fields else "i64 code")
        for table in (_WALK_FIELDS, _PREPARE_FIELDS, _BUILD_FIELDS)
        for code, fields in table.items()
    },
    "word": words("i64[] place, i64 expected"),
    "argument": words("i64 slot, u64 bytes, i64 donated"),
}
"""All structs of the tables; `word` and `argument` are entries of tables that operations point to."""


_NAMES = {
    kind: [[*STRUCTS[operation(code)]][1:] for code in kind]  # codes count from 0
    for kind in (Walk, Prepare, Build)
}


def operation_words(code: Walk | Prepare | Build, fields: Mapping[str, int]) -> list[int]:
    """The words of an operation, all of whose fields are given."""
    names = _NAMES[type(code)][code]
    assert len(names) == len(fields), f"{operation(code)} has the fields {', '.join(names)}"
    return [int(code), *[fields[name] for name in names], *[0] * (OP_WORDS - 1 - len(names))]
