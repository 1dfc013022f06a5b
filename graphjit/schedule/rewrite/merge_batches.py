"""Several batch axes as one: attention over (batch, heads, length, width) then runs like one over (batch x
heads, length, width), whose steps are swept block by block.

Job: where a product of matrices has several batch axes, merge these in the product and in all that is
computed between such products over the same elements: elementwise values, sums along rows, masks that are the
same for the whole batch. A reshape, which costs nothing, leads in and out. Batch axes that do not lead, as
the heads of (batch, length, heads, width), are brought forward first: a copy, which products need anyway.
Input and output: a graph. Invariant: the same operations on the same elements.

Example: ``q @ k`` of shape (8, 4, 128, 128) becomes (32, 128, 128), and so does its softmax.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, users
from graphjit.ir.opdef import Reduce, Scalar

Shape = tuple[int, ...]


def merge_batches(graph: Graph) -> Graph:
    """``graph`` with leading batch axes of products merged."""
    nodes = graph.nodes()
    if not any(map(_batch, nodes)):
        return graph
    merge = _Merge(_merged(graph, nodes))
    early: dict[Node, list[tuple[Shape, Shape]]] = {}
    for node, lead in merge.merged.items():
        for x, order in _operands(node) if _batch(node) else ():
            early.setdefault(x, []).append((order, lead))
    for node in nodes:
        merge.add(node)
        # Copies come before what is computed between the products, which then stays side by side with them.
        for order, lead in early.get(node, ()):
            merge.turned(node, order, lead)
    return Graph(graph.name, graph.inputs, [merge.whole(node) for node in graph.outputs])


def _batch(node: Node) -> Shape:
    """The lengths of the batch axes of a product, if they are several; () otherwise."""
    if node.op.name != "contract":
        return ()
    batch: Any = node.attrs["batch"]
    count = len(batch[0])
    return node.shape[:count] if count > 1 and node.type.size else ()


def _operands(node: Node) -> list[tuple[Node, Shape]]:
    """The operands of a product, each with the order of its axes in which those of the batch lead."""
    batch: Any = node.attrs["batch"]
    return [
        (x, (*first, *(a for a in range(len(x.shape)) if a not in first)))
        for x, first in zip(node.args, batch, strict=True)
    ]


def _merged(graph: Graph, nodes: list[Node]) -> dict[Node, Shape]:
    """The nodes whose leading axes are merged, with the lengths of these axes: products, and what is computed
    from and for them, unless a value would have to be stored for it.
    """
    readers = users(nodes)
    found = {node: lead for node in nodes if (lead := _batch(node))}
    stack = list(found)
    while stack:
        node = stack.pop()
        for other in (*node.args, *readers.get(node, ())):
            if other not in found and _way(other, found[node]):
                found[other] = found[node]
                stack.append(other)
    outputs, pending = set(graph.outputs), list(found)
    while pending:
        node = pending.pop()
        beside = readers.get(node, ())
        if node in found and not _batch(node) and _stores(node, found, beside, outputs):
            del found[node]
            pending += [*node.args, *beside]
    return found


def _stores(
    node: Node, found: Mapping[Node, Shape], readers: Collection[Node], outputs: Collection[Node]
) -> bool:
    """Whether a merged node would be stored, or make others so, because those around it are not ``found``
    to be merged.
    """
    lead = found[node]
    for x in node.args:
        alike = found.get(x) == lead or x.shape[: len(lead)] != lead
        if not alike and x.op.name not in ("input", "const"):
            return True
    if node in outputs or any(map(_batch, readers)):
        return False
    return any(found.get(x) != lead and not _sums_all(x, lead) for x in readers)


def _way(node: Node, lead: Shape) -> str:
    """How a node is computed with merged axes; "" if it is not."""
    depth = len(lead)
    if node.is_bundle or node.shape[:depth] != lead:
        return ""
    if node.op.name == "contract":
        return "product" if _batch(node) == lead else ""
    if isinstance(node.op.lower, Scalar):
        return "elements" if node.args and all(arg.shape == node.shape for arg in node.args) else ""
    if isinstance(node.op.lower, Reduce):
        axes: Any = node.attrs.get("axes")
        return "sum" if axes is not None and min(axes, default=depth) >= depth else ""
    if node.op.name == "broadcast_to":
        return "spread" if _own_axes(node.args[0].shape, node.shape, lead) is not None else ""
    if node.op.name == "reshape":
        return "shape" if node.args[0].shape[:depth] == lead else ""
    return ""


def _own_axes(given: Shape, shape: Shape, lead: Shape) -> Shape | None:
    """The shape of what is spread over ``shape``, with merged axes; None where it varies along a part of
    them.
    """
    full = (1,) * (len(shape) - len(given)) + given
    if full[: len(lead)] == lead:
        return _short(full, lead)
    return (1, *full[len(lead) :]) if all(n == 1 for n in full[: len(lead)]) else None


def _short(shape: Shape, lead: Shape) -> Shape:
    return (math.prod(lead), *shape[len(lead) :])


def _sums_all(node: Node, lead: Shape) -> bool:
    """Whether a node is a sum over all merged axes."""
    if not isinstance(node.op.lower, Reduce) or node.args[0].shape[: len(lead)] != lead:
        return False
    axes: Any = node.attrs["axes"]
    return set(range(len(lead))) <= set(axes)


class _Merge:
    """Builds the graph: values as it had them, and with merged axes."""

    def __init__(self, merged: dict[Node, Shape]) -> None:
        self.merged = merged
        self.b = Builder()
        self.made: dict[Node, Node] = {}
        self.short: dict[tuple[Node, Shape], Node] = {}

    def whole(self, node: Node) -> Node:
        """A value as the graph had it."""
        if node not in self.made:
            self.made[node] = self.b.reshape(self.short[node, self.merged[node]], shape=node.shape)
        return self.made[node]

    def batched(self, node: Node, lead: Shape) -> Node:
        """A value with merged axes."""
        if (node, lead) not in self.short:
            self.short[node, lead] = self.b.reshape(self.whole(node), shape=_short(node.shape, lead))
        return self.short[node, lead]

    def add(self, node: Node) -> None:
        """The next node of the graph; one with merged axes by the method that `_way` names."""
        self.b.like(node)
        lead = self.merged.get(node)
        if lead is not None:
            self.short[node, lead] = getattr(self, _way(node, lead))(node, lead)
            return
        over = self.merged.get(node.args[0]) if node.args else None
        if over is not None and _sums_all(node, over):
            self.made[node] = self.sum(node, over)
        else:
            self.made[node] = self.b.copy(node, tuple(map(self.whole, node.args)))

    def product(self, node: Node, lead: Shape) -> Node:
        sums: Any = node.attrs["contract"]
        operands = _operands(node)
        contract = tuple(
            tuple(order.index(a) - len(lead) + 1 for a in summed)
            for (_, order), summed in zip(operands, sums, strict=True)
        )
        args = [self.turned(x, order, lead) for x, order in operands]
        return self.b.contract(*args, contract=contract, batch=((0,), (0,)))

    def turned(self, node: Node, order: Shape, lead: Shape) -> Node:
        """A value with merged axes, which are brought forward: a copy, as products need it anyway."""
        if order == tuple(range(len(order))):
            return self.batched(node, lead)
        turned = self.b.transpose(self.whole(node), perm=order)
        return self.b.reshape(turned, shape=_short(turned.shape, lead))

    def elements(self, node: Node, lead: Shape) -> Node:
        return self.b.emit(node.op, *(self.batched(arg, lead) for arg in node.args), **node.attrs)

    def sum(self, node: Node, lead: Shape) -> Node:
        axes: Any = node.attrs["axes"]
        moved = tuple(sorted({max(axis - len(lead) + 1, 0) for axis in axes}))  # all of the batch, or none
        return self.b.emit(node.op, self.batched(node.args[0], lead), **{**node.attrs, "axes": moved})

    def spread(self, node: Node, lead: Shape) -> Node:
        (x,) = node.args
        own = _own_axes(x.shape, node.shape, lead)
        given = self.batched(x, lead) if x.shape[: len(lead)] == lead else self.whole(x)
        return self.b.broadcast_to(self.b.reshape(given, shape=own), shape=_short(node.shape, lead))

    def shape(self, node: Node, lead: Shape) -> Node:
        return self.b.reshape(self.batched(node.args[0], lead), shape=_short(node.shape, lead))
