"""Native code that checks a call's arguments, runs the program and builds the result.

Job: define ``@gj_run(record, args, nargs, kwnames)``, one function for all signatures: it follows the
tables of a record (made by `entry.Specialisation`) and needs no compilation of its own per signature.
Input: the address of a record.  Output: a new reference; null with an exception set; or `MISMATCH`,
which promises that nothing was allocated, changed or raised.
Invariant: while arguments are being checked no foreign code runs (no ``__eq__``, no ``__hash__``, no garbage
collection), so that references borrowed from lists and dicts stay valid; afterwards whatever the program
still reads is held by someone.

A record is `RECORD` (one word per field) and three tables of operations, each `OP_WORDS` words long:
the *walk* over the arguments, the *preparation* of output slots, the *construction* of the result.
Everything that belongs to one call lies in one frame, and operations name places by their byte offset
in it: registers (borrowed objects), input slots, scalars, output slots, leaves, a stack of results.
"""

from __future__ import annotations

from enum import IntEnum

from graphjit.backend.llvm import cpython
from graphjit.backend.llvm.cpython import WORD, Layout
from graphjit.backend.llvm.text import Module

RECORD = (
    "program", "owner", "positional", "keywords", "names", "frame_bytes", "walk", "prepare", "build",
    "inputs", "outputs", "stack", "held", "held_count", "release_gil", "on_error", "wrap",
)  # fmt: skip
OP_WORDS = 8
MISMATCH = 1
STACK_LIMIT = 1 << 14
"""Frames above this many bytes are allocated on the heap: threads may have small stacks."""


class Walk(IntEnum):
    """Operations on arguments; ``a`` ... ``f`` are words 1 ... 6."""

    END = 0
    ARRAY = 1  # a register, b input slot, c descr, d ndim, e shape, f type numbers
    HIDDEN = 2  # as ARRAY, a the array itself
    VALUE = 3  # a register, b input slot, c type, d twin type, e scalar
    INT = 4  # a register, b input slot, e scalar
    STATIC = 5  # a register, c object
    TUPLE = 6  # a register, b first register of the items, c length
    LIST = 7  # as TUPLE
    DICT = 8  # as TUPLE, d keys
    CELL = 9  # a cell, b expected object
    GLOBAL = 10  # a dict, b name, c expected object or 0


class Prepare(IntEnum):
    """Operations on output slots."""

    END = 0
    ARRAY = 1  # a output slot, b leaf, c descr, d ndim, e shape
    SCALAR = 2  # a output slot, b scalar


class Build(IntEnum):
    """Operations of the stack machine that builds the result."""

    END = 0
    ARRAY = 1  # a leaf
    SCALAR = 2  # a scalar, b type, c its tp_alloc
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
    return f"{word(f'{prefix}.code', 'i64', 0, op)}\n  switch i64 %{prefix}.code, label %{prefix}.end [{cases}]"


def following(name: str, op: str) -> str:
    """Pointer to the operation after ``op``."""
    return f"%{name} = getelementptr i8, ptr {op}, i64 {WORD * OP_WORDS}"


def static_equal(at: Layout) -> str:
    """``i1 @gj_static_equal(a, b, depth)``: same type and value, for types whose comparison is not foreign code."""
    return f"""define i1 @gj_static_equal(ptr %a, ptr %b, i64 %depth) nounwind {{
entry:
  %same = icmp eq ptr %a, %b
  br i1 %same, label %yes, label %types
types:
  {get("ta", "ptr", "%a", at.type)}
  {get("tb", "ptr", "%b", at.type)}
  %same.type = icmp eq ptr %ta, %tb
  br i1 %same.type, label %try.str, label %no
try.str:
  %is.str = icmp eq ptr %ta, @PyUnicode_Type
  br i1 %is.str, label %str, label %try.int
str:
  %order = call i32 @PyUnicode_Compare(ptr %a, ptr %b)
  %same.str = icmp eq i32 %order, 0
  ret i1 %same.str
try.int:
  %is.int = icmp eq ptr %ta, @PyLong_Type
  %is.bytes = icmp eq ptr %ta, @PyBytes_Type
  %is.rich = or i1 %is.int, %is.bytes
  br i1 %is.rich, label %rich, label %try.float
rich:
  %equal = call i32 @PyObject_RichCompareBool(ptr %a, ptr %b, i32 2)
  %same.rich = icmp eq i32 %equal, 1
  ret i1 %same.rich
try.float:
  %is.float = icmp eq ptr %ta, @PyFloat_Type
  %is.complex = icmp eq ptr %ta, @PyComplex_Type
  %is.number = or i1 %is.float, %is.complex
  br i1 %is.number, label %number, label %try.tuple
number:
  {get("a0", "i64", "%a", at.float_value)}
  {get("b0", "i64", "%b", at.float_value)}
  %same.0 = icmp eq i64 %a0, %b0
  %float.only = and i1 %same.0, %is.float
  %both = and i1 %same.0, %is.complex
  br i1 %both, label %imaginary, label %float.done
float.done:
  ret i1 %float.only
imaginary:
  {get("a1", "i64", "%a", at.float_value + WORD)}
  {get("b1", "i64", "%b", at.float_value + WORD)}
  %same.1 = icmp eq i64 %a1, %b1
  ret i1 %same.1
try.tuple:
  %is.tuple = icmp eq ptr %ta, @PyTuple_Type
  %shallow = icmp ult i64 %depth, 64
  %go = and i1 %is.tuple, %shallow
  br i1 %go, label %sizes, label %no
sizes:
  {get("na", "i64", "%a", at.size)}
  {get("nb", "i64", "%b", at.size)}
  %deeper = add i64 %depth, 1
  %same.size = icmp eq i64 %na, %nb
  br i1 %same.size, label %items, label %no
items:
  %i = phi i64 [ 0, %sizes ], [ %i.next, %item.same ]
  %done = icmp eq i64 %i, %na
  br i1 %done, label %yes, label %item
item:
  %offset = mul i64 %i, {WORD}
  %pa = getelementptr i8, ptr %a, i64 %offset
  %pb = getelementptr i8, ptr %b, i64 %offset
  {get("xa", "ptr", "%pa", at.tuple_items)}
  {get("xb", "ptr", "%pb", at.tuple_items)}
  %same.item = call i1 @gj_static_equal(ptr %xa, ptr %xb, i64 %deeper)
  br i1 %same.item, label %item.same, label %no
item.same:
  %i.next = add i64 %i, 1
  br label %items
yes:
  ret i1 true
no:
  ret i1 false
}}"""


def _call_shape(at: Layout) -> str:
    """Compare the call's number of arguments and keyword names; make the frame; fill the first registers."""
    return f"""entry:
  %position = alloca i64
  %key = alloca ptr
  %value = alloca ptr
  %overflow = alloca i32
  {field("positional", "i64", "positional")}
  {field("keywords", "i64", "keywords")}
  {field("names", "ptr", "names")}
  %counts = icmp eq i64 %nargs, %positional
  br i1 %counts, label %keywords.any, label %mismatch.early
keywords.any:
  %identical = icmp eq ptr %names, %kwnames
  br i1 %identical, label %frame.make, label %keywords.null
keywords.null:
  %absent = icmp eq ptr %kwnames, null
  br i1 %absent, label %keywords.absent, label %keywords.size
keywords.absent:
  %expect.none = icmp eq i64 %keywords, 0
  br i1 %expect.none, label %frame.make, label %mismatch.early
keywords.size:
  {get("given", "i64", "%kwnames", at.size)}
  %as.many = icmp eq i64 %given, %keywords
  br i1 %as.many, label %keywords.loop, label %mismatch.early
keywords.loop:
  %k = phi i64 [ 0, %keywords.size ], [ %k.next, %keywords.same ]
  %k.done = icmp eq i64 %k, %keywords
  br i1 %k.done, label %frame.make, label %keywords.compare
keywords.compare:
  %k.offset = mul i64 %k, {WORD}
  %k.names = getelementptr i8, ptr %names, i64 %k.offset
  %k.kwnames = getelementptr i8, ptr %kwnames, i64 %k.offset
  {get("k.expected", "ptr", "%k.names", at.tuple_items)}
  {get("k.got", "ptr", "%k.kwnames", at.tuple_items)}
  %k.same = call i1 @gj_static_equal(ptr %k.expected, ptr %k.got, i64 0)
  br i1 %k.same, label %keywords.same, label %mismatch.early
keywords.same:
  %k.next = add i64 %k, 1
  br label %keywords.loop
mismatch.early:
  ret ptr inttoptr (i64 {MISMATCH} to ptr)

frame.make:
  {field("frame.bytes", "i64", "frame_bytes")}
  %on.heap = icmp ugt i64 %frame.bytes, {STACK_LIMIT}
  br i1 %on.heap, label %frame.heap, label %frame.stack
frame.stack:
  %frame.low = alloca i8, i64 %frame.bytes, align 16
  br label %arguments
frame.heap:
  %frame.high = call ptr @PyMem_RawMalloc(i64 %frame.bytes)
  %frame.none = icmp eq ptr %frame.high, null
  br i1 %frame.none, label %frame.failed, label %arguments
frame.failed:
  call ptr @PyErr_NoMemory()
  ret ptr null
arguments:
  %frame = phi ptr [ %frame.low, %frame.stack ], [ %frame.high, %frame.heap ]
  %total = add i64 %positional, %keywords
  br label %arguments.loop
arguments.loop:
  %j = phi i64 [ 0, %arguments ], [ %j.next, %arguments.copy ]
  %j.done = icmp eq i64 %j, %total
  br i1 %j.done, label %walk.begin, label %arguments.copy
arguments.copy:
  %j.from = getelementptr ptr, ptr %args, i64 %j
  %j.to = getelementptr ptr, ptr %frame, i64 %j
  %j.object = load ptr, ptr %j.from
  store ptr %j.object, ptr %j.to
  %j.next = add i64 %j, 1
  br label %arguments.loop"""


def _walk(at: Layout) -> str:
    """Check every argument, hidden array and guard; fill the input slots."""
    return f"""walk.begin:
  {field("walk.first", "ptr", "walk")}
  br label %walk.loop
walk.step:
  {following("walk.next", "%op")}
  br label %walk.loop
walk.loop:
  %op = phi ptr [ %walk.first, %walk.begin ], [ %walk.next, %walk.step ]
  {dispatch(Walk, "%op", "walk")}

walk.array:
  {register("array.given", 1)}
  br label %array.check
walk.hidden:
  {word("array.hidden", "ptr", 1)}
  br label %array.check
array.check:
  %array = phi ptr [ %array.given, %walk.array ], [ %array.hidden, %walk.hidden ]
  {get("array.type", "ptr", "%array", at.type)}
  %array.exact = icmp eq ptr %array.type, @gj_np_ndarray
  br i1 %array.exact, label %array.header, label %mismatch
array.header:
  {get("array.flags", "i32", "%array", at.array_flags)}
  {get("array.nd", "i32", "%array", at.array_nd)}
  {get("array.descr", "ptr", "%array", at.array_descr)}
  {word("array.want.descr", "ptr", 3)}
  {word("array.want.nd", "i32", 4)}
  {word("array.want.dims", "ptr", 5)}
  %array.flags.ours = and i32 %array.flags, {at.array_flag_mask}
  %array.flags.good = icmp eq i32 %array.flags.ours, {at.array_flag_mask}
  %array.nd.good = icmp eq i32 %array.nd, %array.want.nd
  %array.good = and i1 %array.flags.good, %array.nd.good
  br i1 %array.good, label %array.dtype, label %mismatch
array.dtype:
  %array.descr.same = icmp eq ptr %array.descr, %array.want.descr
  br i1 %array.descr.same, label %array.shape, label %array.number
array.number:
  {get("array.number.got", "i32", "%array.descr", at.descr_number)}
  {get("array.order", "i8", "%array.descr", at.descr_byteorder)}
  {word("array.numbers", "i64", 6)}
  %array.number.first = trunc i64 %array.numbers to i32
  %array.numbers.high = lshr i64 %array.numbers, 32
  %array.number.second = trunc i64 %array.numbers.high to i32
  %array.is.first = icmp eq i32 %array.number.got, %array.number.first
  %array.is.second = icmp eq i32 %array.number.got, %array.number.second
  %array.is.either = or i1 %array.is.first, %array.is.second
  %array.native = icmp ne i8 %array.order, {at.swapped}
  %array.equivalent = and i1 %array.is.either, %array.native
  br i1 %array.equivalent, label %array.shape, label %mismatch
array.shape:
  {get("array.dims", "ptr", "%array", at.array_dims)}
  %array.rank = zext i32 %array.nd to i64
  br label %array.axes
array.axes:
  %axis = phi i64 [ 0, %array.shape ], [ %axis.next, %array.axis.same ]
  %axis.done = icmp eq i64 %axis, %array.rank
  br i1 %axis.done, label %array.accept, label %array.axis
array.axis:
  %extent.at = getelementptr i64, ptr %array.dims, i64 %axis
  %extent.want.at = getelementptr i64, ptr %array.want.dims, i64 %axis
  %extent = load i64, ptr %extent.at
  %extent.want = load i64, ptr %extent.want.at
  %extent.same = icmp eq i64 %extent, %extent.want
  br i1 %extent.same, label %array.axis.same, label %mismatch
array.axis.same:
  %axis.next = add i64 %axis, 1
  br label %array.axes
array.accept:
  {get("array.data", "ptr", "%array", at.array_data)}
  {place("array.slot", 2)}
  store ptr %array.data, ptr %array.slot
  br label %walk.step

walk.value:
  {register("scalar", 1)}
  {get("scalar.type", "ptr", "%scalar", at.type)}
  {word("scalar.want", "ptr", 3)}
  {word("scalar.twin", "ptr", 4)}
  %scalar.exact = icmp eq ptr %scalar.type, %scalar.want
  %scalar.other = icmp eq ptr %scalar.type, %scalar.twin
  %scalar.good = or i1 %scalar.exact, %scalar.other
  br i1 %scalar.good, label %scalar.read, label %mismatch
scalar.read:
  {get("scalar.bits", "i64", "%scalar", at.scalar_value)}
  br label %scalar.accept
walk.int:
  {register("int", 1)}
  {get("int.type", "ptr", "%int", at.type)}
  %int.exact = icmp eq ptr %int.type, @PyLong_Type
  br i1 %int.exact, label %int.read, label %mismatch
int.read:
  %int.bits = call i64 @PyLong_AsLongLongAndOverflow(ptr %int, ptr %overflow)
  %int.overflow = load i32, ptr %overflow
  %int.fits = icmp eq i32 %int.overflow, 0
  br i1 %int.fits, label %scalar.accept, label %mismatch
scalar.accept:
  %bits = phi i64 [ %scalar.bits, %scalar.read ], [ %int.bits, %int.read ]
  {place("scalar.slot", 2)}
  {place("scalar.copy", 5)}
  store i64 %bits, ptr %scalar.copy
  store ptr %scalar.copy, ptr %scalar.slot
  br label %walk.step

walk.static:
  {register("static", 1)}
  {word("static.want", "ptr", 3)}
  %static.same = call i1 @gj_static_equal(ptr %static.want, ptr %static, i64 0)
  br i1 %static.same, label %walk.step, label %mismatch

walk.tuple:
  {register("tuple", 1)}
  {get("tuple.type", "ptr", "%tuple", at.type)}
  %tuple.exact = icmp eq ptr %tuple.type, @PyTuple_Type
  br i1 %tuple.exact, label %tuple.items, label %mismatch
tuple.items:
  %tuple.first = getelementptr i8, ptr %tuple, i64 {at.tuple_items}
  br label %sequence.size
walk.list:
  {register("list", 1)}
  {get("list.type", "ptr", "%list", at.type)}
  %list.exact = icmp eq ptr %list.type, @PyList_Type
  br i1 %list.exact, label %list.items, label %mismatch
list.items:
  {get("list.first", "ptr", "%list", at.list_items)}
  br label %sequence.size
sequence.size:
  %sequence = phi ptr [ %tuple, %tuple.items ], [ %list, %list.items ]
  %first = phi ptr [ %tuple.first, %tuple.items ], [ %list.first, %list.items ]
  {get("length", "i64", "%sequence", at.size)}
  {word("length.want", "i64", 3)}
  {place("items.to", 2)}
  %length.same = icmp eq i64 %length, %length.want
  br i1 %length.same, label %items.loop, label %mismatch
items.loop:
  %n = phi i64 [ 0, %sequence.size ], [ %n.next, %items.copy ]
  %n.done = icmp eq i64 %n, %length
  br i1 %n.done, label %walk.step, label %items.copy
items.copy:
  %n.from = getelementptr ptr, ptr %first, i64 %n
  %n.to = getelementptr ptr, ptr %items.to, i64 %n
  %n.object = load ptr, ptr %n.from
  store ptr %n.object, ptr %n.to
  %n.next = add i64 %n, 1
  br label %items.loop

walk.dict:
  {register("dict", 1)}
  {get("dict.type", "ptr", "%dict", at.type)}
  %dict.exact = icmp eq ptr %dict.type, @PyDict_Type
  br i1 %dict.exact, label %dict.size, label %mismatch
dict.size:
  %dict.length = call i64 @PyDict_Size(ptr %dict)
  {word("dict.want", "i64", 3)}
  {word("dict.keys", "ptr", 4)}
  {place("dict.to", 2)}
  store i64 0, ptr %position
  %dict.same = icmp eq i64 %dict.length, %dict.want
  br i1 %dict.same, label %dict.loop, label %mismatch
dict.loop:
  %d = phi i64 [ 0, %dict.size ], [ %d.next, %dict.accept ]
  %d.done = icmp eq i64 %d, %dict.want
  br i1 %d.done, label %walk.step, label %dict.item
dict.item:
  %d.found = call i32 @PyDict_Next(ptr %dict, ptr %position, ptr %key, ptr %value)
  %d.key.got = load ptr, ptr %key
  %d.key.at = getelementptr ptr, ptr %dict.keys, i64 %d
  %d.key = load ptr, ptr %d.key.at
  %d.identical = icmp eq ptr %d.key, %d.key.got
  br i1 %d.identical, label %dict.accept, label %dict.compare
dict.compare:
  %d.equal = call i1 @gj_static_equal(ptr %d.key, ptr %d.key.got, i64 0)
  br i1 %d.equal, label %dict.accept, label %mismatch
dict.accept:
  %d.value = load ptr, ptr %value
  %d.place = getelementptr ptr, ptr %dict.to, i64 %d
  store ptr %d.value, ptr %d.place
  %d.next = add i64 %d, 1
  br label %dict.loop

walk.cell:
  {word("cell", "ptr", 1)}
  {get("cell.now", "ptr", "%cell", at.cell_contents)}
  {word("cell.want", "ptr", 2)}
  %cell.same = icmp eq ptr %cell.now, %cell.want
  br i1 %cell.same, label %walk.step, label %mismatch
walk.global:
  {word("namespace", "ptr", 1)}
  {word("global.name", "ptr", 2)}
  {word("global.want", "ptr", 3)}
  %global.now = call ptr @PyDict_GetItemWithError(ptr %namespace, ptr %global.name)
  %global.same = icmp eq ptr %global.now, %global.want
  br i1 %global.same, label %walk.step, label %mismatch

mismatch:
  br i1 %on.heap, label %mismatch.free, label %mismatch.early
mismatch.free:
  call void @PyMem_RawFree(ptr %frame)
  br label %mismatch.early"""


def _execute(at: Layout) -> str:
    """Hold what must stay alive, allocate the outputs, run the program."""
    return f"""walk.end:
  {field("owner", "ptr", "owner")}
  call void @Py_IncRef(ptr %owner)
  {field("held", "ptr", "held")}
  {field("held.count", "i64", "held_count")}
  br label %hold.loop
hold.loop:
  %h = phi i64 [ 0, %walk.end ], [ %h.next, %hold.one ]
  %h.done = icmp eq i64 %h, %held.count
  br i1 %h.done, label %prepare.begin, label %hold.one
hold.one:
  %h.at = getelementptr i64, ptr %held, i64 %h
  %h.offset = load i64, ptr %h.at
  %h.place = getelementptr i8, ptr %frame, i64 %h.offset
  %h.object = load ptr, ptr %h.place
  call void @Py_IncRef(ptr %h.object)
  %h.next = add i64 %h, 1
  br label %hold.loop

prepare.begin:
  {field("prepare.first", "ptr", "prepare")}
  {field("inputs.offset", "i64", "inputs")}
  {field("outputs.offset", "i64", "outputs")}
  {field("stack.offset", "i64", "stack")}
  %inputs = getelementptr i8, ptr %frame, i64 %inputs.offset
  %outputs = getelementptr i8, ptr %frame, i64 %outputs.offset
  %stack = getelementptr i8, ptr %frame, i64 %stack.offset
  br label %prepare.loop
prepare.step:
  {following("prep.next", "%prep")}
  br label %prepare.loop
prepare.loop:
  %prep = phi ptr [ %prepare.first, %prepare.begin ], [ %prep.next, %prepare.step ]
  {dispatch(Prepare, "%prep", "prepare")}
prepare.array:
  {word("fresh.descr", "ptr", 3, "%prep")}
  {word("fresh.nd", "i32", 4, "%prep")}
  {word("fresh.dims", "ptr", 5, "%prep")}
  call void @Py_IncRef(ptr %fresh.descr)
  %fresh = call ptr @gj_np_new_from_descr(ptr @gj_np_ndarray, ptr %fresh.descr, i32 %fresh.nd, ptr %fresh.dims, \
ptr null, ptr null, i32 0, ptr null)
  %fresh.none = icmp eq ptr %fresh, null
  br i1 %fresh.none, label %clean, label %prepare.keep
prepare.keep:
  {get("fresh.data", "ptr", "%fresh", at.array_data)}
  {place("fresh.slot", 1, "%prep")}
  {place("fresh.leaf", 2, "%prep")}
  store ptr %fresh.data, ptr %fresh.slot
  store ptr %fresh, ptr %fresh.leaf
  br label %prepare.step
prepare.scalar:
  {place("scratch.slot", 1, "%prep")}
  {place("scratch", 2, "%prep")}
  store ptr %scratch, ptr %scratch.slot
  br label %prepare.step

prepare.end:
  {field("program", "ptr", "program")}
  {field("release", "i64", "release_gil")}
  %holding = icmp eq i64 %release, 0
  br i1 %holding, label %run.holding, label %run.released
run.holding:
  %status.holding = call i64 %program(ptr %inputs, ptr %outputs)
  br label %ran
run.released:
  %thread = call ptr @PyEval_SaveThread()
  %status.released = call i64 %program(ptr %inputs, ptr %outputs)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ran
ran:
  %status = phi i64 [ %status.holding, %run.holding ], [ %status.released, %run.released ]
  %good = icmp eq i64 %status, 0
  br i1 %good, label %build.begin, label %clean"""


def _build(at: Layout) -> str:
    """Turn the filled outputs into the result; on failure give everything back."""
    return f"""build.begin:
  {field("build.first", "ptr", "build")}
  br label %build.loop
build.push:
  %object = phi ptr [ %leaf, %build.array ], [ %number.fresh, %number.fill ], [ %truth, %build.bool ], \
[ %constant, %build.static ], [ %tuple.new, %tuple.loop ], [ %list.new, %list.loop ], [ %dict.new, %entry.loop ]
  %object.at = phi ptr [ %top, %build.array ], [ %top, %number.fill ], [ %top, %build.bool ], \
[ %top, %build.static ], [ %tuple.base, %tuple.loop ], [ %list.base, %list.loop ], [ %dict.base, %entry.loop ]
  store ptr %object, ptr %object.at
  %top.next = getelementptr i8, ptr %object.at, i64 {WORD}
  {following("make.next", "%make")}
  br label %build.loop
build.loop:
  %make = phi ptr [ %build.first, %build.begin ], [ %make.next, %build.push ]
  %top = phi ptr [ %stack, %build.begin ], [ %top.next, %build.push ]
  {dispatch(Build, "%make", "build")}

build.array:
  {register("leaf", 1, "%make")}
  store ptr null, ptr %leaf.place
  br label %build.push
build.scalar:
  {word("number.type", "ptr", 2, "%make")}
  {word("number.allocate", "ptr", 3, "%make")}
  %number.fresh = call ptr %number.allocate(ptr %number.type, i64 0)
  %number.none = icmp eq ptr %number.fresh, null
  br i1 %number.none, label %clean, label %number.fill
number.fill:
  {place("number.scratch", 1, "%make")}
  %number.bits = load i64, ptr %number.scratch
  %number.value = getelementptr i8, ptr %number.fresh, i64 {at.scalar_value}
  store i64 %number.bits, ptr %number.value
  br label %build.push
build.bool:
  {place("truth.scratch", 1, "%make")}
  %truth.byte = load i8, ptr %truth.scratch
  %truth.false = icmp eq i8 %truth.byte, 0
  %truth = select i1 %truth.false, ptr @gj_np_false, ptr @gj_np_true
  call void @Py_IncRef(ptr %truth)
  br label %build.push
build.static:
  {word("constant", "ptr", 1, "%make")}
  call void @Py_IncRef(ptr %constant)
  br label %build.push

build.tuple:
  {word("tuple.length", "i64", 1, "%make")}
  %tuple.new = call ptr @PyTuple_New(i64 %tuple.length)
  %tuple.none = icmp eq ptr %tuple.new, null
  br i1 %tuple.none, label %clean, label %tuple.fill
tuple.fill:
  %tuple.back = sub i64 0, %tuple.length
  %tuple.base = getelementptr ptr, ptr %top, i64 %tuple.back
  %tuple.to = getelementptr i8, ptr %tuple.new, i64 {at.tuple_items}
  br label %tuple.loop
tuple.loop:
  %t = phi i64 [ 0, %tuple.fill ], [ %t.next, %tuple.move ]
  %t.done = icmp eq i64 %t, %tuple.length
  br i1 %t.done, label %build.push, label %tuple.move
tuple.move:
  %t.from = getelementptr ptr, ptr %tuple.base, i64 %t
  %t.to = getelementptr ptr, ptr %tuple.to, i64 %t
  %t.object = load ptr, ptr %t.from
  store ptr %t.object, ptr %t.to
  %t.next = add i64 %t, 1
  br label %tuple.loop

build.list:
  {word("list.length", "i64", 1, "%make")}
  %list.new = call ptr @PyList_New(i64 %list.length)
  %list.none = icmp eq ptr %list.new, null
  br i1 %list.none, label %clean, label %list.fill
list.fill:
  %list.back = sub i64 0, %list.length
  %list.base = getelementptr ptr, ptr %top, i64 %list.back
  {get("list.to", "ptr", "%list.new", at.list_items)}
  br label %list.loop
list.loop:
  %l = phi i64 [ 0, %list.fill ], [ %l.next, %list.move ]
  %l.done = icmp eq i64 %l, %list.length
  br i1 %l.done, label %build.push, label %list.move
list.move:
  %l.from = getelementptr ptr, ptr %list.base, i64 %l
  %l.to = getelementptr ptr, ptr %list.to, i64 %l
  %l.object = load ptr, ptr %l.from
  store ptr %l.object, ptr %l.to
  %l.next = add i64 %l, 1
  br label %list.loop

build.dict:
  {word("entries", "i64", 1, "%make")}
  {word("entry.keys", "ptr", 2, "%make")}
  {word("template", "ptr", 3, "%make")}
  %dict.new = call ptr @PyDict_Copy(ptr %template)
  %dict.none = icmp eq ptr %dict.new, null
  br i1 %dict.none, label %clean, label %dict.fill
dict.fill:
  %dict.back = sub i64 0, %entries
  %dict.base = getelementptr ptr, ptr %top, i64 %dict.back
  br label %entry.loop
entry.loop:
  %e = phi i64 [ 0, %dict.fill ], [ %e.next, %entry.stored ]
  %e.done = icmp eq i64 %e, %entries
  br i1 %e.done, label %build.push, label %entry.store
entry.store:
  %e.from = getelementptr ptr, ptr %dict.base, i64 %e
  %e.key.at = getelementptr ptr, ptr %entry.keys, i64 %e
  %e.object = load ptr, ptr %e.from
  %e.key = load ptr, ptr %e.key.at
  %e.result = call i32 @PyDict_SetItem(ptr %dict.new, ptr %e.key, ptr %e.object)
  %e.failed = icmp ne i32 %e.result, 0
  br i1 %e.failed, label %entry.failed, label %entry.stored
entry.stored:
  store ptr null, ptr %e.from
  call void @Py_DecRef(ptr %e.object)
  %e.next = add i64 %e, 1
  br label %entry.loop
entry.failed:
  call void @Py_DecRef(ptr %dict.new)
  br label %clean

build.end:
  %built = load ptr, ptr %stack
  {field("wrap", "ptr", "wrap")}
  %plain = icmp eq ptr %wrap, null
  br i1 %plain, label %finish, label %wrap.call
wrap.call:
  %wrapped = call ptr @PyObject_CallOneArg(ptr %wrap, ptr %built)
  call void @Py_DecRef(ptr %built)
  br label %finish

clean:
  %clean.top = phi ptr [ %stack, %prepare.array ], [ %stack, %ran ], [ %top, %build.scalar ], \
[ %top, %build.tuple ], [ %top, %build.list ], [ %top, %build.dict ], [ %top, %entry.failed ]
  %clean.status = phi i64 [ 0, %prepare.array ], [ %status, %ran ], [ 0, %build.scalar ], \
[ 0, %build.tuple ], [ 0, %build.list ], [ 0, %build.dict ], [ 0, %entry.failed ]
  br label %clean.leaves
clean.leaves:
  %old = phi ptr [ %prepare.first, %clean ], [ %old.next, %clean.next ]
  %old.done = icmp eq ptr %old, %prep
  br i1 %old.done, label %clean.stack, label %clean.kind
clean.kind:
  {word("old.code", "i64", 0, "%old")}
  %old.array = icmp eq i64 %old.code, {Prepare.ARRAY.value}
  br i1 %old.array, label %clean.leaf, label %clean.next
clean.leaf:
  {register("old.leaf", 2, "%old")}
  call void @Py_DecRef(ptr %old.leaf)
  br label %clean.next
clean.next:
  {following("old.next", "%old")}
  br label %clean.leaves
clean.stack:
  %s = phi ptr [ %stack, %clean.leaves ], [ %s.next, %clean.drop ]
  %s.done = icmp eq ptr %s, %clean.top
  br i1 %s.done, label %clean.end, label %clean.drop
clean.drop:
  %s.object = load ptr, ptr %s
  call void @Py_DecRef(ptr %s.object)
  %s.next = getelementptr i8, ptr %s, i64 {WORD}
  br label %clean.stack
clean.end:
  %raised = icmp eq i64 %clean.status, 0
  br i1 %raised, label %finish, label %raise

raise:
  {field("on.error", "ptr", "on_error")}
  %code = call ptr @PyLong_FromLongLong(i64 %clean.status)
  %code.none = icmp eq ptr %code, null
  br i1 %code.none, label %finish, label %raise.ask
raise.ask:
  %exception = call ptr @PyObject_CallOneArg(ptr %on.error, ptr %code)
  call void @Py_DecRef(ptr %code)
  %exception.none = icmp eq ptr %exception, null
  br i1 %exception.none, label %finish, label %raise.check
raise.check:
  {get("exception.type", "ptr", "%exception", at.type)}
  %exception.kind = call i32 @PyType_IsSubtype(ptr %exception.type, ptr @gj_BaseException)
  %exception.proper = icmp ne i32 %exception.kind, 0
  br i1 %exception.proper, label %raise.set, label %raise.wrong
raise.set:
  call void @PyErr_SetObject(ptr %exception.type, ptr %exception)
  br label %raise.drop
raise.wrong:
  call void @PyErr_SetString(ptr @gj_TypeError, ptr @gj_text_on_error)
  br label %raise.drop
raise.drop:
  call void @Py_DecRef(ptr %exception)
  br label %finish

finish:
  %result = phi ptr [ %built, %build.end ], [ %wrapped, %wrap.call ], [ null, %clean.end ], [ null, %raise ], \
[ null, %raise.ask ], [ null, %raise.drop ]
  br label %drop.loop
drop.loop:
  %r = phi i64 [ 0, %finish ], [ %r.next, %drop.one ]
  %r.done = icmp eq i64 %r, %held.count
  br i1 %r.done, label %drop.owner, label %drop.one
drop.one:
  %r.at = getelementptr i64, ptr %held, i64 %r
  %r.offset = load i64, ptr %r.at
  %r.place = getelementptr i8, ptr %frame, i64 %r.offset
  %r.object = load ptr, ptr %r.place
  call void @Py_DecRef(ptr %r.object)
  %r.next = add i64 %r, 1
  br label %drop.loop
drop.owner:
  call void @Py_DecRef(ptr %owner)
  br i1 %on.heap, label %drop.frame, label %leave
drop.frame:
  call void @PyMem_RawFree(ptr %frame)
  br label %leave
leave:
  ret ptr %result"""


def add_run(module: Module) -> None:
    """Define ``@gj_static_equal`` and ``@gj_run`` in ``module``."""
    at = cpython.layout()
    for name in (*cpython.FUNCTIONS, *cpython.TYPES, *cpython.NUMPY, "gj_np_true", "gj_np_false"):
        line = cpython.declaration(name)
        (module.declare if line.startswith("declare") else module.add_global)(name, line)
    text = b"graphjit: on_error must return an exception\0"
    module.add_global("gj_text_on_error", f'@gj_text_on_error = private constant [{len(text)} x i8] c"'
                      + "".join(f"\\{byte:02x}" for byte in text) + '"')
    module.ensure("gj_static_equal", lambda _: static_equal(at))
    body = "\n".join((_call_shape(at), _walk(at), _execute(at), _build(at)))
    module.ensure(
        "gj_run",
        lambda _: f"define ptr @gj_run(ptr %record, ptr %args, i64 %nargs, ptr %kwnames) nounwind {{\n{body}\n}}",
    )
