"""Running sums and products along one axis.

``cumprod`` has no derivative rule by division, which would fail at zeros: its derivatives are first-order
linear recurrences y[k] = a[k] y[k-1] + u[k], an op of its own that is closed under differentiation. With the
adjoint s[k] = ct[k] + a[k+1] s[k+1] (the same recurrence backwards), u gets s[k] and a gets s[k] y[k-1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Custom, Linear, Scan, op
from graphjit.ir.types import I64, Type
from graphjit.ops.infer import numeric
from graphjit.ops.samples import FLOATS, INTS, Cases, Draw


def _infer_along(*types: Type, axis: int, reverse: bool) -> Type:
    result = numeric(*types)
    if not 0 <= axis < result.ndim:
        raise ShapeError(f"axis {axis} is not an axis of {result}")
    return result


def _accumulate(function: np.ufunc) -> Any:
    def impl(x: Any, *, axis: int, reverse: bool) -> Any:
        x = np.flip(x, axis) if reverse else x
        out = function.accumulate(x, axis=axis, dtype=x.dtype)
        return np.flip(out, axis) if reverse else out

    return impl


def _along(draw: Draw, arity: int) -> list[Any]:
    return [
        ([draw(*shape) for _ in range(arity)], {"axis": axis, "reverse": reverse})
        for shape, axis in (((5,), 0), ((3, 4), 0), ((3, 4), 1), ((1,), 0), ((0, 2), 0), ((2, 0), 0))
        for reverse in (False, True)
    ]


def part(b: Builder, x: Node, axis: int, start: int, limit: int) -> Node:
    """x[start:limit] along one axis."""
    whole = (0,) * len(x.shape)
    return b.slice(
        x,
        starts=tuple(start if i == axis else 0 for i in range(len(x.shape))),
        limits=tuple(limit if i == axis else n for i, n in enumerate(x.shape)),
        steps=tuple(1 for _ in whole),
    )


def shifted(b: Builder, x: Node, axis: int, reverse: bool, fill: float) -> Node:
    """The element before each one, in running order (``reverse``: from the end); ``fill`` before the
    first.
    """
    n = x.shape[axis]
    if n == 0:
        return x
    if n == 1:
        return b.full(fill, x.type)
    # A window, not a concatenation: loops read it where it lies.
    starts = tuple(1 if i == axis and not reverse else 0 for i in range(len(x.shape)))
    kept = part(b, x, axis, 1, n) if reverse else part(b, x, axis, 0, n - 1)
    moved = b.embed(kept, shape=x.shape, starts=starts, steps=(1,) * len(x.shape))
    if fill == 0:
        return moved
    position = b.iota(dtype=I64, shape=x.shape, axis=axis)
    edge = b.eq(position, b.full(n - 1 if reverse else 0, position.type))
    return b.select(edge, b.full(fill, x.type), moved)


def _single(b: Builder, *args: Node, axis: int, reverse: bool) -> Node | None:
    """A row of one element is its own running value."""
    return args[-1] if args[-1].shape[axis : axis + 1] == (1,) else None


def _cumsum_transpose(b: Builder, ct: Node, out: Node, x: Node) -> Sequence[Node | None]:
    return (b.cumsum(ct, axis=out.attrs["axis"], reverse=not out.attrs["reverse"]),)


op(
    "cumsum",
    doc="Running sum along `axis`, from the end if `reverse`.",
    attrs=("axis", "reverse"),
    infer=_infer_along,
    impl=_accumulate(np.add),
    grad=Linear(_cumsum_transpose),
    lower=Scan("add"),
    simplify=[_single],
    samples=Cases(lambda rng, draw: _along(draw, 1), FLOATS + INTS),
)


def _backward(b: Builder, ct: Node, out: Node, factors: Node) -> Node:
    """s[k] = ct[k] + a[k+1] s[k+1], against the running order of ``out``."""
    axis: Any = out.attrs["axis"]
    against = not out.attrs["reverse"]
    return b.recurrence(shifted(b, factors, axis, against, 1.0), ct, axis=axis, reverse=against)


def _cumprod_jvp(b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]) -> Node | None:
    (x,), (tangent,) = args, tangents
    if tangent is None:
        return None
    axis: Any = out.attrs["axis"]
    reverse: Any = out.attrs["reverse"]
    return b.recurrence(x, b.mul(tangent, shifted(b, out, axis, reverse, 1.0)), axis=axis, reverse=reverse)


def _cumprod_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node | None]:
    (x,) = args
    before = shifted(b, out, out.attrs["axis"], out.attrs["reverse"], 1.0)  # type: ignore[arg-type]
    return (b.mul(_backward(b, ct, out, x), before),)


op(
    "cumprod",
    doc="Running product along `axis`, from the end if `reverse`; derivatives hold at zeros.",
    attrs=("axis", "reverse"),
    infer=_infer_along,
    impl=_accumulate(np.multiply),
    grad=Custom(_cumprod_jvp, _cumprod_vjp),
    lower=Scan("mul"),
    simplify=[_single],
    samples=Cases(lambda rng, draw: _along(draw, 1), FLOATS + INTS),
    special=(0.0, -0.0),
)


def _recurrence(a: Any, u: Any, *, axis: int, reverse: bool) -> Any:
    order = range(a.shape[axis])
    out = np.empty_like(u)
    a, u, y = (np.moveaxis(v, axis, 0) for v in (a, u, out))
    before = None
    for k in reversed(order) if reverse else order:
        y[k] = u[k] if before is None else a[k] * y[before] + u[k]
        before = k
    return out


def _recurrence_jvp(
    b: Builder, out: Node, args: Sequence[Node], tangents: Sequence[Node | None]
) -> Node | None:
    a, _ = args
    da, du = tangents
    axis: Any = out.attrs["axis"]
    reverse: Any = out.attrs["reverse"]
    if da is not None:
        driven = b.mul(da, shifted(b, out, axis, reverse, 0.0))
        du = driven if du is None else b.add(driven, du)
    return None if du is None else b.recurrence(a, du, axis=axis, reverse=reverse)


def _recurrence_vjp(b: Builder, ct: Node, out: Node, args: Sequence[Node]) -> Sequence[Node | None]:
    a, _ = args
    s = _backward(b, ct, out, a)
    before = shifted(b, out, out.attrs["axis"], out.attrs["reverse"], 0.0)  # type: ignore[arg-type]
    return b.mul(s, before), s


op(
    "recurrence",
    doc="y[k] = a[k] y[k-1] + u[k] along `axis`, y = u at the first element; from the end if `reverse`.",
    arity=2,
    attrs=("axis", "reverse"),
    infer=_infer_along,
    impl=_recurrence,
    grad=Custom(_recurrence_jvp, _recurrence_vjp),
    lower=Scan("add"),
    simplify=[_single],
    samples=Cases(lambda rng, draw: _along(draw, 2), FLOATS),
    special=(0.0, -0.0),
)
