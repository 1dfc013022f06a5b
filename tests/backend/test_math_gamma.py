"""lgamma, digamma, trigamma against mpmath and SciPy; fmod against exact rational arithmetic and C's fmod.

The error is counted in units in the last place of the exact result; at negative arguments, where the terms of
the reflection formula cancel near the zeros, of max(1, |f(x)|, |f(-x)|).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import mpmath
import numpy as np
import pytest
from scipy import special

from graphjit.backend.llvm.math import ELEMENTS, FUNCTIONS, emit
from graphjit.backend.llvm.math.library import ATTRIBUTES
from graphjit.backend.llvm.objects import symbols
from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.backend.llvm.writing.text import Function, Module

DTYPES = {"f64": np.float64, "f32": np.float32}
LANES = {"f64": (1, 8), "f32": (1, 8, 16)}
POINTS = 100
EXACT = {
    "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))) if abs(x) < 1e4 else mpmath.loggamma(x).real,
    "digamma": lambda x: mpmath.psi(0, x),
    "trigamma": lambda x: mpmath.psi(1, x),
}
SCIPY = {"lgamma": special.gammaln, "digamma": special.digamma, "trigamma": lambda x: special.polygamma(1, x)}
ROOT = 1.4616321449683622  # of digamma


@cache
def compiled(name: str, lanes: int, kind: str) -> Callable[..., np.ndarray]:
    """The function over arrays, ``lanes`` elements at a time; short blocks are filled with ones."""
    element, dtype = ELEMENTS[kind], DTYPES[kind]
    of = element if lanes == 1 else f"<{lanes} x {element}>"
    pointers = [f"%p{i}" for i in range(FUNCTIONS[name].arity)]
    module = Module("test")
    signature = [("ptr", p) for p in [*pointers, "%out"]] + [("i64", "%n")]
    fn = Function(module, "kernel", "void", signature, ATTRIBUTES)

    def place(pointer: str) -> str:
        return f"ptr {fn.op(f'getelementptr {element}, ptr {pointer}, i64 {index.name}')}, align 4"

    fn.do("br label %head")
    fn.start("head")
    index = fn.phi("i64")
    index.add("0", "entry")
    operands = [fn.op(f"load {of}, {place(p)}") for p in pointers]
    fn.do(f"store {of} {emit(fn, name, lanes, kind, operands)}, {place('%out')}")
    following = fn.op(f"add i64 {index.name}, {lanes}")
    index.add(following, fn.current)
    fn.do(f"br i1 {fn.op(f'icmp ult i64 {following}, %n')}, label %head, label %end")
    fn.start("end")
    fn.do("ret void")
    module.add_function(fn)
    symbols.provide(module)
    native = NativeModule(module.render())
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(pointers) + 1), ctypes.c_int64)(
        native.address("kernel")
    )

    def run(*arrays: np.ndarray, native: NativeModule = native) -> np.ndarray:
        size = arrays[0].size
        padded = [np.concatenate([np.asarray(a, dtype), np.ones(-size % lanes, dtype)]) for a in arrays]
        out = np.empty_like(padded[0])
        kernel(*(a.ctypes.data for a in padded), out.ctypes.data, out.size)
        return out[:size]

    return run


def same_bits(kind: str, name: str, *arrays: np.ndarray) -> np.ndarray:
    """The results, after a check that every number of lanes gives the same bits (NaN counts as one value)."""
    first, *others = [compiled(name, lanes, kind)(*arrays) for lanes in LANES[kind]]
    for other in others:
        np.testing.assert_array_equal(first, other)
        valid = ~np.isnan(first)
        assert np.array_equal(np.signbit(first[valid]), np.signbit(other[valid]))
    return first


def around(rng: np.random.Generator, centre: float) -> np.ndarray:
    return centre + rng.choice([-1, 1], POINTS) * np.exp(rng.uniform(-36, -1, POINTS))


SAMPLES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "around 1": lambda rng: around(rng, 1.0),
    "around 2": lambda rng: around(rng, 2.0),
    "around the root": lambda rng: around(rng, ROOT),
    "to 1/2": lambda rng: rng.uniform(0, 0.5, POINTS),
    "1/2 to 3": lambda rng: rng.uniform(0.5, 3, POINTS),
    "3 to 9": lambda rng: rng.uniform(3, 9, POINTS),
    "9 to 40": lambda rng: rng.uniform(9, 40, POINTS),
    "huge": lambda rng: np.exp(rng.uniform(3, 705, POINTS)),
    "tiny": lambda rng: np.exp(-rng.uniform(1, 744, POINTS)),
    "negative tiny": lambda rng: -np.exp(-rng.uniform(1, 744, POINTS)),
    "to -1/2": lambda rng: -rng.uniform(0, 0.5, POINTS),
    "to -20": lambda rng: -rng.uniform(0.5, 20, POINTS),
    "negative": lambda rng: -np.exp(rng.uniform(0, 9, POINTS)),
}


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sample", SAMPLES)
def test_accuracy(name: str, kind: str, sample: str) -> None:
    dtype = DTYPES[kind]
    bound = FUNCTIONS[name].ulp_f64 if kind == "f64" else FUNCTIONS[name].ulp_f32
    if name == "trigamma" and sample.startswith("to -"):
        bound += 1.0  # the reflection formula adds the error of pi**2 / sin(pi x)**2; docs/accuracy.md states the bound for x > 0
    with np.errstate(over="ignore", under="ignore"):
        x = SAMPLES[sample](np.random.default_rng(7)).astype(dtype)
    x = x[np.isfinite(x) & (x != 0) & ((x > 0) | (x != np.floor(x)))]
    got = same_bits(kind, name, x)
    worst, at = 0.0, 0.0
    with mpmath.workprec(120), np.errstate(over="ignore", under="ignore"):
        for argument, result in zip(x.tolist(), got.tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(argument))
            rounded = dtype(float(exact))
            if np.isinf(rounded):
                assert result == rounded, argument
                continue
            assert np.isfinite(result), argument
            scale = abs(rounded)
            if argument < 0 and name != "trigamma":
                mirrored = abs(float(EXACT[name](mpmath.mpf(-argument))))
                scale = max(scale, dtype(1), dtype(mirrored))
            error = float(abs(mpmath.mpf(result) - exact) / mpmath.mpf(float(np.spacing(scale))))
            if error > worst:
                worst, at = error, argument
    assert worst <= bound, f"{worst:.2f} ULP at {at!r}"


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_special_values_are_scipys(name: str, kind: str) -> None:
    x = np.array(
        [0.0, -0.0, np.inf, -np.inf, np.nan, 1, 2, -1, -2, -3, -64, -(2.0**23), -(2.0**60)], DTYPES[kind]
    )
    with np.errstate(all="ignore"):
        expected = SCIPY[name](x.astype(np.float64)).astype(DTYPES[kind])
    got = same_bits(kind, name, x)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    exceptional = ~np.isfinite(expected)
    np.testing.assert_array_equal(got[exceptional], expected[exceptional])
    np.testing.assert_allclose(got[~exceptional], expected[~exceptional], rtol=4 * np.finfo(DTYPES[kind]).eps)


def test_lgamma_at_its_zeros_and_at_overflow() -> None:
    with mpmath.workprec(120):
        largest = mpmath.mpf(float(np.finfo(np.float64).max))
        unit = mpmath.mpf(10) ** 305
        last = float(unit * mpmath.findroot(lambda t: mpmath.loggamma(t * unit) / largest - 1, (2.5, 2.6)))
    got = same_bits("f64", "lgamma", np.array([1.0, 2.0, last * (1 + 1e-12), 1e308, last * (1 - 1e-12)]))
    np.testing.assert_array_equal(got[:4], [0.0, 0.0, np.inf, np.inf])
    np.testing.assert_allclose(got[4], float(largest) * (1 - 1e-12), rtol=1e-13)


def fmod_pairs(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Operands of every ratio: random bit patterns, near multiples on both sides, subnormals, equal ones."""
    rng, dtype = np.random.default_rng(11), DTYPES[kind]
    pattern = np.uint64 if kind == "f64" else np.uint32
    drawn = rng.integers(0, np.iinfo(pattern).max, (2, 500), dtype=pattern).view(dtype)
    x, y = drawn[:, np.isfinite(drawn).all(axis=0) & (drawn[1] != 0)]
    divisor = rng.uniform(0.5, 2, 400).astype(dtype)
    product = (divisor * np.floor(np.exp(rng.uniform(0, 40, 400)))).astype(dtype)
    step = np.choose(
        rng.integers(0, 3, 400),
        [np.nextafter(product, dtype(0)), product, np.nextafter(product, dtype(np.inf))],
    )
    small = np.finfo(dtype).smallest_subnormal
    low = (rng.integers(1, 1 << 20, (2, 200)) * small).astype(dtype)
    top = np.full(200, np.finfo(dtype).max)
    return np.concatenate([x, step, low[0], top, x]), np.concatenate([y, divisor, low[1], low[0], x])


@pytest.mark.parametrize("kind", DTYPES)
def test_fmod_is_exact(kind: str) -> None:
    x, y = fmod_pairs(kind)
    got = same_bits(kind, "fmod", x, y)
    for a, b, r in zip(x.tolist(), y.tolist(), got.tolist(), strict=True):
        exact = abs(Fraction(a)) % abs(Fraction(b))
        assert Fraction(r) == (exact if a > 0 else -exact), (a, b)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(x))


@pytest.mark.parametrize("kind", DTYPES)
def test_fmod_special_values(kind: str) -> None:
    info = np.finfo(DTYPES[kind])
    values = [0.0, 1.0, 1.5, 3.0, info.max, info.tiny, info.smallest_subnormal, np.inf, np.nan]
    signed = np.array(values + [-v for v in values], DTYPES[kind])
    x, y = (a.ravel() for a in np.meshgrid(signed, signed))
    with np.errstate(invalid="ignore"):
        expected = np.fmod(x, y)
    got = same_bits(kind, "fmod", x, y)
    np.testing.assert_array_equal(got, expected)
    valid = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[valid]), np.signbit(expected[valid]))
