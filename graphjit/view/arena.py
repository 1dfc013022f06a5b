"""Memory over time: what lies where in the arena, and what the way back keeps.

Job: make rectangles of the memory plan, and say which values of the way there wait for the way back.
Input: a `Lowered`. Output: an `Arena`.
Invariant: offsets and lifetimes are those of `graphjit.schedule.printer.arena_intervals`, which
``inspect --memory`` prints; a value is kept if the way there makes it and a later step reads it for an
operation of the way back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphjit.ir.node import Location, Node
from graphjit.lowered import Lowered
from graphjit.schedule.loops.control import scratch
from graphjit.schedule.printer import arena_intervals
from graphjit.schedule.program import Control, Program
from graphjit.view.board import BACKWARD, FORWARD
from graphjit.view.graphs import PLACES, made_by, phase
from graphjit.view.work import step_work


@dataclass(frozen=True)
class Life:
    """A value in the arena, from step to step.

    Attributes:
        name: of the buffer, or of the loop whose own memory it is.
        offset: where it begins, in bytes.
        nbytes: its size.
        first: the step that writes it.
        last: the last step that reads it.
        type: of the value.
        loc: the line that made it.
        kept: whether it waits for the way back.
    """

    name: str
    offset: int
    nbytes: int
    first: int
    last: int
    type: str
    loc: Location | None
    kept: bool


@dataclass(frozen=True)
class Kept:
    """A value of the way there that the way back reads: where it lies, its size, who reads it."""

    name: str
    kind: str
    nbytes: int
    type: str
    op: str
    loc: Location | None
    made: str
    read: tuple[str, ...]


@dataclass
class Arena:
    """The arena of a program over its steps.

    Attributes:
        nbytes: its size.
        steps: their names.
        border: the first step that reads for the way back what an earlier one made, if there is one.
        lives: the values in it.
        kept: what the way back keeps, and which arguments and results it reads besides.
    """

    nbytes: int
    steps: list[str]
    border: int | None = None
    lives: list[Life] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)


def arena_of(lowered: Lowered) -> Arena:
    """The arena of the whole program."""
    program = lowered.program
    found = Arena(program.arena, [step.name for step in program.steps])
    readers, makers = _readers(program), _makers(program)
    kept = {node for node in readers if node not in makers or readers[node][-1] > makers[node]}
    nodes = {program.buffers[node]: node for node in makers if node in program.buffers}
    kept_buffers = {program.buffers[node] for node in kept if node in program.buffers}
    for one in sorted(arena_intervals(program, lowered.fusion), key=lambda one: (one.first, one.offset)):
        node = nodes[one.buffer]
        waits = one.buffer in kept_buffers
        found.lives.append(
            Life(
                one.buffer.name, one.offset, one.nbytes, one.first, one.last, str(node.type), node.loc, waits
            )
        )
    for i, step in enumerate(program.steps):
        if isinstance(step, Control) and (own := scratch(step).nbytes):
            name = f"inside {step.name}"
            found.lives.append(Life(name, step.scratch, own, i, i, "its own memory", step.node.loc, False))
    found.kept = _listed(program, kept, readers, makers)
    found.border = min((readers[node][0] for node in kept if node in makers), default=None)
    return found


def _makers(program: Program) -> dict[Node, int]:
    """The step that begins each stored value."""
    found: dict[Node, int] = {}
    for i, step in enumerate(program.steps):
        for node in step.nodes:
            found.setdefault(node, i)
            for piece in program.destinations.get(node, ()):
                found.setdefault(piece.owner, i)
    return found


def _readers(program: Program) -> dict[Node, list[int]]:
    """For each stored value of the way there: the steps that read it for the way back."""
    found: dict[Node, list[int]] = {}
    for i, step in enumerate(program.steps):
        for value, nodes in step_work(program, step).reads.items():
            if phase(value) == FORWARD and value.op.name not in ("const", "iota"):
                if any(phase(node) == BACKWARD for node in nodes if node.op.name not in PLACES):
                    found.setdefault(value, []).append(i)
    return found


def _listed(
    program: Program, kept: set[Node], readers: dict[Node, list[int]], makers: dict[Node, int]
) -> list[Kept]:
    """What is kept, the largest first; then arguments and results."""
    kinds = {"arena": "kept", "output": "result", "input": "argument"}
    rows = []
    for node in kept:
        buffer = program.buffers[node]
        if buffer.kind not in kinds:
            continue
        kind = "tape" if node.type.record is not None else kinds[buffer.kind]
        made = program.steps[makers[node]].name if node in makers else ""
        read = tuple(program.steps[i].name for i in readers[node])
        of = str(node.attrs["name"]) if node.op.name == "input" else made_by(node)
        rows.append(Kept(buffer.name, kind, buffer.nbytes, str(node.type), of, node.loc, made, read))
    order = ("tape", "kept", "result", "argument")
    return sorted(rows, key=lambda row: (order.index(row.kind), -row.nbytes, row.name))
