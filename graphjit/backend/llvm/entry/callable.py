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

from graphjit.backend.llvm.entry.cpython import TypeSlot, TypeSpec
from graphjit.backend.llvm.entry.large_results import Blocks
from graphjit.backend.llvm.entry.layout import OBJECT_FIELDS, OBJECT_SIZE
from graphjit.backend.llvm.entry.specialise import Specialisation
from graphjit.backend.llvm.objects import jit, store

LIMIT = 8
"""Default number of specialisations that one function keeps."""

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


class _Library:
    """The compiled library, the type, and the functions that read and swap an instance's fields."""

    def __init__(self) -> None:
        # The lowest level takes 17 ms instead of 60, and then 15 ns more in each call: right where every
        # process compiles anew.
        from graphjit.backend.llvm.entry.library import library_text  # not needed to import graphjit

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
            b"__vectorcalloffset__": OBJECT_FIELDS["vectorcall"][1],
            b"__dictoffset__": OBJECT_FIELDS["dict"][1],
            b"__weaklistoffset__": OBJECT_FIELDS["weakrefs"][1],
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
        spec = TypeSpec(_NAME, OBJECT_SIZE, 0, flags, slots)
        self._kept = (members, getset, doc, slots, spec)
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(TypeSpec))(
            ("PyType_FromSpec", ctypes.pythonapi)
        )
        return make(ctypes.byref(spec))


_lock = threading.RLock()  # signal handlers and finalizers may call while their own thread holds it


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
