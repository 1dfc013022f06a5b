"""Rounding, division with remainder, shifts of bits.

Floating point ``floor_divide`` and ``remainder`` follow Python's and NumPy's definition: C's exact ``fmod``,
then a correction by the sign of the divisor. Integers are operations of their own, guarded at run time: a
zero divisor raises ZeroDivisionError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, LocalRule, Partials, Scalar, ZeroDerivative, op
from graphjit.ops.infer import elementwise, floating, integers, numeric
from graphjit.ops.samples import EDGES, FLOATS, INTS, Cases, Draw, elementwise_cases, uniform

_STEP = ZeroDerivative("piecewise constant")
_function: Any


def _integer_identity(b: Builder, x: Node) -> Node | None:
    """An integer is its own floor, ceiling and truncation."""
    return x if x.dtype.kind in "iub" else None


for _name, _function, _doc in (
    ("floor", np.floor, "Largest integer at most x."),
    ("ceil", np.ceil, "Smallest integer at least x."),
    ("trunc", np.trunc, "Integer part."),
):
    op(
        _name,
        doc=_doc,
        infer=elementwise,
        impl=_function,
        grad=_STEP,
        lower=Scalar(_name),
        numpy=[_function],
        simplify=[_integer_identity],
        samples=uniform((-9, 9), dtypes=FLOATS + INTS),
        special=(*EDGES, 0.5, -0.5, 1e300),
    )

op(
    "rint",
    doc="Nearest integer, ties to even.",
    infer=floating,
    impl=np.rint,
    grad=_STEP,
    lower=Scalar("rint"),
    numpy=[np.rint],
    samples=uniform((-9, 9)),
    special=(*EDGES, 0.5, -0.5, 1.5, 2.5, 1e300),
)

# ------------------------------------------------------------------------------------ division with remainder


def _guarded(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """The reference for integers raises where compiled code raises; NumPy alone would warn and give 0."""

    def impl(x: Any, y: Any) -> Any:
        if np.asarray(y).dtype.kind in "iu" and np.any(np.equal(y, 0)):
            raise ZeroDivisionError(what)
        return function(x, y)

    return impl


_floor_divide = _guarded(np.floor_divide, "integer division by zero")
_remainder = _guarded(np.remainder, "integer modulo by zero")
_fmod = _guarded(np.fmod, "integer modulo by zero")


def _float_version(name: str) -> LocalRule:
    def rule(b: Builder, x: Node, y: Node) -> Node | None:
        return b.emit(name, x, y) if x.dtype.kind == "f" else None

    rule.__doc__ = f"floating point {name.removeprefix('float_')} -> {name}."
    return rule


def _nonzero_divisors(rng: np.random.Generator, draw: Draw) -> list[Any]:
    """Integers other than 0; floats that stay away from 0, where the remainder jumps all the time."""
    return [
        ([x, np.where(np.abs(y) < 0.5, y.dtype.type(1), y).astype(y.dtype)], attrs)
        for (x, y), attrs in elementwise_cases(2)(rng, draw)
    ]


def _expand_float_remainder(b: Builder, out: Node, x: Node, y: Node) -> Node:
    zero = b.full(0.0, x.type)
    part = b.fmod(x, y)
    wrong_side = b.ne(b.lt(y, zero), b.lt(part, zero))
    corrected = b.select(wrong_side, b.add(part, y), part)
    exact = b.select(b.eq(y, zero), part, b.copysign(zero, y))  # a zero divisor leaves fmod's NaN
    return b.select(b.eq(part, zero), exact, corrected)


def _expand_float_floor_divide(b: Builder, out: Node, x: Node, y: Node) -> Node:
    zero = b.full(0.0, x.type)
    part = b.fmod(x, y)
    quotient = b.div(b.sub(x, part), y)
    wrong_side = b.emit("and", b.ne(part, zero), b.ne(b.lt(y, zero), b.lt(part, zero)))
    quotient = b.select(wrong_side, b.sub(quotient, 1.0), quotient)
    down = b.floor(quotient)
    # the subtraction above may have rounded just below the integer that is meant
    down = b.select(b.gt(b.sub(quotient, down), 0.5), b.add(down, 1.0), down)
    plain = b.div(x, y)
    result = b.select(b.eq(quotient, zero), b.copysign(zero, plain), down)
    return b.select(b.eq(y, zero), plain, result)


op(
    "floor_divide",
    doc="x // y of integers; floating point becomes float_floor_divide.  A zero divisor is a run-time error.",
    arity=2,
    infer=numeric,
    impl=_floor_divide,
    grad=_STEP,
    lower=Scalar("floor_divide"),
    numpy=[np.floor_divide],
    simplify=[_float_version("float_floor_divide")],
    samples=Cases(_nonzero_divisors, INTS),
)
op(
    "float_floor_divide",
    doc="x // y in floating point: the floor of the exact quotient, as NumPy rounds it; derivative 0.",
    arity=2,
    infer=floating,
    impl=np.floor_divide,
    grad=_STEP,
    lower=Decompose(_expand_float_floor_divide),
    samples=uniform((-9, 9), (0.5, 3)),
    special=EDGES,
)
op(
    "remainder",
    doc="x % y of integers, sign of y; floating point becomes float_remainder.  A zero divisor is a run-time error.",
    arity=2,
    infer=numeric,
    impl=_remainder,
    grad=_STEP,
    lower=Scalar("remainder"),
    numpy=[np.remainder],
    simplify=[_float_version("float_remainder")],
    samples=Cases(_nonzero_divisors, INTS),
)
op(
    "float_remainder",
    doc="x % y in floating point, sign of y; d/dy is -(x // y).",
    arity=2,
    infer=floating,
    impl=np.remainder,
    grad=Partials(1, lambda b, out, x, y: b.neg(b.floor_divide(x, y))),
    lower=Decompose(_expand_float_remainder),
    samples=uniform((-9, 9), (0.5, 3)),
    special=EDGES,
)
op(
    "fmod",
    doc="C's exact remainder, sign of x; d/dy is minus the whole quotient; a zero integer divisor is a run-time error.",
    arity=2,
    infer=numeric,
    impl=_fmod,
    grad=Partials(1, lambda b, out, x, y: b.neg(b.rint(b.div(b.sub(x, out), y)))),
    lower=Scalar("fmod"),
    numpy=[np.fmod],
    samples=Cases(_nonzero_divisors, FLOATS + INTS),
    special=EDGES,
)

# ----------------------------------------------------------------------------------------------------- shifts

for _name, _scalar, _function, _doc in (
    ("left_shift", "shl", np.left_shift, "x << y; shifting all bits out gives 0."),
    (
        "right_shift",
        "shr",
        np.right_shift,
        "x >> y, arithmetic if signed; shifting all bits out gives 0 or -1.",
    ),
):
    op(
        _name,
        doc=_doc,
        arity=2,
        infer=integers,
        impl=_function,
        grad=_STEP,
        lower=Scalar(_scalar),
        numpy=[_function],
        samples=uniform((-9, 9), (0, 3), dtypes=INTS),
    )
