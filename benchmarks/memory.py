"""Peak memory of one call, in a process of its own: how far the resident size rises above that of the idle
process.

Input: `python -m benchmarks.memory PEER WORKLOAD DTYPE`. Output: one JSON object: `call`, bytes that one call
adds to the process that has made calls before, its results included; `kept`, bytes that the library keeps
between calls over what it had, warm and with the inputs made, before the first one: arenas, pools, code, what
its compiler left. A library that never gives its working memory back shows it there, so the peak is the sum
of both.
Invariant: Linux only (the high-water mark is reset through /proc/self/clear_refs); anywhere else an error
says so.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.agreement import leaves
from benchmarks.contest import SEED
from benchmarks.first_call import child, warmed
from benchmarks.workload import Workload
from benchmarks.workloads import WORKLOADS

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_HIGH_WATER_MARK = "5"


def _kilobytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def _idle() -> int:
    """Resident kilobytes after garbage is gone, also from C's heap, and the library's threads have
    settled.
    """
    gc.collect()
    # glibc keeps freed blocks below its threshold, in any amount: a call that took them again would seem to
    # need nothing.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    time.sleep(0.05)
    return _kilobytes("VmRSS")


def measure(peer_name: str, workload: Workload, dtype: str) -> dict[str, Any]:
    """In this process; see the module's description for the keys. Raises OSError where /proc does not allow
    it.
    """
    if not CLEAR.exists():
        raise OSError("peak memory is measured through /proc/self/clear_refs, which this system has not")
    peer = warmed(peer_name)
    arguments = workload.inputs(SEED, dtype)
    before = _idle()
    prepared = peer.prepare(workload, arguments)
    kept = []
    for _ in range(2):
        # Results stay alive: where a library gives the memory of earlier ones to new ones, this call's would
        # not show.
        kept.append(prepared.fn(*prepared.arguments))
        prepared.wait(kept[-1])
    idle = _idle()
    CLEAR.write_text(RESET_HIGH_WATER_MARK)
    result = prepared.fn(*prepared.arguments)
    prepared.wait(result)
    peak = _kilobytes("VmHWM")
    results = sum(leaf.nbytes for leaf in leaves(kept))
    return {"call": 1024 * max(0, peak - idle), "kept": max(0, 1024 * (idle - before) - results)}


def in_fresh_process(
    peer_name: str, workload: Workload, dtype: str, library: str = "", timeout: float = 600.0
) -> dict[str, Any]:
    """`measure` in a child process, which finds graphjit's library in the directory `library`. Raises
    RuntimeError with the end of the child's error output.
    """
    return child("benchmarks.memory", peer_name, workload, dtype, library, timeout)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], WORKLOADS[sys.argv[2]], sys.argv[3])))
