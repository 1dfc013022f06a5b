"""Exponentials, logarithms, trigonometric and hyperbolic functions and their inverses.

Derivatives: DLMF 4.7, 4.20, 4.24(ii), 4.34, 4.38(ii) (Abramowitz & Stegun, 4.2 to 4.6), written so that they
neither overflow nor cancel where the function itself is finite. ``arctan2`` has no derivative at the origin:
NaN. ``logaddexp`` at infinities: -inf has weight 0, +inf has weight 1. Accuracy of the compiled code:
docs/accuracy.md.
"""

from __future__ import annotations

import math

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Partial, Partials, Scalar, op
from graphjit.ops.infer import floating
from graphjit.ops.samples import EDGES, uniform

LN2, LN10 = math.log(2.0), math.log(10.0)


def _unary(
    name: str,
    doc: str,
    function: np.ufunc,
    partial: Partial,
    low: float,
    high: float,
    *special: float,
) -> None:
    op(
        name,
        doc=doc,
        infer=floating,
        impl=function,
        grad=Partials(partial),
        lower=Scalar(name),
        numpy=[function],
        samples=uniform((low, high)),
        special=(*EDGES, *special),
        accuracy="2 ULP",
    )


# ----------------------------------------------------------------------------------- exponentials, logarithms

_unary("exp", "e**x.", np.exp, lambda b, out, x: out, -3, 3, 710.0, -750.0)
_unary("exp2", "2**x.", np.exp2, lambda b, out, x: b.mul(out, LN2), -3, 3, 1100.0)
_unary("expm1", "Accurate e**x - 1.", np.expm1, lambda b, out, x: b.add(out, 1.0), -3, 3, 1e-20)
_unary("log", "Natural logarithm.", np.log, lambda b, out, x: b.div(1.0, x), 0.1, 4, -1.0)
_unary("log2", "Logarithm to base 2.", np.log2, lambda b, out, x: b.div(1.0 / LN2, x), 0.1, 4, -1.0)
_unary("log10", "Logarithm to base 10.", np.log10, lambda b, out, x: b.div(1.0 / LN10, x), 0.1, 4, -1.0)
_unary("log1p", "Accurate log(1 + x).", np.log1p, lambda b, out, x: b.div(1.0, b.add(x, 1.0)), -0.8, 4, -1.0)

# ---------------------------------------------------------------------------------------------- trigonometric


def _rsqrt_of(b: Builder, product: Node) -> Node:
    return b.div(1.0, b.sqrt(product))


def _one_minus_square(b: Builder, x: Node) -> Node:
    """1 - x*x without cancellation near |x| = 1."""
    return b.mul(b.sub(1.0, x), b.add(x, 1.0))


_unary("sin", "Sine of radians.", np.sin, lambda b, out, x: b.cos(x), -3, 3, 1e22)
_unary("cos", "Cosine of radians.", np.cos, lambda b, out, x: b.neg(b.sin(x)), -3, 3, 1e22)
_unary("tan", "Tangent of radians.", np.tan, lambda b, out, x: b.add(b.mul(out, out), 1.0), -1.2, 1.2, 1e22)
_unary(
    "arcsin",
    "Inverse sine.",
    np.arcsin,
    lambda b, out, x: _rsqrt_of(b, _one_minus_square(b, x)),
    -0.9,
    0.9,
    1.0,
    2.0,
)
_unary(
    "arccos",
    "Inverse cosine.",
    np.arccos,
    lambda b, out, x: b.neg(_rsqrt_of(b, _one_minus_square(b, x))),
    -0.9,
    0.9,
    1.0,
    2.0,
)
_unary("arctan", "Inverse tangent.", np.arctan, lambda b, out, x: b.witch(x), -3, 3)
op(
    "witch",
    doc="1 / (1 + x*x), the derivative of arctan.",
    infer=floating,
    impl=lambda x: np.asarray(1 / (x * x + 1)),
    # out * out alone would underflow where the product with x does not
    grad=Partials(lambda b, out, x: b.mul(b.mul(b.mul(x, out), out), -2.0)),
    lower=Decompose(lambda b, out, x: b.div(1.0, b.add(b.mul(x, x), 1.0))),
    samples=uniform((-3, 3)),
    special=EDGES,
)


def _angle_partial(b: Builder, part: Node, x: Node, y: Node) -> Node:
    """part / (x*x + y*y), scaled so that squares of huge and tiny values do not matter."""
    radius = b.hypot(x, y)
    return b.div(b.div(part, radius), radius)


op(
    "arctan2",
    doc="Angle of the point (y, x), in the order arctan2(y, x); no derivative at the origin (NaN).",
    arity=2,
    infer=floating,
    impl=np.arctan2,
    grad=Partials(
        lambda b, out, y, x: _angle_partial(b, x, x, y),
        lambda b, out, y, x: b.neg(_angle_partial(b, y, x, y)),
    ),
    lower=Scalar("arctan2"),
    numpy=[np.arctan2],
    samples=uniform((-3, 3), (0.3, 3)),
    special=EDGES,
    accuracy="2 ULP",
)

# ------------------------------------------------------------------------------------------------- hyperbolic

_unary("sinh", "Hyperbolic sine.", np.sinh, lambda b, out, x: b.cosh(x), -3, 3, 710.0)
_unary("cosh", "Hyperbolic cosine.", np.cosh, lambda b, out, x: b.sinh(x), -3, 3, 710.0)
_unary("tanh", "Hyperbolic tangent.", np.tanh, lambda b, out, x: b.tanh_slope(x), -3, 3, 1e-20)


def _expand_tanh_slope(b: Builder, out: Node, x: Node) -> Node:
    t = b.tanh(x)
    return b.sub(1.0, b.mul(t, t))


def _expand_sech_square(b: Builder, out: Node, x: Node) -> Node:
    """q (1 + |t|)**2: with the t = tanh(x) that is there, 1 + |t| is 2 / (1 + q) without a quotient."""
    q = b.exp(b.mul(b.abs(x), -2.0))
    upper = b.add(b.abs(b.tanh(x)), 1.0)
    return b.mul(b.mul(q, upper), upper)


def _sech_square(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        secant = 1 / np.cosh(x)
    return np.asarray(secant * secant)


def _sech_square_partial(b: Builder, out: Node, x: Node) -> Node:
    return b.mul(b.mul(out, b.tanh(x)), -2.0)


op(
    "tanh_slope",
    doc="1 - tanh(x)**2, the derivative of tanh, from the tanh that is there; its own derivatives are those of sech_square.",
    infer=floating,
    impl=lambda x: np.asarray(1 - np.tanh(x) * np.tanh(x)),
    grad=Partials(lambda b, out, x: _sech_square_partial(b, b.sech_square(x), x)),
    lower=Decompose(_expand_tanh_slope),
    samples=uniform((-3, 3)),
    special=EDGES,
)
op(
    "sech_square",
    doc="1 / cosh(x)**2 = 4q / (1 + q)**2 with q = exp(-2|x|): tanh_slope with all digits where tanh saturates.",
    infer=floating,
    impl=_sech_square,
    grad=Partials(_sech_square_partial),
    lower=Decompose(_expand_sech_square),
    samples=uniform((-3, 3)),
    special=(*EDGES, 300.0, -400.0),
)
_unary(
    "arcsinh",
    "Inverse hyperbolic sine.",
    np.arcsinh,
    lambda b, out, x: b.div(1.0, b.hypot(x, b.full(1.0, x.type))),
    -3,
    3,
    1e200,
)
_unary(
    "arccosh",
    "Inverse hyperbolic cosine; its derivative at 1 is inf.",
    np.arccosh,
    lambda b, out, x: b.div(1.0, b.mul(b.sqrt(b.sub(x, 1.0)), b.sqrt(b.add(x, 1.0)))),
    1.2,
    4,
    1.0,
    1e200,
)
_unary(
    "arctanh",
    "Inverse hyperbolic tangent.",
    np.arctanh,
    lambda b, out, x: b.div(1.0, _one_minus_square(b, x)),
    -0.9,
    0.9,
    1.0,
)

# ------------------------------------------------------------------------------------------------- log-domain


def _difference(b: Builder, x: Node, y: Node) -> Node:
    """x - y, where equal infinities give the infinity itself: weight 0 for -inf, 1 for +inf."""
    same = b.emit("and", b.eq(x, y), b.isinf(x))
    return b.select(same, x, b.sub(x, y))


op(
    "logaddexp",
    doc="log(exp(x) + exp(y)) without overflow.",
    arity=2,
    infer=floating,
    impl=np.logaddexp,
    grad=Partials(
        lambda b, out, x, y: b.expit(_difference(b, x, y)),
        lambda b, out, x, y: b.expit(_difference(b, y, x)),
    ),
    lower=Scalar("logaddexp"),
    numpy=[np.logaddexp],
    samples=uniform((-3, 3), (-3, 3)),
    special=(*EDGES, 1000.0, -1000.0),
    accuracy="3 ULP",
)


def logistic_parts(b: Builder, x: Node, power: str) -> tuple[Node, Node]:
    """q / (1 + q) and 1 / (1 + q) for q = power**-|x|: the logistic function of -|x| and of |x|, neither with
    an overflow.

    Their product is its derivative, so value and derivative share one exponential and one quotient.
    """
    q = b.emit(power, b.neg(b.abs(x)))
    upper = b.div(1.0, b.add(q, 1.0))
    return b.mul(q, upper), upper


def _expand_expit2(b: Builder, out: Node, x: Node) -> Node:
    lower, upper = logistic_parts(b, x, "exp2")
    return b.select(b.lt(x, 0.0), lower, upper)


def _expand_logaddexp2(b: Builder, out: Node, x: Node, y: Node) -> Node:
    gap = b.neg(b.abs(b.sub(x, y)))
    tail = b.mul(b.log1p(b.exp2(gap)), 1.0 / LN2)
    return b.select(b.eq(x, y), b.add(x, 1.0), b.add(b.maximum(x, y), tail))


op(
    "logaddexp2",
    doc="log2(2**x + 2**y) without overflow.",
    arity=2,
    infer=floating,
    impl=np.logaddexp2,
    grad=Partials(
        lambda b, out, x, y: b.expit2(_difference(b, x, y)),
        lambda b, out, x, y: b.expit2(_difference(b, y, x)),
    ),
    lower=Decompose(_expand_logaddexp2),
    numpy=[np.logaddexp2],
    samples=uniform((-3, 3), (-3, 3)),
    special=(*EDGES, 2000.0, -2000.0),
)
op(
    "expit2",
    doc="1 / (1 + 2**-x), the derivative of logaddexp2: a factor of log(2) in the exponent would magnify its rounding.",
    infer=floating,
    impl=lambda x: np.asarray(1 / (1 + np.exp2(-x))),
    grad=Partials(lambda b, out, x: b.mul(b.mul(out, b.expit2(b.neg(x))), LN2)),
    lower=Decompose(_expand_expit2),
    samples=uniform((-3, 3)),
    special=(*EDGES, 1000.0, -1000.0),
)
