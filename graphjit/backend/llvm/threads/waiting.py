"""How long threads wait, when they are woken, and on which systems there are any.

`fork_join.py` writes these numbers into the native code of the pool.
"""

from __future__ import annotations

import platform
import sys

SYMBOL = "gj_parallel_for"
WATCHED = "gj_parallel_watched"
"""The same for blocks that may take for ever: the caller looks for signals while it waits for others."""
WORTH_SPINNING_NS = 1_300
"""Estimated work from which awake workers are asked to help."""
WORTH_WAKING_NS = 60_000
"""Estimated work from which sleeping workers are woken."""
MISSED_NS = 200_000
"""Work run alone because everybody slept, after which workers are woken all the same: many middle-sized
kernels in a row then get help.
"""
PER_WORKER_NS = 30_000
"""Estimated work for which one more sleeping worker is woken."""
SPIN_NS = 50_000
"""Time an idle worker polls before it sleeps."""
PATIENCE_NS = 1_000_000
"""Longest time it polls, reached where the last jobs came that soon after it had run out of work."""
STRAYED = 16
"""Small jobs of callers on other cores after which workers make room for such a caller; for a job worth a
wake-up they do so at once.
"""
IMPATIENT = 2_000
"""Turns of a caller's wait, most of them yields, after which workers may run anywhere: the one it waits for
may find its own core taken.
"""


FUTEX_NUMBER = {
    "x86_64": 202,
    "aarch64": 98,
    "arm64": 98,
    "riscv64": 98,
    "loongarch64": 98,
    "ppc64le": 221,
    "s390x": 238,
}
"""Number of the system call ``futex``, by processor."""


def has_workers() -> bool:
    """Whether this platform has what the pool is made of; else a loop over the blocks stands in for it."""
    return sys.platform == "linux" and platform.machine() in FUTEX_NUMBER
