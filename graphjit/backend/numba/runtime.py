"""Scalar functions that generated Python code calls where NumPy has none.

Job: integer division, powers and shifts without undefined cases; sums that keep what they round away; special
functions; matrix products; the status cell.
Input: numbers (or flat arrays).  Output: numbers.
Invariants: every function runs as it is under CPython and under ``numba.njit(error_model="numpy")``; none
calls another one, so that each can be compiled by itself.

Formulas: digamma and trigamma by recurrence, reflection and the asymptotic series (DLMF 5.5.2, 5.5.4,
5.11.2); erfcx by its asymptotic series (DLMF 7.12.1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FUNCTIONS = frozenset(
    (
        "bell",
        "digamma",
        "erf",
        "erfc",
        "erfcx",
        "fail",
        "floor_divide",
        "fmod",
        "half_bell",
        "in_runs",
        "int_power",
        "lgamma",
        "log_expit",
        "product",
        "remainder",
        "shift_left",
        "shift_right",
        "trigamma",
        "two_sum",
        "unsigned_divide",
        "unsigned_remainder",
    )
)
"""Names that generated code may import."""


def fail(status: Any, code: int) -> None:
    """Remember the first error."""
    if status[0] == 0:
        status[0] = code


def two_sum(total: Any, lost: Any, x: Any) -> tuple[Any, Any]:
    """``total + x``, and ``lost`` with what the addition rounds away (Knuth, TAOCP 4.2.2)."""
    new = total + x
    up = new - total
    return new, lost + ((total - (new - up)) + (x - up))


def product(
    x: Any, x_row: int, x_column: int, y: Any, y_row: int, y_column: int, out: Any, m: int, n: int, k: int
) -> None:
    """``out[m, n] = x[m, k] @ y[k, n]``; the strides of ``x`` and ``y`` count elements, ``out`` is
    contiguous.
    """
    size = out.itemsize
    left = np.lib.stride_tricks.as_strided(x, (m, k), (x_row * size, x_column * size))
    right = np.lib.stride_tricks.as_strided(y, (k, n), (y_row * size, y_column * size))
    out[: m * n] = np.dot(np.ascontiguousarray(left), np.ascontiguousarray(right)).reshape(m * n)


def in_runs(x: Any, lengths: Any, strides: Any) -> Any:
    """A copy of the elements of ``x`` that lie along several axes, whose strides count bytes."""
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(x, lengths, strides)).reshape(-1)


# --------------------------------------------------------------------------------------------------- integers


def floor_divide(x: Any, y: Any) -> Any:
    """``x // y`` of signed integers; 0 for y = 0 (the caller reports it); the smallest number over -1 is
    itself.
    """
    x, y = np.int64(x), np.int64(y)
    if y == 0:
        return y
    return -x if y == -1 else x // y


def remainder(x: Any, y: Any) -> Any:
    """``x % y`` of signed integers with the sign of y; 0 for y = 0."""
    x, y = np.int64(x), np.int64(y)
    return np.int64(0) if y == 0 or y == -1 else x % y


def fmod(x: Any, y: Any) -> Any:
    """Remainder of signed integers with the sign of x; 0 for y = 0."""
    x, y = np.int64(x), np.int64(y)
    if y == 0 or y == -1:
        return np.int64(0)
    rest = x % y
    return rest - y if rest != 0 and (x < 0) != (y < 0) else rest


def unsigned_divide(x: Any, y: Any) -> Any:
    """``x // y`` of unsigned integers; 0 for y = 0."""
    return y if y == 0 else x // y


def unsigned_remainder(x: Any, y: Any) -> Any:
    """``x % y`` of unsigned integers; 0 for y = 0."""
    return y if y == 0 else x % y


def int_power(x: Any, n: Any) -> Any:
    """``x**n`` modulo 2**64 by squaring; both are int64 (bits of an uint64 count as such)."""
    result = x ^ x | 1
    while n != 0:
        if n & 1:
            result = result * x
        x = x * x
        n = (n >> 1) & 0x7FFFFFFFFFFFFFFF
    return result


def shift_left(x: Any, n: Any, bits: int) -> Any:
    """``x << n``; 0 where n is not below ``bits``."""
    return x << n if 0 <= n < bits else x ^ x


def shift_right(x: Any, n: Any, bits: int) -> Any:
    """``x >> n``; 0 or -1, by the sign, where n is not below ``bits``."""
    if 0 <= n < bits:
        return x >> n
    return ~(x ^ x) if x < 0 else x ^ x


# ------------------------------------------------------------------------------------------ special functions


def erf(x: Any) -> float:
    """Error function."""
    return math.erf(x)


def erfc(x: Any) -> float:
    """Complementary error function."""
    return math.erfc(x)


def bell(x: Any) -> float:
    """exp(-x**2), with the square in two parts of which the first is exact."""
    x = min(abs(np.float64(x)), 1e4) if x == x else np.float64(x)
    product = x * 134217729.0
    head = product - (product - x)
    return np.exp(-head * head) * np.exp(-(x - head) * (x + head))


def half_bell(x: Any) -> float:
    """exp(-x**2 / 2), as `bell`."""
    x = min(abs(np.float64(x)), 1e4) if x == x else np.float64(x)
    product = x * 134217729.0
    head = product - (product - x)
    return np.exp(-0.5 * head * head) * np.exp(-0.5 * (x - head) * (x + head))


def erfcx(x: Any) -> float:
    """exp(x**2) * erfc(x)."""
    x = np.float64(x)
    if x < 12.0:
        return np.exp(x * x) * math.erfc(x) if x > -30.0 else np.inf
    if x == np.inf:
        return 0.0
    if not x >= 12.0:
        return x
    z = 0.5 / (x * x)
    series, term = 1.0, 1.0
    for i in range(1, 12):
        term *= -(2 * i - 1) * z
        series += term
    return series / (x * np.sqrt(np.pi))


def log_expit(x: Any) -> float:
    """Logarithm of the logistic function."""
    x = np.float64(x)
    return x - np.log1p(np.exp(x)) if x < 0.0 else -np.log1p(np.exp(-x))


def lgamma(x: Any) -> float:
    """log |gamma(x)|; inf at 0 and at negative integers, -inf at -inf as in SciPy."""
    if x <= 0.0 and x == np.floor(x):
        return np.inf if x > -np.inf else -np.inf
    return math.lgamma(x)


def digamma(x: Any) -> float:
    """Derivative of log gamma; -+inf at +-0, NaN at negative integers."""
    x = np.float64(x)
    if x == 0.0:
        return np.copysign(np.inf, -x)
    if x == np.inf:
        return np.inf
    if not x > -1e300:
        return np.nan
    total = 0.0
    if x < 0.0:
        if x == np.floor(x):
            return np.nan
        total = -np.pi / np.tan(np.pi * (x - np.rint(x)))
        x = 1.0 - x
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (
        1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z * (1 / 132 - z * (691 / 32760 - z / 12)))))
    )
    return total + np.log(x) - 0.5 / x - series


def trigamma(x: Any) -> float:
    """Second derivative of log gamma; inf at 0 and at negative integers."""
    x = np.float64(x)
    if x == np.inf:
        return 0.0
    if x <= 0.0 and x == np.floor(x):
        return np.inf
    if not x > -1e300:
        return np.nan
    total, sign = 0.0, 1.0
    if x < 0.0:
        total = (np.pi / np.sin(np.pi * (x - np.rint(x)))) ** 2
        sign, x = -1.0, 1.0 - x
    while x < 10.0:
        total += sign / (x * x)
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (
        1 / 6 - z * (1 / 30 - z * (1 / 42 - z * (1 / 30 - z * (5 / 66 - z * (691 / 2730 - z * 7 / 6)))))
    )
    return total + sign * (1.0 / x + 0.5 * z + series / x)
