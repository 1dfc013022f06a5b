"""The first call: from a plain Python function to its first result, in a process of its own.

Input: `python -m benchmarks.first_call PEER WORKLOAD DTYPE`. Output: one JSON object on standard output with
the seconds of the first and of the second call, and the sum of squares of each leaf of the result, by which
results can be compared across processes. Invariant: the peer is imported and has differentiated another, tiny
function before the clock starts, so start-up of the process and of the library is not counted; no code of a
user's function that an earlier process left on disk is used. graphjit's own library is compiled where it is
first needed and kept, where others come compiled: whoever asks says where, or it counts as part of the first
call.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy

from benchmarks.agreement import leaves
from benchmarks.contest import SEED
from benchmarks.peers import Peer, available
from benchmarks.workload import Namespace, Workload
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]


def _make_tiny(ns: Namespace) -> Any:
    return lambda x: ns.np.sum(x * x * 3.0)


def _torch_tiny(torch: Any, x: Any) -> Any:
    return torch.sum(x * x * 3.0)


TINY = Workload(
    "tiny", _make_tiny, lambda seed, dtype: (numpy.arange(3.0),), torch=_torch_tiny, pytensor=True
)


def warmed(peer_name: str) -> Peer:
    """The peer, after its first gradient of a tiny function. Raises ImportError where it is not installed."""
    peers, missing = available([peer_name])
    if missing:
        raise ImportError(missing[peer_name])
    peer = peers[peer_name]
    # What is written by hand differentiates nothing, and has nothing to warm up.
    with contextlib.suppress(LookupError):
        warm = peer.prepare(TINY, TINY.inputs(SEED, "float64"))
        warm.wait(warm.fn(*warm.arguments))
    return peer


def measure(peer_name: str, workload: Workload, dtype: str) -> dict[str, Any]:
    """In this process; see the module's description for the keys."""
    peer = warmed(peer_name)
    arguments = workload.inputs(SEED, dtype)
    seconds = []
    begin = time.perf_counter()
    # `prepare` is part of the first call: it is where libraries wrap the function. Converting the arguments
    # happens there too, but takes little time for most of what is measured here.
    prepared = peer.prepare(workload, arguments)
    result = prepared.fn(*prepared.arguments)
    prepared.wait(result)
    seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    prepared.wait(prepared.fn(*prepared.arguments))
    seconds.append(time.perf_counter() - begin)
    return {
        "first": seconds[0],
        "second": seconds[1],
        "squares": [float(numpy.sum(leaf.astype(float) ** 2)) for leaf in leaves(result)],
    }


def in_fresh_process(
    peer_name: str, workload: Workload, dtype: str, library: str = "", timeout: float = 600.0
) -> dict[str, Any]:
    """`measure` in a child process, which finds graphjit's library in the directory `library`. Raises
    RuntimeError with the end of the child's error output.
    """
    return child("benchmarks.first_call", peer_name, workload, dtype, library, timeout)


def child(
    module: str, peer_name: str, workload: Workload, dtype: str, library: str, timeout: float
) -> dict[str, Any]:
    """What `python -m module PEER WORKLOAD DTYPE` prints; its libraries find their caches on disk empty, but
    for that of graphjit's own code.
    """
    command = [sys.executable, "-m", module, peer_name, workload.name, dtype]
    with tempfile.TemporaryDirectory() as caches:
        environment = os.environ | {
            "TORCHINDUCTOR_CACHE_DIR": caches,
            "PYTENSOR_FLAGS": f"base_compiledir={caches}",
            "NUMBA_CACHE_DIR": caches,
            "GRAPHJIT_CACHE_DIR": library,
        }
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=environment
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not done after {timeout:g} s") from None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "child died")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> bool:
    """Whether two processes' results agree, by the sums of squares of their leaves."""
    left, right = ours["squares"], theirs["squares"]
    return len(left) == len(right) and all(
        math.isclose(a, b, rel_tol=10.0 * tolerance, abs_tol=1e-30) for a, b in zip(left, right, strict=True)
    )


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], WORKLOADS[sys.argv[2]], sys.argv[3])))
