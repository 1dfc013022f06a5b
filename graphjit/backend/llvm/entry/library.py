"""The text of the entry's native library: the type of compiled functions, and all that a call passes through.

`callable.py` compiles it once in a process, or finds its object code on disk.
"""

from __future__ import annotations

from graphjit.backend.llvm.entry import cpython, large_results, layout, numpy_hooks
from graphjit.backend.llvm.entry.delivery import add_message, add_run
from graphjit.backend.llvm.entry.layout import MISMATCH, OBJECT_FIELDS
from graphjit.backend.llvm.writing.native import Source

_OWNED = ("dict", "fallback", "chain")


def _add_vectorcall(source: Source) -> None:
    """What a call of the object does: try each specialisation, then call the fallback."""
    parameters = {"self": "function", "args": "object[]", "nargsf": "i64", "kwnames": "object"}
    with source.function("gj_vectorcall", "object", **parameters) as (w, self, args, nargsf, kwnames):
        slow = w.label("slow")
        nargs = nargsf & (2**63 - 1)  # the highest bit says that the callee may use args[-1]
        chain = self["chain"]
        w.goto_if((w.symbol("gj_tracing", "i64[]")[0] != 0) | chain.is_null(), slow)
        addresses = chain["tuple_items"].address("bytes_data").to("record[]")
        cursor = w.variable("cursor", "record[]", addresses)
        with w.forever():
            record = cursor[0]
            w.goto_if(record.is_null(), slow)
            result = w.call("gj_run", record, args, nargs, kwnames)
            with w.if_(result != w.constant(MISMATCH, "object")):
                w.ret(result)
            cursor.set(cursor.address(1))

        w.place(slow)
        fallback = self["fallback"]
        with w.if_(fallback.is_null()):
            w.call("PyErr_SetString", w.symbol("gj_TypeError"), w.symbol("gj_text_dead"))
            w.ret(None)
        w.call("Py_IncRef", fallback)
        answer = w.call("PyObject_Vectorcall", fallback, args, nargsf, kwnames)
        w.call("Py_DecRef", fallback)
        w.ret(answer)


def _add_new(source: Source) -> None:
    """``NativeFunction(fallback)``."""
    parameters = {"type": "object", "args": "object", "keywords": "object"}
    with source.function("gj_new", "object", **parameters) as (w, type, args, keywords):
        wrong = w.label("wrong")
        w.goto_if(args["size"] != 1, wrong)
        with w.if_(~keywords.is_null()):
            w.goto_if(w.call("PyDict_Size", keywords) != 0, wrong)
        self = w.call("PyType_GenericAlloc", type, 0).to("function")
        with w.if_(~self.is_null()):
            fallback = args["tuple_items"]
            w.call("Py_IncRef", fallback)
            self["fallback"] = fallback
            self["vectorcall"] = w.symbol("gj_vectorcall")
        w.ret(self)

        w.place(wrong)
        w.call("PyErr_SetString", w.symbol("gj_TypeError"), w.symbol("gj_text_new"))
        w.ret(None)


def _add_lifetime(source: Source) -> None:
    """What the garbage collector calls: to visit what an instance owns, to let go of it, to free the
    instance.
    """
    with source.function("gj_traverse", "i32", self="function", visit="ptr", data="ptr") as (
        w,
        self,
        visit,
        data,
    ):
        signature = "i32 (object, ptr)"
        for name in _OWNED:
            owned = self[name]
            with w.if_(~owned.is_null()):
                stop = w.call_at(visit, signature, owned, data)
                with w.if_(stop != 0):
                    w.ret(stop)
        w.ret(w.call_at(visit, signature, self["type"], data))

    with source.function("gj_clear", "i32", self="function") as (w, self):
        for name in _OWNED:  # emptied before it is released: releasing may run code that sees `self`
            owned = self[name]
            self[name] = None
            w.call("Py_DecRef", owned)
        w.ret(0)

    with source.function("gj_dealloc", self="function") as (w, self):
        type = self["type"]
        with w.if_(w.call("PyObject_CallFinalizerFromDealloc", self) != 0):
            w.ret()  # it lives again
        w.call("PyObject_GC_UnTrack", self)
        with w.if_(~self["weakrefs"].is_null()):
            w.call("PyObject_ClearWeakRefs", self)
        w.call("gj_clear", self)
        w.call("PyObject_GC_Del", self)
        w.call("Py_DecRef", type)


def _add_descr_get(source: Source) -> None:
    """Looked up in an instance, the object becomes a method."""
    parameters = {"self": "object", "instance": "object", "owner": "object"}
    with source.function("gj_descr_get", "object", **parameters) as (w, self, instance, _):
        with w.if_(instance.is_null() | (instance == w.symbol("gj_py_none"))):
            w.call("Py_IncRef", self)
            w.ret(self)
        w.ret(w.call("PyMethod_New", self, instance))


def _add_access(source: Source) -> None:
    """Reading two fields, and swapping the chain if it is still the one expected."""
    for name in ("chain", "fallback"):
        with source.function(f"gj_{name}", "object", self="function") as (w, self):
            value = self[name]
            shown = w.choose(value.is_null(), w.symbol("gj_py_none", "object"), value)
            w.call("Py_IncRef", shown)
            w.ret(shown)

    parameters = {"self": "function", "expected": "object", "new": "object"}
    with source.function("gj_swap_chain", "i32", **parameters) as (w, self, expected, new):
        old, none = self["chain"], w.symbol("gj_py_none")
        nothing = w.constant(None, "object")
        with w.if_(old != w.choose(expected == none, nothing, expected)):
            w.ret(0)
        chain = w.choose(new == none, nothing, new)
        w.call("Py_IncRef", chain)
        self["chain"] = chain
        w.call("Py_DecRef", old)
        w.ret(1)


def library_text() -> str:
    """LLVM assembly of the once-per-process library: the code of calls and the type's slots."""
    structs = {
        **layout.STRUCTS,
        **large_results.STRUCTS,
        "object": cpython.object_fields(),
        "function": {"type": cpython.object_fields()["type"], **OBJECT_FIELDS},
    }
    externals = {**cpython.externals(), **large_results.EXTERNALS}
    source = Source("graphjit entry points", externals, structs)
    large_results.add_blocks(source)
    add_run(source)
    add_message(source, "gj_text_dead", "this compiled function was destroyed by the garbage collector")
    add_message(source, "gj_text_new", "NativeFunction takes one argument, the Python fallback")
    source.add_global("gj_tracing", "global i64 0")
    numpy_hooks.add(source)
    _add_vectorcall(source)
    _add_new(source)
    _add_lifetime(source)
    _add_descr_get(source)
    _add_access(source)
    return source.render()
