"""Keep or compute again: which values that several kernels read go through memory.

Job: where a value is read only after so much else was touched that it left the caches, weigh storing and
loading it against computing it again. ``(x - mean(x)) ** 2`` over an array larger than the caches is computed
again where it is read a second time; ``tanh(x)`` is kept. Elsewhere a threshold decides (`roots`), since what
stays in a cache costs about the same few additions wherever it is read.
Input: a graph and its fusion.  Output: for each value in question whether it is kept.
Invariants: what is computed again is the same operation on the same values, so elements keep every bit (a sum
may be cut into other blocks, since these depend on the work of its kernel); the decision depends on the graph
alone; values that are read at other points (shifted, transposed, gathered), repeated along an axis or read by
loops without lanes are left as they are.

The cheapest choice for all values together is a minimum cut (`mincut`). Keeping a value costs its traffic;
computing it again costs its operation, once for each further kernel, and the loads of its arguments where
that kernel would not read them otherwise. Choices depend on each other: what is computed again needs its
arguments there, kept or computed again themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Scalar, Scan, Special, View
from graphjit.limits import Limits, RecomputeLimits
from graphjit.mincut import Network
from graphjit.schedule.access import is_thin_reshape, operands, storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.program import Control, Kernel, kernels_of
from graphjit.schedule.roots import LEAVES, is_inline, must_be_stored, own_cost


class Site(NamedTuple):
    """Where values are needed: what is computed once at a site is shared by all that is computed there."""

    step: int
    kernel: int
    """Number of a kernel in a sweep, else 0."""
    phase: int


Sites = frozenset[Site]


def decide(graph: Graph, fusion: Fusion, limits: Limits) -> dict[Node, bool]:
    """Whether the values in question are kept; empty when that is what ``fusion`` does already."""
    stored_bytes = sum(node.type.nbytes for node in fusion.stored)
    if stored_bytes <= limits.recompute.far_bytes or len(fusion.steps) < 2:
        return {}
    question = _Question(graph, fusion, limits)
    if not 0 < len(question.homes_of_choices) <= limits.recompute.many_values:
        return {}
    kept = _cut(question)
    return kept if any(keep != (node in fusion.stored) for node, keep in kept.items()) else {}


def traffic_and_work(graph: Graph, fusion: Fusion, limits: Limits) -> int:
    """What large values cost in a schedule, in the units of the weights."""
    weights = limits.recompute
    far = _Distances(graph, fusion, weights)
    total = 0
    last = dict(fusion.position)  # the step that touched a value last
    for i, step in enumerate(fusion.steps):
        for node in fusion.from_outside(i):
            from_memory = node not in last or far.is_far_between(last[node], i)
            total += node.type.nbytes * (weights.far if from_memory else weights.near)
            last[node] = i
        total += sum(_work(kernel, fusion.stored, weights) for kernel in kernels_of(step))
    for i, written in enumerate(far.written):
        for node in written:
            byte = weights.far if far.is_far_between(i, last[node]) else weights.near
            total += weights.store * node.type.nbytes * byte
    return total


def _work(kernel: Kernel, stored: set[Node], weights: RecomputeLimits) -> int:
    """What a kernel computes, each value once a phase."""
    total = 0
    for phase in {member.phase for member in kernel.members}:
        stack = [member.node for member in kernel.members if member.phase == phase]
        seen = set(stack)
        while stack:
            node = stack.pop()
            total += _weight(node, weights)
            for arg in operands(node):
                if arg not in seen and storage(arg) not in stored:
                    seen.add(arg)
                    stack.append(arg)
    return total


def _weight(node: Node, weights: RecomputeLimits) -> int:
    """What one operation costs: fewer of a wide type fit into the lanes, and comparisons compute in that of
    their arguments.
    """
    width = max((arg.dtype.itemsize for arg in node.args), default=node.dtype.itemsize)
    return own_cost(node) * weights.operation * node.type.size * max(width, node.dtype.itemsize) // 8


class _Distances:
    """How much is touched between two steps."""

    def __init__(self, graph: Graph, fusion: Fusion, limits: RecomputeLimits) -> None:
        self.steps = fusion.steps
        self.far_bytes = limits.far_bytes
        outside = [fusion.from_outside(i) for i in range(len(fusion.steps))]
        needed = {storage(node) for node in graph.outputs}.union(*outside)
        self.written = [[node for node in step.nodes if node in needed] for step in fusion.steps]
        self.touched = [
            sum(node.type.nbytes for node in itertools.chain(read, written))
            for read, written in zip(outside, self.written, strict=True)
        ]
        self.before = list(itertools.accumulate(self.touched, initial=0))

    def is_far_between(self, first: int, last: int) -> bool:
        """Whether what step ``first`` touched has left the caches when step ``last`` comes to it."""
        if first == last:
            step = self.steps[first]
            if not isinstance(step, Kernel):
                return False
            rows = math.prod(step.space[i] for i in step.outer)
            return self.touched[first] > self.far_bytes * max(rows, 1)
        return self.before[last] - self.before[first] > self.far_bytes


class _Question:
    """The values in question, and the sites where each value would be needed.

    Attributes:
        homes_of_choices: the values in question, each with the site where it is computed in any case.
        sites: where a value is needed if nothing in question is kept.
        certain: where it is needed whatever is kept.
        homes: where roots are computed.
    """

    def __init__(self, graph: Graph, fusion: Fusion, limits: Limits) -> None:
        self.fusion = fusion
        self.limits = limits.recompute
        self.nodes = graph.nodes()
        self.far = _Distances(graph, fusion, limits.recompute)
        self.homes_of_choices: dict[Node, Site] = {}
        self.sites: dict[Node, Sites] = {}
        self.certain: dict[Node, Sites] = {}
        self.homes = _homes(fusion)
        readers = users(self.nodes)
        must = must_be_stored(graph, self.nodes)
        fixed: dict[Node, bool] = {}
        for node in reversed(self.nodes):
            if node.is_bundle:  # a loop needs its arguments where it runs
                self.sites[node] = self.certain[node] = frozenset((self.homes[node],))
                fixed[node] = True
                continue
            uses = readers.get(node, ())
            fixed[node] = node in must or any(
                _moves(node, user, limits.fusion.growth)
                or (fixed[user] and user not in must and _is_free(user))
                for user in uses
            )
            self.sites[node] = self._few(self._needed_by(user, self.sites) for user in uses)
            self.certain[node] = self._few(self._needed_by(user, self.certain) for user in uses)
            large = node.type.nbytes >= self.limits.least_bytes
            if isinstance(node.op.lower, Scalar) and not fixed[node] and large:
                self._consider(node)

    def _few(self, parts: Iterable[Sites]) -> Sites:
        """All of the ``parts``; of too many sites, one more than is looked at."""
        sites = frozenset[Site]().union(*parts)
        most = self.limits.many_sites
        return sites if len(sites) <= most else frozenset(sorted(sites)[: most + 1])

    def _needed_by(self, user: Node, needed: Mapping[Node, Sites]) -> Sites:
        """The sites where a reader needs its arguments; ``needed`` is `sites` or `certain`."""
        if user in self.homes_of_choices:
            return needed[user] if needed is self.sites else frozenset((self.homes_of_choices[user],))
        if user in self.fusion.stored:
            return frozenset((self.homes[user],)) if user in self.homes else frozenset()
        return needed[user]

    def _consider(self, node: Node) -> None:
        """Put ``node`` in question, if it is read after it left the caches."""
        sites = self.sites[node]
        if not sites or len(sites) > self.limits.many_sites:
            return
        home = self.homes[node] if node in self.fusion.stored else min(sites)
        if any(site.step != home.step and self.far.is_far_between(home.step, site.step) for site in sites):
            self.homes_of_choices[node] = home

    # --------------------------------------------------------------------------------------------- weights

    def computing_again(self, node: Node) -> int:
        """The weight of computing ``node`` at every site but one."""
        return (len(self.sites[node]) - 1) * _weight(node, self.limits)

    def keeping(self, node: Node) -> int:
        """The weight of storing ``node`` at its home, and loading it at the others."""
        weights, nbytes = self.limits, node.type.nbytes
        home = self.homes_of_choices[node]
        loads = sum(
            nbytes * (weights.far if self.far.is_far_between(home.step, site.step) else weights.near)
            for site in self.sites[node] - {home}
        )
        return weights.store * weights.far * nbytes + loads

    def further_loads(self, base: Node) -> int:
        """The weight of loading what is in memory at sites where it is not loaded in any case."""
        near = {site.step for site in self.certain[base]}
        weight = self.limits.far if base.type.nbytes >= self.limits.least_bytes else self.limits.near
        return sum(
            base.type.nbytes * (self.limits.near if site.step in near else weight)
            for site in self.sites[base] - self.certain[base]
        )

    def vertices(self) -> dict[Node, int]:
        """The first of two vertices of each value that may be computed at several sites."""
        inline = (
            node for node in self.nodes if node not in self.fusion.stored and node.op.name not in LEAVES
        )
        shared = {node for node in inline if len(self.sites[node]) > 1} | self.homes_of_choices.keys()
        return {node: 2 + 2 * i for i, node in enumerate(node for node in self.nodes if node in shared)}


def _cut(question: _Question) -> dict[Node, bool]:
    """The cheapest answer. Each value has two vertices: it is kept where the cut lies between them, computed
    again where it lies before.
    """
    source, sink = 0, 1
    vertex = question.vertices()
    network = Network(2 + 2 * len(vertex))
    in_memory: dict[Node, int] = {}
    for node, number in vertex.items():
        home = question.homes_of_choices.get(node)
        if home is None:  # computed wherever it is needed
            network.edge(number, number + 1, None)
        else:
            network.edge(source, number, question.computing_again(node))
            network.edge(number, number + 1, question.keeping(node))
            if question.certain[node] - {home}:
                network.edge(number + 1, sink, None)
        for arg in dict.fromkeys(operands(node)):
            base = storage(arg)
            if arg in vertex:
                network.edge(vertex[arg] + 1, number, None)
            elif base in question.fusion.stored and (further := question.further_loads(base)):
                if base not in in_memory:
                    in_memory[base] = network.vertex()
                    network.edge(source, in_memory[base], further)
                network.edge(in_memory[base], number, None)
    side = network.cut(source, sink)
    return {node: side[vertex[node]] and not side[vertex[node] + 1] for node in question.homes_of_choices}


def _homes(fusion: Fusion) -> dict[Node, Site]:
    """The site that computes each root."""
    homes: dict[Node, Site] = {}
    for i, step in enumerate(fusion.steps):
        kernels = kernels_of(step)
        if isinstance(step, Control):
            homes[step.node] = Site(i, 0, 0)
        if not kernels:
            homes.update((node, Site(i, 0, 0)) for node in step.nodes)
        for j, kernel in enumerate(kernels):
            homes.update((member.node, Site(i, j, member.phase)) for member in kernel.members)
    return homes


def _is_free(node: Node) -> bool:
    """Whether what is asked of a node may be asked of its arguments."""
    return is_inline(node) or node.op.name == "reshape"


def _moves(node: Node, user: Node, growth: float) -> bool:
    """Whether ``user`` reads ``node`` at other points than its own, several times, or in a loop without
    lanes.
    """
    if user.op.name == "broadcast_to":
        return user.type.size > growth * node.type.size
    if user.op.name == "reshape":
        return not is_thin_reshape(user)
    return isinstance(user.op.lower, View | Scan | Special)
