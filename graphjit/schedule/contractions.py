"""Decide how each contraction runs, and rewrite the graph accordingly.

Job: matrix products large enough for a matrix kernel become contractions whose operands are strided matrices
in storage; every other one becomes multiply + sum, which fuses with its surroundings. Input and output: a
graph. Invariant: afterwards `as_product` succeeds on every remaining contraction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ops.contraction import free_axes
from graphjit.schedule.access import storage, strides
from graphjit.schedule.program import Product
from graphjit.schedule.unstack import BATCH as BATCH_IN_LANES
from graphjit.schedule.unstack import SMALL_AXIS

SMALL = 400
"""Multiply-adds up to which a fused loop is as good as the call of a matrix kernel, and compiled sooner."""
SMALL_IN_BATCH = 20
"""The same for one of many products: they run back to back in one call."""
BATCH = 8
"""How many are many."""
OUTER = 256
"""Rows and columns from which a product of very few terms is like an outer product of vectors."""
LONG = 4096
"""Elements of a matrix from which its product with a vector may be a matrix kernel."""


def merged(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int] | None:
    """(length, stride) of several axes seen as one, or None when they do not lie evenly in storage."""
    step = strides(shape)
    used = [a for a in axes if shape[a] != 1]
    if not used:
        return math.prod(shape[a] for a in axes), 1
    if any(step[p] != shape[q] * step[q] for p, q in pairwise(used)):
        return None
    return math.prod(shape[a] for a in axes), step[used[-1]]


def as_product(node: Node) -> Product | None:
    """The strided matrix product that a contraction is, or None."""
    x, y = node.args
    attrs: Any = node.attrs
    (cx, cy), (bx, by) = attrs["contract"], attrs["batch"]
    order = sorted(range(len(cx)), key=cx.__getitem__)
    free_x, free_y = free_axes(len(x.shape), cx, bx), free_axes(len(y.shape), cy, by)
    parts = [
        merged(x.shape, free_x),
        merged(x.shape, [cx[i] for i in order]),
        merged(y.shape, [cy[i] for i in order]),
        merged(y.shape, free_y),
        merged(x.shape, bx),
        merged(y.shape, by),
    ]
    if any(part is None for part in parts):
        return None
    (m, row_x), (k, col_x), (_, row_y), (n, col_y), (batch, batch_x), (_, batch_y) = parts  # type: ignore[misc]
    return Product(node, m, n, k, (row_x, col_x), (row_y, col_y), batch, (batch_x, batch_y, m * n))


def split_contractions(graph: Graph) -> Graph:
    """Rewrite every contraction into a strided product or into multiply + sum."""
    nodes = graph.nodes()
    if all(node.op.name != "contract" for node in nodes):
        return graph
    operands = _operands(graph, nodes)
    b = Builder()
    replaced: dict[Node, Node] = {node: node for node in graph.inputs}
    for node in nodes:
        if node in replaced:
            continue
        made = b.copy(node, tuple(replaced[arg] for arg in node.args))
        if made.op.name == "contract":
            alone = node in graph.outputs and all(arg.op.name in ("input", "const") for arg in made.args)
            made = _decide(b, made, alone, operand=node in operands)
        replaced[node] = made
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _operands(graph: Graph, nodes: Sequence[Node]) -> set[Node]:
    """Values that only contractions read: they lie in memory whole whatever computes them."""
    others = {storage(node) for node in graph.outputs}
    for node in nodes:
        if node.op.name != "contract" and storage(node) is node:
            others.update(map(storage, node.args))
    return set(nodes) - others


def _decide(b: Builder, node: Node, alone: bool, operand: bool) -> Node:
    """What a contraction becomes; ``alone``: nothing else is computed from or for it; ``operand``: only other
    contractions read it.
    """
    attrs: Any = node.attrs
    (cx, cy), (bx, by) = attrs["contract"], attrs["batch"]
    x, y = node.args
    free_x, free_y = free_axes(len(x.shape), cx, bx), free_axes(len(y.shape), cy, by)
    m, n = math.prod(x.shape[a] for a in free_x), math.prod(y.shape[a] for a in free_y)
    k = math.prod(x.shape[a] for a in cx)
    small = SMALL if math.prod(x.shape[a] for a in bx) < BATCH else SMALL_IN_BATCH
    product = as_product(node)
    if m == 1 or n == 1:
        fused = product is None or not _streams(product)
    elif k <= SMALL_AXIS and min(m, n) >= OUTER and not operand:
        fused = True  # its result is most of what moves: loops write it as memory likes it, together with what comes after
    else:
        # Tiny ones in a large batch are kept in registers together with what surrounds them, if there is
        # anything.
        fused = m * n * k <= small or (
            not alone and max(m, n, k) <= SMALL_AXIS and node.type.size >= BATCH_IN_LANES * m * n
        )
    if fused or k <= 1 or node.dtype.kind != "f" or node.type.size == 0:
        return _multiply_sum(b, node, (*bx, *free_x, *cx), (*by, *free_y, *cy), len(bx), len(free_x))
    if product is not None:
        return node
    # A copy, or else the rule that lets a contraction absorb transposes would undo this.
    x = b.emit("copy", b.transpose(x, perm=(*bx, *free_x, *cx)), slot=-1)
    y = b.emit("copy", b.transpose(y, perm=(*by, *cy, *free_y)), slot=-1)
    batch = tuple(range(len(bx)))
    lead = len(bx)
    return b.contract(
        x,
        y,
        contract=(tuple(range(lead + len(free_x), len(x.shape))), tuple(range(lead, lead + len(cy)))),
        batch=(batch, batch),
    )


def _streams(product: Product) -> bool:
    """Whether a product with a vector is better run by a matrix kernel.

    So it is where the terms of a sum lie far apart in a large matrix: the kernel reads whole rows side by
    side, a fused loop would go down the columns. A matrix that is computed on the way stays in the loops that
    compute it, and a vector that is, may share a sweep over the matrix with them.
    """
    x, y = product.node.args
    step = product.rhs[1] if product.m == 1 else product.lhs[0]
    stored = all(storage(node).op.name in ("input", "const", "contract") for node in (x, y))
    return (
        stored and step == 1 and max(product.m, product.n) > 1 and product.m * product.n * product.k >= LONG
    )


def _in_order(b: Builder, x: Node, y: Node, order: Any, other: Any, batch: int, kept: int) -> Node:
    """sum of x * y without moving an axis of x: y has only batch and contracted axes."""
    place = dict(zip((*order[:batch], *order[kept:]), other, strict=True))
    y = b.transpose(y, perm=tuple(place[a] for a in sorted(place)))
    y = b.reshape(y, shape=tuple(n if a in place else 1 for a, n in enumerate(x.shape)))
    return b.sum(b.mul(x, b.broadcast_to(y, shape=x.shape)), axes=tuple(sorted(order[kept:])))


def _multiply_sum(b: Builder, node: Node, left: Any, right: Any, batch: int, free: int) -> Node:
    """sum over the contracted axes of x * y: in the order of x or y where the other has no free axes, else
    (batch, free x, free y, contracted).
    """
    for which, (order, other_order) in enumerate(((left, right), (right, left))):
        kept = len(node.shape)
        if len(other_order) - batch == len(order) - kept and list(order[:kept]) == sorted(order[:kept]):
            return _in_order(b, node.args[which], node.args[1 - which], order, other_order, batch, kept)
    x, y = b.transpose(node.args[0], perm=left), b.transpose(node.args[1], perm=right)
    other = len(node.shape) - batch - free
    lead, rest = x.shape[:batch], x.shape[batch + free :]
    full = (*node.shape, *rest)
    x = b.reshape(x, shape=(*lead, *x.shape[batch : batch + free], *(1,) * other, *rest))
    y = b.reshape(y, shape=(*lead, *(1,) * free, *y.shape[batch:]))
    product = b.mul(b.broadcast_to(x, shape=full), b.broadcast_to(y, shape=full))
    return b.sum(product, axes=tuple(range(len(node.shape), len(full))))
