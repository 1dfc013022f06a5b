"""Powers and roots: pow, cbrt, hypot.

Job: x**y = e**(y log x) with log x carried as an unevaluated sum of about 68 bits; roots by a polynomial and
Newton's method. Input and output: as in `function.py`. Invariant of pow: the code in the loop is for positive
normal x and results inside the range; all else (negative bases, zero, subnormals, overflow, NaN) goes to the
library's complete version by one test. Method of the logarithm: table of c near x, log x = k ln 2 + log c +
log(1 + r), r = x/c - 1, after P. T. P. Tang, "Table-driven implementation of the logarithm function", ACM
TOMS 16 (1990); polynomials made for this project.
"""

from __future__ import annotations

from graphjit.backend.llvm.math import tables
from graphjit.backend.llvm.math.exponential import CONSTANTS as EXPONENTIAL
from graphjit.backend.llvm.math.exponential import clamp, reduce
from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.math.library import routine
from graphjit.backend.llvm.writing.vector import INF, NAN, SMALLEST_NORMAL, Vector, double_bits

FIRST_INTERVAL = (
    0x3FE6555555555556  # 0.6979...: the sixteen intervals begin here; one of them has 1 in its middle
)
LARGEST_SAFE = 707.0  # |y log x| up to here gives a normal result

# (log(1 + r) - r + r**2/2) * -2 / r**3
LOG_TAIL = (
    -0.6666666666666666,
    0.49999999999999084,
    -0.400000000000256,
    0.3333333334246478,
    -0.2857142851379433,
    0.24999970851363507,
    -0.2222226500643079,
    0.20037334006930885,
    -0.18189768164263603,
)
# (log(1 + r) - r) / r**2 and (e**r - 1 - r) / r**2, to float32's accuracy in float64 arithmetic
SHORT_LOG_TAIL = (
    -0.5000000000122959,
    0.33333328531023937,
    -0.24999989633090808,
    0.2001757130967216,
    -0.1668783259483514,
)
SHORT_EXP_TAIL = (
    0.5000000079417555,
    0.16666666814113779,
    0.04166626596691906,
    0.008333274610825411,
    0.0013946315384253036,
    0.00019912987183087625,
)
# m**(-1/3) on [3/4, 3/2)
INVERSE_CUBE_ROOT = (
    1.838019459167171,
    -1.7209962084116857,
    1.3605210511898198,
    -0.5769922326732716,
    0.09941026400008438,
)


def table_split(v: Vector, pattern: str) -> tuple[str, str, list[str]]:
    """(k, z, rows): the float64 with these bits is z * 2**k; rows of the logarithm's table for z."""
    bits, shift = v.bits, 1.5 * 2.0**52
    offset = bits.sub(pattern, FIRST_INTERVAL)
    exponent = bits.ashr(offset, 52)
    k = v.sub(v.from_bits(bits.add(exponent, double_bits(shift))), shift)
    z = v.from_bits(bits.sub(pattern, bits.and_(offset, -(1 << 52))))
    return k, z, v.lookup(tables.LOG_F64, bits.lshr(offset, 48))


def long_log(v: Vector, pattern: str, extra: str = "") -> tuple[str, str]:
    """log of the float64 with these bits (times 2**extra) as a sum."""
    k, z, (inverse, log_c, log_c_rest) = table_split(v, pattern)
    if extra:
        k = v.add(k, extra)
    product = v.mul(z, inverse)
    r = v.sub(product, 1.0)
    lost = v.fma(z, inverse, v.neg(product))
    lost = v.fma(lost, v.fma(r, r, v.neg(r)), lost)  # lost / (1 + r)
    ln2 = EXPONENTIAL["double"]
    base = v.fma(k, ln2.ln2_high, log_c)
    low = v.add(v.fma(k, ln2.ln2_low, log_c_rest), lost)
    head = v.add(base, r)
    low = v.add(low, v.add(v.sub(base, head), r))
    half = v.mul(r, -0.5)
    square = v.mul(half, r)
    high = v.add(head, square)
    low = v.add(low, v.add(v.fma(half, r, v.neg(square)), v.add(v.sub(head, high), square)))
    low = v.fma(v.mul(square, r), v.poly(r, LOG_TAIL), low)
    total = v.add(high, low)
    return total, v.add(v.sub(high, total), low)


def exp_of_sum(v: Vector, high: str, low: str) -> str:
    """e**(high + low) for a high inside the range."""
    n, exact, _ = reduce(v, high)
    r = v.add(exact, v.fnma(n, EXPONENTIAL["double"].ln2_low, low))
    square = v.mul(r, r)
    return v.scale(v.add(v.fma(square, v.poly(r, EXPONENTIAL["double"].exp, square), r), 1.0), n)


def times(v: Vector, y: str, log: tuple[str, str]) -> tuple[str, str]:
    """y * log as a sum."""
    high = v.mul(y, log[0])
    return high, v.fma(y, log[1], v.fma(y, log[0], v.neg(high)))


@routine("pow_complete", 2)
def pow_complete(v: Vector, x: str, y: str) -> str:
    """x**y for any arguments."""
    if v.element == "float":
        wide = v.like("double")
        result = _complete(wide, *(v.convert("fpext", a, wide) for a in (x, y)))
        return wide.convert("fptrunc", result, v)
    return _complete(v, x, y)


def _complete(v: Vector, x: str, y: str) -> str:
    mask = v.mask
    size = v.abs(x)
    subnormal = v.lt(size, SMALLEST_NORMAL["double"])
    pattern = v.to_bits(v.select(subnormal, v.mul(size, 2.0**54), size))
    log = long_log(v, pattern, v.select(subnormal, -54.0, 0.0))
    high, low = times(v, clamp(v, y, -(2.0**64), 2.0**64), log)
    low = v.select(v.lt(v.abs(high), 800.0), low, 0.0)
    value = exp_of_sum(v, clamp(v, high, EXPONENTIAL["double"].least, EXPONENTIAL["double"].most), low)
    infinite, zero, falling = v.eq(size, INF), v.eq(size, 0.0), v.lt(y, 0.0)
    edge = v.select(mask.xor(infinite, falling), INF, 0.0)
    value = v.select(mask.or_(infinite, zero), edge, value)
    half = v.mul(y, 0.5)
    whole = v.eq(v.trunc(y), y)
    odd = mask.and_(whole, v.ne(v.trunc(half), half))
    below = mask.and_(v.lt(x, 0.0), v.lt(size, INF))
    value = v.select(mask.and_(below, mask.not_(whole)), NAN, value)
    value = v.copysign(value, v.select(odd, x, 1.0))
    value = v.select(v.compare("uno", x, y), NAN, value)
    return v.select(mask.or_(v.eq(x, 1.0), v.eq(y, 0.0)), 1.0, value)


@function("pow", 2, 1.5, 1.0, "Tang's table method with an unevaluated sum, own polynomials")
def pow(v: Vector, x: str, y: str) -> str:
    """x**y with C99's table of special values."""
    if v.element == "float":
        return _short_pow(v, x, y)
    bits = v.bits
    pattern = v.to_bits(x)
    high, low = times(v, y, long_log(v, pattern))
    value = exp_of_sum(v, high, low)
    smallest = double_bits(SMALLEST_NORMAL["double"])
    odd_base = bits.compare("uge", bits.sub(pattern, smallest), double_bits(INF) - smallest)
    rare = v.mask.or_(odd_base, v.compare("uge", v.abs(high), LARGEST_SAFE))
    return v.unlikely(rare, value, lambda: pow_complete(v, x, y))


def _short_pow(v: Vector, x: str, y: str) -> str:
    """float32 in float64 arithmetic."""
    wide = v.like("double")
    ln2 = EXPONENTIAL["double"]
    base, exponent = (v.convert("fpext", a, wide) for a in (x, y))
    k, z, (inverse, log_c, _) = table_split(wide, wide.to_bits(base))
    r = wide.fma(z, inverse, -1.0)
    log = wide.fma(wide.mul(r, r), wide.poly(r, SHORT_LOG_TAIL), r)
    log = wide.add(log, wide.fma(k, ln2.ln2_high + ln2.ln2_low, log_c))
    n, _, rest = reduce(wide, clamp(wide, wide.mul(log, exponent), -200.0, 200.0))
    tail = wide.fma(wide.mul(rest, rest), wide.poly(rest, SHORT_EXP_TAIL), rest)
    value = wide.convert("fptrunc", wide.scale(wide.add(tail, 1.0), n), v)
    usual = v.mask.and_(v.mask.and_(v.gt(x, 0.0), v.lt(x, INF)), v.lt(v.abs(y), INF))
    return v.unlikely(v.mask.not_(usual), value, lambda: pow_complete(v, x, y))


@function(
    "cbrt",
    1,
    0.75,
    0.75,
    "polynomial for m**(-1/3), one step of fourth order, one of Newton's with an exact remainder",
)
def cbrt(v: Vector, x: str) -> str:
    """Cube root; of negative numbers too; exact for exact cubes."""
    m, e = v.split(v.abs(x))
    third, _ = v.nearest(v.sub(e, 1.0), 1.0 / 3.0)
    left = v.fnma(third, 3.0, e)  # 0, 1 or 2
    scaled = v.scale(m, left)
    # 2**(-left/3) through its three values
    c1, c2 = 2.0 ** (-1 / 3), 2.0 ** (-2 / 3)
    second = (c2 - 2.0 * c1 + 1.0) / 2.0
    factor = v.poly(left, (1.0, c1 - 1.0 - second, second))
    y = v.mul(v.poly(m, INVERSE_CUBE_ROOT), factor)
    short = v.element == "float"
    error = v.fnma(v.mul(v.mul(y, y), y), scaled, 1.0)
    y = v.fma(v.mul(y, error), v.poly(error, (1 / 3, 2 / 9) if short else (1 / 3, 2 / 9, 14 / 81)), y)
    root = v.mul(v.mul(y, y), scaled)
    square = v.mul(root, root)
    square_rest = v.fma(root, root, v.neg(square))
    cube = v.mul(square, root)
    cube_rest = v.fma(square_rest, root, v.fma(square, root, v.neg(cube)))
    remainder = v.sub(v.sub(scaled, cube), cube_rest)
    root = v.fma(remainder, v.mul(v.mul(y, y), 1 / 3), root)
    finite = v.mask.and_(v.ne(x, 0.0), v.lt(v.abs(x), INF))
    return v.copysign(v.select(finite, v.scale(root, third), x), x)


@function("hypot", 2, 1.0, 1.0, "scaling by a power of two; square root of a compensated sum")
def hypot(v: Vector, x: str, y: str) -> str:
    """sqrt(x**2 + y**2) without overflow or underflow; inf where either argument is infinite."""
    a, b = v.abs(x), v.abs(y)
    large, small = v.select(v.gt(b, a), b, a), v.select(v.gt(b, a), a, b)
    m, e = v.split(large)
    ratio = v.scale(small, v.neg(e))
    square = v.mul(m, m)
    total = v.fma(ratio, ratio, square)
    rest = v.add(v.fma(ratio, ratio, v.sub(square, total)), v.fma(m, m, v.neg(square)))
    root = v.sqrt(total)
    correction = v.div(v.add(v.fnma(root, root, total), rest), v.add(root, root))
    value = v.scale(v.add(root, correction), e)
    value = v.select(v.eq(large, 0.0), 0.0, value)
    infinite = v.mask.or_(v.eq(a, INF), v.eq(b, INF))
    return v.select(infinite, INF, v.select(v.compare("uno", x, y), NAN, value))
