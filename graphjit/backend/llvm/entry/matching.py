"""Native code that checks a call's arguments against one signature.

This is the first half of ``@gj_run`` (`delivery.py` has the second): it compares a call with a record,
operation by operation, and fills the program's input slots. A call of another signature returns `MISMATCH`,
which promises that nothing was allocated, changed or raised.

While arguments are being checked no foreign code runs (no ``__eq__``, no ``__hash__``, no garbage
collection), so references borrowed from lists and dicts stay valid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphjit.backend.llvm.entry.cpython import Layout
from graphjit.backend.llvm.entry.layout import MISMATCH, OP_BYTES, STACK_LIMIT, WORDS_AT_ONCE, Walk, operation
from graphjit.backend.llvm.writing.fields import WORD
from graphjit.backend.llvm.writing.native import Body, Label, Operand, Source, Value, Variable

_DEPTH = 64
"""Tuples in tuples that are compared."""
_EQUAL = 2  # Py_EQ


@dataclass(frozen=True, slots=True)
class Call:
    """What all parts of ``@gj_run`` share.

    What stands in the record is read where it is needed: registers are few, and the loops need them.
    """

    w: Body
    at: Layout
    record: Value
    frame: Value
    mismatch: Label
    """Where a call of another signature goes on."""
    op: Variable
    """The operation of the walk."""
    other_shape: Label
    """Where a call of another signature goes on that has no frame yet."""

    def place(self, offset: Value, type: str) -> Value:
        """A place in the frame, where something of that type stands."""
        return self.frame.offset(offset).to(f"{type}[]")

    def register(self, op: Value) -> Value:
        """The object in the register of an operation."""
        return self.place(op["register"], "object")[0]

    def on_heap(self) -> Value:
        """Whether the frame must be freed."""
        return self.record["frame_bytes"] > STACK_LIMIT

    def require(self, condition: Value) -> None:
        """Unless the condition holds, this is a call of another signature."""
        self.w.goto_unless(condition, self.mismatch)

    def is_type(self, value: Value, name: str) -> Value:
        """Whether the type of an object is exactly that."""
        return value["type"] == self.w.symbol(name)


def add_static_equal(source: Source) -> None:
    """``gj_static_equal``: same type and value, for types whose comparison is not foreign code."""
    with source.function("gj_static_equal", "i1", a="object", b="object", depth="u64") as (w, a, b, depth):
        with w.if_(a == b):
            w.ret(True)
        kind = a["type"]
        with w.if_(kind != b["type"]):
            w.ret(False)
        with w.if_(kind == w.symbol("PyUnicode_Type")):
            w.ret(w.call("PyUnicode_Compare", a, b) == 0)
        with w.if_((kind == w.symbol("PyLong_Type")) | (kind == w.symbol("PyBytes_Type"))):
            w.ret(w.call("PyObject_RichCompareBool", a, b, _EQUAL) == 1)
        with w.if_(kind == w.symbol("PyFloat_Type")):
            w.ret(a["float_value"] == b["float_value"])
        with w.if_(kind == w.symbol("PyComplex_Type")):
            real = a["float_value"] == b["float_value"]
            w.ret(real & (a["imaginary_value"] == b["imaginary_value"]))
        with w.if_((kind != w.symbol("PyTuple_Type")) | (depth >= _DEPTH)):
            w.ret(False)
        size = a["size"]
        with w.if_(size != b["size"]):
            w.ret(False)
        with w.loop(0, size) as i:
            items = a.address("tuple_items")[i], b.address("tuple_items")[i]
            with w.if_(~w.call("gj_static_equal", *items, depth + 1)):
                w.ret(False)
        w.ret(True)


def begin_call(w: Body, at: Layout, record: Value, args: Value, nargs: Value, kwnames: Value) -> Call:
    """Compare the number of arguments and the names; make the frame; fill the first registers."""
    other_shape = w.label("other_shape")
    _check_shape(w, record, nargs, kwnames, other_shape)

    frame, size = w.variable("frame", "ptr"), record["frame_bytes"]
    with w.if_(size > STACK_LIMIT):
        frame.set(w.call("PyMem_RawMalloc", size))
        with w.if_(frame.is_null()):
            w.ret(w.call("PyErr_NoMemory"))
    with w.else_():
        frame.set(w.stack_bytes(size))

    registers = frame.now().to("object[]")
    with w.loop(0, record["positional"] + record["keywords"]) as i:
        registers[i] = args[i]
    mismatch, op = w.label("mismatch"), w.variable("op", "operation", record["walk"])
    return Call(w, at, record, frame.now(), mismatch, op, other_shape)


def _check_shape(w: Body, record: Value, nargs: Value, kwnames: Value, otherwise: Label) -> None:
    """Compare the number of positional arguments and the names of the others."""
    w.goto_unless(nargs == record["positional"], otherwise)
    names = record["names"]
    with w.if_(names != kwnames):  # a call site passes the same tuple each time
        count = record["keywords"]
        with w.if_(kwnames.is_null()):
            w.goto_unless(count == 0, otherwise)
        with w.else_():
            w.goto_unless(kwnames["size"] == count, otherwise)
            with w.loop(0, count) as i:
                pair = names.address("tuple_items")[i], kwnames.address("tuple_items")[i]
                w.goto_unless(w.call("gj_static_equal", *pair, 0), otherwise)


def check_arguments(c: Call) -> None:
    """Follow the walk: check every argument, hidden array and guard; fill the input slots."""
    w = c.w
    with w.forever():
        with w.switch(c.op["code"]) as case:
            with case(None):  # `Walk.END`: tables are made by us, so no other code exists
                w.break_()
            for code, check in _CHECKS.items():
                with case(code):
                    check(c, c.op.to(operation(code)))
        c.op.set(c.op.offset(OP_BYTES))


def end_mismatch(c: Call) -> None:
    """What a call of another signature does."""
    w = c.w
    w.place(c.mismatch)
    with w.if_(c.on_heap()):
        w.call("PyMem_RawFree", c.frame)
    w.place(c.other_shape)
    w.ret(w.constant(MISMATCH, "object"))


def _array(c: Call, op: Value) -> None:
    _take_array(c, op, c.register(op))


def _hidden(c: Call, op: Value) -> None:
    _take_array(c, op, op["array"])


def _take_array(c: Call, op: Value, array: Value) -> None:
    """An array of that type: its data go to the input slot."""
    w = c.w
    c.require(c.is_type(array, "gj_np_ndarray"))
    _check_header(c, op, array)
    descr = array["array_descr"]
    with w.if_(
        descr != op["descr"]
    ):  # another object, or the twin (`long` and `long long`), may mean the same
        number, numbers = descr["descr_number"], op["numbers"]
        known = (number == numbers.to("i32")) | (number == (numbers >> 32).to("i32"))
        c.require(known & (descr["descr_byteorder"] != c.at.swapped))
    _check_extents(c, op, array)
    c.place(op["slot"], "ptr")[0] = array["array_data"]


def _check_header(c: Call, op: Value, array: Value) -> None:
    """Contiguous, aligned, and of that many axes."""
    flags = array["array_flags"] & c.at.array_flag_mask
    c.require((flags == c.at.array_flag_mask) & (array["array_rank"] == op["rank"]))


def _check_extents(c: Call, op: Value, array: Value) -> None:
    shape, expected = array["array_shape"], op["shape"]
    with c.w.loop(0, op["rank"].to("i64")) as axis:
        c.require(shape[axis] == expected[axis])


def _value(c: Call, op: Value) -> None:
    scalar = c.register(op)
    kind = scalar["type"]
    c.require((kind == op["type"]) | (kind == op["twin"]))
    _take_scalar(c, op, scalar["scalar_value"])


def _int(c: Call, op: Value) -> None:
    number, overflow = c.register(op), c.w.local("i32")
    c.require(c.is_type(number, "PyLong_Type"))
    bits = c.w.call("PyLong_AsLongLongAndOverflow", number, overflow)
    c.require(overflow[0] == 0)
    _take_scalar(c, op, bits)


def _take_scalar(c: Call, op: Value, bits: Value) -> None:
    """Copy the bits into the frame and let the input slot point there."""
    copy = c.place(op["scalar"], "i64")
    copy[0] = bits
    c.place(op["slot"], "ptr")[0] = copy


def _static(c: Call, op: Value) -> None:
    c.require(c.w.call("gj_static_equal", op["expected"], c.register(op), 0))


def _tuple(c: Call, op: Value) -> None:
    sequence = c.register(op)
    c.require(sequence["type"] == op["type"])
    _take_items(c, op, sequence, sequence.address("tuple_items"))


def _list(c: Call, op: Value) -> None:
    sequence = c.register(op)
    c.require(c.is_type(sequence, "PyList_Type"))
    _take_items(c, op, sequence, sequence["list_items"])


def _take_items(c: Call, op: Value, sequence: Value, items: Value) -> None:
    """A sequence of that length: its items go to registers."""
    length, registers = op["length"], c.place(op["items"], "object")
    c.require(sequence["size"] == length)
    with c.w.loop(0, length) as i:
        registers[i] = items[i]


def _dict(c: Call, op: Value) -> None:
    names = c.register(op)
    c.require(c.is_type(names, "PyDict_Type"))
    keys, registers = op["keys"], c.place(op["items"], "object")

    def check(i: Operand, key: Value, value: Value) -> None:
        expected = keys[i]
        with c.w.if_(expected != key):
            c.require(c.w.call("gj_static_equal", expected, key, 0))
        registers[i] = value

    _for_entries(c, names, op["length"], check)


def _for_entries(c: Call, names: Value, count: Value, do: Callable[[Operand, Value, Value], None]) -> None:
    """A dict of that many entries: ``do(i, key, value)`` for each in their order."""
    w = c.w
    position, key, value = w.local("i64"), w.local("object"), w.local("object")
    c.require(w.call("PyDict_Size", names) == count)
    position[0] = 0
    with w.loop(0, count) as i:
        w.call("PyDict_Next", names, position, key, value)
        do(i, key[0], value[0])


def _words(c: Call, op: Value) -> None:
    w = c.w
    pair, end = w.variable("pair", "word", op["pairs"]), op["end"]
    with w.forever():
        pairs = [pair.offset(2 * WORD * i) for i in range(WORDS_AT_ONCE)]
        differences = [one["place"][0] ^ one["expected"] for one in pairs]
        any_difference = differences[0]
        for difference in differences[1:]:
            any_difference = any_difference | difference
        c.require(any_difference == 0)
        pair.set(pair.offset(2 * WORD * WORDS_AT_ONCE))
        w.break_if(pair == end)


def _global(c: Call, op: Value) -> None:
    c.require(c.w.call("PyDict_GetItemWithError", op["names"], op["name"]) == op["expected"])


def _sequence(c: Call, op: Value) -> None:
    items = op["list"]
    c.require(items["size"] == op["length"])
    _check_bytes(c, op, items["list_items"])


def _check_bytes(c: Call, op: Value, now: Value) -> None:
    c.require(c.w.call("memcmp", now, op["expected"], op["bytes"]) == 0)


def _mapping(c: Call, op: Value) -> None:
    keys, values = op["keys"], op["values"]

    def check(i: Operand, key: Value, value: Value) -> None:
        c.require((keys[i] == key) & (values[i] == value))

    _for_entries(c, op["dict"], op["length"], check)


def _version(c: Call, op: Value) -> None:
    version = op["place"][0] & op["bits"]
    with c.w.if_((version == op["expected"]) & (version != 0)):
        c.op.set(op.offset(op["skip"]).to("operation"))
        c.w.continue_()


def _renew(c: Call, op: Value) -> None:
    version = op.offset(op["back"]).to(operation(Walk.VERSION))
    version["expected"] = version["place"][0] & version["bits"]


def _context(c: Call, op: Value) -> None:
    w, found = c.w, c.w.local("object")
    found[0] = None
    w.call("PyContextVar_Get", op["variable"], op["missing"], found)
    value = found[0]
    w.call("Py_DecRef", value)
    c.require(value == op["expected"])


def _content(c: Call, op: Value) -> None:
    array = op["array"]
    _check_header(c, op, array)
    c.require(array["array_descr"] == op["descr"])
    _check_extents(c, op, array)
    _check_bytes(c, op, array["array_data"])


def _block(c: Call, op: Value) -> None:
    _check_bytes(c, op, op["place"])


_CHECKS: dict[Walk, Callable[[Call, Value], None]] = {
    Walk.ARRAY: _array,
    Walk.HIDDEN: _hidden,
    Walk.VALUE: _value,
    Walk.INT: _int,
    Walk.STATIC: _static,
    Walk.TUPLE: _tuple,
    Walk.LIST: _list,
    Walk.DICT: _dict,
    Walk.WORDS: _words,
    Walk.GLOBAL: _global,
    Walk.SEQUENCE: _sequence,
    Walk.MAPPING: _mapping,
    Walk.VERSION: _version,
    Walk.RENEW: _renew,
    Walk.CONTENT: _content,
    Walk.BLOCK: _block,
    Walk.CONTEXT: _context,
}
