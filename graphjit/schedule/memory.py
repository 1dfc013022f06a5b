"""Where every stored value lives: argument and result tables, constants, one arena.

Job: decide which roots need storage at all, find their lifetimes, give arena offsets.
Input: a fused graph.  Output: a `Program`.
Invariants: offsets are 64-byte aligned (8 for single numbers); two values overlap only when their lifetimes
do not, or when the second is written at each point right after the first was read there for the last time.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from graphjit.ir.buffers import Buffer
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce
from graphjit.schedule.access import storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.inplace import last_reads, read_only_here, take_over
from graphjit.schedule.program import Kernel, Product, Program, Sweep, kernels_of

ALIGN = 64


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


def plan(graph: Graph, fusion: Fusion, donated: Collection[int] = ()) -> Program:
    """Assign storage; ``donated`` are the numbers of the inputs whose memory results may take over."""
    last = last_reads(fusion)
    needed = _needed(graph, fusion)
    buffers: dict[Node, Buffer] = {}
    constants: list[np.ndarray] = []
    for i, node in enumerate(graph.inputs):
        buffers[node] = Buffer(f"in{i}", node.dtype, node.type.size, "input", i)
    for i, node in enumerate(graph.outputs):
        base = storage(node)
        buffers[base] = Buffer(f"out{i}", node.dtype, node.type.size, "output", i)
    for node in graph.nodes():
        if node.op.name == "const" and node in fusion.stored:
            buffers[node] = Buffer(f"c{len(constants)}", node.dtype, node.type.size, "const", len(constants))
            constants.append(node.attrs["value"].array)  # type: ignore[attr-defined]
    arena = _Arena()
    expiring: dict[int, list[Node]] = {}
    for i, step in enumerate(fusion.steps):
        for node in step.nodes:
            for place in fusion.places.get(node, ()):
                owner = place.owner
                if owner not in buffers:
                    offset = arena.take(owner.type.nbytes)
                    buffers[owner] = Buffer(f"a{len(buffers)}", owner.dtype, owner.type.size, "arena", offset)
                    expiring.setdefault(max(last.get(owner, i), fusion.position[owner]), []).append(owner)
            if node not in needed or node in buffers:
                continue
            if isinstance(step, Sweep) and node in step.row_by_row and last.get(node) == i:
                # Nobody else reads it: it need not outlive the block of rows.
                size = node.type.size // (step.batch * step.rows) * step.block
                buffers[node] = Buffer(f"s{len(buffers)}", node.dtype, size, "scratch")
                continue
            reused = _dying_twin(fusion, step, node, last, i, buffers) if isinstance(step, Kernel) else None
            if reused is not None:
                offset = buffers[reused].slot
                expiring[i].remove(reused)
            else:
                offset = arena.take(node.type.nbytes)
            buffers[node] = Buffer(f"a{len(buffers)}", node.dtype, node.type.size, "arena", offset)
            expiring.setdefault(max(last.get(node, i), i), []).append(node)
        for node in expiring.pop(i, ()):
            arena.give(buffers[node].slot, node.type.nbytes)
    for i, step in enumerate(fusion.steps):
        step.name = f"k{i}"
    in_place = take_over(graph, fusion, donated)
    return Program(graph, fusion.steps, buffers, constants, arena.peak, fusion.places, in_place)


def _needed(graph: Graph, fusion: Fusion) -> set[Node]:
    """Roots that some other step, a later phase of their own kernel, or the caller reads."""
    needed = {storage(node) for node in graph.outputs}
    for i, (step, found) in enumerate(zip(fusion.steps, fusion.loads, strict=True)):
        needed |= {node for node in found if fusion.position.get(node, i) != i}
        kernels = kernels_of(step)
        if not kernels:
            needed.update(step.nodes)
        for product in step.parts if isinstance(step, Sweep) else ():
            if isinstance(product, Product):
                needed |= {product.node, *map(storage, product.node.args)}
        for kernel in kernels:
            own = set(kernel.nodes)
            phase = {member.node: member.phase for member in kernel.members if not member.outer}
            for member in kernel.members:
                for dep, _ in fusion.reads[member.node]:
                    later = (
                        dep in phase and not isinstance(dep.op.lower, Reduce) and phase[dep] != member.phase
                    )
                    if later or (dep not in own and fusion.position.get(dep) == i):
                        needed.add(dep)
    return needed


def _dying_twin(
    fusion: Fusion, step: Kernel, node: Node, last: dict[Node, int], i: int, buffers: dict[Node, Buffer]
) -> Node | None:
    """A value that ``node`` may overwrite: same bytes, read for the last time in this kernel, only at the
    point being written.
    """
    if node.shape != step.space:
        return None
    for dep, _ in fusion.reads[node]:
        buffer = buffers.get(dep)
        if buffer is None or buffer.kind != "arena" or last.get(dep) != i or fusion.position.get(dep) == i:
            continue
        if dep.type.size != node.type.size or dep.dtype.itemsize != node.dtype.itemsize:
            continue
        if any(
            buffers[other].slot == buffer.slot and buffers[other].kind == "arena"
            for other in step.nodes
            if other in buffers
        ):
            continue
        if read_only_here(fusion, step, node, dep):
            return dep
    return None


@dataclass
class _Arena:
    """First-fit allocation of byte ranges; ``peak`` is the size the arena must have."""

    peak: int = 0

    def __post_init__(self) -> None:
        self._free: list[tuple[int, int]] = []  # (offset, bytes), sorted, never adjacent

    def take(self, nbytes: int) -> int:
        """Offset of a free range."""
        room = _padded(nbytes)
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
        room = _padded(nbytes)
        k = bisect.bisect(self._free, (offset, room))
        if k < len(self._free) and offset + room == self._free[k][0]:
            room += self._free.pop(k)[1]
        if k and sum(self._free[k - 1]) == offset:
            offset, before = self._free[k - 1][0], self._free[k - 1][1]
            room += before
            del self._free[k - 1]
            k -= 1
        self._free.insert(k, (offset, room))


def _padded(nbytes: int) -> int:
    return 8 if nbytes <= 8 else -(-nbytes // ALIGN) * ALIGN
