"""Loops that do the same are one loop.

The way back through a loop runs the way there a second time, to keep what it needs. Both compute the same
carries from the same arguments. This pass makes one loop of such two, with the results of both.

Example: ``h`` after a `scan`, and the `scan` that stacks every ``h``, become one `scan` with both results.

Input and output: a graph.
Invariant: loops are joined only if they have a carry in common, compute all that they have in common by the
same operations, and neither needs a result of the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
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

    def opened(self, node: Node) -> _Opened:
        """A loop on these inputs."""
        body = body_of(node)
        inputs: list[Node] = []
        for kind, where in zip(Parts._fields, kinds_of(node), strict=True):
            times: dict[Node, int] = {}
            for arg, x in zip(node.args[where], body.inputs[where], strict=True):
                # Carries that begin alike are told apart by their order.
                times[arg] = times.get(arg, 0) + (kind == "carries")
                key = kind, arg, times[arg]
                if key not in self.known:
                    self.known[key] = self.b.input(x.type, str(x.attrs["name"]))
                inputs.append(self.known[key])
        return _Opened(node, opened(self.b, node, inputs=inputs))


def _pairs(graph: Graph) -> list[tuple[_Opened, _Opened]]:
    """Loops, and the larger one that does the same; each stands in one pair at most."""
    groups: dict[Hashable, list[Node]] = {}
    for node in (node for node in graph.nodes() if node.op.name in LOOPS):
        groups.setdefault((node.op.name, node.attrs.get("length"), node.attrs.get("reverse")), []).append(
            node
        )
    pairs: list[tuple[_Opened, _Opened]] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        shelf = _Shelf()
        members = [shelf.opened(node) for node in group]
        taken: set[Node] = set()
        for i, one in enumerate(members):
            for other in members[i + 1 :]:
                small, large = sorted((one, other), key=lambda member: len(member.loop.after))
                if {small.node, large.node}.isdisjoint(taken) and _same(small, large):
                    pairs.append((small, large))
                    taken |= {small.node, large.node}
    return pairs


def _same(one: _Opened, other: _Opened) -> bool:
    """Whether loops compute a carry alike, none that they share differently, and both can run at once."""
    small, large = one.loop, other.loop
    steps = dict(zip(large.inputs.carries, large.after, strict=True))
    pairs = zip(small.inputs.carries, small.after, strict=True)
    shared = [steps[x] is after for x, after in pairs if x in steps]
    if small.test is not large.test or not all(shared):
        return False
    if not shared and (small.after or not set(small.inputs.all) & set(large.inputs.all)):
        return False  # loops that have nothing in common
    return one.node not in set(reachable(other.node.args)) and other.node not in set(reachable(one.node.args))


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
