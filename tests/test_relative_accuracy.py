"""First and second derivatives of saturating functions against mpmath: relative error, down to the smallest normal number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special as sp
from mpmath import mpf

import graphjit
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.ir.types import F64, Type
from graphjit.transforms.reverse import cotangents

ROOT_PI = mpmath.sqrt(mpmath.pi)


def logistic(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))


def binary(x: mpf) -> mpf:
    return 1 / (1 + mpf(2) ** (-x))


def bell(x: mpf) -> mpf:
    return 2 * mpmath.exp(-x * x) / mpmath.sqrt(mpmath.pi)


def density(x: mpf) -> mpf:
    return mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)


def hazard(x: mpf) -> mpf:
    return 2 * density(x) / mpmath.erfc(-x / mpmath.sqrt(2))


Exact = Callable[[mpf], mpf]
CASES: dict[str, tuple[Callable[[Any], Any], Exact, Exact, tuple[float, float], tuple[float, float]]] = {
    # function, first and second derivative, interval in float64 and in float32
    "expit": (sp.expit, lambda x: logistic(x) * logistic(-x), lambda x: logistic(x) * logistic(-x) * (logistic(-x) - logistic(x)), (-707, 707), (-87, 87)),
    "log_expit": (sp.log_expit, lambda x: logistic(-x), lambda x: -logistic(x) * logistic(-x), (-707, 707), (-87, 87)),
    "softplus": (lambda x: np.logaddexp(0.0, x), logistic, lambda x: logistic(x) * logistic(-x), (-707, 707), (-87, 87)),
    "-softplus(-x)": (lambda x: -np.logaddexp(0.0, -x), lambda x: logistic(-x), lambda x: -logistic(x) * logistic(-x), (-707, 707), (-87, 87)),
    "logaddexp2": (lambda x: np.logaddexp2(0.0, x), binary, lambda x: mpmath.log(2) * binary(x) * binary(-x), (-1020, 1020), (-125, 125)),
    "erf": (sp.erf, bell, lambda x: -2 * x * bell(x), (-26.5, 26.5), (-9.2, 9.2)),
    "erfc": (sp.erfc, lambda x: -bell(x), lambda x: 2 * x * bell(x), (-26.5, 26.5), (-9.2, 9.2)),
    "ndtr": (sp.ndtr, density, lambda x: -x * density(x), (-37.5, 37.5), (-13.0, 13.0)),
    "log_ndtr": (sp.log_ndtr, hazard, lambda x: -hazard(x) * (x + hazard(x)), (-37.5, 37.5), (-13.0, 13.0)),
    "log_ndtr, far": (sp.log_ndtr, hazard, lambda x: -hazard(x) * (x + hazard(x)), (-2000, 0), (-300, 0)),
    "arctan": (np.arctan, lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2, (-1e50, 1e50), (-1e8, 1e8)),
}
BOUND = 50
"""Units of machine epsilon; log_ndtr has 36, where x + hazard(x) is summed directly, all others below 10."""


def summed(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: np.sum(function(x))


def tangent(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: graphjit.jvp(function, (x,), (np.ones_like(x),))[1]


def worst(x: np.ndarray, got: np.ndarray, exact: Exact) -> float:
    """The largest relative error, in epsilons, among results that are normal numbers."""
    kind = np.finfo(x.dtype)
    most = 0.0
    assert got.dtype == x.dtype
    with mpmath.workdps(60):
        for point, found in zip(x.tolist(), got.tolist(), strict=True):
            value = exact(mpf(point))
            if abs(value) >= 2 * float(kind.tiny):
                most = max(most, float(abs(mpf(found) / value - 1)) / float(kind.eps))
    return most


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_compiled_derivatives(name: str, dtype: Any) -> None:
    function, first, second, wide, narrow = CASES[name]
    low, high = wide if dtype is np.float64 else narrow
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.uniform(low, high, 60), rng.uniform(max(low, -6), min(high, 6), 40)]).astype(dtype)
    reverse, forward = graphjit.grad(summed(function)), tangent(function)
    assert worst(x, reverse(x), first) < BOUND
    assert worst(x, forward(x), first) < BOUND
    assert worst(x, graphjit.grad(summed(reverse))(x), second) < BOUND
    assert worst(x, tangent(forward)(x), second) < BOUND


OPS = {"expit": "expit", "log_expit": "log_expit", "erf": "erf", "erfc": "erfc", "ndtr": "ndtr", "log_ndtr": "log_ndtr", "arctan": "arctan"}


@pytest.mark.parametrize("name", OPS)
def test_interpreted_derivatives(name: str) -> None:
    """The oracle holds the same bound."""
    _, first, second, (low, high), _ = CASES[name]
    x = np.random.default_rng(6).uniform(low, high, 60)
    b = Builder()
    node = b.input(Type(F64, x.shape), "x")
    ones = b.full(1.0, node.type)
    (slope,) = cotangents(b, {b.emit(OPS[name], node): ones}, [node])
    assert slope is not None
    (curve,) = cotangents(b, {slope: ones}, [node])
    assert curve is not None
    found = interpret(Graph(name, [node], [slope, curve]), x)
    assert worst(x, found[0], first) < 2 * BOUND
    assert worst(x, found[1], second) < 2 * BOUND
