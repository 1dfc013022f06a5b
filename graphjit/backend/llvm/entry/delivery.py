"""Native code that runs the program and builds the result.

Job: the second half of ``@gj_run``, and the whole function: ``gj_run(record, args, nargs, kwnames)``, one
function for all signatures; a new signature is a new record and compiles nothing.
Output: a new reference; null with an exception set; or `MISMATCH` (from the first half).
Invariant: whatever the program reads is held by someone while it runs, and the `Specialisation` itself
while its record is in use; a call that fails gives back everything it took.
"""

from __future__ import annotations

from graphjit.backend.llvm.entry import cpython
from graphjit.backend.llvm.entry.cpython import WORD, Layout
from graphjit.backend.llvm.entry.donation import APART
from graphjit.backend.llvm.entry.large_results import add_blocks
from graphjit.backend.llvm.entry.layout import (
    Build,
    Prepare,
    dispatch,
    field,
    following,
    get,
    place,
    register,
    word,
)
from graphjit.backend.llvm.entry.matching import call_shape, static_equal, walk
from graphjit.backend.llvm.writing.text import Module, c_string

_ON_ERROR = "graphjit: on_error must return an exception"

_POLICY_RESTORE = """define void @gj_policy_restore(ptr %old) nounwind {
entry:
  %ours = call ptr @gj_np_set_handler(ptr %old)
  call void @Py_DecRef(ptr %ours)
  call void @Py_DecRef(ptr %old)
  ret void
}"""


def _spare(at: Layout) -> str:
    """Whether only its specialisation holds an array, and nobody changed what it is."""
    return f"""define i1 @gj_spare(ptr %array, ptr %descr, i32 %nd, ptr %dims) nounwind {{
entry:
  {get("references", "i32", "%array", at.references)}
  {get("flags", "i32", "%array", at.array_flags)}
  {get("weak", "ptr", "%array", at.array_weakrefs)}
  {get("descr.now", "ptr", "%array", at.array_descr)}
  {get("nd.now", "i32", "%array", at.array_nd)}
  {get("dims.now", "ptr", "%array", at.array_dims)}
  %flags.fresh = and i32 %flags, {at.array_fresh_flags}
  %alone = icmp eq i32 %references, 1
  %whole = icmp eq i32 %flags.fresh, {at.array_fresh_flags}
  %unseen = icmp eq ptr %weak, null
  %same.descr = icmp eq ptr %descr.now, %descr
  %same.nd = icmp eq i32 %nd.now, %nd
  %a = and i1 %alone, %whole
  %b = and i1 %unseen, %same.descr
  %c = and i1 %a, %b
  %fit = and i1 %c, %same.nd
  %count = sext i32 %nd to i64
  br i1 %fit, label %loop, label %no
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %one ]
  %done = icmp eq i64 %i, %count
  br i1 %done, label %yes, label %one
one:
  %want.at = getelementptr i64, ptr %dims, i64 %i
  %have.at = getelementptr i64, ptr %dims.now, i64 %i
  %want = load i64, ptr %want.at
  %have = load i64, ptr %have.at
  %i.next = add i64 %i, 1
  %same = icmp eq i64 %want, %have
  br i1 %same, label %loop, label %no
yes:
  ret i1 true
no:
  ret i1 false
}}"""


def _execute(at: Layout) -> str:
    """Hold what must stay alive, allocate the outputs (or take donated arrays), run the program."""
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
  br label %fresh.make
prepare.block:
  %policy = load ptr, ptr @gj_block_policy
  %policy.old = call ptr @gj_np_set_handler(ptr %policy)
  %policy.failed = icmp eq ptr %policy.old, null
  br i1 %policy.failed, label %clean, label %policy.set
policy.set:
  %policy.default = icmp eq ptr %policy.old, @gj_np_default_handler
  br i1 %policy.default, label %fresh.make, label %policy.foreign
policy.foreign:
  call void @gj_policy_restore(ptr %policy.old)
  br label %fresh.make
prepare.ordered:
  {word("ordered.strides", "ptr", 6, "%prep")}
  br label %fresh.make
fresh.make:
  %restore = phi ptr [ null, %prepare.array ], [ %policy.old, %policy.set ], [ null, %policy.foreign ], [ null, %prepare.ordered ]
  %strides = phi ptr [ null, %prepare.array ], [ null, %policy.set ], [ null, %policy.foreign ], [ %ordered.strides, %prepare.ordered ]
  {word("fresh.descr", "ptr", 3, "%prep")}
  {word("fresh.nd", "i32", 4, "%prep")}
  {word("fresh.dims", "ptr", 5, "%prep")}
  call void @Py_IncRef(ptr %fresh.descr)
  %fresh = call ptr @gj_np_new_from_descr(ptr @gj_np_ndarray, ptr %fresh.descr, i32 %fresh.nd, ptr %fresh.dims, \
ptr %strides, ptr null, i32 0, ptr null)
  %restored = icmp eq ptr %restore, null
  br i1 %restored, label %fresh.check, label %policy.restore
policy.restore:
  call void @gj_policy_restore(ptr %restore)
  br label %fresh.check
fresh.check:
  %fresh.none = icmp eq ptr %fresh, null
  br i1 %fresh.none, label %clean, label %prepare.keep
prepare.keep:
  %taken = phi ptr [ %fresh, %fresh.check ], [ %spare, %spare.take ], [ %donor, %donor.take ]
  {get("taken.data", "ptr", "%taken", at.array_data)}
  {place("taken.slot", 1, "%prep")}
  {place("taken.leaf", 2, "%prep")}
  store ptr %taken.data, ptr %taken.slot
  store ptr %taken, ptr %taken.leaf
  br label %prepare.step
prepare.apart:
  {word("apart.entries", "ptr", 1, "%prep")}
  {word("apart.count", "i64", 2, "%prep")}
  %apart.now = call i1 @gj_apart(ptr %apart.entries, i64 %apart.count, ptr %frame)
  store i1 %apart.now, ptr %apart
  br label %prepare.step
prepare.donor:
  {register("donor", 6, "%prep")}
  {get("donor.flags", "i32", "%donor", at.array_flags)}
  %donor.apart = load i1, ptr %apart
  %donor.flags.own = and i32 %donor.flags, {at.array_own_mask}
  %donor.owns = icmp eq i32 %donor.flags.own, {at.array_own_mask}
  %donor.good = and i1 %donor.owns, %donor.apart
  br i1 %donor.good, label %donor.take, label %donor.refused
donor.refused:
  {word("donor.large", "i64", 7, "%prep")}
  %donor.block = icmp ne i64 %donor.large, 0
  br i1 %donor.block, label %prepare.block, label %prepare.array
donor.take:
  call void @Py_IncRef(ptr %donor)
  br label %prepare.keep
prepare.spare:
  {word("spare.descr", "ptr", 3, "%prep")}
  {word("spare.nd", "i32", 4, "%prep")}
  {word("spare.dims", "ptr", 5, "%prep")}
  {word("spare.one", "ptr", 6, "%prep")}
  %one.free = call i1 @gj_spare(ptr %spare.one, ptr %spare.descr, i32 %spare.nd, ptr %spare.dims)
  br i1 %one.free, label %spare.take, label %spare.other
spare.other:
  {word("spare.two", "ptr", 7, "%prep")}
  %two.free = call i1 @gj_spare(ptr %spare.two, ptr %spare.descr, i32 %spare.nd, ptr %spare.dims)
  br i1 %two.free, label %spare.take, label %prepare.array
spare.take:
  %spare = phi ptr [ %spare.one, %prepare.spare ], [ %spare.two, %spare.other ]
  call void @Py_IncRef(ptr %spare)
  br label %prepare.keep
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
  %object = phi ptr [ %leaf, %build.array ], [ %number, %number.fill ], [ %truth, %build.bool ], \
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
  {word("number.one", "ptr", 4, "%make")}
  {get("one.references", "i32", "%number.one", at.references)}
  %number.one.alone = icmp eq i32 %one.references, 1
  br i1 %number.one.alone, label %number.take, label %number.other
number.other:
  {word("number.two", "ptr", 5, "%make")}
  {get("two.references", "i32", "%number.two", at.references)}
  %number.two.alone = icmp eq i32 %two.references, 1
  br i1 %number.two.alone, label %number.take, label %number.make
number.take:
  %number.spare = phi ptr [ %number.one, %build.scalar ], [ %number.two, %number.other ]
  call void @Py_IncRef(ptr %number.spare)
  br label %number.fill
number.make:
  {word("number.type", "ptr", 2, "%make")}
  {word("number.allocate", "ptr", 3, "%make")}
  %number.fresh = call ptr %number.allocate(ptr %number.type, i64 0)
  %number.none = icmp eq ptr %number.fresh, null
  br i1 %number.none, label %clean, label %number.fill
number.fill:
  %number = phi ptr [ %number.fresh, %number.make ], [ %number.spare, %number.take ]
  {place("number.scratch", 1, "%make")}
  %number.bits = load i64, ptr %number.scratch
  %number.value = getelementptr i8, ptr %number, i64 {at.scalar_value}
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
  %clean.top = phi ptr [ %stack, %fresh.check ], [ %stack, %prepare.block ], [ %stack, %ran ], [ %top, %number.make ], \
[ %top, %build.tuple ], [ %top, %build.list ], [ %top, %build.dict ], [ %top, %entry.failed ]
  %clean.status = phi i64 [ 0, %fresh.check ], [ 0, %prepare.block ], [ %status, %ran ], [ 0, %number.make ], \
[ 0, %build.tuple ], [ 0, %build.list ], [ 0, %build.dict ], [ 0, %entry.failed ]
  br label %clean.leaves
clean.leaves:
  %old = phi ptr [ %prepare.first, %clean ], [ %old.next, %clean.next ]
  %old.done = icmp eq ptr %old, %prep
  br i1 %old.done, label %clean.stack, label %clean.kind
clean.kind:
  {word("old.code", "i64", 0, "%old")}
  switch i64 %old.code, label %clean.leaf [i64 {Prepare.SCALAR.value}, label %clean.next i64 {Prepare.APART.value}, label %clean.next]
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
    add_blocks(module)
    objects = ("gj_np_true", "gj_np_false", "gj_np_default_handler")
    for name in (*cpython.FUNCTIONS, *cpython.TYPES, *cpython.NUMPY, *objects):
        line = cpython.declaration(name)
        (module.declare if line.startswith("declare") else module.add_global)(name, line)
    add_message(module, "gj_text_on_error", _ON_ERROR)
    module.ensure("gj_static_equal", lambda _: static_equal(at))
    module.ensure("gj_apart", lambda _: APART)
    module.ensure("gj_spare", lambda _: _spare(at))
    module.ensure("gj_policy_restore", lambda _: _POLICY_RESTORE)
    body = "\n".join((call_shape(at), walk(at), _execute(at), _build(at)))
    module.ensure(
        "gj_run",
        lambda _: (
            f"define ptr @gj_run(ptr %record, ptr %args, i64 %nargs, ptr %kwnames) nounwind {{\n{body}\n}}"
        ),
    )


def add_message(module: Module, name: str, message: str) -> None:
    """Define ``@name``, a C string."""
    module.add_global(name, f"@{name} = private constant {c_string(message)}")
