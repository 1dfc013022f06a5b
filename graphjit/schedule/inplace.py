"""Which value may be written over which.

Job: prove, from the reads of a schedule, that memory may be written although somebody reads it: for values in
the arena (`memory` asks), and for arguments that the caller gave up (donated), whose memory results may take
over.  In ``w - rate * g`` with ``w`` donated, each element of ``w`` is loaded right before the new one is
stored there.
Input: a fused graph.  Output: yes or no for two values; the pairs (result, donated argument).
Invariant: a pair is named only if each element is read for the last time before it is written: in an earlier
step, or at the very point of the same loops, where the load stands before the store. Whether the two are one
array is known only at a call, so both are right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from graphjit.ir.affine import Affine, linear, own_index
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce
from graphjit.schedule.access import framed_reads, storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.program import Kernel, Member


def last_reads(fusion: Fusion) -> dict[Node, int]:
    """The last step that reads each stored value."""
    last: dict[Node, int] = {}
    for i, loads in enumerate(fusion.loads):
        last.update(dict.fromkeys(loads, i))
    return last


def read_only_here(fusion: Fusion, kernel: Kernel, node: Node, value: Node) -> bool:
    """Whether ``kernel`` reads ``value`` only at the point where it writes ``node``, and not in a later
    phase.

    ``node`` must be one of the readers: then its load stands before its store, and the others of the same
    phase share that load; not if one of them reads through a window, since a load under a condition is a load
    of its own and may stand behind the store.
    """
    writer = next(member for member in kernel.members if member.node is node)
    if isinstance(node.op.lower, Reduce) or all(read is not value for read, _ in fusion.reads[node]):
        return False
    readers = [
        (member, address)
        for member in kernel.members
        for read, address in fusion.reads[member.node]
        if read is value
    ]
    if not all(_reads_where_written(kernel, writer, reader, address) for reader, address in readers):
        return False
    return len(readers) == 1 or all(
        value not in framed_reads(reader.node, fusion.stored) for reader, _ in readers
    )


def _reads_where_written(kernel: Kernel, writer: Member, reader: Member, address: Affine[int] | None) -> bool:
    """Whether a read stands no later than the store of ``writer``, at its point."""
    if reader.phase > writer.phase or (reader.outer and not writer.outer):
        return False
    shape = writer.node.shape
    if reader.outer == writer.outer:
        return address == linear(shape, own_index(shape))
    # Rows and elements number their axes differently: the same row as the elements see it.
    index = own_index(kernel.space)
    return address == linear(shape, [index[axis] for axis in kernel.outer])


def take_over(graph: Graph, fusion: Fusion, donated: Collection[int]) -> dict[int, int]:
    """For each result that may be written into a donated argument of its type: the number of that argument,
    each used once.

    First come results that are computed from the argument at the same point, those with the least choice
    first (``w - rate * g``); the others take what nobody reads any more, in order.
    """
    free = {
        graph.inputs[i]: i for i in sorted(donated) if graph.inputs[i].shape and graph.inputs[i].type.size
    }
    if not free:
        return {}
    last = last_reads(fusion)
    slots = [slot for slot, out in enumerate(graph.outputs) if out.shape]
    donors: dict[int, int] = {}
    choices = {slot: _read_at_the_point(graph, fusion, slot, free, last) for slot in slots}
    for slot in sorted(slots, key=lambda slot: (len(choices[slot]), slot)):
        donor = next((value for value in choices[slot] if value in free), None)
        if donor is not None:
            donors[slot] = free.pop(donor)
    for slot in slots:
        if slot not in donors:
            donor = _read_before(graph, fusion, slot, free, last)
            if donor is not None:
                donors[slot] = free.pop(donor)
    return dict(sorted(donors.items()))


def _read_at_the_point(
    graph: Graph, fusion: Fusion, slot: int, free: Collection[Node], last: Mapping[Node, int]
) -> list[Node]:
    """The arguments that are read for the last time where result ``slot`` is written."""
    out = graph.outputs[slot]
    base = storage(out)
    i = fusion.position[base]
    step = fusion.steps[i]
    if not isinstance(step, Kernel) or base not in fusion.reads:
        return []
    of_its_type = dict.fromkeys(
        value for value, _ in fusion.reads[base] if value in free and value.type == out.type
    )
    return [value for value in of_its_type if last[value] == i and read_only_here(fusion, step, base, value)]


def _read_before(
    graph: Graph, fusion: Fusion, slot: int, free: Collection[Node], last: Mapping[Node, int]
) -> Node | None:
    """The first argument that nobody reads any more when result ``slot`` is first written."""
    out = graph.outputs[slot]
    first = fusion.first_write(storage(out))
    return next((value for value in free if value.type == out.type and last.get(value, -1) < first), None)
