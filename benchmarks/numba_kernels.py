"""Value and gradient written out as loops and compiled by Numba, fast-math and threads on: what a patient
user writes.

Input: the arguments of the workload of the same name. Output: what the workload's derivative gives.
Invariant: nothing is compiled before the first call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy

SQRT_HALF, INVERSE_SQRT_TWO_PI = 0.70710678118654752440, 0.39894228040143267794

loops = numba.njit(fastmath=True)
parallel = numba.njit(parallel=True, fastmath=True)
PARALLEL_ABOVE = 4096
"""Rows above which threads pay: Numba's fork and join cost some ten microseconds."""


def _by_size(body: Callable[..., Any]) -> Callable[..., Any]:
    """The same loops without threads for short arrays, as one would call them."""
    few, many = loops(body), parallel(body)

    def call(*arguments: Any) -> Any:
        return (many if arguments[0].size > PARALLEL_ABOVE else few)(*arguments)

    return call


@loops
def scalar(x: float) -> float:
    return math.sin(x) + x * math.cos(x)


@loops
def vector8(x: numpy.ndarray) -> numpy.ndarray:
    out = numpy.empty_like(x)
    for i in range(x.size):
        out[i] = 2.0 * x[i]
    return out


@_by_size
def black_scholes(spot: Any, strike: Any, expiry: Any, rate: Any, vol: Any) -> Any:
    d_spot, d_strike, d_expiry = numpy.empty_like(spot), numpy.empty_like(spot), numpy.empty_like(spot)
    d_rate, d_vol = numpy.empty_like(spot), numpy.empty_like(spot)
    total = 0.0
    for i in numba.prange(spot.size):
        s, k, t, r, v = spot[i], strike[i], expiry[i], rate[i], vol[i]
        root = math.sqrt(t)
        spread = v * root
        d1 = (math.log(s / k) + (r + 0.5 * v * v) * t) / spread
        cdf1 = 0.5 * math.erf(d1 * SQRT_HALF) + 0.5
        cdf2 = 0.5 * math.erf((d1 - spread) * SQRT_HALF) + 0.5
        density = INVERSE_SQRT_TWO_PI * math.exp(-0.5 * d1 * d1)
        discount = math.exp(-r * t)
        paid = k * discount * cdf2
        total += s * cdf1 - paid
        d_spot[i] = cdf1
        d_strike[i] = -discount * cdf2
        d_expiry[i] = s * density * v / (2.0 * root) + r * paid
        d_rate[i] = t * paid
        d_vol[i] = s * density * root
    return total, (d_spot, d_strike, d_expiry, d_rate, d_vol)


@_by_size
def elementwise_chain(x: Any, y: Any) -> Any:
    d_x, d_y = numpy.empty_like(x), numpy.empty_like(y)
    total = 0.0
    for i in numba.prange(x.size):
        states, slopes = numpy.empty(10), numpy.empty(10)
        t, w = x[i], y[i]
        for k in range(10):
            h = math.tanh(t * w)
            states[k], slopes[k] = t, 0.1 * (1.0 - h * h)
            t += 0.1 * h
        total += t
        g, g_y = 1.0, 0.0
        for k in range(9, -1, -1):
            g_y += g * slopes[k] * states[k]
            g += g * slopes[k] * w
        d_x[i], d_y[i] = g, g_y
    return total, (d_x, d_y)


@parallel
def log_sum_exp(x: Any) -> Any:
    d_x = numpy.empty_like(x)
    total = 0.0
    for i in numba.prange(x.shape[0]):
        top = x[i, 0]
        for j in range(1, x.shape[1]):
            top = max(top, x[i, j])
        row = 0.0
        for j in range(x.shape[1]):
            e = math.exp(x[i, j] - top)
            d_x[i, j] = e
            row += e
        for j in range(x.shape[1]):
            d_x[i, j] /= row
        total += math.log(row) + top
    return total, d_x


@parallel
def pairwise_energy(p: Any, q: Any) -> Any:
    d_p, d_q = numpy.empty_like(p), numpy.empty_like(q)
    n = q.size
    total = 0.0
    for i in numba.prange(n):
        potential, fx, fy, fz = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            x, y, z = p[i, 0] - p[j, 0], p[i, 1] - p[j, 1], p[i, 2] - p[j, 2]
            kernel = q[j] * math.exp(-0.5 * (x * x + y * y + z * z))
            potential += kernel
            fx += kernel * x
            fy += kernel * y
            fz += kernel * z
        total += q[i] * potential
        d_q[i] = potential
        d_p[i, 0], d_p[i, 1], d_p[i, 2] = -q[i] * fx, -q[i] * fy, -q[i] * fz
    return 0.5 * total, (d_p, d_q)


@_by_size
def rosenbrock(x: Any) -> Any:
    gradient = numpy.empty_like(x)
    n = x.size
    total = 0.0
    for i in numba.prange(n):
        g = 0.0
        if i + 1 < n:
            valley = x[i + 1] - x[i] * x[i]
            total += 100.0 * valley * valley + (1.0 - x[i]) * (1.0 - x[i])
            g = -400.0 * x[i] * valley - 2.0 * (1.0 - x[i])
        if i > 0:
            g += 200.0 * (x[i] - x[i - 1] * x[i - 1])
        gradient[i] = g
    return total, gradient


@parallel
def small_matrices(a: Any, v: Any) -> Any:
    d_a, d_v = numpy.empty_like(a), numpy.empty_like(v)
    scale = 1.0 / v.shape[0]
    total = 0.0
    for i in numba.prange(v.shape[0]):
        m = a[i]
        c00, c01, c02 = (
            m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1],
            m[1, 2] * m[2, 0] - m[1, 0] * m[2, 2],
            m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0],
        )
        c10, c11, c12 = (
            m[0, 2] * m[2, 1] - m[0, 1] * m[2, 2],
            m[0, 0] * m[2, 2] - m[0, 2] * m[2, 0],
            m[0, 1] * m[2, 0] - m[0, 0] * m[2, 1],
        )
        c20, c21, c22 = (
            m[0, 1] * m[1, 2] - m[0, 2] * m[1, 1],
            m[0, 2] * m[1, 0] - m[0, 0] * m[1, 2],
            m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0],
        )
        det = m[0, 0] * c00 + m[0, 1] * c01 + m[0, 2] * c02
        x0 = (c00 * v[i, 0] + c10 * v[i, 1] + c20 * v[i, 2]) / det
        x1 = (c01 * v[i, 0] + c11 * v[i, 1] + c21 * v[i, 2]) / det
        x2 = (c02 * v[i, 0] + c12 * v[i, 1] + c22 * v[i, 2]) / det
        total += x0 * x0 + x1 * x1 + x2 * x2 + math.log(det * det)
        twice = 2.0 * scale / det
        s0 = (c00 * x0 + c01 * x1 + c02 * x2) * twice
        s1 = (c10 * x0 + c11 * x1 + c12 * x2) * twice
        s2 = (c20 * x0 + c21 * x1 + c22 * x2) * twice
        d_v[i, 0], d_v[i, 1], d_v[i, 2] = s0, s1, s2
        d_a[i, 0, 0], d_a[i, 0, 1], d_a[i, 0, 2] = (
            twice * c00 - s0 * x0,
            twice * c01 - s0 * x1,
            twice * c02 - s0 * x2,
        )
        d_a[i, 1, 0], d_a[i, 1, 1], d_a[i, 1, 2] = (
            twice * c10 - s1 * x0,
            twice * c11 - s1 * x1,
            twice * c12 - s1 * x2,
        )
        d_a[i, 2, 0], d_a[i, 2, 1], d_a[i, 2, 2] = (
            twice * c20 - s2 * x0,
            twice * c21 - s2 * x1,
            twice * c22 - s2 * x2,
        )
    return total * scale, (d_a, d_v)


KERNELS: dict[str, Callable[..., Any]] = {
    "scalar": scalar,
    "vector8": vector8,
    "black_scholes": black_scholes,
    "elementwise_chain": elementwise_chain,
    "log_sum_exp": log_sum_exp,
    "pairwise_energy": pairwise_energy,
    "rosenbrock": rosenbrock,
    "small_matrices": small_matrices,
}
