"""Matrices that a loop multiplies vectors with, laid out for lanes.

In ``W @ h`` the elements of the result are neighbours if those of each column of ``W`` are, but NumPy's
matrices are stored by rows. One product would not pay for another order; a loop makes many with the same
matrix. So a matrix that does not change in a loop is transposed before it, once.

Input and output: a graph; its loops get further constants.
Invariant: the same products, of the same numbers, summed in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, users

LEAST = 64
"""Elements of a matrix from which it is transposed."""
STEPS = 4
"""Steps of a loop from which that pays."""


def turn_constants(graph: Graph) -> Graph:
    """``graph`` whose loops read such matrices in the other order."""
    if not any(_is_loop(node) for node in graph.nodes()):
        return graph
    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in graph.nodes():
        args = [replaced[arg] for arg in node.args]
        replaced[node] = _turned(b, node, args) if _is_loop(node) else b.copy(node, tuple(args))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _is_loop(node: Node) -> bool:
    return node.op.name in ("while", "unwind") or (
        node.op.name == "scan" and node.attrs["length"] >= STEPS  # type: ignore[operator]
    )


def _turned(b: Builder, node: Node, args: Sequence[Node]) -> Node:
    """A loop with the matrices that its body wants in the other order, in front of its arguments."""
    body: Any = node.attrs["body"]
    carried: Any = node.attrs["carried"]
    varying = carried + int(node.attrs.get("sliced", node.attrs.get("tapes", 0)))  # type: ignore[call-overload]
    inner = turn_constants(body.graph)
    constants = inner.inputs[: len(args) - varying]
    readers = users(inner.nodes())
    wanted = [x for x in constants if any(_wants(reader, x) for reader in readers.get(x, ()))]
    attrs = {**node.attrs, "body": Body(_reading(b, inner, wanted))}
    if "test" in attrs:
        test: Any = attrs["test"]
        extra = [b.input(x.type.with_shape(x.shape[::-1]), "turned") for x in wanted]
        attrs["test"] = Body(Graph(test.graph.name, [*extra, *test.graph.inputs], test.graph.outputs))
    place = dict(zip(constants, args, strict=False))
    b.like(node)
    turned = [b.transpose(place[x], perm=(1, 0)) for x in wanted]
    return b.emit(node.op, *turned, *args, **attrs)


def _wants(reader: Node, x: Node) -> bool:
    """Whether a node multiplies the rows of a matrix with a vector."""
    return (
        reader.op.name == "contract"
        and reader.args[0] is x
        and len(x.shape) == 2
        and x.type.size >= LEAST
        and len(reader.args[1].shape) == 1
        and reader.attrs["contract"] == ((1,), (0,))
    )


def _reading(b: Builder, graph: Graph, wanted: Sequence[Node]) -> Graph:
    """A body that has the turned matrices as first inputs, and reads them where it wants to."""
    if not wanted:
        return graph
    turned = {x: b.input(x.type.with_shape(x.shape[::-1]), "turned") for x in wanted}
    replaced: dict[Node, Node] = {x: x for x in graph.inputs}
    for node in graph.nodes():
        if node in replaced:
            continue
        args = tuple(replaced[arg] for arg in node.args)
        if node.args and node.args[0] in turned and _wants(node, node.args[0]):
            attrs: dict[str, Any] = {**node.attrs, "contract": ((0,), (0,))}
            replaced[node] = b.like(node).emit(node.op, turned[node.args[0]], args[1], **attrs)
        else:
            replaced[node] = b.copy(node, args)
    outputs = [replaced[node] for node in graph.outputs]
    return Graph(graph.name, [*turned.values(), *graph.inputs], outputs)
