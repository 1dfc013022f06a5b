"""Every bound function x dtype, pair of dtypes and scalar: dtype, shape, values and exceptions are NumPy's.

79 900 calls by the interpreter, every tenth of them by default and all of them behind ``slow``; the compiled
code is compared with NumPy on calls of every dtype and on casts between all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from dtype_calls import ONE_ARRAY, TWO_ARRAYS, WITH_SCALAR
from dtype_harness import DTYPES, SCALARS, SHAPES, call, difference, operand
from numpy_harness import same
from scipy import special

import graphjit
from graphjit.trace.recording.tracer import BOUND, FUNCTIONS, METHODS, UFUNCS

Case = tuple[tuple[np.ndarray, ...], Any]

REFUSED = {
    "np.sum(x, dtype=bool)": "np.any says the same",
    "np.mean(x, dtype=int)": "means are floating point",
    "x[x > 1]": "the shape depends on values",
    "np.ldexp.reduce": "the result has another dtype than what is reduced",
}
"""Calls that NumPy computes and graphjit refuses for every dtype, with the reason. Others are refused only
where NumPy computes in float16.
"""

OTHERWISE = {
    "np.power.reduce": "NumPy's vector loop reads a result that it has not written yet: reduce([0.75, 3, -2.5, 1]) is 0.75, ((0.75**3)**-2.5)**1 is 8.65",
    "np.arctan2.reduce": "the same",
    "np.reciprocal(x)": "1 / 0 in integers: NumPy warns and casts inf, graphjit gives 0",
    "x = x.copy(); x **= k": "a negative power and a dtype that does not fit: both raise, but find another fault first",
}
"""Calls whose values are not compared, with the reason."""


def one_array(expression: str) -> Iterator[Case]:
    for dtype, shape in product(DTYPES, SHAPES):
        yield (operand(dtype, shape),), None


def two_arrays(expression: str) -> Iterator[Case]:
    for first, second in product(DTYPES, DTYPES):
        yield (operand(first, "vector"), operand(second, "vector", True)), None


def with_scalar(expression: str) -> Iterator[Case]:
    for dtype, scalar in product(DTYPES, SCALARS):
        yield (operand(dtype, "vector", small=True),), scalar


GROUPS = [
    *((e, one_array) for e in ONE_ARRAY),
    *((e, two_arrays) for e in TWO_ARRAYS),
    *((e, with_scalar) for e in WITH_SCALAR),
]
NAMES = [expression for expression, _ in GROUPS]


def half_precision(arrays: tuple[np.ndarray, ...], scalar: Any) -> bool:
    """Whether NumPy may have computed in float16, as it does for what has one byte."""
    return any(np.asarray(x).itemsize == 1 for x in (*arrays, scalar))


def check(number: int, step: int) -> None:
    """Every ``step``-th call of an expression.

    Raises:
        AssertionError: calls that differ from NumPy.
    """
    expression, cases = GROUPS[number]
    if expression.startswith(tuple(OTHERWISE)):
        return
    wrong = []
    for arrays, scalar in list(cases(expression))[number % step :: step]:
        found = difference(expression, *arrays, scalar=scalar)
        if found == "refused" and (expression.startswith(tuple(REFUSED)) or half_precision(arrays, scalar)):
            continue
        if found not in (None, "divided", "half"):
            wrong.append(f"{[f'{a.dtype}{a.shape}' for a in arrays]} {scalar!r}: {found}")
    assert not wrong, "\n".join([f"{expression}: {len(wrong)} calls differ", *wrong[:9]])


@pytest.mark.sample(2)
@pytest.mark.parametrize("number", range(len(GROUPS)), ids=NAMES)
def test_a_sample_of_calls(number: int) -> None:
    check(number, 10)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(GROUPS)), ids=NAMES)
def test_every_call(number: int) -> None:
    check(number, 1)


def test_the_number_of_calls_is_what_the_docstring_says() -> None:
    assert round(sum(len(list(cases(e))) for e, cases in GROUPS), -2) == 79900


NOT_CALLED = set(
    "put put_along_axis place save savetxt array2string array_repr array_str sort argsort lexsort partition argpartition digitize "
    "histogram bincount unique unique_values intersect1d union1d setdiff1d trim_zeros median percentile quantile nanmedian eig eigvals svd svdvals "
    "pinv lstsq matrix_rank cond apply_along_axis apply_over_axes piecewise nonzero flatnonzero argwhere isnat "  # refused, whatever the dtype
    "may_share_memory shares_memory einsum_path min_scalar_type "  # no values
    "byteswap ctypes data dump dumps getfield setfield setflags tobytes tofile itemset base flags strides resize mT".split()  # memory
)


def test_every_bound_function_is_called() -> None:
    text = "\n".join(NAMES)
    # ufuncs of scipy.special enter the table when another test of this process meets them
    functions = [f for f in (*FUNCTIONS, *BOUND, *UFUNCS) if getattr(special, f.__name__, None) is not f]
    bound = {f.__name__ for f in functions} | {name for name in METHODS if not name.startswith("_")}
    missing = [
        name for name in sorted(bound - NOT_CALLED) if f"{name}(" not in text and f".{name}" not in text
    ]
    assert missing == []


# --------------------------------------------------------------------------------------------------- compiled

COMPILED = [
    "abs(-x)",
    "-x",
    "+x",
    "-(x * 3)",
    "x - (-x)",
    "(-x) * (-x)",
    "x * 2",
    "x ** 2",
    "x // 3",
    "x % 3",
    "x / 2",
    "np.clip(x, -1, 300)",
    "np.clip(x, 1, 100)",
    "np.where(x > 1, x, 300)",
    "np.round(x // 2, -1)",
    "np.sum(x)",
    "np.prod(x)",
    "np.cumsum(x)",
    "np.mean(x % 100)",
    "np.max(x)",
    "np.argmin(x)",
    "np.outer(x, 200)",
    "np.dot(x, 2.0)",
    "np.kron(x, [1, 2])",
    "np.vander(x)",
    "np.sign(x)",
    "np.maximum(x, 3)",
    "np.diff(x)",
    "np.dot(x, x)",
    "x.astype(np.float64).astype(np.uint64)",
    "x.astype(np.int64).astype(np.int8)",
    "x.astype(np.int8).astype(np.float32).astype(np.int16)",
    "x.astype(np.uint8).astype(np.int64).astype(np.uint16)",
    "x.astype(bool).astype(np.int32)",
    "np.sum(x != None)",
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_compiled_code_gives_the_same(dtype: np.dtype) -> None:
    x = operand(dtype, "vector")
    x = x if dtype.kind != "f" else np.array([2.5, -127.0, 3.0, 100.0], dtype)

    def value(expression: str) -> Any:
        with np.errstate(all="ignore"):
            return call(expression, x=x)

    kept = []
    for expression in COMPILED:
        try:
            kept.append((expression, value(expression)))
        except (TypeError, OverflowError):  # NumPy refuses; `test_a_sample_of_calls` compares that
            continue
    found = graphjit.jit(lambda x: tuple(call(expression, x=x) for expression, _ in kept))(x)
    for (expression, wanted), got in zip(kept, found, strict=True):
        try:
            same(np.asarray(got), wanted)
        except AssertionError as error:
            raise AssertionError(f"{expression}: {error}") from None


ENDS = [
    0.0,
    -0.0,
    1.5,
    -1.5,
    -127.0,
    127.9,
    128,
    -129,
    255,
    256,
    300,
    -300,
    32768,
    -32769,
    65535,
    65536,
    2.0**31 - 1,
    2.0**31,
    -(2.0**31),
    2.0**32 - 1,
]
FAR = [
    -(2.0**31) - 1,
    2.0**32,
    2.0**40,
    -(2.0**40),
    2.0**53 + 2,
    2.0**62,
    2.0**63,
    -(2.0**63),
    -(2.0**63) - 2048,
    2.0**64,
    2.0**64 - 2048,
]
SPECIAL = [1e30, -1e30, np.inf, -np.inf, np.nan]


def numbers(source: np.dtype, target: np.dtype) -> np.ndarray:
    """Both ends of every range; to uint32 only what NumPy converts alike in its vector loop and in what is
    left over after it.
    """
    if source.kind == "f":
        return np.array(ENDS if target == np.uint32 else ENDS + FAR + SPECIAL).astype(source)
    if source.kind == "b":
        return np.array([True, False, True])
    low, high = int(np.iinfo(source).min), int(np.iinfo(source).max)
    return np.array([low, high, 0, 1, 2, high // 2, high - 1, 100, low + 1, low // 2], source)


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_casts_between_all_dtypes(source: np.dtype) -> None:
    arrays = [numbers(source, target) for target in DTYPES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = [x.astype(target) for x, target in zip(arrays, DTYPES, strict=True)]
    vectors = graphjit.jit(lambda *xs: tuple(x.astype(target) for x, target in zip(xs, DTYPES, strict=True)))(
        *arrays
    )
    single = [graphjit.jit(lambda x, target=target: x.astype(target)) for target in DTYPES]
    for x, target, want, got, alone in zip(arrays, DTYPES, wanted, vectors, single, strict=True):
        assert got.dtype == target
        np.testing.assert_array_equal(got, want, err_msg=f"{source} to {target}")
        np.testing.assert_array_equal(
            [alone(x[i : i + 1])[0] for i in range(len(x))],
            want,
            err_msg=f"{source} to {target}, one at a time",
        )
