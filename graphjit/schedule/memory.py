"""Where every stored value lives: argument and result tables, constants, one arena.

Job: decide which roots need storage at all, find their lifetimes, and give them offsets in the arena, one
block of memory for all intermediate values.  A root that only its own kernel reads, in the same phase, stays
in a register; one that only its own sweep reads is scratch of a block of rows.
Input: a fused graph.  Output: a `Program`.
Invariants: offsets are 64-byte aligned (8 for single numbers); two values overlap only when their lifetimes
do not, or when the second is written at each point right after the first was read there for the last time.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from graphjit.ir.buffers import Buffer
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.schedule.access import storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.inplace import last_reads, read_only_here, take_over
from graphjit.schedule.loops.control import name_steps, scratch
from graphjit.schedule.program import (
    ALIGN,
    Control,
    Kernel,
    Product,
    Program,
    Step,
    Sweep,
    kernels_of,
    padded,
)


def own_outputs(graph: Graph) -> Graph:
    """Give every output storage of its own: copies where an output is an argument, a constant or another
    output.
    """
    b = Builder()
    taken: set[Node] = set()
    outputs = []
    for slot, node in enumerate(graph.outputs):
        if storage(node).op.name in ("input", "const", "iota") or storage(node) in taken:
            node = b.like(node).emit("copy", node, slot=slot)
        taken.add(storage(node))
        outputs.append(node)
    return Graph(graph.name, graph.inputs, outputs)


def plan(
    graph: Graph,
    fusion: Fusion,
    donated: Collection[int] = (),
    staying: Mapping[int, Sequence[Node]] = MappingProxyType({}),
) -> Program:
    """Assign storage; ``donated`` are the numbers of the inputs whose memory results may take over,
    ``staying`` the versions of arrays that stay where an input lies, by the number of the output.
    """
    buffers, constants = _tables(graph, fusion)
    for versions in staying.values():
        buffers.update(dict.fromkeys(versions, buffers[versions[-1]]))
    planner = _Planner(graph, fusion, buffers)
    for i, step in enumerate(fusion.steps):
        planner.place_all(i, step)
    in_place = take_over(graph, fusion, donated)
    program = Program(
        graph, fusion.steps, buffers, constants, planner.arena.peak, fusion.destinations, in_place
    )
    program.staying = {out: graph.inputs.index(versions[0]) for out, versions in staying.items()}
    name_steps(program)
    return program


def _tables(graph: Graph, fusion: Fusion) -> tuple[dict[Node, Buffer], list[np.ndarray]]:
    """Buffers of arguments, results and constants; the arrays of the constants."""
    buffers: dict[Node, Buffer] = {}
    constants: list[np.ndarray] = []
    for i, node in enumerate(graph.inputs):
        buffers[node] = Buffer(f"in{i}", node.dtype, node.type.size, "input", i)
    for i, node in enumerate(graph.outputs):
        buffers[storage(node)] = Buffer(f"out{i}", node.dtype, node.type.size, "output", i)
    for node in graph.nodes():
        if node.op.name == "const" and node in fusion.stored:
            buffers[node] = Buffer(f"c{len(constants)}", node.dtype, node.type.size, "const", len(constants))
            constants.append(node.attrs["value"].array)  # type: ignore[attr-defined]
    return buffers, constants


class _Planner:
    """Gives the values of one step after the other a place in the arena, and takes back what nobody reads."""

    def __init__(self, graph: Graph, fusion: Fusion, buffers: dict[Node, Buffer]) -> None:
        self.fusion = fusion
        self.buffers = buffers
        self.arena = _Arena()
        self.last = last_reads(fusion)
        self.needed = _needed(graph, fusion)
        self.expiring: dict[int, list[Node]] = {}  # values by the last step that needs them

    def place_all(self, i: int, step: Step) -> None:
        """Storage for everything that step ``i`` writes."""
        for node in step.nodes:
            for destination in self.fusion.destinations.get(node, ()):
                if destination.owner not in self.buffers:
                    self.place_owner(i, destination.owner)
            if node in self.needed and node not in self.buffers:
                self.place(i, step, node)
        if isinstance(step, Control):
            nbytes = max(scratch(step).nbytes, 0 if step.in_registers else ALIGN)
            if nbytes:
                step.scratch = self.arena.take(nbytes)
                self.arena.give(step.scratch, nbytes)
        for node in self.expiring.pop(i, ()):
            self.arena.give(self.buffers[node].slot, node.type.nbytes)

    def place_owner(self, i: int, owner: Node) -> None:
        """Storage for a concatenation, whose first piece step ``i`` writes."""
        self.keep(owner, self.arena.take(owner.type.nbytes))
        self.expire(owner, max(self.last.get(owner, i), self.fusion.position[owner]))

    def place(self, i: int, step: Step, node: Node) -> None:
        """Storage for a root of step ``i``: scratch of a sweep, the place of a value that dies here, or room
        of its own.
        """
        if isinstance(step, Sweep) and node in step.row_by_row and self.last.get(node) == i:
            # Nobody else reads it: it need not outlive the block of rows.
            size = node.type.size // (step.batch * step.rows) * step.block
            self.buffers[node] = Buffer(f"s{len(self.buffers)}", node.dtype, size, "scratch")
            return
        twin = self.dying_twin(i, step, node) if isinstance(step, Kernel) else None
        if twin is not None:
            offset = self.buffers[twin].slot
            self.expiring[i].remove(twin)
        else:
            offset = self.arena.take(node.type.nbytes)
        self.keep(node, offset)
        self.expire(node, max(self.last.get(node, i), i))

    def keep(self, node: Node, offset: int) -> None:
        """A value lies at ``offset`` in the arena."""
        self.buffers[node] = Buffer(f"a{len(self.buffers)}", node.dtype, node.type.size, "arena", offset)

    def expire(self, node: Node, last: int) -> None:
        """A value is needed up to step ``last``."""
        self.expiring.setdefault(last, []).append(node)

    def dying_twin(self, i: int, step: Kernel, node: Node) -> Node | None:
        """A value that ``node`` may overwrite: same bytes, read for the last time in this kernel, only at the
        point being written.
        """
        if node.shape != step.space:
            return None
        for value, _ in self.fusion.reads[node]:
            if (
                self.dies_in(i, value)
                and value.type.size == node.type.size
                and value.dtype.itemsize == node.dtype.itemsize
                and not self.is_overwritten(step, self.buffers[value].slot)
                and read_only_here(self.fusion, step, node, value)
            ):
                return value
        return None

    def dies_in(self, i: int, value: Node) -> bool:
        """Whether a value of the arena that an earlier step made is read for the last time in step ``i``."""
        buffer = self.buffers.get(value)
        return (
            buffer is not None
            and buffer.kind == "arena"
            and self.last.get(value) == i
            and self.fusion.position.get(value) != i
        )

    def is_overwritten(self, step: Kernel, offset: int) -> bool:
        """Whether another root of the kernel is written at ``offset`` of the arena already."""
        written = (self.buffers[node] for node in step.nodes if node in self.buffers)
        return any(buffer.kind == "arena" and buffer.slot == offset for buffer in written)


def _needed(graph: Graph, fusion: Fusion) -> set[Node]:
    """Roots that some other step, a later phase of their own kernel, or the caller reads."""
    needed = {storage(node) for node in graph.outputs}
    for i, (step, loads) in enumerate(zip(fusion.steps, fusion.loads, strict=True)):
        needed |= {node for node in loads if fusion.position.get(node, i) != i}
        if not kernels_of(step):
            needed.update(step.nodes)
        for part in step.parts if isinstance(step, Sweep) else ():
            if isinstance(part, Product):
                needed |= {part.node, *map(storage, part.node.args)}
        for kernel in kernels_of(step):
            needed |= _read_again(fusion, kernel, i)
    return needed


def _read_again(fusion: Fusion, kernel: Kernel, i: int) -> set[Node]:
    """Roots of step ``i`` that a later phase of ``kernel`` reads, or another kernel of its sweep."""
    members = set(kernel.nodes)
    phase = {member.node: member.phase for member in kernel.members if not member.is_row}
    again: set[Node] = set()
    for member in kernel.members:
        for value, _ in fusion.reads[member.node]:
            in_later_phase = phase.get(value, member.phase) != member.phase
            elsewhere = value not in members and fusion.position.get(value) == i
            if in_later_phase or elsewhere:
                again.add(value)
    return again


@dataclass
class _Arena:
    """First-fit allocation of byte ranges; ``peak`` is the size the arena must have."""

    peak: int = 0

    def __post_init__(self) -> None:
        self._free: list[tuple[int, int]] = []  # (offset, bytes), sorted, never adjacent

    def take(self, nbytes: int) -> int:
        """Offset of a free range."""
        room = padded(nbytes)
        for k, (offset, size) in enumerate(self._free):
            if size >= room and (room < ALIGN or offset % ALIGN == 0):
                if size == room:
                    del self._free[k]
                else:
                    self._free[k] = (offset + room, size - room)
                return offset
        offset = self.peak if room < ALIGN else -(-self.peak // ALIGN) * ALIGN
        self.peak = offset + room
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        """Return a range; neighbours are joined."""
        room = padded(nbytes)
        k = bisect.bisect(self._free, (offset, room))
        if k < len(self._free) and offset + room == self._free[k][0]:
            room += self._free.pop(k)[1]
        if k and sum(self._free[k - 1]) == offset:
            offset, before = self._free[k - 1][0], self._free[k - 1][1]
            room += before
            del self._free[k - 1]
            k -= 1
        self._free.insert(k, (offset, room))
