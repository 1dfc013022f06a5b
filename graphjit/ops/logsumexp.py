"""Row-wise log-domain functions over ``axes``: logsumexp, softmax, log_softmax (values as in scipy.special).

Derivatives use the output: the weights of logsumexp are exp(x - out), those of log_softmax exp(out). Choices
(documented and tested): a row of -inf has logsumexp -inf and weights 0; every +inf has weight 1 and its
neighbours 0; an empty row has logsumexp -inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Custom, Decompose, op
from graphjit.ir.types import Type
from graphjit.ops.infer import floating, reduced, reduction
from graphjit.ops.masking import along_rows, peel, remask, scale
from graphjit.ops.reductions import one_element, spread
from graphjit.ops.samples import Case, Cases, Draw

INF = float("inf")
Axes = tuple[int, ...]


def _infer_rows(x: Type, *, axes: Axes) -> Type:
    reduced(x, axes)
    return floating(x)


def _cases(rng: np.random.Generator, draw: Draw) -> list[Case]:
    shapes: list[tuple[tuple[int, ...], Axes]] = [
        ((5,), (0,)),
        ((3, 4), (0,)),
        ((3, 4), (1,)),
        ((2, 3, 4), (0, 2)),
        ((2, 3), (0, 1)),
        ((3, 1), (1,)),
        ((0, 3), (1,)),
    ]
    return [([draw(*shape)], {"axes": axes}) for shape, axes in shapes]


def _count(x: Node, axes: Axes) -> int:
    return math.prod(x.shape[a] for a in axes)


def _scipy(name: str) -> Callable[..., Any]:
    """The SciPy function as a reference implementation."""

    def impl(x: Any, *, axes: Axes) -> Any:
        import scipy.special  # heavy, and only the interpreter and the tests need it

        return np.asarray(getattr(scipy.special, name)(x, axis=axes)).astype(x.dtype, copy=False)

    return impl


def _finite_or_zero(b: Builder, row: Node) -> Node:
    return b.select(b.isfinite(row), row, b.full(0.0, row.type))


# -------------------------------------------------------------------------------------------------- logsumexp


def _weights(b: Builder, out: Node, x: Node) -> Node:
    """exp(x - out): the softmax of the row, finite for infinities of either sign."""
    axes: Any = out.attrs["axes"]
    base = b.select(b.eq(out, -INF), b.full(0.0, out.type), out)
    gap = b.sub(x, spread(b, base, x, axes))
    return b.exp(b.select(b.eq(x, INF), b.full(0.0, x.type), gap))


def _logsumexp_jvp(
    b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]
) -> Node | None:
    (x,), (tangent,) = args, tangents
    if tangent is None:
        return None
    return b.sum(b.mul(tangent, _weights(b, out, x)), axes=out.attrs["axes"])


def _logsumexp_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node | None]:
    (x,) = args
    axes: Any = out.attrs["axes"]
    return (scale(b, spread(b, ct, x, axes), _weights(b, out, x)),)


def _expand_logsumexp(b: Builder, out: Node, x: Node) -> Node:
    """max + log(count of max) + log1p(sum of the others / count): exact where one element dominates."""
    axes: Any = out.attrs["axes"]
    if _count(x, axes) == 0:
        return b.full(-INF, out.type)
    top = b.max(x, axes=axes)
    wide = spread(b, top, x, axes)
    is_top = b.eq(x, wide)
    zero, one = b.full(0.0, x.type), b.full(1.0, x.type)
    others = b.select(is_top, zero, b.exp(b.sub(x, spread(b, _finite_or_zero(b, top), x, axes))))
    count = b.sum(b.select(is_top, one, zero), axes=axes)
    rest = b.log1p(b.div(b.sum(others, axes=axes), count))
    return b.add(b.add(rest, b.log(count)), top)


def _logsumexp(x: Any, *, axes: Axes) -> Any:
    if x.size == 0:  # SciPy takes no empty array without empty rows
        return np.full([n for i, n in enumerate(x.shape) if i not in axes], -np.inf, x.dtype)
    return _scipy("logsumexp")(x, axes=axes)


op(
    "logsumexp",
    doc="log(sum(exp(x))) over axes without overflow.",
    attrs=("axes",),
    infer=reduction("f"),
    impl=_logsumexp,
    grad=Custom(_logsumexp_jvp, _logsumexp_vjp),
    lower=Decompose(_expand_logsumexp),
    simplify=[one_element],
    samples=Cases(lambda rng, draw: [*_cases(rng, draw), ([draw(0, 3)], {"axes": (0,)})]),
    special=(INF, -INF, float("nan"), 1000.0),
)

# --------------------------------------------------------------------------------------- softmax, log_softmax


def _row_masked(
    pull: Callable[[Builder, Node, Node], Node],
) -> Callable[[Builder, Node, Node, Sequence[Node]], Sequence[Node]]:
    """A vjp that keeps whole rows, which a selection masked out, out of the arithmetic."""

    def vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node]:
        axes: Any = out.attrs["axes"]
        mask = peel(b, ct)
        row = None if mask is None else along_rows(b, mask, axes)
        if mask is None or row is None or not row.exact:
            return (pull(b, ct, out),)
        return (remask(b, mask.condition, mask.taken, pull(b, mask.value, out)),)

    return vjp


def _softmax_step(b: Builder, v: Node, out: Node) -> Node:
    """out * (v - sum(out * v)): the Jacobian of softmax is symmetric, so both modes use it."""
    axes: Any = out.attrs["axes"]
    mean = b.sum(b.mul(out, v), axes=axes)
    return b.mul(out, b.sub(v, spread(b, mean, out, axes)))


def _log_softmax_pull(b: Builder, ct: Node, out: Node) -> Node:
    axes: Any = out.attrs["axes"]
    return b.sub(ct, b.mul(b.exp(out), spread(b, b.sum(ct, axes=axes), out, axes)))


def _log_softmax_jvp(
    b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]
) -> Node | None:
    (tangent,) = tangents
    if tangent is None:
        return None
    axes: Any = out.attrs["axes"]
    return b.sub(tangent, spread(b, b.sum(b.mul(b.exp(out), tangent), axes=axes), out, axes))


def _softmax_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]) -> Node | None:
    (tangent,) = tangents
    return None if tangent is None else _softmax_step(b, tangent, out)


def _expand_softmax(b: Builder, out: Node, x: Node) -> Node:
    axes: Any = out.attrs["axes"]
    if x.type.size == 0:
        return x
    powers = b.exp(b.sub(x, spread(b, b.max(x, axes=axes), x, axes)))
    return b.div(powers, spread(b, b.sum(powers, axes=axes), x, axes))


def _expand_log_softmax(b: Builder, out: Node, x: Node) -> Node:
    axes: Any = out.attrs["axes"]
    if x.type.size == 0:
        return x
    gap = b.sub(x, spread(b, _finite_or_zero(b, b.max(x, axes=axes)), x, axes))
    return b.sub(gap, spread(b, b.log(b.sum(b.exp(gap), axes=axes)), x, axes))


op(
    "softmax",
    doc="exp(x) / sum(exp(x)) over axes without overflow; NaN for rows whose maximum is infinite.",
    attrs=("axes",),
    infer=_infer_rows,
    impl=_scipy("softmax"),
    grad=Custom(_softmax_jvp, _row_masked(_softmax_step)),
    lower=Decompose(_expand_softmax),
    samples=Cases(_cases),
    special=(INF, -INF, float("nan"), 1000.0),
)
op(
    "log_softmax",
    doc="x - logsumexp(x) over axes without overflow.",
    attrs=("axes",),
    infer=_infer_rows,
    impl=_scipy("log_softmax"),
    grad=Custom(_log_softmax_jvp, _row_masked(_log_softmax_pull)),
    lower=Decompose(_expand_log_softmax),
    samples=Cases(_cases),
    special=(INF, -INF, float("nan"), 1000.0),
)
