"""From a graph to code, once per process and graph.

Job: run the pipeline for a back end and keep what it made as long as somebody uses it.
Input: a graph, the name of a back end, the inputs that the caller gives up.  Output: an executable.
Invariants: equal graphs share one executable; what nobody uses is freed, except the latest small ones; nobody is in here when the process forks.  Importing this module loads the whole compiler, so
`dispatch` does it at the first compilation.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable

from graphjit import config, pipeline, progress
from graphjit.backend.executable import Executable
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.ir.node import Graph

_executables: weakref.WeakValueDictionary[Hashable, Executable | NumbaExecutable] = weakref.WeakValueDictionary()
_recent: OrderedDict[Hashable, Executable | NumbaExecutable] = OrderedDict()
RECENT = 64
"""Executables kept though nobody uses them now: ``grad(lambda ...)`` in a loop makes the same graph again and again."""
SMALL = 1_000
"""Nodes up to which a graph's code is kept so: it takes some hundred kilobytes at most."""

_lock = threading.RLock()

if hasattr(os, "register_at_fork"):
    # Taken before the lock of `backend.llvm.jit` (hooks run in reverse order), as a compilation takes them.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def executable(graph: Graph, backend: str, donated: tuple[int, ...] = ()) -> Executable | NumbaExecutable:
    """Code of ``graph``; equal graphs share it.  Results may take over the memory of the inputs numbered in ``donated``."""
    key = (backend, graph.key(), donated)
    with _lock:
        found = _executables.get(key)
        if found is None:
            start = time.perf_counter()
            with progress.watching(graph, len(key[1])):
                found, steps = _compiled(graph, backend, donated)
            _executables[key] = found
            if "compile" in config.log_topics:
                took = f"{steps} program steps in {1e3 * (time.perf_counter() - start):.1f} ms"
                print(f"graphjit: compiled {progress.description(graph)}; {took}", file=sys.stderr)
        if len(key[1]) <= SMALL:
            _recent[key] = found
            _recent.move_to_end(key)
            while len(_recent) > RECENT:
                _recent.popitem(last=False)
        return found


def _compiled(graph: Graph, backend: str, donated: tuple[int, ...]) -> tuple[Executable | NumbaExecutable, int]:
    """Code of ``graph``, and the number of its steps."""
    if backend == "llvm":
        compiled = pipeline.compile_graph(graph, donated)
        progress.step("making machine code")
        return Executable(compiled.program, compiled.module, compiled.nanoseconds), len(compiled.program.steps)
    _, program = pipeline.schedule(pipeline.optimize(graph), donated)
    return NumbaExecutable(program, pipeline.lower(program)), len(program.steps)
