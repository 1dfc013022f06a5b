"""The pipeline: the file to read first.

A traced graph goes through `GRAPH_PASSES`, is scheduled, lowered through `LOOP_PASSES`, and printed as LLVM.
Each list is the whole truth about its stage: order is the order in the list, and nothing else runs. Between
them bodies of loops go the same way, `join_batches` joins loops whose bodies are done, and `schedule` runs
`fuse`, `join_sweeps`, `decide` and `plan`, some of them twice: it tries and chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graphjit import config, progress
from graphjit.backend.llvm.program import emit_program
from graphjit.backend.llvm.writing.text import Module
from graphjit.ir.node import Graph, Node
from graphjit.limits import Limits, host_limits
from graphjit.loops.cost import program_nanoseconds
from graphjit.loops.ir import LoopKernel, Lowered
from graphjit.loops.lowering.assemblies import lower_assembly
from graphjit.loops.lowering.kernels import lower_kernel
from graphjit.loops.lowering.points import lower_in_registers
from graphjit.loops.lowering.sweeps import lower_sweep
from graphjit.loops.passes.calls import call_functions
from graphjit.loops.passes.collapse import collapse
from graphjit.loops.passes.parallel import parallelize
from graphjit.loops.passes.prefetch import prefetch
from graphjit.loops.passes.seams import cut_at_seams
from graphjit.loops.passes.stream import stream
from graphjit.loops.passes.sums import cut_sums
from graphjit.loops.passes.tails import fit_tails
from graphjit.loops.passes.vectorize import vectorize
from graphjit.loops.passes.write_out import write_out
from graphjit.passes.bodies import inside
from graphjit.passes.decompose import decompose
from graphjit.passes.fission import fission
from graphjit.passes.join_embeds import join_embeds
from graphjit.passes.join_loops import join_loops
from graphjit.passes.join_segments import join_segments
from graphjit.passes.open_bodies import open_bodies
from graphjit.passes.simplify import simplify
from graphjit.passes.sum_onwards import sum_onwards
from graphjit.passes.tidy_loops import tidy_loops
from graphjit.passes.turn_constants import turn_constants
from graphjit.running.runner import Runner
from graphjit.schedule.batches.join import join_batches
from graphjit.schedule.fuse import Fusion, by_level, fuse
from graphjit.schedule.loops.control import name_steps, own_arguments, programs_of, share_errors
from graphjit.schedule.loops.staying import chains_of, lasting, readers_first
from graphjit.schedule.memory import own_outputs, plan
from graphjit.schedule.pieces import own_pieces
from graphjit.schedule.program import Assembly, Control, Kernel, Product, Program, Sweep
from graphjit.schedule.recompute import decide, traffic_and_work
from graphjit.schedule.rewrite.align import align
from graphjit.schedule.rewrite.contractions import split_contractions
from graphjit.schedule.rewrite.merge_batches import merge_batches
from graphjit.schedule.rewrite.splice import splice
from graphjit.schedule.rewrite.squeeze import squeeze
from graphjit.schedule.rewrite.unstack import unstack
from graphjit.schedule.sweep import join_sweeps


class Tuned:
    """A pass that reads thresholds: it takes the `Limits` of the compilation as its second argument."""

    def __init__(self, work: Callable[[Any, Limits], Any]) -> None:
        self.work = work
        self.__name__ = work.__name__

    def __call__(self, value: Any, limits: Limits) -> Any:
        return self.work(value, limits)


class Whole(Tuned):
    """A loop pass over all kernels of a program at once."""


GRAPH_PASSES = (
    open_bodies,
    simplify,
    join_loops,
    join_segments,
    tidy_loops,
    fission,
    simplify,
    tidy_loops,
    sum_onwards,
    turn_constants,
    decompose,
    simplify,
    merge_batches,
    join_embeds,
    Tuned(split_contractions),
    simplify,
    Tuned(unstack),
    simplify,
    squeeze,
    Tuned(align),
    own_outputs,
    splice,
    own_pieces,
    own_arguments,
)
LOOP_PASSES = (
    collapse,
    Tuned(cut_at_seams),
    Tuned(vectorize),
    Tuned(parallelize),
    Tuned(cut_sums),
    Tuned(call_functions),
    Tuned(prefetch),
    Whole(stream),
    Tuned(fit_tails),
    Whole(write_out),
)


def new_runner() -> Runner:
    """A runner with the instruments that the environment asks for; usually there are none."""
    if not config.verify_passes and config.dump_directory is None:
        return Runner()
    # With what it needs, some milliseconds of a first call.
    from graphjit.running.instruments import configured

    return Runner(configured())


def split_loops(graph: Graph) -> Graph:
    """``graph`` after the passes that decide what belongs into loops."""
    for step in GRAPH_PASSES[: GRAPH_PASSES.index(sum_onwards)]:
        graph = step(graph)  # type: ignore[operator, call-arg]
    return graph


def _bound(step: Callable[..., Any], limits: Limits) -> Callable[[Any], Any]:
    """A pass as a function of one argument."""
    return functools.partial(step, limits=limits) if isinstance(step, Tuned) else step


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
        return program_nanoseconds(self.program, self.kernels)


def optimize(graph: Graph, runner: Runner | None = None, limits: Limits | None = None) -> Graph:
    """Run the graph passes.

    Dead nodes never survive (a graph is what its outputs reach) and every rebuild interns, so there is no
    separate elimination of either. A pass that changes nothing returns its argument; what is simplified
    already is not simplified again.
    """
    runner, limits = runner or new_runner(), limits or host_limits()
    simplified: Graph | None = None
    for step in GRAPH_PASSES:
        if step is simplify and graph is simplified:
            continue
        graph = runner.run("graph", step.__name__, _bound(step, limits), graph)
        if step is simplify:
            simplified = graph
    if any(node.is_bundle for node in graph.nodes()):
        graph = runner.run("graph", "bodies", lambda graph: _optimize_bodies(graph, limits), graph)
        graph = runner.run("graph", "join_batches", join_batches, graph)
    return graph


def _optimize_bodies(graph: Graph, limits: Limits) -> Graph:
    """``graph`` with the graph passes run on the bodies of its loops and choices."""
    return inside(graph, lambda body: optimize(body, Runner(), limits))


def schedule(
    graph: Graph,
    donated: Collection[int] = (),
    runner: Runner | None = None,
    limits: Limits | None = None,
    handed: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Fusion, Program]:
    """Fuse and place; results may take over the memory of the inputs numbered in ``donated``. Where the
    result of a number in ``handed`` is the input of that number but for some elements, it stays where that
    lies.

    Values that would go through memory are kept or computed again as `recompute` decides, if that makes the
    schedule cheaper. Where intermediate values outgrow the first-level cache, steps are also tried in order
    of their distance from the inputs, which lets forward mode forget each layer behind it; the order that
    needs the smaller arena is taken.
    """
    runner, limits = runner or new_runner(), limits or host_limits()
    inner = {
        node: programs_of(node, lambda body, handed: schedule(body, (), Runner(), limits, handed)[1])
        for node in graph.nodes()
        if node.is_bundle
    }

    chains = chains_of(graph, handed, inner)
    order = readers_first(graph, chains) if chains else None

    def fused(order: list[Node] | None = order, **options: Any) -> Fusion:
        work = functools.partial(fuse, limits=limits, inner=inner, order=order, **options)
        apart = runner.run("schedule", "fuse", work, graph)
        return runner.run("schedule", "join_sweeps", functools.partial(join_sweeps, limits=limits), apart)

    def placed(fusion: Fusion) -> Program:
        return runner.run(
            "schedule", "plan", lambda fusion: plan(graph, fusion, donated, lasting(fusion, chains)), fusion
        )

    fusion = fused()
    decided = runner.run("schedule", "decide", lambda fusion: decide(graph, fusion, limits), fusion)
    if decided:
        cheaper = fused(decided=decided)
        worth = limits.schedule.worth
        if traffic_and_work(graph, cheaper, limits) * worth < traffic_and_work(graph, fusion, limits) * (
            worth - 1
        ):
            fusion = cheaper
        else:
            decided = {}
    program = placed(fusion)
    if program.arena > limits.schedule.small_arena and len(program.steps) <= limits.schedule.many_steps:
        by_distance = fused(order=by_level(graph), decided=decided)
        other = placed(by_distance)
        if _fresh_bytes(other) < _fresh_bytes(program) and len(other.staying) >= len(program.staying):
            fusion, program = by_distance, other
    if inner:  # programs inside are shared by all that was tried
        name_steps(program)
    return fusion, program


def _fresh_bytes(program: Program) -> int:
    """Memory that one run needs besides its arguments."""
    outputs = enumerate(program.graph.outputs)
    return program.arena + sum(out.type.nbytes for slot, out in outputs if slot not in program.in_place)


def lower_step(program: Program, step: Kernel | Assembly | Sweep | Control, limits: Limits) -> LoopKernel:
    """Loop IR of one step, before the loop passes."""
    if isinstance(step, Control):
        return lower_in_registers(program, step)
    if isinstance(step, Sweep):
        return lower_sweep(program, step, limits)
    if isinstance(step, Kernel):
        return lower_kernel(program, step)
    return lower_assembly(program, step, limits)


def lower(
    program: Program, runner: Runner | None = None, limits: Limits | None = None
) -> dict[str, LoopKernel]:
    """Loop IR of every kernel, by name."""
    runner, limits = runner or new_runner(), limits or host_limits()

    def lowered(program: Program) -> Lowered:
        share_errors(program)
        return Lowered(
            program,
            {
                step.name: lower_step(inner, step, limits)
                for inner in program.with_inner()
                for step in inner.steps
                if not isinstance(step, Product) and not (isinstance(step, Control) and not step.in_registers)
            },
        )

    made = runner.run("loops", "lower", lowered, program)
    for loop_pass in LOOP_PASSES:
        work = _bound(loop_pass, limits)
        if not isinstance(loop_pass, Whole):
            work = functools.partial(_each, work)
        made = runner.run("loops", loop_pass.__name__, work, made)
    return dict(made.kernels)


def _each(loop_pass: Callable[[LoopKernel], LoopKernel], lowered: Lowered) -> Lowered:
    return Lowered(lowered.program, {name: loop_pass(kernel) for name, kernel in lowered.kernels.items()})


def compile_graph(
    graph: Graph,
    donated: Collection[int] = (),
    runner: Runner | None = None,
    limits: Limits | None = None,
) -> Compiled:
    """All stages up to LLVM text."""
    runner, limits = runner or new_runner(), limits or host_limits()
    optimized = optimize(graph, runner, limits)
    progress.step("choosing kernels")
    fusion, program = schedule(optimized, donated, runner, limits)
    progress.step("writing loops")
    kernels = lower(program, runner, limits)
    progress.step("writing LLVM code")
    return Compiled(graph, optimized, fusion, program, kernels, emit_program(program, kernels, limits))
