"""Reductions over axes.

Subgradient choice (documented and tested): ties of ``max``/``min`` share the derivative evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Custom, Linear, Reduce, op
from graphjit.ops.infer import reduction
from graphjit.ops.samples import ALL, FLOATS, INTS, Cases


def spread(b: Builder, reduced: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """A reduced value back in the shape of ``x``."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return b.broadcast_to(b.reshape(reduced, shape=kept), shape=x.shape)


def _cases(rng: np.random.Generator, draw: Any) -> list[Any]:
    return [
        ([draw(5)], {"axes": (0,)}),
        ([draw(3, 4)], {"axes": (0,)}),
        ([draw(3, 4)], {"axes": (1,)}),
        ([draw(2, 3, 4)], {"axes": (0, 2)}),
        ([draw(2, 3, 4)], {"axes": (1,)}),
        ([draw(37)], {"axes": (0,)}),
        ([draw(1, 3)], {"axes": (0, 1)}),
    ]


def _cases_with_empty(rng: np.random.Generator, draw: Any) -> list[Any]:
    return [*_cases(rng, draw), ([draw(0, 3)], {"axes": (0,)}), ([draw(0, 3)], {"axes": (1,)})]


def _nothing(b: Builder, x: Node, *, axes: tuple[int, ...]) -> Node | None:
    """A reduction over no axis, or over axes of length 1 only, is a reshape."""
    if all(x.shape[a] == 1 for a in axes):
        return b.reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in axes))
    return None


op(
    "sum",
    doc="Sum over axes, in a fixed tree (more accurate than a running sum).",
    attrs=("axes",),
    infer=reduction("fiu"),
    impl=lambda x, *, axes: np.sum(x, axis=axes, dtype=x.dtype),
    grad=Linear(lambda b, ct, out, x: (spread(b, ct, x, out.attrs["axes"]),)),
    lower=Reduce("add"),
    simplify=[_nothing],
    samples=Cases(_cases_with_empty, FLOATS + INTS),
)


def _chosen(b: Builder, out: Node, x: Node) -> Node:
    """Share of each element in the derivative: 1/k for each of the k elements that attain the extremum."""
    axes: Any = out.attrs["axes"]
    mask = b.convert(b.eq(x, spread(b, out, x, axes)), dtype=x.dtype)
    return b.div(mask, spread(b, b.sum(mask, axes=axes), x, axes))


def _extremum_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]) -> Node | None:
    (x,), (tangent,) = args, tangents
    return None if tangent is None else b.sum(b.mul(_chosen(b, out, x), tangent), axes=out.attrs["axes"])


def _extremum_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node | None]:
    (x,) = args
    axes: Any = out.attrs["axes"]
    mask = b.eq(x, spread(b, out, x, axes))
    count = b.sum(b.convert(mask, dtype=x.dtype), axes=axes)
    share = spread(b, b.div(ct, count), x, axes)
    return (b.select(mask, share, b.full(0.0, x.type)),)


for _name, _function, _combine in (("max", np.max, "max"), ("min", np.min, "min")):
    op(
        _name,
        doc=f"{_name.capitalize()}imum over axes; NaN wins; ties share the derivative evenly.",
        attrs=("axes",),
        infer=reduction("fiub", nonempty=f"{_name}imum"),
        impl=lambda x, *, axes, _function=_function: _function(x, axis=axes),
        grad=Custom(_extremum_jvp, _extremum_vjp),
        lower=Reduce(_combine),
        simplify=[_nothing],
        samples=Cases(_cases, ALL),
        special=(float("inf"), float("-inf"), float("nan")),
    )
