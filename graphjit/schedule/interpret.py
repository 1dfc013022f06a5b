"""Run a schedule without making loops of it: which schedule pass made a fault?

Job: run the steps of a fusion or of a program in order. What a step stores is computed by the interpreter of
graphs from what earlier steps stored, and from nothing else. On the way, check what the later stages rely on:
a value is written before it is read, members of a kernel read each other at the same point of the loops, and
no value lies in memory that another one, which is still read, was written to.
Input: a graph, its fusion, for `run_program` also its program; arrays for the inputs.  Output: arrays.
Invariant: slow, for `graphjit.running.instruments.Compare` and tests. Whole arrays are computed at a time;
that an element or a block of rows needs no other one is tried by computing it again with other values
everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphjit.errors import IRError
from graphjit.interpret import evaluate
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce, Scalar, Scan, View
from graphjit.schedule.access import operands, storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.inplace import read_only_here
from graphjit.schedule.program import Assembly, Control, Kernel, Member, Product, Program, Step, Sweep
from graphjit.schedule.roots import must_be_stored
from graphjit.schedule.sweep import sums_over_rows

POINTS = 3
"""Points of a kernel at which reads between its members are tried."""


def run_fusion(graph: Graph, fusion: Fusion, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of ``graph``, step by step; every stored value has memory of its own.

    Raises:
        IRError: a step reads what is not there yet, or at another point of the loops.
    """
    return _Run(graph, fusion, _Storage(graph, inputs)).outputs()


def run_program(program: Program, fusion: Fusion, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of a program, with values where it puts them: in the arena, results in the memory of donated
    arguments.

    Raises:
        IRError: as in `run_fusion`; a value without storage is read later, one that is still read was
            overwritten, or one lies outside of its buffer.
    """
    return _Run(program.graph, fusion, _Memory(program, fusion, inputs)).outputs()


def check_decision(graph: Graph, decided: Mapping[Node, bool]) -> None:
    """What `recompute.decide` may decide about: elementwise values that need not be stored.

    Raises:
        IRError: it is something else.
    """
    nodes = set(graph.nodes())
    must = must_be_stored(graph, nodes)
    for node in decided:
        if node not in nodes:
            raise IRError(f"{node!r} is decided about and is not in the graph")
        if node in must or not isinstance(node.op.lower, Scalar):
            raise IRError(f"{node!r} is decided about and must be stored")


# -------------------------------------------------------------------------------------------------- storage


class _Storage:
    """Stored values, flat, each in an array of its own."""

    def __init__(self, graph: Graph, inputs: Sequence[np.ndarray]) -> None:
        self.arrays = {
            node: np.array(value).reshape(-1) for node, value in zip(graph.inputs, inputs, strict=True)
        }
        self.written = {node: np.ones(node.type.size, np.bool_) for node in graph.inputs}
        self.step_of: dict[Node, Step] = {}  # that wrote a value last

    def keeps(self, node: Node) -> bool:
        """Whether a value can be read after the loops that compute it."""
        return True

    def allocate(self, node: Node) -> np.ndarray:
        """Memory for a value."""
        return np.empty(node.type.size, node.dtype)

    def write(
        self,
        step: Step,
        part: Kernel | Assembly | Product | Control,
        node: Node,
        value: np.ndarray,
        addresses: np.ndarray | None = None,
    ) -> None:
        """Write a value, or the elements of it at ``addresses``."""
        if node not in self.arrays:
            self.begin(node)
        where: np.ndarray | slice = slice(None) if addresses is None else addresses
        self.arrays[node][where] = value.reshape(-1)
        self.written[node][where] = True
        self.step_of[node] = step

    def begin(self, node: Node) -> None:
        """Give a value memory, in which nothing is written."""
        self.arrays[node] = self.allocate(node)
        self.written[node] = np.zeros(node.type.size, np.bool_)

    def overwrites(self, node: Node) -> list[Node]:
        """The values in whose memory a value is written."""
        return []

    def read(self, reader: str, node: Node) -> np.ndarray:
        """The whole value."""
        if node not in self.arrays or not self.written[node].all():
            raise IRError(f"{reader} reads {node!r} before all of it is written")
        return self.arrays[node].reshape(node.shape)


class _Memory(_Storage):
    """Stored values where a program puts them."""

    def __init__(self, program: Program, fusion: Fusion, inputs: Sequence[np.ndarray]) -> None:
        super().__init__(program.graph, inputs)
        self.program = program
        self.fusion = fusion
        self.arena = np.zeros(program.arena, np.uint8)
        self.donated = {i: self.arrays[node] for i, node in enumerate(program.graph.inputs)}
        self.spans: dict[Node, tuple[str, int, int]] = {
            node: (f"in{i}", 0, node.type.nbytes) for i, node in enumerate(program.graph.inputs)
        }
        self.destroyed: dict[Node, str] = {}
        self.read_in: dict[Node, Step | None] = {}
        self.step: Step | None = None

    def keeps(self, node: Node) -> bool:
        return node in self.program.buffers

    def allocate(self, node: Node) -> np.ndarray:
        buffer = self.program.buffers[node]
        start, nbytes = buffer.slot, node.type.nbytes
        if buffer.kind == "output":
            donor = self.program.in_place.get(buffer.slot)
            self.spans[node] = (f"out{buffer.slot}" if donor is None else f"in{donor}", 0, nbytes)
            return super().allocate(node) if donor is None else self.donated[donor]
        if buffer.kind != "arena" or node.dtype.names:  # a tape is an object here, not bytes
            self.spans[node] = (buffer.name, 0, nbytes)
            return super().allocate(node)
        self.spans[node] = ("arena", start, start + nbytes)
        if start + nbytes > len(self.arena):
            raise IRError(f"{node!r} lies outside of the arena")
        array: np.ndarray = self.arena[start : start + nbytes].view(node.dtype)
        return array

    def write(
        self,
        step: Step,
        part: Kernel | Assembly | Product | Control,
        node: Node,
        value: np.ndarray,
        addresses: np.ndarray | None = None,
    ) -> None:
        super().write(step, part, node, value, addresses)
        for other in self.overwrites(node):
            if self.step_of.get(other) is step:
                raise IRError(f"{step.name} writes {node!r} and {other!r} to the same memory")
            if self.read_in.get(other) is step and not (
                isinstance(part, Kernel) and part is step and read_only_here(self.fusion, part, node, other)
            ):
                raise IRError(f"{step.name} writes {node!r} over {other!r}, which it still reads")
            self.destroyed[other] = f"{step.name} has written {node!r} over it"

    def overwrites(self, node: Node) -> list[Node]:
        if node not in self.spans:
            self.begin(node)
        region, start, stop = self.spans[node]
        return [
            other
            for other, (place, first, last) in self.spans.items()
            if other is not node and place == region and first < stop and start < last
        ]

    def read(self, reader: str, node: Node) -> np.ndarray:
        if node in self.destroyed:
            raise IRError(f"{reader} reads {node!r}, but {self.destroyed[node]}")
        self.read_in[node] = self.step
        return super().read(reader, node)


# ---------------------------------------------------------------------------------------------------- steps


class _Run:
    """Runs the steps of a schedule."""

    def __init__(self, graph: Graph, fusion: Fusion, memory: _Storage) -> None:
        self.graph = graph
        self.fusion = fusion
        self.memory = memory
        self.step: Step
        self.reader = ""
        self.members: dict[Node, Member] = {}  # of the kernel that runs
        self.registers: dict[Node, np.ndarray] = {}
        self.computed: dict[Node, np.ndarray] = {}  # all values of the kernel, for trying points
        self.inline: dict[Node, np.ndarray] = {}  # what is computed where it is read
        self.made_by_parts: set[Node] = set()  # what the parts of the step made so far
        self.elsewhere: Mapping[Node, np.ndarray] = {}  # values that are tried instead of stored ones
        for node in graph.nodes():
            if node.op.name == "const" and node in fusion.stored:
                memory.arrays[node] = evaluate(node, []).reshape(-1)
                memory.written[node] = np.ones(node.type.size, np.bool_)

    def outputs(self) -> list[np.ndarray]:
        """Run everything."""
        with np.errstate(all="ignore"):
            for i, step in enumerate(self.fusion.steps):
                self.step, self.reader = step, step.name or f"step {i}"
                if isinstance(self.memory, _Memory):
                    self.memory.step = step
                self.run_step(step)
        return [
            self.memory.read("the caller", storage(out)).reshape(out.shape).copy()
            for out in self.graph.outputs
        ]

    def run_step(self, step: Step) -> None:
        self.made_by_parts = set()
        if isinstance(step, Control):
            self.run_control(step)
            return
        for part in step.parts if isinstance(step, Sweep) else (step,):
            self.inline = {}
            if isinstance(part, Kernel):
                self.run_kernel(part)
            else:
                self.members, self.registers, self.computed = {}, {}, {}
                node = part.node
                if isinstance(part, Product) and not sums_over_rows(part):
                    self.try_rows(node, None, map(storage, node.args))
                self.store(part, node, evaluate(node, self.arguments(node, None)))
            self.made_by_parts.update(part.nodes)

    def run_control(self, step: Control) -> None:
        """A loop or a choice: its programs are run as the graphs that they are of."""
        self.inline, self.members, self.registers, self.computed = {}, {}, {}, {}
        found = evaluate(step.node, self.arguments(step.node, None))
        for item, value in zip(step.results, found, strict=True):
            if item is not None:
                self.store(step, item, value)

    def run_kernel(self, kernel: Kernel) -> None:
        """Phase by phase: elements, then rows.  What a phase stores is written after it has read."""
        self.members = {member.node: member for member in kernel.members}
        self.registers, self.computed = {}, {}
        for phase in sorted({member.phase for member in kernel.members}):
            members = sorted(
                (member for member in kernel.members if member.phase == phase),
                key=lambda member: member.outer,
            )
            for member in members:
                self.inline = {}
                args = self.arguments(member.node, member)
                self.registers[member.node] = self.computed[member.node] = evaluate(member.node, args)
                self.try_members(kernel, member)
                self.try_rows(member.node, member, (value for value, _ in self.fusion.reads[member.node]))
            for member in members:
                self.try_overwriting(kernel, member)
            for member in members:
                self.store(kernel, member.node, self.registers[member.node])
                if not member.is_row:  # after its phase a value of the elements is read from memory
                    del self.registers[member.node]

    def store(self, part: Kernel | Assembly | Product | Control, node: Node, value: np.ndarray) -> None:
        """Write a root to its storage, and where it is a piece."""
        if self.memory.keeps(node):
            self.memory.write(self.step, part, node, value)
        for piece in self.fusion.destinations.get(node, ()):
            index = np.indices(node.shape).reshape(len(node.shape), node.type.size)
            factors = np.asarray(piece.factors, np.int64).reshape(-1, 1)
            addresses = piece.offset + (index * factors).sum(axis=0)
            self.memory.write(self.step, part, piece.owner, value, addresses)

    # --------------------------------------------------------------------------------------------- values

    def arguments(self, node: Node, reader: Member | None) -> list[np.ndarray]:
        """The values that a node is computed from; what only says when is not read."""
        values = [self.value(arg, reader) for arg in operands(node)]
        return values * len(node.args) if isinstance(node.op.lower, View) else values

    def value(self, node: Node, reader: Member | None = None) -> np.ndarray:
        """A value as a step reads it: stored, or computed from stored ones."""
        base = storage(node)
        if base in self.fusion.stored:
            return self.stored(base, reader).reshape(node.shape)
        if node not in self.inline:
            self.inline[node] = evaluate(node, self.arguments(node, reader))
        return self.inline[node]

    def stored(self, node: Node, reader: Member | None) -> np.ndarray:
        """A stored value."""
        if node in self.elsewhere:
            return self.elsewhere[node]
        member = self.members.get(node)
        if member is not None and reader is not None:
            self.check_phases(member, reader)
            if node in self.registers:
                return self.registers[node]
            if not self.memory.keeps(node):
                raise IRError(f"{self.reader} reads {node!r} in a later phase, but it has no storage")
        elif isinstance(self.step, Sweep) and node in self.made_by_parts:
            if node not in self.step.row_by_row:
                raise IRError(f"{self.reader} reads {node!r}, a sum that is complete after the sweep only")
            if not self.memory.keeps(node):
                raise IRError(f"{self.reader} reads {node!r}, which has no storage")
        elif self.memory.step_of.get(node) is self.step:
            raise IRError(f"{self.reader} reads {node!r} before all of it is written")
        return self.memory.read(self.reader, node)

    def check_phases(self, made: Member, reader: Member) -> None:
        """A result of a row is there after the loop over the row, an element from its phase on."""
        if made.is_row and not reader.outer:
            ready = made.phase < reader.phase
        else:
            ready = made.phase <= reader.phase and (made.is_row or not reader.outer)
        if not ready:
            raise IRError(f"{self.reader} computes {reader.node!r} before {made.node!r}, which it reads")

    # --------------------------------------------------------------------------------------------- points

    def try_members(self, kernel: Kernel, reader: Member) -> None:
        """What a member reads of the kernel lies at the point where it is computed itself."""
        near = {
            node: self.members[node].is_row and not reader.outer
            for node, _ in self.fusion.reads[reader.node]
            if node in self.members
        }
        if near and not self.reads_only_here(kernel, reader, near):
            raise IRError(f"{self.reader} computes {reader.node!r} from other points of its own loops")

    def try_overwriting(self, kernel: Kernel, writer: Member) -> None:
        """What is written over a value is written where that is read, not before."""
        if not self.memory.keeps(writer.node) or isinstance(writer.node.op.lower, Reduce):
            return
        for value in self.memory.overwrites(writer.node):
            for reader in kernel.members:
                if all(node is not value for node, _ in self.fusion.reads[reader.node]):
                    continue
                by_row = writer.outer and not reader.outer
                too_late = reader.phase > writer.phase or (reader.outer and not writer.outer)
                if too_late or not self.reads_only_here(kernel, reader, {value: by_row}):
                    raise IRError(
                        f"{self.reader} writes {writer.node!r} over {value!r}, which it still reads"
                    )

    def reads_only_here(self, kernel: Kernel, reader: Member, near: Mapping[Node, bool]) -> bool:
        """Whether a reader needs of each value in ``near`` only the element at its own point, or that of its
        row: some of its elements are computed once more with other values everywhere else.
        """
        if not all(kernel.space):
            return True
        rows = tuple(kernel.space[i] for i in kernel.outer)
        whole = {node: self.stored(node, reader) for node in near}
        wanted = self.again(reader.node, reader, {})
        rng = np.random.default_rng(0)
        for _ in range(POINTS):
            point = tuple(int(rng.integers(n)) for n in (rows if reader.outer else kernel.space))
            row = point if reader.outer else tuple(point[i] for i in kernel.outer)
            here, in_row = (_flat(index, shape) for index, shape in ((point, wanted[0].shape), (row, rows)))
            moved = {
                node: _elsewhere(whole[node], in_row if by_row else here) for node, by_row in near.items()
            }
            for got, want in zip(self.again(reader.node, reader, moved), wanted, strict=True):
                if not np.array_equal(got[point], want[point], equal_nan=want.dtype.kind == "f"):
                    return False
        return True

    def try_rows(self, node: Node, reader: Member | None, reads: Iterable[Node]) -> None:
        """What a part of a sweep reads of an earlier part lies in the row that it computes."""
        sweep = self.step
        near = [value for value in dict.fromkeys(reads) if value in self.made_by_parts]
        if not isinstance(sweep, Sweep) or not near or not sweep.rows:
            return
        count = sweep.batch * sweep.rows
        whole = {value: self.stored(value, reader) for value in near}
        wanted = self.again(node, reader, {})
        row = sweep.rows // 2
        moved = {value: np.roll(array.reshape(count, -1), 1, axis=0) for value, array in whole.items()}
        for value, array in moved.items():
            array[row] = whole[value].reshape(count, -1)[row]
        rows = {value: array.reshape(value.shape) for value, array in moved.items()}
        for got, want in zip(self.again(node, reader, rows), wanted, strict=True):
            mine, theirs = (x.reshape(count, -1)[row] for x in (got, want))
            if not np.array_equal(mine, theirs, equal_nan=want.dtype.kind == "f"):
                raise IRError(f"{self.reader} computes {node!r} from other rows of its own sweep")

    def again(
        self, node: Node, reader: Member | None, elsewhere: Mapping[Node, np.ndarray]
    ) -> list[np.ndarray]:
        """What a node computes at each point: for a sum or a running value, the terms."""
        self.inline, self.elsewhere = {}, {**self.computed, **elsewhere}
        try:
            args = self.arguments(node, reader)
            return args if isinstance(node.op.lower, Reduce | Scan) else [evaluate(node, args)]
        finally:
            self.inline, self.elsewhere = {}, {}


def _flat(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(index, shape)) if shape else 0


def _elsewhere(value: np.ndarray, here: int) -> np.ndarray:
    """``value`` with its elements moved by one, but for the one at ``here``."""
    moved = np.roll(value.reshape(-1), 1)
    moved[here] = value.reshape(-1)[here]
    return moved.reshape(value.shape)
