"""Activations: values beside their formulas, derivatives at kinks and at extreme arguments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

X = np.array([-4.7, -2.1, -0.8, -0.3, 0.2, 0.6, 1.9, 5.3, 7.1])
ELU = lambda x, alpha=1.0: x if x > 0 else alpha * math.expm1(x)

SMOOTH: dict[str, tuple[Callable[..., Any], Callable[[float], float]]] = {
    "relu": (nn.relu, lambda x: max(x, 0.0)),
    "relu6": (nn.relu6, lambda x: min(max(x, 0.0), 6.0)),
    "leaky_relu": (nn.leaky_relu, lambda x: x if x > 0 else 0.01 * x),
    "leaky_relu 0.3": (lambda x: nn.leaky_relu(x, 0.3), lambda x: x if x > 0 else 0.3 * x),
    "elu": (nn.elu, ELU),
    "elu 0.5": (lambda x: nn.elu(x, alpha=0.5), lambda x: ELU(x, 0.5)),
    "selu": (nn.selu, lambda x: 1.0507009873554805 * ELU(x, 1.6732632423543772)),
    "celu": (nn.celu, ELU),
    "celu 2": (lambda x: nn.celu(x, 2.0), lambda x: x if x > 0 else 2.0 * math.expm1(x / 2.0)),
    "gelu": (
        nn.gelu,
        lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "gelu exact": (lambda x: nn.gelu(x, approximate=False), lambda x: x / 2 * math.erfc(-x / math.sqrt(2))),
    "silu": (nn.silu, lambda x: x / (1 + math.exp(-x))),
    "softplus": (nn.softplus, lambda x: math.log1p(math.exp(x))),
    "sigmoid": (nn.sigmoid, lambda x: 1 / (1 + math.exp(-x))),
    "log_sigmoid": (nn.log_sigmoid, lambda x: -math.log1p(math.exp(-x))),
    "tanh": (nn.tanh, math.tanh),
    "hard_tanh": (nn.hard_tanh, lambda x: min(max(x, -1.0), 1.0)),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", SMOOTH)
def test_values_and_two_derivatives(name: str) -> None:
    function, formula = SMOOTH[name]
    assert_layer(function, (X,), np.array([formula(x) for x in X]), order=2)


KINKS = [
    (nn.relu, 0.0, 0.0),
    (nn.relu, -0.0, 0.0),
    (nn.relu6, 0.0, 0.0),
    (nn.relu6, 6.0, 0.0),
    (nn.leaky_relu, 0.0, 0.01),
    (lambda x: nn.elu(x, 0.5), 0.0, 0.5),
    (lambda x: nn.celu(x, 0.5), 0.0, 1.0),
    (nn.selu, 0.0, 1.0507009873554805 * 1.6732632423543772),
    (nn.hard_tanh, 1.0, 0.0),
    (nn.hard_tanh, -1.0, 0.0),
]


@pytest.mark.parametrize(("function", "x", "slope"), KINKS)
def test_derivatives_at_kinks(function: Callable[..., Any], x: float, slope: float) -> None:
    assert graphjit.grad(function)(x) == pytest.approx(slope, rel=1e-15)
    assert graphjit.jvp(function, (x,), (1.0,))[1] == pytest.approx(slope, rel=1e-15)


FAR = {  # slopes at -1e4 and at 1e4
    **dict.fromkeys(("relu", "gelu", "gelu exact", "silu", "softplus", "elu", "elu 0.5", "selu"), (0.0, 1.0)),
    **dict.fromkeys(("celu", "celu 2"), (0.0, 1.0)),
    **dict.fromkeys(("relu6", "sigmoid", "tanh", "hard_tanh"), (0.0, 0.0)),
    "leaky_relu": (0.01, 1.0),
    "leaky_relu 0.3": (0.3, 1.0),
    "log_sigmoid": (1.0, 0.0),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", SMOOTH)
def test_far_away_nothing_overflows(name: str) -> None:
    """Up to the largest numbers: no warning of NumPy, no NaN in two derivatives, slopes that are exact."""
    function, _ = SMOOTH[name]
    scale = 1.0507009873554805 if name == "selu" else 1.0
    for dtype, largest in (("d", 1e308), ("f", 3e38)):
        x = np.array([-largest, -1e20, -1e4, 1e4, 1e20, largest], dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value = function(x / np.asarray(scale * 1.0001, dtype))
        assert np.isfinite(value).all()
        slopes = graphjit.grad(lambda x: np.sum(function(x)))
        left, right = FAR[name]
        assert_near(slopes(x), scale * np.repeat([left, right], 3))
        curvature = graphjit.jvp(slopes, (x,), (np.ones_like(x),))[1]
        assert not np.any(curvature)


@pytest.mark.parametrize("name", SMOOTH)
def test_nan_stays(name: str) -> None:
    function, _ = SMOOTH[name]
    with np.errstate(invalid="ignore"):  # NumPy warns of a NaN in logaddexp
        assert np.isnan(function(np.array([np.nan, 1.0]))).tolist() == [True, False]


def test_integers_and_numbers() -> None:
    assert nn.relu(np.array([-1, 2])).tolist() == [0, 2]
    assert nn.relu(np.array([-1, 2])).dtype == np.int64
    assert nn.gelu(2) == pytest.approx(nn.gelu(2.0))
    assert nn.elu([1.0, -1.0])[0] == 1.0


Z = np.random.default_rng(3).normal(size=(3, 4, 5))


@pytest.mark.sample(4)
@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2)])
def test_softmax_and_its_logarithm(axis: int | tuple[int, ...]) -> None:
    powers = np.exp(Z)
    expected = powers / powers.sum(axis=axis, keepdims=True)
    assert_layer(lambda z: nn.softmax(z, axis=axis), (Z,), expected, order=2)
    assert_layer(lambda z: nn.log_softmax(z, axis=axis), (Z,), np.log(expected), order=2)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4, 5), -1), ((5,), -1), ((4, 5), 0), ((4, 1), 1), ((5,), 1)]
)
def test_softmax_of_a_part(shape: tuple[int, ...], axis: int) -> None:
    where = np.random.default_rng(1).random(shape) < 0.6
    where[tuple(0 for _ in shape[:-1])] = False  # rows without anything
    all_ = np.broadcast_to(where, Z.shape)
    powers = np.where(all_, np.exp(Z), 0.0)
    total = powers.sum(axis=axis, keepdims=True)
    expected = powers / np.where(total == 0.0, 1.0, total)
    assert_layer(lambda z: nn.softmax(z, axis, where), (Z,), expected, order=2, batched=False)
    poisoned = np.where(all_, Z, np.nan)
    assert_near(values(lambda z: nn.softmax(z, axis, where), (poisoned,), "d"), expected)
    slopes = graphjit.grad(lambda z: np.sum(nn.softmax(z, axis, where) ** 2))
    assert_near(slopes(poisoned), slopes(Z))
    assert not np.any(slopes(poisoned)[~all_])


def test_log_softmax_of_what_is_masked() -> None:
    z = np.array([[1.0, -np.inf, 2.0], [1000.0, 0.0, -1000.0]])
    found = values(nn.log_softmax, (z,), "d")
    odds = math.log1p(math.e)
    assert_near(found, np.array([[-odds, -np.inf, 1.0 - odds], [0.0, -1000.0, -2000.0]]))
    slopes = graphjit.grad(lambda z: np.sum(nn.log_softmax(z)[:, 0]))(z)
    other = math.e / (1 + math.e)
    assert_near(slopes, np.array([[other, 0.0, -other], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    classes = np.array([[0, 2], [3, -1], [1, 0]])
    expected = np.moveaxis(
        np.array([[[float(k == c) for k in range(3)] for c in row] for row in classes]), -1, axis
    )
    for dtype in "fd":
        found = graphjit.jit(lambda c: nn.one_hot(c, 3, dtype=dtype, axis=axis))(classes)  # noqa: B023
        assert found.dtype.char == dtype
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(nn.one_hot(classes, 3, axis=axis), expected)
    with pytest.raises(np.exceptions.AxisError):
        nn.one_hot(classes, 3, axis=3)
