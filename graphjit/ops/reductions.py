"""Reductions over axes: sum, prod, max, min, any, all, argmax, argmin.

Choices (documented and tested): ties of ``max``/``min`` share the derivative evenly, and nobody gets any
where the result is NaN. The derivative of ``prod`` multiplies the other factors and never divides, so that it
holds at zeros, in every order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.ir.batching import same_op
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Custom, Linear, Reduce, Special, ZeroDerivative, op
from graphjit.ir.types import BOOL, I64
from graphjit.ops.cumulative import shifted
from graphjit.ops.infer import reduction
from graphjit.ops.masking import peel, remask, scale
from graphjit.ops.samples import ALL, BOOLS, FLOATS, INTS, Cases


def spread(b: Builder, reduced: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """A reduced value back in the shape of ``x``; a mask on a reduced cotangent stays outermost."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))

    def move(node: Node) -> Node:
        return b.broadcast_to(b.reshape(node, shape=kept), shape=x.shape)

    mask = peel(b, reduced)
    if mask is None:
        return move(reduced)
    return remask(b, move(mask.condition), mask.taken, move(mask.value))


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


def one_element(b: Builder, x: Node, *, axes: tuple[int, ...]) -> Node | None:
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
    simplify=[one_element],
    samples=Cases(_cases_with_empty, FLOATS + INTS),
)


def _extremum_jvp(
    b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]
) -> Node | None:
    (x,), (tangent,) = args, tangents
    if tangent is None:
        return None
    axes: Any = out.attrs["axes"]
    mask, count = _attained(b, out, x)
    return b.div(b.sum(b.select(mask, tangent, b.full(0.0, x.type)), axes=axes), count)


def _extremum_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node | None]:
    (x,) = args
    mask, count = _attained(b, out, x)
    share = spread(b, b.div(ct, count), x, out.attrs["axes"])  # type: ignore[arg-type]
    return (b.select(mask, share, b.full(0.0, x.type)),)


def _attained(b: Builder, out: Node, x: Node) -> tuple[Node, Node]:
    """Where the extremum is attained, and how often (at least 1, also where the result is NaN and equals
    nothing).
    """
    axes: Any = out.attrs["axes"]
    mask = b.eq(x, spread(b, out, x, axes))
    return mask, b.maximum(b.sum(b.convert(mask, dtype=x.dtype), axes=axes), 1.0)


_function: Any
for _name, _function, _combine in (("max", np.max, "max"), ("min", np.min, "min")):
    op(
        _name,
        doc=f"{_name.capitalize()}imum over axes; NaN wins; ties share the derivative evenly.",
        attrs=("axes",),
        infer=reduction("fiub", nonempty=f"{_name}imum"),
        impl=lambda x, *, axes, _function=_function: _function(x, axis=axes),
        grad=Custom(_extremum_jvp, _extremum_vjp),
        lower=Reduce(_combine),
        simplify=[one_element],
        samples=Cases(_cases, ALL),
        special=(float("inf"), float("-inf"), float("nan")),
    )

# ------------------------------------------------------------------------------------------------------- prod


def merged(b: Builder, x: Node, axes: tuple[int, ...]) -> tuple[Node, tuple[int, ...]]:
    """``x`` with ``axes`` joined into one last axis, and the order of axes that was used."""
    kept = [i for i in range(len(x.shape)) if i not in axes]
    perm = (*kept, *axes)
    count = 1
    for a in axes:
        count *= x.shape[a]
    flat = b.reshape(b.transpose(x, perm=perm), shape=(*(x.shape[i] for i in kept), count))
    return flat, perm


def _other_factors(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    """For each element the product of all others that are multiplied with it."""
    flat, perm = merged(b, x, axes)
    last = len(flat.shape) - 1
    before = shifted(b, b.cumprod(flat, axis=last, reverse=False), last, False, 1.0)
    after = shifted(b, b.cumprod(flat, axis=last, reverse=True), last, True, 1.0)
    others = b.reshape(b.mul(before, after), shape=tuple(x.shape[i] for i in perm))
    return b.transpose(others, perm=tuple(sorted(range(len(perm)), key=perm.__getitem__)))


def _prod_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]) -> Node | None:
    (x,), (tangent,) = args, tangents
    if tangent is None:
        return None
    axes: Any = out.attrs["axes"]
    return b.sum(b.mul(tangent, _other_factors(b, x, axes)), axes=axes)


def _prod_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node | None]:
    (x,) = args
    axes: Any = out.attrs["axes"]
    return (scale(b, spread(b, ct, x, axes), _other_factors(b, x, axes)),)


op(
    "prod",
    doc="Product over axes.",
    attrs=("axes",),
    infer=reduction("fiu"),
    impl=lambda x, *, axes: np.prod(x, axis=axes, dtype=x.dtype),
    grad=Custom(_prod_jvp, _prod_vjp),
    lower=Reduce("mul"),
    simplify=[one_element],
    samples=Cases(_cases_with_empty, FLOATS + INTS),
    special=(0.0, -0.0),
)

# -------------------------------------------------------------------------------------------- truth, position

for _name, _function, _combine, _doc in (
    ("any", np.any, "or", "Whether any element is True."),
    ("all", np.all, "and", "Whether all elements are True."),
):
    op(
        _name,
        doc=_doc,
        attrs=("axes",),
        infer=reduction("b", dtype=BOOL),
        impl=lambda x, *, axes, _function=_function: _function(x, axis=axes),
        grad=ZeroDerivative("a truth value does not vary"),
        lower=Reduce(_combine),
        simplify=[one_element],
        samples=Cases(_cases_with_empty, BOOLS),
    )


def _position(function: Any) -> Any:
    def impl(x: Any, *, axes: tuple[int, ...]) -> Any:
        kept = tuple(i for i in range(x.ndim) if i not in axes)
        count = math.prod(x.shape[i] for i in axes)
        rows = np.transpose(x, (*kept, *axes)).reshape(*(x.shape[i] for i in kept), count)
        return function(rows, axis=-1)

    return impl


for _name, _function in (("argmax", np.argmax), ("argmin", np.argmin)):
    op(
        _name,
        doc=f"Position of the first {_name[3:]}imum in row-major order over `axes`, as int64; the first NaN wins.",
        attrs=("axes",),
        infer=reduction("fiub", dtype=I64, nonempty=_name),
        impl=_position(_function),
        grad=ZeroDerivative("a position does not vary"),
        lower=Special("argreduce"),
        batch=same_op,
        samples=Cases(_cases, ALL),
        special=(float("inf"), float("-inf"), float("nan")),
    )
