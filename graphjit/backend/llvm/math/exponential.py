"""exp and what is built on it: exp2, expm1, sinh, cosh, tanh.

Job: x = n ln 2 + r with |r| <= ln(2)/2 (Cody and Waite, "Software Manual for the Elementary Functions",
1980), a polynomial in r, and a scaling by 2**n that rounds once, so that subnormal results and overflow need
no branch. Input and output: as in `function.py`.
Invariant: the clamp lets NaN pass and keeps n inside the range of `Vector.scale`.
Polynomials: weighted least-maximum fits made for this project in 50-digit arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.writing.vector import Vector

COEFFICIENTS = "Cody-Waite reduction, own polynomial"
LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Constants:
    """Constants of one precision."""

    ln2_high: float  # few bits: n * ln2_high is exact
    ln2_low: float
    least: float  # exp(least) rounds to 0
    most: float  # exp(most) is inf
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2, absolute error against e**r
    expm1: tuple[float, ...]  # the same, relative error against e**r - 1
    exp2: tuple[float, ...]  # (2**r - 1) / r
    flat: float  # tanh(flat) rounds to 1
    sinh: tuple[float, ...]  # (sinh(r) - r) / r**3 in r**2
    cosh: tuple[float, ...]  # (cosh(r) - 1) / r**2 in r**2


CONSTANTS = {
    "double": Constants(
        ln2_high=0.6931471805598903,
        ln2_low=5.497923018708371e-14,
        least=-746.0,
        most=710.0,
        exp=(
            0.5000000000000013,
            0.16666666666666685,
            0.04166666666651125,
            0.008333333333315415,
            0.0013888888948010087,
            0.00019841269900537864,
            2.480148897682563e-05,
            2.755723077146731e-06,
            2.763160956549312e-07,
            2.5113415763239496e-08,
        ),
        expm1=(
            0.5000000000000006,
            0.16666666666666605,
            0.04166666666657362,
            0.008333333333379838,
            0.0013888888932399304,
            0.00019841269739817938,
            2.4801504394229124e-05,
            2.7557389062388375e-06,
            2.7626357595733857e-07,
            2.50596164961176e-08,
        ),
        exp2=(
            0.6931471805599453,
            0.2402265069591011,
            0.05550410866482174,
            0.009618129107600562,
            0.0013333558146538247,
            0.0001540353045029208,
            1.5252733643798605e-05,
            1.3215438230417157e-06,
            1.0178155305644903e-07,
            7.073334568668241e-09,
            4.439654255171881e-10,
        ),
        flat=20.0,
        sinh=(
            0.16666666666666677,
            0.008333333333321426,
            0.00019841269886637503,
            2.75572436954675e-06,
            2.5109216928606997e-08,
        ),
        cosh=(
            0.5000000000000013,
            0.04166666666651125,
            0.0013888888948010078,
            2.4801488976839303e-05,
            2.763160955992576e-07,
        ),
    ),
    "float": Constants(
        ln2_high=0.693145751953125,
        ln2_low=1.42860682030941723212e-06,
        least=-104.0,
        most=89.0,
        exp=(0.5, 0.166665181517601, 0.04166645556688309, 0.008368968032300472, 0.0013935815077275038),
        expm1=(
            0.5,
            0.1666666567325592,
            0.041666485369205475,
            0.00833357498049736,
            0.0013933018781244755,
            0.00019735682872124016,
        ),
        exp2=(
            0.6931471824645996,
            0.24022647738456726,
            0.055503591895103455,
            0.00961849745362997,
            0.0013391162501648068,
            0.00015330291353166103,
        ),
        flat=10.0,
        sinh=(0.1666666716337204, 0.008333177305758, 0.00019971960864495486),
        cosh=(0.5, 0.041666459292173386, 0.0013935437891632318),
    ),
}


def reduce(v: Vector, x: str) -> tuple[str, str, str]:
    """(n, high, r): x - n ln 2 = r, and high = x - n ln2_high exactly; |r| <= ln(2)/2."""
    k = CONSTANTS[v.element]
    n, _ = v.nearest(x, LOG2_E)
    high = v.fnma(n, k.ln2_high, x)
    return n, high, v.fnma(n, k.ln2_low, high)


def clamp(v: Vector, x: str, least: float, most: float) -> str:
    """x between two bounds; NaN stays."""
    return v.min(most, v.max(least, x))


@function("exp", 1, 1.25, 1.25, COEFFICIENTS)
def exp(v: Vector, x: str) -> str:
    """e**x; gradual underflow, inf above the range."""
    k = CONSTANTS[v.element]
    n, _, r = reduce(v, clamp(v, x, k.least, k.most))
    square = v.mul(r, r)
    return v.scale(v.add(v.fma(square, v.poly(r, k.exp, square), r), 1.0), n)


def _bell(v: Vector, x: str, rate: float) -> str:
    """e**(-rate * x * x); the rounding error of the square joins the reduced argument."""
    k = CONSTANTS[v.element]
    x = v.min(math.sqrt(-k.least / rate), v.abs(x))  # beyond, the result rounds to 0
    square = v.mul(x, x)
    error = v.fma(x, x, v.neg(square))
    n, _, r = reduce(v, v.mul(square, -rate))
    r = v.fma(error, -rate, r)
    powers = v.mul(r, r)
    return v.scale(v.add(v.fma(powers, v.poly(r, k.exp, powers), r), 1.0), n)


@function("bell", 1, 1.5, 1.5, "exp; the square as an unevaluated sum")
def bell(v: Vector, x: str) -> str:
    """e**(-x**2), the slope of the error functions; gradual underflow."""
    return _bell(v, x, 1.0)


@function("half_bell", 1, 1.5, 1.5, "exp; the square as an unevaluated sum")
def half_bell(v: Vector, x: str) -> str:
    """e**(-x**2/2), the density of the normal distribution; gradual underflow."""
    return _bell(v, x, 0.5)


@function("exp2", 1, 1.25, 1.25, "own polynomial")
def exp2(v: Vector, x: str) -> str:
    """2**x; exact for integers."""
    k = CONSTANTS[v.element]
    x = clamp(v, x, k.least / LN2, k.most / LN2)
    n, _ = v.nearest(x, 1.0)
    r = v.sub(x, n)
    return v.scale(v.fma(v.poly(r, k.exp2, v.mul(r, r)), r, 1.0), n)


def expm1_tail(v: Vector, n: str, r: str) -> str:
    """e**r - 1 - high for the (n, high, r) of `reduce`."""
    k = CONSTANTS[v.element]
    square = v.mul(r, r)
    return v.fnma(n, k.ln2_low, v.mul(square, v.poly(r, k.expm1, square)))


@function("expm1", 1, 1.5, 1.5, COEFFICIENTS + "; (2**n - 1) + 2**n (e**r - 1) summed from the exact parts")
def expm1(v: Vector, x: str) -> str:
    """e**x - 1 without cancellation; keeps the sign of zero."""
    k = CONSTANTS[v.element]
    n, high, r = reduce(v, clamp(v, x, -2.0 * k.flat, k.most))
    one = v.sub(1.0, v.scale(1.0, v.neg(n)))
    result = v.scale(v.add(v.add(high, one), expm1_tail(v, n, r)), n)
    return v.copysign(result, x)


@function("tanh", 1, 1.75, 1.75, COEFFICIENTS + "; -E / (2 + E), E = expm1(-2|x|) kept as an unevaluated sum")
def tanh(v: Vector, x: str) -> str:
    """Hyperbolic tangent; keeps the sign of zero."""
    k = CONSTANTS[v.element]
    doubled = v.mul(v.min(k.flat, v.abs(x)), -2.0)
    n, high, r = reduce(v, doubled)
    tail = expm1_tail(v, n, r)
    power = v.scale(1.0, n)
    base = v.sub(power, 1.0)
    lead = v.fma(power, high, base)
    left = v.fma(power, tail, v.fma(power, high, v.sub(base, lead)))
    top = v.add(lead, left)  # E = top + rest
    rest = v.add(v.sub(lead, top), left)
    bottom = v.add(top, 2.0)  # 2 + E = bottom + lower
    lower = v.add(v.add(v.sub(2.0, bottom), top), rest)
    inverse = v.div(1.0, bottom)
    ratio = v.mul(top, inverse)
    error = v.add(v.fnma(ratio, bottom, top), v.fnma(ratio, lower, rest))
    return v.copysign(v.fma(error, inverse, ratio), x)


def half_exponentials(v: Vector, x: str) -> tuple[str, str, str, str, str]:
    """(n, quarter, high, sinh_tail, cosh_tail) for |x| = n ln 2 + r: quarter = 4**-n, sinh(r) = high +
    sinh_tail, cosh(r) = 1 + cosh_tail, so that e**|x| and e**-|x| are 2**n (cosh(r) + sinh(r)) and 2**n
    quarter (cosh(r) - sinh(r)).
    """
    k = CONSTANTS[v.element]
    n, high, r = reduce(v, v.min(k.most + 1.0, v.abs(x)))
    power = v.scale(1.0, v.neg(n))
    square = v.mul(r, r)
    sinh_tail = v.fma(v.mul(v.poly(square, k.sinh), square), r, v.mul(n, -k.ln2_low))
    return n, v.mul(power, power), high, sinh_tail, v.mul(v.poly(square, k.cosh), square)


@function("sinh", 1, 1.5, 1.5, COEFFICIENTS + "s for sinh and cosh; no division")
def sinh(v: Vector, x: str) -> str:
    """Hyperbolic sine; keeps the sign of zero."""
    n, quarter, high, sinh_tail, cosh_tail = half_exponentials(v, x)
    plus, minus = v.fma(quarter, 0.5, 0.5), v.fma(quarter, -0.5, 0.5)
    tail = v.fma(plus, sinh_tail, v.mul(minus, cosh_tail))
    return v.copysign(v.scale(v.add(v.fma(plus, high, minus), tail), n), x)


@function("cosh", 1, 1.5, 1.5, COEFFICIENTS + "s for sinh and cosh; no division")
def cosh(v: Vector, x: str) -> str:
    """Hyperbolic cosine."""
    n, quarter, high, sinh_tail, cosh_tail = half_exponentials(v, x)
    tail = v.fma(quarter, v.sub(cosh_tail, sinh_tail), v.add(cosh_tail, sinh_tail))
    tail = v.add(tail, v.fnma(quarter, high, quarter))
    return v.scale(v.add(v.add(high, tail), 1.0), v.sub(n, 1.0))
