"""Reductions that could share a sweep over memory, made to reduce over the same axes.

Job: of several reductions over one space, (1) turn a sum along the rows of a symmetric (or antisymmetric)
expression into the sum along its columns that others need anyway, as in all pairwise distances; (2) take a
reduction over more axes in two stages, the first like the others'. Input and output: a graph, simplified for
the last time (rules would join the two stages again).
Invariants: the same terms are combined, in another order; nothing is computed that the graph did not compute
before, but for one value a row.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import Reduce, Scalar

BATCH = 32
"""Rows from which it pays."""

COMMUTATIVE = ("add", "mul", "maximum", "minimum", "and", "or", "eq", "ne")
Signed = tuple[Node, int]


def align(graph: Graph) -> Graph:
    """``graph`` with reductions over one space brought into line."""
    nodes = graph.nodes()
    kinds: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    for node in nodes:
        if isinstance(node.op.lower, Reduce):
            kinds[node.args[0].shape].add(_axes(node))
    mixed = {
        shape for shape, found in kinds.items() if len(found) > 1 and len(shape) == 2 and shape[0] >= BATCH
    }
    rows = {shape for shape in mixed if (1,) in kinds[shape]}
    if not rows:
        return graph
    b = Builder()
    copied: dict[Node, Node] = {}
    for node in nodes:
        copied[node] = b.copy(node, tuple(copied[arg] for arg in node.args))
    mirror = _Mirror(b, set(copied.values()))
    replaced: dict[Node, Node] = {}
    for node in nodes:
        args = tuple(replaced[arg] for arg in node.args)
        made: Node | None = None
        if isinstance(node.op.lower, Reduce) and node.args[0].shape in rows:
            b.like(node)
            if _axes(node) == (0, 1):
                made = b.emit(node.op, b.emit(node.op, args[0], axes=(1,)), axes=(0,))
            elif _axes(node) == (0,) and node.op.name == "sum":
                made = mirror.sum(args[0])
        if made is None:
            follows = any(replaced[arg] is not copied[arg] for arg in node.args)
            made = b.copy(node, args) if follows else copied[node]
        replaced[node] = made
    if replaced == copied:
        return graph
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _axes(node: Node) -> tuple[int, ...]:
    axes: Any = node.attrs["axes"]
    return tuple(axes)


class _Mirror:
    """Transposes of square expressions, as far as they are there already: the same up to sign."""

    def __init__(self, b: Builder, known: set[Node]) -> None:
        self.b = b
        self.known = known
        self.memo: dict[Node, Signed | None] = {}

    def sum(self, x: Node) -> Node | None:
        """The sum of ``x`` over its first axis as a sum over the second of something known; None if there is
        no such thing.
        """
        if x.shape[0] != x.shape[1]:
            return None
        found = self.find(x)
        if found is None:
            return None
        total = self.b.sum(found[0], axes=(1,))
        return total if found[1] > 0 else self.b.neg(total)

    def find(self, root: Node) -> Signed | None:
        """A known node that is the transpose of ``root``, and its sign."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.memo:
                stack.pop()
                continue
            missing = (
                [arg for arg in node.args if arg not in self.memo]
                if isinstance(node.op.lower, Scalar)
                else []
            )
            if missing:
                stack += missing
                continue
            stack.pop()
            self.memo[node] = self.transposed(node)
        return self.memo[root]

    def transposed(self, node: Node) -> Signed | None:
        """One node, its arguments' transposes being known."""
        if node.op.name == "broadcast_to":
            return self.broadcast(node)
        if not isinstance(node.op.lower, Scalar):
            return None
        found = [self.memo[arg] for arg in node.args]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) < len(found):
            return None
        name = node.op.name
        if name == "neg":
            return pairs[0][0], -pairs[0][1]
        if name in ("add", "sub") and node.dtype.kind == "f":
            for left, right in itertools.product(*(self.forms(pair) for pair in pairs)):
                if left[1] == right[1]:
                    found_sum = self.lookup(node, [left[0], right[0]], left[1])
                    if found_sum is not None:
                        return found_sum
            return None
        args, signs = [arg for arg, _ in pairs], [sign for _, sign in pairs]
        if name in ("mul", "div") and node.dtype.kind == "f":
            return self.lookup(node, args, signs[0] * signs[1])
        even = name == "abs" and node.dtype.kind != "u"
        positive = pairs if even else [max(self.forms(pair), key=lambda form: form[1]) for pair in pairs]
        if not even and any(s < 0 for _, s in positive):
            return None
        return self.lookup(node, [arg for arg, _ in positive], 1)

    def forms(self, pair: Signed) -> list[Signed]:
        """The same value as known nodes with either sign."""
        node, sign = pair
        if node.dtype.kind == "b":
            return [pair]
        other = node.args[0] if node.op.name == "neg" else self.b.neg(node)
        return [pair, (other, -sign)] if other in self.known else [pair]

    def lookup(self, node: Node, args: list[Node], sign: int) -> Signed | None:
        """``sign * op(args)``, if that or its mirror image is known."""
        name = node.op.name
        made = self.b.emit(node.op, *args, **node.attrs)
        if made in self.known:
            return made, sign
        if len(args) == 2 and (name in COMMUTATIVE or name == "sub"):
            swapped = self.b.emit(node.op, args[1], args[0], **node.attrs)
            if swapped in self.known:
                return swapped, -sign if name == "sub" else sign
        return None

    def broadcast(self, node: Node) -> Signed | None:
        """A row repeated becomes a column repeated."""
        x, n = node.args[0], node.shape[0]
        if x.type.size == 1:
            return node, 1
        if x.type.size != n:
            return None
        column = len(x.shape) == 2 and x.shape[0] == n
        made = self.b.broadcast_to(self.b.reshape(x, shape=(n,) if column else (n, 1)), shape=node.shape)
        return (made, 1) if made in self.known else None
