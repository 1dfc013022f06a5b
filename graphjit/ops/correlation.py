"""The op ``correlate``: sliding products of two series. np.convolve and np.correlate become it."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Bilinear, Special, op
from graphjit.ir.types import Type
from graphjit.ops.samples import FLOATS, INTS, Cases


def _infer(x: Type, w: Type, *, low: int, length: int) -> Type:
    if x.dtype != w.dtype or x.dtype.kind not in "fiu":
        raise ShapeError(f"correlation of {x} and {w}: dtypes must agree and be numeric")
    if x.ndim != 1 or w.ndim != 1 or length < 0:
        raise ShapeError(
            f"correlation of {x} and {w} with {length} results: series have one axis, and none has fewer than no results"
        )
    return x.with_shape((length,))


def _impl(x: Any, w: Any, *, low: int, length: int) -> Any:
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
    return b.correlate(ct, b.flip(w, axes=(0,)), low=w.shape[0] - 1 - low, length=x.shape[0])


def _rhs(b: Builder, ct: Node, out: Node, x: Node, w: Node) -> Node:
    return b.correlate(x, ct, low=out.attrs["low"], length=w.shape[0])


def _longer_first(b: Builder, x: Node, w: Node, *, low: int, length: int) -> Node | None:
    """The longer series first: the same terms in the same order, the results from the last to the first."""
    if w.shape[0] <= x.shape[0]:
        return None
    return b.flip(b.correlate(w, x, low=length - 1 - low, length=length), axes=(0,))


def _single(b: Builder, x: Node, w: Node, *, low: int, length: int) -> Node | None:
    """With one element, a product; with none, nothing."""
    n = x.shape[0]
    if w.shape[0] > 1 or w.shape[0] > n:
        return None
    begin, end = max(low, 0), min(low + n, length)
    if not w.shape[0] or begin >= end:
        return b.full(0, x.type.with_shape((length,)))
    part = b.slice(x, starts=(begin - low,), limits=(end - low,), steps=(1,))
    return b.embed(
        b.mul(part, b.broadcast_to(w, shape=part.shape)), shape=(length,), starts=(begin,), steps=(1,)
    )


op(
    "correlate",
    doc="out[i] = sum of x[i + k - low] * w[k] over all k for which both are there, for `length` results.",
    arity=2,
    attrs=("low", "length"),
    infer=_infer,
    impl=_impl,
    grad=Bilinear(_lhs, _rhs),
    lower=Special("correlate"),
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
        ],
        FLOATS + INTS,
    ),
)
