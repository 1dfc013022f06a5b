"""Which trace records in this thread: `active_trace()`, None where user code runs untraced.

A trace becomes the active one while its ``with`` block runs (`recorder.Recorder`); `set_active_trace` puts
another one in its place for code that must not be recorded.
"""

from __future__ import annotations

from graphjit.trace.recording.recorder import current
from graphjit.trace.recording.tracer import Trace


def active_trace() -> Trace | None:
    """The trace being recorded in this thread, if any."""
    return current.recorder  # type: ignore[return-value]  # nothing but a Trace is ever entered


def set_active_trace(trace: Trace | None) -> None:
    """Another trace, or none, is being recorded in this thread."""
    current.recorder = trace
