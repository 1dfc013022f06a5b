"""The logarithm of the gamma function and its derivatives: lgamma, digamma, trigamma.

Job: sixteen polynomials on [1, 8.75), one recurrence below 1, Stirling's series above, reflection for
negative arguments. Input and output: as in `function.py`.
Invariant: relative accuracy for positive arguments, the zeros at 1, 2 and 1.4616 included; for negative ones
the error is relative to the largest term of the reflection formula. Poles: lgamma and trigamma give inf,
digamma gives NaN at negative integers and an infinity of the other sign at a signed zero, as SciPy does.
Formulas: Abramowitz & Stegun 6.1.17, 6.1.40, 6.3.5, 6.3.7, 6.3.18, 6.4.6, 6.4.7, 6.4.12; polynomials made for
this project.
"""

from __future__ import annotations

import math

from graphjit.backend.llvm.math import gamma_tables
from graphjit.backend.llvm.math.function import function, through_float64
from graphjit.backend.llvm.math.logarithm import log
from graphjit.backend.llvm.math.power import long_log
from graphjit.backend.llvm.math.tables import horner, piecewise
from graphjit.backend.llvm.math.trigonometric import cos_tail, is_odd, sin_tail
from graphjit.backend.llvm.writing.vector import INF, NAN, SMALLEST_NORMAL, Vector

SOURCE = "own piecewise polynomials, Stirling's series, reflection (Abramowitz & Stegun, chapter 6)"
STIRLING = 8.5  # the series is used from here on
WIDTH = 0.5

# The series' tails in 1 / x**2: lgamma's times x, digamma's times x**2, trigamma's times x**3
LGAMMA_TAIL = (
    0.08333333333333331,
    -0.0027777777776825216,
    0.0007936507130679288,
    -0.0005952130053390523,
    0.0008381894510790462,
    -0.0016798960410519292,
)
DIGAMMA_TAIL = (
    0.0833333333333331,
    -0.0083333333321447,
    0.0039682529557816286,
    -0.004166349922622108,
    0.007530581548014201,
    -0.018057045088830385,
)
TRIGAMMA_TAIL = (
    0.1666666666666666,
    -0.033333333332904405,
    0.0238095233171503,
    -0.03333311836321373,
    0.07571240590566987,
    -0.24816264929970877,
    0.8874245174985229,
)
DIGAMMA_ZERO = (0.46163214496836236, -1.5522348162858677e-17)  # the positive zero minus 1


def _log_of_any(v: Vector, size: str) -> tuple[str, str]:
    """log of a positive finite number, subnormal or not, as a sum."""
    subnormal = v.lt(size, SMALLEST_NORMAL["double"])
    pattern = v.to_bits(v.select(subnormal, v.mul(size, 2.0**54), size))
    return long_log(v, pattern, v.select(subnormal, -54.0, 0.0))


def _half_turns(v: Vector, size: str) -> tuple[str, str]:
    """(|sin(pi size)|, |cos(pi size)|)."""
    twice = v.rint(v.add(size, size))
    r = v.mul(v.fnma(twice, 0.5, size), math.pi)
    square = v.mul(r, r)
    sine = v.abs(v.add(r, sin_tail(v, r, "", square)))
    cosine = v.add(cos_tail(v, square), 1.0)
    wide = v.add(v.abs(twice), 1.5 * 2.0**52)
    odd = is_odd(v, v.to_bits(wide))
    return v.select(odd, cosine, sine), v.select(odd, sine, cosine)


def _is_integer(v: Vector, x: str) -> str:
    return v.eq(v.trunc(x), x)


@function("lgamma", 1, 3.0, 0.75, SOURCE, out_of_line=True)
@through_float64
def lgamma(v: Vector, x: str) -> str:
    """log|Gamma(x)|; inf at the poles, -inf at -inf (scipy.special.gammaln)."""
    size = v.abs(x)
    log_high, log_low = _log_of_any(v, size)
    below = v.lt(size, 1.0)
    w = v.select(below, size, v.sub(size, 1.0))
    coefficients, d = piecewise(v, gamma_tables.LGAMMA_F64, WIDTH, w)
    factor = v.mul(w, v.sub(w, 1.0))
    shifted = v.add(v.mul(horner(v, coefficients, d), factor), 0.0)  # no -0 at 1
    middle = v.select(below, v.sub(v.sub(shifted, log_low), log_high), shifted)

    base, power = v.sub(size, 0.5), v.sub(log_high, 1.0)
    product = v.mul(base, power)
    rest = v.fma(base, log_low, v.fma(base, power, v.neg(product)))
    inverse = v.div(1.0, size)
    series = v.mul(v.poly(v.mul(inverse, inverse), LGAMMA_TAIL), inverse)
    constant = 0.5 * math.log(2.0 * math.pi) - 0.5
    large = v.add(product, v.add(v.add(rest, series), constant))
    large = v.select(v.lt(product, INF), large, product)
    value = v.select(v.ge(size, STIRLING), large, middle)
    value = v.select(v.eq(size, 0.0), INF, v.select(v.eq(size, INF), x, value))

    def reflected() -> str:
        sine, _ = _half_turns(v, size)
        mirrored = v.sub(v.sub(math.log(math.pi), log(v, v.mul(size, sine))), value)
        mirrored = v.select(v.lt(size, 2.0**-60), value, mirrored)  # size * sine would underflow
        mirrored = v.select(_is_integer(v, size), INF, mirrored)
        return v.select(v.eq(size, INF), x, mirrored)

    return v.unlikely(v.lt(x, 0.0), value, reflected)


@function("digamma", 1, 3.0, 0.75, SOURCE, out_of_line=True)
@through_float64
def digamma(v: Vector, x: str) -> str:
    """The logarithmic derivative of Gamma (scipy.special.digamma)."""
    size = v.abs(x)
    below = v.lt(size, 1.0)
    w = v.select(below, size, v.sub(size, 1.0))
    coefficients, d = piecewise(v, gamma_tables.DIGAMMA_F64, WIDTH, w)
    distance = v.sub(v.sub(w, DIGAMMA_ZERO[0]), DIGAMMA_ZERO[1])
    shifted = v.mul(horner(v, coefficients, d), distance)
    inverse = v.div(1.0, size)
    middle = v.select(below, v.sub(shifted, inverse), shifted)
    square = v.mul(inverse, inverse)
    tail = v.fma(inverse, 0.5, v.mul(v.poly(square, DIGAMMA_TAIL), square))
    value = v.select(v.ge(size, STIRLING), v.sub(log(v, size), tail), middle)
    value = v.select(v.eq(size, 0.0), v.copysign(INF, v.neg(x)), value)

    def reflected() -> str:
        sine, cosine = _half_turns(v, size)
        # the sign of cot(pi size): positive in the first half of each unit interval
        fraction = v.sub(size, v.floor(size))
        cotangent = v.div(v.mul(cosine, math.pi), sine)
        cotangent = v.select(v.gt(fraction, 0.5), v.neg(cotangent), cotangent)
        following = v.select(below, shifted, v.add(value, inverse))  # digamma(size + 1)
        mirrored = v.add(following, cotangent)
        return v.select(_is_integer(v, size), NAN, mirrored)

    return v.unlikely(v.lt(x, 0.0), value, reflected)


@function("trigamma", 1, 3.0, 0.75, SOURCE, out_of_line=True)
@through_float64
def trigamma(v: Vector, x: str) -> str:
    """The derivative of digamma (scipy.special.polygamma(1, x)); inf at the poles."""
    size = v.abs(x)
    below = v.lt(size, 1.0)
    w = v.select(below, size, v.sub(size, 1.0))
    coefficients, d = piecewise(v, gamma_tables.TRIGAMMA_F64, WIDTH, w)
    shifted = horner(v, coefficients, d)
    inverse = v.div(1.0, size)
    square = v.mul(inverse, inverse)
    middle = v.select(below, v.add(shifted, square), shifted)
    series = v.mul(v.mul(v.poly(square, TRIGAMMA_TAIL), square), inverse)
    value = v.select(v.ge(size, STIRLING), v.add(inverse, v.fma(square, 0.5, series)), middle)

    def reflected() -> str:
        sine, _ = _half_turns(v, size)
        ratio = v.div(math.pi, sine)
        following = v.select(below, shifted, v.sub(value, square))  # trigamma(size + 1)
        mirrored = v.sub(v.mul(ratio, ratio), following)
        return v.select(_is_integer(v, size), INF, mirrored)

    return v.unlikely(v.lt(x, 0.0), value, reflected)
