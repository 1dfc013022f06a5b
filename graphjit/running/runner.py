"""The runner: passes one after another, watched.

Job: run every pass of every stage at one place, so that instruments can verify, time, dump, stop and compare.
Input: a pass and what it gets: a graph, a schedule (fusion, then program), loop kernels. Output: what it
makes.
Invariant: instruments look and may raise, they never change what runs; without instruments a pass costs one
call.

`pipeline.compile_graph` makes one `Runner`; the CLI and the tests give it instruments (`instruments.py`):

    runner = Runner([Verify(), timer := Time()])
    compile_graph(graph, runner=runner)
    print(timer.report())
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from graphjit.ir.node import Graph

T = TypeVar("T")
Pass = Callable[[Graph], Graph]


class Stop(Exception):
    """Raised by an instrument: no further pass runs."""


@dataclass(frozen=True)
class Step:
    """One pass at work: its number from 1, its stage (graph, schedule, loops) and its name."""

    index: int
    stage: str
    name: str

    def __str__(self) -> str:
        return f"pass {self.index} ({self.name})"


class Instrument:
    """Base: does nothing."""

    def before(self, step: Step, value: Any) -> None:
        """Called with what goes into a pass."""

    def after(self, step: Step, before: Any, value: Any) -> None:
        """Called with what goes in and comes out; may raise `Stop`."""


class Runner:
    """Runs passes and shows each to its instruments."""

    def __init__(self, instruments: Sequence[Instrument] = ()) -> None:
        self.instruments = tuple(instruments)
        self._count = itertools.count(1)

    def run(self, stage: str, name: str, work: Callable[[Any], T], value: Any) -> T:
        """``work(value)``, watched.

        Raises:
            Stop: an instrument wants no more.
        """
        if not self.instruments:
            return work(value)
        step = Step(next(self._count), stage, name)
        for instrument in reversed(self.instruments):  # a clock that stands first starts last and stops first
            instrument.before(step, value)
        made = work(value)
        for instrument in self.instruments:
            instrument.after(step, value, made)
        return made


def run(graph: Graph, passes: Iterable[Pass], instruments: Sequence[Instrument] = ()) -> Graph:
    """``graph`` after ``passes``, as far as the instruments let them run."""
    runner = Runner(instruments)
    try:
        for step in passes:
            graph = runner.run("graph", pass_name(step), step, graph)
    except Stop as stop:
        graph = stop.args[0] if stop.args else graph
    return graph


def pass_name(step: Callable[..., Any]) -> str:
    """What a pass is called in dumps."""
    return getattr(step, "__name__", type(step).__name__)
