"""Which value may be written over which.

Job: prove, from the reads of a schedule, that memory may be written although somebody reads it: for values in
the arena, and for arguments that the caller gave up (donated), whose memory results may take over.
Input: a fused graph.  Output: yes or no for two values; the pairs (result, donated argument).
Invariant: a pair is named only if each element is read for the last time before it is written: in an earlier
step, or at the very point of the same loops, where the load stands before the store. Whether the two are one
array is known only at a call, so both are right.
"""

from __future__ import annotations

from collections.abc import Collection

from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce
from graphjit.schedule.access import framed_reads, linear, own_index, storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.program import Kernel


def last_reads(fusion: Fusion) -> dict[Node, int]:
    """The last step that reads each stored value."""
    last: dict[Node, int] = {}
    for i, found in enumerate(fusion.loads):
        last.update(dict.fromkeys(found, i))
    return last


def read_only_here(fusion: Fusion, kernel: Kernel, node: Node, dep: Node) -> bool:
    """Whether ``kernel`` reads ``dep`` only at the point where it writes ``node``, and not in a later phase.

    ``node`` must be one of the readers: then its load stands before its store, and the others of the same
    phase share that load; not if one of them reads through a window, since a load under a condition is a load
    of its own and may stand behind the store.
    """
    writer = next(member for member in kernel.members if member.node is node)
    if isinstance(node.op.lower, Reduce) or all(read is not dep for read, _ in fusion.reads[node]):
        return False
    # Rows and elements number their axes differently: the same row as the elements see it.
    here = linear(node.shape, own_index(node.shape))
    index = own_index(kernel.space)
    row = linear(node.shape, [index[axis] for axis in kernel.outer]) if writer.outer else here
    readers = []
    for member in kernel.members:
        for read, address in fusion.reads[member.node]:
            if read is not dep:
                continue
            readers.append(member.node)
            if member.phase > writer.phase or (member.outer and not writer.outer):
                return False
            if address != (here if member.outer == writer.outer else row):
                return False
    return len(readers) == 1 or all(dep not in framed_reads(reader, fusion.stored) for reader in readers)


def take_over(graph: Graph, fusion: Fusion, donated: Collection[int]) -> dict[int, int]:
    """For each result that may be written into a donated argument of its type: the number of that argument,
    each used once.

    First come results that are computed from the argument at the same point, those with the least choice
    first (``w - rate * g``); the others take what nobody reads any more, in order.
    """
    number = {
        graph.inputs[i]: i for i in sorted(donated) if graph.inputs[i].shape and graph.inputs[i].type.size
    }
    if not number:
        return {}
    last = last_reads(fusion)
    bases = [storage(out) for out in graph.outputs]
    slots = [slot for slot, out in enumerate(graph.outputs) if out.shape]
    found: dict[int, int] = {}
    choices: dict[int, list[Node]] = {}
    for slot in slots:
        base = bases[slot]
        i = fusion.position[base]
        step = fusion.steps[i]
        if isinstance(step, Kernel) and base in fusion.reads:
            readers = dict.fromkeys(
                dep for dep, _ in fusion.reads[base] if dep in number and dep.type == graph.outputs[slot].type
            )
            choices[slot] = [
                dep for dep in readers if last[dep] == i and read_only_here(fusion, step, base, dep)
            ]
    for slot in sorted(choices, key=lambda slot: (len(choices[slot]), slot)):
        dep = next((dep for dep in choices[slot] if dep in number), None)
        if dep is not None:
            found[slot] = number.pop(dep)
    for slot in slots:
        if slot not in found:
            wanted, i = graph.outputs[slot].type, fusion.first_write(bases[slot])
            dep = next((dep for dep in number if dep.type == wanted and last.get(dep, -1) < i), None)
            if dep is not None:
                found[slot] = number.pop(dep)
    return dict(sorted(found.items()))
