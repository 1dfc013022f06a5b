"""Native code that runs the program and builds the result.

This is the second half of ``@gj_run``, and the whole function: ``gj_run(record, args, nargs, kwnames)``, one
function for all signatures; a new signature is a new record and compiles nothing. It returns a new reference,
null with an exception set, or `MISMATCH` (from the first half, `matching.py`).

Whatever the program reads is held by someone while it runs, and so is the `Specialisation` itself while its
record is in use. A call that fails gives back everything it took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphjit.backend.llvm.entry import cpython
from graphjit.backend.llvm.entry.cpython import Layout
from graphjit.backend.llvm.entry.donation import add_apart
from graphjit.backend.llvm.entry.layout import OP_BYTES, Build, Prepare, operation
from graphjit.backend.llvm.entry.matching import (
    Call,
    add_static_equal,
    begin_call,
    check_arguments,
    end_mismatch,
)
from graphjit.backend.llvm.writing.native import Label, Source, Value, Variable
from graphjit.backend.llvm.writing.text import c_string

_ON_ERROR = "graphjit: on_error must return an exception"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the parts of the second half share, besides the call."""

    call: Call
    prepared: Variable
    """The operation on output slots: those before it have their leaves; null when all have."""
    top: Variable
    """Above the last object of the stack on which the result is built."""
    status: Variable
    """What the program returned, 0 before it runs."""
    apart: Variable
    """Whether donors may be used."""
    failed: Label
    """Where a call goes on that raises."""

    def or_fail(self, made: Value) -> Value:
        """An object that was made; null is a failure."""
        self.call.w.goto_if(made.is_null(), self.failed)
        return made


def add_run(source: Source) -> None:
    """Define ``@gj_run`` and what it calls."""
    at = cpython.layout()
    add_message(source, "gj_text_on_error", _ON_ERROR)
    add_static_equal(source)
    add_apart(source)
    _add_spare(source, at)
    _add_fresh(source)
    _add_discard(source)
    _add_raise(source)
    parameters = {"record": "record", "args": "object[]", "nargs": "i64", "kwnames": "object"}
    with source.function("gj_run", "object", **parameters) as (w, record, args, nargs, kwnames):
        call = begin_call(w, at, record, args, nargs, kwnames)
        check_arguments(call)
        _deliver(call)
        end_mismatch(call)


def add_message(source: Source, name: str, message: str) -> None:
    """Define ``@name``, a C string."""
    source.add_global(name, f"private constant {c_string(message)}")


def _add_spare(source: Source, at: Layout) -> None:
    """``gj_spare``: whether only its specialisation holds an array, and nobody changed what it is."""
    parameters = {"array": "object", "op": operation(Prepare.SPARE)}
    with source.function("gj_spare", "i1", **parameters) as (w, array, op):
        taken, rank, shape, fresh = w.label("taken"), op["rank"], op["shape"], at.array_fresh_flags
        w.goto_unless(array["references"] == 1, taken)
        w.goto_unless((array["array_flags"] & fresh) == fresh, taken)
        w.goto_unless(array["array_weakrefs"].is_null(), taken)
        w.goto_unless(array["array_descr"] == op["descr"], taken)
        w.goto_unless(array["array_rank"] == rank, taken)
        extents = array["array_shape"]
        with w.loop(0, rank.to("i64")) as axis:
            w.goto_unless(extents[axis] == shape[axis], taken)
        w.ret(True)
        w.place(taken)
        w.ret(False)


def _add_fresh(source: Source) -> None:
    """``gj_fresh``, ``gj_fresh_block``: a new array, the latter in memory that is used again."""
    parameters = {"op": operation(Prepare.ARRAY), "strides": "i64[]"}
    with source.function("gj_fresh", "object", **parameters) as (w, op, strides):
        descr, ndarray = op["descr"], w.symbol("gj_np_ndarray")
        w.call("Py_IncRef", descr)
        facts = descr, op["rank"], op["shape"], strides
        w.ret(w.call("gj_np_new_from_descr", ndarray, *facts, None, 0, None))

    with source.function("gj_policy_restore", policy="object") as (w, policy):
        w.call("Py_DecRef", w.call("gj_np_set_handler", policy))
        w.call("Py_DecRef", policy)

    with source.function("gj_fresh_block", "object", op=operation(Prepare.ARRAY)) as (w, op):
        theirs = w.call("gj_np_set_handler", w.symbol("gj_block_policy", "object[]")[0])
        with w.if_(theirs.is_null()):
            w.ret(None)
        with w.if_(theirs != w.symbol("gj_np_default_handler")):  # what the user chose stays
            w.call("gj_policy_restore", theirs)
            w.ret(w.call("gj_fresh", op, None))
        array = w.call("gj_fresh", op, None)
        w.call("gj_policy_restore", theirs)
        w.ret(array)


def _add_discard(source: Source) -> None:
    """``gj_discard``: drop the leaves of the preparation up to ``end`` (null: all) and the stack."""
    parameters = {"record": "record", "frame": "ptr", "end": "operation", "top": "object[]"}
    with source.function("gj_discard", **parameters) as (w, record, frame, end, top):
        op = w.variable("op", "operation", record["prepare"])
        with w.forever():
            code = op["code"]
            w.break_if((op == end) | (code == Prepare.END))
            with w.if_((code != Prepare.SCALAR) & (code != Prepare.APART)):
                leaf = frame.offset(op.to(operation(Prepare.ARRAY))["leaf"])
                w.call("Py_DecRef", leaf.to("object[]")[0])
            op.set(op.offset(OP_BYTES))
        item = w.variable("item", "object[]", frame.offset(record["stack"]))
        with w.forever():
            w.break_if(item == top)
            w.call("Py_DecRef", item[0])
            item.set(item.address(1))


def _add_raise(source: Source) -> None:
    """``gj_raise``: raise what ``on_error(status)`` returns."""
    with source.function("gj_raise", on_error="object", status="i64") as (w, on_error, status):
        code = w.call("PyLong_FromLongLong", status)
        with w.if_(code.is_null()):
            w.ret()
        exception = w.call("PyObject_CallOneArg", on_error, code)
        w.call("Py_DecRef", code)
        with w.if_(exception.is_null()):
            w.ret()
        kind = exception["type"]
        with w.if_(w.call("PyType_IsSubtype", kind, w.symbol("gj_BaseException")) != 0):
            w.call("PyErr_SetObject", kind, exception)
        with w.else_():
            w.call("PyErr_SetString", w.symbol("gj_TypeError"), w.symbol("gj_text_on_error"))
        w.call("Py_DecRef", exception)


def _deliver(call: Call) -> None:
    """Hold what must stay alive, make the outputs, run the program, build the result, let go."""
    w, record = call.w, call.record
    w.call("Py_IncRef", record["owner"])
    _for_held(call, "Py_IncRef")
    d = Delivery(
        call,
        prepared=w.variable("prepared", "operation", record["prepare"]),
        top=w.variable("top", "object[]", call.place(record["stack"], "object")),
        status=w.variable("status", "i64", 0),
        apart=w.variable("apart", "i1", False),
        failed=w.label("failed"),
    )
    _prepare_outputs(d)
    _run_program(d)
    _build_result(d)

    result, finish = w.variable("result", "object"), w.label("finish")
    built, wrap = call.place(record["stack"], "object")[0], record["wrap"]
    result.set(built)
    with w.if_(~wrap.is_null()):
        result.set(w.call("PyObject_CallOneArg", wrap, built))
        w.call("Py_DecRef", built)
    w.goto(finish)

    w.place(d.failed)
    w.call("gj_discard", record, call.frame, d.prepared, d.top)
    with w.if_(d.status != 0):
        w.call("gj_raise", record["on_error"], d.status)
    result.set(None)

    w.place(finish)
    _for_held(call, "Py_DecRef")
    on_heap = call.on_heap()
    w.call("Py_DecRef", record["owner"])  # from here on the record may be gone
    with w.if_(on_heap):
        w.call("PyMem_RawFree", call.frame)
    w.ret(result)


def _for_held(call: Call, do: str) -> None:
    """Call a function with each argument that another thread could drop while the program runs."""
    held = call.record["held"]
    with call.w.loop(0, call.record["held_count"]) as i:
        call.w.call(do, call.place(held[i], "object")[0])


def _prepare_outputs(d: Delivery) -> None:
    """Follow the preparation: each output slot gets memory to write to."""
    w = d.call.w
    with w.forever():
        with w.switch(d.prepared["code"]) as case:
            with case(None):  # `Prepare.END`
                w.break_()
            for code, prepare in _PREPARATIONS.items():
                with case(code):
                    prepare(d, d.prepared.to(operation(code)))
        d.prepared.set(d.prepared.offset(OP_BYTES))
    d.prepared.set(None)


def _fresh(d: Delivery, op: Value) -> Value:
    return d.or_fail(d.call.w.call("gj_fresh", op.to(operation(Prepare.ARRAY)), None))


def _fresh_block(d: Delivery, op: Value) -> Value:
    return d.or_fail(d.call.w.call("gj_fresh_block", op.to(operation(Prepare.ARRAY))))


def _keep(d: Delivery, op: Value, array: Value) -> None:
    """The array is the leaf; its data are the output slot."""
    d.call.place(op["slot"], "ptr")[0] = array["array_data"]
    d.call.place(op["leaf"], "object")[0] = array


def _prepare_array(d: Delivery, op: Value) -> None:
    _keep(d, op, _fresh(d, op))


def _prepare_block(d: Delivery, op: Value) -> None:
    _keep(d, op, _fresh_block(d, op))


def _prepare_ordered(d: Delivery, op: Value) -> None:
    array = d.call.w.call("gj_fresh", op.to(operation(Prepare.ARRAY)), op["strides"])
    _keep(d, op, d.or_fail(array))


def _prepare_scalar(d: Delivery, op: Value) -> None:
    d.call.place(op["slot"], "ptr")[0] = d.call.place(op["scalar"], "i64")


def _prepare_apart(d: Delivery, op: Value) -> None:
    d.apart.set(d.call.w.call("gj_apart", op["arrays"], op["count"], d.call.frame))


def _prepare_donor(d: Delivery, op: Value) -> None:
    w, donor, own = d.call.w, d.call.register(op), d.call.at.array_own_mask
    array = w.variable("array", "object")
    with w.if_(((donor["array_flags"] & own) == own) & d.apart):
        w.call("Py_IncRef", donor)
        array.set(donor)
    with w.else_():
        with w.if_(op["large"] != 0):
            array.set(_fresh_block(d, op))
        with w.else_():
            array.set(_fresh(d, op))
    _keep(d, op, array)


def _prepare_spare(d: Delivery, op: Value) -> None:
    w, one = d.call.w, op["one"]
    array = w.variable("array", "object")
    with w.if_(w.call("gj_spare", one, op)):
        w.call("Py_IncRef", one)
        array.set(one)
    with w.else_():
        two = op["two"]
        with w.if_(w.call("gj_spare", two, op)):
            w.call("Py_IncRef", two)
            array.set(two)
        with w.else_():
            array.set(_fresh(d, op))
    _keep(d, op, array)


_PREPARATIONS: dict[Prepare, Callable[[Delivery, Value], None]] = {
    Prepare.ARRAY: _prepare_array,
    Prepare.SCALAR: _prepare_scalar,
    Prepare.BLOCK: _prepare_block,
    Prepare.APART: _prepare_apart,
    Prepare.DONOR: _prepare_donor,
    Prepare.SPARE: _prepare_spare,
    Prepare.ORDERED: _prepare_ordered,
}


def _run_program(d: Delivery) -> None:
    w, record = d.call.w, d.call.record
    program, signature = record["program"], "i64 (ptr, ptr)"
    places = d.call.place(record["inputs"], "ptr"), d.call.place(record["outputs"], "ptr")
    with w.if_(record["release_gil"] == 0):
        d.status.set(w.call_at(program, signature, *places))
    with w.else_():
        thread = w.call("PyEval_SaveThread")
        d.status.set(w.call_at(program, signature, *places))
        w.call("PyEval_RestoreThread", thread)
    w.goto_if(d.status != 0, d.failed)


def _build_result(d: Delivery) -> None:
    """Follow the construction: each operation pushes an object, containers take theirs off the stack."""
    w = d.call.w
    make = w.variable("make", "operation", d.call.record["build"])
    with w.forever():
        with w.switch(make["code"]) as case:
            with case(None):  # `Build.END`
                w.break_()
            for code, build in _CONSTRUCTIONS.items():
                with case(code):
                    build(d, make.to(operation(code)))
        make.set(make.offset(OP_BYTES))


def _push(d: Delivery, value: Value, place: Value) -> None:
    """Put an object on the stack, whose top is ``place``."""
    place[0] = value
    d.top.set(place.address(1))


def _build_array(d: Delivery, op: Value) -> None:
    leaf = d.call.place(op["leaf"], "object")
    array = leaf[0]
    leaf[0] = None
    _push(d, array, d.top)


def _build_scalar(d: Delivery, op: Value) -> None:
    w, one = d.call.w, op["one"]
    number = w.variable("number", "object")
    with w.if_(one["references"] == 1):
        w.call("Py_IncRef", one)
        number.set(one)
    with w.else_():
        two = op["two"]
        with w.if_(two["references"] == 1):
            w.call("Py_IncRef", two)
            number.set(two)
        with w.else_():
            number.set(d.or_fail(w.call_at(op["allocate"], "object (object, i64)", op["type"], 0)))
    number["scalar_value"] = d.call.place(op["scalar"], "i64")[0]
    _push(d, number, d.top)


def _build_bool(d: Delivery, op: Value) -> None:
    w, byte = d.call.w, d.call.place(op["scalar"], "i8")[0]
    truth = w.choose(byte == 0, w.symbol("gj_np_false", "object"), w.symbol("gj_np_true"))
    w.call("Py_IncRef", truth)
    _push(d, truth, d.top)


def _build_static(d: Delivery, op: Value) -> None:
    value = op["value"]
    d.call.w.call("Py_IncRef", value)
    _push(d, value, d.top)


def _build_tuple(d: Delivery, op: Value) -> None:
    length = op["length"]
    made = d.or_fail(d.call.w.call("PyTuple_New", length))
    _fill(d, length, made, made.address("tuple_items"))


def _build_list(d: Delivery, op: Value) -> None:
    length = op["length"]
    made = d.or_fail(d.call.w.call("PyList_New", length))
    _fill(d, length, made, made["list_items"])


def _fill(d: Delivery, length: Value, made: Value, items: Value) -> None:
    """Move the items from the stack into a new container, which takes their place."""
    base = d.top.address(d.call.w.constant(0, "i64") - length)
    with d.call.w.loop(0, length) as i:
        items[i] = base[i]
    _push(d, made, base)


def _build_dict(d: Delivery, op: Value) -> None:
    w, length, keys = d.call.w, op["length"], op["keys"]
    made = d.or_fail(w.call("PyDict_Copy", op["template"]))
    base = d.top.address(w.constant(0, "i64") - length)
    with w.loop(0, length) as i:
        value = base[i]
        with w.if_(w.call("PyDict_SetItem", made, keys[i], value) != 0):
            w.call("Py_DecRef", made)
            w.goto(d.failed)
        base[i] = None
        w.call("Py_DecRef", value)
    _push(d, made, base)


_CONSTRUCTIONS: dict[Build, Callable[[Delivery, Value], None]] = {
    Build.ARRAY: _build_array,
    Build.SCALAR: _build_scalar,
    Build.BOOL: _build_bool,
    Build.STATIC: _build_static,
    Build.TUPLE: _build_tuple,
    Build.LIST: _build_list,
    Build.DICT: _build_dict,
}
