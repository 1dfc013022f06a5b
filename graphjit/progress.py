"""Tell on stderr what a long compilation is doing: after two seconds, with a bar on a terminal.

It says which function is compiled, how large its graph is, and which line of the user's code made it so.

Input: `watching` around a compilation, `step` at the start of each of its steps. Output: text on stderr, none
for shorter ones.
Invariants: the compilation neither waits for this nor fails by it; a closed or missing stderr means silence;
signals go to other threads.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from graphjit.ir.node import Graph

PATIENCE = 2.0
"""Seconds of silence."""

SMALL = 200
"""Nodes up to which nobody watches: such a graph is compiled in well under a second, and a thread costs 0.1
ms.
"""

OFTEN = 16
"""Operations of one kind at one line from which that line is taken for the body of an unrolled loop."""


class _Watch:
    """One compilation, and the thread that speaks about it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.step = "simplifying the graph"
        self.done = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, name="graphjit-progress", daemon=True)

    def run(self) -> None:
        """Wait, then speak."""
        if self.ended.wait(PATIENCE):
            return
        stream = sys.stderr
        with suppress(Exception):  # a stream that was closed meanwhile must not disturb the compilation
            if stream is None or stream.closed:
                return
            text = f"graphjit: compiling {description(self.graph)}"
            print(text, file=stream, flush=True)
            if stream.isatty():
                self.bar(stream)

    def bar(self, stream: TextIO) -> None:
        """A bar until the compilation ends."""
        # Imported here: it takes longer than most compilations.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=stream), transient=True) as progress:
            task = progress.add_task(self.step, total=len(STEPS))
            while not self.ended.wait(0.1):
                progress.update(task, completed=self.done, description=self.step)


STEPS = (
    "simplifying the graph",
    "choosing kernels",
    "writing loops",
    "writing LLVM code",
    "making machine code",
)
"""Steps of a compilation, in order.  The last takes most of the time."""


class _Present(threading.local):
    watch: _Watch | None = None


_present = _Present()


def step(name: str) -> None:
    """The compilation of this thread, if somebody watches it, has come to the step ``name`` of `STEPS`."""
    watch = _present.watch
    if watch is not None:
        watch.step, watch.done = name, STEPS.index(name)


@contextmanager
def watching(graph: Graph, nodes: int) -> Iterator[None]:
    """Around the compilation of ``graph``, which has so many nodes."""
    if nodes <= SMALL or sys.stderr is None:
        yield
        return
    watch = _Watch(graph)
    before, _present.watch = _present.watch, watch
    started = _started(watch.thread)
    try:
        yield
    finally:
        _present.watch = before
        watch.ended.set()
        if started:
            watch.thread.join()


def _started(thread: threading.Thread) -> bool:
    """Start a thread that takes no signals: handlers must wait where LLVM works (`backend.llvm.objects.jit`).

    Returns whether it runs.
    """
    masked: Any = (
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if hasattr(signal, "pthread_sigmask")
        else None
    )
    try:
        thread.start()
    except RuntimeError:  # no thread to be had, or the interpreter ends
        return False
    finally:
        if masked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return True


def description(graph: Graph) -> str:
    """Size of a graph and, where it comes from an unrolled loop, the line that occurs most often."""
    nodes = graph.nodes()
    text = f"{graph.name}: {len(nodes)} operations"
    lines = Counter(node.loc for node in nodes if node.loc is not None and node.args and not node.origin)
    if not lines:
        return text
    loc, total = lines.most_common(1)[0]
    kinds = Counter(node.op.name for node in nodes if node.loc == loc and not node.origin)
    # An operation may stand several times in the line, and what does not change from step to step occurs
    # once.
    steps = min(n for n in kinds.values() if 4 * n >= max(kinds.values()))
    if steps < OFTEN:
        return text
    return f"{text}, {total} of them from about {steps} steps of an unrolled loop at {loc} (each step is compiled by itself)"
