"""The callable that users hold: a type whose calls go straight into native code.

`NativeFunction(fallback)` makes an instance. A call tries the installed specialisations, newest first, and
then calls the Python fallback with the same arguments. `install` and `clear` change the list of
specialisations, each by one atomic swap under the GIL.

The type is written in LLVM IR and made by ``PyType_FromSpec``, so no C compiler is needed. It is compiled on
first need, not at import. An instance binds as a method, has a ``__dict__``, can be weakly referenced and
takes part in garbage collection.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from graphjit.backend.llvm.entry import cpython, large_results, layout, numpy_hooks
from graphjit.backend.llvm.entry.cpython import TypeSlot, TypeSpec
from graphjit.backend.llvm.entry.delivery import add_message, add_run
from graphjit.backend.llvm.entry.large_results import Blocks
from graphjit.backend.llvm.entry.layout import MISMATCH
from graphjit.backend.llvm.entry.specialise import Specialisation
from graphjit.backend.llvm.objects import jit, store
from graphjit.backend.llvm.writing.native import WORD, Source

LIMIT = 8
"""Default number of specialisations that one function keeps."""

_HEAD = object.__basicsize__
_FIELDS = {
    "vectorcall": ("ptr", _HEAD),
    "dict": ("object", _HEAD + WORD),
    "weakrefs": ("object", _HEAD + 2 * WORD),
    "fallback": ("object", _HEAD + 3 * WORD),
    "chain": ("object", _HEAD + 4 * WORD),
}
_BASICSIZE = _HEAD + 5 * WORD
_OWNED = ("dict", "fallback", "chain")

# Numbers from CPython's typeslots.h, object.h and structmember.h, all of them part of the stable ABI.
_TP_CALL, _TP_CLEAR, _TP_DEALLOC, _TP_DESCR_GET, _TP_DOC = 50, 51, 52, 54, 56
_TP_NEW, _TP_TRAVERSE, _TP_MEMBERS, _TP_GETSET = 65, 71, 72, 73
_HAVE_VECTORCALL, _HAVE_GC, _METHOD_DESCRIPTOR = 1 << 11, 1 << 14, 1 << 17
_T_PYSSIZET, _READONLY = 19, 1

_NAME = b"graphjit.backend.llvm.entry.callable.NativeFunction"
_DOC = b"A compiled function: calls its native specialisations, else its Python fallback."


class _Member(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


class _GetSet(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("get", ctypes.c_void_p),
        ("set", ctypes.c_void_p),
        ("doc", ctypes.c_char_p),
        ("closure", ctypes.c_void_p),
    ]


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
        "function": {"type": cpython.object_fields()["type"], **_FIELDS},
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


class _Library:
    """The compiled library, the type, and the functions that read and swap an instance's fields."""

    def __init__(self) -> None:
        # The lowest level takes 17 ms instead of 60, and then 15 ns more in each call: right where every
        # process compiles anew.
        self._module = jit.NativeModule(library_text(), opt=0 if store.folder() is None else 1, library=True)
        self.address = address = self._module.address
        prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)
        self.chain = prototype(address("gj_chain"))
        self.fallback = prototype(address("gj_fallback"))
        self.swap = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.py_object, ctypes.py_object)(
            address("gj_swap_chain")
        )
        self.blocks = Blocks(address, address)
        self.tracing = ctypes.c_int64.from_address(address("gj_tracing"))
        self.type = self._make_type()
        # Instances may die after this module's globals at interpreter exit: their code must outlive them.
        ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))(self)

    def _make_type(self) -> type:
        def function(name: str) -> int:
            return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0

        address = self._module.address
        places = {
            b"__vectorcalloffset__": _FIELDS["vectorcall"][1],
            b"__dictoffset__": _FIELDS["dict"][1],
            b"__weaklistoffset__": _FIELDS["weakrefs"][1],
        }
        members = (_Member * (len(places) + 1))(
            *(_Member(name, _T_PYSSIZET, offset, _READONLY, None) for name, offset in places.items())
        )
        dictionary = _GetSet(
            b"__dict__", function("PyObject_GenericGetDict"), function("PyObject_GenericSetDict"), None, None
        )
        getset = (_GetSet * 2)(dictionary)
        doc = ctypes.c_char_p(_DOC)
        pointers = {
            _TP_CALL: function("PyVectorcall_Call"),
            _TP_CLEAR: address("gj_clear"),
            _TP_DEALLOC: address("gj_dealloc"),
            _TP_DESCR_GET: address("gj_descr_get"),
            _TP_DOC: ctypes.cast(doc, ctypes.c_void_p).value,
            _TP_NEW: address("gj_new"),
            _TP_TRAVERSE: address("gj_traverse"),
            _TP_MEMBERS: ctypes.addressof(members),
            _TP_GETSET: ctypes.addressof(getset),
        }
        slots = (TypeSlot * (len(pointers) + 1))(
            *(TypeSlot(slot, pointer) for slot, pointer in pointers.items())
        )
        flags = _HAVE_VECTORCALL | _HAVE_GC | _METHOD_DESCRIPTOR
        spec = TypeSpec(_NAME, _BASICSIZE, 0, flags, slots)
        self._kept = (members, getset, doc, slots, spec)
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(TypeSpec))(
            ("PyType_FromSpec", ctypes.pythonapi)
        )
        return make(ctypes.byref(spec))


_lock = threading.Lock()


@cache
def _make_library() -> _Library:
    return _Library()


def _library() -> _Library:
    with _lock:
        return _make_library()


def blocks() -> Blocks:
    """Free memory that is kept for large results."""
    return _library().blocks


@contextmanager
def calls_fall_back() -> Iterator[None]:
    """While some thread traces, every call goes to the fallback, which knows whether it is part of a trace.

    A call made by a traced function must be recorded, not run: its result would be compiled in as a constant.
    """
    counter = _library().tracing
    with _lock:
        counter.value += 1
    try:
        yield
    finally:
        with _lock:
            counter.value -= 1


def library_address(name: str) -> int:
    """Address of a function or global of the library."""
    return _library().address(name)


def native_type() -> type:
    """The heap type ``NativeFunction``; attributes and methods may be set on it like on any class."""
    return _library().type


def NativeFunction(fallback: Callable[..., Any]) -> Any:
    """A callable without specialisations: every call goes to ``fallback(*args, **kwargs)``."""
    return _library().type(fallback)


def fallback(fn: Any) -> Callable[..., Any]:
    """The Python function that ``fn`` calls when no specialisation matches."""
    return _library().fallback(_checked(fn))


def specialisations(fn: Any) -> tuple[Specialisation, ...]:
    """Installed specialisations, in the order in which a call tries them."""
    chain = _library().chain(_checked(fn))
    return () if chain is None else chain[1:]


def install(fn: Any, specialisation: Specialisation, limit: int = LIMIT) -> tuple[Specialisation, ...]:
    """Try ``specialisation`` first from now on; keep at most ``limit``; return those that were dropped."""
    library = _library()
    _checked(fn)
    while True:
        chain = library.chain(fn)
        old = () if chain is None else chain[1:]
        new = (specialisation, *old[: limit - 1])
        addresses = struct.pack(f"{len(new) + 1}q", *(one.address for one in new), 0)
        if library.swap(fn, chain, (addresses, *new)):
            return old[limit - 1 :]


def clear(fn: Any) -> None:
    """Drop every specialisation; calls that are running finish undisturbed."""
    library = _library()
    _checked(fn)
    while not library.swap(fn, library.chain(fn), None):
        pass


def _checked(fn: Any) -> Any:
    if type(fn) is not _library().type:
        raise TypeError(f"expected a NativeFunction, got {type(fn).__name__}")
    return fn
