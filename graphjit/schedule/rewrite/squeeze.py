"""Computation without axes of length 1: values over the same elements then share loops.

Job: compute every elementwise value, every reduction and every running value over the long axes only; a
reshape, which costs nothing, gives the shape asked for.  A sum of shape (8, 1) that is added to a vector of
shape (8,) has the same loops as the vector.
Input and output: a graph.  Invariant: the same operations on the same elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce, Scalar, Scan
from graphjit.ir.types import without_ones


def squeeze(graph: Graph) -> Graph:
    """``graph`` with axes of length 1 in reshapes and other views only."""
    nodes = graph.nodes()
    if not any(
        1 in arg.shape
        for node in nodes
        if isinstance(node.op.lower, Scalar | Reduce | Scan)
        for arg in node.args
    ):
        return graph
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in nodes:
        args = [replaced[arg] for arg in node.args]
        b.like(node)
        if isinstance(node.op.lower, Scalar) and 1 in node.shape:
            made = b.emit(node.op, *(squeezed(b, arg) for arg in args), **node.attrs)
            replaced[node] = b.reshape(made, shape=node.shape)
        elif isinstance(node.op.lower, Reduce) and 1 in args[0].shape:
            replaced[node] = b.reshape(_reduced(b, node, args[0]), shape=node.shape)
        elif isinstance(node.op.lower, Scan) and 1 in node.shape:
            replaced[node] = b.reshape(_scanned(b, node, args), shape=node.shape)
        else:
            replaced[node] = b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def squeezed(b: Builder, node: Node) -> Node:
    """``node`` without its axes of length 1."""
    return b.reshape(node, shape=without_ones(node.shape))


def _scanned(b: Builder, node: Node, args: Sequence[Node]) -> Node:
    axis: Any = node.attrs["axis"]
    if node.shape[axis] == 1:
        return args[-1]
    position = sum(1 for n in node.shape[:axis] if n != 1)
    return b.emit(node.op, *(squeezed(b, arg) for arg in args), axis=position, reverse=node.attrs["reverse"])


def _reduced(b: Builder, node: Node, x: Node) -> Node:
    axes: Any = node.attrs["axes"]
    position = {a: i for i, a in enumerate(a for a, n in enumerate(x.shape) if n != 1)}
    left = tuple(position[a] for a in axes if a in position)
    inner = squeezed(b, x)
    return b.emit(node.op, inner, axes=left) if left else inner
