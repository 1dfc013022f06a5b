"""Reductions over one matrix, made to go over it the same way, so that they share a sweep over memory.

Job: of several reductions over one square or tall space, (1) turn a sum down the columns of a symmetric (or
antisymmetric) expression into the sum along its rows that others need anyway: of all pairwise distances,
``sum(d, axis=0)`` is ``sum(d, axis=1)``; (2) take a reduction over everything in two stages, the first along
the rows too.
Input and output: a graph, simplified for the last time (rules would join the two stages again).
Invariants: the same terms are combined, in another order; nothing is computed that the graph did not compute
before, but for one value a row.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce, Scalar
from graphjit.limits import Limits

COMMUTATIVE = ("add", "mul", "maximum", "minimum", "and", "or", "eq", "ne")
Signed = tuple[Node, int]
"""A node and a sign: the value is ``sign * node``."""


def align(graph: Graph, limits: Limits) -> Graph:
    """``graph`` with reductions over one space brought into line."""
    nodes = graph.nodes()
    shapes = _mixed_shapes(nodes, limits.align.rows)
    if not shapes:
        return graph
    b = Builder()
    copied: dict[Node, Node] = {}
    for node in nodes:
        copied[node] = b.copy(node, tuple(copied[arg] for arg in node.args))
    mirror = _Mirror(b, set(copied.values()))
    replaced: dict[Node, Node] = {}
    for node in nodes:
        args = tuple(replaced[arg] for arg in node.args)
        aligned: Node | None = None
        if isinstance(node.op.lower, Reduce) and node.args[0].shape in shapes:
            aligned = _along_rows(b.like(node), mirror, node, args[0])
        if aligned is None:
            follows = any(replaced[arg] is not copied[arg] for arg in node.args)
            aligned = b.copy(node, args) if follows else copied[node]
        replaced[node] = aligned
    if replaced == copied:
        return graph
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _mixed_shapes(nodes: Sequence[Node], rows: int) -> set[tuple[int, ...]]:
    """Shapes of matrices of many rows that are reduced along the rows, and in another way too."""
    ways: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    for node in nodes:
        if isinstance(node.op.lower, Reduce):
            ways[node.args[0].shape].add(_axes(node))
    return {
        shape
        for shape, axes in ways.items()
        if len(shape) == 2 and shape[0] >= rows and len(axes) > 1 and (1,) in axes
    }


def _axes(node: Node) -> tuple[int, ...]:
    axes: Any = node.attrs["axes"]
    return tuple(axes)


def _along_rows(b: Builder, mirror: _Mirror, node: Node, x: Node) -> Node | None:
    """A reduction as one along the rows of ``x``, alone or as the first stage; None if it is none."""
    if _axes(node) == (0, 1):
        return b.emit(node.op, b.emit(node.op, x, axes=(1,)), axes=(0,))
    if _axes(node) == (0,) and node.op.name == "sum":
        return mirror.sum(x)
    return None


class _Mirror:
    """Finds the transpose of a square expression among the nodes that are there already.

    ``x[:, None] - x[None, :]`` has the transpose ``-(x[:, None] - x[None, :])``, and its square has itself.
    Elementwise operations are followed down to values repeated along rows or columns.
    """

    def __init__(self, b: Builder, present: set[Node]) -> None:
        self.b = b
        self.present = present
        self.transposes: dict[Node, Signed | None] = {}

    def sum(self, x: Node) -> Node | None:
        """The sum of ``x`` over its first axis as a sum over the second of something that is there; None if
        there is no such thing.
        """
        if x.shape[0] != x.shape[1]:
            return None
        transpose = self.find(x)
        if transpose is None:
            return None
        total = self.b.sum(transpose[0], axes=(1,))
        return total if transpose[1] > 0 else self.b.neg(total)

    def find(self, root: Node) -> Signed | None:
        """A node that is the transpose of ``root``, and its sign."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.transposes:
                stack.pop()
                continue
            args = node.args if isinstance(node.op.lower, Scalar) else ()
            missing = [arg for arg in args if arg not in self.transposes]
            if missing:
                stack += missing
                continue
            stack.pop()
            self.transposes[node] = self.transposed(node)
        return self.transposes[root]

    def transposed(self, node: Node) -> Signed | None:
        """The transpose of one node, those of its arguments being there."""
        if node.op.name == "broadcast_to":
            return self.broadcast(node)
        if not isinstance(node.op.lower, Scalar):
            return None
        args = [transpose for arg in node.args if (transpose := self.transposes[arg]) is not None]
        if len(args) < len(node.args):
            return None
        name = node.op.name
        if name == "neg":
            return args[0][0], -args[0][1]
        if name in ("add", "sub") and node.dtype.kind == "f":
            return self.of_sum(node, args)
        if name in ("mul", "div") and node.dtype.kind == "f":
            return self.lookup(node, [arg for arg, _ in args], args[0][1] * args[1][1])
        if name == "abs" and node.dtype.kind != "u":
            return self.lookup(node, [args[0][0]], 1)
        return self.of_positive(node, args)

    def of_sum(self, node: Node, args: Sequence[Signed]) -> Signed | None:
        """A sum or difference: both arguments with one sign, which goes outside."""
        for left, right in itertools.product(*(self.forms(arg) for arg in args)):
            if left[1] == right[1]:
                transpose = self.lookup(node, [left[0], right[0]], left[1])
                if transpose is not None:
                    return transpose
        return None

    def of_positive(self, node: Node, args: Sequence[Signed]) -> Signed | None:
        """Any other operation: its arguments must be there without a sign."""
        positive = [max(self.forms(arg), key=lambda form: form[1]) for arg in args]
        if any(sign < 0 for _, sign in positive):
            return None
        return self.lookup(node, [arg for arg, _ in positive], 1)

    def forms(self, signed: Signed) -> list[Signed]:
        """The same value as nodes that are there, with either sign."""
        node, sign = signed
        if node.dtype.kind == "b":
            return [signed]
        other = node.args[0] if node.op.name == "neg" else self.b.neg(node)
        return [signed, (other, -sign)] if other in self.present else [signed]

    def lookup(self, node: Node, args: list[Node], sign: int) -> Signed | None:
        """``sign * op(args)``, if that or its mirror image is there."""
        name = node.op.name
        made = self.b.emit(node.op, *args, **node.attrs)
        if made in self.present:
            return made, sign
        if len(args) == 2 and (name in COMMUTATIVE or name == "sub"):
            swapped = self.b.emit(node.op, args[1], args[0], **node.attrs)
            if swapped in self.present:
                return swapped, -sign if name == "sub" else sign
        return None

    def broadcast(self, node: Node) -> Signed | None:
        """A row repeated becomes a column repeated."""
        x, n = node.args[0], node.shape[0]
        if x.type.size == 1:
            return node, 1
        if x.type.size != n:
            return None
        is_column = len(x.shape) == 2 and x.shape[0] == n
        made = self.b.broadcast_to(self.b.reshape(x, shape=(n,) if is_column else (n, 1)), shape=node.shape)
        return (made, 1) if made in self.present else None
