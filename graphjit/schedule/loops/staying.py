"""Carries of a loop that stay where they lie: each step writes what it changes, and copies nothing.

``out[place[t]] = h`` in a loop makes a new array in every step: the one before, but for a row. In a loop that
runs programs, a carry alternates between two places otherwise, and the whole array is copied from one to the
other. Here one place is enough if everybody who reads the array before the change does so in an earlier step
of the program.

    A1 = scatter_set(A0, h, place)     A0 and A1 are *versions* of one array
    x  = A0[2]                         has to come before A1 is made

`versions` answers the same for loops in registers, where arrays are read element by element.

Input: the graph of a body; its fusion; the programs inside. Output: chains of versions; an order of nodes in
which readers come early; which chains hold in a fusion.
Invariant: a chain counts only if no step reads a version once the next one is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from graphjit.ir.node import Graph, Node, in_order, users
from graphjit.schedule.access import storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.loops.versions import changed_in_place, maker
from graphjit.schedule.program import Program
from graphjit.schedule.roots import reads_inline
from graphjit.transforms.control.loops import kinds_of

Chain = list[Node]
"""The versions of an array, from an input of a graph to one of its outputs."""

Inner = Mapping[Node, Mapping[str, Program]]


def chains_of(graph: Graph, handed: Mapping[int, int], inner: Inner) -> dict[int, Chain]:
    """The outputs that are an input but for some elements. ``handed`` are the inputs that they may be, both
    by number; ``inner`` are the programs inside loops and choices.
    """
    found: dict[int, Chain] = {}
    results = {storage(out) for out in graph.outputs}
    for out, number in handed.items():
        start, node = graph.inputs[number], storage(graph.outputs[out])
        chain = [node]
        while node is not start:
            before = _before(node, inner)
            if before is None:
                break
            node = before
            chain.append(node)
        # A version that is a result of its own, stacked for the way back, has a place of its own.
        kept = any(version in results for version in chain[1:])
        if node is start and len(chain) > 1 and not kept and start.type.nbytes == chain[0].type.nbytes:
            found[out] = chain[::-1]
    return found


def _before(node: Node, inner: Inner) -> Node | None:
    """The array that ``node`` is but for some elements, where its step can write into it."""
    if node.op.name == "scatter_set":
        place, owner = 0, node
    elif node.op.name == "item":
        owner, number = node.args[0], node.attrs["index"]
        found = _places(owner, inner).get(number)  # type: ignore[call-overload]
        if found is None:
            return None
        place = found
    else:
        return None
    base = storage(owner.args[place])
    return base if [storage(arg) for arg in owner.args].count(base) == 1 else None


def _places(node: Node, inner: Inner) -> dict[int, int]:
    """The arguments where results of a loop or a choice may lie, by the number of the result."""
    programs = inner[node]
    if not programs:
        return changed_in_place(node)
    if node.op.name == "cond":
        return {}
    return {k: kinds_of(node)[1].start + k for k in programs["body"].staying}


def readers_first(graph: Graph, chains: Mapping[int, Chain]) -> list[Node] | None:
    """The nodes of a graph in an order in which a version is read before the next one is made, and what does
    not need a version comes before it. None: there is none.
    """
    nodes = graph.nodes()
    makers = {maker(version) for chain in chains.values() for version in chain[1:]}
    waits: dict[Node, int] = {}
    for node in nodes:
        waits[node] = max((waits[arg] for arg in node.args), default=0) + (node in makers)
    after: dict[Node, list[Node]] = {}
    readers = users(nodes)
    for chain in chains.values():
        for version, following in pairwise(chain):
            makes = maker(following)
            after.setdefault(makes, []).extend(x for x in readers.get(version, ()) if x is not makes)
    return in_order(sorted(nodes, key=waits.__getitem__), after)


def lasting(fusion: Fusion, chains: Mapping[int, Chain]) -> dict[int, Chain]:
    """Those of the chains that hold in a fusion."""
    return {out: chain for out, chain in chains.items() if _lasts(fusion, chain)}


def _lasts(fusion: Fusion, chain: Sequence[Node]) -> bool:
    if any(fusion.destinations.get(version) for version in chain):
        return False
    for version, following in pairwise(chain):
        writes = fusion.position[following]
        if any(version in loads for loads in fusion.loads[writes + 1 :]):
            return False
        # The step that writes reads the version as what it changes (`_before`), and in no other way.
        made = maker(following)
        if made.op.name == "scatter_set" and any(
            reads_inline(arg, version, fusion.stored) for arg in made.args[1:]
        ):
            return False
    return True
