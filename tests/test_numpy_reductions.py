"""Reductions, moments, positions, running sums and NaN-ignoring functions on tracers against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy_harness import OPERANDS, check, check_expression, lines, record

from graphjit.errors import UnsupportedError

TABLE = lines(
    """
    np.sum(m)
    np.sum(m, 0)
    np.sum(m, axis=-1, keepdims=True)
    np.sum(t, axis=(0, 2))
    np.sum(t, axis=(2, 0), keepdims=True)
    np.sum(t, axis=())
    np.sum(m, dtype=np.float32)
    np.sum(f)
    np.sum(f, dtype=np.float64)
    np.sum(i8)
    np.sum(i8, dtype=np.int8)
    np.sum(u8)
    np.sum(b)
    np.sum(b, axis=1)
    np.sum(m, initial=2.5)
    np.sum(i, initial=3)
    np.sum(m, where=b)
    np.sum(m, axis=0, where=b, initial=1.0)
    np.sum(m, where=True)
    np.sum(z)
    np.sum(z, axis=0)
    m.sum()
    m.sum(1)
    m.sum(axis=1, keepdims=True)
    s.sum()
    np.prod(m)
    np.prod(m, axis=1)
    np.prod(i8)
    np.prod(u8, axis=0)
    np.prod(b)
    np.prod(m, initial=2.0, where=c)
    np.prod(z, axis=0)
    m.prod(axis=(0, 1))
    np.mean(m)
    np.mean(m, axis=0)
    np.mean(m, axis=(0, 1), keepdims=True)
    np.mean(f)
    np.mean(f, dtype=np.float64)
    np.mean(i)
    np.mean(i8, axis=1)
    np.mean(b)
    np.mean(m, where=b)
    np.mean(m, axis=0, where=b)
    m.mean(-1)
    np.var(m)
    np.var(m, axis=1)
    np.var(m, axis=0, ddof=1)
    np.var(m, axis=0, correction=1)
    np.var(m, axis=0, mean=np.mean(m, axis=0, keepdims=True))
    np.var(f, axis=1)
    np.var(i, ddof=2)
    np.var(b)
    np.var(m, where=b, ddof=1)
    np.var(m[:1], axis=0, ddof=1)
    np.std(m)
    np.std(m, axis=1, keepdims=True)
    np.std(f, ddof=1)
    m.var(0)
    m.std(0, ddof=1)
    np.max(m)
    np.max(m, axis=0)
    np.max(m, axis=(0, 1), keepdims=True)
    np.max(f)
    np.max(i)
    np.max(b)
    np.max(u8, axis=1)
    np.max(m, initial=10.0)
    np.max(m, initial=-1, where=b)
    np.max(z, initial=-3.0)
    np.max(z, axis=0, initial=-3.0)
    np.max(nan, axis=0)
    np.amax(m, 1)
    np.min(m)
    np.min(m, axis=1)
    np.min(nan, axis=1)
    np.min(m, axis=1, initial=0.0, where=c)
    np.amin(m)
    m.max()
    m.min(axis=0)
    np.ptp(m)
    np.ptp(m, axis=1)
    np.ptp(i, axis=0, keepdims=True)
    np.argmax(m)
    np.argmax(m, axis=0)
    np.argmax(m, axis=1, keepdims=True)
    np.argmax(nan, axis=1)
    np.argmax(m, keepdims=True)
    np.argmin(m)
    np.argmin(m, axis=-1)
    np.argmin(b, axis=0)
    m.argmax(1)
    m.argmin()
    np.any(m)
    np.any(b, axis=0)
    np.any(i, axis=1, keepdims=True)
    np.any(b, where=c)
    np.all(b)
    np.all(m, axis=1)
    np.all(nan)
    np.all(b, axis=0, where=c)
    np.all(z, axis=0)
    b.any()
    b.all(axis=1)
    np.count_nonzero(b)
    np.count_nonzero(m > 0, axis=0)
    np.count_nonzero(i, axis=1, keepdims=True)
    np.cumsum(m)
    np.cumsum(m, axis=0)
    np.cumsum(m, axis=-1)
    np.cumsum(i8, axis=1)
    np.cumsum(b)
    np.cumsum(m, axis=1, dtype=np.float32)
    np.cumsum(s)
    m.cumsum()
    m.cumsum(axis=0)
    np.cumprod(m, axis=1)
    np.cumprod(i)
    m.cumprod(0)
    np.cumulative_sum(v)
    np.cumulative_sum(m, axis=1, include_initial=True)
    np.cumulative_prod(m, axis=0, include_initial=True)
    np.cumulative_sum(i, axis=0)
    np.average(m)
    np.average(m, axis=1)
    np.average(m, axis=1, weights=v)
    np.average(m, weights=p)
    np.average(m, axis=0, weights=p, keepdims=True)
    np.average(i, axis=0)
    np.average(i, axis=1, weights=[1, 2, 3, 4])
    np.average(m, axis=0, weights=w, returned=True)
    np.average(f, axis=0, weights=fv[:3])
    np.average(t, axis=(0, 2), weights=t[:, 0])
    np.nansum(nan, axis=1)
    np.nansum(i)
    np.nanprod(nan[:2], axis=0)
    np.nanmean(nan[:2], axis=1)
    np.nanmean(nan, axis=0)
    np.nanmean(i)
    np.nanvar(nan[:2], axis=1)
    np.nanvar(nan[:2], axis=0, ddof=1)
    np.nanstd(nan[:2])
    np.nanmax(nan, axis=0)
    np.nanmin(nan, axis=1, keepdims=True)
    np.nanmax(m)
    np.nanargmax(nan, axis=1)
    np.nanargmin(nan[:2], axis=1)
    np.nancumsum(nan[:2], axis=1)
    np.nancumprod(nan[:2])
    np.cov(m)
    np.cov(m, rowvar=False)
    np.cov(v)
    np.cov(v, v * v)
    np.cov(m, bias=True)
    np.cov(f)
    np.corrcoef(m)
    np.corrcoef(v, np.sin(v))
    np.add.reduce(m)
    np.add.reduce(m, axis=1, keepdims=True)
    np.add.reduce(m, axis=None)
    np.add.reduce(i8, initial=5)
    np.multiply.reduce(m, axis=(0, 1))
    np.maximum.reduce(m)
    np.minimum.reduce(m, axis=-1)
    np.logical_and.reduce(b)
    np.logical_or.reduce(m, axis=1)
    np.logical_xor.reduce(b, axis=1)
    np.logaddexp.reduce(m, axis=1)
    np.logaddexp.reduce(t, axis=2, keepdims=True)
    np.fmax.reduce(nan, axis=1)
    np.hypot.reduce(m)
    np.bitwise_or.reduce(i, axis=1)
    np.add.accumulate(m)
    np.multiply.accumulate(m, axis=1)
    np.maximum.accumulate(m, axis=1)
    np.minimum.accumulate(np.sin(np.arange(37.0) * s))
    np.logical_or.accumulate(b, axis=1)
    np.subtract.outer(v, w)
    np.multiply.outer(m, v)
    np.logaddexp.outer(v, w)
    np.maximum.outer(i, v)
    sp.logsumexp(m)
    sp.logsumexp(m, axis=1)
    sp.logsumexp(m, axis=(0, 1), keepdims=True)
    sp.logsumexp(f, 0)
    sp.logsumexp(i)
    sp.logsumexp(m, b=p)
    sp.logsumexp(m, 1, n, False, True)
    sp.logsumexp(m, axis=0, b=n, return_sign=True, keepdims=True)
    sp.logsumexp(m, axis=1, b=b)
    sp.logsumexp(nan[2:] - np.inf, axis=1, b=v)
    sp.softmax(m)
    sp.softmax(m, axis=1)
    sp.softmax(f, axis=0)
    sp.log_softmax(m, axis=-1)
    sp.log_softmax(m)
    sp.log_softmax(i, axis=1)
    """
)


@pytest.mark.parametrize("expression", TABLE)
def test_reduction(expression: str) -> None:
    check_expression(expression)


@pytest.mark.parametrize(
    "name", ["sum", "prod", "mean", "var", "std", "max", "min", "argmax", "argmin", "any", "all", "cumsum", "cumprod", "ptp"]
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
