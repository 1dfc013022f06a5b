"""Accuracy, special values and lane agreement of the compiled elementary functions.

float64 is compared with mpmath, float32 with NumPy's and SciPy's float64. Run as a script, this file measures
many more points and writes docs/accuracy.md.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.special as special

from graphjit.backend.llvm.math import ELEMENTS, FUNCTIONS, emit, provide
from graphjit.backend.llvm.objects import symbols
from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.backend.llvm.writing.vector import Vector
from graphjit.machine import machine

KINDS = ("f64", "f32")
DTYPE = {"f64": np.float64, "f32": np.float32}
LANES = {"f64": (1, 8, 2, 16), "f32": (1, 16, 4, 32)}  # the second is the native width
BITS = {"f64": np.int64, "f32": np.int32}
DOCUMENT = Path(__file__).parents[2] / "docs" / "accuracy.md"
NEGATIVE_GAMMA = 16.0  # units of the last place of max(1, |f|), for negative arguments of the gamma family

INF, NAN = float("inf"), float("nan")
ATTRIBUTES = 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'

# ---------------------------------------------------------------------------------------------------- running


def _loop(module: Module, symbol: str, name: str, kind: str, lanes: int, variant: str) -> None:
    """A function (x, y, out, n) that applies ``name`` to arrays whose length is a multiple of 32."""
    element = ELEMENTS[kind]
    size = np.dtype(DTYPE[kind]).itemsize
    fn = Function(
        module, symbol, "void", [("ptr", "%x"), ("ptr", "%y"), ("ptr", "%o"), ("i64", "%n")], ATTRIBUTES
    )
    v = Vector(fn, element, lanes, False if variant == "generic" else None)
    fn.do("br label %loop")
    fn.start("loop")
    index = fn.phi("i64")
    index.add("0", "entry")
    pointers = [fn.op(f"getelementptr {element}, ptr {p}, i64 {index.name}") for p in ("%x", "%y", "%o")]
    args = [fn.op(f"load {v.of}, ptr {p}, align {size}") for p in pointers[: FUNCTIONS[name].arity]]
    if variant == "generic":
        result = FUNCTIONS[name].body(v, *args)
    else:
        result = emit(fn, name, lanes, kind, args, inline=variant == "inline")
    fn.do(f"store {v.of} {result}, ptr {pointers[2]}, align {size}")
    following = fn.op(f"add i64 {index.name}, {lanes}")
    index.add(following, fn.current)
    fn.do(f"br i1 {fn.op(f'icmp slt i64 {following}, %n')}, label %loop, label %exit")
    fn.start("exit")
    fn.do("ret void")
    module.add_function(fn)


def _variants(kind: str) -> list[tuple[int, str]]:
    native = LANES[kind][1]
    return [(lanes, "inline") for lanes in LANES[kind]] + [(1, "called"), (1, "generic"), (native, "generic")]


@cache
def _compiled(name: str, kind: str) -> tuple[NativeModule, dict[tuple[int, str], Callable[..., None]]]:
    module = Module(f"{name}_{kind}")
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    for lanes, variant in _variants(kind):
        _loop(module, f"run_{variant}_{lanes}", name, kind, lanes, variant)
    symbols.provide(module)
    native = NativeModule(module.render())
    return native, {(n, how): prototype(native.address(f"run_{how}_{n}")) for n, how in _variants(kind)}


def run(
    name: str, kind: str, x: np.ndarray, y: np.ndarray | None = None, lanes: int = 0, variant: str = "inline"
) -> np.ndarray:
    """The compiled function on arrays; the native number of lanes unless told."""
    dtype = DTYPE[kind]
    length = -(-len(x) // 32) * 32
    padded = [np.ones(length, dtype) for _ in range(3)]
    padded[0][: len(x)] = x
    if y is not None:
        padded[1][: len(x)] = y
    call = _compiled(name, kind)[1][lanes or LANES[kind][1], variant]
    call(*(a.ctypes.data for a in padded), length)
    return padded[2][: len(x)]


def identical(a: np.ndarray, b: np.ndarray, kind: str) -> np.ndarray:
    """Where two results have the same bits; NaNs are all alike."""
    return (a.view(BITS[kind]) == b.view(BITS[kind])) | (np.isnan(a) & np.isnan(b))


# ---------------------------------------------------------------------------------------------------- samples


class Draw:
    """Random arguments of one precision."""

    def __init__(self, kind: str, count: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = DTYPE[kind]
        self.double = kind == "f64"
        self.count = count

    def between(self, low: float, high: float) -> np.ndarray:
        """Uniform."""
        return self.rng.uniform(low, high, self.count).astype(self.dtype)

    def decades(self, low: float, high: float, signed: bool = False) -> np.ndarray:
        """Uniform exponent, in powers of ten; either sign if asked."""
        size = np.power(10.0, self.rng.uniform(low, high, self.count))
        return (size * (self.rng.choice([-1.0, 1.0], self.count) if signed else 1.0)).astype(self.dtype)

    def near(self, points: np.ndarray | list[float], closest: float = -16.0) -> np.ndarray:
        """Points and their neighbourhoods, ever closer."""
        base = self.rng.choice(np.asarray(points), self.count)
        return (
            base
            * (
                1.0
                + np.power(10.0, self.rng.uniform(closest, -1, self.count))
                * self.rng.choice([-1, 0, 1], self.count)
            )
        ).astype(self.dtype)

    @property
    def tiny(self) -> np.ndarray:
        """Normal and subnormal numbers of either sign near zero."""
        return self.decades(-323, 0, True) if self.double else self.decades(-45, 0, True)

    @property
    def positive(self) -> np.ndarray:
        """The whole range of positive numbers."""
        return self.decades(-323, 308.2) if self.double else self.decades(-45, 38.5)


Samples = list[np.ndarray] | list[tuple[np.ndarray, np.ndarray]]


def samples(name: str, d: Draw) -> Samples:
    """Arguments over the whole domain of a function, denser where it is difficult."""
    far = d.decades(-3, 308.2, True) if d.double else d.decades(-3, 38.5, True)
    top = 709.7 if d.double else 88.7  # exp overflows beyond
    low = -745.0 if d.double else -103.9
    trigonometric = [
        d.between(-7, 7),
        d.between(-65000, 65000),
        d.between(-(2.0**30), 2.0**30),
        far,
        d.near(np.arange(1, 4000) * math.pi / 2),
        d.tiny,
        d.near([2.0**30, 2.0**16]),
    ]
    unit = [d.between(-1, 1), d.tiny, np.clip(d.near([1.0, -1.0, 0.5, -0.5]), -1, 1)]
    exponential = [d.between(low, top), d.between(-1, 1), d.tiny, d.between(-40, 40)]
    gamma = [
        d.between(0, 3),
        d.between(0.5, 12),
        d.decades(-300, 300) if d.double else d.positive,
        d.near([1.0, 2.0, 1.4616321449683622, 8.5]),
    ]
    table: dict[str, Samples] = {
        "exp": exponential,
        "expm1": [*exponential, d.near([0.34, -0.34, 0.69, -0.69])],
        "exp2": [d.between(low / 0.6931, top / 0.6931), d.between(-1, 1), d.tiny],
        "log_expit": [d.between(low, -low), d.between(-5, 5), d.tiny],
        "sinh": [*exponential, d.between(-top, top)],
        "cosh": [*exponential, d.between(-top, top)],
        "tanh": [d.between(-20, 20), d.between(-1.5, 1.5), d.tiny],
        "sin": trigonometric,
        "cos": trigonometric,
        "tan": trigonometric,
        "asin": unit,
        "acos": unit,
        "atan": [d.between(-1, 1), d.between(-9, 9), far, d.tiny, d.near([1.0, -1.0])],
        "asinh": [d.between(-3, 3), far, d.tiny],
        "acosh": [d.between(1, 9), np.abs(far)[np.abs(far) > 1], 1 + np.abs(d.tiny)],
        "atanh": [d.between(-1, 1), d.tiny * 0.999],
        "cbrt": [d.between(-30, 30), d.positive, -d.positive],
        "erf": [d.between(-6, 6), d.between(-1, 1), d.tiny],
        "erfc": [d.between(-6, 6), d.between(0, 26.5 if d.double else 10), d.between(-1, 1), d.tiny],
        "bell": [d.between(-27 if d.double else -10.2, 10), d.between(-1, 1), d.tiny],
        "half_bell": [d.between(-38.6 if d.double else -14.4, 10), d.between(-1, 1), d.tiny],
        "erfcx": [d.between(-26 if d.double else -9.3, 3), d.between(0, 30), d.tiny, d.decades(0, 8)],
        "lgamma": gamma,
        "digamma": gamma,
        "trigamma": gamma,
        "sqrt": [d.positive],
    }
    for name_of_log in ("log", "log2", "log10"):
        table[name_of_log] = [d.positive, d.between(0.5, 2), d.near([1.0])]
    table["log1p"] = [d.between(-1, 1), d.between(-0.99, 9), d.tiny * 0.999, d.positive]
    if name in table:
        return table[name]
    if name == "pow":
        bases = (np.exp(d.between(-0.98 * top, 0.98 * top)), d.between(0.5, 2), d.between(0.95, 1.06))
        away = [x[x != 1].astype(d.dtype) for x in bases]
        return [
            *(
                (x, (d.between(low, top)[: len(x)] / np.log(x.astype(np.float64))).astype(d.dtype))
                for x in away
            ),
            (d.between(0, 9), d.between(-4, 4)),
            (d.between(-9, 0), np.round(d.between(-40, 40))),
            (d.positive, d.decades(-20, 1, True)),
        ]
    if name == "atan2":
        turn = d.decades(-20, 20, True)
        size = d.decades(-250, 250) if d.double else d.decades(-18, 18)
        return [
            (d.between(-9, 9), d.between(-9, 9)),
            (size, (size * turn).astype(d.dtype)),
            (-size, (size * d.between(-2, 2))),
        ]
    if name == "hypot":
        size = d.decades(-320, 307) if d.double else d.decades(-44, 38)
        return [(d.between(-9, 9), d.between(-9, 9)), (size, (size * d.decades(-12, 0)).astype(d.dtype))]
    if name == "logaddexp":
        level = d.between(-90, 90)
        return [
            (d.between(-9, 9), d.between(-9, 9)),
            (level, level + d.between(-50, 50)),
            (d.between(-1, 0), d.between(-1, 0)),
        ]
    if name == "fmod":
        return [
            (d.between(-99, 99), d.between(-9, 9)),
            (far, d.rng.permutation(far)),
            (far, d.tiny[np.arange(len(far))]),
        ]
    return [d.between(-9, 9), far, d.tiny]


# -------------------------------------------------------------------------------------------------- reference

EXACT: dict[str, Callable[..., mpmath.mpf]] = {
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2),
    "log_expit": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "logaddexp": lambda x, y: mpmath.log(mpmath.exp(x) + mpmath.exp(y)),
    "bell": lambda x: mpmath.exp(-x * x),
    "half_bell": lambda x: mpmath.exp(-x * x / 2),
    "erfcx": lambda x: mpmath.exp(x * x) * mpmath.erfc(x),
    "cbrt": lambda x: mpmath.cbrt(x) if x >= 0 else -mpmath.cbrt(-x),
    "pow": mpmath.power,
    "lgamma": lambda x: mpmath.loggamma(x).real,
    "digamma": lambda x: mpmath.psi(0, x),
    "trigamma": lambda x: mpmath.psi(1, x),
}
DOUBLE: dict[str, Callable[..., np.ndarray]] = {
    "bell": lambda x: np.exp(-x * x),
    "half_bell": lambda x: np.exp(-x * x / 2),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
    "pow": np.power,
    "lgamma": special.gammaln,
    "trigamma": lambda x: special.polygamma(1, x),
}
EXACT_RESULTS = ("sqrt", "floor", "ceil", "trunc", "rint", "fmod")


def reference(name: str) -> Callable[..., np.ndarray]:
    """NumPy's or SciPy's function."""
    return DOUBLE.get(name) or getattr(np, name, None) or getattr(special, name)


def working_bits(name: str, args: tuple[np.ndarray, ...]) -> int:
    """Precision in which the reference is exact enough."""
    size = float(np.max(np.abs(args[0])))
    if name in ("sin", "cos", "tan"):
        return 1300 if size > 1e9 else 220
    if name in ("acosh", "log1p", "expit", "log_expit", "tanh", "expm1", "erf", "cosh") or (
        name == "erfcx" and size > 1e4
    ):
        return 1250  # sums of numbers of very different size
    return 220


def errors_f64(name: str, args: tuple[np.ndarray, ...], got: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Errors in units of the last place of max(|exact|, least)."""
    function = EXACT.get(name) or getattr(mpmath, name)
    nearest, offset = np.empty(len(got)), np.empty(len(got))
    with mpmath.workprec(working_bits(name, args)):
        for i, point in enumerate(zip(*(a.tolist() for a in args), strict=True)):
            value = function(*map(mpmath.mpf, point))
            nearest[i] = float(value)
            unit = float(np.spacing(max(abs(nearest[i]), least)))
            offset[i] = 0.0 if math.isinf(nearest[i]) else float((value - mpmath.mpf(nearest[i])) / unit)
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.abs((got - nearest) / np.spacing(np.maximum(np.abs(nearest), least)) - offset)
        beyond = np.abs(got - nearest) / 2.0**970
    # a value that rounds to infinity: the largest finite number is one unit away
    found = np.where(np.isinf(nearest), np.where(got == nearest, 0.0, 1.0 + beyond), found)
    found = np.where(
        np.isinf(got) & ~np.isinf(nearest),
        (np.finfo(np.float64).max - np.abs(nearest)) / 2.0**970 + 1.0,
        found,
    )
    return np.where(np.isnan(got), INF, found)


def errors_f32(name: str, args: tuple[np.ndarray, ...], got: np.ndarray, least: float = 0.0) -> np.ndarray:
    """The same for float32 against float64, whose own error is below 2**-26 of these units."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        exact = reference(name)(*(a.astype(np.float64) for a in args))
        size = np.maximum(np.minimum(np.abs(exact), np.finfo(np.float32).max), max(least, 2.0**-149))
        unit = np.maximum(np.exp2(np.floor(np.log2(size)) - 23), 2.0**-149)
        bounded = np.clip(got.astype(np.float64), -(2.0**128), 2.0**128)
        found = np.abs(bounded - np.clip(exact, -(2.0**128), 2.0**128)) / unit
    return np.where(np.isnan(got), INF, found)


def worst(name: str, kind: str, count: int, seed: int = 0) -> tuple[float, str]:
    """The largest error over all samples of a function, and where it occurred."""
    most, where = -1.0, ""
    for chunk in samples(name, Draw(kind, count, seed)):
        args = chunk if isinstance(chunk, tuple) else (chunk,)
        got = run(name, kind, *args)
        least = 0.5 if name == "logaddexp" else 0.0
        found = (errors_f64 if kind == "f64" else errors_f32)(name, args, got, least)
        i = int(np.argmax(found))
        if found[i] > most:
            most, where = float(found[i]), f"{name}{tuple(float(a[i]) for a in args)} gives {got[i]!r}"
    return most, where


def bound(name: str, kind: str) -> float:
    """The error promised."""
    return FUNCTIONS[name].ulp_f64 if kind == "f64" else FUNCTIONS[name].ulp_f32


# ------------------------------------------------------------------------------------------------------ tests

APPROXIMATE = sorted(set(FUNCTIONS) - set(EXACT_RESULTS))
SPECIAL = [
    0.0,
    -0.0,
    INF,
    -INF,
    NAN,
    1.0,
    -1.0,
    2.0,
    -2.0,
    3.0,
    -3.0,
    0.5,
    -0.5,
    1.5,
    -2.5,
    27.0,
    -27.0,
    100.0,
    -100.0,
    709.0,
    800.0,
]
SPECIAL += [
    -800.0,
    1e30,
    -1e30,
    2.0**53 + 2,
    -(2.0**53),
    3.4028234663852886e38,
    1.1754943508222875e-38,
    1e-45,
    -1e-45,
    1e-40,
    -1e-40,
]
SPECIAL_F64 = [
    5e-324,
    -5e-324,
    1e-310,
    -1e-310,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    1e300,
]


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", APPROXIMATE)
def test_error_is_within_the_bound(name: str, kind: str) -> None:
    found, where = worst(name, kind, 20_000 if kind == "f32" else 150 if "gamma" in name else 600)
    assert found <= bound(name, kind), where


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EXACT_RESULTS)
def test_exact_functions_have_numpys_bits(name: str, kind: str) -> None:
    for chunk in samples(name, Draw(kind, 5000)):
        args = chunk if isinstance(chunk, tuple) else (chunk,)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = reference(name)(*args)
        assert identical(run(name, kind, *args), expected, kind).all()


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_lanes_calls_and_processors_agree_bitwise(name: str, kind: str) -> None:
    draw = Draw(kind, 96)
    for chunk in samples(name, draw):
        args = chunk if isinstance(chunk, tuple) else (chunk,)
        expected = run(name, kind, *args)
        for lanes, variant in _variants(kind):
            got = run(name, kind, *args, lanes=lanes, variant=variant)
            same = identical(got, expected, kind)
            assert same.all(), (
                lanes,
                variant,
                [a[~same][:3] for a in args],
                got[~same][:3],
                expected[~same][:3],
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_special_values(name: str, kind: str) -> None:
    """Zeros and their signs, infinities, NaN, overflow, subnormals: as NumPy and SciPy, which follow C99."""
    dtype = DTYPE[kind]
    values = np.array(SPECIAL + (SPECIAL_F64 if kind == "f64" else []), dtype)
    args = (
        (values,)
        if FUNCTIONS[name].arity == 1
        else tuple(np.array(list(itertools.product(values, values)), dtype).T.copy())
    )
    with np.errstate(all="ignore"):
        expected = reference(name)(*args).astype(dtype)
        if name in ("erfc", "lgamma"):  # SciPy's lose subnormal results and arguments
            pole = (args[0] <= 0) & (np.trunc(args[0]) == args[0]) if name == "lgamma" else args[0] == 0
            for i in np.flatnonzero((np.abs(args[0]) < 1000) & ~pole):
                expected[i] = float((EXACT.get(name) or mpmath.erfc)(mpmath.mpf(float(args[0][i]))))
        scale = np.spacing(np.maximum(np.abs(expected), {"logaddexp": 0.5, "lgamma": 1.0}.get(name, 0.0)))
        for lanes, variant in ((LANES[kind][1], "inline"), (1, "inline"), (LANES[kind][1], "generic")):
            got = run(name, kind, *args, lanes=lanes, variant=variant)
            plain = np.isfinite(expected) & (expected != 0)
            # NumPy's and SciPy's own results are a few units off
            close = plain & (np.abs(got - expected) <= (bound(name, kind) + 4) * scale)
            good = (
                close
                | (~plain & (got == expected) & (np.signbit(got) == np.signbit(expected)))
                | (np.isnan(got) & np.isnan(expected))
            )
            assert good.all(), [
                (*(a[i] for a in args), got[i], expected[i]) for i in np.flatnonzero(~good)[:5]
            ]


@pytest.mark.parametrize("name", ["lgamma", "digamma", "trigamma"])
def test_gamma_family_at_negative_arguments(name: str) -> None:
    """The error is relative to max(1, |f|): the terms of the reflection formula cancel at the zeros."""
    x = -np.random.default_rng(3).uniform(0, 40, 300)
    assert errors_f64(name, (x,), run(name, "f64", x), 1.0).max() <= NEGATIVE_GAMMA


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_exact(kind: str) -> None:
    whole = np.arange(-100, 101).astype(DTYPE[kind])
    assert (run("cbrt", kind, whole**3) == whole).all()
    assert (run("exp2", kind, whole) == np.exp2(whole)).all()
    assert (run("log2", kind, np.exp2(whole)) == whole).all()
    assert (run("pow", kind, whole, np.full_like(whole, 2)) == whole * whole).all()
    assert (run("erf", kind, np.array([6.0, 30.0, INF], DTYPE[kind])) == 1.0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_difficult_lane_leaves_the_others_alone(kind: str) -> None:
    """The slow path is taken for a whole vector; only the lanes that need it may change."""
    easy = np.linspace(0.1, 0.9, 32).astype(DTYPE[kind])
    for name, x, y in (
        ("sin", 1e30, 1.0),
        ("cos", INF, 1.0),
        ("tan", -1e20, 1.0),
        ("pow", -2.0, 3.0),
        ("fmod", 3e38, 1e-30),
    ):
        other = np.full_like(easy, 0.7)
        expected = run(name, kind, easy, other, lanes=1)
        for lane in range(0, 32, 5):
            a, b = easy.copy(), other.copy()
            a[lane], b[lane] = x, y
            got = run(name, kind, a, b)
            keep = np.arange(32) != lane
            assert identical(got, expected, kind)[keep].all(), (name, lane)
            assert identical(got, run(name, kind, a, b, lanes=1), kind).all(), (name, lane)


def test_routines_can_be_provided_by_symbol() -> None:
    """A module that was compiled elsewhere names the library's routines; they can be made available before it
    is linked.
    """
    symbol = f"gj_math.erfcx.f64.1.{'avx512' if machine().avx512 else 'any'}"
    provide(symbol)
    text = f"declare double @{symbol}(double)\ndefine double @f(double %x) {{\n  %y = call double @{symbol}(double %x)\n  ret double %y\n}}\n"
    native = NativeModule(text)
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(native.address("f"))(2.0) == pytest.approx(
        special.erfcx(2.0), rel=1e-15
    )
    native.close()


def test_document_states_the_bounds() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    stated = {row[1].strip(" `"): (row[2].strip(), row[4].strip()) for row in rows}
    assert stated == {name: (f"{f.ulp_f64:g}", f"{f.ulp_f32:g}") for name, f in FUNCTIONS.items()}


# --------------------------------------------------------------------------------------------------- document


def measure(count_f64: int = 4000, count_f32: int = 200_000) -> str:
    """The table of docs/accuracy.md: the largest errors found."""
    lines = [
        "| function | promised f64 | measured f64 | promised f32 | measured f32 | method |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in sorted(FUNCTIONS.items()):
        found = [
            "exact" if name in EXACT_RESULTS else f"{worst(name, k, n, 7)[0]:.2f}"
            for k, n in (("f64", count_f64), ("f32", count_f32))
        ]
        source = entry.source.replace("|", r"\|")
        lines.append(
            f"| `{name}` | {entry.ulp_f64:g} | {found[0]} | {entry.ulp_f32:g} | {found[1]} | {source} |"
        )
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


if __name__ == "__main__":
    head = DOCUMENT.read_text().split("| function |")[0]
    DOCUMENT.write_text(head + measure() + "\n")
