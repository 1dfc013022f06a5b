"""Native code that checks a call's arguments.

Job: the first half of ``@gj_run``: compare a call with a record and fill the program's input slots.
Output: blocks that end in ``walk.end`` (matched) or return `MISMATCH`, which promises that nothing was
allocated, changed or raised.
Invariant: while arguments are being checked no foreign code runs (no ``__eq__``, no ``__hash__``, no garbage
collection), so that references borrowed from lists and dicts stay valid.
"""

from __future__ import annotations

from graphjit.backend.llvm.entry.cpython import WORD, Layout
from graphjit.backend.llvm.entry.layout import (
    MISMATCH,
    STACK_LIMIT,
    Walk,
    dispatch,
    field,
    following,
    get,
    place,
    register,
    word,
)

WORDS_AT_ONCE = 4
"""Words of memory that are compared with one branch; tables of them are a multiple of this long."""


def _differences(name: str) -> str:
    """``%{name}.differ``: 0 where the words at the addresses in the table at ``%{name}`` are what the table
    says.
    """
    lines = []
    for i in range(WORDS_AT_ONCE):
        lines.append(get(f"{name}.place.{i}", "ptr", f"%{name}", 2 * i * WORD))
        lines.append(get(f"{name}.want.{i}", "i64", f"%{name}", (2 * i + 1) * WORD))
        lines.append(f"%{name}.now.{i} = load i64, ptr %{name}.place.{i}")
        lines.append(f"%{name}.differ.{i} = xor i64 %{name}.now.{i}, %{name}.want.{i}")
    either = f"%{name}.differ.0"
    for i in range(1, WORDS_AT_ONCE):
        joined = f"%{name}.differ" if i == WORDS_AT_ONCE - 1 else f"%{name}.either.{i}"
        lines.append(f"{joined} = or i64 {either}, %{name}.differ.{i}")
        either = joined
    return "\n  ".join(lines)


def static_equal(at: Layout) -> str:
    """``i1 @gj_static_equal(a, b, depth)``: same type and value, for types whose comparison is not foreign
    code.
    """
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


def call_shape(at: Layout) -> str:
    """Compare the call's number of arguments and keyword names; make the frame; fill the first registers."""
    return f"""entry:
  %position = alloca i64
  %key = alloca ptr
  %value = alloca ptr
  %overflow = alloca i32
  %apart = alloca i1
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


def walk(at: Layout) -> str:
    """Check every argument, hidden array and guard; fill the input slots."""
    return f"""walk.begin:
  {field("walk.first", "ptr", "walk")}
  br label %walk.loop
walk.step:
  {following("walk.next", "%op")}
  br label %walk.loop
walk.loop:
  %op = phi ptr [ %walk.first, %walk.begin ], [ %walk.next, %walk.step ], [ %version.next, %version.jump ]
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

walk.words:
  {word("words", "ptr", 1)}
  {word("words.end", "ptr", 2)}
  br label %words.loop
words.loop:
  %w = phi ptr [ %words, %walk.words ], [ %w.next, %words.loop.again ]
  {_differences("w")}
  %w.same = icmp eq i64 %w.differ, 0
  br i1 %w.same, label %words.loop.again, label %mismatch
words.loop.again:
  %w.next = getelementptr i8, ptr %w, i64 {WORDS_AT_ONCE * 2 * WORD}
  %w.done = icmp eq ptr %w.next, %words.end
  br i1 %w.done, label %walk.step, label %words.loop
walk.global:
  {word("namespace", "ptr", 1)}
  {word("global.name", "ptr", 2)}
  {word("global.want", "ptr", 3)}
  %global.now = call ptr @PyDict_GetItemWithError(ptr %namespace, ptr %global.name)
  %global.same = icmp eq ptr %global.now, %global.want
  br i1 %global.same, label %walk.step, label %mismatch
walk.sequence:
  {word("guarded", "ptr", 1)}
  {get("guarded.size", "i64", "%guarded", at.size)}
  {word("guarded.length", "i64", 2)}
  %guarded.same = icmp eq i64 %guarded.size, %guarded.length
  br i1 %guarded.same, label %guarded.items, label %mismatch
guarded.items:
  {get("guarded.first", "ptr", "%guarded", at.list_items)}
  {word("guarded.want", "ptr", 3)}
  {word("guarded.bytes", "i64", 4)}
  br label %compare
walk.mapping:
  {word("mapped", "ptr", 1)}
  {word("mapped.want", "i64", 2)}
  {word("mapped.keys", "ptr", 3)}
  {word("mapped.values", "ptr", 4)}
  %mapped.now = call i64 @PyDict_Size(ptr %mapped)
  store i64 0, ptr %position
  %mapped.same = icmp eq i64 %mapped.now, %mapped.want
  br i1 %mapped.same, label %mapped.loop, label %mismatch
mapped.loop:
  %m = phi i64 [ 0, %walk.mapping ], [ %m.next, %mapped.accept ]
  %m.done = icmp eq i64 %m, %mapped.want
  br i1 %m.done, label %walk.step, label %mapped.item
mapped.item:
  %m.found = call i32 @PyDict_Next(ptr %mapped, ptr %position, ptr %key, ptr %value)
  %m.key.got = load ptr, ptr %key
  %m.value.got = load ptr, ptr %value
  %m.key.at = getelementptr ptr, ptr %mapped.keys, i64 %m
  %m.value.at = getelementptr ptr, ptr %mapped.values, i64 %m
  %m.key = load ptr, ptr %m.key.at
  %m.value = load ptr, ptr %m.value.at
  %m.key.same = icmp eq ptr %m.key, %m.key.got
  %m.value.same = icmp eq ptr %m.value, %m.value.got
  %m.same = and i1 %m.key.same, %m.value.same
  br i1 %m.same, label %mapped.accept, label %mismatch
mapped.accept:
  %m.next = add i64 %m, 1
  br label %mapped.loop
walk.version:
  {word("version.place", "ptr", 1)}
  {word("version.want", "i64", 2)}
  {word("version.bits", "i64", 3)}
  {word("version.skip", "i64", 4)}
  %version.word = load i64, ptr %version.place
  %version.now = and i64 %version.word, %version.bits
  %version.same = icmp eq i64 %version.now, %version.want
  %version.any = icmp ne i64 %version.now, 0
  %version.good = and i1 %version.same, %version.any
  br i1 %version.good, label %version.jump, label %walk.step
version.jump:
  %version.next = getelementptr i8, ptr %op, i64 %version.skip
  br label %walk.loop
walk.renew:
  {word("renew.back", "i64", 1)}
  %renewed = getelementptr i8, ptr %op, i64 %renew.back
  {word("renew.place", "ptr", 1, "%renewed")}
  {word("renew.bits", "i64", 3, "%renewed")}
  %renew.word = load i64, ptr %renew.place
  %renew.now = and i64 %renew.word, %renew.bits
  %renew.want = getelementptr i8, ptr %renewed, i64 {2 * WORD}
  store i64 %renew.now, ptr %renew.want
  br label %walk.step
walk.context:
  {word("context", "ptr", 1)}
  {word("context.want", "ptr", 2)}
  {word("context.default", "ptr", 3)}
  store ptr null, ptr %value
  %context.failed = call i32 @PyContextVar_Get(ptr %context, ptr %context.default, ptr %value)
  %context.now = load ptr, ptr %value
  call void @Py_DecRef(ptr %context.now)
  %context.same = icmp eq ptr %context.now, %context.want
  br i1 %context.same, label %walk.step, label %mismatch
walk.content:
  {word("content", "ptr", 1)}
  {get("content.flags", "i32", "%content", at.array_flags)}
  {get("content.nd", "i32", "%content", at.array_nd)}
  {get("content.descr", "ptr", "%content", at.array_descr)}
  {word("content.want.descr", "ptr", 3)}
  {word("content.want.nd", "i32", 4)}
  {word("content.want.dims", "ptr", 5)}
  %content.flags.ours = and i32 %content.flags, {at.array_flag_mask}
  %content.flags.good = icmp eq i32 %content.flags.ours, {at.array_flag_mask}
  %content.nd.good = icmp eq i32 %content.nd, %content.want.nd
  %content.descr.good = icmp eq ptr %content.descr, %content.want.descr
  %content.good.0 = and i1 %content.flags.good, %content.nd.good
  %content.good = and i1 %content.good.0, %content.descr.good
  br i1 %content.good, label %content.shape, label %mismatch
content.shape:
  {get("content.dims", "ptr", "%content", at.array_dims)}
  %content.rank = zext i32 %content.nd to i64
  br label %content.axes
content.axes:
  %c = phi i64 [ 0, %content.shape ], [ %c.next, %content.axis.same ]
  %c.done = icmp eq i64 %c, %content.rank
  br i1 %c.done, label %content.data, label %content.axis
content.axis:
  %c.at = getelementptr i64, ptr %content.dims, i64 %c
  %c.want.at = getelementptr i64, ptr %content.want.dims, i64 %c
  %c.extent = load i64, ptr %c.at
  %c.want = load i64, ptr %c.want.at
  %c.same = icmp eq i64 %c.extent, %c.want
  br i1 %c.same, label %content.axis.same, label %mismatch
content.axis.same:
  %c.next = add i64 %c, 1
  br label %content.axes
content.data:
  {get("content.bytes", "ptr", "%content", at.array_data)}
  {word("content.want", "ptr", 2)}
  {word("content.nbytes", "i64", 6)}
  br label %compare
walk.block:
  {word("block", "ptr", 1)}
  {word("block.want", "ptr", 2)}
  {word("block.bytes", "i64", 3)}
  br label %compare
compare:
  %compare.now = phi ptr [ %guarded.first, %guarded.items ], [ %content.bytes, %content.data ], [ %block, %walk.block ]
  %compare.want = phi ptr [ %guarded.want, %guarded.items ], [ %content.want, %content.data ], [ %block.want, %walk.block ]
  %compare.bytes = phi i64 [ %guarded.bytes, %guarded.items ], [ %content.nbytes, %content.data ], [ %block.bytes, %walk.block ]
  %compare.order = call i32 @memcmp(ptr %compare.now, ptr %compare.want, i64 %compare.bytes)
  %compare.same = icmp eq i32 %compare.order, 0
  br i1 %compare.same, label %walk.step, label %mismatch

mismatch:
  br i1 %on.heap, label %mismatch.free, label %mismatch.early
mismatch.free:
  call void @PyMem_RawFree(ptr %frame)
  br label %mismatch.early"""
