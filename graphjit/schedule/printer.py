"""Scheduled programs as text for people and the command line.

Job: what runs in which order, what it reads and writes, where every value lives.
Input: a `Program`, the `Fusion` it was planned from, and what each step costs (counted by
`graphjit.loops.cost`). Output: text.
Invariant: node numbers are those that `graphjit.ir.printer` gives the program's graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphjit.ir.buffers import Buffer
from graphjit.ir.names import name_text
from graphjit.ir.node import Node
from graphjit.ir.printer import node_text, number_nodes
from graphjit.ir.types import short
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.inplace import last_reads
from graphjit.schedule.loops.registers import batches_in_registers
from graphjit.schedule.program import Control, Cost, Kernel, Product, Program, Step, Sweep

WIDE = 64
"""Columns of the memory chart: with more steps than this, a column stands for several."""


@dataclass(frozen=True)
class Interval:
    """A value in the arena: where it lies and from which step to which it is kept."""

    buffer: Buffer
    offset: int
    nbytes: int
    first: int
    last: int


def print_program(program: Program, fusion: Fusion, costs: Mapping[str, Cost]) -> str:
    """Steps in execution order with their costs, the total, then buffers."""
    numbers = number_nodes(program.graph)
    lines = [f"program {name_text(program.name)}"]
    for i, step in enumerate(program.steps):
        lines.append(f"  {step.name} {step_head(step)}")
        lines += [f"    {line}" for line in _members(step, program, numbers)]
        read, made = fusion.from_outside(i), written(program, step)
        lines.append(f"    reads {_traffic(program, read)}; writes {_traffic(program, made)}")
        lines.append(f"    {_cost(costs[step.name])}")
    lines.append(f"  total {_cost(sum((costs[step.name] for step in program.steps), Cost()))}")
    kept = {interval.buffer: interval for interval in arena_intervals(program, fusion)}
    lines.append("  buffers")
    for buffer in buffers(program):
        place = f"{buffer.kind} {buffer.slot}"
        if buffer in kept:
            interval = kept[buffer]
            place = f"arena at {interval.offset}, {_steps(program, interval)}"
        if buffer.kind == "output" and buffer.slot in program.in_place:
            place += f", in place of in{program.in_place[buffer.slot]} (donated)"
        lines.append(
            f"    {buffer.name} : {short(buffer.dtype)}[{buffer.size}]  {buffer.nbytes} bytes  {place}"
        )
    lines.append(f"  arena {program.arena} bytes")
    lines += [
        f"  error {code} = {failure.kind.__name__}: {failure.text()}"
        for code, failure in enumerate(program.errors, 1)
    ]
    return "\n".join(lines) + "\n"


def print_steps(program: Program) -> str:
    """Steps in execution order and what they compute."""
    numbers = number_nodes(program.graph)
    lines = [f"program {name_text(program.name)}"]
    for step in program.steps:
        lines.append(f"  {step.name} {step_head(step)}")
        lines += [f"    {line}" for line in _members(step, program, numbers)]
    return "\n".join(lines)


def print_memory(program: Program, fusion: Fusion) -> str:
    """The arena over time: one column a step (or a few steps), one row a value in order of offset, and how
    full it is.

    ``o`` is the step that writes the value, ``#`` a step over which it is kept. The last row is the share of
    the arena, in tenths, that is taken at the fullest step of the column; ``X`` is all of it.
    """
    intervals = sorted(
        arena_intervals(program, fusion), key=lambda interval: (interval.offset, interval.first)
    )
    count = len(program.steps)
    lines = [f"arena {program.arena} bytes, {len(intervals)} values, {count} steps"]
    if not intervals:
        return lines[0] + "\n"
    width = -(-count // WIDE)
    columns = [range(i, min(i + width, count)) for i in range(0, count, width)]
    head = f"{'value':<6} {'bytes':>12}  {'from..to':>24}"
    lines.append(f"  {head}  {_ruler(program, width)}")
    for interval in intervals:
        life = "".join(_mark(interval, column) for column in columns)
        place = f"{interval.offset}..{interval.offset + interval.nbytes}"
        lines.append(
            f"  {interval.buffer.name:<6} {interval.nbytes:>12}  {place:>24}  {life}  {_steps(program, interval)}"
        )
    taken = _taken(intervals, count)
    shares = [max(taken[i] for i in column) for column in columns]
    full = "".join("X" if share >= program.arena else str(10 * share // program.arena) for share in shares)
    peak = max(range(count), key=taken.__getitem__)
    lines.append(f"  {'':<6} {'':>12}  {'tenths taken':>24}  {full}")
    lines.append(
        f"peak {taken[peak]} bytes in {program.steps[peak].name}, {100 * taken[peak] // program.arena} % of the arena"
    )
    return "\n".join(lines) + "\n"


def _ruler(program: Program, width: int) -> str:
    """The columns' heading: every tenth column has the number of its first step, as far as there is room."""
    count = -(-len(program.steps) // width)
    marks = "".join(f"{'k' + str(i * width):<10}" for i in range(0, count, 10)).rstrip()
    return marks + (f"  ({width} steps a column)" if width > 1 else "")


def _mark(interval: Interval, column: range) -> str:
    if interval.first in column:
        return "o"
    return "#" if interval.first < column[-1] and interval.last >= column[0] else "."


def _taken(intervals: list[Interval], count: int) -> list[int]:
    """Bytes of the arena that hold a value, step by step; a value written in place of another counts once
    with it.
    """
    taken = []
    for i in range(count):
        live = sorted((v.offset, v.offset + v.nbytes) for v in intervals if v.first <= i <= v.last)
        total = reach = 0
        for start, end in live:
            total += max(0, end - max(start, reach))
            reach = max(reach, end)
        taken.append(total)
    return taken


def buffers(program: Program) -> list[Buffer]:
    """Every buffer once: arguments, constants, results, arena."""
    rank = {"input": 0, "const": 1, "output": 2, "arena": 3, "local": 4, "scratch": 5}
    return sorted(
        set(program.buffers.values()), key=lambda buffer: (rank[buffer.kind], buffer.slot, buffer.name)
    )


def arena_intervals(program: Program, fusion: Fusion) -> list[Interval]:
    """Where and how long each value of the arena is kept."""
    last = last_reads(fusion)
    intervals = []
    seen: set[Node] = set()
    for i, step in enumerate(program.steps):
        for node in written(program, step) - seen:
            seen.add(node)
            buffer = program.buffers.get(node)
            if buffer is not None and buffer.kind == "arena":
                intervals.append(Interval(buffer, buffer.slot, buffer.nbytes, i, max(i, last.get(node, i))))
    return intervals


def step_head(step: Step) -> str:
    """What kind of step it is, and over what it runs."""
    if isinstance(step, Product):
        batch = f"{step.batch} times " if step.batch > 1 else ""
        shape = f"({step.m}, {step.k}) by ({step.k}, {step.n})"
        outer = {"rows": step.outer_rows, "terms": step.outer_terms}
        runs = "".join(f", {what} in runs {levels}" for what, levels in outer.items() if levels)
        return f"product, {batch}{shape}, strides {step.lhs} and {step.rhs}{runs}"
    if isinstance(step, Kernel):
        reduced = f" reducing axes {step.axes}" if step.axes is not None else ""
        return f"kernel over {step.space}{reduced}, cost {step.cost}"
    if isinstance(step, Sweep):
        batch = f"{step.batch} times " if step.batch > 1 else ""
        return f"sweep over {batch}{step.rows} rows, {step.block} at a time, in up to {step.tasks} tasks"
    if isinstance(step, Control):
        return _control_head(step)
    return f"assembly of {step.node.op.name}"


def _control_head(step: Control) -> str:
    attrs = step.node.attrs
    batches = [f"{batch.extent} elements" for batch in batches_in_registers(step.node)]
    each = f", for each of {' by '.join(batches)}" if batches else ""
    where = f"{each}, in registers" if step.in_registers else ""
    if step.staying:
        arrays = "an array" if len(step.staying) == 1 else f"{len(step.staying)} arrays"
        where += f", changes {arrays} in place"
    branches: Any = attrs.get("branches", ())
    if step.node.op.name == "scan":
        order = ", last step first" if attrs["reverse"] else ""
        length = attrs["length"]
        return f"scan of {length} {'step' if length == 1 else 'steps'}{order}{where}"
    words = {"while": "loop while its test holds", "unwind": "loop over a tape"}
    return words.get(step.node.op.name, f"choice of {len(branches)} branches") + where


def _members(step: Step, program: Program, numbers: dict[Node, int]) -> list[str]:
    if isinstance(step, Sweep):
        return [
            line
            for part in step.parts
            for line in (step_head(part), *(f"  {m}" for m in _members(part, program, numbers)))
        ]
    if isinstance(step, Control):
        items = [f"%{numbers[item]} = {node_text(item, numbers)}" for item in step.nodes]
        if step.in_registers:
            return items
        return items + [line for role, inner in step.inner.items() for line in _inside(role, inner)]
    if not isinstance(step, Kernel):
        return [f"%{numbers[step.node]} = {node_text(step.node, numbers)}"]
    lines = []
    for member in step.members:
        level = "row" if member.outer else "each"
        lines.append(
            f"phase {member.phase} {level:<4} %{numbers[member.node]} = {node_text(member.node, numbers)}"
        )
    return lines


def _inside(role: str, program: Program) -> list[str]:
    """The steps of a program inside a loop or a choice."""
    numbers = number_nodes(program.graph)
    lines = [f"{role} {name_text(program.name)}"]
    for step in program.steps:
        lines.append(f"  {step.name} {step_head(step)}")
        lines += [f"    {line}" for line in _members(step, program, numbers)]
    return lines


def _traffic(program: Program, nodes: set[Node]) -> str:
    touched = {program.buffers[node] for node in nodes if node in program.buffers}
    texts = [f"{buffer.name} ({buffer.nbytes} B)" for buffer in buffers(program) if buffer in touched]
    return ", ".join(texts) or "nothing"


def written(program: Program, step: Step) -> set[Node]:
    """Values that a step writes, whole or in part."""
    return {
        *step.nodes,
        *(piece.owner for node in step.nodes for piece in program.destinations.get(node, ())),
    }


def _cost(cost: Cost) -> str:
    return f"moves {cost.nbytes} B, {cost.flops} flops, about {cost.nanoseconds} ns"


def _steps(program: Program, interval: Interval) -> str:
    first, last = program.steps[interval.first].name, program.steps[interval.last].name
    return f"step {first}" if first == last else f"steps {first}..{last}"
