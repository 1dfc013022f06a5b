"""ufuncs, operators, promotion and scipy.special on tracers against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from expressions.ufuncs import UFUNCS
from numpy_harness import OPERANDS, check, check_expression, function_of, record, run

from graphjit.errors import UnsupportedError

UNARY = (
    "negative positive absolute fabs sign sqrt square cbrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan "
    "sinh cosh tanh arcsinh arccosh arctanh floor ceil trunc rint isnan isinf isfinite signbit logical_not deg2rad rad2deg degrees radians "
    "conjugate invert"
).split()
BINARY = (
    "add subtract multiply divide true_divide floor_divide remainder mod fmod power float_power maximum minimum fmax fmin hypot arctan2 "
    "logaddexp logaddexp2 copysign heaviside equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor "
    "bitwise_and bitwise_or bitwise_xor left_shift right_shift"
).split()
SAMPLES = {
    "f8": np.array([-2.5, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 1.5, 3.0, np.inf, -np.inf, np.nan]),
    "f4": np.array([-2.5, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 1.5, 3.0, np.inf, -np.inf, np.nan], np.float32),
    "i8": np.array([-3, -1, 1, 2, 5]),
    "i4": np.array([-3, -1, 1, 2, 5], np.int32),
    "u1": np.array([1, 2, 3, 200, 255], np.uint8),
    "b1": np.array([True, False]),
}


def _refused_dtype(ufunc: np.ufunc, *dtypes: np.dtype) -> bool:
    """Whether NumPy itself refuses, or answers in a dtype that is not compiled (float16)."""
    try:
        found = ufunc.resolve_dtypes((*dtypes, None))
    except TypeError:
        return True
    return any(d.name in ("float16", "object") for d in found)


@pytest.mark.parametrize("dtype", list(SAMPLES))
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, dtype: str) -> None:
    ufunc, x = getattr(np, name), SAMPLES[dtype]
    if _refused_dtype(ufunc, x.dtype):
        with pytest.raises((TypeError, UnsupportedError)):
            record(ufunc, [x])
        return
    check(ufunc, x)


@pytest.mark.parametrize(
    "dtypes",
    [
        ("f8", "f8"),
        ("f4", "f4"),
        ("i8", "i8"),
        ("u1", "u1"),
        ("b1", "b1"),
        ("f4", "i8"),
        ("i4", "u1"),
        ("f8", "b1"),
        ("i8", "f4"),
    ],
)
@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str, dtypes: tuple[str, str]) -> None:
    ufunc = getattr(np, name)
    x, y = (SAMPLES[d] for d in dtypes)
    if name in ("floor_divide", "remainder", "mod", "fmod") and dtypes[1] == "b1" and dtypes[0] == "b1":
        y = y[:1]  # an integer zero divisor raises in compiled code, by design
    if name == "power" and dtypes[1].startswith("i") and dtypes[0] not in ("f8", "f4"):
        y = np.abs(y) % 7
    if name in ("left_shift", "right_shift"):
        y = (y % 8).astype(y.dtype) if y.dtype.kind in "iu" else y
    if _refused_dtype(ufunc, x.dtype, y.dtype):
        with pytest.raises((TypeError, UnsupportedError)):
            record(ufunc, [x[:, None], y])
        return
    check(ufunc, x[:, None], y)


@pytest.mark.parametrize("expression", UFUNCS)
def test_expression(expression: str) -> None:
    check_expression(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "i ** -1",
        "np.power(i, -2)",
        "b - c",
        "-b",
        "~m",
        "m & 1",
        "m << 1",
        "np.add(m, n, dtype=int)",
        "np.sqrt(m, dtype=int)",
        "u8 + 300",
    ],
)
def test_errors_are_numpys(expression: str) -> None:
    function, names = function_of(expression)
    arrays = [OPERANDS[name] for name in names]
    with pytest.raises(Exception) as wanted:
        function(*arrays)
    with pytest.raises(wanted.type):
        record(function, arrays)


def test_what_is_not_compiled_says_so() -> None:
    m = OPERANDS["m"]
    for function, words in (
        (np.spacing, "spacing"),
        (np.frexp, "frexp"),
        (scipy.special.gamma, r"scipy\.special\.gamma"),
        (scipy.special.erfinv, r"scipy\.special\.erfinv"),
        (lambda x: np.add(x, x, where=x > 0), "where"),
        (lambda x: np.matmul(x, x, axes=[(0, 1), (0, 1), (0, 1)]), "axes"),
        (lambda x: np.sqrt(x > 0), "float16"),
    ):
        with pytest.raises(UnsupportedError, match=words) as caught:
            record(function, [m])
        assert "/tests/" in str(caught.value)


def test_object_arrays_of_tracers_run_ufuncs() -> None:
    def f(a: float, b: float) -> np.ndarray:
        values = np.array([a, b])
        return np.exp(np.sin(values) + np.tanh(values * 2)) + np.stack([a, b])

    (found,) = run(f, np.float64(0.3), np.float64(-0.7))
    np.testing.assert_allclose(found, f(0.3, -0.7), rtol=1e-14)


def test_python_numbers_are_weak_and_scalars_are_not() -> None:
    f32 = np.ones(3, np.float32)
    for function in (
        lambda x: x * 2,
        lambda x: x * 2.5,
        lambda x: x * np.float64(2.5),
        lambda x: x + np.int64(1),
    ):
        check(function, f32)
