"""Concatenations without copies: pieces are written where they belong when they are computed.

Job: see to it that every piece of a concatenation is a value that some kernel computes, and say at which
place it goes.
Input: a graph. Output: a graph (`own_pieces`), and for every piece its places in the storage of
concatenations (`find_places`).
Invariants: the pieces of a concatenation cover its storage exactly; a concatenation that is only a piece of
others has no storage of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Reduce, Scalar, Scan
from graphjit.schedule.access import is_window, storage, strides
from graphjit.schedule.squeeze import squeezed


@dataclass(frozen=True)
class Place:
    """Element ``index`` of a piece lies at ``offset + sum(factors * index)`` in the storage of ``owner``."""

    owner: Node
    factors: tuple[int, ...]
    offset: int


def own_pieces(graph: Graph) -> Graph:
    """Make every piece of a concatenation something that a kernel can compute: copies of arguments,
    constants, products ...
    """
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
            args = [arg if _is_piece(arg) else _copied(b, arg) for arg in args if arg.type.size]
        replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _copied(b: Builder, node: Node) -> Node:
    return b.reshape(b.emit("copy", squeezed(b, node), slot=-1), shape=node.shape)


def _is_piece(node: Node) -> bool:
    base = storage(node)
    if _long(base.shape) != _long(node.shape):
        return False
    computed = (
        isinstance(base.op.lower, Scalar | Reduce | Scan)
        or base.op.name in ("gather", "concatenate")
        or is_window(base)
    )
    return computed


def _long(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def find_places(graph: Graph) -> dict[Node, list[Place]]:
    """Where the pieces of the concatenations of ``graph`` go, by the node that is computed."""
    nodes = graph.nodes()
    joined = [node for node in nodes if node.op.name == "concatenate"]
    if not joined:
        return {}
    readers = users(nodes)
    outputs = {storage(node) for node in graph.outputs}
    places: dict[Node, list[Place]] = {}
    for node in reversed(joined):
        targets = list(places.get(node, ()))
        if node in outputs or _is_read(node, readers):
            targets.append(Place(node, strides(node.shape), 0))
        axis: Any = node.attrs["axis"]
        start = 0
        for piece in node.args:
            base = storage(piece)
            for target in targets:
                factors = iter([f for f, n in zip(target.factors, piece.shape, strict=True) if n != 1])
                own = tuple(next(factors) if n != 1 else 0 for n in base.shape)
                places.setdefault(base, []).append(
                    Place(target.owner, own, target.offset + start * target.factors[axis])
                )
            start += piece.shape[axis]
    return places


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
