"""Powers and roots: pow, square, reciprocal, sqrt, cbrt, hypot.

Choices (documented and tested): ``sqrt`` and ``cbrt`` have derivative inf at 0; ``hypot`` has 0 at the origin.  For
``x**y``: d/dx at x = 0 is that of the power function (1 for y = 1, 0 for y > 1 and for y = 0); d/dy at x = 0 is 0 for
y >= 0 and NaN for negative x, where the power exists for isolated y only.  Formulas: DLMF 4.7(ii).
"""

from __future__ import annotations

import math

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Partials, Scalar, op
from graphjit.ir.patterns import splat
from graphjit.ops.infer import floating, numeric
from graphjit.ops.samples import EDGES, FLOATS, INTS, Case, Cases, Draw, elementwise_cases, uniform


def _pow_in_base(b: Builder, out: Node, x: Node, y: Node) -> Node | None:
    """y * x**(y - 1), and 0 where both are 0 (0**0 is 1 on the whole line x)."""
    known = splat(y)
    if known is not None:
        if known == 0:
            return None
        if known == 1:
            return b.full(1.0, x.type)
        if known == 2:
            return b.add(x, x)
        return b.mul(y, b.pow(x, b.full(known - known.dtype.type(1), x.type)))
    zero = b.full(0.0, x.type)
    both = b.emit("and", b.eq(x, zero), b.eq(y, zero))
    return b.select(both, zero, b.mul(y, b.pow(x, b.sub(y, 1.0))))


def _pow_in_exponent(b: Builder, out: Node, x: Node, y: Node) -> Node:
    """x**y * log(x), and 0 at x = 0 for y >= 0 (the limit for y > 0)."""
    known = splat(x)
    if known is not None and known > 0:
        return b.mul(out, float(math.log(known)))
    zero = b.full(0.0, x.type)
    flat = b.emit("and", b.eq(x, zero), b.ge(y, zero))
    return b.select(flat, zero, b.mul(out, b.log(x)))


def _pow_cases(rng: np.random.Generator, draw: Draw) -> list[Case]:
    """Positive bases for floats (a derivative in y exists there), small non-negative exponents for integers."""
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
    lower=Scalar("pow", cost=80),
    numpy=[np.power],
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
    lower=Scalar("sqrt", cost=5),
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
    lower=Scalar("cbrt", cost=30),
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
    lower=Scalar("hypot", cost=15),
    numpy=[np.hypot],
    samples=uniform((-3, 3), (0.3, 3)),
    special=(*EDGES, 1e300),
    accuracy="2 ULP",
)
