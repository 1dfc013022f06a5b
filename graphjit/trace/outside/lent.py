"""Arrays from outside that answer for themselves while a function is traced.

Job: for the time of a trace, give each captured ndarray another class, `Captured`, so that Python code which
computes on it can be recorded (`captured.py` fills in the methods). The object, its memory, its identity stay
what they are.
Input: `lent(arrays)` around a trace.  Output: nothing.
Invariants: `Captured` has NumPy's own layout and no fields, so that the class of an object can be changed in
place; an array that is lent is referenced until it is given back, so that none dies with this class; nothing
else ever has it: an array that NumPy makes as a `Captured` (a view, a copy) becomes a plain one at once.
Where the layout is not what we expect, nothing is lent and contents are compared instead.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.backend.llvm.entry.cpython import TypeSlot, TypeSpec

_TYPE = object.__basicsize__ - ctypes.sizeof(ctypes.c_void_p)
_FLAGS: Any = type.__dict__["__flags__"]
_HAVE_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC


def _set_class(value: Any, kind: type) -> None:
    # No count of references of the class changes: all of these classes live as long as the process.
    ctypes.c_void_p.from_address(id(value) + _TYPE).value = id(kind)


class _Meta(type):
    """``type(array) == np.ndarray`` stays true."""

    __slots__ = ()

    def __eq__(cls, other: object) -> bool:
        return other is np.ndarray or other is cls

    def __hash__(cls) -> int:
        return hash(np.ndarray)


_spec = TypeSpec(
    b"numpy.ndarray", np.ndarray.__basicsize__, 0, 1 << 10, (TypeSlot * 1)()
)  # 1 << 10: Py_TPFLAGS_BASETYPE
_make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(TypeSpec), ctypes.py_object)(
    ("PyType_FromSpecWithBases", ctypes.pythonapi)
)

Captured: Any = _make(ctypes.byref(_spec), (np.ndarray,))
"""The class of an ndarray from outside for the time of a trace.

A ``class`` statement would make a type whose instances take part in garbage collection, and so have fields
that an ndarray has not.
"""


def _finalize(self: Any, obj: Any) -> None:
    """Whatever NumPy makes from one is a plain array."""
    if id(self) not in _lent:
        _set_class(self, np.ndarray)


# Before it is used for the first time: an assignment would mean the class of the class itself.
gc.get_referents(vars(Captured))[0]["__class__"] = property(lambda self: np.ndarray)
if _Meta.__basicsize__ == type.__basicsize__:
    # Garbage collection follows an object to its class and must find that reference counted.
    ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))(_Meta)
    _set_class(Captured, _Meta)
Captured.__array_finalize__ = _finalize
Captured.__repr__ = lambda self: repr(plain(self))
Captured.__str__ = lambda self: str(plain(self))

ARRAYS = frozenset({id(np.ndarray), id(Captured)})

_lock = threading.RLock()
_lent: dict[
    int, tuple[np.ndarray, list[int]]
] = {}  # id -> the array and the threads that trace with it, one entry a trace


def is_array(value: Any) -> bool:
    """Whether a value is exactly an ndarray, lent or not."""
    return id(type(value)) in ARRAYS


def is_captured(value: Any) -> bool:
    """Whether a value is an array from outside whose use is recorded."""
    return type(value) is Captured


def plain(array: np.ndarray) -> np.ndarray:
    """The same memory as an ndarray without a mind of its own."""
    return np.ndarray.view(array, np.ndarray)


def _possible() -> bool:
    """Whether an array can change its class: the same size, no garbage collection, and a trial."""
    kinds: tuple[Any, ...] = (np.ndarray, Captured)
    if len({(kind.__basicsize__, kind.__weakrefoffset__) for kind in kinds}) > 1:
        return False
    if any(_FLAGS.__get__(kind) & _HAVE_GC or kind.__dictoffset__ for kind in kinds):
        return False
    trial = np.arange(3.0)
    if ctypes.c_void_p.from_address(id(trial) + _TYPE).value != id(np.ndarray):
        return False
    _set_class(trial, Captured)
    changed = type(trial) is Captured
    _set_class(trial, np.ndarray)
    return changed and type(trial) is np.ndarray


POSSIBLE = _possible()


@contextmanager
def lent(arrays: Iterable[np.ndarray], more: bool = True) -> Iterator[Callable[[np.ndarray], None]]:
    """Around a trace: the arrays that the function reaches; yields what lends one more, that the trace has
    met (with ``more``).
    """
    taken: list[np.ndarray] = []
    thread = threading.get_ident()

    def lend(array: np.ndarray) -> None:
        if POSSIBLE and type(array) is np.ndarray:
            with _lock:
                taken.append(array)
                _lent.setdefault(id(array), (array, []))[1].append(thread)
                _set_class(array, Captured)

    with _lock:
        for array in arrays if POSSIBLE else ():
            taken.append(array)
            _lent.setdefault(id(array), (array, []))[1].append(thread)
            _set_class(array, Captured)
    try:
        yield lend if more else _keep
    finally:
        with _lock:
            for array in taken:
                threads = _lent[id(array)][1]
                threads.remove(thread)
                if not threads:
                    _give_back(array)


def _keep(array: np.ndarray) -> None:
    """Not lent."""


def _give_back(array: np.ndarray) -> None:
    _set_class(array, np.ndarray)
    del _lent[id(array)]


def _after_fork() -> None:
    """Only the forking thread lives on in the child: what other threads had lent is given back."""
    global _lock
    _lock = threading.RLock()
    here = threading.get_ident()
    for array, threads in list(_lent.values()):
        threads[:] = [thread for thread in threads if thread == here]
        if not threads:
            _give_back(array)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
