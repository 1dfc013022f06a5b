"""Exact functions.

Job: square root, rounding to integers, remainder.
Input and output: as in `function`.  Invariant: results are exactly rounded (sqrt) or exact.
"""

from __future__ import annotations

from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.math.library import lane_by_lane, routine
from graphjit.backend.llvm.vector import INF, NAN, Vector

# Quotients below 2**STEP have an exact integer part in floating point; longer divisions go STEP bits at a time.
STEP = {"double": 50, "float": 20}
IEEE = "IEEE 754 operation"


@function("sqrt", 1, 0.5, 0.5, IEEE)
def sqrt(v: Vector, x: str) -> str:
    """Square root, exactly rounded; NaN below zero, -0 at -0."""
    return v.sqrt(x)


@function("floor", 1, 0.0, 0.0, IEEE)
def floor(v: Vector, x: str) -> str:
    """The largest integer not above x."""
    return v.floor(x)


@function("ceil", 1, 0.0, 0.0, IEEE)
def ceil(v: Vector, x: str) -> str:
    """The smallest integer not below x."""
    return v.call("ceil", x)


@function("trunc", 1, 0.0, 0.0, IEEE)
def trunc(v: Vector, x: str) -> str:
    """The integer part."""
    return v.trunc(x)


@function("rint", 1, 0.0, 0.0, IEEE)
def rint(v: Vector, x: str) -> str:
    """The nearest integer, ties to even."""
    return v.rint(x)


def _remainder(v: Vector, x: str, y: str, ratio: str) -> str:
    """x - trunc(x / y) y for x >= 0 and y > 0 with ratio = x / y < 2**STEP: exact, since the remainder is representable."""
    rest = v.fnma(v.trunc(ratio), y, x)
    # the quotient may have been rounded up to an integer
    return v.select(v.lt(rest, 0.0), v.add(rest, y), rest)


def _long_remainder(v: Vector, x: str, y: str) -> str:
    """One lane, any x and y."""
    fn, step = v.fn, float(STEP[v.element])
    valid = v.mask.and_(v.lt(v.abs(x), INF), v.gt(v.abs(y), 0.0))  # y = NaN makes it false
    usable = v.mask.and_(valid, v.lt(v.abs(y), INF))
    top, bottom = v.select(usable, v.abs(x), 0.0), v.select(usable, v.abs(y), 1.0)
    (_, top_exponent), (_, exponent) = v.split(top), v.split(bottom)
    chunks = v.trunc(v.mul(v.sub(top_exponent, exponent), 1.0 / step))
    first = v.max(0.0, v.mul(chunks, step))  # a zero has the exponent -inf
    before, head, after = fn.current, fn.label("chunk"), fn.label("done")
    fn.do(f"br label %{head}")
    fn.start(head)
    rest, shift = fn.phi(v.of), fn.phi(v.of)
    divisor = v.scale(bottom, shift.name)
    smaller = _remainder(v, rest.name, divisor, v.div(rest.name, divisor))
    following = v.sub(shift.name, step)
    rest.add(top, before)
    shift.add(first, before)
    rest.add(smaller, fn.current)
    shift.add(following, fn.current)
    fn.do(f"br i1 {v.lt(following, 0.0)}, label %{after}, label %{head}")
    fn.start(after)
    return v.select(usable, v.copysign(smaller, x), v.select(valid, x, NAN))


@routine("fmod_complete", 2)
def fmod_complete(v: Vector, x: str, y: str) -> str:
    """fmod of any arguments."""
    return lane_by_lane(v, _long_remainder, x, y)


@function("fmod", 2, 0.0, 0.0, "exact: one FMA, or a division of STEP bits at a time")
def fmod(v: Vector, x: str, y: str) -> str:
    """C's fmod: the remainder with the sign of x; NaN for y = 0 or infinite x."""
    top, bottom = v.abs(x), v.abs(y)
    ratio = v.div(top, bottom)
    usual = v.copysign(_remainder(v, top, bottom, ratio), x)
    far = v.compare("uge", ratio, 2.0 ** STEP[v.element])
    return v.unlikely(v.mask.or_(far, v.eq(bottom, INF)), usual, lambda: fmod_complete(v, x, y))
