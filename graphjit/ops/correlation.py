"""The op ``correlate``: sliding products of two series, or of each two of a stack of them.

Axes before the last are those of the stack. np.convolve and np.correlate become it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Bilinear, Special, op
from graphjit.ir.types import Type
from graphjit.ops.samples import FLOATS, INTS, Cases


def _infer(x: Type, w: Type, *, low: int, length: int) -> Type:
    if x.dtype != w.dtype or x.dtype.kind not in "fiu":
        raise ShapeError(f"correlation of {x} and {w}: dtypes must agree and be numeric")
    if not x.ndim or x.ndim != w.ndim or x.shape[:-1] != w.shape[:-1] or length < 0:
        raise ShapeError(
            f"correlation of {x} and {w} with {length} results: two series, or two stacks of as many, and none has fewer than no results"
        )
    return x.with_shape((*x.shape[:-1], length))


def _impl(x: Any, w: Any, *, low: int, length: int) -> Any:
    if x.ndim > 1:
        rows = [_impl(*pair, low=low, length=length) for pair in zip(x, w, strict=True)]
        return np.array(rows, x.dtype).reshape(*x.shape[:-1], length)
    n, m = len(x), len(w)
    out = np.zeros(length, x.dtype)
    if n and m:
        first = low - (m - 1)  # the result in which the last element of w meets the first of x
        begin, end = max(first, 0), min(first + n + m - 1, length)
        if begin < end:
            out[begin:end] = np.correlate(x, np.conj(w), "full")[
                begin - first : end - first
            ]  # NumPy conjugates w
    return out


def _lhs(b: Builder, ct: Node, out: Node, x: Node, w: Node) -> Node:
    low: Any = out.attrs["low"]
    return b.correlate(ct, _flipped(b, w), low=w.shape[-1] - 1 - low, length=x.shape[-1])


def _rhs(b: Builder, ct: Node, out: Node, x: Node, w: Node) -> Node:
    return b.correlate(x, ct, low=out.attrs["low"], length=w.shape[-1])


def _flipped(b: Builder, series: Node) -> Node:
    return b.flip(series, axes=(len(series.shape) - 1,))


def _longer_first(b: Builder, x: Node, w: Node, *, low: int, length: int) -> Node | None:
    """The longer series first: the same terms in the same order, the results from the last to the first."""
    if w.shape[-1] <= x.shape[-1]:
        return None
    return _flipped(b, b.correlate(w, x, low=length - 1 - low, length=length))


def _single(b: Builder, x: Node, w: Node, *, low: int, length: int) -> Node | None:
    """With one element, a product; with none, nothing."""
    *stack, n = x.shape
    if w.shape[-1] > 1 or w.shape[-1] > n:
        return None
    shape, none, ones = (*stack, length), (0,) * len(stack), (1,) * len(x.shape)
    begin, end = max(low, 0), min(low + n, length)
    if not w.shape[-1] or begin >= end:
        return b.full(0, x.type.with_shape(shape))
    part = b.slice(x, starts=(*none, begin - low), limits=(*stack, end - low), steps=ones)
    product = b.mul(part, b.broadcast_to(w, shape=part.shape))
    return b.embed(product, shape=shape, starts=(*none, begin), steps=ones)


op(
    "correlate",
    doc="out[i] = sum of x[i + k - low] * w[k] over all k for which both are there, for `length` results.",
    arity=2,
    attrs=("low", "length"),
    infer=_infer,
    impl=_impl,
    grad=Bilinear(_lhs, _rhs),
    lower=Special("correlate"),
    batch=same_op,
    simplify=[_longer_first, _single],
    samples=Cases(
        lambda rng, draw: [
            ([draw(7), draw(3)], {"low": 0, "length": 5}),
            ([draw(7), draw(3)], {"low": 2, "length": 9}),
            ([draw(3), draw(5)], {"low": 4, "length": 7}),
            ([draw(6), draw(6)], {"low": 5, "length": 11}),
            ([draw(5), draw(1)], {"low": 2, "length": 9}),
            ([draw(4), draw(3)], {"low": -2, "length": 8}),
            ([draw(40), draw(21)], {"low": 20, "length": 60}),
            ([draw(0), draw(0)], {"low": 0, "length": 3}),
            ([draw(2, 7), draw(2, 3)], {"low": 2, "length": 9}),
            ([draw(2, 3, 20), draw(2, 3, 5)], {"low": 0, "length": 16}),
            ([draw(0, 4), draw(0, 2)], {"low": 0, "length": 3}),
        ],
        FLOATS + INTS,
    ),
)
