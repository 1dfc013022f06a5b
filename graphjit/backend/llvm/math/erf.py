"""The error functions: erf, erfc, erfcx.

Job: erfc(x) = e**(-x**2) t G(t) with t = 2 / (2 + x); erf and G are smooth, so each is one polynomial on each
of sixteen intervals, whose coefficients are picked by a permutation. Input and output: as in `function.py`.
Invariant: relative accuracy everywhere; -x**2 is carried as an unevaluated sum, so erfc keeps it down to its
underflow.
Method: substitution t as in Schonfelder, "Chebyshev expansions for the error and related functions", Math.
Comp. 32 (1978); polynomials made for this project (`tables`).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphjit.backend.llvm.math import tables
from graphjit.backend.llvm.math.exponential import CONSTANTS as EXPONENTIAL
from graphjit.backend.llvm.math.exponential import LOG2_E
from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.math.tables import horner, piecewise
from graphjit.backend.llvm.writing.vector import INF, Table, Vector

SOURCE = "own piecewise polynomials, sixteen intervals"


@dataclass(frozen=True)
class Constants:
    """Constants of one precision; intervals are centred at multiples of their width."""

    erf: Table
    erf_width: float
    one: float  # erf is 1 from here on
    erfc: Table
    erfc_width: float
    zero: float  # erfc is 0 from here on
    least: float  # erfcx overflows below


CONSTANTS = {
    "double": Constants(tables.ERF_F64, 49 / 128, 5.922, tables.ERFC_F64, 67 / 1024, 27.3, -26.7),
    "float": Constants(tables.ERF_F32, 33 / 128, 3.92, tables.ERFC_F32, 67 / 1024, 10.1, -9.5),
}


@function("erf", 1, 2.0, 2.0, SOURCE)
def erf(v: Vector, x: str) -> str:
    """The error function; keeps the sign of zero."""
    k = CONSTANTS[v.element]
    size = v.abs(x)
    coefficients, d = piecewise(v, k.erf, k.erf_width, size)
    return v.copysign(v.select(v.gt(size, k.one), 1.0, horner(v, coefficients, d)), x)


def scaled_erfc(v: Vector, size: str) -> tuple[str, str]:
    """erfcx(size) as an unevaluated sum, for size >= 0."""
    k = CONSTANTS[v.element]
    lower = v.add(size, 2.0)
    lost = v.sub(size, v.sub(lower, 2.0))
    t = v.div(2.0, lower)
    t_rest = v.mul(v.fnma(t, lost, v.fnma(t, lower, 2.0)), v.mul(t, 0.5))
    coefficients, d = piecewise(v, k.erfc, k.erfc_width, t)
    constant, constant_rest, first, *others = coefficients
    slope = v.mul(v.fma(horner(v, others, d), d, first), d)
    shape = v.add(constant, slope)
    shape_rest = v.add(v.add(v.sub(constant, shape), slope), v.fma(first, t_rest, constant_rest))
    high = v.mul(shape, t)
    return high, v.fma(shape_rest, t, v.fma(shape, t_rest, v.fma(shape, t, v.neg(high))))


def exp_of_square(v: Vector, size: str, sign: float) -> tuple[str, str, str]:
    """(n, high, low): e**(sign * size**2) = 2**n (high + low)."""
    k = EXPONENTIAL[v.element]
    signed = v.mul(size, sign)
    square = v.mul(signed, size)
    left = v.fma(signed, size, v.neg(square))
    n, _ = v.nearest(square, LOG2_E)
    r = v.add(v.fnma(n, k.ln2_low, left), v.fnma(n, k.ln2_high, square))
    power = v.mul(r, r)
    tail = v.fma(power, v.poly(r, k.exp, power), r)
    high = v.add(tail, 1.0)
    return n, high, v.add(v.sub(1.0, high), tail)


@function("erfc", 1, 1.5, 1.5, SOURCE + ", exp")
def erfc(v: Vector, x: str) -> str:
    """The complementary error function 1 - erf(x), accurate down to its underflow."""
    k = CONSTANTS[v.element]
    size = v.min(k.zero, v.abs(x))
    g, g_rest = scaled_erfc(v, size)
    n, e, e_rest = exp_of_square(v, size, -1.0)
    high = v.mul(g, e)
    low = v.fma(g, e_rest, v.fma(g_rest, e, v.fma(g, e, v.neg(high))))
    value = v.scale(v.add(high, low), n)
    return v.select(v.lt(x, 0.0), v.sub(2.0, value), value)


@function("erfcx", 1, 1.5, 1.75, SOURCE + ", exp", out_of_line=True)
def erfcx(v: Vector, x: str) -> str:
    """The scaled complementary error function e**(x**2) erfc(x); inf where it overflows."""
    k = CONSTANTS[v.element]
    size = v.abs(x)
    g, g_rest = scaled_erfc(v, size)
    positive = v.select(v.eq(size, INF), 0.0, v.add(g, g_rest))
    bounded = v.min(-k.least, size)
    n, e, e_rest = exp_of_square(v, bounded, 1.0)
    grown, grown_rest = (v.scale(part, v.add(n, 1.0)) for part in (e, e_rest))
    high = v.sub(grown, g)
    low = v.add(v.sub(v.sub(grown, high), g), v.sub(grown_rest, g_rest))
    negative = v.select(v.lt(x, k.least), INF, v.add(high, low))
    return v.select(v.lt(x, 0.0), negative, positive)
