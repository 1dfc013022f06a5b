"""Logarithms.

Job: x = m 2**e with m in [3/4, 3/2), s = (m - 1) / (m + 1), log(m) = 2 atanh(s) by a polynomial in s**2.
Input and output: as in `function`.
Invariant: zero, infinity, NaN and negative numbers come out of `Vector.split` such that no branch is needed.
Method: fdlibm's e_log.c (Sun Microsystems, 1993); polynomials made for this project.
"""

from __future__ import annotations

from graphjit.backend.llvm.math.exponential import CONSTANTS as EXPONENTIAL
from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.vector import Vector

FDLIBM = "fdlibm's e_log.c, own polynomial"

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
