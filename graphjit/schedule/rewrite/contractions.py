"""Which matrix products get a matrix kernel, and which become loops.

Job: decide for each contraction, and rewrite the graph accordingly.  Large ones stay contractions, whose
operands are strided matrices in storage; every other one becomes multiply + sum, which fuses with its
surroundings.  A (1000, 784) by (784, 512) product stays; a (8, 3) matrix times a vector becomes a loop.
Input and output: a graph.  Invariant: afterwards `as_product` succeeds on every remaining contraction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from graphjit.ir.affine import strides
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.limits import ContractionLimits, Limits
from graphjit.ops.contraction import free_axes
from graphjit.ops.windows import positions, untransposed
from graphjit.schedule.access import storage
from graphjit.schedule.program import Levels, Product


class _Operand(NamedTuple):
    """An operand of a product: lengths of its axes, and how far apart their elements lie in storage."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def stored(cls, node: Node) -> _Operand:
        """A value as it is stored."""
        return cls(node.shape, strides(node.shape))

    @classmethod
    def windows(cls, node: Node) -> _Operand:
        """The windows of which a node is the contraction: steps and spreads are elements of an axis."""
        attrs: Any = node.attrs
        axes = attrs["axes"]
        x = node.args[0].type
        steps = list(strides(x.shape))
        shape = list(x.shape)
        taps = [steps[axis] * spread for axis, spread in zip(axes, attrs["spreads"], strict=True)]
        for axis, size, step, spread in zip(
            axes, attrs["sizes"], attrs["steps"], attrs["spreads"], strict=True
        ):
            shape[axis] = positions(x.shape[axis], size, step, spread)
            steps[axis] *= step
        last = axes[-1] + 1
        return cls((*shape[:last], *attrs["sizes"], *shape[last:]), (*steps[:last], *taps, *steps[last:]))

    def levels(self, axes: Sequence[int]) -> Levels:
        """Several axes as few as possible; those that lie evenly one in the other are one."""
        found: list[tuple[int, int]] = []
        for axis in axes:
            length, step = self.shape[axis], self.steps[axis]
            if length == 1:
                continue
            if found and found[-1][1] == length * step:
                found[-1] = (found[-1][0] * length, step)
            else:
                found.append((length, step))
        return tuple(found) or ((math.prod(self.shape[a] for a in axes), 1),)


def as_product(node: Node) -> Product | None:
    """The strided matrix product that a contraction is, or None. Only windows may lie in several runs."""
    attrs: Any = node.attrs
    (cx, cy), (bx, by) = attrs["contract"], attrs["batch"]
    windows = node.op.name == "contract_windows"
    x = _Operand.windows(node) if windows else _Operand.stored(node.args[0])
    y = _Operand.stored(node.args[1])
    order = sorted(range(len(cx)), key=cx.__getitem__)
    rows, terms = x.levels(free_axes(len(x.shape), cx, bx)), x.levels([cx[i] for i in order])
    others = [
        y.levels([cy[i] for i in order]),
        y.levels(free_axes(len(y.shape), cy, by)),
        x.levels(bx),
        y.levels(by),
    ]
    if any(len(levels) > 1 for levels in others) or (not windows and max(len(rows), len(terms)) > 1):
        return None
    ((_, row_y),), ((n, col_y),), ((batch, batch_x),), ((_, batch_y),) = others
    m, k = (math.prod(length for length, _ in levels) for levels in (rows, terms))
    return Product(
        node,
        m,
        n,
        k,
        (rows[-1][1], terms[-1][1]),
        (row_y, col_y),
        batch,
        (batch_x, batch_y, m * n),
        rows[:-1],
        terms[:-1],
    )


def split_contractions(graph: Graph, limits: Limits) -> Graph:
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
            made = _rewritten(b, _Contraction.of(made), alone, node in operands, limits)
        replaced[node] = made
    return Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])


def _operands(graph: Graph, nodes: Sequence[Node]) -> set[Node]:
    """Values that only contractions read: they lie in memory whole whatever computes them."""
    others = {storage(node) for node in graph.outputs}
    for node in nodes:
        if node.op.name != "contract" and storage(node) is node:
            others.update(map(storage, node.args))
    return set(nodes) - others


class _Contraction(NamedTuple):
    """A contraction and its axes: of a batch, free ones of either operand, and those summed over."""

    node: Node
    batch_x: tuple[int, ...]
    batch_y: tuple[int, ...]
    free_x: tuple[int, ...]
    free_y: tuple[int, ...]
    sum_x: tuple[int, ...]
    sum_y: tuple[int, ...]

    @classmethod
    def of(cls, node: Node) -> _Contraction:
        """A node taken apart."""
        attrs: Any = node.attrs
        (sum_x, sum_y), (batch_x, batch_y) = attrs["contract"], attrs["batch"]
        x, y = node.args
        free_x = free_axes(len(x.shape), sum_x, batch_x)
        free_y = free_axes(len(y.shape), sum_y, batch_y)
        return cls(node, batch_x, batch_y, tuple(free_x), tuple(free_y), sum_x, sum_y)

    def swapped(self, b: Builder) -> _Contraction:
        """The contraction of the second operand with the first."""
        x, y = self.node.args
        contract, batch = (self.sum_y, self.sum_x), (self.batch_y, self.batch_x)
        return _Contraction.of(b.contract(y, x, contract=contract, batch=batch))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, rows, columns and terms."""
        x, y = self.node.args
        return (
            math.prod(x.shape[a] for a in self.batch_x),
            math.prod(x.shape[a] for a in self.free_x),
            math.prod(y.shape[a] for a in self.free_y),
            math.prod(x.shape[a] for a in self.sum_x),
        )


def _rewritten(b: Builder, contraction: _Contraction, alone: bool, operand: bool, limits: Limits) -> Node:
    """What a contraction becomes; ``alone``: nothing else is computed from or for it; ``operand``: only other
    contractions read it.
    """
    node = contraction.node
    product = as_product(node)
    never = contraction.shape[-1] <= 1 or node.dtype.kind != "f" or node.type.size == 0
    if never or _is_better_fused(contraction, product, alone, operand, limits):
        if any(_is_windows(arg) for arg in node.args):
            return _multiply_sum_of_windows(b, contraction)
        left = (*contraction.batch_x, *contraction.free_x, *contraction.sum_x)
        right = (*contraction.batch_y, *contraction.free_y, *contraction.sum_y)
        return _multiply_sum(b, node, left, right, len(contraction.batch_x), len(contraction.free_x))
    if any(_is_windows(arg) for arg in node.args):
        made = _over_windows(b, contraction)
        if made is not None:
            return made
    return node if product is not None else _copied_in_order(b, contraction)


def _multiply_sum_of_windows(b: Builder, contraction: _Contraction) -> Node:
    """Products and their sum, as loops that go over windows as they lie in memory: terms innermost, channels
    before them.
    """
    c = contraction
    x, y = c.node.args
    if not _is_windows(x):
        return _back(b, c, _multiply_sum_of_windows(b, c.swapped(b)))
    _, perm = untransposed(x)
    kept = sorted((*c.batch_x, *c.free_x), key=perm.__getitem__)
    sums = sorted(zip(c.sum_x, c.sum_y, strict=True), key=lambda pair: perm[pair[0]])
    beside = dict(zip(c.batch_x, c.batch_y, strict=True))
    rows, terms = [x.shape[a] for a in kept], [x.shape[a] for a, _ in sums]
    columns = [y.shape[a] for a in c.free_y]
    full = (*rows, *columns, *terms)
    both = [n if a in beside else 1 for a, n in zip(kept, rows, strict=True)]
    left = b.transpose(x, perm=(*kept, *(a for a, _ in sums)))
    right = b.transpose(y, perm=(*(beside[a] for a in kept if a in beside), *c.free_y, *(a for _, a in sums)))
    left = b.reshape(left, shape=(*rows, *(1 for _ in columns), *terms))
    right = b.reshape(right, shape=(*both, *columns, *terms))
    product = b.mul(b.broadcast_to(left, shape=full), b.broadcast_to(right, shape=full))
    made = b.sum(product, axes=tuple(range(len(full) - len(terms), len(full))))
    wanted = [kept.index(a) for a in (*c.batch_x, *c.free_x)]
    return b.transpose(made, perm=(*wanted, *range(len(kept), len(made.shape))))


def _back(b: Builder, contraction: _Contraction, made: Node) -> Node:
    """A contraction of which the swapped one was ``made``."""
    lead, left, right = (len(a) for a in (contraction.batch_x, contraction.free_x, contraction.free_y))
    order = (*range(lead), *range(lead + right, lead + right + left), *range(lead, lead + right))
    return b.transpose(made, perm=order)


def _is_windows(x: Node) -> bool:
    """Whether a value is windows, maybe with their axes in another order."""
    return untransposed(x)[0].op.name == "window"


def _over_windows(b: Builder, contraction: _Contraction) -> Node | None:
    """The contraction with its windows read where they lie. The other operand is copied if its axes are not
    in their order, or if it consists of windows too. None where elements of a batch lie unevenly.
    """
    x, y = contraction.node.args
    if not _is_windows(x):
        made = _over_windows(b, contraction.swapped(b))
        return None if made is None else _back(b, contraction, made)
    if _is_windows(y):
        y = b.emit("copy", y, slot=-1)
    windows, perm = untransposed(x)
    sums = sorted(zip((perm[a] for a in contraction.sum_x), contraction.sum_y, strict=True))
    attrs = {
        **windows.attrs,
        "contract": (tuple(a for a, _ in sums), tuple(a for _, a in sums)),
        "batch": (tuple(perm[a] for a in contraction.batch_x), contraction.batch_y),
    }
    made = b.emit("contract_windows", windows.args[0], y, **attrs)
    if as_product(made) is None:
        order = (*contraction.batch_y, *(a for _, a in sums), *contraction.free_y)
        y = b.emit("copy", b.transpose(y, perm=order), slot=-1)
        lead = len(contraction.batch_y)
        attrs["contract"] = (attrs["contract"][0], tuple(range(lead, lead + len(sums))))  # type: ignore[index]
        attrs["batch"] = (attrs["batch"][0], tuple(range(lead)))  # type: ignore[index]
        made = b.emit("contract_windows", windows.args[0], y, **attrs)
        if as_product(made) is None:
            return None
    # Free axes come in the order in which windows have them.
    lead = len(contraction.batch_x)
    free = [perm[a] for a in contraction.free_x]
    places = [lead + sorted(free).index(a) for a in free]
    return b.transpose(made, perm=(*range(lead), *places, *range(lead + len(free), len(made.shape))))


def _is_better_fused(
    contraction: _Contraction, product: Product | None, alone: bool, operand: bool, limits: Limits
) -> bool:
    """Whether loops that fuse with their surroundings are better than a matrix kernel."""
    batch, m, n, k = contraction.shape
    thresholds = limits.contractions
    if (m == 1 or n == 1) and (batch > 1 or not any(map(_is_windows, contraction.node.args))):
        return product is None or not _streams(product, thresholds)
    if k <= limits.unstack.short_axis and min(m, n) >= thresholds.outer and not operand:
        # Its result is most of what moves: loops write it as memory likes it, together with what comes after.
        return True
    if m * n * k <= (thresholds.small if batch < thresholds.many else thresholds.small_in_batch):
        return True
    # Tiny ones in a large batch are kept in registers together with what surrounds them, if there is
    # anything.
    large_batch = contraction.node.type.size >= limits.unstack.points * m * n
    return not alone and max(m, n, k) <= limits.unstack.short_axis and large_batch


def _copied_in_order(b: Builder, contraction: _Contraction) -> Node:
    """The contraction with copies of its operands, in which the axes lie in the order of a matrix.

    A copy, or else the rule that lets a contraction absorb transposes would undo this.
    """
    x, y = contraction.node.args
    x = b.emit(
        "copy", b.transpose(x, perm=(*contraction.batch_x, *contraction.free_x, *contraction.sum_x)), slot=-1
    )
    y = b.emit(
        "copy", b.transpose(y, perm=(*contraction.batch_y, *contraction.sum_y, *contraction.free_y)), slot=-1
    )
    lead, terms = len(contraction.batch_x), len(contraction.sum_y)
    rows = len(contraction.free_x)
    batch = tuple(range(lead))
    return b.contract(
        x,
        y,
        contract=(tuple(range(lead + rows, len(x.shape))), tuple(range(lead, lead + terms))),
        batch=(batch, batch),
    )


def _streams(product: Product, limits: ContractionLimits) -> bool:
    """Whether a product with a vector is better run by a matrix kernel.

    So it is where the terms of a sum lie far apart in a large matrix: the kernel reads whole rows side by
    side, a fused loop would go down the columns. A matrix that is computed on the way stays in the loops that
    compute it, and a vector that is, may share a sweep over the matrix with them.
    """
    x, y = product.node.args
    step = product.rhs[1] if product.m == 1 else product.lhs[0]
    stored = all(storage(node).op.name in ("input", "const", "contract") for node in (x, y))
    elements = product.m * product.n * product.k
    return stored and step == 1 and max(product.m, product.n) > 1 and elements >= limits.long


def _summed_without_moving(
    b: Builder, x: Node, y: Node, order: Any, other: Any, batch: int, kept: int
) -> Node:
    """sum of x * y without moving an axis of x: y has only batch and contracted axes."""
    axis_of_y = dict(zip((*order[:batch], *order[kept:]), other, strict=True))
    y = b.transpose(y, perm=tuple(axis_of_y[a] for a in sorted(axis_of_y)))
    y = b.reshape(y, shape=tuple(n if a in axis_of_y else 1 for a, n in enumerate(x.shape)))
    return b.sum(b.mul(x, b.broadcast_to(y, shape=x.shape)), axes=tuple(sorted(order[kept:])))


def _multiply_sum(b: Builder, node: Node, left: Any, right: Any, batch: int, free: int) -> Node:
    """sum over the contracted axes of x * y: in the order of x or y where the other has no free axes, else
    (batch, free x, free y, contracted).
    """
    for which, (order, other_order) in enumerate(((left, right), (right, left))):
        kept = len(node.shape)
        if len(other_order) - batch == len(order) - kept and list(order[:kept]) == sorted(order[:kept]):
            return _summed_without_moving(
                b, node.args[which], node.args[1 - which], order, other_order, batch, kept
            )
    x, y = b.transpose(node.args[0], perm=left), b.transpose(node.args[1], perm=right)
    other = len(node.shape) - batch - free
    lead, rest = x.shape[:batch], x.shape[batch + free :]
    full = (*node.shape, *rest)
    x = b.reshape(x, shape=(*lead, *x.shape[batch : batch + free], *(1,) * other, *rest))
    y = b.reshape(y, shape=(*lead, *(1,) * free, *y.shape[batch:]))
    product = b.mul(b.broadcast_to(x, shape=full), b.broadcast_to(y, shape=full))
    return b.sum(product, axes=tuple(range(len(node.shape), len(full))))
