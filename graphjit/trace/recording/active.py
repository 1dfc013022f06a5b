"""Which trace records in this thread.

Job: the one variable that says so.  Input: `trace.Trace` enters and leaves.  Output: `active_trace()`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphjit.trace.recording.tracer import Trace


class _Active(threading.local):
    trace: Trace | None = None


active = _Active()


def active_trace() -> Trace | None:
    """The trace being recorded in this thread, if any."""
    return active.trace


def set_active_trace(trace: Trace | None) -> None:
    """Another trace, or none, is being recorded in this thread."""
    active.trace = trace
