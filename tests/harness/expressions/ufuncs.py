"""ufuncs, operators and scipy.special."""

from __future__ import annotations

from numpy_harness import lines

UFUNCS = lines(
    """
    m + n
    m - 1
    2 * m
    1 / p
    m // n
    m % n
    7 % p
    7 // i8.astype(float)
    m ** 2
    m ** 3
    p ** 0.5
    p ** -1
    p ** n
    2 ** m
    2.0 ** i
    i ** 2
    i ** 0.5
    abs(i) ** abs(i)
    np.power(p, 0.5)
    np.power(i, 2)
    np.power(nan, 2)
    np.power(nan, 0.5)
    np.power(nan, -1)
    np.power(nan, 1)
    np.power(nan, 0)
    np.power(f, 2.0)
    np.power(f, np.float64(2))
    f ** np.float32(3)
    u8 ** 2
    -m
    +m
    abs(m)
    ~b
    ~i
    b & c
    b | c
    b ^ c
    i & 3
    1 | i
    i << 2
    i >> 1
    m < n
    m <= 0
    0 > m
    m == m
    m != n
    i == 2
    i8 < 300
    i8 > 300
    300 > i8
    -300 > i8
    i8 == 1000
    i8 != -1000
    u8 >= -1
    u8 < -1
    -1 < u8
    f + 1
    f + 1.5
    f * np.float64(2)
    f + i
    i8 + 1
    i8 + i32
    u8 + i8
    i8 * 1.5
    b + 1
    b * m
    b + b
    i / 2
    i / i32
    f / 2
    i // 3
    i % 3
    -i % 3
    divmod(m, 2)
    np.divmod(m, n)
    np.divmod(i, 3)
    np.modf(m)
    np.modf(nan)
    np.modf(i)
    np.ldexp(m, i32)
    np.float_power(p, n)
    np.float_power(f, 2)
    np.float_power(abs(i), -2)
    np.reciprocal(i)
    np.reciprocal(i8)
    np.reciprocal(u8)
    np.add(m, n, dtype=np.float32)
    np.add(i, 1, dtype=float)
    np.sin(i, dtype=np.float32, casting='unsafe')
    np.add(m, n, order='C')
    np.multiply(m, [1, 2, 3, 4])
    np.logical_and(m, i)
    np.logical_or(0, m)
    np.logical_xor(b, True)
    np.isfinite(i)
    np.isnan(i)
    np.signbit(nan)
    np.maximum(m, 0)
    np.maximum(nan, 0)
    np.fmax(nan, 0)
    np.minimum(i, 1.5)
    np.heaviside(m, 0.5)
    np.copysign(2, m)
    np.arctan2(m, n)
    np.hypot(m, 3)
    np.logaddexp(0, m)
    np.clip(u8, 3, 9)
    np.float64(2) * m
    np.float32(2) * m
    np.int64(2) * f
    np.ones((3, 4)) - m
    np.ones(4, np.float32) * f
    np.arange(4) + f
    sp.erf(m)
    sp.erf(f)
    sp.erf(i)
    sp.erfc(m)
    sp.erfcx(m)
    sp.expit(m)
    sp.expit(f)
    sp.log_expit(m)
    sp.logit(p / 3)
    sp.xlogy(p, p)
    sp.xlogy(b, 0)
    sp.xlogy(0.0, m * 0)
    sp.xlog1py(p, p)
    sp.ndtr(m)
    sp.log_ndtr(m)
    sp.log_ndtr(m * 20)
    sp.gammaln(p)
    sp.gammaln(m)
    sp.digamma(p)
    sp.psi(m)
    sp.entr(m)
    sp.entr(nan)
    sp.entr(m * 0)
    sp.rel_entr(p, p + 1)
    sp.rel_entr(m, n)
    sp.rel_entr(m * 0, p)
    sp.rel_entr(nan, p)
    sp.kl_div(p, p * p)
    sp.kl_div(m, n)
    sp.kl_div(m * 0, p)
    sp.exprel(m)
    sp.exprel(m * 0)
    sp.exp10(m)
    sp.exp10(f)
    sp.huber(1.0, m)
    sp.huber(m, n)
    sp.pseudo_huber(1.0, m)
    sp.pseudo_huber(m, n)
    sp.boxcox(p, 0.3)
    sp.boxcox(p, 0)
    sp.boxcox(p, m)
    sp.cbrt(m)
    sp.exp2(m)
    sp.expm1(m)
    sp.log1p(p)
    sp.softplus(m)
    """
)
