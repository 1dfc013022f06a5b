"""Loops that do the same are one loop.

The way back through a loop runs the way there a second time, to keep what it needs. Both compute the same
carries from the same arguments. This pass makes one loop of such two, with the results of both.

Example: ``h`` after a `scan`, and the `scan` that stacks every ``h``, become one `scan` with both results.

Input and output: a graph.
Invariant: loops are joined only if they have a carry in common, or loops inside that can be joined; if they
compute all carries that they have in common by the same operations; and if neither needs a result of the
other.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, reachable
from graphjit.passes.bodies import inside, joined
from graphjit.transforms.control.loops import Loop, Parts, kinds_of, opened, run
from graphjit.transforms.substitute import body_of

LOOPS = ("scan", "while")


def join_loops(graph: Graph) -> Graph:
    """``graph`` without loops that do what another one does."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    while pairs := {large.node: (small, large) for small, large in _pairs(graph)}:
        graph = _joined(graph, pairs)  # loops that go on from these may be equal now
    return inside(graph, join_loops)  # later: a loop that was joined holds the loops of both bodies


def _joined(graph: Graph, pairs: Mapping[Node, tuple[_Opened, _Opened]]) -> Graph:
    nodes = [(small.node, large.node) for small, large in pairs.values()]
    return joined(graph, nodes, lambda b, _, large, known: _one(b, pairs[large], known))


class _Opened(NamedTuple):
    """A node, and its loop on inputs that stand for its arguments: equal arguments have one input."""

    node: Node
    loop: Loop


class _Shelf:
    """Inputs by what they stand for."""

    def __init__(self) -> None:
        self.b = Builder()
        self.known: dict[Hashable, Node] = {}

    def opened(self, node: Node, apart: Collection[int] = ()) -> _Opened:
        """A loop on these inputs. Those of its arguments numbered in ``apart`` are its own."""
        body = body_of(node)
        inputs: list[Node] = []
        for kind, where in zip(Parts._fields, kinds_of(node), strict=True):
            times: dict[Node, int] = {}
            for arg, x in zip(node.args[where], body.inputs[where], strict=True):
                # Carries that begin alike are told apart by their order.
                own = len(inputs) in apart
                times[arg] = times.get(arg, 0) + (kind == "carries" and not own)
                key = kind, arg, (node, len(inputs)) if own else times[arg]
                if key not in self.known:
                    self.known[key] = self.b.input(x.type, str(x.attrs["name"]))
                inputs.append(self.known[key])
        return _Opened(node, opened(self.b, node, inputs=inputs))

    def pair(self, one: _Opened, other: _Opened) -> tuple[_Opened, _Opened] | None:
        """Two loops, the smaller one first, if one can do what both do. Carries that only begin alike are
        others.
        """
        small, large = sorted((one, other), key=lambda member: len(member.loop.after))
        steps = dict(zip(large.loop.inputs.carries, large.loop.after, strict=True))
        apart: set[int] = set()
        while True:
            pairs = enumerate(
                zip(small.loop.inputs.carries, small.loop.after, strict=True),
                start=len(small.loop.inputs.constants),
            )
            differing = {k for k, (x, after) in pairs if steps.get(x, after) is not after}
            if not differing:
                return (small, large) if _can_be_one(small, large) else None
            apart |= differing
            small = self.opened(small.node, apart)


def _pairs(graph: Graph) -> list[tuple[_Opened, _Opened]]:
    """Loops, and the larger one that does the same; each stands in one pair at most."""
    pairs: list[tuple[_Opened, _Opened]] = []
    for group in _alike(graph.nodes()):
        shelf = _Shelf()
        members = [shelf.opened(node) for node in group]
        taken: set[Node] = set()
        for i, one in enumerate(members):
            for other in members[i + 1 :]:
                if {one.node, other.node}.isdisjoint(taken) and (pair := shelf.pair(one, other)):
                    pairs.append(pair)
                    taken |= {one.node, other.node}
    return pairs


def _alike(nodes: Iterable[Node]) -> list[list[Node]]:
    """The loops among ``nodes`` that make equally many steps in the same direction, two and more."""
    groups: dict[Hashable, list[Node]] = {}
    for node in (node for node in nodes if node.op.name in LOOPS):
        kind = node.op.name, node.attrs.get("length"), node.attrs.get("reverse")
        groups.setdefault(kind, []).append(node)
    return [group for group in groups.values() if len(group) > 1]


def _can_be_one(one: _Opened, other: _Opened) -> bool:
    """Whether loops that compute alike all carries that they share have enough in common, and both can run at
    once.
    """
    small, large = one.loop, other.loop
    if small.test is not large.test or not set(small.inputs.all) & set(large.inputs.all):
        return False
    if set(small.inputs.carries).isdisjoint(large.inputs.carries) and small.after:
        if not _share_a_loop(small, large):
            return False
    return one.node not in set(reachable(other.node.args)) and other.node not in set(reachable(one.node.args))


def _share_a_loop(one: Loop, other: Loop) -> bool:
    """Whether a loop inside of one does what one inside of the other does: where a derivative in a step goes
    along with a loop in it, and the value of the step does not matter for later steps.
    """
    mine, others = set(reachable(one.roots)), set(reachable(other.roots))
    if any(node.op.name in LOOPS for node in mine & others):
        return True
    for group in _alike(mine | others):
        shelf = _Shelf()
        members = [shelf.opened(node) for node in sorted(group, key=lambda node: node.serial)]
        for x in (member for member in members if member.node in mine):
            for y in (member for member in members if member.node in others):
                if shelf.pair(x, y) is not None:
                    return True
    return False


def _one(
    b: Builder, pair: tuple[_Opened, _Opened], known: Mapping[Node, Node]
) -> tuple[list[Node], list[Node]]:
    """One loop for two; the results of each."""
    small, large = (one.loop for one in pair)
    args = {x: known[arg] for one in pair for x, arg in zip(one.loop.inputs.all, one.node.args, strict=True)}
    steps = dict(zip(small.inputs.carries, small.after, strict=True))
    steps |= dict(zip(large.inputs.carries, large.after, strict=True))
    varying = {*steps, *large.inputs.slices, *small.inputs.slices}
    inputs = Parts(
        [x for x in dict.fromkeys((*large.inputs.all, *small.inputs.all)) if x not in varying],
        list(steps),
        list(dict.fromkeys((*large.inputs.slices, *small.inputs.slices))),
    )
    made = list(dict.fromkeys((*large.made, *small.made)))
    actual = Parts(*([args[x] for x in part] for part in inputs))
    whole = replace(large, args=actual, inputs=inputs, after=list(steps.values()), made=made)
    results = run(b, whole)
    of_carry = {x: results.carries[k] for k, x in enumerate(inputs.carries)}
    of_made = dict(zip(made, results.made, strict=True))
    return tuple(  # type: ignore[return-value]
        [*(of_carry[x] for x in loop.inputs.carries), *(of_made[y] for y in loop.made)]
        for loop in (small, large)
    )
