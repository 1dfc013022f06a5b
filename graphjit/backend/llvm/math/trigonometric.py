"""Trigonometric functions: sin, cos, tan.

Job: |x| = n pi/2 + r; polynomials for sin(r) and cos(r) on |r| <= pi/4; n chooses between them and gives the
sign. Input and output: as in `function.py`.
Invariant: below `Constants.limit` the reduction by three parts of pi/2 has a relative error below 2**-55
(2**-25 in float32); arguments beyond it, infinities included, take the library's path (Payne and Hanek's
reduction).
Method: Cody and Waite with fused multiply-add: |x| - n * high is exact.  Polynomials made for this project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.math.library import Routine, lane_by_lane, routine
from graphjit.backend.llvm.writing.vector import INF, MANTISSA_BITS, NAN, WIDTH, Vector

SOURCE = "Cody-Waite reduction with FMA, Payne-Hanek for huge arguments, own polynomials"
TWO_OVER_PI = 0.6366197723675814


@dataclass(frozen=True)
class Constants:
    """Constants of one precision."""

    parts: tuple[float, float, float]  # pi/2 = their sum
    limit: float
    sin: tuple[float, ...]  # (sin(r)/r - 1) / r**2 in r**2
    cos: tuple[float, ...]  # (cos(r) - 1 + r**2/2) / r**4 in r**2


CONSTANTS = {
    "double": Constants(
        parts=(1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        limit=2.0**30,
        sin=(
            -0.1666666666666663,
            0.008333333333321888,
            -0.0001984126982941902,
            2.755731356512123e-06,
            -2.5050739229249447e-08,
            1.589574544997798e-10,
        ),
        cos=(
            0.041666666666666595,
            -0.0013888888888873316,
            2.4801587288973212e-05,
            -2.755731420574682e-07,
            2.0875703525265894e-09,
            -1.1358637455425898e-11,
        ),
    ),
    "float": Constants(
        parts=(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
        limit=2.0**16,
        sin=(-0.16666653752326965, 0.00833210814744234, -0.00019508233526721597),
        cos=(0.04166664555668831, -0.0013887297827750444, 2.443008816044312e-05),
    ),
}

# Bits of 2/pi, 64 a word, after one word of zeros; enough for the largest float64.
TWO_OVER_PI_WORDS = (
    0,
    11743562013128004905,
    18169587780923219392,
    15808362127397457985,
    18325537948574664033,
    13196794004601950944,
    452944820249399836,
    18311050168422213438,
    16754012890938950788,
    16833452818741296705,
    4148332274289687028,
    11278244420634880059,
    2303758334597371919,
    17235013589178936607,
    7869616827067468215,
    5712322887342352941,
    8441921394348257659,
    4397547296490951402,
    7780917995555872008,
    6197850593633725355,
)


def reduce(v: Vector, size: str) -> tuple[str, str, str]:
    """(r, "", n) of 0 <= size < limit: size - n pi/2 = r within one unit in r's last place, n as the last
    bits of integers.
    """
    high, middle, low = CONSTANTS[v.element].parts
    n, shifted = v.nearest(size, TWO_OVER_PI)
    r = v.fnma(n, low, v.fnma(n, middle, v.fnma(n, high, size)))
    return r, "", v.to_bits(shifted)


def reduce_exactly(v: Vector, size: str) -> tuple[str, str, str]:
    """(r, rest, n) of 0 <= size < limit: size - n pi/2 = r + rest."""
    high, middle, low = CONSTANTS[v.element].parts
    n, shifted = v.nearest(size, TWO_OVER_PI)
    first = v.fnma(n, high, size)
    product = v.mul(n, middle)
    r = v.sub(first, product)
    rest = v.sub(v.sub(v.sub(first, r), product), v.fma(n, middle, v.neg(product)))
    return r, v.fnma(n, low, rest), v.to_bits(shifted)


def sin_tail(v: Vector, r: str, rest: str, square: str) -> str:
    """sin(r + rest) - r; ``rest`` may be empty."""
    shape = v.mul(v.poly(square, CONSTANTS[v.element].sin), square)
    return v.fma(shape, r, rest) if rest else v.mul(shape, r)


def cos_tail(v: Vector, square: str) -> str:
    """cos(r) - 1."""
    return v.mul(v.fma(v.poly(square, CONSTANTS[v.element].cos), square, -0.5), square)


def is_odd(v: Vector, n: str) -> str:
    """Mask of odd integers."""
    return v.bits.ne(v.bits.and_(n, 1), 0)


def flip(v: Vector, x: str, *signs: str) -> str:
    """x with its sign changed once for every one of the integers ``signs`` whose top bit is set."""
    total = signs[0]
    for sign in signs[1:]:
        total = v.bits.xor(total, sign)
    top = v.bits.and_(total, -(1 << (WIDTH[v.element] - 1)))
    return v.from_bits(v.bits.xor(v.to_bits(x), top))


def to_top(v: Vector, n: str, bit: int) -> str:
    """Integers whose top bit is bit ``bit`` of n."""
    return v.bits.shl(n, WIDTH[v.element] - 1 - bit)


def sin_of(v: Vector, x: str, r: str, rest: str, n: str) -> str:
    """sin(x) from the reduced |x|."""
    square = v.mul(r, r)
    sine = v.add(r, sin_tail(v, r, rest, square))
    value = v.select(is_odd(v, n), v.add(cos_tail(v, square), 1.0), sine)
    return flip(v, value, to_top(v, n, 1), v.to_bits(x))


def cos_of(v: Vector, x: str, r: str, rest: str, n: str) -> str:
    """cos(x) from the reduced |x|."""
    square = v.mul(r, r)
    sine = v.add(r, sin_tail(v, r, rest, square))
    value = v.select(is_odd(v, n), sine, v.add(cos_tail(v, square), 1.0))
    return flip(v, value, to_top(v, v.bits.add(n, 1), 1))


def tan_of(v: Vector, x: str, r: str, rest: str, n: str) -> str:
    """tan(x) from the reduced |x|: sin/cos or -cos/sin, both as unevaluated sums, with one correction of the
    quotient.
    """
    square = v.mul(r, r)
    sine_tail = sin_tail(v, r, rest, square)
    sine = v.add(r, sine_tail)
    sine_rest = v.add(v.sub(r, sine), sine_tail)
    cosine_tail = v.fnma(r, rest, cos_tail(v, square))
    cosine = v.add(cosine_tail, 1.0)
    cosine_rest = v.add(v.sub(1.0, cosine), cosine_tail)
    odd = is_odd(v, n)
    top, top_rest = v.select(odd, cosine, sine), v.select(odd, cosine_rest, sine_rest)
    bottom, bottom_rest = v.select(odd, sine, cosine), v.select(odd, sine_rest, cosine_rest)
    inverse = v.div(1.0, bottom)
    ratio = v.mul(top, inverse)
    error = v.add(v.fnma(ratio, bottom, top), v.fnma(ratio, bottom_rest, top_rest))
    return flip(v, v.fma(error, inverse, ratio), to_top(v, n, 0), v.to_bits(x))


Final = Callable[[Vector, str, str, str, str], str]


def _usual(v: Vector, x: str, size: str, final: Final) -> str:
    return final(v, x, *(reduce_exactly if final is tan_of else reduce)(v, size))


def _common(v: Vector, x: str, final: Final, anywhere: Routine) -> str:
    size = v.abs(x)
    usual = _usual(v, x, size, final)
    return v.unlikely(v.ge(size, CONSTANTS[v.element].limit), usual, lambda: anywhere(v, x))


def _anywhere(v: Vector, x: str, final: Final) -> str:
    """Any argument; float32 in float64, float64 lane by lane."""
    if v.element == "float":
        wide = v.like("double")
        y = v.convert("fpext", x, wide)
        size = wide.abs(y)
        usual = _usual(wide, y, size, final)
        far = wide.ge(size, CONSTANTS["double"].limit)
        exact = wide.unlikely(far, usual, lambda: lane_by_lane(wide, lambda one, z: _huge(one, z, final), y))
        return wide.convert("fptrunc", exact, v)
    return lane_by_lane(v, lambda one, y: _huge(one, y, final), x)


def _huge(v: Vector, x: str, final: Final) -> str:
    """One float64 beyond the limit; NaN at infinity, anything below the limit."""
    fn, bits, long = v.fn, v.bits, v.like("i128")
    finite = v.lt(v.abs(x), INF)
    y = v.max(CONSTANTS["double"].limit, v.abs(v.select(finite, x, 1.0)))
    pattern = v.to_bits(y)
    # y = integer * 2**(exponent - 1075); bits of 2/pi that give multiples of 4 are left out
    exponent = bits.lshr(pattern, MANTISSA_BITS["double"])
    integer = bits.or_(bits.and_(pattern, (1 << 52) - 1), 1 << 52)
    start = bits.add(exponent, 64 - 2 - 1075)
    symbol = "gj_two_over_pi"
    words = ", ".join(f"i64 {w}" for w in TWO_OVER_PI_WORDS)
    fn.module.add_global(
        symbol,
        f"@{symbol} = private unnamed_addr constant [{len(TWO_OVER_PI_WORDS)} x i64] [{words}], align 8",
    )
    base = fn.op(f"getelementptr i64, ptr @{symbol}, i64 {bits.lshr(start, 6)}")
    places = [base] + [fn.op(f"getelementptr i64, ptr {base}, i64 {i}") for i in (1, 2, 3)]
    raw = [fn.op(f"load i64, ptr {place}, align 8") for place in places]
    high, middle, low = (bits.call("fshl", a, b, start) for a, b in pairwise(raw))

    def product(word: str) -> str:
        return long.mul(bits.convert("zext", word, long), bits.convert("zext", integer, long))

    second = long.add(product(middle), long.lshr(product(low), 64))
    top = bits.add(bits.mul(high, integer), long.convert("trunc", long.lshr(second, 64), bits))
    # top . second: two bits of quadrant, then the fraction
    n = bits.lshr(bits.add(top, 1 << 61), 62)
    nearest = bits.sub(top, bits.shl(n, 62))
    whole = long.or_(
        long.shl(bits.convert("zext", nearest, long), 64),
        bits.convert("zext", long.convert("trunc", second, bits), long),
    )
    sign = long.ashr(whole, 127)
    size = long.sub(long.xor(whole, sign), sign)
    fn.module.declare("llvm.ctlz.i128", "declare i128 @llvm.ctlz.i128(i128, i1)")
    zeros = fn.op(f"call i128 @llvm.ctlz.i128(i128 {size}, i1 true)")
    normal = long.shl(size, zeros)
    upper = long.convert("trunc", long.lshr(normal, 75), bits)  # 53 bits
    lower = long.convert("trunc", long.and_(long.lshr(normal, 22), (1 << 53) - 1), bits)
    # value = (upper 2**75 + lower 2**22) 2**-zeros 2**-126
    power = bits.sub(1023 + 75 - 126, long.convert("trunc", zeros, bits))
    unit = v.from_bits(bits.shl(power, 52))
    negative = long.convert("trunc", sign, bits)
    unit = flip(v, unit, negative)
    head = v.mul(bits.convert("uitofp", upper, v), unit)
    tail = v.mul(bits.convert("uitofp", lower, v), v.mul(unit, 2.0**-53))
    first, next_part, _ = CONSTANTS["double"].parts
    r = v.mul(head, first)
    rest = v.fma(head, next_part, v.fma(tail, first, v.fma(head, first, v.neg(r))))
    value = final(v, x, r, rest, n)
    return v.select(finite, value, NAN)


@routine("sin_anywhere", 1, opt=0)
def sin_anywhere(v: Vector, x: str) -> str:
    """sin of any argument."""
    return _anywhere(v, x, sin_of)


@routine("cos_anywhere", 1, opt=0)
def cos_anywhere(v: Vector, x: str) -> str:
    """cos of any argument."""
    return _anywhere(v, x, cos_of)


@routine("tan_anywhere", 1, opt=0)
def tan_anywhere(v: Vector, x: str) -> str:
    """tan of any argument."""
    return _anywhere(v, x, tan_of)


@function("sin", 1, 2.0, 2.0, SOURCE)
def sin(v: Vector, x: str) -> str:
    """Sine of an angle in radians, any size; NaN at infinity."""
    return _common(v, x, sin_of, sin_anywhere)


@function("cos", 1, 2.0, 2.0, SOURCE)
def cos(v: Vector, x: str) -> str:
    """Cosine of an angle in radians, any size; NaN at infinity."""
    return _common(v, x, cos_of, cos_anywhere)


@function("tan", 1, 2.0, 2.0, SOURCE)
def tan(v: Vector, x: str) -> str:
    """Tangent of an angle in radians, any size; NaN at infinity."""
    return _common(v, x, tan_of, tan_anywhere)
