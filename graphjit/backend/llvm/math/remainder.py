"""The remainder of C's fmod, exact.

Job: x - trunc(x / y) y, with x's sign, without rounding.
Input and output: as in `function.py`.
Invariant: while the rounded quotient is below 2**53 (2**24 in float32), its integer part is the true one or
one above it, and x - q y is a multiple of y's last place below |y| in size, so one FMA gives it exactly;
larger quotients take the library's path.
"""

from __future__ import annotations

from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.math.library import lane_by_lane, routine
from graphjit.backend.llvm.writing.vector import INF, MANTISSA_BITS, NAN, Vector

STEP = 11  # a remainder below 2**53 times 2**11 is below 2**64


def _magnitude(v: Vector, a: str, b: str) -> tuple[str, str]:
    """(remainder, quotient) of a, b >= 0; the remainder is right for quotients below 2**53 (2**24 in
    float32).
    """
    quotient = v.div(a, b)
    r = v.fnma(v.trunc(quotient), b, a)
    r = v.select(v.lt(r, 0.0), v.add(r, b), r)
    return v.select(v.lt(a, b), a, r), quotient


@routine("fmod_anywhere", 2)
def fmod_anywhere(v: Vector, a: str, b: str) -> str:
    """The remainder of any a, b >= 0; float32 in float64, float64 lane by lane where the quotient is huge."""
    if v.element == "float":
        wide = v.like("double")
        a, b = (v.convert("fpext", z, wide) for z in (a, b))
        return wide.convert("fptrunc", _any_quotient(wide, a, b), v)
    return _any_quotient(v, a, b)


def _any_quotient(v: Vector, a: str, b: str) -> str:
    usual, quotient = _magnitude(v, a, b)
    return v.unlikely(v.ge(quotient, 2.0**53), usual, lambda: lane_by_lane(v, _long_division, a, b))


def _long_division(v: Vector, a: str, b: str) -> str:
    """One pair of float64 numbers by division of integers, eleven bits of the quotient at a time."""
    fn, bits = v.fn, v.bits
    valid = v.mask.and_(v.lt(a, INF), v.gt(b, 0.0))
    # a pair that ends at once stands in for operands without a remainder
    integer_a, exponent_a = _integer(v, v.select(valid, a, 1.0))
    integer_b, exponent_b = _integer(v, v.select(valid, b, 1.0))
    start = fn.op(f"urem i64 {integer_a}, {integer_b}")
    distance = bits.call("smax", bits.sub(exponent_a, exponent_b), 0)
    before, head, body, after = fn.current, fn.label("more"), fn.label("divide"), fn.label("divided")
    fn.do(f"br label %{head}")
    fn.start(head)
    remainder, left = fn.phi("i64"), fn.phi("i64")
    remainder.add(start, before)
    left.add(distance, before)
    fn.do(f"br i1 {bits.gt(left.name, 0)}, label %{body}, label %{after}")
    fn.start(body)
    count = bits.call("smin", left.name, STEP)
    remainder.add(fn.op(f"urem i64 {bits.shl(remainder.name, count)}, {integer_b}"), body)
    left.add(bits.sub(left.name, count), body)
    fn.do(f"br label %{head}")
    fn.start(after)
    # remainder * 2**(exponent_b - 1075): the power itself may be subnormal
    normal = bits.gt(exponent_b, MANTISSA_BITS["double"])
    power = bits.select(
        normal,
        bits.shl(bits.sub(exponent_b, MANTISSA_BITS["double"]), 52),
        bits.shl(1, bits.and_(bits.sub(exponent_b, 1), 63)),
    )
    result = v.mul(bits.convert("uitofp", remainder.name, v), v.from_bits(power))
    return v.select(valid, result, NAN)


def _integer(v: Vector, x: str) -> tuple[str, str]:
    """(i, e): x = i * 2**(e - 1075) for finite x >= 0, with i < 2**53 and e >= 1."""
    bits = v.bits
    pattern = v.to_bits(x)
    field = bits.lshr(pattern, MANTISSA_BITS["double"])
    fraction = bits.and_(pattern, (1 << 52) - 1)
    subnormal = bits.eq(field, 0)
    return bits.select(subnormal, fraction, bits.or_(fraction, 1 << 52)), bits.call("smax", field, 1)


@function("fmod", 2, 0.0, 0.0, "truncated quotient and FMA, long division of integers for huge quotients")
def fmod(v: Vector, x: str, y: str) -> str:
    """C's fmod, exact; the result has x's sign; NaN for y = 0 or infinite x; x for infinite y."""
    a, b = v.abs(x), v.abs(y)
    usual, quotient = _magnitude(v, a, b)
    huge = v.ge(quotient, 2.0 ** (MANTISSA_BITS[v.element] + 1))
    return v.copysign(v.unlikely(huge, usual, lambda: fmod_anywhere(v, a, b)), x)
