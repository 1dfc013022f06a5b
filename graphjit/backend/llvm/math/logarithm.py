"""Logarithms and what is built on them: log1p, log2, log10, inverse hyperbolic functions, log_expit,
logaddexp.

Job: x = m 2**e with m in [3/4, 3/2), s = (m - 1) / (m + 1), log(m) = 2 atanh(s) by a polynomial in s**2.
Input and output: as in `function.py`.
Invariant: zero, infinity, NaN and negative numbers come out of `Vector.split` such that no branch is needed.
Method: fdlibm's e_log.c (Sun Microsystems, 1993); polynomials made for this project.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphjit.backend.llvm.math.exponential import CONSTANTS as EXPONENTIAL
from graphjit.backend.llvm.math.exponential import exp
from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.writing.vector import NAN, Operand, Vector

FDLIBM = "fdlibm's e_log.c, own polynomial"
BEYOND = 2000.0  # larger than any exponent


@dataclass(frozen=True)
class Base:
    """Constants of a logarithm's base b in one precision."""

    factor: tuple[float, float]  # 1 / ln b as a sum
    two: tuple[float, float]  # log_b 2 as a sum, the first one with few bits


LOG2 = {
    "double": Base((1.4426950408889634, 2.0355273740931033e-17), (1.0, 0.0)),
    "float": Base((1.4426950216293335, 1.925963033500011e-08), (1.0, 0.0)),
}
LOG10 = {
    "double": Base(
        (0.4342944819032518, 1.098319650216765e-17), (0.30102999566395283, 2.8363394551044964e-14)
    ),
    "float": Base((0.4342944920063019, -1.0103049952192578e-08), (0.301025390625, 4.605039066518657e-06)),
}
HUGE = {"double": 2.0**100, "float": 2.0**50}  # x**2 + 1 == x**2 long before, no overflow yet

# (2 atanh(s) - 2 s) / s**3 in s**2, |s| <= 1/5
ATANH = {
    "double": (
        0.6666666666667272,
        0.3999999999615789,
        0.2857142939557759,
        0.22222138496637625,
        0.18186355812241628,
        0.15250199413755383,
        0.15368078864696189,
    ),
    "float": (0.6666666269302368, 0.4000091552734375, 0.28504928946495056, 0.24125760793685913),
}


def log_parts(v: Vector, f: str) -> tuple[str, str]:
    """(half, tail): log(1 + f) = f - (half - tail) with half = f**2 / 2, for f in [-1/4, 1/2]."""
    s = v.div(f, v.add(f, 2.0))
    square = v.mul(s, s)
    series = v.mul(square, v.poly(square, ATANH[v.element]))
    half = v.mul(v.mul(f, 0.5), f)
    return half, v.mul(s, v.add(half, series))


@function("log", 1, 1.0, 1.0, FDLIBM)
def log(v: Vector, x: str) -> str:
    """Natural logarithm; -inf at 0, NaN below, subnormal arguments included."""
    k = EXPONENTIAL[v.element]
    m, e = v.split(x)
    f = v.sub(m, 1.0)
    half, tail = log_parts(v, f)
    rest = v.sub(half, v.fma(e, k.ln2_low, tail))
    return v.fma(e, k.ln2_high, v.sub(f, rest))


def log1p_sum(v: Vector, high: str, low: Operand, extra: Operand = 0.0) -> str:
    """log(1 + high + low) + extra * ln 2 for high >= -1 and a low within high's last place; infinities and
    NaN pass.
    """
    k = EXPONENTIAL[v.element]
    total = v.add(high, 1.0)
    above = v.gt(high, 1.0)
    lost = v.sub(v.select(above, 1.0, high), v.sub(total, v.select(above, high, 1.0)))
    lost = lost if low == 0.0 else v.add(lost, low)
    m, e = v.split(total)
    near = v.eq(m, total)  # e = 0, and not so for a negative total
    f = v.select(near, high, v.sub(m, 1.0))
    inside = v.lt(v.abs(e), BEYOND)
    rest = v.select(near, low, v.select(inside, v.scale(lost, v.neg(e)), 0.0))
    half, tail = log_parts(v, f)
    # 1 / (1 + f) to six per cent, which is enough for the correction
    tail = v.fma(rest, v.fma(f, -0.8366, 1.0458), tail)
    e = e if extra == 0.0 else v.add(e, extra)
    return v.fma(e, k.ln2_high, v.sub(f, v.sub(half, v.fma(e, k.ln2_low, tail))))


@function("log1p", 1, 1.25, 1.25, FDLIBM + "; the rounding error of 1 + x is carried")
def log1p(v: Vector, x: str) -> str:
    """log(1 + x) without cancellation; keeps the sign of zero."""
    return v.copysign(log1p_sum(v, x, 0.0), x)


def _log_in_base(v: Vector, x: str, base: Base) -> str:
    m, e = v.split(x)
    f = v.sub(m, 1.0)
    half, tail = log_parts(v, f)
    half_rest = v.fma(v.mul(f, 0.5), f, v.neg(half))
    high = v.sub(f, half)
    low = v.add(v.sub(v.sub(v.sub(f, high), half), half_rest), tail)
    product = v.mul(high, base.factor[0])
    product_rest = v.fma(
        low, base.factor[0], v.fma(high, base.factor[1], v.fma(high, base.factor[0], v.neg(product)))
    )
    whole = e if base.two[0] == 1.0 else v.mul(e, base.two[0])
    total = v.add(whole, product)
    rest = v.add(v.add(v.sub(whole, total), product), product_rest)
    rest = v.fma(e, base.two[1], rest) if base.two[1] else rest
    # infinite exponents: x = 0 or infinity; f is NaN where x is NaN or negative
    return v.select(v.lt(v.abs(e), BEYOND), v.add(total, rest), v.add(e, f))


@function("log2", 1, 1.0, 1.0, FDLIBM + " as an unevaluated sum")
def log2(v: Vector, x: str) -> str:
    """Logarithm to base 2; exact for powers of two."""
    return _log_in_base(v, x, LOG2[v.element])


@function("log10", 1, 1.0, 1.0, FDLIBM + " as an unevaluated sum")
def log10(v: Vector, x: str) -> str:
    """Logarithm to base 10."""
    return _log_in_base(v, x, LOG10[v.element])


@function("log_expit", 1, 2.0, 2.0, "min(x, 0) - log1p(exp(-|x|))")
def log_expit(v: Vector, x: str) -> str:
    """Logarithm of the logistic function, -log(1 + e**-x); no overflow."""
    return v.sub(v.min(-0.0, x), log1p_sum(v, exp(v, v.neg(v.abs(x))), 0.0))


@function("logaddexp", 2, 2.0, 2.0, "max + log1p(exp(-|x - y|)); error relative to max(|result|, ln 2)")
def logaddexp(v: Vector, x: str, y: str) -> str:
    """log(e**x + e**y); no overflow, equal infinities included."""
    distance = v.select(v.eq(x, y), 0.0, v.neg(v.abs(v.sub(x, y))))
    return v.add(v.select(v.gt(x, y), x, y), log1p_sum(v, exp(v, distance), 0.0))


@function("asinh", 1, 2.0, 2.0, "log1p(x + x**2 / (1 + sqrt(x**2 + 1))), as fdlibm's s_asinh.c")
def asinh(v: Vector, x: str) -> str:
    """Inverse hyperbolic sine; keeps the sign of zero."""
    size = v.abs(x)
    huge = v.gt(size, HUGE[v.element])
    square = v.mul(size, size)
    root = v.add(v.sqrt(v.fma(size, size, 1.0)), 1.0)
    inner = v.select(huge, size, v.add(size, v.div(square, root)))
    return v.copysign(log1p_sum(v, inner, 0.0, v.select(huge, 1.0, 0.0)), x)


@function("acosh", 1, 2.0, 2.5, "log1p(w + sqrt(w**2 + 2 w)), w = x - 1, as fdlibm's e_acosh.c")
def acosh(v: Vector, x: str) -> str:
    """Inverse hyperbolic cosine; NaN below 1."""
    huge = v.gt(x, HUGE[v.element])
    w = v.sub(x, 1.0)
    inner = v.select(huge, x, v.add(w, v.sqrt(v.fma(w, w, v.add(w, w)))))
    inner = v.select(v.lt(w, 0.0), NAN, inner)
    return log1p_sum(v, inner, 0.0, v.select(huge, 1.0, 0.0))


@function("atanh", 1, 1.25, 1.25, "log1p(2 x / (1 - x)) / 2, the quotient as an unevaluated sum")
def atanh(v: Vector, x: str) -> str:
    """Inverse hyperbolic tangent; keeps the sign of zero, infinite at -1 and 1, NaN beyond."""
    size = v.abs(x)
    top, bottom = v.add(size, size), v.sub(1.0, size)
    lost = v.sub(v.sub(1.0, bottom), size)
    inverse = v.div(1.0, bottom)
    ratio = v.mul(top, inverse)
    rest = v.mul(v.fnma(ratio, lost, v.fnma(ratio, bottom, top)), inverse)
    return v.copysign(v.mul(log1p_sum(v, ratio, rest), 0.5), x)
