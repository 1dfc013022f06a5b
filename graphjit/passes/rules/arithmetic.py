"""Rules on sums, products, signs, quotients and powers.

Signs move outward until an addition or a constant absorbs them. What is *not* here is as deliberate: ``x +
0.0``, ``x * 0``, ``x - x`` and ``-(x - y)`` all change some value (a signed zero, an infinity or NaN), so
floating point keeps them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.patterns import splat
from graphjit.passes.rules.rule import Rule


def _mul_neg_neg(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    return b.emit(node.op, x.args[0], y.args[0]) if x.op.name == y.op.name == "neg" else None


def _neg_outward(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    if x.op.name == "neg":
        return b.neg(b.emit(node.op, x.args[0], y))
    return b.neg(b.emit(node.op, x, y.args[0])) if y.op.name == "neg" else None


def _neg_into_constant(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name not in ("mul", "div"):
        return None
    x, y = inner.args
    for i, arg in enumerate((x, y)):
        value = splat(arg)
        if value is not None and value.dtype.kind == "f":
            negated = b.full(-value, arg.type)
            return b.emit(inner.op, negated, y) if i == 0 else b.emit(inner.op, x, negated)
    return None


def _mul_minus_one(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    if node.dtype.kind not in "fi":
        return None
    return b.neg(x) if splat(y) == -1 else b.neg(y) if splat(x) == -1 else None


def _add_neg(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    if y.op.name == "neg":
        return b.sub(x, y.args[0])
    return b.sub(y, x.args[0]) if x.op.name == "neg" else None


def _sub_neg(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    return b.add(x, y.args[0]) if y.op.name == "neg" else None


def _minus_twice(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    if x.op.name != "neg" or x.args[0] is not y or node.dtype.kind != "f":
        return None
    return b.mul(y, b.full(-2.0, y.type))


def _div_power_of_two(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    value = splat(y)
    if value is None or value == 0 or not np.isfinite(value):
        return None
    mantissa, _ = np.frexp(value)
    with np.errstate(all="ignore"):
        inverse = node.dtype.type(1) / value
    if abs(mantissa) != 0.5 or not np.isfinite(inverse) or abs(inverse) < np.finfo(node.dtype).tiny:
        return None
    return b.mul(x, b.full(inverse, y.type))


def _mul_reciprocal(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    if y.op.name == "div" and splat(y.args[0]) == 1:
        return b.div(x, y.args[1])
    return b.div(y, x.args[1]) if x.op.name == "div" and splat(x.args[0]) == 1 else None


def _mul_second_quotient(b: Builder, node: Node) -> Node | None:
    for factor, second in (node.args, node.args[::-1]):
        if second.op.name == "div":
            first, y = second.args
            shared = b.existing("div", factor, y) if first.op.name == "div" and first.args[1] is y else None
            if shared is not None:
                return b.mul(shared, first)
    return None


def _div_second_quotient(b: Builder, node: Node) -> Node | None:
    first, y = node.args
    if (
        first.op.name != "div"
        or first.args[1] is not y
        or y.op.name != "broadcast_to"
        or y.args[0].type.size >= y.type.size
    ):
        return None
    return b.mul(first, b.broadcast_to(b.div(1.0, y.args[0]), shape=y.shape))


def _pow_constant(exponent: int, build: Any) -> Any:
    def apply(b: Builder, node: Node) -> Node | None:
        x, y = node.args
        if node.dtype.kind != "f":
            return None
        return build(b, x) if splat(y) == exponent else None

    return apply


def _same_operand(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    return x if x is y else None


def _abs_sign(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name == "abs":
        return inner
    return (
        b.abs(inner.args[0]) if inner.op.name == "neg" and node.dtype.kind != "u" else None
    )  # unsigned numbers wrap


def _add_negative_zero(b: Builder, node: Node) -> Node | None:
    for x, y in (node.args, node.args[::-1]):
        value = splat(y)
        if (
            value is not None
            and value == 0
            and (node.dtype.kind in "iu" or (node.dtype.kind == "f" and np.signbit(value)))
        ):
            return x
    return None


def _mul_zero_integer(b: Builder, node: Node) -> Node | None:
    if node.dtype.kind not in "iu":
        return None
    return next((arg for arg in node.args if splat(arg) == 0), None)


def _sub_self_integer(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    return b.full(0, node.type) if x is y and node.dtype.kind in "iu" else None


RULES = (
    Rule(
        "mul_neg_neg", ("mul", "div"), _mul_neg_neg, "(-x) * (-y) -> x * y, and for /: two operations saved."
    ),
    Rule(
        "neg_outward",
        ("mul", "div"),
        _neg_outward,
        "(-x) * y -> -(x * y), and for /: the sign moves out to where an addition or a constant absorbs it.",
    ),
    Rule(
        "neg_into_constant",
        ("neg",),
        _neg_into_constant,
        "-(x * c) -> x * (-c), and for /.",
        consumes=("mul", "div"),
    ),
    Rule("mul_minus_one", ("mul",), _mul_minus_one, "x * -1 -> -x."),
    Rule("add_neg", ("add",), _add_neg, "x + (-y) -> x - y."),
    Rule("sub_neg", ("sub",), _sub_neg, "x - (-y) -> x + y."),
    Rule("minus_twice", ("sub",), _minus_twice, "(-x) - x -> x * -2."),
    Rule(
        "div_power_of_two",
        ("div",),
        _div_power_of_two,
        "x / 2**k -> x * 2**-k where the reciprocal is a normal number: a multiplication costs a quarter.",
    ),
    Rule(
        "mul_reciprocal",
        ("mul",),
        _mul_reciprocal,
        "x * (1 / y) -> x / y: one operation and one rounding less.",
        bound="one rounding where there were two; right where 1 / y overflowed (subnormal y)",
        consumes=("div",),
    ),
    Rule(
        "mul_second_quotient",
        ("mul",),
        _mul_second_quotient,
        "c * ((x / y) / y) -> (c / y) * (x / y) where c / y is there: the derivative of a quotient by y then shares the division of that by x.",
        bound="as many roundings as before; inf or NaN where c / y, the derivative by x, overflows",
        consumes=("div",),
    ),
    Rule(
        "div_second_quotient",
        ("div",),
        _div_second_quotient,
        "(x / y) / y -> (x / y) * (1 / y) for y that is repeated: the derivative of a quotient by a value of each row divides by it once a row.",
        bound="one rounding more; inf or NaN where 1 / y overflows (subnormal y), as for the derivative by x",
    ),
    Rule(
        "pow_0",
        ("pow",),
        _pow_constant(0, lambda b, x: b.full(1.0, x.type)),
        "x ** 0 -> 1, also for NaN (C99, NumPy).",
    ),
    Rule("pow_1", ("pow",), _pow_constant(1, lambda b, x: x), "x ** 1 -> x."),
    Rule(
        "pow_2",
        ("pow",),
        _pow_constant(2, lambda b, x: b.mul(x, x)),
        "x ** 2 -> x * x, as NumPy does.",
        bound="correctly rounded where the general power is within its own bound",
    ),
    Rule(
        "pow_3",
        ("pow",),
        _pow_constant(3, lambda b, x: b.mul(b.mul(x, x), x)),
        "x ** 3 -> x * x * x.",
        bound="1.5 ULP: half for the last rounding, u * |x**3| <= 1 ULP from the first",
    ),
    Rule(
        "pow_minus_1",
        ("pow",),
        _pow_constant(-1, lambda b, x: b.div(1.0, x)),
        "x ** -1 -> 1 / x.",
        bound="correctly rounded where the general power is within its own bound",
    ),
    Rule("extremum_same", ("maximum", "minimum", "fmax", "fmin"), _same_operand, "max(x, x) -> x."),
    Rule("abs_sign", ("abs",), _abs_sign, "||x|| -> |x| and |-x| -> |x|."),
    Rule("add_negative_zero", ("add",), _add_negative_zero, "x + (-0.0) -> x; for integers x + 0 -> x."),
    Rule("mul_zero_integer", ("mul",), _mul_zero_integer, "x * 0 -> 0 for integers only (0 * inf is NaN)."),
    Rule(
        "sub_self_integer",
        ("sub", "xor"),
        _sub_self_integer,
        "x - x -> 0 and x ^ x -> 0 for integers only (inf - inf is NaN).",
    ),
)
