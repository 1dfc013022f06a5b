"""The pipeline: the file to read first.

A traced graph goes through `GRAPH_PASSES`, is scheduled, lowered through `LOOP_PASSES`, and printed as LLVM.
Each list is the whole truth about its stage: order is the order in the list, and nothing else runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from graphjit import config, progress
from graphjit.backend.llvm.program import emit_program
from graphjit.backend.llvm.writing.text import Module
from graphjit.ir.node import Graph
from graphjit.ir.verify import verify
from graphjit.loops.assemble import lower_assembly
from graphjit.loops.collapse import collapse
from graphjit.loops.cost import nanoseconds
from graphjit.loops.ir import LoopKernel
from graphjit.loops.lower import lower_kernel
from graphjit.loops.parallel import parallelize
from graphjit.loops.sums import cut_sums
from graphjit.loops.sweep import lower_sweep
from graphjit.loops.vectorize import vectorize
from graphjit.loops.verify import verify_kernel
from graphjit.passes.decompose import decompose
from graphjit.passes.join_embeds import join_embeds
from graphjit.passes.simplify import simplify
from graphjit.schedule.align import align
from graphjit.schedule.contractions import split_contractions
from graphjit.schedule.fuse import Fusion, by_level, fuse
from graphjit.schedule.memory import own_outputs, plan
from graphjit.schedule.places import own_pieces
from graphjit.schedule.program import Assembly, Kernel, Product, Program, Sweep
from graphjit.schedule.recompute import decide, traffic_and_work
from graphjit.schedule.squeeze import squeeze
from graphjit.schedule.sweep import join_sweeps
from graphjit.schedule.unstack import unstack

GRAPH_PASSES = (
    simplify,
    decompose,
    simplify,
    join_embeds,
    split_contractions,
    simplify,
    unstack,
    simplify,
    squeeze,
    align,
    own_outputs,
    own_pieces,
)
LOOP_PASSES = (collapse, vectorize, parallelize, cut_sums)

SMALL_ARENA = 32_768
"""Bytes of intermediate values up to which the order of steps does not matter."""

WORTH = 16
"""Part of a schedule's cost that computing again must save: less is within the error of the reckoning."""

MANY_STEPS = 200
"""Steps above which a second schedule would cost more time than it can save."""


@dataclass
class Compiled:
    """Every stage of one compilation."""

    graph: Graph
    optimized: Graph
    fusion: Fusion
    program: Program
    kernels: dict[str, LoopKernel]
    module: Module

    @property
    def nanoseconds(self) -> int:
        """Estimated time of one run on one core."""
        return sum(nanoseconds(step, self.kernels.get(step.name)) for step in self.program.steps)


def optimize(graph: Graph) -> Graph:
    """Run the graph passes.

    Dead nodes never survive (a graph is what its outputs reach) and every rebuild interns, so there is no separate elimination of either.
    A pass that changes nothing returns its argument; what is simplified already is not simplified again.
    """
    simplified: Graph | None = None
    for step in GRAPH_PASSES:
        if step is simplify and graph is simplified:
            continue
        graph = step(graph)
        if step is simplify:
            simplified = graph
        if config.verify_passes:
            verify(graph)
    return graph


def schedule(graph: Graph, donated: Collection[int] = ()) -> tuple[Fusion, Program]:
    """Fuse and place; results may take over the memory of the inputs numbered in ``donated``.

    Values that would go through memory are kept or computed again as `recompute` decides, if that makes the schedule cheaper.
    Where intermediate values outgrow the first-level cache, steps are also tried in order of their distance from the inputs, which lets forward
    mode forget each layer behind it; the order that needs the smaller arena is taken.
    """
    fusion = join_sweeps(fuse(graph))
    decided = decide(graph, fusion)
    if decided:
        cheaper = join_sweeps(fuse(graph, decided=decided))
        if traffic_and_work(graph, cheaper) * WORTH < traffic_and_work(graph, fusion) * (WORTH - 1):
            fusion = cheaper
        else:
            decided = {}
    program = plan(graph, fusion, donated)
    if program.arena > SMALL_ARENA and len(program.steps) <= MANY_STEPS:
        other = join_sweeps(fuse(graph, by_level(graph), decided))
        placed = plan(graph, other, donated)
        if _fresh_bytes(placed) < _fresh_bytes(program):
            return other, placed
    return fusion, program


def _fresh_bytes(program: Program) -> int:
    """Memory that one run needs besides its arguments."""
    outputs = enumerate(program.graph.outputs)
    return program.arena + sum(out.type.nbytes for slot, out in outputs if slot not in program.in_place)


def lower_step(program: Program, step: Kernel | Assembly | Sweep) -> LoopKernel:
    """Loop IR of one step, before the loop passes."""
    if isinstance(step, Sweep):
        return lower_sweep(program, step)
    return lower_kernel(program, step) if isinstance(step, Kernel) else lower_assembly(program, step)


def lower(program: Program) -> dict[str, LoopKernel]:
    """Loop IR of every kernel, by name."""
    kernels = {}
    for step in program.steps:
        if isinstance(step, Product):
            continue
        kernel = lower_step(program, step)
        for loop_pass in LOOP_PASSES:
            kernel = loop_pass(kernel)
        if config.verify_passes:
            verify_kernel(kernel, len(program.errors))
        kernels[step.name] = kernel
    return kernels


def compile_graph(graph: Graph, donated: Collection[int] = ()) -> Compiled:
    """All stages up to LLVM text."""
    optimized = optimize(graph)
    progress.step("choosing kernels")
    fusion, program = schedule(optimized, donated)
    progress.step("writing loops")
    kernels = lower(program)
    progress.step("writing LLVM code")
    return Compiled(graph, optimized, fusion, program, kernels, emit_program(program, kernels))
