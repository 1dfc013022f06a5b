"""The time of the system's monotonic clock, in native code."""

from __future__ import annotations

import time

from graphjit.backend.llvm.writing.fields import words
from graphjit.backend.llvm.writing.native import Body, Value

EXTERNALS = {"clock_gettime": "i32 (i32, timespec)"}
STRUCTS = {"timespec": words("i64 seconds, i64 nanoseconds")}

_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 1)


def nanoseconds(w: Body) -> Value:
    """Nanoseconds since some time in the past."""
    now = w.local("i64", 2).to("timespec")
    w.call("clock_gettime", _MONOTONIC, now)
    return now["seconds"] * 1_000_000_000 + now["nanoseconds"]
