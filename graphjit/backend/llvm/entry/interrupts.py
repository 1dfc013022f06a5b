"""Signals while a long program runs.

Between the steps of a program that takes long, ``gj_poll(next) -> i64`` lets Python's signal handlers run,
and returns 1 if one raised: the program ends then. `taken` gives the exception that the entry raises for the
status `INTERRUPTED`. ``next`` points to the time of the next look.

The interpreter is asked every `EVERY_NS` at most. Handlers run in the main thread only, as always, and a
program goes on if they return.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphjit.backend.llvm.objects import jit

if TYPE_CHECKING:  # writes code, which importing graphjit does not need
    from graphjit.backend.llvm.writing.native import Body

SYMBOL = "gj_poll"
INTERRUPTED = -2
"""Status of a run that a signal handler ended."""
LONG_NS = 50_000_000
"""Estimated time of a run on one core from which it looks for signals: shorter ones end soon anyway."""
STEP_NS = 1_000_000
"""Estimated time of the steps between two looks at the clock."""
EVERY_NS = 50_000_000
"""Time between two looks for signals, each of which waits for the interpreter's lock."""

_EXTERNALS = {
    "PyErr_CheckSignals": "i32 ()",
    "PyErr_Fetch": "void (object[], object[], object[])",
    "PyErr_NormalizeException": "void (object[], object[], object[])",
    "PyException_SetTraceback": "i32 (object, object)",
    "PyGILState_Ensure": "i32 ()",
    "PyGILState_Release": "void (i32)",
    "Py_DecRef": "void (object)",
}


def source() -> str:
    """LLVM assembly of the library function and of that which hands out the exception."""
    from graphjit.backend.llvm.writing import clock
    from graphjit.backend.llvm.writing.native import Source

    text = Source("interrupts", {**clock.EXTERNALS, **_EXTERNALS}, {**clock.STRUCTS, "object": {}})
    text.add_global("raised", "internal global ptr null")
    with text.function(SYMBOL, "i64", next="i64[]") as (w, next):
        now, due = clock.nanoseconds(w), next[0]
        with w.if_(now < due):
            w.ret(0)
        next[0] = now + EVERY_NS
        with w.if_(due == 0):  # the first look only notes the time
            w.ret(0)
        ended, lock = w.variable("ended", "i64", 0), w.call("PyGILState_Ensure")
        with w.if_(w.call("PyErr_CheckSignals") != 0):
            _keep_exception(w)
            ended.set(1)
        w.call("PyGILState_Release", lock)
        w.ret(ended)
    with text.function("gj_raised", "object") as (w,):
        raised = w.symbol("raised", "object[]")
        exception = raised[0]
        raised[0] = None
        w.ret(exception)
    return text.render()


def _keep_exception(w: Body) -> None:
    """Take the exception that is set, with its traceback, instead of the one kept before."""
    kind, value, frames = (w.local("object") for _ in range(3))
    w.call("PyErr_Fetch", kind, value, frames)
    w.call("PyErr_NormalizeException", kind, value, frames)
    w.call("Py_DecRef", kind[0])
    traceback = frames[0]
    with w.if_(~traceback.is_null()):
        w.call("PyException_SetTraceback", value[0], traceback)
        w.call("Py_DecRef", traceback)
    raised = w.symbol("raised", "object[]")
    before = raised[0]
    raised[0] = value[0]
    w.call("Py_DecRef", before)


_lock = threading.RLock()
_taken: Callable[[], Any] | None = None


def ensure() -> None:
    """Make ``gj_poll`` known to modules compiled later."""
    global _taken
    with _lock:
        if _taken is None:
            module = jit.NativeModule(source(), opt=0, library=True)
            ctypes.pythonapi.Py_IncRef(
                ctypes.py_object(module)
            )  # code that calls it may outlive this module's globals
            jit.add_symbol(SYMBOL, module.address(SYMBOL))
            _taken = ctypes.PYFUNCTYPE(ctypes.py_object)(module.address("gj_raised"))


def taken() -> BaseException:
    """What the handler raised that ended the program whose status was `INTERRUPTED`."""
    try:
        exception = _taken() if _taken is not None else None
    except ValueError:  # another such program ended in between and has it
        exception = None
    return exception if isinstance(exception, BaseException) else KeyboardInterrupt()
