"""Every stage of the compilation of one function, computed when it is asked for, and timed.

Input: a function, example arguments, the derivative asked for. Output: graphs, schedules, loops, text.
Invariant: the passes are those of `graphjit.pipeline`.
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
from graphjit import pipeline
from graphjit.backend.executable import Executable
from graphjit.backend.llvm.objects.jit import assembly
from graphjit.backend.llvm.program import emit_program
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.numba.emit import print_program as print_python
from graphjit.cli.report import UsageError
from graphjit.errors import GraphjitError
from graphjit.ir.node import Graph
from graphjit.ir.printer import print_graph
from graphjit.loops.cost import costs
from graphjit.loops.ir import LoopKernel
from graphjit.loops.printer import print_kernel
from graphjit.passes.fold import fold
from graphjit.passes.simplify import simplify
from graphjit.running.runner import Instrument, Runner, Step
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.printer import print_program
from graphjit.schedule.program import Program
from graphjit.trace.marks import dispatcher_of
from graphjit.trace.pytree import flatten, unflatten

GRAPH_STAGES = ("trace", "simplified", "gradient", "optimized")
STAGES = (*GRAPH_STAGES, "program", "loops", "numba", "llvm", "asm")

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
    def runner(self) -> Runner:
        """Runs all passes of this compilation."""
        return Runner([_Times(self.times), *self.instruments])

    # ---------------------------------------------------------------------------------------------- the steps

    @cached_property
    def trace(self) -> Graph:
        """The function's own graph."""
        return self._timed("trace", "function", lambda: self._staged(self.function, self.args))

    @cached_property
    def simplified(self) -> Graph:
        """The function's own graph, simplified."""
        return simplify(fold(self.trace))

    @cached_property
    def gradient(self) -> Graph:
        """The traced graph with the derivative, before any pass."""
        if not self.derivative:
            raise UsageError("the stage gradient needs --grad, --value-and-grad or --jvp")
        function, args = self._derived()
        return self._timed("trace", self.derivative, lambda: self._staged(function, args))

    @cached_property
    def optimized(self) -> Graph:
        """The whole graph after the graph passes."""
        return pipeline.optimize(self.gradient if self.derivative else self.trace, self.runner)

    @cached_property
    def scheduled(self) -> tuple[Fusion, Program]:
        """Fusion and storage, with the order of steps that the pipeline takes."""
        return pipeline.schedule(self.optimized, self._donated(), self.runner)

    @property
    def fusion(self) -> Fusion:
        """Which nodes share a kernel."""
        return self.scheduled[0]

    @property
    def program(self) -> Program:
        """Steps and storage."""
        return self.scheduled[1]

    @cached_property
    def kernels(self) -> dict[str, LoopKernel]:
        """Loop IR by step name."""
        return pipeline.lower(self.program, self.runner)

    @cached_property
    def module(self) -> Module:
        """LLVM text, in pieces."""
        kernels = self.kernels
        return self._timed("llvm", "emit", lambda: emit_program(self.program, kernels))

    # --------------------------------------------------------------------------------------------------- text

    def graph(self, stage: str) -> Graph:
        """The graph of a graph stage."""
        if stage not in GRAPH_STAGES:
            raise UsageError(f"the stage {stage} is no graph; the graph stages are {', '.join(GRAPH_STAGES)}")
        found: Graph = getattr(self, stage)
        return found

    def text(self, stage: str, *, locations: bool = True) -> str:
        """A stage as people read it, with or without the lines of the user's code."""
        if stage in GRAPH_STAGES:
            return print_graph(self.graph(stage), locations=locations)
        kernels = self.kernels  # lowering also fills the program's table of errors
        if stage == "program":
            return print_program(self.program, self.fusion, costs(self.program, kernels))
        if stage == "loops":
            return "\n".join(map(print_kernel, kernels.values()))
        if stage == "numba":
            return print_python(self.program, kernels)
        text = self.module.render()
        return assembly(text) if stage == "asm" else text

    def timings(self) -> list[tuple[str, str, float]]:
        """(stage, step, milliseconds) of everything up to native code."""
        trace, module, kernels = self.trace, self.module, self.kernels
        compiled = pipeline.Compiled(trace, self.optimized, self.fusion, self.program, kernels, module)
        nanoseconds = compiled.nanoseconds
        self._timed("llvm", "machine code", lambda: Executable(self.program, module, nanoseconds))
        return self.times

    # ------------------------------------------------------------------------------------------------- inside

    def _timed(self, stage: str, step: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self.times.append((stage, step, 1e3 * (time.perf_counter() - start)))
        return result

    def _staged(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Graph:
        compiled: Any = function if dispatcher_of(function) is not None else graphjit.jit(function)
        try:
            graph: Graph = compiled.dispatcher.staged(*args).graph
        except GraphjitError:
            raise
        except Exception as error:  # the user's code runs here, and may raise anything
            raise UsageError(f"tracing failed: {type(error).__name__}: {error}{_where(error)}") from None
        return graph

    def _donated(self) -> tuple[int, ...]:
        """Inputs that the function itself declares as donated."""
        dispatcher = dispatcher_of(self.function)
        return () if self.derivative or dispatcher is None else dispatcher.donated(self.args, {})

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
