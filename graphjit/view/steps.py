"""A program as boxes: steps with their costs, what each computes, and why two of them are apart.

Input: a `Lowered`. Output: a `Board` whose edges are values on their way from step to step.
Invariants: bytes, operations and nanoseconds are those of ``lowered.cost()``; a step reads what
`graphjit.view.work` finds; names of steps and buffers are those of the printed program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphjit.ir.names import name_text
from graphjit.ir.node import Node
from graphjit.ir.printer import number_nodes
from graphjit.loops.cost import costs
from graphjit.lowered import Lowered
from graphjit.schedule.access import storage
from graphjit.schedule.fuse import Fusion, why_not_fused
from graphjit.schedule.printer import step_head, written
from graphjit.schedule.program import Control, Cost, Kernel, Product, Program, Step, Sweep
from graphjit.view.board import FORWARD, MIXED, TOP, Board, Edge, Item
from graphjit.view.graphs import PLACES, add_bodies, made_by, node_item, phase
from graphjit.view.work import Part, Work, nanoseconds, parts_of, runs_of, step_work, work_of

KINDS: tuple[tuple[type, str], ...] = (
    (Kernel, "kernel"),
    (Product, "product"),
    (Sweep, "sweep"),
    (Control, "loop"),
)
NOTE = (
    "What runs, step after step. An edge is a value that goes through memory, and says why its steps are two."
)


def step_board(lowered: Lowered, shares: Mapping[Node, float]) -> Board:
    """The board of the program; ``shares`` is what each node takes."""
    board = Board("program", "Program", NOTE)
    _Programs(board, lowered, shares).add(lowered.program, TOP, lowered.fusion, 1)
    return board


@dataclass
class _Scope:
    """One program, and who has each stored value.

    Attributes:
        program: the program.
        fusion: how it was fused; of programs inside others it is not kept.
        runs: how often it runs.
        numbers: of its nodes.
        holder: the item that wrote a stored value last, or the argument.
    """

    program: Program
    fusion: Fusion | None
    runs: int
    numbers: Mapping[Node, int]
    holder: dict[Node, int] = field(default_factory=dict)


class _Programs:
    """Puts programs into boxes."""

    def __init__(self, board: Board, lowered: Lowered, shares: Mapping[Node, float]) -> None:
        self.board = board
        self.kernels = lowered.loops
        self.shares = shares

    def add(self, program: Program, parent: int, fusion: Fusion | None, runs: int) -> None:
        """The arguments, steps and results of a program."""
        scope = _Scope(program, fusion, runs, number_nodes(program.graph))
        for node in program.graph.inputs:
            item = node_item(node, scope.numbers[node], parent, {})
            item.text = place(program, node)
            scope.holder[node] = self.board.add(item)
        each = costs(program, self.kernels)
        before: Step | None = None
        for step in program.steps:
            work = step_work(program, step)
            item = self.step_item(scope, step, work, each[step.name])
            item.parent = parent
            if before is not None and (why := _why_apart(fusion, before, step)):
                item.facts.append((f"not one with {before.name}", why))
            self.connect(scope, step, work, self.board.add(item))
            before = step
        for i, node in enumerate(program.graph.outputs):
            result = self.board.add(Item(f"result {i}", "output", type=str(node.type), parent=parent))
            source = storage(node)
            if source in scope.holder:
                self.board.edges.append(Edge(scope.holder[source], result, value_text(program, source)))

    def connect(self, scope: _Scope, step: Step, work: Work, box: int) -> None:
        """The edges of what a step reads and continues, then what is in its box."""
        for value in work.reads:
            if value in scope.holder:
                label = value_text(scope.program, value)
                why = _why(scope.fusion, value, step)
                self.board.edges.append(Edge(scope.holder[value], box, label, why))
        for node in sorted(written(scope.program, step), key=lambda node: node.serial):
            if node in scope.holder and node not in work.reads:
                label = f"{value_text(scope.program, node)}, a piece"
                self.board.edges.append(Edge(scope.holder[node], box, label))
            scope.holder[node] = box
        self.open(scope, step, box)

    def step_item(self, scope: _Scope, step: Step, work: Work, cost: Cost) -> Item:
        """A step as an item."""
        kind = next((kind for of, kind in KINDS if isinstance(step, of)), "assembly")
        if isinstance(step, Control) and step.node.op.name == "cond":
            kind = "choice"
        computing = [node for node in work.computes if node.op.name not in PLACES]
        dearest = max(computing, key=lambda node: self.shares.get(node, 0.0), default=None)
        facts = [
            ("reads", _traffic(scope.program, work.reads)),
            ("writes", _traffic(scope.program, written(scope.program, step))),
            ("moves", f"{cost.nbytes} B"),
            ("computes", f"{cost.flops} flops"),
            ("takes about", f"{cost.nanoseconds} ns"),
        ]
        if scope.runs != 1:
            facts.append(("runs", f"{scope.runs} times"))
        phases = {phase(node) for node in step.nodes or computing}
        return Item(
            label=step.name,
            kind=kind,
            type=_names(step.nodes),
            text=step_head(step),
            loc=dearest.loc if dearest else None,
            phase=phases.pop() if len(phases) == 1 else MIXED if phases else FORWARD,
            facts=facts,
            nanoseconds=float(cost.nanoseconds * scope.runs),
        )

    def open(self, scope: _Scope, step: Step, box: int) -> None:
        """What is in the box of a step: programs, bodies, or what is computed."""
        if isinstance(step, Control) and step.in_registers:
            add_bodies(self.board, step.node, box, self.shares)
        elif isinstance(step, Control):
            runs = scope.runs * runs_of(step.node)
            if len(step.inner) == 1:
                self.add(next(iter(step.inner.values())), box, None, runs)
                return
            for role, inner in step.inner.items():
                item = Item(role, "body", text=name_text(inner.name), loc=step.node.loc, parent=box)
                item.nanoseconds = float(nanoseconds(inner, self.kernels) * runs)
                self.add(inner, self.board.add(item), None, runs)
        else:
            parts = parts_of(step)
            for i, part in enumerate(parts):
                inside = self.part_box(i, part, box) if len(parts) > 1 else box
                members = self.members(scope, part, inside)
                if inside != box:
                    self.board.items[inside].nanoseconds = sum(
                        self.board.items[n].nanoseconds for n in members
                    )

    def part_box(self, number: int, part: Part, box: int) -> int:
        """The box of one part of a sweep."""
        kind = "product" if isinstance(part, Product) else "kernel"
        item = Item(f"part {number}", kind, type=_names(part.nodes), text=step_head(part), parent=box)
        item.loc = part.nodes[-1].loc
        item.phase = phase(part.nodes[-1])
        return self.board.add(item)

    def members(self, scope: _Scope, part: Part, box: int) -> list[int]:
        """The nodes that a part computes, inlined ones too, and the stored values that it reads."""
        work = work_of(scope.program, part)
        kept = set(part.nodes)
        places: dict[Node, int] = {}
        for value in work.reads:
            item = node_item(value, scope.numbers[value], box, {})
            item.label, item.kind, item.hidden = place(scope.program, value), "value", False
            item.loc, item.text, item.nanoseconds = None, "", 0.0
            places[value] = self.board.add(item)
        for node in work.computes:
            item = node_item(node, scope.numbers[node], box, self.shares)
            if node in scope.program.buffers:
                item.facts.append(("stored", f"in {place(scope.program, node)}"))
            elif not item.hidden:
                where = "in registers" if node in kept else "no: computed where it is read"
                item.facts.append(("stored", where))
            args = (arg if arg in places else storage(arg) for arg in node.args)
            item.args = [places[arg] for arg in args if arg in places]
            places[node] = self.board.add(item)
        return list(places.values())


def place(program: Program, node: Node) -> str:
    """Where a value lies and how large it is: ``a4 (64 B)``."""
    buffer = program.buffers.get(node)
    return f"{buffer.name} ({buffer.nbytes} B)" if buffer else "registers"


def value_text(program: Program, node: Node) -> str:
    """A value on an edge: its buffer and its type, ``a4 f64[8]``; of an argument the type."""
    buffer = program.buffers.get(node)
    named = buffer is not None and buffer.kind != "input"
    return f"{buffer.name} {node.type}" if buffer and named else str(node.type)


def _names(nodes: Iterable[Node]) -> str:
    """The operations of a step, each once."""
    return " ".join(dict.fromkeys(map(made_by, nodes)))


def _traffic(program: Program, values: Iterable[Node]) -> str:
    """Buffers and their sizes."""
    stored = {
        program.buffers[value].name: place(program, value) for value in values if value in program.buffers
    }
    return (
        ", ".join(stored[name] for name in sorted(stored, key=lambda name: (name[0], len(name), name)))
        or "nothing"
    )


def _why(fusion: Fusion | None, value: Node, step: Step) -> str:
    """Why a step that reads a value does not compute it too."""
    if fusion is None or value not in fusion.position:
        return ""
    roots = [node for node in step.nodes if node in fusion.position]
    refused = [node for node in roots if (fusion.position[value], node) in fusion.refusals]
    return why_not_fused(fusion, value, (refused or roots)[0]) if roots else ""


def _why_apart(fusion: Fusion | None, first: Step, second: Step) -> str:
    """Why two neighbouring steps are apart, as ``graphjit inspect --why-not-fused`` says it."""
    if fusion is None or not first.nodes or not second.nodes:
        return ""
    return why_not_fused(fusion, first.nodes[-1], second.nodes[0])
