"""What watches the passes: verify, time, dump, stop after one, compare values.

Job: be handed to a `Runner`, see what goes into each pass and what comes out.
Input: graphs, schedules, loops.  Output: an exception that names the pass at fault, a table of times, files.
Invariant: instruments look and may raise; they never change what runs.

Users reach them by ``graphjit inspect --verify-each --compare-each --time-passes --dump-passes DIR`` and by
the settings ``GRAPHJIT_VERIFY`` and ``GRAPHJIT_DUMP``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphjit import config
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.errors import IRError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F32
from graphjit.ir.verify import verify
from graphjit.loops.ir import Lowered
from graphjit.loops.printer import print_kernel
from graphjit.loops.verify import verify_kernel
from graphjit.running.runner import Instrument, Step, Stop
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.interpret import check_decision, run_fusion, run_program
from graphjit.schedule.printer import print_steps
from graphjit.schedule.program import Program


def configured() -> list[Instrument]:
    """The instruments that the environment asks for: ``GRAPHJIT_VERIFY``, ``GRAPHJIT_DUMP``."""
    found: list[Instrument] = [Verify()] if config.verify_passes else []
    if config.dump_directory is not None:
        found.append(Dump(Path(config.dump_directory), numbered=True))
    return found


class Verify(Instrument):
    """Check what every pass makes: graphs and loop IR are well formed, inputs and types of outputs stay."""

    def before(self, step: Step, value: Any) -> None:
        """Verify the graph that comes in first."""
        if step.index == 1 and isinstance(value, Graph):
            verify(value)

    def after(self, step: Step, before: Any, value: Any) -> None:
        """Verify what came out.

        Raises:
            IRError: the pass made something ill formed or changed the signature.
        """
        try:
            if isinstance(value, Graph):
                verify(value)
            elif isinstance(value, Lowered):
                for kernel in value.kernels.values():
                    verify_kernel(kernel, len(value.program.errors))
        except IRError as error:
            raise IRError(f"after {step}: {error}") from None
        if not (isinstance(value, Graph) and isinstance(before, Graph)):
            return
        if value.inputs != before.inputs:
            raise IRError(f"{step} changed the inputs")
        if [node.type for node in before.outputs] != [node.type for node in value.outputs]:
            raise IRError(f"{step} changed the types of the outputs")


@dataclass
class Time(Instrument):
    """Seconds and sizes of each pass, in ``rows``: (index, name, seconds, size before, size after); a size is
    a number of nodes, steps or kernels.
    """

    rows: list[tuple[int, str, float, int, int]] = field(default_factory=list)
    _started: float = 0.0

    def before(self, step: Step, value: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after(self, step: Step, before: Any, value: Any) -> None:
        """Stop it.  Put this instrument first: what follows it is not counted."""
        self.rows.append(
            (step.index, step.name, time.perf_counter() - self._started, _size(before), _size(value))
        )

    def report(self) -> str:
        """One line a pass."""
        return "\n".join(
            f"{i:3d}  {name:24s} {1e3 * seconds:9.2f} ms  {before:7d} -> {after}"
            for i, name, seconds, before, after in self.rows
        )


def _size(value: Any) -> int:
    if isinstance(value, Graph):
        return len(value)
    if isinstance(value, Program):
        return len(value.steps)
    return len(value.kernels) if isinstance(value, Lowered) else len(getattr(value, "steps", ()))


def _text(value: Any, locations: bool) -> str | None:
    """A value as people read it; None for what has no text of its own."""
    if isinstance(value, Graph):
        return print_graph(value, locations=locations)
    if isinstance(value, Program):
        return print_steps(value)
    return "\n".join(map(print_kernel, value.kernels.values())) if isinstance(value, Lowered) else None


@dataclass
class Dump(Instrument):
    """Write the text of what the first pass gets and of everything that a pass changed.

    ``target`` is a directory for numbered files (``00-input.txt``, ``03-simplify.txt``) or a callback ``(file
    name, text)``. ``numbered``: a directory of its own in there for each compilation, with the name of the
    graph.
    """

    target: Path | Callable[[str, str], None]
    locations: bool = True
    numbered: bool = False
    _last: str = ""

    def before(self, step: Step, value: Any) -> None:
        """What the first pass gets."""
        if step.index == 1:
            if self.numbered and isinstance(self.target, Path):
                name = "".join(c if c.isalnum() else "_" for c in getattr(value, "name", "graph"))[:60]
                self.target = self.target / f"{sum(1 for _ in self.target.glob('*-*')) + 1:04d}-{name}"
            self._write("00-input.txt", value)

    def after(self, step: Step, before: Any, value: Any) -> None:
        """What a pass made."""
        self._write(f"{step.index:02d}-{step.name.replace(' ', '_')}.txt", value)

    def _write(self, file: str, value: Any) -> None:
        text = _text(value, self.locations)
        if text is None or text == self._last:
            return
        self._last = text
        if isinstance(self.target, Path):
            self.target.mkdir(parents=True, exist_ok=True)
            (self.target / file).write_text(text, encoding="utf-8")
        else:
            self.target(file, text)


@dataclass
class StopAfter(Instrument):
    """Stop after ``count`` passes: bisect a miscompilation by hand."""

    count: int

    def after(self, step: Step, before: Any, value: Any) -> None:
        """Stop when the count is reached."""
        if step.index >= self.count:
            raise Stop(value)


@dataclass
class Compare(Instrument):
    """Run what every pass makes on random inputs and name the first pass that changed a value.

    Graphs are interpreted, schedules step by step (`graphjit.schedule.interpret`); loop IR runs as the Python
    that the Numba back end prints, element by element, so that examples should be small. ``draw(rng, node)``
    may be given to draw an input from the domain of the graph.
    """

    seed: int = 0
    rtol: float | None = None
    draw: Callable[[np.random.Generator, Node], np.ndarray] | None = None
    _inputs: list[np.ndarray] = field(default_factory=list)
    _wanted: list[np.ndarray] = field(default_factory=list)
    _graph: Graph | None = None

    def before(self, step: Step, value: Any) -> None:
        """Draw inputs and compute what everything later must give."""
        if step.index == 1:
            rng = np.random.default_rng(self.seed)
            self._inputs = [(self.draw or draw_input)(rng, node) for node in value.inputs]
            self._wanted = interpret(value, *self._inputs)
            if self.rtol is None:
                self.rtol = rounding(value)

    def after(self, step: Step, before: Any, value: Any) -> None:
        """Compare.

        Raises:
            IRError: an output differs; the message has the pass, the output and both values.  Or a schedule
                cannot be run: it reads what is not there.
        """
        assert self.rtol is not None
        if isinstance(value, Graph):
            self._graph = value
        try:
            outputs = self._run(before, value)
        except IRError as error:
            raise IRError(f"after {step}: {error}") from None
        for i, (got, wanted) in enumerate(zip(outputs, self._wanted, strict=True) if outputs else ()):
            index = first_difference(got, wanted, self.rtol)
            if index is not None:
                raise IRError(
                    f"{step} changed output {i}{list(index)}: {wanted[index]!r} became {got[index]!r}"
                )

    def _run(self, before: Any, value: Any) -> list[np.ndarray]:
        """The outputs of what a pass made; empty if it has none."""
        if isinstance(value, Graph):
            return interpret(value, *self._inputs)
        if isinstance(value, Fusion):
            return run_fusion(self._scheduled(), value, self._inputs)
        if isinstance(value, Program):
            return run_program(value, before, self._inputs)
        if isinstance(value, Lowered):
            copies = [np.array(x) for x in self._inputs]  # a program may write into what is donated
            return NumbaExecutable(value.program, value.kernels, python=True).run(copies)
        check_decision(self._scheduled(), value)
        return []

    def _scheduled(self) -> Graph:
        """The graph that the schedule is of: the last one."""
        assert self._graph is not None
        return self._graph


def rounding(graph: Graph) -> float:
    """Relative difference that reordered rounding may make in ``graph``: coarse as soon as float32 occurs
    anywhere.
    """
    parts = (type for node in with_bodies(graph) for type in node.parts)
    return 1e-3 if any(type.dtype == F32 for type in parts) else 1e-9


def first_difference(got: np.ndarray, wanted: np.ndarray, rtol: float) -> tuple[int, ...] | None:
    """The first index where two results differ; None when they agree.

    Floats agree within ``rtol`` of the largest magnitude in ``wanted``, or of 1e-3 where all of it is smaller
    and may be what cancellation left (rules that are not exact move last bits); NaN agrees with NaN;
    everything else must be equal.
    """
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return ()
    if wanted.dtype.kind == "f":
        scale = float(np.max(np.abs(wanted), initial=1e-3, where=np.isfinite(wanted)))
        close = np.isclose(got, wanted, rtol=rtol, atol=rtol * scale, equal_nan=True)
    else:
        close = np.asarray(got == wanted)
    wrong = np.argwhere(~close)
    return tuple(int(k) for k in wrong[0]) if len(wrong) else None


def draw_input(rng: np.random.Generator, node: Node) -> np.ndarray:
    """A random value for an input: floats from (0.1, 2), where most functions are smooth, small integers,
    bools.
    """
    if node.dtype.kind == "f":
        return np.asarray(rng.uniform(0.1, 2.0, size=node.shape)).astype(node.dtype)
    if node.dtype.kind == "b":
        return np.asarray(rng.random(size=node.shape) < 0.5)
    return np.asarray(rng.integers(0, 3, size=node.shape)).astype(node.dtype)
