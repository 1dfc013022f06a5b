"""Assemble the gradient of many small reads in one piece, instead of adding up arrays that are mostly zero.

A loop that reads x[0], x[1], ... n times leaves the gradient ``embed(g0) + embed(g1) + ...``: n arrays of
the size of x, quadratic work. Such a sum becomes a concatenation of the pieces: pieces at the same place are
added first, pieces side by side are joined, axis by axis.

Input and output: a graph.
Invariants: every element is the sum of the same terms; their order may change, and ``-0.0 + 0.0`` is not
formed any more, so a zero may keep its sign. Work is n log n in the number of terms.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users

Span = tuple[int, int]


class Box(NamedTuple):
    """A value that belongs at ``spans`` (start, end on every axis) of a larger array of zeros."""

    value: Node
    spans: tuple[Span, ...]


def join_embeds(graph: Graph) -> Graph:
    """``graph`` with sums of embedded pieces assembled."""
    nodes = graph.nodes()
    if sum(node.op.name == "embed" for node in nodes) < 2:
        return graph
    readers = users(nodes)
    outputs = set(graph.outputs)

    def inner(node: Node) -> bool:
        """Whether an addition is only part of a larger sum."""
        reads = readers.get(node, ())
        return node.op.name == "add" and len(reads) == 1 and reads[0].op.name == "add" and node not in outputs

    b = Builder()
    replaced: dict[Node, Node] = {}
    for node in nodes:
        if node.op.name == "add" and inner(node):
            continue  # built when the whole sum is known, or below if that has nothing to join
        if node.op.name == "add":
            joined = _joined(b, node, inner, replaced)
            if joined is not None:
                replaced[node] = joined
                continue
            _copy_sum(b, node, inner, replaced)
        else:
            replaced[node] = b.copy(node, tuple([replaced[arg] for arg in node.args]))
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _terms(node: Node, inner: Any) -> list[Node]:
    """The terms of a sum, left to right."""
    terms, stack = [], [node]
    while stack:
        top = stack.pop()
        if top is node or inner(top):
            stack.extend(reversed(top.args))
        else:
            terms.append(top)
    return terms


def _copy_sum(b: Builder, node: Node, inner: Any, replaced: dict[Node, Node]) -> None:
    """Rebuild a sum as it was."""
    parts, stack = [], [node]
    while stack:
        top = stack.pop()
        parts.append(top)
        stack.extend(arg for arg in top.args if inner(arg))
    for part in sorted(parts, key=lambda part: part.serial):
        replaced[part] = b.copy(part, tuple([replaced[arg] for arg in part.args]))


def _joined(b: Builder, node: Node, inner: Any, replaced: dict[Node, Node]) -> Node | None:
    terms = _terms(node, inner)
    boxes, others = [], []
    for term in terms:
        spans = _spans(term)
        if spans is None or node.dtype.kind == "b":
            others.append(replaced[term])
        else:
            boxes.append(Box(replaced[term.args[0]], spans))
    if len(boxes) < 2:
        return None
    b.like(node)
    count = len(boxes) + 1
    while len(boxes) < count:  # columns joined in one round can make rows that join in the next
        count = len(boxes)
        for axis in reversed(range(len(node.shape))):
            boxes = _merge(b, boxes, axis)
    total: Node | None = None
    for part in (*others, *(_embedded(b, box, node.shape) for box in boxes)):
        total = part if total is None else b.add(total, part)
    return total


def _spans(node: Node) -> tuple[Span, ...] | None:
    """Where an embed without gaps writes."""
    if node.op.name != "embed" or not node.args[0].type.size:
        return None
    starts: Any = node.attrs["starts"]
    steps: Any = node.attrs["steps"]
    lengths = node.args[0].shape
    if any(step != 1 and n != 1 for step, n in zip(steps, lengths, strict=True)):
        return None
    return tuple((start, start + n) for start, n in zip(starts, lengths, strict=True))


def _merge(b: Builder, boxes: Iterable[Box], axis: int) -> list[Box]:
    """Boxes that agree on every other axis, added where they coincide and joined along ``axis`` where they do
    not overlap.
    """
    groups: dict[tuple[Span, ...], dict[Span, list[Node]]] = {}
    for box in boxes:
        rest = (*box.spans[:axis], *box.spans[axis + 1 :])
        groups.setdefault(rest, {}).setdefault(box.spans[axis], []).append(box.value)
    merged = []
    for rest, places in groups.items():
        for layer in _layers(sorted(places)):
            values = [(span, _sum(b, places[span])) for span in layer]
            value, span = _row(b, values, axis)
            merged.append(Box(value, (*rest[:axis], span, *rest[axis:])))
    return merged


def _layers(spans: list[Span]) -> list[list[Span]]:
    """Sorted spans dealt into as few rows without overlap as possible."""
    rows: list[list[Span]] = []
    ends: list[tuple[int, int]] = []  # (end of the last span, row)
    for span in spans:
        if ends and ends[0][0] <= span[0]:
            _, row = heapq.heappop(ends)
        else:
            row = len(rows)
            rows.append([])
        rows[row].append(span)
        heapq.heappush(ends, (span[1], row))
    return rows


def _sum(b: Builder, values: list[Node]) -> Node:
    total = values[0]
    for value in values[1:]:
        total = b.add(total, value)
    return total


def _row(b: Builder, values: list[tuple[Span, Node]], axis: int) -> tuple[Node, Span]:
    """Values side by side along ``axis``, gaps filled with zeros, and the span that they cover."""
    pieces: list[Node] = []
    (start, end), _ = values[0]
    end = start
    for span, value in values:
        if span[0] > end:
            gap = tuple(span[0] - end if i == axis else n for i, n in enumerate(value.shape))
            pieces.append(b.full(0, value.type.with_shape(gap)))
        pieces.append(value)
        end = span[1]
    return (pieces[0] if len(pieces) == 1 else b.concatenate(*pieces, axis=axis)), (start, end)


def _embedded(b: Builder, box: Box, shape: tuple[int, ...]) -> Node:
    if box.value.shape == shape:
        return box.value
    return b.embed(
        box.value, shape=shape, starts=tuple(start for start, _ in box.spans), steps=(1,) * len(shape)
    )
