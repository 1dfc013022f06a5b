"""The public callable: a type whose calls go straight into native code.

Job: make the heap type `NativeFunction` and manage the specialisations of its instances.
Input: a Python fallback, later `Specialisation`s.  Output: objects that behave like functions.
Invariant: a call tries the installed specialisations, newest first, and then calls the fallback with the
same arguments; each change of the list of specialisations is one atomic swap under the GIL.

The type is written in LLVM IR and made by ``PyType_FromSpec``, so that no C compiler is needed; it is
compiled when `native_type` is first called, not at import. An instance binds as a method, has a
``__dict__``, can be weakly referenced and takes part in garbage collection.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from graphjit.backend.llvm.entry import cpython, numpy_hooks
from graphjit.backend.llvm.entry.cpython import WORD, Layout, TypeSlot, TypeSpec
from graphjit.backend.llvm.entry.delivery import add_message, add_run
from graphjit.backend.llvm.entry.large_results import Blocks
from graphjit.backend.llvm.entry.layout import MISMATCH, get
from graphjit.backend.llvm.entry.specialise import Specialisation
from graphjit.backend.llvm.objects import jit, store
from graphjit.backend.llvm.writing.text import Module

LIMIT = 8
"""Default number of specialisations that one function keeps."""

_HEAD = object.__basicsize__
_VECTORCALL, _DICT, _WEAKREFS, _FALLBACK, _CHAIN = (_HEAD + WORD * i for i in range(5))
_BASICSIZE = _HEAD + WORD * 5

# Numbers from CPython's typeslots.h, object.h and structmember.h, all of them part of the stable ABI.
_TP_CALL, _TP_CLEAR, _TP_DEALLOC, _TP_DESCR_GET, _TP_DOC = 50, 51, 52, 54, 56
_TP_NEW, _TP_TRAVERSE, _TP_MEMBERS, _TP_GETSET = 65, 71, 72, 73
_HAVE_VECTORCALL, _HAVE_GC, _METHOD_DESCRIPTOR = 1 << 11, 1 << 14, 1 << 17
_T_PYSSIZET, _READONLY = 19, 1

_NAME = b"graphjit.backend.llvm.entry.callable.NativeFunction"
_DOC = b"A compiled function: calls its native specialisations, else its Python fallback."
_OWNED = (("dict", _DICT), ("fallback", _FALLBACK), ("chain", _CHAIN))


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


def _vectorcall(at: Layout) -> str:
    return f"""define ptr @gj_vectorcall(ptr %self, ptr %args, i64 %nargsf, ptr %kwnames) nounwind {{
entry:
  %nargs = and i64 %nargsf, {2**63 - 1}
  {get("chain", "ptr", "%self", _CHAIN)}
  %traces = load i64, ptr @gj_tracing
  %tracing = icmp ne i64 %traces, 0
  %empty = icmp eq ptr %chain, null
  %slow = or i1 %tracing, %empty
  br i1 %slow, label %python, label %begin
begin:
  {get("records", "ptr", "%chain", at.tuple_items)}
  %first = getelementptr i8, ptr %records, i64 {at.bytes_data}
  br label %loop
loop:
  %cursor = phi ptr [ %first, %begin ], [ %cursor.next, %next ]
  %record = load ptr, ptr %cursor
  %last = icmp eq ptr %record, null
  br i1 %last, label %python, label %try
try:
  %result = call ptr @gj_run(ptr %record, ptr %args, i64 %nargs, ptr %kwnames)
  %missed = icmp eq ptr %result, inttoptr (i64 {MISMATCH} to ptr)
  br i1 %missed, label %next, label %done
next:
  %cursor.next = getelementptr i8, ptr %cursor, i64 {WORD}
  br label %loop
done:
  ret ptr %result
python:
  {get("fallback", "ptr", "%self", _FALLBACK)}
  %cleared = icmp eq ptr %fallback, null
  br i1 %cleared, label %dead, label %call
call:
  call void @Py_IncRef(ptr %fallback)
  %answer = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargsf, ptr %kwnames)
  call void @Py_DecRef(ptr %fallback)
  ret ptr %answer
dead:
  call void @PyErr_SetString(ptr @gj_TypeError, ptr @gj_text_dead)
  ret ptr null
}}"""


def _new(at: Layout) -> str:
    return f"""define ptr @gj_new(ptr %type, ptr %args, ptr %keywords) nounwind {{
entry:
  {get("count", "i64", "%args", at.size)}
  %one = icmp eq i64 %count, 1
  br i1 %one, label %named, label %wrong
named:
  %positional = icmp eq ptr %keywords, null
  br i1 %positional, label %make, label %size
size:
  %given = call i64 @PyDict_Size(ptr %keywords)
  %none = icmp eq i64 %given, 0
  br i1 %none, label %make, label %wrong
make:
  %self = call ptr @PyType_GenericAlloc(ptr %type, i64 0)
  %failed = icmp eq ptr %self, null
  br i1 %failed, label %end, label %fill
fill:
  {get("fallback", "ptr", "%args", at.tuple_items)}
  call void @Py_IncRef(ptr %fallback)
  %fallback.slot = getelementptr i8, ptr %self, i64 {_FALLBACK}
  %call.slot = getelementptr i8, ptr %self, i64 {_VECTORCALL}
  store ptr %fallback, ptr %fallback.slot
  store ptr @gj_vectorcall, ptr %call.slot
  br label %end
end:
  ret ptr %self
wrong:
  call void @PyErr_SetString(ptr @gj_TypeError, ptr @gj_text_new)
  ret ptr null
}}"""


def _traverse(at: Layout) -> str:
    blocks = [
        f"define i32 @gj_traverse(ptr %self, ptr %visit, ptr %data) nounwind {{\nentry:\n  br label %{_OWNED[0][0]}"
    ]
    following = [name for name, _ in _OWNED[1:]] + ["type"]
    for (name, offset), then in zip(_OWNED, following, strict=True):
        blocks.append(f"""{name}:
  {get(f"{name}.object", "ptr", "%self", offset)}
  %{name}.none = icmp eq ptr %{name}.object, null
  br i1 %{name}.none, label %{then}, label %{name}.visit
{name}.visit:
  %{name}.result = call i32 %visit(ptr %{name}.object, ptr %data)
  %{name}.stop = icmp ne i32 %{name}.result, 0
  br i1 %{name}.stop, label %{name}.leave, label %{then}
{name}.leave:
  ret i32 %{name}.result""")
    blocks.append(f"""type:
  {get("type.object", "ptr", "%self", at.type)}
  %type.result = call i32 %visit(ptr %type.object, ptr %data)
  ret i32 %type.result
}}""")
    return "\n".join(blocks)


def _clear() -> str:
    # Every field is emptied before its object is released: releasing may run code that sees `self`.
    steps = "\n".join(
        f"""  {get(name, "ptr", "%self", offset)}
  store ptr null, ptr %{name}.at
  call void @Py_DecRef(ptr %{name})"""
        for name, offset in _OWNED
    )
    return f"define i32 @gj_clear(ptr %self) nounwind {{\nentry:\n{steps}\n  ret i32 0\n}}"


def _dealloc(at: Layout) -> str:
    return f"""define void @gj_dealloc(ptr %self) nounwind {{
entry:
  {get("type", "ptr", "%self", at.type)}
  %alive = call i32 @PyObject_CallFinalizerFromDealloc(ptr %self)
  %revived = icmp ne i32 %alive, 0
  br i1 %revived, label %leave, label %untrack
untrack:
  call void @PyObject_GC_UnTrack(ptr %self)
  {get("weak", "ptr", "%self", _WEAKREFS)}
  %unseen = icmp eq ptr %weak, null
  br i1 %unseen, label %free, label %forget
forget:
  call void @PyObject_ClearWeakRefs(ptr %self)
  br label %free
free:
  call i32 @gj_clear(ptr %self)
  call void @PyObject_GC_Del(ptr %self)
  call void @Py_DecRef(ptr %type)
  br label %leave
leave:
  ret void
}}"""


def _descr_get() -> str:
    return """define ptr @gj_descr_get(ptr %self, ptr %instance, ptr %owner) nounwind {
entry:
  %absent = icmp eq ptr %instance, null
  %none = icmp eq ptr %instance, @gj_py_none
  %unbound = or i1 %absent, %none
  br i1 %unbound, label %plain, label %bound
plain:
  call void @Py_IncRef(ptr %self)
  ret ptr %self
bound:
  %method = call ptr @PyMethod_New(ptr %self, ptr %instance)
  ret ptr %method
}"""


def _read(name: str, offset: int) -> str:
    return f"""define ptr @gj_{name}(ptr %self) nounwind {{
entry:
  {get("value", "ptr", "%self", offset)}
  %empty = icmp eq ptr %value, null
  %shown = select i1 %empty, ptr @gj_py_none, ptr %value
  call void @Py_IncRef(ptr %shown)
  ret ptr %shown
}}"""


def _swap_chain() -> str:
    return f"""define i32 @gj_swap_chain(ptr %self, ptr %expected, ptr %new) nounwind {{
entry:
  {get("old", "ptr", "%self", _CHAIN)}
  %expect.none = icmp eq ptr %expected, @gj_py_none
  %new.none = icmp eq ptr %new, @gj_py_none
  %before = select i1 %expect.none, ptr null, ptr %expected
  %after = select i1 %new.none, ptr null, ptr %new
  %unchanged = icmp eq ptr %old, %before
  br i1 %unchanged, label %swap, label %lost
swap:
  call void @Py_IncRef(ptr %after)
  store ptr %after, ptr %old.at
  call void @Py_DecRef(ptr %old)
  ret i32 1
lost:
  ret i32 0
}}"""


def library_text() -> str:
    """LLVM assembly of the once-per-process library: the walk and the type's slots."""
    at = cpython.layout()
    module = Module("graphjit entry points")
    add_run(module)
    module.add_global("gj_py_none", cpython.declaration("gj_py_none"))
    add_message(module, "gj_text_dead", "this compiled function was destroyed by the garbage collector")
    add_message(module, "gj_text_new", "NativeFunction takes one argument, the Python fallback")
    module.add_global("gj_tracing", "@gj_tracing = global i64 0")
    numpy_hooks.add(module)
    functions = {
        "gj_vectorcall": _vectorcall(at),
        "gj_new": _new(at),
        "gj_traverse": _traverse(at),
        "gj_clear": _clear(),
        "gj_dealloc": _dealloc(at),
        "gj_descr_get": _descr_get(),
        "gj_chain": _read("chain", _CHAIN),
        "gj_fallback": _read("fallback", _FALLBACK),
        "gj_swap_chain": _swap_chain(),
    }
    for name, text in functions.items():
        module.ensure(name, lambda _, text=text: text)  # type: ignore[misc]
    return module.render()


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
            b"__vectorcalloffset__": _VECTORCALL,
            b"__dictoffset__": _DICT,
            b"__weaklistoffset__": _WEAKREFS,
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
