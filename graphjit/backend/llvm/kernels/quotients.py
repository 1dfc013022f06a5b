"""Division by a known number without dividing.

A step that hands a quotient on waits for it: 13 cycles and more. The product with both halves of the
reciprocal takes 7, and is the same number: with ``high + low`` near ``1 / y`` to twice the digits,

    fma(x, high, x * low)  ==  x / y   in every bit,

unless a quotient lies so near to the middle between two numbers that the last rounding goes the other way.
For a given ``y`` there are few such ``x``, and they can be found by solving congruences: `halves` tries them
all. (N. Brisebarre, J.-M. Muller, S. K. Raina, 2004: Accelerating correctly rounded floating-point division
when the divisor is known in advance.)

Input: a double. Output: the halves of its reciprocal, or None; LLVM text.
Invariant: equal to the division for every x, bit for bit: zeros, infinities, NaN and numbers whose quotient
or whose small product may leave the range of normal numbers are divided.
"""

from __future__ import annotations

import functools
import math
import struct
from fractions import Fraction

from graphjit.backend.llvm.writing.text import Function
from graphjit.machine import machine

DIGITS = 53
"""Binary digits of a double."""
DIVISORS = 100
"""Largest exponent of a divisor, up or down."""
DIVIDENDS = 800
"""Largest exponent of a number that is multiplied: quotients are normal, and so are products with ``low``."""
BIAS = 1023
"""Of the exponent as it stands in the bits of a double."""


@functools.lru_cache(maxsize=1024)
def halves(y: float) -> tuple[float, float] | None:
    """``high`` and ``low`` with which the product is the quotient by ``y``; None where there are none."""
    if not math.isfinite(y) or y == 0.0:
        return None
    mantissa, exponent = math.frexp(abs(y))
    if abs(exponent) > DIVISORS or mantissa == 0.5:
        return None
    # Powers of two change nothing: the proof is about whole numbers of 53 digits, 1 / divisor < 2**-52.
    divisor = int(math.ldexp(mantissa, DIGITS))
    high = float(Fraction(1, divisor))
    low = float(Fraction(1, divisor) - Fraction(high))
    off = abs(Fraction(1, divisor) - Fraction(high) - Fraction(low)) + Fraction(abs(low)) / 2**DIGITS
    if any(_product(x, high, low) != float(Fraction(x, divisor)) for x in doubtful(divisor, off)):
        return None
    scale = math.copysign(2.0 ** (DIGITS - exponent), y)
    return high * scale, low * scale


def _product(x: int, high: float, low: float) -> float:
    """What two operations give."""
    return float(x * Fraction(high) + Fraction(float(x * Fraction(low))))


def doubtful(divisor: int, off: Fraction) -> list[int]:
    """The dividends x of 53 digits whose quotient is no farther than ``x * off`` from the middle between two
    numbers.

    A middle is ``m / 2**places`` with an odd m of 54 digits. ``x / divisor`` is near it where
    ``x * 2**places - m * divisor`` is a small number: one of few, and never 0.
    """
    top = 2**DIGITS
    found = []
    for places in (DIGITS, DIGITS + 1):  # quotients from 1 on, and below
        small = math.floor(2**places * divisor * top * off)
        for rest in (*range(-small, 0), *range(1, small + 1)):
            common = math.gcd(divisor, 2**places)
            if rest % common:
                continue
            step = 2**places // common
            first = -(rest // common) * pow(divisor // common, -1, step) % step
            for m in range(first + -(-(top - first) // step) * step, 2 * top, step):
                x = (rest + m * divisor) >> places
                if m % 2 and top // 2 <= x < top:
                    found.append(x)
    return found


def divide(fn: Function, x: str, y: str) -> str | None:
    """``x / y`` of two doubles in one lane; None where ``y`` is no number, or no such number."""
    if not y.startswith("0x") or not machine().fused:
        return None
    found = halves(struct.unpack("<d", struct.pack("<Q", int(y, 16)))[0])
    if found is None:
        return None
    high, low = (f"0x{struct.unpack('<Q', struct.pack('<d', half))[0]:016X}" for half in found)
    # Whether the exponent is in range, by integers, which nothing waits for.
    bits = fn.op(f"shl i64 {fn.op(f'bitcast double {x} to i64')}, 1")
    least, most = (BIAS - DIVIDENDS) << DIGITS, (BIAS + DIVIDENDS) << DIGITS
    normal = fn.op(f"icmp ult i64 {fn.op(f'sub i64 {bits}, {least}')}, {most - least}")
    product, quotient, done = fn.label("product"), fn.label("quotient"), fn.label("divided")
    fn.do(f"br i1 {normal}, label %{product}, label %{quotient}")
    fn.start(product)
    fn.module.declare("llvm.fma.f64", "declare double @llvm.fma.f64(double, double, double)")
    fast = fn.op(
        f"call double @llvm.fma.f64(double {x}, double {high}, double {fn.op(f'fmul double {x}, {low}')})"
    )
    fn.do(f"br label %{done}")
    fn.start(quotient)
    slow = fn.op(f"fdiv double {x}, {y}")
    fn.do(f"br label %{done}")
    fn.start(done)
    phi = fn.phi("double")
    phi.add(fast, product)
    phi.add(slow, quotient)
    return phi.name
