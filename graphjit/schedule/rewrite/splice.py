"""Concatenations of slices are read where the slices lie, not copied.

Job: a concatenation that would only be a copy (``concatenate([x[-1:], x[:-1]])``, which is ``np.roll``)
becomes the index map `splice`, unless somebody needs it in one piece of memory. Reading it is reading its
pieces.
Input and output: a graph. Invariant: the same elements.

    %1 = slice x (1..8); %2 = slice x (0..1)
    %3 = concatenate %1 %2 axis=0          ->  %3 = splice x axis=0 segments=((0, 1, 1, 7), (0, 0, 1, 1))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users
from graphjit.schedule.access import storage
from graphjit.schedule.pieces import is_computed_by_a_kernel
from graphjit.schedule.roots import needed_in_memory

PIECES = 4
"""Pieces up to which a concatenation is an index map: each is a test, or a part of a loop. (Padding by what
lies on the other side has three.)"""


def splice(graph: Graph) -> Graph:
    """``graph`` with concatenations that would be copies as index maps."""
    nodes = graph.nodes()
    if all(node.op.name != "concatenate" for node in nodes):
        return graph
    chosen = _chosen(graph, nodes)
    if not chosen:
        return graph
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in nodes:
        args = tuple([replaced[arg] for arg in node.args])
        if node in chosen:
            b.like(node)
            replaced[node] = _spliced(b, args, node)
        else:
            replaced[node] = b.copy(node, args)
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _chosen(graph: Graph, nodes: Sequence[Node]) -> set[Node]:
    """The concatenations that nobody needs in memory, and that would be copies for the most part."""
    readers = users(nodes)
    needed = {storage(node) for node in graph.outputs}
    chosen: set[Node] = set()
    for node in reversed(nodes):  # readers come first: what an index map reads need not be in memory
        if node.op.name == "concatenate" and node not in needed and _copies(node, readers):
            chosen.add(node)
        else:
            needed.update(needed_in_memory(node))
    return chosen


def _copies(node: Node, readers: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether most elements are copies of what is in memory anyway, or are computed where they are read."""
    pieces = [piece for piece in node.args if piece.type.size]
    if not 2 <= len(pieces) <= PIECES:
        return False
    written = sum(piece.type.size for piece in pieces if _is_written_in_place(piece, node, readers))
    return 2 * written < node.type.size


def _is_written_in_place(piece: Node, node: Node, readers: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether a kernel computes a piece, and for this concatenation alone: it then has no other place."""
    if not is_computed_by_a_kernel(piece):
        return False
    while piece.op.name == "reshape":
        if len(readers[piece]) > 1:
            return False
        piece = piece.args[0]
    return all(reader.op.name in ("concatenate", "reshape") for reader in readers[piece])


def _spliced(b: Builder, args: Sequence[Node], node: Node) -> Node:
    """A concatenation of ``args`` as an index map."""
    axis: Any = node.attrs["axis"]
    sources: dict[Node, int] = {}
    segments = []
    for piece in args:
        if piece.type.size:
            source, start, step = _source(b, piece, axis)
            which = sources.setdefault(source, len(sources))
            segments.append((which, start, step, piece.shape[axis]))
    return b.splice(*sources, axis=axis, segments=tuple(segments))


def _source(b: Builder, piece: Node, axis: int) -> tuple[Node, int, int]:
    """What a piece is a part of along ``axis``: the whole, the first position in it, and the step."""
    start, step = 0, 1
    while True:
        if piece.op.name == "slice":
            whole, first, stride = _uncut(b, piece, axis)
        elif piece.op.name == "flip" and axis in piece.attrs["axes"]:  # type: ignore[operator]
            axes: Any = piece.attrs["axes"]
            whole = b.flip(piece.args[0], axes=tuple(a for a in axes if a != axis))
            first, stride = piece.shape[axis] - 1, -1
        else:
            return piece, start, step
        if whole is piece:
            return piece, start, step
        piece, start, step = whole, first + stride * start, stride * step


def _uncut(b: Builder, piece: Node, axis: int) -> tuple[Node, int, int]:
    """A slice without its cut along ``axis``, and where that begins, with its step."""
    x = piece.args[0]
    attrs: Any = piece.attrs
    first, stride = attrs["starts"][axis], attrs["steps"][axis]
    cut = {
        name: (*values[:axis], new, *values[axis + 1 :])
        for name, values, new in (
            ("starts", attrs["starts"], 0),
            ("limits", attrs["limits"], x.shape[axis]),
            ("steps", attrs["steps"], 1),
        )
    }
    return b.slice(x, **cut), first, stride
