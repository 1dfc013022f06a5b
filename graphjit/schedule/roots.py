"""Which values are stored, and which are computed again wherever they are read.

Job: choose the *roots* of a graph: the values that some loop nest computes and stores.  Everything else is
inlined: computed in registers at the point where it is read.  In ``z = exp(x); return z + 1, z * 2`` the
exponential is a root, because two results read it; in ``sqrt(x + 1)`` the sum is inlined.
Input: a graph, thresholds, and what `recompute` decided.  Output: a set of nodes.
Invariant: what cannot be computed at a point (a reduction, a product, the argument of a gather) is a root.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Scalar, Special, View
from graphjit.limits import FusionLimits
from graphjit.schedule.access import SHARES, is_framed, is_thin_reshape, operands, storage

LEAVES = ("input", "const", "iota")
CONTROL = ("scan", "while", "unwind", "cond")
SHIFTS = ("slice", "embed", "flip", "splice")
NOTHING_DECIDED: Mapping[Node, bool] = MappingProxyType({})


def own_cost(node: Node) -> int:
    """Cost of one element, its arguments being there; an addition is 1."""
    if isinstance(node.op.lower, Scalar):
        return node.op.lower.cost
    return 1 if node.op.name in ("gather", "embed", "splice") else 0


def is_inline(node: Node) -> bool:
    """Whether a node can be computed at the point where it is read."""
    return isinstance(node.op.lower, Scalar | View) or node.op.name in ("gather", *LEAVES) or is_framed(node)


def must_be_stored(graph: Graph, nodes: Iterable[Node]) -> set[Node]:
    """Of the ``nodes`` of a graph, those that are stored whatever it costs.

    These are the results, and what is read as a whole or at any point: arguments of products and
    correlations, of loops and choices, arrays that a gather picks from, pieces of concatenations, arguments
    of reshapes; what is made of an array to be written into it, which may then be changed where it lies.
    """
    stored = {storage(node) for node in graph.outputs}
    paired = {arg for node in nodes if node.op.name == "pair_axes" for arg in node.args}
    for node in nodes:
        stored.update(needed_in_memory(node))
        # Windows read an element many times, but for those of which one tap a position is wanted.
        if node.op.name == "window" and node not in paired and _shows_frame(node.args[0]):
            stored.add(storage(node.args[0]))
    for node in nodes:
        if node.op.name == "scatter_set":
            stored.update(storage(arg) for arg in node.args[1:] if reads_inline(arg, node.args[0], stored))
    return stored


def reads_inline(arg: Node, array: Node, stored: Collection[Node]) -> bool:
    """Whether the step that reads ``arg`` reads ``array``, since nothing in between is ``stored``: it would
    read what it is changing, in ``a[i] = a[j] * 2``.
    """
    stack, seen = [arg], set[Node]()
    while stack:
        node = stack.pop()
        if storage(node) is storage(array):
            return True
        if node not in seen and storage(node) not in stored:
            seen.add(node)
            stack += node.args
    return False


def _shows_frame(node: Node) -> bool:
    """Whether a value is a view of one in a frame."""
    while isinstance(node.op.lower, View) or node.op.name in SHARES:
        node = node.args[0]
    return is_framed(node)


def needed_in_memory(node: Node) -> list[Node]:
    """What a node needs in memory."""
    kind = node.op.lower.kind if isinstance(node.op.lower, Special) else ""
    if kind in ("contract", "contract_windows", "correlate", "concatenate", *CONTROL):
        return [storage(arg) for arg in node.args]
    if kind == "gather":
        return [storage(node.args[0])]
    return [storage(node)] if kind == "reshape" and not is_thin_reshape(node) else []


class _Demand(NamedTuple):
    """Who would compute a value if nobody stored it, looking through views of it."""

    readers: int
    """How many nodes compute with it."""
    shifted: int
    """How many of them read it at shifted points."""
    repeated: bool
    """Whether a reader has clearly more elements, and so computes each of the value's several times."""


def _demands(nodes: Sequence[Node], limits: FusionLimits) -> dict[Node, _Demand]:
    readers = users(nodes)
    demands: dict[Node, _Demand] = {}
    for node in reversed(nodes):
        count = shifted = 0
        repeated = False
        for user in readers.get(node, ()):
            is_view = isinstance(user.op.lower, View) or user.op.name == "splice"
            passes_on = is_view or user.op.name == "reshape"
            beyond = demands[user]
            count += beyond.readers if passes_on else 1
            shifted += 1 if user.op.name in SHIFTS else beyond.shifted if is_view else 0
            repeated = repeated or _repeats(user, node, limits) or (passes_on and beyond.repeated)
        demands[node] = _Demand(count, shifted, repeated)
    return demands


def _repeats(user: Node, node: Node, limits: FusionLimits) -> bool:
    repeats = ("broadcast_to", "embed", "splice")
    return user.op.name in repeats and user.type.size > limits.growth * node.type.size


class _Expression(NamedTuple):
    """What lies between a value and the stored values that it is computed from."""

    cost: int
    depth: int


_STORED = _Expression(0, 0)


def choose_roots(
    graph: Graph, limits: FusionLimits, decided: Mapping[Node, bool] = NOTHING_DECIDED
) -> set[Node]:
    """The values to store.

    Args:
        graph: without composite ops.
        limits: thresholds of cost, depth and repetition.
        decided: of the values that `recompute` decided about, whether they are stored.
    """
    nodes = graph.nodes()
    demands = _demands(nodes, limits)
    roots = must_be_stored(graph, nodes)
    made: dict[Node, _Expression] = {}
    for node in nodes:
        depth = 1 + max((made[arg].depth for arg in operands(node)), default=0)
        if node.is_bundle or node.op.name == "item":
            roots.add(node)
            made[node] = _STORED
            continue
        if node.op.name in SHARES and depth <= limits.depth:
            made[node] = _Expression(made[storage(node)].cost, depth)
            continue
        if not is_inline(node):
            roots.add(node)
        expression = _Expression(own_cost(node) + sum(made[arg].cost for arg in operands(node)), depth)
        if _pays_to_store(node, expression, demands[node], decided, limits):
            base = _stored_for(node)
            if base is not None:
                roots.add(base)
                made[base] = _STORED
                if base is not node:
                    expression = _Expression(own_cost(node), depth)
        made[node] = _STORED if node in roots else expression
    return {node for node in roots if node.op.name not in ("input", "const") and not node.is_bundle}


def _stored_for(node: Node) -> Node | None:
    """What is stored where it pays to store ``node``: of a value in a frame of zeros, or in another order,
    the value itself.
    """
    base = node
    while base.op.name in SHARES or (is_framed(base) and len(base.args) == 1):
        base = base.args[0]
    return None if base.op.name in LEAVES else base


def _pays_to_store(
    node: Node,
    expression: _Expression,
    demand: _Demand,
    decided: Mapping[Node, bool],
    limits: FusionLimits,
) -> bool:
    """Whether a value that could be inlined is stored all the same."""
    if node.op.name in LEAVES:
        return False
    if expression.depth > limits.depth:
        return True
    if isinstance(node.op.lower, View):
        return False
    cheap = limits.inline_shared if node.shape else 0
    shared = (demand.readers > 1 and expression.cost > cheap) or (
        demand.shifted > limits.shifted_readers and expression.cost > 1
    )
    return (
        decided.get(node, shared)
        or (demand.repeated and expression.cost > limits.inline_shared)
        or expression.cost > limits.inline
    )
