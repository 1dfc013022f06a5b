"""The first call: from a plain Python function to its first gradient, in a process of its own.

Input: `python -m benchmarks.first_call PEER WORKLOAD DTYPE`. Output: one JSON object on standard output with the
seconds of the first and of the second call, the value, and the sum of squares of each gradient leaf, by which
results can be compared across processes. Invariant: the peer is imported and has differentiated another, tiny
function before the clock starts, so start-up of the process and of the library is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy

from benchmarks.peers import available, leaves
from benchmarks.workload import Namespace, Workload
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
SEED = 1


def _make_tiny(ns: Namespace) -> Any:
    return lambda x: ns.np.sum(x * x * 3.0)


def _torch_tiny(torch: Any, x: Any) -> Any:
    return torch.sum(x * x * 3.0)


TINY = Workload("tiny", _make_tiny, lambda seed, dtype: (numpy.arange(3.0),), torch=_torch_tiny)


def measure(peer_name: str, workload: Workload, dtype: str) -> dict[str, Any]:
    """In this process; see the module's description for the keys."""
    peers, missing = available([peer_name])
    if missing:
        raise ImportError(missing[peer_name])
    peer = peers[peer_name]
    warm = peer.prepare(TINY, TINY.inputs(SEED, "float64"))
    warm.wait(warm.fn(*warm.arguments))
    arguments = workload.inputs(SEED, dtype)
    seconds = []
    begin = time.perf_counter()
    # `prepare` is part of the first call: it is where libraries wrap the function. Converting the arguments
    # happens there too, but takes microseconds for the inputs measured here.
    prepared = peer.prepare(workload, arguments)
    result = prepared.fn(*prepared.arguments)
    prepared.wait(result)
    seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    prepared.wait(prepared.fn(*prepared.arguments))
    seconds.append(time.perf_counter() - begin)
    value, gradients = result if workload.with_value else (None, result)
    return {
        "first": seconds[0],
        "second": seconds[1],
        "value": None if value is None else float(value),
        "squares": [float(numpy.sum(leaf.astype(float) ** 2)) for leaf in leaves(gradients)],
    }


def in_fresh_process(peer_name: str, workload: Workload, dtype: str, timeout: float = 600.0) -> dict[str, Any]:
    """`measure` in a child process. Raises RuntimeError with the end of the child's error output."""
    command = [sys.executable, "-m", "benchmarks.first_call", peer_name, workload.name, dtype]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    if child.returncode:
        raise RuntimeError(child.stderr.strip().splitlines()[-1] if child.stderr.strip() else "child died")
    return json.loads(child.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], WORKLOADS[sys.argv[2]], sys.argv[3])))
