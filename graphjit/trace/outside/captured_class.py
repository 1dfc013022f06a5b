"""`Captured`, the class that captured arrays have while a function is traced, and how they get it.

A captured array is an ndarray that the traced function reaches without getting it as an argument, such as a
global ``W``. In ``W * x`` the multiplication must be recorded, and ``W[0]`` must not be compiled in as a
number. So for the time of a trace the array is *lent* (`lent`): its class is changed in place to `Captured`,
whose methods record (`captured_methods`), and is put back afterwards. The object, its memory and its identity
stay what they are.

What makes that safe: `Captured` has NumPy's own layout and no fields. A lent array is referenced until it is
given back, so that none dies with this class. Nothing else ever has the class: what NumPy makes from a
`Captured` (a view, a copy) becomes a plain array at once. Where the layout is not what we expect, nothing is
lent (`POSSIBLE`), and contents are compared at each call instead.
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
from graphjit.trace.outside.memory_guards import CLASS_OFFSET

_FLAGS: Any = type.__dict__["__flags__"]
_HAVE_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC
_BASETYPE = 1 << 10  # Py_TPFLAGS_BASETYPE


def _set_class(value: Any, kind: type) -> None:
    # No count of references of the class changes: all of these classes live as long as the process.
    ctypes.c_void_p.from_address(id(value) + CLASS_OFFSET).value = id(kind)


class _Meta(type):
    """``type(array) == np.ndarray`` stays true."""

    __slots__ = ()

    def __eq__(cls, other: object) -> bool:
        return other is np.ndarray or other is cls

    def __hash__(cls) -> int:
        return hash(np.ndarray)


_spec = TypeSpec(b"numpy.ndarray", np.ndarray.__basicsize__, 0, _BASETYPE, (TypeSlot * 1)())
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

_ARRAY_CLASSES = frozenset({id(np.ndarray), id(Captured)})

_lock = threading.RLock()
_lent: dict[int, tuple[np.ndarray, list[int]]] = {}
"""By the id of a lent array: the array, and the threads that trace with it (one entry for each trace)."""


def is_array(value: Any) -> bool:
    """Whether a value is exactly an ndarray, lent or not."""
    return id(type(value)) in _ARRAY_CLASSES


def is_captured(value: Any) -> bool:
    """Whether a value is an array from outside whose use is recorded."""
    return type(value) is Captured


def plain(array: np.ndarray) -> np.ndarray:
    """The same memory as a plain ndarray, which nothing is recorded of."""
    return np.ndarray.view(array, np.ndarray)


def _possible() -> bool:
    """Whether an array can change its class: the same size, no garbage collection, and a trial."""
    kinds: tuple[Any, ...] = (np.ndarray, Captured)
    if len({(kind.__basicsize__, kind.__weakrefoffset__) for kind in kinds}) > 1:
        return False
    if any(_FLAGS.__get__(kind) & _HAVE_GC or kind.__dictoffset__ for kind in kinds):
        return False
    trial = np.arange(3.0)
    if ctypes.c_void_p.from_address(id(trial) + CLASS_OFFSET).value != id(np.ndarray):
        return False
    _set_class(trial, Captured)
    changed = type(trial) is Captured
    _set_class(trial, np.ndarray)
    return changed and type(trial) is np.ndarray


POSSIBLE = _possible()


@contextmanager
def lent(arrays: Iterable[np.ndarray], more: bool = True) -> Iterator[Callable[[np.ndarray], None]]:
    """Around a trace: ``arrays``, which the function reaches, have the class `Captured`.

    Yields a function that lends one more array, which the trace has met only later; without ``more`` that
    function leaves it as it is.
    """
    lent_here: list[np.ndarray] = []
    thread = threading.get_ident()

    def lend(array: np.ndarray) -> None:
        if POSSIBLE and type(array) is np.ndarray:
            lend_all((array,))

    def lend_all(arrays: Iterable[np.ndarray]) -> None:
        with _lock:
            for array in arrays:
                lent_here.append(array)
                _lent.setdefault(id(array), (array, []))[1].append(thread)
                _set_class(array, Captured)

    lend_all(arrays if POSSIBLE else ())
    try:
        yield lend if more else _leave
    finally:
        with _lock:
            for array in lent_here:
                threads = _lent[id(array)][1]
                threads.remove(thread)
                if not threads:
                    _give_back(array)


def _leave(array: np.ndarray) -> None:
    """Not lent."""


def _give_back(array: np.ndarray) -> None:
    """The array is a plain one again."""
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
