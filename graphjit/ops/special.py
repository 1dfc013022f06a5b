"""scipy.special: error functions, logistic functions, entropy terms, normal distribution, gamma functions.

SciPy is loaded by the first reference evaluation and never at import (it costs more than a third of a
second), so ``numpy`` names the SciPy functions as strings here: ``"scipy.special.erf"``.

Sources: error functions DLMF 7.2, 7.7, 7.12.1 (tail of erfcx); logistic functions and the log of the normal
distribution by their definitions; gamma functions DLMF 5.2, 5.5 (recurrence, reflection), 5.11 (asymptotic
series), 5.15 (polygamma). Choices (documented and tested): ``xlogy`` and ``xlog1py`` have derivative 0 in y
where x = 0, also at the singularity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Decompose, Lowering, Partial, Partials, Scalar, op
from graphjit.ir.types import F64, Type
from graphjit.ops.infer import floating
from graphjit.ops.samples import EDGES, Cases, uniform
from graphjit.ops.transcendental import logistic_parts

TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
SQRT_HALF = math.sqrt(0.5)


def _scipy(name: str) -> Callable[..., Any]:
    """The SciPy function as a reference implementation."""

    def impl(*args: Any) -> Any:
        import scipy.special  # heavy, and only the interpreter and the tests need it

        return getattr(scipy.special, name)(*args)

    return impl


def _declare(
    name: str,
    doc: str,
    partials: tuple[Partial, ...],
    lower: Lowering,
    *ranges: tuple[float, float],
    special: tuple[float, ...] = (),
    accuracy: str = "",
) -> None:
    op(
        name,
        doc=doc,
        arity=len(partials),
        infer=floating,
        impl=_scipy(name),
        grad=Partials(*partials),
        lower=lower,
        numpy=[f"scipy.special.{name}"],
        samples=uniform(*ranges),
        special=(*EDGES, *special),
        accuracy=accuracy,
    )


# -------------------------------------------------------------------------------------------- error functions


def _bell(b: Builder, x: Node) -> Node:
    """2/sqrt(pi) exp(-x*x), the derivative of erf."""
    return b.mul(b.bell(x), TWO_OVER_SQRT_PI)


def _bell_of(rate: float) -> Callable[[Any], Any]:
    """exp(-rate*h*h) exp(-rate*(x-h)*(x+h)), h the leading digits of x: the rounding of x*x alone would cost
    hundreds of ULP.
    """

    def impl(x: Any) -> Any:
        x = np.clip(x, -1e4, 1e4)
        splitter = x.dtype.type(
            4097 if x.dtype.itemsize == 4 else 134217729
        )  # Veltkamp's: the square of half the digits is exact
        with np.errstate(all="ignore"):
            product = x * splitter
            head = product - (product - x)
            scale = x.dtype.type(-rate)
            return np.asarray(np.exp(scale * head * head) * np.exp(scale * (x - head) * (x + head)))

    return impl


for _name, _rate in (("bell", 1.0), ("half_bell", 0.5)):
    op(
        _name,
        doc=f"exp(-{'x * x' if _rate == 1 else 'x * x / 2'}), accurate in its tails.",
        infer=floating,
        impl=_bell_of(_rate),
        grad=Partials(lambda b, out, x, _factor=-2.0 * _rate: b.mul(b.mul(x, _factor), out)),
        lower=Scalar(_name),
        samples=uniform((-3, 3)),
        special=(*EDGES, 20.0, -38.0),
        accuracy="2 ULP",
    )


def _erfcx_partial(b: Builder, out: Node, x: Node) -> Node:
    """2x erfcx(x) - 2/sqrt(pi); its two terms cancel for large x, where the asymptotic series takes over."""
    direct = b.sub(b.mul(b.add(x, x), out), TWO_OVER_SQRT_PI)
    far = b.gt(x, 30.0)
    square = b.mul(x, x)
    step = b.div(-0.5, square)
    # 2/sqrt(pi) * sum of (2n-1)!! (-1/(2 x*x))**n for n >= 1, by Horner
    series = b.full(945.0, x.type)
    for coefficient in (105.0, 15.0, 3.0, 1.0):
        series = b.add(b.mul(series, step), coefficient)
    return b.select(far, b.mul(b.mul(series, step), TWO_OVER_SQRT_PI), direct)


_declare(
    "erf",
    "Error function.",
    (lambda b, out, x: _bell(b, x),),
    Scalar("erf"),
    (-2, 2),
    special=(30.0, -30.0),
    accuracy="2 ULP",
)
_declare(
    "erfc",
    "1 - erf(x) without cancellation.",
    (lambda b, out, x: b.neg(_bell(b, x)),),
    Scalar("erfc"),
    (-2, 2),
    special=(30.0, -30.0),
    accuracy="2 ULP",
)
_declare(
    "erfcx",
    "exp(x*x) erfc(x), the scaled complement.",
    (_erfcx_partial,),
    Scalar("erfcx"),
    (-2, 4),
    special=(50.0, 1e10, -30.0),
    accuracy="4 ULP",
)

# ----------------------------------------------------------------------------------------- logistic functions


def _expand_expit(b: Builder, out: Node, x: Node) -> Node:
    lower, upper = logistic_parts(b, x, "exp")
    return b.select(b.lt(x, 0.0), lower, upper)


def _expand_expit_gap(b: Builder, out: Node, x: Node) -> Node:
    _, upper = logistic_parts(b, x, "exp")
    return b.emit("copysign", b.mul(b.expm1(b.neg(b.abs(x))), upper), x)


def _expand_logit(b: Builder, out: Node, x: Node) -> Node:
    """log(x / (1 - x)), and around 1/2, where that loses digits, log1p(s) - log1p(-s) with s = 2x - 1."""
    s = b.mul(b.sub(x, 0.5), 2.0)
    middle = b.sub(b.log1p(s), b.log1p(b.neg(s)))
    near = b.emit("and", b.ge(x, 0.3), b.le(x, 0.65))
    return b.select(near, middle, b.log(b.div(x, b.sub(1.0, x))))


_declare(
    "expit",
    "Logistic function 1 / (1 + exp(-x)).",
    (lambda b, out, x: b.expit_slope(x),),
    Decompose(_expand_expit),
    (-3, 3),
    special=(1000.0, -1000.0),
    accuracy="3 ULP",
)
op(
    "expit_slope",
    doc="expit(x) * expit(-x), the derivative of expit: expit(x) * (1 - expit(x)) loses its digits where expit saturates.",
    infer=floating,
    impl=lambda x: np.asarray(_scipy("expit")(x) * _scipy("expit")(-x)),
    grad=Partials(lambda b, out, x: b.neg(b.mul(out, b.expit_gap(x)))),
    lower=Decompose(lambda b, out, x: b.mul(*logistic_parts(b, x, "exp"))),
    samples=uniform((-3, 3)),
    special=(*EDGES, 1000.0, -1000.0),
)
op(
    "expit_gap",
    doc="expit(x) - expit(-x) = tanh(x / 2), from the parts of expit that are there and expm1.",
    infer=floating,
    impl=lambda x: np.asarray(np.tanh(x * x.dtype.type(0.5))),
    grad=Partials(lambda b, out, x: b.mul(b.expit_slope(x), 2.0)),
    lower=Decompose(_expand_expit_gap),
    samples=uniform((-3, 3)),
    special=(*EDGES, 1000.0, -1000.0),
)
_declare(
    "log_expit",
    "Logarithm of the logistic function.",
    (lambda b, out, x: b.expit(b.neg(x)),),
    Scalar("log_expit"),
    (-3, 3),
    special=(1000.0, -1000.0),
    accuracy="3 ULP",
)
_declare(
    "logit",
    "log(x / (1 - x)), the inverse of expit.",
    (lambda b, out, x: b.div(1.0, b.mul(x, b.sub(1.0, x))),),
    Decompose(_expand_logit),
    (0.1, 0.9),
    special=(1.0, 0.5, 2.0),
)

# ---------------------------------------------------------------------------------------------- entropy terms


def _times_log(log: str) -> Callable[..., Node]:
    """x * log(y) that is 0 at x = 0 unless y is NaN."""

    def expand(b: Builder, out: Node, x: Node, y: Node) -> Node:
        zero = b.full(0.0, x.type)
        nothing = b.emit("and", b.eq(x, zero), b.emit("not", b.isnan(y)))
        return b.select(nothing, zero, b.mul(x, b.emit(log, y)))

    return expand


def _ratio(b: Builder, x: Node, y: Node) -> Node:
    """x / y, and 0 where both are 0."""
    zero = b.full(0.0, x.type)
    return b.select(b.emit("and", b.eq(x, zero), b.eq(y, zero)), zero, b.div(x, y))


_declare(
    "xlogy",
    "x log(y), 0 at x = 0.",
    (lambda b, out, x, y: b.log(y), lambda b, out, x, y: _ratio(b, x, y)),
    Decompose(_times_log("log")),
    (-3, 3),
    (0.2, 3),
)
_declare(
    "xlog1py",
    "x log1p(y), 0 at x = 0.",
    (lambda b, out, x, y: b.log1p(y), lambda b, out, x, y: _ratio(b, x, b.add(y, 1.0))),
    Decompose(_times_log("log1p")),
    (-3, 3),
    (-0.7, 3),
    special=(-1.0,),
)

# ---------------------------------------------------------------------------------------- normal distribution


def _expand_log_ndtr(b: Builder, out: Node, x: Node) -> Node:
    t = b.mul(x, SQRT_HALF)
    lower = b.sub(b.log(b.mul(b.erfcx(b.neg(t)), 0.5)), b.mul(t, t))
    upper = b.log1p(b.mul(b.erfc(t), -0.5))
    return b.select(b.lt(x, -1.0), lower, upper)


_FRACTION = 32
"""Terms of the continued fraction of Mills' ratio: below 1 ULP of float64 from 5 on."""


def _expand_hazard(b: Builder, out: Node, x: Node) -> Node:
    """sqrt(2/pi) / erfcx(-x/sqrt(2)), and phi(x) / Phi(x) where erfcx would magnify the rounding of its
    argument.
    """
    lower = b.div(math.sqrt(2.0 / math.pi), b.erfcx(b.mul(x, -SQRT_HALF)))
    bell = b.mul(b.half_bell(x), 1.0 / math.sqrt(2.0 * math.pi))
    return b.select(b.gt(x, 1.0), b.div(bell, b.mul(b.erfc(b.mul(x, -SQRT_HALF)), 0.5)), lower)


def _expand_hazard_excess(b: Builder, out: Node, x: Node) -> Node:
    """x + hazard(x) is 1 / (y + 2 / (y + 3 / (y + ...))) for y = -x: far below 0 the sum would cancel (DLMF
    7.9.1).
    """
    far = b.lt(x, -5.0)
    y = b.select(far, b.neg(x), b.full(5.0, x.type))
    tail = y
    for k in range(_FRACTION, 1, -1):
        tail = b.add(y, b.div(float(k), tail))
    return b.select(far, b.div(1.0, tail), b.add(x, b.hazard(x)))


def _reference(expand: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def impl(x: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(expand(np.asarray(x))).astype(x.dtype, copy=False)

    return impl


def _hazard(x: Any) -> Any:
    import scipy.special  # as in _scipy

    half = x.dtype.type(SQRT_HALF)
    lower = math.sqrt(2.0 / math.pi) / scipy.special.erfcx(-x * half)
    upper = _bell_of(0.5)(x) / math.sqrt(2.0 * math.pi) / (scipy.special.erfc(-x * half) * 0.5)
    return np.where(x > 1, upper, lower)


def _hazard_excess(x: Any) -> Any:
    y = np.where(x < -5, -x, 5).astype(x.dtype)
    tail = y
    for k in range(_FRACTION, 1, -1):
        tail = y + k / tail
    return np.where(x < -5, 1 / tail, x + _hazard(x))


op(
    "hazard",
    doc="phi(x) / Phi(x), the derivative of log_ndtr, without cancellation or underflow in either tail.",
    infer=floating,
    impl=_reference(_hazard),
    grad=Partials(lambda b, out, x: b.neg(b.mul(out, b.hazard_excess(x)))),
    lower=Decompose(_expand_hazard),
    samples=uniform((-3, 3)),
    special=(*EDGES, 30.0, -40.0, -1e5),
)
op(
    "hazard_excess",
    doc="x + hazard(x), without cancellation far below 0.",
    infer=floating,
    impl=_reference(_hazard_excess),
    grad=Partials(lambda b, out, x: b.sub(1.0, b.mul(b.hazard(x), out))),
    lower=Decompose(_expand_hazard_excess),
    samples=uniform((-3, 3)),
    special=(*EDGES, 30.0, -40.0, -1e5),
)


_declare(
    "ndtr",
    "Distribution function of the standard normal distribution.",
    (lambda b, out, x: b.mul(b.half_bell(x), 1.0 / math.sqrt(2.0 * math.pi)),),
    Decompose(lambda b, out, x: b.mul(b.erfc(b.mul(x, -SQRT_HALF)), 0.5)),
    (-3, 3),
    special=(40.0, -40.0),
)
_declare(
    "log_ndtr",
    "Logarithm of ndtr, accurate far into the lower tail.",
    (lambda b, out, x: b.hazard(x),),
    Decompose(_expand_log_ndtr),
    (-3, 3),
    special=(40.0, -40.0, -1e5),
)

# -------------------------------------------------------------------------------------------- gamma functions

_declare(
    "gammaln",
    "log |Gamma(x)|.",
    (lambda b, out, x: b.digamma(x),),
    Scalar("lgamma"),
    (0.3, 4),
    special=(-1.0, -2.5, 1e10),
    accuracy="see docs/accuracy.md",
)
op(
    "digamma",
    doc="Derivative of gammaln.",
    infer=floating,
    impl=_scipy("psi"),
    grad=Partials(lambda b, out, x: b.trigamma(x)),
    lower=Scalar("digamma"),
    numpy=["scipy.special.psi"],  # scipy.special.digamma is the same object
    samples=uniform((0.3, 4)),
    special=(*EDGES, -1.0, -2.5, 1e10),
    accuracy="see docs/accuracy.md",
)


def _polygamma(x: Any, *, n: int) -> Any:
    """SciPy's; left of -1000 by the recurrence (DLMF 5.15.5), since SciPy adds -x terms there: hours for
    -1e12.
    """
    import scipy.special  # as in _scipy

    x = np.asarray(x)
    given = x.astype(F64)
    far = (given < -1000) & np.isfinite(given)
    steps = np.where(far, np.floor(-given) - 1000, 0)
    found = scipy.special.polygamma(n, given + steps)
    if far.any():
        first, last = (np.where(far, 1 - given - moved, 1.0) for moved in (steps, 0))
        between = scipy.special.zeta(n + 1, first) - scipy.special.zeta(n + 1, last)
        found = np.where(far, found + math.factorial(n) * between, found)
    return np.asarray(found).astype(x.dtype)


op(
    "trigamma",
    doc="Derivative of digamma.",
    infer=floating,
    impl=lambda x: _polygamma(x, n=1),
    grad=Partials(lambda b, out, x: b.polygamma(x, n=2)),
    lower=Scalar("trigamma"),
    samples=uniform((0.3, 4)),
    special=(*EDGES, -1.0, -2.5, 1e10),
    accuracy="see docs/accuracy.md",
)

_SHIFT = 12  # the asymptotic series starts at x + 12
_BERNOULLI = tuple(
    Fraction(*pair)
    for pair in (
        (1, 6),
        (-1, 30),
        (1, 42),
        (-1, 30),
        (5, 66),
        (-691, 2730),
        (7, 6),
        (-3617, 510),
        (43867, 798),
    )
)


def _infer_polygamma(x: Type, *, n: int) -> Type:
    if n < 2:
        raise ShapeError("polygamma is declared for n >= 2; n = 0 is digamma and n = 1 is trigamma")
    return floating(x)


def _power(b: Builder, x: Node, n: int) -> Node:
    """x**n for a small positive integer by repeated squaring."""
    result: Node | None = None
    while n:
        if n & 1:
            result = x if result is None else b.mul(result, x)
        x, n = b.mul(x, x), n >> 1
    assert result is not None
    return result


def _expand_polygamma(b: Builder, out: Node, x: Node) -> Node:
    """(-1)**(n+1) n! zeta(n+1, x): 12 terms and the Euler-Maclaurin tail (DLMF 5.15.9); reflection for x <
    1/2 (5.15.6).
    """
    n: Any = out.attrs["n"]
    reflected = b.lt(x, 0.5)
    y = b.select(reflected, b.sub(1.0, x), x)
    shifted = b.add(y, float(_SHIFT))
    # tail: (n-1)!/z**n + n!/(2 z**(n+1)) + sum of B_2k (2k+n-1)!/(2k)! / z**(2k+n)
    inverse = b.div(1.0, shifted)
    step = b.mul(inverse, inverse)
    series = b.full(0.0, x.type)
    for k in range(len(_BERNOULLI), 0, -1):
        term = _BERNOULLI[k - 1] * math.factorial(2 * k + n - 1) / math.factorial(2 * k)
        series = b.mul(b.add(series, float(term)), step)
    half = b.mul(inverse, math.factorial(n) / 2)
    tail = b.mul(b.add(b.add(series, half), float(math.factorial(n - 1))), _power(b, inverse, n))
    total = b.full(0.0, x.type)
    for k in range(_SHIFT - 1, -1, -1):  # smallest terms first
        total = b.add(total, _power(b, b.div(1.0, b.add(y, float(k))), n + 1))
    value = b.add(b.mul(total, float(math.factorial(n))), tail)  # (-1)**(n+1) psi_n(y)
    # psi_n(1-x) = (-1)**n (psi_n(x) + d^n/dx^n pi cot(pi x)); the derivative is a polynomial in the cotangent
    polynomial = _cotangent_derivative(n)
    reduced = b.mul(b.sub(x, b.rint(x)), math.pi)
    cotangent = b.div(1.0, b.tan(reduced))
    circle = b.full(polynomial[-1], x.type)
    for coefficient in reversed(polynomial[:-1]):
        circle = b.add(b.mul(circle, cotangent), coefficient)
    sign = -1.0 if n % 2 == 0 else 1.0  # (-1)**(n+1)
    mirrored = b.sub(b.neg(value), circle)
    return b.select(reflected, mirrored, b.mul(value, sign))


def _cotangent_derivative(n: int) -> list[float]:
    """d^n/dx^n pi cot(pi x) as coefficients in c = cot(pi x), lowest first: each step applies c' = -pi (1 +
    c*c).
    """
    row = [0, 1]
    for _ in range(n):
        slope = [k * a for k, a in enumerate(row)][1:]
        row = [-a - c for a, c in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return [a * math.pi ** (n + 1) for a in row]


op(
    "polygamma",
    doc="n-th derivative of digamma, n >= 2.",
    attrs=("n",),
    infer=_infer_polygamma,
    impl=_polygamma,
    grad=Partials(lambda b, out, x: b.polygamma(x, n=out.attrs["n"] + 1)),
    lower=Decompose(_expand_polygamma),
    samples=Cases(
        lambda rng, draw: [([np.abs(draw(5)) + draw().dtype.type(0.5)], {"n": n}) for n in (2, 3, 4)]
    ),
    special=(0.0, -0.0, float("inf"), float("nan"), 1e3, -2.3),  # no limit at -inf
)
