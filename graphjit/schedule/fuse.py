"""Fusion: which values share a loop nest.

Job: go through the values to store (`roots`) in order, and put each into the first kernel that takes it
(`constraints`), or else into a step of its own. A loss and its gradient over the same rows become one kernel;
a matrix product is always a step.
Input: a graph without composite ops.  Output: a `Fusion`, the steps in execution order, with the reason for
every refusal on the way, which ``graphjit inspect --why-not-fused`` prints.
Invariants: a root joins a step only at or after the last step that it depends on, so the order of steps stays
valid; between members of one kernel every read is at the same point of the loops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Special
from graphjit.limits import FusionLimits, Limits
from graphjit.schedule.access import Read, is_framed, operands, reads, storage, waits_for
from graphjit.schedule.constraints import Root, joined
from graphjit.schedule.loops.control import control_step
from graphjit.schedule.pieces import Destination, find_destinations
from graphjit.schedule.program import Assembly, Kernel, Member, Program, Step
from graphjit.schedule.rewrite.contractions import as_product
from graphjit.schedule.roots import NOTHING_DECIDED, choose_roots, must_be_stored, own_cost

NO_INNER: Mapping[Node, Mapping[str, Program]] = MappingProxyType({})


@dataclass
class Fusion:
    """The steps in order, and what is known about them.

    Attributes:
        steps: kernels, products and assemblies, in execution order.
        stored: the values that lie in memory: arguments, constants, roots.
        position: the number of the step that computes a root; of a concatenation, of the last of its pieces.
        reads: what each root of a kernel reads, with addresses.
        loads: for each step, the stored values that it reads, its own among them.
        destinations: where else a root is written, as a piece of concatenations.
        refusals: why a root did not join a step, by (number of the step, root).
    """

    steps: list[Step]
    stored: set[Node]
    position: dict[Node, int]
    reads: dict[Node, list[Read]] = field(default_factory=dict)
    loads: list[set[Node]] = field(default_factory=list)
    destinations: dict[Node, list[Destination]] = field(default_factory=dict)
    refusals: dict[tuple[int, Node], str] = field(default_factory=dict)

    def from_outside(self, i: int) -> set[Node]:
        """The stored values that step ``i`` reads and does not make."""
        return {node for node in self.loads[i] if self.position.get(node) != i}

    def first_write(self, node: Node) -> int:
        """The step in which the storage of a stored value is written for the first time."""
        return min((self.position[root] for root in self.pieces.get(node, ())), default=self.position[node])

    @cached_property
    def pieces(self) -> dict[Node, list[Node]]:
        """The roots that are pieces of a concatenation, for each concatenation."""
        pieces: dict[Node, list[Node]] = {}
        for root, destinations in self.destinations.items():
            for destination in destinations:
                pieces.setdefault(destination.owner, []).append(root)
        return pieces


def by_level(graph: Graph) -> list[Node]:
    """The nodes of ``graph`` ordered by their distance from the inputs."""
    level: dict[Node, int] = {}
    nodes = graph.nodes()
    for node in nodes:
        level[node] = 1 + max((level[arg] for arg in node.args), default=-1)
    return sorted(nodes, key=lambda node: (level[node], node.serial))


def _numbers_first(nodes: Sequence[Node]) -> list[Node]:
    """The same order, but what is computed from single numbers alone stands in front.

    Nothing large waits for such a value then: a rate that depends on the step's number, computed between the
    means of gradients and the parameters, would keep the two in kernels of their own.
    """
    early: set[Node] = set()
    for node in nodes:
        if node.is_bundle or node.op.name in ("item", "recompute") or node.type.size != 1:
            continue
        if all(arg in early for arg in node.args):
            early.add(node)
    return sorted(nodes, key=lambda node: node not in early)


def fuse(
    graph: Graph,
    limits: Limits,
    order: Sequence[Node] | None = None,
    decided: Mapping[Node, bool] = NOTHING_DECIDED,
    inner: Mapping[Node, Mapping[str, Program]] = NO_INNER,
) -> Fusion:
    """Group the roots of ``graph`` into steps.

    Args:
        graph: without composite ops.
        limits: thresholds.
        order: a topological order of the nodes; default: the order in which they were made.
        decided: of the values that `recompute` decided about, whether they are stored.
        inner: the programs inside loops and choices, by node and what they are for.
    """
    nodes = graph.nodes()
    roots = choose_roots(graph, limits.fusion, decided)
    certain = must_be_stored(graph, nodes)
    stored = roots | {node for node in nodes if _lies_in_memory(node)}
    fusion = Fusion([], stored, {}, destinations=find_destinations(graph))
    waits = any(node.op.name == "recompute" for node in nodes)
    for node in _numbers_first(order or nodes):
        if node.is_bundle:
            fusion.position[node] = len(fusion.steps)
            _append(fusion, control_step(graph, node, inner[node]), {storage(arg) for arg in node.args})
        elif node in roots and node.op.name != "item":  # the step of its node computes an item
            _place(fusion, node, node in certain, waits, limits.fusion)
    return fusion


def _place(fusion: Fusion, node: Node, is_certain: bool, waits: bool, limits: FusionLimits) -> None:
    """Put a root into a kernel, or into a step of its own."""
    if node.op.name == "concatenate":  # complete with the last of its pieces
        fusion.position[node] = max(fusion.position[storage(arg)] for arg in node.args)
        return
    kind = node.op.lower.kind if isinstance(node.op.lower, Special) else ""
    if kind in ("contract", "contract_windows"):
        product = as_product(node)
        assert product is not None, f"{node!r} was not prepared by split_contractions"
        _append(fusion, product, {storage(arg) for arg in node.args})
    elif kind not in ("", "gather", "iota", "const") and not is_framed(node):
        _append(fusion, Assembly(node), _assembly_reads(node, fusion.stored))
    else:
        root = _root(fusion, node, is_certain, waits)
        if not _join(fusion, root, limits):
            kernel = Kernel(root.space, root.axes, root.scan)
            _extend(kernel, root, Member(node, 0, False))
            _append(fusion, kernel, root.loads)


def _root(fusion: Fusion, node: Node, is_kept: bool, waits: bool) -> Root:
    """A value that looks for a kernel; ``waits`` is whether the graph has values that must not come early."""
    stored = fusion.stored
    fusion.reads[node] = accesses = reads(node, stored)
    return Root(
        node,
        accesses,
        {value for value, _ in accesses},
        _cost(node, stored),
        {destination.owner for destination in fusion.destinations.get(node, ())},
        is_kept,
        waits_for(node, stored) if waits else set(),
    )


def _lies_in_memory(node: Node) -> bool:
    """Whether a node is an argument, or a constant that is more than one number."""
    return node.op.name == "input" or (node.op.name == "const" and node.type.size != 1)


def _append(fusion: Fusion, step: Step, loads: set[Node]) -> None:
    for node in step.nodes:
        fusion.position[node] = len(fusion.steps)
    fusion.steps.append(step)
    fusion.loads.append(loads)


def _assembly_reads(node: Node, stored: set[Node]) -> set[Node]:
    loads: set[Node] = set()
    for arg in node.args:
        base = storage(arg)
        loads |= {base} if base in stored else {value for value, _ in reads(arg, stored)}
    return loads


def _cost(root: Node, stored: set[Node]) -> int:
    """Cost of one element of ``root`` from stored values on, with its store and a load."""
    total = own_cost(root) + 2
    stack, seen = list(operands(root)), set()
    while stack:
        node = stack.pop()
        if node not in seen and storage(node) not in stored:
            seen.add(node)
            total += own_cost(node)
            stack.extend(operands(node))
    return total


def _join(fusion: Fusion, root: Root, limits: FusionLimits) -> bool:
    """Put ``root`` into the first kernel that takes it; False if there is none."""
    written = [value for value in root.loads | root.after if value in fusion.position]
    earliest = max(
        (fusion.position[value] + (value.op.name == "concatenate") for value in written), default=-1
    )
    first = max(earliest, len(fusion.steps) - limits.look_back, 0)
    for i in range(first, len(fusion.steps)):
        step = fusion.steps[i]
        outcome = joined(step, root, fusion.loads[i], limits)
        if isinstance(outcome, Member):
            assert isinstance(step, Kernel)
            _extend(step, root, outcome)
            fusion.position[root.node] = i
            fusion.loads[i] |= root.loads
            return True
        if len(fusion.steps) < limits.explained_steps:
            fusion.refusals[i, root.node] = outcome
    return False


def _extend(kernel: Kernel, root: Root, member: Member) -> None:
    if kernel.axes is None:
        kernel.axes = root.axes
    kernel.scan = kernel.scan or root.scan
    kernel.inputs |= root.loads - kernel.by_node.keys()
    kernel.members.append(member)
    kernel.by_node[root.node] = member
    kernel.cost += root.cost
    kernel.owners |= root.owners
    kernel.kept += root.is_kept


def why_not_fused(fusion: Fusion, first: Node, second: Node) -> str:
    """Why ``second`` does not share a kernel with ``first``; empty when it does or was inlined into it."""
    if first not in fusion.position or second not in fusion.position:
        return ""
    here, there = fusion.position[first], fusion.position[second]
    if here == there:
        return ""
    reason = fusion.refusals.get((here, second)) or fusion.refusals.get((there, first))
    return reason or "a step that one of them depends on runs in between"
