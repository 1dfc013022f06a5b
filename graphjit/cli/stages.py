"""The stages of one function as the command line names them, and how long each took.

Input: a function, example arguments, the derivative asked for. Output: graphs, texts, times.
Invariant: the stages are those of `graphjit.lowered`, which users get from ``f.lower(*args)``; here is only
what the command line adds: the function beside its derivative, and the clock.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import graphjit
from graphjit import lowered as stages
from graphjit.backend.executable import Executable
from graphjit.cli.report import UsageError
from graphjit.errors import GraphjitError
from graphjit.ir.node import Graph
from graphjit.ir.printer import print_graph
from graphjit.lowered import Lowered
from graphjit.running.runner import Instrument, Runner, Step
from graphjit.trace.marks import dispatcher_of
from graphjit.trace.pytree import flatten, unflatten

GRAPH_STAGES = ("trace", "simplified", "gradient", "optimized")
STAGES = (*GRAPH_STAGES, *(stage for stage in stages.STAGES if stage not in stages.GRAPH_STAGES))

T = TypeVar("T")


@dataclass
class Stages:
    """One function on its way to machine code; ``derivative`` is "", "grad", "value_and_grad" or "jvp"."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    derivative: str = ""
    argnums: Sequence[int] = (0,)
    times: list[tuple[str, str, float]] = field(default_factory=list)
    instruments: Sequence[Instrument] = ()

    @cached_property
    def own(self) -> Lowered:
        """The function itself."""
        return self._timed("trace", "function", lambda: self._lowered(self.function, self.args))

    @cached_property
    def whole(self) -> Lowered:
        """What runs: the function, or its derivative."""
        if self.derivative:
            function, args = self._derived()
            found = self._timed("trace", self.derivative, lambda: self._lowered(function, args))
        else:
            found = self.own
        found.runner = Runner([_Times(self.times), *self.instruments])
        return found

    def graph(self, stage: str) -> Graph:
        """The graph of a graph stage."""
        if stage not in GRAPH_STAGES:
            raise UsageError(f"the stage {stage} is no graph; the graph stages are {', '.join(GRAPH_STAGES)}")
        if stage == "gradient" and not self.derivative:
            raise UsageError("the stage gradient needs --grad, --value-and-grad or --jvp")
        lowered = self.own if stage in ("trace", "simplified") else self.whole
        found: Graph = lowered.graph if stage in ("trace", "gradient") else getattr(lowered, stage)
        return found

    def text(self, stage: str, *, locations: bool = True) -> str:
        """A stage as people read it, with or without the lines of the user's code."""
        if stage in GRAPH_STAGES:
            return print_graph(self.graph(stage), locations=locations)
        return self.whole.as_text(stage)

    def timings(self) -> list[tuple[str, str, float]]:
        """(stage, step, milliseconds) of everything up to native code."""
        if self.derivative:
            _ = self.own
        whole = self.whole
        _ = whole.loops
        module = self._timed("llvm", "emit", lambda: whole.module)
        nanoseconds = whole.cost().total.nanoseconds
        self._timed("llvm", "machine code", lambda: Executable(whole.program, module, nanoseconds))
        return self.times

    # ------------------------------------------------------------------------------------------------- inside

    def _timed(self, stage: str, step: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self.times.append((stage, step, 1e3 * (time.perf_counter() - start)))
        return result

    def _lowered(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Lowered:
        compiled: Any = function if dispatcher_of(function) is not None else graphjit.jit(function)
        try:
            lowered: Lowered = compiled.lower(*args)
        except GraphjitError:
            raise
        except Exception as error:  # the user's code runs here, and may raise anything
            raise UsageError(f"tracing failed: {type(error).__name__}: {error}{_where(error)}") from None
        return lowered

    def _derived(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        argnums = self.argnums[0] if len(self.argnums) == 1 else tuple(self.argnums)
        if self.derivative == "grad":
            return graphjit.grad(self.function, argnums), self.args
        if self.derivative == "value_and_grad":
            return graphjit.value_and_grad(self.function, argnums), self.args
        function = self.function

        def jvp(primals: Any, tangents: Any) -> Any:
            return graphjit.jvp(function, primals, tangents)

        leaves, spec = flatten(self.args)
        return jvp, (self.args, unflatten(spec, list(_ones(leaves))))


class _Times(Instrument):
    """Milliseconds of every pass, among those of the other stages."""

    def __init__(self, rows: list[tuple[str, str, float]]) -> None:
        self._rows = rows
        self._started = 0.0

    def before(self, step: Step, value: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after(self, step: Step, before: Any, value: Any) -> None:
        """Stop it."""
        self._rows.append((step.stage, step.name, 1e3 * (time.perf_counter() - self._started)))


def _where(error: Exception) -> str:
    """The innermost line of the user's code that an exception came through, as far as there is one."""
    library = str(Path(graphjit.__file__).parent)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(library)
    ]
    return f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _ones(leaves: Iterable[Any]) -> Iterable[Any]:
    for leaf in leaves:
        yield np.ones_like(leaf) if isinstance(leaf, np.ndarray | np.generic) else type(leaf)(1)
