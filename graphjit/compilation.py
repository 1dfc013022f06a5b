"""From a graph to code: each graph is compiled once per process, and its code kept while somebody uses it.

Input: a graph, the name of a back end, the inputs that the caller gives up. Output: `Code`.
Invariants: equal graphs share one executable, and each has lines of its own for what the code reports; code
that nobody uses is freed, but for the latest of small graphs; nobody is in here when the process forks.
Importing this module loads the whole compiler, so `dispatch` does it at the first compilation.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from graphjit import config, pipeline, progress
from graphjit.backend.executable import Executable
from graphjit.backend.failures import Failures, exception, locations
from graphjit.ir.node import Graph, Location

if TYPE_CHECKING:
    import numpy as np

    from graphjit.backend.numba.executable import NumbaExecutable
    from graphjit.ir.types import Type
    from graphjit.schedule.program import Failure

_executables: weakref.WeakValueDictionary[Hashable, Executable | NumbaExecutable] = (
    weakref.WeakValueDictionary()
)
_recent: OrderedDict[Hashable, Executable | NumbaExecutable] = OrderedDict()
RECENT = 64
"""Executables kept though nobody uses them now: ``grad(lambda ...)`` in a loop makes the same graph again and
again.
"""
SMALL = 1_000
"""Nodes up to which a graph's code is kept so: it takes some hundred kilobytes at most."""

_failures: weakref.WeakKeyDictionary[Executable | NumbaExecutable, Failures] = weakref.WeakKeyDictionary()
_lock = threading.RLock()

if hasattr(os, "register_at_fork"):
    # Taken before the lock of `backend.llvm.objects.jit` (hooks run in reverse order), as a compilation does.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Code:
    """Code that equal graphs share, as the caller of one of them meets it: what it reports lies at lines of
    that graph.
    """

    def __init__(self, shared: Executable | NumbaExecutable, failures: Sequence[Failure]) -> None:
        self.shared = shared
        self.failures = failures

    @property
    def in_place(self) -> Mapping[int, int]:
        """The donated input that an output may be written into, by their numbers."""
        return self.shared.in_place

    @property
    def outputs(self) -> tuple[Type, ...]:
        """Types of the results."""
        return self.shared.outputs

    def run(
        self, arrays: Sequence[np.ndarray], into: Mapping[int, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """As `Executable.run`."""
        return self.shared.run(arrays, into, self.failures)

    def error(self, status: int) -> BaseException:
        """The exception for a status that the native code returned."""
        return exception(self.failures, status)


def executable(graph: Graph, backend: str, donated: tuple[int, ...] = ()) -> Code:
    """Code of ``graph``; equal graphs share it. Results may take over the memory of the inputs numbered in
    ``donated``.
    """
    rows = graph.key()
    key: Hashable = (backend, rows, donated)
    with _lock:
        found = _executables.get(key)
        failures = None if found is None else _failures[found].within(graph)
        if found is not None and failures is None:
            # One line of the other graph is several of this one: graphs that share code here must break into
            # lines alike.
            key = (key, _pattern(graph))
            found = _executables.get(key)
            failures = None if found is None else _failures[found].within(graph)
        if found is None:
            start = time.perf_counter()
            with progress.watching(graph, len(rows)):
                found, steps = _compiled(graph, backend, donated)
            # In this order: a signal handler that compiles, or an exception, may come between any two lines.
            _failures[found] = Failures(found.failures, graph)
            _executables[key] = found
            failures = found.failures
            if "compile" in config.log_topics:
                took = f"{steps} program steps in {1e3 * (time.perf_counter() - start):.1f} ms"
                print(f"graphjit: compiled {progress.description(graph)}; {took}", file=sys.stderr)
        elif failures is None:  # of a node that is in neither graph: no line rather than another's
            failures = tuple(failure._replace(loc=None) for failure in found.failures)
        if len(rows) <= SMALL:
            _recent[key] = found
            _recent.move_to_end(key)
            while len(_recent) > RECENT:
                _recent.popitem(last=False)
        return Code(found, failures)


def _compiled(
    graph: Graph, backend: str, donated: tuple[int, ...]
) -> tuple[Executable | NumbaExecutable, int]:
    """Code of ``graph``, and the number of its steps."""
    if backend == "llvm":
        compiled = pipeline.compile_graph(graph, donated)
        progress.step("making machine code")
        return Executable(compiled.program, compiled.module, compiled.nanoseconds), len(
            compiled.program.steps
        )
    from graphjit.backend.numba.executable import NumbaExecutable  # the other back end is rarely asked for

    runner = pipeline.new_runner()
    _, program = pipeline.schedule(pipeline.optimize(graph, runner), donated, runner)
    return NumbaExecutable(program, pipeline.lower(program, runner)), len(program.steps)


def _pattern(graph: Graph) -> tuple[int, ...]:
    """Which nodes share a line, whatever the lines are."""
    numbers: dict[Location | None, int] = {}
    return tuple(numbers.setdefault(loc, len(numbers)) for loc in locations(graph))
