"""Result types of every binary ufunc and operator on bools, integers and floats, beside each other and beside
scalars, are NumPy's.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_harness import leaves_of, record, run, same

from graphjit.errors import UnsupportedError

UFUNCS = (
    "add subtract multiply true_divide floor_divide remainder fmod power float_power maximum minimum fmax fmin arctan2 hypot logaddexp logaddexp2 "
    "copysign heaviside ldexp equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor bitwise_and bitwise_or "
    "bitwise_xor left_shift right_shift divmod"
).split()
OPERATORS = "add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift lt le eq ne gt ge".split()
FUNCTIONS = {f"np.{n}": getattr(np, n) for n in UFUNCS} | {
    f"operator.{n}": getattr(operator, n) for n in OPERATORS
}
DTYPES = "?bBhHiIqQfd"
SCALARS = [
    True,
    1,
    2,
    3,
    -1,
    200,
    2.0,
    0.5,
    1.0,
    -1.0,
    np.True_,
    np.int8(2),
    np.uint64(2),
    np.float32(2),
    np.float64(2),
]


def array(dtype: str) -> np.ndarray:
    return np.array([1, 1, 1, 1] if dtype == "?" else [1, 2, 3, 5]).astype(dtype)


def compare(function: Callable[..., Any], *arrays: np.ndarray) -> None:
    """Dtypes and values, or both refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wanted = leaves_of(function(*arrays))
        except (TypeError, ValueError, OverflowError):
            with pytest.raises((TypeError, ValueError, OverflowError, UnsupportedError)):
                record(function, arrays)
            return
        try:
            found = run(function, *arrays)
        except UnsupportedError:  # float16, which small integers give or are computed in
            assert any(a.dtype.itemsize == 1 for a in arrays) or any(
                np.asarray(a).dtype == np.float16 for a in wanted
            )
            return
    for ours, numpys in zip(found, wanted, strict=True):
        same(ours, numpys)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays(name: str) -> None:
    for first in DTYPES:
        for second in DTYPES:
            compare(FUNCTIONS[name], array(first), array(second))


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scalars(name: str) -> None:
    function = FUNCTIONS[name]
    for dtype in DTYPES:
        for scalar in SCALARS:
            compare(lambda x, scalar=scalar: function(x, scalar), array(dtype))
            compare(lambda x, scalar=scalar: function(scalar, x), array(dtype))


def test_powers_of_bools() -> None:
    """NumPy squares for the Python number 2, and only for that."""
    for x in (np.array([True, False]), np.array(True)):
        for exponent in (
            0,
            1,
            2,
            3,
            True,
            2.0,
            np.int8(2),
            np.int64(2),
            np.array(2),
            type("Number", (int,), {})(2),
        ):
            compare(lambda x, exponent=exponent: x**exponent, x)
        compare(lambda x: np.power(x, 2), x)
        compare(lambda x: np.square(x), x)
