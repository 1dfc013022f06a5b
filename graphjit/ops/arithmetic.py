"""Arithmetic on elements: add, subtract, multiply, divide, signs, minima and maxima.

Subgradient choices (documented and tested): ``abs`` has derivative 0 at 0, and so has ``copysign``; ties of
``maximum``/``minimum`` share evenly, and both get 0 where the result is NaN. Integer division, remainders and
rounding are in ``rounding``, powers and roots in ``powers``.
"""

from __future__ import annotations

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Partials, Scalar, ZeroDerivative, op
from graphjit.ir.patterns import splat
from graphjit.ir.types import Type
from graphjit.ops.infer import elementwise, floating, numeric, predicate
from graphjit.ops.samples import ALL, EDGES, FLOATS, INTS, uniform


def _mul_one(b: Builder, x: Node, y: Node) -> Node | None:
    """x * 1 -> x, exact for every value."""
    return x if splat(y) == 1 else y if splat(x) == 1 else None


def _square_of_root(b: Builder, x: Node, y: Node) -> Node | None:
    """norm(x) * norm(x) -> the square, whose derivative needs no root (see `rooted`)."""
    if x is not y or x.op.name != "rooted" or x.attrs["power"] != 1.0:
        return None
    return b.emit("rooted", x.args[0], root=x.attrs["root"], power=2.0)


def _sub_zero(b: Builder, x: Node, y: Node) -> Node | None:
    """x - 0 -> x, exact (x + 0 is not: it turns -0.0 into 0.0)."""
    value = splat(y)
    return x if value == 0 and not np.signbit(value) else None


def _div_one(b: Builder, x: Node, y: Node) -> Node | None:
    """x / 1 -> x."""
    return x if splat(y) == 1 else None


def _neg_neg(b: Builder, x: Node) -> Node | None:
    """-(-x) -> x."""
    return x.args[0] if x.op.name == "neg" else None


op(
    "add",
    doc="x + y (logical or for bool).",
    arity=2,
    infer=elementwise,
    impl=np.add,
    grad=Partials(1, 1),
    lower=Scalar("add"),
    numpy=[np.add],
    samples=uniform((-3, 3), (-3, 3), dtypes=ALL),
    special=EDGES,
)
op(
    "sub",
    doc="x - y.",
    arity=2,
    infer=numeric,
    impl=np.subtract,
    grad=Partials(1, -1),
    lower=Scalar("sub"),
    numpy=[np.subtract],
    simplify=[_sub_zero],
    samples=uniform((-3, 3), (-3, 3), dtypes=FLOATS + INTS),
    special=EDGES,
)
op(
    "mul",
    doc="x * y (logical and for bool).",
    arity=2,
    infer=elementwise,
    impl=np.multiply,
    grad=Partials(lambda b, out, x, y: y, lambda b, out, x, y: x),
    lower=Scalar("mul"),
    numpy=[np.multiply],
    simplify=[_mul_one, _square_of_root],
    samples=uniform((-3, 3), (-3, 3), dtypes=ALL),
    special=EDGES,
)
op(
    "div",
    doc="x / y in floating point.",
    arity=2,
    infer=floating,
    impl=np.true_divide,
    grad=Partials(
        lambda b, out, x, y: b.div(1.0, y),
        lambda b, out, x, y: b.neg(b.div(out, y)),
    ),
    lower=Scalar("div"),
    numpy=[np.true_divide],
    simplify=[_div_one],
    samples=uniform((-3, 3), (0.5, 3)),
    special=EDGES,
)
op(
    "neg",
    doc="-x.",
    infer=numeric,
    impl=np.negative,
    grad=Partials(-1),
    lower=Scalar("neg"),
    numpy=[np.negative],
    simplify=[_neg_neg],
    samples=uniform((-3, 3), dtypes=FLOATS + INTS),
    special=EDGES,
)
op(
    "abs",
    doc="|x|; its derivative at 0 is 0.",
    infer=elementwise,
    impl=np.abs,
    grad=Partials(lambda b, out, x: b.sign(x)),
    lower=Scalar("abs"),
    numpy=[np.absolute, np.fabs],
    samples=uniform((0.1, 3), dtypes=ALL),
    special=EDGES,
)


def _share(b: Builder, out: Node, x: Node, y: Node) -> Node:
    """1 where x is chosen, 1/2 on ties, 0 elsewhere."""
    chosen, tie = b.eq(x, out), b.eq(x, y)
    one = b.full(1.0, out.type)
    return b.select(tie, b.full(0.5, out.type), b.select(chosen, one, b.full(0.0, out.type)))


_pick = Partials(lambda b, out, x, y: _share(b, out, x, y), lambda b, out, x, y: _share(b, out, y, x))

for _name, _function, _doc in (
    ("maximum", np.maximum, "The larger of x and y; NaN if either is NaN; ties share the derivative evenly."),
    (
        "minimum",
        np.minimum,
        "The smaller of x and y; NaN if either is NaN; ties share the derivative evenly.",
    ),
    (
        "fmax",
        np.fmax,
        "The larger of x and y; a NaN gives way to a number; ties share the derivative evenly.",
    ),
    (
        "fmin",
        np.fmin,
        "The smaller of x and y; a NaN gives way to a number; ties share the derivative evenly.",
    ),
):
    op(
        _name,
        doc=_doc,
        arity=2,
        infer=elementwise,
        impl=_function,
        grad=_pick,
        lower=Scalar(_name),
        numpy=[_function],
        samples=uniform((-3, 3), (-3, 3), dtypes=ALL),
        special=EDGES,
    )


# ------------------------------------------------------------------------------------------------------ signs


def _expand_sign(b: Builder, out: Node, x: Node) -> Node:
    zero, one = b.full(0, x.type), b.full(1, x.type)
    positive = b.gt(x, zero)
    if x.dtype.kind == "u":
        return b.select(positive, one, zero)
    below = b.select(b.lt(x, zero), b.full(-1, x.type), zero)
    if x.dtype.kind == "f":  # NaN stays NaN; the sign of -0.0 is 0.0
        below = b.select(b.isnan(x), x, below)
    return b.select(positive, one, below)


op(
    "sign",
    doc="-1, 0 or 1; NaN of NaN.",
    infer=numeric,
    impl=np.sign,
    grad=ZeroDerivative("piecewise constant"),
    lower=Decompose(_expand_sign),
    numpy=[np.sign],
    samples=uniform((-3, 3), dtypes=FLOATS + INTS),
    special=EDGES,
)
op(
    "copysign",
    doc="|x| with the sign of y; the derivative at x = 0 is 0.",
    arity=2,
    infer=floating,
    impl=np.copysign,
    grad=Partials(lambda b, out, x, y: b.mul(b.sign(x), b.copysign(1.0, y)), None),
    lower=Scalar("copysign"),
    numpy=[np.copysign],
    samples=uniform((-3, 3), (-3, 3)),
    special=EDGES,
)


def _floating_predicate(*types: Type) -> Type:
    floating(*types)
    return predicate(*types)


op(
    "signbit",
    doc="Whether the sign bit is set (True for -0.0).",
    infer=_floating_predicate,
    impl=np.signbit,
    grad=ZeroDerivative("piecewise constant"),
    lower=Scalar("signbit"),
    numpy=[np.signbit],
    samples=uniform((-3, 3)),
    special=EDGES,
)


def _expand_heaviside(b: Builder, out: Node, x: Node, y: Node) -> Node:
    above = b.select(b.gt(x, 0.0), b.full(1.0, x.type), x)  # what is neither 0, negative nor positive is NaN
    return b.select(b.eq(x, 0.0), y, b.select(b.lt(x, 0.0), b.full(0.0, x.type), above))


op(
    "heaviside",
    doc="0 below zero, y at zero, 1 above; the derivative in x is 0, in y it is 1 at x = 0.",
    arity=2,
    infer=floating,
    impl=np.heaviside,
    grad=Partials(None, lambda b, out, x, y: b.convert(b.eq(x, 0.0), dtype=x.dtype)),
    lower=Decompose(_expand_heaviside),
    numpy=[np.heaviside],
    samples=uniform((-3, 3), (-3, 3)),
    special=EDGES,
)
