"""Peak memory of one call, in a process of its own: how far the resident size rises above that of the idle process.

Input: `python -m benchmarks.memory PEER WORKLOAD DTYPE`. Output: one JSON object: `peak`, bytes that one call adds
to the process that has made calls before and dropped their results, its results included; `held`, bytes that the
process keeps between calls over what it had, library warm and inputs made, before the first: code, pools, compilers.
Invariant: Linux only (the high-water mark is reset through /proc/self/clear_refs); anywhere else an error says so.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

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
    """Resident kilobytes after garbage is gone and the library's threads have settled."""
    gc.collect()
    time.sleep(0.05)
    return _kilobytes("VmRSS")


def measure(peer_name: str, workload: Workload, dtype: str) -> dict[str, Any]:
    """In this process; see the module's description for the keys. Raises OSError where /proc does not allow it."""
    if not CLEAR.exists():
        raise OSError("peak memory is measured through /proc/self/clear_refs, which this system has not")
    peer = warmed(peer_name)
    arguments = workload.inputs(SEED, dtype)
    before = _idle()
    prepared = peer.prepare(workload, arguments)
    for _ in range(2):
        prepared.wait(prepared.fn(*prepared.arguments))
    idle = _idle()
    CLEAR.write_text(RESET_HIGH_WATER_MARK)
    result = prepared.fn(*prepared.arguments)
    prepared.wait(result)
    peak = _kilobytes("VmHWM")
    return {"peak": 1024 * max(0, peak - idle), "held": 1024 * max(0, idle - before)}


def in_fresh_process(peer_name: str, workload: Workload, dtype: str, timeout: float = 600.0) -> dict[str, Any]:
    """`measure` in a child process. Raises RuntimeError with the end of the child's error output."""
    return child("benchmarks.memory", peer_name, workload, dtype, timeout)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], WORKLOADS[sys.argv[2]], sys.argv[3])))
