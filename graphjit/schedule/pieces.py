"""Concatenations without copies: pieces are written where they belong when they are computed.

Job: see to it that every piece of a concatenation is a value that some kernel computes (`own_pieces`), and
say where in the storage of the concatenation it goes (`find_destinations`).  For
``concatenate([exp(x), sin(x)])`` the kernel that computes the exponentials writes them into the first half of
the result.
Input: a graph.  Output: a graph; for every piece its destinations.
Invariants: the pieces of a concatenation cover its storage exactly; a concatenation that is only a piece of
others has no storage of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.ir.affine import strides
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Reduce, Scalar, Scan
from graphjit.ir.types import without_ones
from graphjit.schedule.access import is_window, storage
from graphjit.schedule.rewrite.squeeze import squeezed


@dataclass(frozen=True)
class Destination:
    """Where a piece is written: element ``index`` of it goes to ``offset + sum(factors * index)`` in the
    storage of ``owner``, a concatenation.
    """

    owner: Node
    factors: tuple[int, ...]
    offset: int


def own_pieces(graph: Graph) -> Graph:
    """``graph`` with a copy of each piece that no kernel computes: arguments, constants, products."""
    nodes = graph.nodes()
    if all(node.op.name != "concatenate" for node in nodes):
        return graph
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in nodes:
        args = [replaced[arg] for arg in node.args]
        if node.op.name == "concatenate":
            b.like(node)
            if not node.type.size:
                replaced[node] = b.full(0, node.type)
                continue
            args = [arg if is_computed_by_a_kernel(arg) else _copied(b, arg) for arg in args if arg.type.size]
        replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _copied(b: Builder, node: Node) -> Node:
    return b.reshape(b.emit("copy", squeezed(b, node), slot=-1), shape=node.shape)


def is_computed_by_a_kernel(piece: Node) -> bool:
    """Whether some kernel computes a piece, and can write it where it belongs."""
    base = storage(piece)
    if without_ones(base.shape) != without_ones(piece.shape):
        return False
    return (
        isinstance(base.op.lower, Scalar | Reduce | Scan)
        or base.op.name in ("gather", "concatenate")
        or is_window(base)
    )


def find_destinations(graph: Graph) -> dict[Node, list[Destination]]:
    """Where the pieces of the concatenations of ``graph`` go, by the node that is computed."""
    nodes = graph.nodes()
    concatenations = [node for node in nodes if node.op.name == "concatenate"]
    if not concatenations:
        return {}
    readers = users(nodes)
    outputs = {storage(node) for node in graph.outputs}
    destinations: dict[Node, list[Destination]] = {}
    for node in reversed(concatenations):  # an outer one first: its pieces go where it goes itself
        whole = list(destinations.get(node, ()))
        if node in outputs or _is_read(node, readers):
            whole.append(Destination(node, strides(node.shape), 0))
        axis: Any = node.attrs["axis"]
        start = 0
        for piece in node.args:
            base = storage(piece)
            destinations.setdefault(base, []).extend(_part(target, piece, axis, start) for target in whole)
            start += piece.shape[axis]
    return destinations


def _part(whole: Destination, piece: Node, axis: int, start: int) -> Destination:
    """Where a piece goes that begins at ``start`` along ``axis`` of what goes to ``whole``."""
    factors = iter([f for f, n in zip(whole.factors, piece.shape, strict=True) if n != 1])
    of_base = tuple(next(factors) if n != 1 else 0 for n in storage(piece).shape)
    return Destination(whole.owner, of_base, whole.offset + start * whole.factors[axis])


def _is_read(node: Node, readers: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether anybody but a concatenation reads ``node``."""
    pending = [node]
    while pending:
        for user in readers.get(pending.pop(), ()):
            if user.op.name == "reshape":
                pending.append(user)
            elif user.op.name != "concatenate":
                return True
    return False
