"""Fusion: which nodes share a loop nest.

Job: choose roots (values computed by a loop nest of their own or kept for several readers), then put roots
into kernels greedily.
Input: a graph without composite ops. Output: steps in execution order; `Refusal` texts say why a root did not
join a kernel.
Invariants: a root joins a kernel only at or after the last step it depends on, so the order of steps stays
valid; between members of one kernel every read is at the same point of the loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Reduce, Scalar, Scan, Special, View
from graphjit.schedule.access import (
    Read,
    is_thin_reshape,
    is_window,
    linear,
    own_index,
    reads,
    space,
    storage,
)
from graphjit.schedule.contractions import as_product
from graphjit.schedule.places import Place, find_places
from graphjit.schedule.program import Assembly, Kernel, Member, Step

INLINE_SHARED = 4  # cost up to which a value with several readers is recomputed rather than kept
INLINE_LIMIT = 200  # cost at which an expression is cut even when it has a single reader
GROWTH = 1.5  # repetition of a value (by broadcasting, or as part of a larger array) from which it is kept unless it is cheap
DEPTH_LIMIT = 150  # inlined steps from a root to storage
KERNEL_LIMIT = 2500  # cost of one kernel
BUFFER_LIMIT = 192  # values that one kernel reads and writes: code generation is superlinear in their number
LOOK_BACK = 48  # kernels that a root may still join, counted from the last one
SERIAL_LIMIT = 60  # cost of a kernel with a running value along one long row
TINY = 4096  # elements below which unrelated loops over one space share a kernel

SHIFTS = ("slice", "embed", "flip")
MANY_SHIFTS = 2  # readers at other points up to which what is cheap is computed for each of them

HEAVY_ROW = 20  # cost of a value for each row (an elementary function) from which ...
SHORT_ROW = 128  # ... rows of this length do not hide that it runs once at a time inside their loop
MANY_ROWS = 64  # rows from which it fills lanes

LEAVES = ("input", "const", "iota")
NOTHING_DECIDED: Mapping[Node, bool] = MappingProxyType({})


@dataclass
class Fusion:
    """The outcome: steps in order, the stored values, and a reason for every refusal that was met."""

    steps: list[Step]
    stored: set[Node]
    position: dict[Node, int]
    reads: dict[Node, list[Read]] = field(default_factory=dict)
    loads: list[set[Node]] = field(default_factory=list)
    places: dict[Node, list[Place]] = field(default_factory=dict)  # where else a root is written
    refusals: dict[tuple[int, Node], str] = field(
        default_factory=dict
    )  # (number of a step, node that did not join it)

    def first_write(self, node: Node) -> int:
        """The step in which the storage of a stored value is written for the first time."""
        return min((self.position[root] for root in self.pieces.get(node, ())), default=self.position[node])

    @cached_property
    def pieces(self) -> dict[Node, list[Node]]:
        """The roots that are written to places within a concatenation, for each concatenation."""
        found: dict[Node, list[Node]] = {}
        for root, places in self.places.items():
            for place in places:
                found.setdefault(place.owner, []).append(root)
        return found


def own_cost(node: Node) -> int:
    """Cost of one element in add-like units."""
    return (
        node.op.lower.cost
        if isinstance(node.op.lower, Scalar)
        else 1
        if node.op.name in ("gather", "embed")
        else 0
    )


def is_inline(node: Node) -> bool:
    """Whether a node can be computed at the point where it is read."""
    lower = node.op.lower
    return isinstance(lower, Scalar | View) or node.op.name in ("gather", *LEAVES) or is_window(node)


def must_be_stored(graph: Graph, nodes: Iterable[Node]) -> set[Node]:
    """Of the ``nodes`` of a graph: results, and what is needed as a whole by steps that are no kernels or
    read at any point.
    """
    roots = {storage(node) for node in graph.outputs}
    for node in nodes:
        if isinstance(node.op.lower, Special):
            kind = node.op.lower.kind
            if kind in ("contract", "correlate"):
                roots.update(storage(arg) for arg in node.args)
            elif kind == "gather":
                roots.add(storage(node.args[0]))
            elif kind == "concatenate":
                roots.update(storage(arg) for arg in node.args)
            elif kind == "reshape" and not is_thin_reshape(node):
                roots.add(storage(node))
    return roots


def choose_roots(graph: Graph, decided: Mapping[Node, bool] = NOTHING_DECIDED) -> set[Node]:
    """Nodes that get computed as units; everything else is inlined into its readers.

    ``decided``: of values in question (`recompute`), whether they are kept.
    """
    nodes = graph.nodes()
    readers = users(nodes)
    roots = must_be_stored(graph, nodes)
    cost: dict[Node, int] = {}
    depth: dict[Node, int] = {}
    fanout: dict[Node, int] = {}
    grows: dict[Node, bool] = {}
    shifts: dict[Node, int] = {}
    for node in reversed(nodes):
        grows[node] = any(
            (user.op.name in ("broadcast_to", "embed") and user.type.size > GROWTH * node.type.size)
            or ((isinstance(user.op.lower, View) or user.op.name == "reshape") and grows[user])
            for user in readers.get(node, ())
        )
        fanout[node] = sum(
            fanout[user] if isinstance(user.op.lower, View) or user.op.name == "reshape" else 1
            for user in readers.get(node, ())
        )
        shifts[node] = sum(
            1 if user.op.name in SHIFTS else shifts[user] if isinstance(user.op.lower, View) else 0
            for user in readers.get(node, ())
        )
    for node in nodes:
        depth[node] = 1 + max((depth[arg] for arg in node.args), default=0)
        if node.op.name == "reshape" and depth[node] <= DEPTH_LIMIT:
            cost[node] = cost[storage(node)]
            continue
        if not is_inline(node):
            roots.add(node)
        total = own_cost(node) + sum(cost[arg] for arg in node.args)
        shared = fanout[node] > 1 and total > (0 if not node.shape else INLINE_SHARED)
        shared = decided.get(node, shared or (shifts[node] > MANY_SHIFTS and total > 1))
        amplified = total > INLINE_SHARED and grows[node]
        if node.op.name not in LEAVES:
            computes = not isinstance(node.op.lower, View)
            if (computes and (shared or amplified or total > INLINE_LIMIT)) or depth[node] > DEPTH_LIMIT:
                # Of a value in a frame of zeros, the value is kept, not the frame.
                kept = storage(node.args[0] if is_window(node) else node)
                if kept.op.name not in LEAVES and not is_window(kept):
                    roots.add(kept)
                    cost[kept] = depth[kept] = 0
                    total = total if kept is node or node in roots else own_cost(node)
        if node in roots:
            cost[node] = depth[node] = 0
        else:
            cost[node] = total
    return {node for node in roots if node.op.name not in ("input", "const")}


def by_level(graph: Graph) -> list[Node]:
    """The nodes of ``graph`` ordered by their distance from the inputs."""
    level: dict[Node, int] = {}
    nodes = graph.nodes()
    for node in nodes:
        level[node] = 1 + max((level[arg] for arg in node.args), default=-1)
    return sorted(nodes, key=lambda node: (level[node], node.serial))


def fuse(
    graph: Graph, order: Sequence[Node] | None = None, decided: Mapping[Node, bool] = NOTHING_DECIDED
) -> Fusion:
    """Group the roots of ``graph`` into steps, in the order in which nodes were made or in another
    topological order.
    """
    roots = choose_roots(graph, decided)
    stored = roots | {
        node for node in graph.nodes() if node.op.name in ("input", "const") and _is_stored(node)
    }
    result = Fusion([], stored, {}, places=find_places(graph))
    loads = result.loads
    for node in order or graph.nodes():
        if node not in roots:
            continue
        if node.op.name == "concatenate":  # complete with the last of its pieces
            result.position[node] = max(result.position[storage(arg)] for arg in node.args)
            continue
        step: Step
        kind = node.op.lower.kind if isinstance(node.op.lower, Special) else ""
        if kind == "contract":
            product = as_product(node)
            assert product is not None, f"{node!r} was not prepared by split_contractions"
            step, found = product, {storage(arg) for arg in node.args}
        elif kind not in ("", "gather", "iota", "const") and not is_window(node):
            step, found = Assembly(node), _assembly_reads(node, stored)
        else:
            accesses = result.reads[node] = reads(node, stored)
            found = {dep for dep, _ in accesses}
            joined = _join(result, loads, node, accesses, found)
            if joined is not None:
                result.position[node] = joined
                loads[joined] |= found
                continue
            step = Kernel(
                space(node), _axes(node), _scan(node), [Member(node, 0, False)], _cost(node, stored)
            )
        result.position[node] = len(result.steps)
        result.steps.append(step)
        loads.append(found)
    return result


def _is_stored(node: Node) -> bool:
    return node.op.name == "input" or node.type.size != 1


def _axes(node: Node) -> tuple[int, ...] | None:
    return node.attrs["axes"] if isinstance(node.op.lower, Reduce) else None  # type: ignore[return-value]


def _scan(node: Node) -> tuple[int, bool] | None:
    return (node.attrs["axis"], node.attrs["reverse"]) if isinstance(node.op.lower, Scan) else None  # type: ignore[return-value]


def _assembly_reads(node: Node, stored: set[Node]) -> set[Node]:
    found: set[Node] = set()
    for arg in node.args:
        base = storage(arg)
        found |= {base} if base in stored else {dep for dep, _ in reads(arg, stored)}
    return found


def _cost(root: Node, stored: set[Node]) -> int:
    total = own_cost(root) + 2
    stack, seen = list(root.args), set()
    while stack:
        node = stack.pop()
        if node not in seen and storage(node) not in stored:
            seen.add(node)
            total += own_cost(node)
            stack.extend(node.args)
    return total


def _join(
    fusion: Fusion, loads: list[set[Node]], node: Node, accesses: list[Read], found: set[Node]
) -> int | None:
    """Position of the kernel that ``node`` joined, or None."""
    known = [dep for dep in found if dep in fusion.position]
    earliest = max((fusion.position[dep] + (dep.op.name == "concatenate") for dep in known), default=-1)
    first = max(earliest, len(fusion.steps) - LOOK_BACK, 0)
    cost = _cost(node, fusion.stored)
    for i in range(first, len(fusion.steps)):
        kernel = fusion.steps[i]
        why = _refusal(kernel, node, accesses, found, loads[i], cost)
        if isinstance(why, Member):
            assert isinstance(kernel, Kernel)
            if kernel.axes is None:
                kernel.axes = _axes(node)
            kernel.scan = kernel.scan or _scan(node)
            kernel.members.append(why)
            kernel.cost += cost
            return i
        if len(fusion.steps) < 1000:
            fusion.refusals[i, node] = why
    return None


def _refusal(
    kernel: Step,
    node: Node,
    accesses: list[Read],
    found: set[Node],
    loads: set[Node],
    cost: int,
) -> Member | str:
    """The place of ``node`` in ``kernel``, or the reason why it has none."""
    if not isinstance(kernel, Kernel):
        return f"{kernel.nodes[0].op.name} runs as a call or loop nest of its own"
    axes = _axes(node)
    own = space(node)
    outer_shape = tuple(kernel.space[i] for i in kernel.outer)
    outer_level = False
    if own == kernel.space:
        if axes is not None and kernel.axes is not None and axes != kernel.axes:
            return f"they reduce over different axes: {kernel.axes} and {axes}"
    elif kernel.axes is not None and axes is None and node.shape == outer_shape and _scan(node) is None:
        outer_level = True
    else:
        return f"iteration spaces differ: {kernel.space} and {own}"
    scan = kernel.scan or _scan(node)
    if scan is not None and own == kernel.space:
        if _scan(node) not in (None, scan):
            return f"they have running values along different axes or directions: {kernel.scan} and {_scan(node)}"
        reduced = kernel.axes if kernel.axes is not None else axes
        if reduced is not None and scan[0] not in reduced:
            return (
                f"a running value along axis {scan[0]} needs the innermost loop, the reduction {reduced} too"
            )
        # One long row runs on one thread: what is heavy stays outside, where blocks can run side by side.
        if math.prod(own) == own[scan[0]] > TINY and kernel.cost + cost > SERIAL_LIMIT:
            return "the running value would keep what is heavy from running in parallel"
    if kernel.cost + cost > KERNEL_LIMIT:
        return f"the kernel would cost more than {KERNEL_LIMIT} (register pressure, compile time)"
    if len(kernel.members) + len(loads) + len(found) > BUFFER_LIMIT:
        return f"the kernel would read and write more than {BUFFER_LIMIT} values (compile time)"
    inside = {member.node: member for member in kernel.members}
    phase = 0
    new_outer = (
        kernel.outer
        if kernel.axes is not None or axes is None
        else tuple(i for i in range(len(own)) if i not in axes)
    )
    for dep, address in accesses:
        member = inside.get(dep)
        if member is None:
            continue
        is_row = member.outer or isinstance(dep.op.lower, Reduce)
        if outer_level:
            expected = linear(dep.shape, own_index(node.shape)) if is_row else None
        elif is_row:
            index = own_index(kernel.space)
            expected = linear(dep.shape, [index[i] for i in new_outer])
        else:
            expected = linear(dep.shape, own_index(dep.shape))
        if address is None or address != expected:
            return (
                f"{dep.op.name} is read at another point of the loops ({address!r} instead of {expected!r})"
            )
        phase = max(phase, member.phase + (1 if is_row and not outer_level else 0))
    if phase > 0 and not outer_level and not new_outer:
        return "it needs a whole reduction to be complete first"
    if outer_level and not any(dep in inside for dep in found):
        return "it shares nothing with the kernel"
    if (
        outer_level
        and cost >= HEAVY_ROW
        and math.prod(outer_shape) >= MANY_ROWS
        and math.prod(kernel.space) <= SHORT_ROW * math.prod(outer_shape)
    ):
        return "rows are so short that it is faster in lanes, as a kernel of its own"
    size = 1
    for n in kernel.space:
        size *= n
    if size > TINY and not (found & loads) and not any(dep in inside for dep in found):
        return "it shares no data with the kernel"
    return Member(node, phase, outer_level)


def why_not_fused(fusion: Fusion, first: Node, second: Node) -> str:
    """Why ``second`` does not share a kernel with ``first``; empty when it does or was inlined into it."""
    if first not in fusion.position or second not in fusion.position:
        return ""
    if fusion.position[first] == fusion.position[second]:
        return ""
    there = fusion.position
    reason = fusion.refusals.get((there[first], second)) or fusion.refusals.get((there[second], first))
    return reason or "a step that one of them depends on runs in between"
