"""Loops and choices as steps: which programs run inside them, and what memory they need besides.

A node of control flow becomes one step, `Control`. A small one is one kernel (`schedule.loops.registers`). In
others each body is scheduled like any graph, to a program of its own. Its arguments and results are the
loop's: step t of a ``scan`` reads element t of an array where it lies and writes its results where they
belong, so nothing is copied.

Carries alternate between two places, their *home*, where the result of the loop is wanted, and a *spare* one.
Step t reads one and writes the other; the first step reads the initial values where they lie. Those that a
step changes in part only stay at home (`schedule.loops.staying`).

Input: a node, the programs of its bodies. Output: a `Control`; the layout of its scratch memory.
Invariant: scratch is used while the step runs only, and steps of one loop use the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, with_bodies
from graphjit.ir.types import Type
from graphjit.schedule.access import storage
from graphjit.schedule.loops.registers import runs_in_registers
from graphjit.schedule.loops.versions import changed_in_place
from graphjit.schedule.program import ALIGN, Control, Program, padded
from graphjit.transforms.control.loops import kinds_of

FLAG = 8
"""Bytes of the answer of a test."""


def graphs_of(node: Node) -> dict[str, Graph]:
    """The graphs inside a node of control flow, by what they are for."""
    if node.op.name == "cond":
        branches: Any = node.attrs["branches"]
        return {f"branch{i}": branch.graph for i, branch in enumerate(branches)}
    return {name: value.graph for name, value in node.attrs.items() if isinstance(value, Body)}


def programs_of(node: Node, scheduled: Callable[[Graph, dict[int, int]], Program]) -> dict[str, Program]:
    """The programs that a loop or a choice runs, made by ``scheduled``; none if it runs in registers.

    ``scheduled`` is told which results of a body are handed on to which of its inputs.
    """
    graphs = graphs_of(node)
    if runs_in_registers(node):
        return {}
    carries = range(len(node.args))[kinds_of(node)[1]] if "carried" in node.attrs else ()
    handed = {"body": dict(enumerate(carries))}
    return {role: scheduled(graph, handed.get(role, {})) for role, graph in graphs.items()}


def tapes_end_in(graph: Graph) -> bool:
    """Whether a body writes tapes, and leaves none to who runs it."""
    if any(out.type.record is not None for out in graph.outputs):
        return False
    return any(part.record is not None for node in with_bodies(graph) for part in _written(node))


def _written(node: Node) -> Sequence[Type]:
    """The results of a loop of unknown length."""
    return node.parts if node.op.name in ("while", "unwind") else ()


def control_step(graph: Graph, node: Node, inner: Mapping[str, Program]) -> Control:
    """The step that computes ``node``, a node of ``graph``; ``inner`` are its `programs_of`."""
    results: list[Node | None] = [None] * len(node.parts)
    for item in graph.nodes():
        if item.op.name == "item" and item.args[0] is node:
            results[item.attrs["index"]] = item  # type: ignore[call-overload]
    return Control(node, results, dict(inner))


def own_arguments(graph: Graph) -> Graph:
    """``graph`` with a copy of each argument of loops and choices that has no place in memory: constants and
    counted numbers.
    """
    nodes = graph.nodes()
    if not any(node.is_bundle for node in nodes):
        return graph
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in nodes:
        args = [replaced[arg] for arg in node.args]
        if node.is_bundle:
            b.like(node)
            args = [
                b.emit("copy", arg, slot=-1) if storage(arg).op.name in ("const", "iota") else arg
                for arg in args
            ]
        replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


@dataclass(frozen=True)
class Scratch:
    """Where the memory of a `Control` lies, in bytes from its beginning.

    ``arena`` is the arena of the programs inside, ``flag`` the answer of a test, ``spares`` the second places
    of carries, ``homes`` the places of results that nobody reads, by their number.
    """

    arena: int
    flag: int
    spares: tuple[int, ...]
    homes: Mapping[int, int]
    nbytes: int


def scratch(step: Control) -> Scratch:
    """The layout of the memory that ``step`` needs besides arguments and results."""
    node = step.node
    carried: Any = 0 if step.in_registers else node.attrs.get("carried", 0)
    at = -(-max((program.arena for program in step.inner.values()), default=0) // ALIGN) * ALIGN
    flag = at
    at += ALIGN if "test" in step.inner else 0
    spares, homes = [], {}
    in_memory = changed_in_place(node) if step.in_registers else range(len(node.parts))
    for number, part in enumerate(node.parts[:carried]):
        spares.append(at)
        if number not in step.staying:
            at += padded(part.nbytes)
            at = -(-at // ALIGN) * ALIGN
    for number, result in enumerate(step.results):
        if result is None and number in in_memory:
            homes[number] = at
            at += -(-max(node.parts[number].nbytes, 1) // ALIGN) * ALIGN
    return Scratch(0, flag, tuple(spares), homes, at)


def name_steps(program: Program, prefix: str = "") -> None:
    """Names for all steps, those of the programs inside others too: ``k0``, ``k1_body_k0``."""
    for i, step in enumerate(program.steps):
        step.name = f"{prefix}k{i}"
        if isinstance(step, Control):
            for role, inner in step.inner.items():
                name_steps(inner, f"{step.name}_{role}_")


def share_errors(program: Program) -> None:
    """One table of errors for a program and all inside it."""
    for step in program.steps:
        if isinstance(step, Control):
            for inner in step.inner.values():
                inner.errors = program.errors
                share_errors(inner)
