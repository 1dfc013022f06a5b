"""Inverse trigonometric functions: asin, acos, atan, atan2.

Job: reduce to |argument| <= 1/2 (asin, acos) or <= 1 (atan), one polynomial in the square, and a multiple of
pi/2 added in two parts. Input and output: as in `function.py`.
Invariant: no branch; signs of zero and the infinite arguments of atan2 as in C99.
Method: fdlibm's e_asin.c (Sun Microsystems, 1993) for the square-root substitution; polynomials made for this
project.
"""

from __future__ import annotations

from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.math.trigonometric import CONSTANTS as TRIGONOMETRIC
from graphjit.backend.llvm.writing.vector import Operand, Vector

# (asin(s) - s) / s**3 in s**2, s <= 1/2
ASIN = {
    "double": (
        0.16666666666665403,
        0.07500000000338441,
        0.044642856827126785,
        0.030381959187911794,
        0.022371756791469098,
        0.017359724331773106,
        0.013885036423022997,
        0.012170555804988662,
        0.006522003599787007,
        0.019545031666126502,
        -0.01625121324269812,
        0.031931185139339686,
    ),
    "float": (
        0.16666752099990845,
        0.074953094124794,
        0.045469239354133606,
        0.02418380416929722,
        0.04216088354587555,
    ),
}
# (atan(t) - t) / t**3 in t**2, t <= 1
ATAN = {
    "double": (
        -0.33333333333333065,
        0.1999999999995103,
        -0.14285714282552067,
        0.11111111006379361,
        -0.09090906991908689,
        0.0769227971285586,
        -0.06666403041908958,
        0.05880521847091952,
        -0.052534922221578746,
        0.04722233373295448,
        -0.042189470224313734,
        0.036637196993644615,
        -0.02989639140838582,
        0.021975675065224232,
        -0.013891901214562989,
        0.007190356546832353,
        -0.0028817436924838545,
        0.0008301961659506524,
        -0.00015191593756932786,
        1.320042598222665e-05,
    ),
    "float": (
        -0.33333298563957214,
        0.1999853104352951,
        -0.14264054596424103,
        0.10951198637485504,
        -0.08400548994541168,
        0.05790765583515167,
        -0.031127844005823135,
        0.010887639597058296,
        -0.0017875677440315485,
    ),
}
TINIEST = {"double": 2.0**-1074, "float": 2.0**-149}


def _quarter_turns(v: Vector, q: str, shape: str, base: Operand, base_rest: Operand) -> str:
    """base + base_rest + q (1 + shape), smallest parts first."""
    return v.add(base, v.add(q, v.fma(q, shape, base_rest)))


def _asin_parts(v: Vector, x: str) -> tuple[str, str, str]:
    """(small, s, shape): asin(s) = s (1 + shape); s = |x| where ``small`` holds, sqrt((1 - |x|) / 2)
    elsewhere.
    """
    size = v.abs(x)
    small = v.lt(size, 0.5)
    square = v.select(small, v.mul(size, size), v.fma(size, -0.5, 0.5))
    s = v.select(small, size, v.sqrt(square))
    return small, s, v.mul(v.poly(square, ASIN[v.element], v.mul(square, square)), square)


@function("asin", 1, 1.5, 1.5, "fdlibm's e_asin.c, own polynomial")
def asin(v: Vector, x: str) -> str:
    """Inverse sine; NaN outside [-1, 1], keeps the sign of zero."""
    high, low, _ = TRIGONOMETRIC[v.element].parts
    small, s, shape = _asin_parts(v, x)
    q = v.select(small, s, v.mul(s, -2.0))
    base = v.select(small, 0.0, high)
    lead = v.add(base, q)
    rest = v.add(v.sub(base, lead), q)
    return v.copysign(v.add(lead, v.add(rest, v.fma(q, shape, v.select(small, 0.0, low)))), x)


@function("acos", 1, 1.5, 1.5, "fdlibm's e_acos.c, own polynomial")
def acos(v: Vector, x: str) -> str:
    """Inverse cosine; NaN outside [-1, 1]."""
    high, low, _ = TRIGONOMETRIC[v.element].parts
    small, s, shape = _asin_parts(v, x)
    negative = v.lt(x, 0.0)
    q = v.select(small, v.neg(x), v.copysign(v.mul(s, 2.0), x))
    base = v.select(small, high, v.select(negative, 2.0 * high, 0.0))
    base_rest = v.select(small, low, v.select(negative, 2.0 * low, 0.0))
    return _quarter_turns(v, q, shape, base, base_rest)


def _atan_shape(v: Vector, t: str) -> str:
    """atan(t) / t - 1.

    Two chains that run side by side: the lower and the upper half. Even and odd powers would cancel near t =
    1.
    """
    square = v.mul(t, t)
    coefficients = ATAN[v.element]
    half = 8 if v.element == "double" else 4
    power = square
    for _ in range(half.bit_length() - 1):
        power = v.mul(power, power)
    lower, upper = v.poly(square, coefficients[:half]), v.poly(square, coefficients[half:])
    return v.mul(v.fma(upper, power, lower), square)


@function("atan", 1, 1.5, 1.5, "own polynomial on [0, 1], pi/2 - atan(1/x) beyond")
def atan(v: Vector, x: str) -> str:
    """Inverse tangent; keeps the sign of zero."""
    high, low, _ = TRIGONOMETRIC[v.element].parts
    size = v.abs(x)
    steep = v.gt(size, 1.0)
    t = v.div(v.select(steep, -1.0, size), v.select(steep, size, 1.0))
    value = _quarter_turns(v, t, _atan_shape(v, t), v.select(steep, high, 0.0), v.select(steep, low, 0.0))
    return v.copysign(value, x)


@function(
    "atan2", 2, 1.5, 1.5, "own polynomial on [0, 1] of the quotient of the smaller by the larger argument"
)
def atan2(v: Vector, y: str, x: str) -> str:
    """Angle of the point (x, y) in (-pi, pi]; C99's table for zeros and infinities."""
    high, low, _ = TRIGONOMETRIC[v.element].parts
    rise, run = v.abs(y), v.abs(x)
    steep = v.gt(rise, run)
    top = v.select(steep, run, rise)
    bottom = v.max(TINIEST[v.element], v.select(steep, rise, run))  # 0 / 0 becomes 0
    t = v.select(v.eq(top, bottom), 1.0, v.div(top, bottom))  # inf / inf becomes 1
    left = v.bits.lt(v.to_bits(x), 0)
    q = v.select(v.mask.xor(steep, left), v.neg(t), t)
    base = v.select(steep, high, v.select(left, 2.0 * high, 0.0))
    base_rest = v.select(steep, low, v.select(left, 2.0 * low, 0.0))
    return v.copysign(_quarter_turns(v, q, _atan_shape(v, t), base, base_rest), y)
