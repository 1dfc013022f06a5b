"""Signals while a long program runs.

Job: between the steps of a program that takes long, let Python's signal handlers run, and end the program if
one raises.
Input: a place for the time of the next look. Output: ``gj_poll(ptr) -> i64``, 1 if a handler raised; `taken`,
the exception.
Invariants: the interpreter is asked at most every `EVERY_NS`; handlers run in the main thread only, as
always, and a program goes on if they return; what a handler raises is kept until the entry asks for the
status `INTERRUPTED`.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from graphjit.backend.llvm.objects import jit

SYMBOL = "gj_poll"
INTERRUPTED = -2
"""Status of a run that a signal handler ended."""
LONG_NS = 50_000_000
"""Estimated time of a run on one core from which it looks for signals: shorter ones end soon anyway."""
STEP_NS = 1_000_000
"""Estimated time of the steps between two looks at the clock."""
EVERY_NS = 50_000_000
"""Time between two looks for signals, each of which waits for the interpreter's lock."""

_CLOCK = getattr(time, "CLOCK_MONOTONIC", 1)


def source() -> str:
    """LLVM assembly of the library function and of that which hands out the exception."""
    return f"""; ModuleID = 'interrupts'
@raised = internal global ptr null
declare i32 @clock_gettime(i32, ptr)
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_NormalizeException(ptr, ptr, ptr)
declare i32 @PyException_SetTraceback(ptr, ptr)
declare void @Py_DecRef(ptr)

define i64 @{SYMBOL}(ptr %next) nounwind {{
entry:
  %time = alloca [2 x i64], align 8
  %kind = alloca ptr, align 8
  %value = alloca ptr, align 8
  %trace = alloca ptr, align 8
  %ignored = call i32 @clock_gettime(i32 {_CLOCK}, ptr %time)
  %s = load i64, ptr %time
  %ns.place = getelementptr i64, ptr %time, i64 1
  %ns = load i64, ptr %ns.place
  %s.ns = mul i64 %s, 1000000000
  %now = add i64 %s.ns, %ns
  %due = load i64, ptr %next
  %early = icmp slt i64 %now, %due
  br i1 %early, label %go.on, label %mark
mark:
  %later = add i64 %now, {EVERY_NS}
  store i64 %later, ptr %next
  %first = icmp eq i64 %due, 0
  br i1 %first, label %go.on, label %look
go.on:
  ret i64 0
look:
  %lock = call i32 @PyGILState_Ensure()
  %found = call i32 @PyErr_CheckSignals()
  %none = icmp eq i32 %found, 0
  br i1 %none, label %leave, label %keep
keep:
  call void @PyErr_Fetch(ptr %kind, ptr %value, ptr %trace)
  call void @PyErr_NormalizeException(ptr %kind, ptr %value, ptr %trace)
  %exception = load ptr, ptr %value
  %kind.object = load ptr, ptr %kind
  call void @Py_DecRef(ptr %kind.object)
  %frames = load ptr, ptr %trace
  %no.frames = icmp eq ptr %frames, null
  br i1 %no.frames, label %note, label %attach
attach:
  %attached = call i32 @PyException_SetTraceback(ptr %exception, ptr %frames)
  call void @Py_DecRef(ptr %frames)
  br label %note
note:
  %old = load ptr, ptr @raised
  store ptr %exception, ptr @raised
  call void @Py_DecRef(ptr %old)
  br label %leave
leave:
  %answer = phi i64 [ 0, %look ], [ 1, %note ]
  call void @PyGILState_Release(i32 %lock)
  ret i64 %answer
}}

define ptr @gj_raised() nounwind {{
  %exception = load ptr, ptr @raised
  store ptr null, ptr @raised
  ret ptr %exception
}}
"""


_lock = threading.Lock()
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
