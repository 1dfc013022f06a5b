"""Keep or compute again: which values that several kernels read go through memory.

Job: where a value is read only after so much else was touched that it left the caches, weigh storing and
loading it against computing it again; elsewhere `fuse` decides by a threshold, since what stays in a cache
costs about the same few additions wherever it is read.
Input: a graph and its fusion.  Output: for each value in question whether it is kept.
Invariants: what is computed again is the same operation on the same values, so elements keep every bit (a sum
may be cut into other blocks, since these depend on the work of its kernel); the decision depends on the graph
alone; values that are read at other points (shifted, transposed, gathered), repeated along an axis or read by
loops without lanes are left to `fuse`.

The choice is a minimum cut. On one side lies what is in memory anyway, on the other what is computed in a
kernel that is not the value's first. A value on the border is kept and pays for its traffic; one beyond the
border is computed again and pays for its operation, once for each further kernel; what is in memory anyway
pays for the loads that a kernel would not make otherwise.
"""

from __future__ import annotations

import itertools
import math

from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Scalar, Scan, Special, View
from graphjit.schedule.access import is_thin_reshape, storage
from graphjit.schedule.fuse import GROWTH, LEAVES, Fusion, is_inline, must_be_stored, own_cost
from graphjit.schedule.mincut import Network
from graphjit.schedule.program import Kernel, kernels_of

FAR_BYTES = 16 << 20
"""What a core may touch between a store and a load for the value to be in a cache still."""
LEAST_BYTES = 1 << 20
"""A value of less is of no account where others leave the caches."""
MANY_PLACES = 16
"""Places in which a value is needed from which it is left as it is."""
MANY_VALUES = 5_000
"""Values in question from which all are left as they are: the cut is not linear in their number."""

# Weights; the unit is 12 ps. Measured on one core of the machine of the benchmarks: 8 bytes stored and loaded
# again take up to 1.7 ns through memory, 0.2 to 0.3 ns through a cache; an exponential (cost 20) takes 0.9
# ns, a tangent (30) 2.0 ns, a quotient (4) 0.27 ns, a sum 0.01 to 0.05 ns.
FAR, NEAR = 5, 1  # a byte that comes from memory, from a cache
STORE = 2  # a line is fetched before it is written
OPERATION = 4  # a unit of `own_cost` for 8 bytes

Place = tuple[
    int, int, int
]  # step, kernel in a sweep, phase: what is computed once in here is shared by all that is in here


def decide(graph: Graph, fusion: Fusion) -> dict[Node, bool]:
    """Whether the values in question are kept; empty when that is what ``fusion`` does already."""
    if sum(node.type.nbytes for node in fusion.stored) <= FAR_BYTES or len(fusion.steps) < 2:
        return {}
    question = _Question(graph, fusion)
    if not 0 < len(question.choices) <= MANY_VALUES:
        return {}
    kept = question.cut()
    return kept if any(keep != (node in fusion.stored) for node, keep in kept.items()) else {}


def traffic_and_work(graph: Graph, fusion: Fusion) -> int:
    """What large values cost in a schedule, in the units of the weights."""
    far = _Distances(graph, fusion)
    total = 0
    last = dict(fusion.position)  # the step that touched a value last
    for i, (step, found) in enumerate(zip(fusion.steps, fusion.loads, strict=True)):
        for node in found:
            if fusion.position.get(node) != i:
                total += node.type.nbytes * (FAR if node not in last or far.between(last[node], i) else NEAR)
                last[node] = i
        total += sum(_work(kernel, fusion.stored) for kernel in kernels_of(step))
    for i, written in enumerate(far.written):
        for node in written:
            total += STORE * node.type.nbytes * (FAR if far.between(i, last[node]) else NEAR)
    return total


def _work(kernel: Kernel, stored: set[Node]) -> int:
    """What a kernel computes, each value once a phase."""
    total = 0
    for phase in {member.phase for member in kernel.members}:
        stack = [member.node for member in kernel.members if member.phase == phase]
        seen = set(stack)
        while stack:
            node = stack.pop()
            total += _weight(node)
            for arg in node.args:
                if arg not in seen and storage(arg) not in stored:
                    seen.add(arg)
                    stack.append(arg)
    return total


def _weight(node: Node) -> int:
    """What one operation costs: fewer of a wide type fit into the lanes, and comparisons compute in that of
    their arguments.
    """
    width = max((arg.dtype.itemsize for arg in node.args), default=node.dtype.itemsize)
    return own_cost(node) * OPERATION * node.type.size * max(width, node.dtype.itemsize) // 8


class _Distances:
    """How much is touched between two steps."""

    def __init__(self, graph: Graph, fusion: Fusion) -> None:
        self.steps = fusion.steps
        outside = [
            {node for node in found if fusion.position.get(node) != i} for i, found in enumerate(fusion.loads)
        ]
        needed = {storage(node) for node in graph.outputs}.union(*outside)
        self.written = [[node for node in step.nodes if node in needed] for step in fusion.steps]
        self.touched = [
            sum(node.type.nbytes for node in itertools.chain(found, made))
            for found, made in zip(outside, self.written, strict=True)
        ]
        self.before = list(itertools.accumulate(self.touched, initial=0))

    def between(self, first: int, last: int) -> bool:
        """Whether what step ``first`` touched has left the caches when step ``last`` comes to it."""
        if first == last:
            step = self.steps[first]
            if not isinstance(step, Kernel):
                return False
            rows = math.prod(step.space[i] for i in step.outer)
            return self.touched[first] > FAR_BYTES * max(rows, 1)
        return self.before[last] - self.before[first] > FAR_BYTES


class _Question:
    """The values in question, and where each value would be needed."""

    def __init__(self, graph: Graph, fusion: Fusion) -> None:
        self.fusion = fusion
        self.nodes = graph.nodes()
        self.far = _Distances(graph, fusion)
        self.choices: dict[Node, Place] = {}  # with the place where it is computed in any case
        self.places: dict[Node, frozenset[Place]] = {}  # where it is needed if nothing in question is kept
        self.certain: dict[Node, frozenset[Place]] = {}  # where it is needed whatever is kept
        self.homes = _homes(fusion)
        readers = users(self.nodes)
        must = must_be_stored(graph, self.nodes)
        fixed: dict[Node, bool] = {}
        none: frozenset[Place] = frozenset()
        for node in reversed(self.nodes):
            uses = readers.get(node, ())
            fixed[node] = node in must or any(
                _moves(node, user) or (fixed[user] and user not in must and _is_free(user)) for user in uses
            )
            for found in (self.places, self.certain):
                needed = (
                    self._needed_by(uses[0], found)
                    if len(uses) == 1
                    else none.union(*(self._needed_by(user, found) for user in uses))
                )
                found[node] = (
                    needed if len(needed) <= MANY_PLACES else frozenset(sorted(needed)[: MANY_PLACES + 1])
                )
            if isinstance(node.op.lower, Scalar) and not fixed[node] and node.type.nbytes >= LEAST_BYTES:
                self._consider(node)

    def _needed_by(self, user: Node, found: dict[Node, frozenset[Place]]) -> frozenset[Place]:
        if user in self.choices:
            return found[user] if found is self.places else frozenset((self.choices[user],))
        if user in self.fusion.stored:
            return frozenset((self.homes[user],)) if user in self.homes else frozenset()
        return found[user]

    def _consider(self, node: Node) -> None:
        places = self.places[node]
        if not places or len(places) > MANY_PLACES:
            return
        home = self.homes[node] if node in self.fusion.stored else min(places)
        if any(place[0] != home[0] and self.far.between(home[0], place[0]) for place in places):
            self.choices[node] = home

    def _loads(self, node: Node, home: Place) -> int:
        """The weight of loading ``node`` in other places than its home."""
        others = self.places[node] - {home}
        return sum(
            node.type.nbytes * (FAR if self.far.between(home[0], place[0]) else NEAR) for place in others
        )

    def cut(self) -> dict[Node, bool]:
        """The cheapest answer. Each value has two vertices: it is kept where the cut lies between them,
        computed again where it lies before.
        """
        source, sink = 0, 1
        inline = (
            node for node in self.nodes if node not in self.fusion.stored and node.op.name not in LEAVES
        )
        shared = {node for node in inline if len(self.places[node]) > 1} | self.choices.keys()
        vertex = {node: 2 + 2 * i for i, node in enumerate(node for node in self.nodes if node in shared)}
        network = Network(2 + 2 * len(vertex))
        memory: dict[Node, int] = {}
        for node, number in vertex.items():
            home = self.choices.get(node)
            if home is None:  # computed wherever it is needed
                network.edge(number, number + 1, None)
            else:
                network.edge(source, number, (len(self.places[node]) - 1) * _weight(node))
                network.edge(number, number + 1, STORE * FAR * node.type.nbytes + self._loads(node, home))
                if self.certain[node] - {home}:
                    network.edge(number + 1, sink, None)
            for arg in dict.fromkeys(node.args):
                base = storage(arg)
                if arg in vertex:
                    network.edge(vertex[arg] + 1, number, None)
                elif base in self.fusion.stored:
                    extra = self._extra_loads(base)
                    if extra and base not in memory:
                        memory[base] = network.vertex()
                        network.edge(source, memory[base], extra)
                    if extra:
                        network.edge(memory[base], number, None)
        side = network.cut(source, sink)
        return {node: side[vertex[node]] and not side[vertex[node] + 1] for node in self.choices}

    def _extra_loads(self, base: Node) -> int:
        """The weight of loading what is in memory where it is not loaded in any case."""
        near = {place[0] for place in self.certain[base]}
        weight = FAR if base.type.nbytes >= LEAST_BYTES else NEAR
        return sum(
            base.type.nbytes * (NEAR if place[0] in near else weight)
            for place in self.places[base] - self.certain[base]
        )


def _homes(fusion: Fusion) -> dict[Node, Place]:
    found: dict[Node, Place] = {}
    for i, step in enumerate(fusion.steps):
        kernels = kernels_of(step)
        if not kernels:
            found.update((node, (i, 0, 0)) for node in step.nodes)
        for j, kernel in enumerate(kernels):
            found.update((member.node, (i, j, member.phase)) for member in kernel.members)
    return found


def _is_free(node: Node) -> bool:
    """Whether what is asked of a node may be asked of its arguments."""
    return is_inline(node) or node.op.name == "reshape"


def _moves(node: Node, user: Node) -> bool:
    """Whether ``user`` reads ``node`` at other points than its own, several times, or in a loop without
    lanes.
    """
    if user.op.name == "broadcast_to":
        return user.type.size > GROWTH * node.type.size
    if user.op.name == "reshape":
        return not is_thin_reshape(user)
    return isinstance(user.op.lower, View | Scan | Special)
