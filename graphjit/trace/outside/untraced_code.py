"""Code that runs in the middle of a trace but is no part of the traced function: signal handlers, finalizers.

Python may run a handler or a ``__del__`` between any two lines of the traced function. What they compute must
not be recorded. So for their time no trace is active (`suspended`), and they get plain values whatever they
call: `plain_handlers`, around each trace, wraps the signal handlers, and calls of compiled functions ask
`in_finalizer`.

Handlers are wrapped in the main thread only, where Python runs them, and are put back after the trace unless
somebody replaced them meanwhile. Python's own handler of Ctrl-C stays as it is, since it only raises.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from graphjit.trace.recording.active import active_trace, set_active_trace

# The C function: Python's own makes an enum of each answer, which takes longer than all the rest of a small
# trace's bookkeeping.
_handler: Callable[[int], Any] = getattr(signal.getsignal, "__wrapped__", signal.getsignal)


@contextmanager
def suspended() -> Iterator[None]:
    """No trace is active in this thread."""
    trace = active_trace()
    set_active_trace(None)
    try:
        yield
    finally:
        set_active_trace(trace)


def _wrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A signal handler that runs without an active trace."""

    @functools.wraps(handler)
    def plain(number: int, frame: FrameType | None) -> Any:
        with suspended():
            return handler(number, frame)

    return plain


@contextmanager
def plain_handlers() -> Iterator[None]:
    """Around a trace: signal handlers see plain values."""
    replaced: list[tuple[Any, Any, Any]] = []
    if active_trace() is None and threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            handler = _handler(number)
            if callable(handler) and handler is not signal.default_int_handler:
                wrapper = _wrapped(handler)
                signal.signal(number, wrapper)
                replaced.append((number, handler, wrapper))
    try:
        yield
    finally:
        for number, handler, wrapper in replaced:
            if _handler(number) is wrapper:
                signal.signal(number, handler)


def in_finalizer() -> bool:
    """Whether a ``__del__`` or a `weakref.finalize` called us, somewhere between here and the function that
    is traced.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name, module = frame.f_code.co_name, frame.f_globals.get("__name__")
        if name == "__del__" or (module == "weakref" and name == "__call__"):
            return True
        if name == "stage" and module == "graphjit.trace.stage":
            return False
        frame = frame.f_back
    return False
