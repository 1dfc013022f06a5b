"""Reductions, moments, positions, running sums and NaN-ignoring functions on tracers against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from expressions.values import REDUCTIONS
from numpy_harness import OPERANDS, check, check_expression, record

from graphjit.errors import UnsupportedError


@pytest.mark.parametrize("expression", REDUCTIONS)
def test_reduction(expression: str) -> None:
    check_expression(expression)


@pytest.mark.parametrize(
    "name",
    [
        "sum",
        "prod",
        "mean",
        "var",
        "std",
        "max",
        "min",
        "argmax",
        "argmin",
        "any",
        "all",
        "cumsum",
        "cumprod",
        "ptp",
    ],
)
@pytest.mark.parametrize("operand", ["m", "f", "i", "i8", "u8", "i32", "b"])
def test_reductions_of_every_dtype(name: str, operand: str) -> None:
    function = getattr(np, name)
    if name == "ptp" and operand == "b":  # NumPy has no minus for bools
        with pytest.raises(TypeError):
            record(function, [OPERANDS[operand]])
        return
    for axis in (None, 0, 1):
        check(lambda x, axis=axis: function(x, axis=axis), OPERANDS[operand])


def test_errors_are_numpys() -> None:
    m = OPERANDS["m"]
    for bad in (
        lambda x: np.sum(x, axis=2),
        lambda x: np.sum(x, axis=(0, 0)),
        lambda x: np.max(x[:0]),
        lambda x: np.max(x, where=x > 0),
        lambda x: np.argmax(x, axis=5),
        lambda x: np.cumulative_sum(x),
        lambda x: np.var(x, ddof=1, correction=1),
        lambda x: np.average(x, weights=[1, 2]),
    ):
        with pytest.raises(Exception) as wanted:
            bad(m)
        with pytest.raises(wanted.type):
            record(bad, [m])


def test_options_that_are_not_compiled_are_named() -> None:
    m = OPERANDS["m"]
    with pytest.raises(UnsupportedError, match=r"cov.*fweights"):
        record(lambda x: np.cov(x, fweights=[1, 1, 1, 1]), [m])


def test_nanvar_and_nanstd_take_a_mean_and_a_correction() -> None:
    x = OPERANDS["nan"][:2]
    for function in (np.nanvar, np.nanstd):
        check(lambda x, f=function: f(x, axis=0, correction=1), x)
        check(lambda x, f=function: f(x, correction=1, keepdims=True), x)
        check(lambda x, f=function: f(x, axis=1, mean=np.nanmean(x, axis=1, keepdims=True)), x)
        with pytest.raises(ValueError, match="simultaneously"):
            record(lambda x, f=function: f(x, ddof=1, correction=1), [x])
