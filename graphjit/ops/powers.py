"""Powers and roots: pow, square, reciprocal, sqrt, cbrt, hypot, and the roots that norms and deviations end
with.

Choices (documented and tested): ``sqrt`` and ``cbrt`` have derivative inf at 0; ``hypot`` and ``rooted`` have
0 at the origin. For ``x**y``: d/dx at x = 0 is that of the power function (1 for y = 1, 0 for y > 1 and for y
= 0); d/dy at x = 0 is 0 for y >= 0 and NaN for negative x, where the power exists for isolated y only.
Formulas: DLMF 4.7(ii).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Partials, Scalar, op
from graphjit.ir.patterns import splat
from graphjit.ir.types import Type
from graphjit.ops.infer import floating, numeric
from graphjit.ops.samples import EDGES, FLOATS, INTS, Case, Cases, Draw, elementwise_cases, uniform


def _pow_in_base(b: Builder, out: Node, x: Node, y: Node) -> Node | None:
    """y * x**(y - 1), and 0 where both are 0 (0**0 is 1 on the whole line x)."""
    exponent = splat(y)
    if exponent is not None:
        if exponent == 0:
            return None
        if exponent == 1:
            return b.full(1.0, x.type)
        if exponent == 2:
            return b.add(x, x)
        return b.mul(y, b.pow(x, b.full(exponent - exponent.dtype.type(1), x.type)))
    zero = b.full(0.0, x.type)
    both = b.emit("and", b.eq(x, zero), b.eq(y, zero))
    return b.select(both, zero, b.mul(y, b.pow(x, b.sub(y, 1.0))))


def _pow_in_exponent(b: Builder, out: Node, x: Node, y: Node) -> Node:
    """x**y * log(x), and 0 at x = 0 for y >= 0 (the limit for y > 0)."""
    base = splat(x)
    if base is not None and base > 0:
        return b.mul(out, float(math.log(base)))
    zero = b.full(0.0, x.type)
    flat = b.emit("and", b.eq(x, zero), b.ge(y, zero))
    return b.select(flat, zero, b.mul(out, b.log(x)))


def _power_of_root(b: Builder, x: Node, y: Node) -> Node | None:
    """norm(x) ** n -> the power of the sum itself, which is smooth where the root is not."""
    exponent = splat(y)
    if exponent is None or exponent <= 1 or not np.isfinite(exponent):
        return None
    return _raised(b, x, float(exponent))


def _raised(b: Builder, x: Node, power: float) -> Node | None:
    if x.op.name != "rooted" or x.attrs["power"] != 1.0:
        return None
    return b.emit("rooted", x.args[0], root=x.attrs["root"], power=power)


def _pow_cases(rng: np.random.Generator, draw: Draw) -> list[Case]:
    """Positive bases for floats (a derivative in y exists there), small non-negative exponents for
    integers.
    """
    cases: list[Case] = []
    for (x, y), attrs in elementwise_cases(2)(rng, draw):
        if x.dtype.kind == "f":
            cases.append(([np.asarray(np.abs(x) + x.dtype.type(0.2)), y], attrs))
        else:
            cases.append(([x, np.asarray(y % 4).astype(y.dtype)], attrs))
    return cases


op(
    "pow",
    doc="x**y, floating point or integer; a negative integer exponent is a run-time error.",
    arity=2,
    infer=numeric,
    impl=np.power,
    grad=Partials(_pow_in_base, _pow_in_exponent),
    lower=Scalar("pow"),
    numpy=[np.power],
    simplify=[_power_of_root],
    samples=Cases(_pow_cases, FLOATS + INTS),
    special=(*EDGES, 1.0, 2.0, -1.0, 0.5),
    accuracy="2 ULP",
)
op(
    "square",
    doc="x * x.",
    infer=numeric,
    impl=np.square,
    grad=Partials(lambda b, out, x: b.add(x, x)),
    lower=Decompose(lambda b, out, x: b.mul(x, x)),
    numpy=[np.square],
    simplify=[lambda b, x: _raised(b, x, 2.0)],
    samples=uniform((-3, 3), dtypes=FLOATS + INTS),
    special=EDGES,
)
op(
    "reciprocal",
    doc="1 / x in floating point.",
    infer=floating,
    impl=np.reciprocal,
    grad=Partials(lambda b, out, x: b.neg(b.mul(out, out))),
    lower=Decompose(lambda b, out, x: b.div(1.0, x)),
    numpy=[np.reciprocal],
    samples=uniform((0.3, 3)),
    special=EDGES,
)
op(
    "sqrt",
    doc="Square root; its derivative at 0 is inf.",
    infer=floating,
    impl=np.sqrt,
    grad=Partials(lambda b, out, x: b.div(0.5, out)),
    lower=Scalar("sqrt"),
    numpy=[np.sqrt],
    samples=uniform((0.1, 4)),
    special=EDGES,
)
op(
    "cbrt",
    doc="Cube root; its derivative at 0 is inf.",
    infer=floating,
    impl=np.cbrt,
    grad=Partials(lambda b, out, x: b.div(1.0 / 3.0, b.mul(out, out))),
    lower=Scalar("cbrt"),
    numpy=[np.cbrt],
    samples=uniform((0.1, 4)),
    special=(*EDGES, -8.0),
    accuracy="2 ULP",
)


def _direction(b: Builder, out: Node, part: Node) -> Node:
    """part / hypot, 0 at the origin."""
    zero = b.full(0.0, out.type)
    return b.select(b.eq(out, zero), zero, b.div(part, out))


op(
    "hypot",
    doc="sqrt(x*x + y*y) without overflow; the derivative at the origin is 0.",
    arity=2,
    infer=floating,
    impl=np.hypot,
    grad=Partials(lambda b, out, x, y: _direction(b, out, x), lambda b, out, x, y: _direction(b, out, y)),
    lower=Scalar("hypot"),
    numpy=[np.hypot],
    samples=uniform((-3, 3), (0.3, 3)),
    special=(*EDGES, 1e300),
    accuracy="2 ULP",
)


# ---------------------------------------------------------------------- roots of sums that are never negative


def _root(b: Builder, x: Node, root: float) -> Node:
    return b.sqrt(x) if root == 2 else b.pow(x, b.full(1.0 / root, x.type))


def _expand_rooted(b: Builder, out: Node, x: Node) -> Node:
    root, power = float(out.attrs["root"]), float(out.attrs["power"])  # type: ignore[arg-type]
    base = _root(b, x, root)
    if power == 1:
        return base
    return b.mul(base, base) if power == 2 else b.pow(base, b.full(power, x.type))


def _rooted_partial(b: Builder, out: Node, x: Node) -> Node:
    """power / root * x ** (power / root - 1), and 0 at x = 0 where that is not finite.

    There x is least, so its own derivative is 0: a factor that is exactly zero wins.
    """
    root, power = float(out.attrs["root"]), float(out.attrs["power"])  # type: ignore[arg-type]
    if power == root:
        return b.full(1.0, x.type)
    if power > root:
        return b.mul(b.emit("rooted", x, root=root, power=power - root), power / root)
    base = out if power == 1 else b.emit("rooted", x, root=root, power=1.0)
    if power - root == -1:
        slope = b.div(power / root, base)
    else:
        slope = b.mul(b.pow(base, b.full(power - root, x.type)), power / root)
    zero = b.full(0.0, x.type)
    return b.select(b.eq(x, zero), zero, slope)


def _infer_rooted(x: Type, *, root: float, power: float) -> Type:
    return floating(x)


def _rooted(x: Any, *, root: float, power: float) -> Any:
    base = np.sqrt(x) if root == 2 else np.power(x, x.dtype.type(1.0 / root))
    if power == 1:
        return np.asarray(base)
    return np.asarray(base * base if power == 2 else np.power(base, x.dtype.type(power)))


op(
    "rooted",
    doc="root-th root of a sum of powers, raised to power: norms, deviations and their powers; where the sum is 0 the derivative of the root is 0.",
    attrs=("root", "power"),
    infer=_infer_rooted,
    impl=_rooted,
    grad=Partials(_rooted_partial),
    lower=Decompose(_expand_rooted),
    samples=Cases(
        lambda rng, draw: [
            ([np.abs(draw(5)) + draw().dtype.type(0.5)], {"root": root, "power": power})
            for root, power in ((2.0, 1.0), (2.0, 2.0), (2.0, 4.0), (3.0, 1.0), (3.0, 3.0), (2.5, 2.0))
        ]
    ),
    special=(0.0, float("inf"), float("nan")),
)
