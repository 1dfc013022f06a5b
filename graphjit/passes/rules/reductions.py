"""Rules on sums, products, extrema and truth over axes: of broadcasts, of reshapes, one inside another."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.passes.rules.rule import Rule

SUMS = ("sum", "prod")
EXTREMA = ("max", "min")
TRUTHS = ("any", "all")
ALL = SUMS + EXTREMA + TRUTHS
IDEMPOTENT = EXTREMA + TRUTHS

BOUND = "the order of a float sum or product is the lowering's choice: n * u * sum |x| for n elements; an extremal zero may change sign"
"""Exact for integers and bools, and for max and min but for the sign of a zero that is as large as a zero of
the other sign.
"""


def _axes(node: Node) -> tuple[int, ...]:
    axes: Any = node.attrs["axes"]
    return tuple(axes)


def _nested(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op is not node.op:
        return None
    kept = [a for a in range(len(inner.args[0].shape)) if a not in _axes(inner)]
    axes = sorted((*_axes(inner), *(kept[a] for a in _axes(node))))
    return b.emit(node.op, inner.args[0], axes=tuple(axes))


def _of_thin_reshape(b: Builder, node: Node) -> Node | None:
    """Only for reshapes that add or drop axes of length 1."""
    inner = node.args[0]
    if inner.op.name != "reshape" or node.type.size == 0:
        return None
    x = inner.args[0]
    long_in = [a for a, n in enumerate(x.shape) if n != 1]
    long_out = [a for a, n in enumerate(inner.shape) if n != 1]
    if [x.shape[a] for a in long_in] != [inner.shape[a] for a in long_out]:
        return None
    where = dict(zip(long_out, long_in, strict=True))
    axes = tuple(sorted(where[a] for a in _axes(node) if a in where))
    return b.reshape(b.emit(node.op, x, axes=axes), shape=node.shape)


def _of_transpose(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "transpose":
        return None
    perm: Any = inner.attrs["perm"]
    kept = [perm[a] for a in range(len(perm)) if a not in _axes(node)]
    axes = tuple(sorted(perm[a] for a in _axes(node)))
    reduced = b.emit(node.op, inner.args[0], axes=axes)
    order = tuple(sorted(kept).index(p) for p in kept)
    return b.transpose(reduced, perm=order)


def _of_flip(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "flip":
        return None
    flipped: Any = inner.attrs["axes"]
    if not all(a in _axes(node) for a in flipped):
        return None
    return b.emit(node.op, inner.args[0], axes=_axes(node))


def _split_broadcast(node: Node) -> tuple[Node, tuple[int, ...], int, tuple[int, ...]] | None:
    """For a reduction of a broadcast: (x, axes of x to reduce, repetitions, shape with the repeated axes
    gone).
    """
    inner = node.args[0]
    if inner.op.name != "broadcast_to":
        return None
    x = inner.args[0]
    lead = len(inner.shape) - len(x.shape)
    times = 1
    axes = []
    for a in _axes(node):
        if a < lead or (x.shape[a - lead] == 1 and inner.shape[a] != 1):
            times *= inner.shape[a]
        else:
            axes.append(a - lead)
    return None if times <= 1 else (x, tuple(axes), times, inner.shape)


def _reduce_rest(b: Builder, node: Node, x: Node, axes: tuple[int, ...], shape: tuple[int, ...]) -> Node:
    """``node`` without its repeated axes, in the shape of ``node``."""
    lead = len(shape) - len(x.shape)
    reduced = b.emit(node.op, x, axes=axes) if axes else x
    kept = [a for a in range(lead, len(shape)) if a - lead not in axes]
    dropped = [i for i, a in enumerate(kept) if a in _axes(node)]
    reduced = b.reshape(reduced, shape=tuple(n for i, n in enumerate(reduced.shape) if i not in dropped))
    return b.broadcast_to(reduced, shape=node.shape)


def _sum_broadcast(b: Builder, node: Node) -> Node | None:
    found = _split_broadcast(node)
    if found is None or node.type.size == 0:
        return None
    x, axes, times, shape = found
    wrapped = np.asarray(times).astype(node.dtype)  # integers count modulo 2**bits, as their sum does
    return b.mul(_reduce_rest(b, node, x, axes, shape), b.full(wrapped.item(), node.type))


def _extremum_broadcast(b: Builder, node: Node) -> Node | None:
    found = _split_broadcast(node)
    if found is None or node.type.size == 0:
        return None
    x, axes, _, shape = found
    return _reduce_rest(b, node, x, axes, shape)


RULES = (
    Rule(
        "reduce_reduce",
        ALL,
        _nested,
        "sum(sum(x)) -> one sum over both sets of axes, and so on.",
        bound=BOUND,
        consumes=ALL,
    ),
    Rule(
        "reduce_thin_reshape",
        ALL,
        _of_thin_reshape,
        "A reduction of a reshape that only adds or drops axes of length 1 -> reshape of the reduction.",
        bound=BOUND,
    ),
    Rule(
        "reduce_transpose",
        ALL,
        _of_transpose,
        "sum(transpose(x)) -> transpose(sum(x)) in x's own axes: storage order.",
        bound=BOUND,
    ),
    Rule("reduce_flip", ALL, _of_flip, "A reduction along flipped axes does not need the flip.", bound=BOUND),
    Rule(
        "sum_broadcast",
        ("sum",),
        _sum_broadcast,
        "sum over n repetitions -> n * x.",
        bound="one rounding where a tree of sums has log2(n) (n is exact up to 2**24 in f32, 2**53 in f64); a zero may change sign",
    ),
    Rule(
        "reduce_broadcast",
        IDEMPOTENT,
        _extremum_broadcast,
        "max over repetitions -> the value itself; min, any, all likewise.",
        bound=BOUND,
    ),
)
