"""The op ``contract``: sums of products over chosen axes. Matmul, dot, tensordot, inner and einsum become it.

Example: ``x @ w`` is ``contract`` over axis 1 of ``x`` and axis 0 of ``w``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.batching import to_front
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Bilinear, Special, op
from graphjit.ir.types import Type
from graphjit.ops.samples import FLOATS, INTS, Cases

Axes = tuple[int, ...]


def free_axes(ndim: int, *used: Axes) -> Axes:
    """Axes in none of ``used``, ascending."""
    taken = {a for axes in used for a in axes}
    return tuple(a for a in range(ndim) if a not in taken)


def _infer(x: Type, y: Type, *, contract: tuple[Axes, Axes], batch: tuple[Axes, Axes]) -> Type:
    if x.dtype != y.dtype or x.dtype.kind not in "fiu":
        raise ShapeError(f"contraction of {x} and {y}: dtypes must agree and be numeric")
    for pairs in (contract, batch):
        if len(pairs[0]) != len(pairs[1]) or any(
            x.shape[i] != y.shape[j] for i, j in zip(*pairs, strict=True)
        ):
            raise ShapeError(f"contraction of {x} and {y} over axes {contract} (batch {batch}): sizes differ")
    shape = [x.shape[i] for i in batch[0]]
    shape += [x.shape[i] for i in free_axes(x.ndim, contract[0], batch[0])]
    shape += [y.shape[i] for i in free_axes(y.ndim, contract[1], batch[1])]
    return x.with_shape(tuple(shape))


def _impl(x: Any, y: Any, *, contract: tuple[Axes, Axes], batch: tuple[Axes, Axes]) -> Any:
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    left = [next(letters) for _ in range(x.ndim)]
    right = [next(letters) for _ in range(y.ndim)]
    for pairs in (contract, batch):
        for i, j in zip(*pairs, strict=True):
            right[j] = left[i]
    out = [left[i] for i in batch[0]]
    out += [left[i] for i in free_axes(x.ndim, contract[0], batch[0])]
    out += [right[i] for i in free_axes(y.ndim, contract[1], batch[1])]
    return np.einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", x, y, optimize=x.dtype.kind == "f")


def _pairs(out: Node) -> tuple[tuple[Axes, Axes], tuple[Axes, Axes]]:
    contract: Any = out.attrs["contract"]
    batch: Any = out.attrs["batch"]
    return contract, batch


def _arranged(b: Builder, value: Node, order: Sequence[int]) -> Node:
    """``value`` whose axis k belongs at position ``order[k]``, put in place."""
    return b.transpose(value, perm=tuple(sorted(range(len(order)), key=order.__getitem__)))


def _lhs(b: Builder, ct: Node, out: Node, x: Node, y: Node) -> Node:
    (cx, cy), (bx, by) = _pairs(out)
    free_x, free_y = free_axes(len(x.shape), cx, bx), free_axes(len(y.shape), cy, by)
    lead = len(bx)
    ct_free_y = tuple(range(lead + len(free_x), len(out.shape)))
    value = b.contract(ct, y, contract=(ct_free_y, free_y), batch=(tuple(range(lead)), by))
    order = [*bx, *free_x, *(cx[cy.index(a)] for a in sorted(cy))]
    return _arranged(b, value, order)


def _rhs(b: Builder, ct: Node, out: Node, x: Node, y: Node) -> Node:
    (cx, cy), (bx, by) = _pairs(out)
    free_x, free_y = free_axes(len(x.shape), cx, bx), free_axes(len(y.shape), cy, by)
    lead = len(bx)
    ct_free_x = tuple(range(lead, lead + len(free_x)))
    value = b.contract(x, ct, contract=(free_x, ct_free_x), batch=(bx, tuple(range(lead))))
    order = [*by, *(cy[cx.index(a)] for a in sorted(cx)), *free_y]
    return _arranged(b, value, order)


def _batch(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """Batched on both sides: one more pair of batch axes, in front. On one side: one more free axis, moved to
    the front.
    """
    (cx, cy), (bx, by) = _pairs(node)
    x, y = args
    if batched[0]:
        cx, bx = _moved(cx), _moved(bx)
    if batched[1]:
        cy, by = _moved(cy), _moved(by)
    if all(batched):
        return b.contract(x, y, contract=(cx, cy), batch=((0, *bx), (0, *by)))
    if batched[0]:  # its free axes come right after those of the batch
        return to_front(b, b.contract(x, y, contract=(cx, cy), batch=(bx, by)), len(bx))
    free_x = len(x.shape) - len(cx) - len(bx)
    if not free_x or len(y.shape) == 1 + len(cx) + len(by):
        # A matrix times each vector of a batch is the batch times a matrix, row by row as it lies in memory.
        swapped = b.contract(y, x, contract=(cy, cx), batch=(by, bx))
        return to_front(b, swapped, len(by))
    return to_front(b, b.contract(x, y, contract=(cx, cy), batch=(bx, by)), len(bx) + free_x)


def _moved(axes: Axes) -> Axes:
    """Axes of an argument that has got one more in front."""
    return tuple(axis + 1 for axis in axes)


op(
    "contract",
    doc="Sum of products over paired axes; result axes: batch, free axes of x, free axes of y.",
    arity=2,
    attrs=("contract", "batch"),
    infer=_infer,
    impl=_impl,
    grad=Bilinear(_lhs, _rhs),
    lower=Special("contract"),
    batch=_batch,
    samples=Cases(
        lambda rng, draw: [
            ([draw(3, 4), draw(4, 2)], {"contract": ((1,), (0,)), "batch": ((), ())}),
            ([draw(4, 3), draw(2, 4)], {"contract": ((0,), (1,)), "batch": ((), ())}),
            ([draw(5), draw(5)], {"contract": ((0,), (0,)), "batch": ((), ())}),
            ([draw(2, 3, 4), draw(2, 4, 5)], {"contract": ((2,), (1,)), "batch": ((0,), (0,))}),
            ([draw(2, 3, 4), draw(4, 3, 5)], {"contract": ((2, 1), (0, 1)), "batch": ((), ())}),
            ([draw(3), draw(2)], {"contract": ((), ()), "batch": ((), ())}),
            ([draw(3, 0), draw(0, 2)], {"contract": ((1,), (0,)), "batch": ((), ())}),
            ([draw(33, 40), draw(40, 21)], {"contract": ((1,), (0,)), "batch": ((), ())}),
        ],
        FLOATS + INTS,
    ),
)
