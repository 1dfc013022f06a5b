"""Watch a list of passes at work: verify, time, dump, stop, compare.

Job: run passes one after another and call instruments before and after each.
Input: a graph, passes, instruments.  Output: the last graph.
Invariant: instruments look and may raise or stop, they never change a graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphjit.errors import IRError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F32
from graphjit.ir.verify import verify

Pass = Callable[[Graph], Graph]


class Stop(Exception):
    """Raised by an instrument: no further pass runs."""


class Instrument:
    """Base: does nothing.  ``index`` counts passes from 1."""

    def before(self, index: int, name: str, graph: Graph) -> None:
        """Called with the graph that goes into a pass."""

    def after(self, index: int, name: str, before: Graph, graph: Graph) -> None:
        """Called with the graphs around a pass; may raise `Stop`."""


def run(graph: Graph, passes: Iterable[Pass], instruments: Sequence[Instrument] = ()) -> Graph:
    """``graph`` after ``passes``."""
    for index, step in enumerate(passes, 1):
        name = pass_name(step)
        for instrument in instruments:
            instrument.before(index, name, graph)
        before, graph = graph, step(graph)
        try:
            for instrument in instruments:
                instrument.after(index, name, before, graph)
        except Stop:
            break
    return graph


def pass_name(step: Pass) -> str:
    """What a pass is called in dumps."""
    return getattr(step, "__name__", type(step).__name__)


class Verify(Instrument):
    """Verify the graph before the first pass and after each one; check that inputs and output types stay."""

    def before(self, index: int, name: str, graph: Graph) -> None:
        """Verify what comes in (it was verified already, but for the first pass)."""
        if index == 1:
            verify(graph)

    def after(self, index: int, name: str, before: Graph, graph: Graph) -> None:
        """Verify what came out.

        Raises:
            IRError: the pass made an ill-formed graph or changed the signature.
        """
        try:
            verify(graph)
        except IRError as error:
            raise IRError(f"after pass {index} ({name}): {error}") from None
        if graph.inputs != before.inputs:
            raise IRError(f"pass {index} ({name}) changed the inputs")
        types = [node.type for node in before.outputs], [node.type for node in graph.outputs]
        if types[0] != types[1]:
            raise IRError(f"pass {index} ({name}) changed the types of the outputs")


@dataclass
class Time(Instrument):
    """Seconds and node counts of each pass, in ``rows``: (index, name, seconds, nodes before, nodes after)."""

    rows: list[tuple[int, str, float, int, int]] = field(default_factory=list)
    _started: float = 0.0

    def before(self, index: int, name: str, graph: Graph) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after(self, index: int, name: str, before: Graph, graph: Graph) -> None:
        """Stop it.  Put this instrument first: what follows it is not counted."""
        seconds = time.perf_counter() - self._started
        self.rows.append((index, name, seconds, len(before), len(graph)))

    def report(self) -> str:
        """One line a pass."""
        lines = [
            f"{index:3d}  {name:24s} {1e3 * seconds:9.2f} ms  {before:7d} -> {after} nodes"
            for index, name, seconds, before, after in self.rows
        ]
        return "\n".join(lines)


@dataclass
class Dump(Instrument):
    """Write the text of the graph before the first pass and after every pass that changed it.

    ``target`` is a directory for numbered files (``00-input.txt``, ``03-simplify.txt``) or a callback ``(file name, text)``.
    """

    target: Path | Callable[[str, str], None]
    locations: bool = True
    _last: str = ""

    def before(self, index: int, name: str, graph: Graph) -> None:
        """The graph that the first pass gets."""
        if index == 1:
            self._write("00-input.txt", graph)

    def after(self, index: int, name: str, before: Graph, graph: Graph) -> None:
        """What a pass made."""
        self._write(f"{index:02d}-{name}.txt", graph)

    def _write(self, file: str, graph: Graph) -> None:
        text = print_graph(graph, locations=self.locations)
        if text == self._last:
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

    def after(self, index: int, name: str, before: Graph, graph: Graph) -> None:
        """Stop when the count is reached."""
        if index >= self.count:
            raise Stop


@dataclass
class Compare(Instrument):
    """Interpret the graph on random inputs before and after each pass and compare (see `first_difference`).

    ``draw(rng, node)`` may be given to draw an input from the domain of the graph.
    """

    seed: int = 0
    rtol: float | None = None
    draw: Callable[[np.random.Generator, Node], np.ndarray] | None = None
    _inputs: list[np.ndarray] = field(default_factory=list)
    _wanted: list[np.ndarray] = field(default_factory=list)

    def before(self, index: int, name: str, graph: Graph) -> None:
        """Draw inputs and compute what every later graph must give."""
        if index == 1:
            rng = np.random.default_rng(self.seed)
            self._inputs = [(self.draw or draw_input)(rng, node) for node in graph.inputs]
            self._wanted = interpret(graph, *self._inputs)
            if self.rtol is None:
                self.rtol = rounding(graph)

    def after(self, index: int, name: str, before: Graph, graph: Graph) -> None:
        """Compare.

        Raises:
            IRError: an output differs; the message has the pass, the output and both values.
        """
        assert self.rtol is not None
        for i, (got, wanted) in enumerate(zip(interpret(graph, *self._inputs), self._wanted, strict=True)):
            place = first_difference(got, wanted, self.rtol)
            if place is not None:
                raise IRError(f"pass {index} ({name}) changed output {i}{list(place)}: {wanted[place]!r} became {got[place]!r}")


def rounding(graph: Graph) -> float:
    """Relative difference that reordered rounding may make in ``graph``: coarse as soon as float32 occurs anywhere."""
    return 1e-3 if any(node.dtype == F32 for node in graph.nodes()) else 1e-9


def first_difference(got: np.ndarray, wanted: np.ndarray, rtol: float) -> tuple[int, ...] | None:
    """The first index where two results differ; None when they agree.

    Floats agree within ``rtol`` of the largest magnitude in ``wanted``, or of 1e-3 where all of it is smaller and may be what cancellation
    left (rules that are not exact move last bits); NaN agrees with NaN; everything else must be equal.
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
    """A random value for an input: floats from (0.1, 2), where most functions are smooth, small integers, bools."""
    if node.dtype.kind == "f":
        return np.asarray(rng.uniform(0.1, 2.0, size=node.shape)).astype(node.dtype)
    if node.dtype.kind == "b":
        return np.asarray(rng.random(size=node.shape) < 0.5)
    return np.asarray(rng.integers(0, 3, size=node.shape)).astype(node.dtype)
