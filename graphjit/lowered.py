"""Every stage of one compilation, as objects and as text, computed when it is asked for.

Job: follow one traced graph to machine code, and say what it will cost.
Input: a graph, the inputs that the caller gives up. Output: graphs, program, loops, texts, costs, memory.
Invariants: the passes are those of `graphjit.pipeline`, so what is shown is what runs; each stage is made
once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphjit import pipeline
from graphjit.backend.llvm.objects.jit import assembly
from graphjit.backend.llvm.program import emit_program
from graphjit.backend.llvm.writing.text import Module
from graphjit.ir.names import name_text
from graphjit.ir.node import Graph
from graphjit.ir.printer import ReadableGraph, print_graph
from graphjit.loops.cost import costs
from graphjit.loops.ir import LoopKernel
from graphjit.loops.printer import print_kernel
from graphjit.passes.fold import fold
from graphjit.passes.simplify import simplify
from graphjit.running.runner import Runner
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.printer import print_program
from graphjit.schedule.program import Cost, Program

GRAPH_STAGES = ("trace", "simplified", "optimized")
STAGES = (*GRAPH_STAGES, "program", "loops", "numba", "llvm", "asm")


@dataclass(frozen=True)
class Costs:
    """What a program does in one run on one core, by estimate.

    A `Cost` has three numbers: ``nbytes``, the bytes that must be moved between memory and processor,
    ``flops``, the operations on floating-point numbers, and ``nanoseconds``.
    """

    steps: Mapping[str, Cost]
    """By name of the step (``k0``, ``k1`` ...), in the order in which they run."""

    @property
    def total(self) -> Cost:
        """All steps together."""
        return sum(self.steps.values(), Cost())


@dataclass(frozen=True)
class Memory:
    """Bytes that one run of a program needs."""

    arguments: int
    """Arrays and numbers that the caller passes."""
    captured: int
    """Arrays that the function reads from outside."""
    results: int
    """What the call returns, and what `debug.print` shows."""
    donated: int
    """The part of the results that may lie in donated arguments instead of new memory."""
    constants: int
    """Arrays that are compiled in."""
    arena: int
    """Intermediate values, at the peak. It is one block of memory, kept from call to call."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.arguments + self.captured + self.results - self.donated + self.constants + self.arena


class Lowered:
    """A call of a compiled function on its way to machine code, stage by stage.

    ``f.lower(*args)`` makes it. Nothing has run; each stage is made when it is asked for.
    """

    def __init__(
        self,
        graph: Graph,
        donated: Collection[int] = (),
        captured: int = 0,
        make: Callable[[], Any] | None = None,
        show: Callable[[Lowered], str] | None = None,
    ) -> None:
        self.graph = ReadableGraph.of(graph)
        """What was recorded, derivatives included."""
        self._donated = donated
        self._captured = captured
        self._make = make
        self._show = show

    def __repr__(self) -> str:
        return f"<graphjit.Lowered {name_text(self.graph.name)}: {len(self.graph)} nodes>"

    def _repr_html_(self) -> str | None:
        """What notebooks show."""
        return self._show(self) if self._show is not None else None

    # ----------------------------------------------------------------------------------------------- stages

    @cached_property
    def runner(self) -> Runner:
        """What runs the passes; another one may be put here before the first stage is asked for."""
        return pipeline.new_runner()

    @cached_property
    def simplified(self) -> ReadableGraph:
        """What was recorded, simplified by itself: for people who compare."""
        return ReadableGraph.of(simplify(fold(self.graph)))

    @cached_property
    def optimized(self) -> ReadableGraph:
        """The graph after all graph passes."""
        return ReadableGraph.of(pipeline.optimize(self.graph, self.runner))

    @cached_property
    def _scheduled(self) -> tuple[Fusion, Program]:
        return pipeline.schedule(self.optimized, self._donated, self.runner)

    @property
    def fusion(self) -> Fusion:
        """Which nodes share a kernel."""
        return self._scheduled[0]

    @property
    def program(self) -> Program:
        """The steps in the order in which they run, and where each value lies."""
        return self._scheduled[1]

    @cached_property
    def loops(self) -> dict[str, LoopKernel]:
        """The loops of each step, by its name."""
        return pipeline.lower(self.program, self.runner)

    @cached_property
    def module(self) -> Module:
        """The LLVM code, in pieces."""
        return emit_program(self.program, self.loops)

    # ------------------------------------------------------------------------------------------------- texts

    def as_text(self, stage: str = "optimized", *, locations: bool = True) -> str:
        """Show one stage as text.

        Parameters
        ----------
        stage : {"trace", "simplified", "optimized", "program", "loops", "numba", "llvm", "asm"}, optional
            Three graphs, the steps with their costs, the loops, the loops as Python for Numba, LLVM code,
            machine code.
        locations : bool, optional
            Whether graphs name the lines of the source.

        Returns
        -------
        str
            The text.
        """
        if stage in GRAPH_STAGES:
            graph: Graph = self.graph if stage == "trace" else getattr(self, stage)
            return print_graph(graph, locations=locations)
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}")
        loops = self.loops  # making them also fills the program's table of errors
        if stage == "program":
            return print_program(self.program, self.fusion, self.cost().steps)
        if stage == "loops":
            return "\n".join(map(print_kernel, loops.values()))
        if stage == "numba":
            from graphjit.backend.numba.emit import print_program as print_python  # rarely asked for

            return print_python(self.program, loops)
        text = self.module.render()
        return assembly(text) if stage == "asm" else text

    # ------------------------------------------------------------------------------------------ what it takes

    def cost(self) -> Costs:
        """Estimate what each step does: bytes moved, operations, nanoseconds on one core.

        Returns
        -------
        Costs
            ``total``, and ``steps`` by name.
        """
        return Costs(costs(self.program, self.loops))

    def memory(self) -> Memory:
        """Count the memory of one run.

        Returns
        -------
        Memory
            Bytes of arguments, captured arrays, results, constants and intermediate values.
        """
        program = self.program
        sizes = [node.type.nbytes for node in program.graph.inputs]
        own = len(sizes) - self._captured
        results = [node.type.nbytes for node in program.graph.outputs]
        return Memory(
            arguments=sum(sizes[:own]),
            captured=sum(sizes[own:]),
            results=sum(results),
            donated=sum(results[number] for number in program.in_place),
            constants=sum(array.nbytes for array in program.constants),
            arena=program.arena,
        )

    # ----------------------------------------------------------------------------------------------- and then

    def compile(self) -> Any:
        """Make native code for calls like this one.

        Returns
        -------
        callable
            A compiled function of the same arguments. It never traces again: arguments of other types,
            shapes, structures or static values are a TypeError.
        """
        if self._make is None:
            raise TypeError("a graph alone has no calling convention; lower a compiled function")
        return self._make()
