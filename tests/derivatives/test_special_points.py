"""Derivatives where a factor is 0 and another inf: norms, deviations, padding and triangles, in both modes;
true infinities stay. Cuts (relu) at and beyond their bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit

INF, NAN = float("inf"), float("nan")
Z, W, C = np.zeros(3), np.array([1.0, -2.0, 4.0]), np.full(3, 2.0)
norm = np.linalg.norm
RAMP = np.arange(1.0, 10.0).reshape(3, 3)
UPPER = np.where(np.triu(np.ones((3, 3)), 1) > 0, 0.5 / np.sqrt(RAMP), 0.0)


def padded(x: Any) -> Any:
    y = np.zeros(4)
    y[1:] = x
    return np.sum(np.sqrt(y))


CASES: list[tuple[str, Callable[[Any], Any], Any, Any]] = [
    ("norm", lambda x: norm(x), Z, Z),
    ("norm squared", lambda x: norm(x) ** 2, Z, Z),
    ("norm times itself", lambda x: norm(x) * norm(x), Z, Z),
    ("np.square of a norm", lambda x: np.square(norm(x)), Z, Z),
    ("bell of a norm", lambda x: np.exp(-(norm(x) ** 2)), Z, Z),
    ("norm cubed", lambda x: norm(x) ** 3, Z, Z),
    ("3-norm", lambda x: norm(x, 3), Z, Z),
    ("3-norm cubed", lambda x: norm(x, 3) ** 3, Z, Z),
    ("2.5-norm", lambda x: norm(x, 2.5) ** 2, Z, Z),
    ("vector_norm", lambda x: np.linalg.vector_norm(x), Z, Z),
    ("Frobenius", lambda x: norm(x, "fro"), np.zeros((2, 2)), np.zeros((2, 2))),
    ("rows", lambda x: np.sum(norm(x, axis=1)), np.array([[0.0, 0.0], [3.0, 4.0]]), [[0, 0], [0.6, 0.8]]),
    ("hypot", lambda x: np.hypot(x[0], x[1]), np.zeros(2), [0, 0]),
    ("std of a constant", lambda x: np.std(x), C, Z),
    ("std of one number", lambda x: np.std(x), np.array([0.7]), [0]),
    ("std of a scalar", lambda x: np.std(x), 2.0, 0),
    ("nanstd of a constant", lambda x: np.nanstd(x), C, Z),
    ("var by std", lambda x: np.std(x) ** 2, np.array([1.0, 2.0, 3.0]), [-2 / 3, 0, 2 / 3]),
    ("standardise a constant", lambda x: np.sum(W * (x - x.mean()) / (x.std() + 0.01)), C, (W - 1) / 0.01),
    ("unit vector, guarded", lambda x: np.sum(W * x / (norm(x) + 0.5)), Z, 2 * W),
    ("roots of a triangle", lambda x: np.sum(np.sqrt(np.triu(x, 1))), RAMP, UPPER),
    ("roots of what was padded", lambda x: np.sum(np.sqrt(np.pad(x, 1))), np.array([4.0, 1.0]), [0.25, 0.5]),
    (
        "roots of what was joined",
        lambda x: np.sum(np.cbrt(np.concatenate([np.zeros(2), x]))),
        np.array([8.0]),
        [1 / 12],
    ),
    ("roots of what was assigned", padded, np.array([4.0, 1.0, 0.25]), [0.25, 0.5, 1.0]),
    (
        "logarithms of a triangle",
        lambda x: np.sum(np.tril(np.log1p(np.tril(x)))),
        np.ones((2, 2)),
        [[0.5, 0], [0.5, 0.5]],
    ),
    # what must not be hidden
    ("sqrt at 0", lambda x: np.sum(np.sqrt(x)), np.zeros(2), [INF, INF]),
    ("cbrt at 0", lambda x: np.sum(np.cbrt(x)), np.zeros(2), [INF, INF]),
    ("power 0.5 at 0", lambda x: np.sum(x**0.5), np.zeros(2), [INF, INF]),
    ("arcsin at 1", lambda x: np.arcsin(x), 1.0, INF),
    ("arccos at 1", lambda x: np.arccos(x), 1.0, -INF),
    ("log at 0", lambda x: np.log(x), 0.0, INF),
    ("x log x at 0", lambda x: x * np.log(x), 0.0, NAN),
    ("NaN in a norm", lambda x: norm(x), np.array([NAN, 1.0]), [NAN, NAN]),
    ("NaN in a std", lambda x: np.std(x), np.array([NAN, 1.0]), [NAN, NAN]),
    ("root of a norm", lambda x: np.sqrt(norm(x)), Z, [NAN] * 3),
    ("abs at 0", lambda x: np.sum(np.abs(x)), Z, Z),
]


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "function", "at", "expected"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_both_modes(name: str, function: Callable[[Any], Any], at: Any, expected: Any, dtype: str) -> None:
    x = np.asarray(at, dtype)[()]
    rtol = 1e-12 if dtype == "f8" else 1e-5
    np.testing.assert_allclose(graphjit.grad(function)(x), expected, rtol=rtol, atol=rtol)
    gradient = np.empty(np.shape(x))
    for index in np.ndindex(gradient.shape):
        along = np.zeros(np.shape(x), dtype)
        along[index] = 1.0
        gradient[index] = graphjit.jvp(function, (x,), (along[()],))[1]
    if (
        "NaN in" not in name and name != "sqrt at 0" and not name.endswith("0.5 at 0") and name != "cbrt at 0"
    ):  # 0 * inf of the other elements
        np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=rtol)


SECOND: list[tuple[str, Callable[[Any], Any], Any]] = [
    ("norm squared", lambda x: norm(x) ** 2, 2 * np.eye(3)),
    ("norm times itself", lambda x: norm(x) * norm(x), 2 * np.eye(3)),
    ("bell of a norm", lambda x: np.exp(-(norm(x) ** 2)), -2 * np.eye(3)),
    ("norm cubed", lambda x: norm(x) ** 3, np.zeros((3, 3))),
    ("norm to the fourth", lambda x: norm(x) ** 4, np.zeros((3, 3))),
    ("variance by std", lambda x: np.std(x) ** 2, 2 / 3 * (np.eye(3) - 1 / 3)),
    ("3-norm cubed", lambda x: norm(x, 3) ** 3, np.zeros((3, 3))),
]


@pytest.mark.parametrize(("name", "function", "expected"), SECOND, ids=[case[0] for case in SECOND])
def test_second_derivatives_at_zero(name: str, function: Callable[[Any], Any], expected: Any) -> None:
    gradient = graphjit.grad(function)
    forward = [graphjit.jvp(gradient, (Z,), (e,))[1] for e in np.eye(3)]
    backward = [graphjit.grad(lambda x, i=i: gradient(x)[i])(Z) for i in range(3)]
    np.testing.assert_allclose(forward, expected, atol=1e-14)
    np.testing.assert_allclose(backward, expected, atol=1e-14)


def test_fourth_derivative_of_a_power_of_a_norm() -> None:
    """norm(x)**4 is a polynomial: its derivatives of every order are those of the sum of squares."""
    f = graphjit.grad(lambda x: norm(x * np.ones(1)) ** 4)
    for _ in range(3):
        f = graphjit.grad(f)
    assert f(0.0) == pytest.approx(24.0)


def test_values_are_numpys() -> None:
    x = np.random.default_rng(3).normal(size=(5, 7))
    for function in (
        norm,
        np.std,
        lambda x: norm(x, axis=1) ** 2,
        lambda x: norm(x[0], 3) ** 3,
        lambda x: np.std(x, axis=0) ** 2,
    ):
        np.testing.assert_allclose(graphjit.jit(function)(x), function(x), rtol=4e-16 * 8)


CUTS: tuple[Callable[[Any], Any], ...] = (
    lambda x: np.where(x <= 0.5, 0.5, x),
    lambda x: np.where(x >= 0.5, 0.5, x),
    lambda x: np.where(x > 0.5, x, 0.5),
    lambda x: np.where(x < 0.5, x, 0.5),
    lambda x: np.where(np.less_equal(0.5, x), 0.5, x),
    lambda x: np.where(np.greater(0.5, x), x, 0.5),
    # Here the result cannot say which branch it came from.
    lambda x: np.where(x < 0.5, 0.5, x),
    lambda x: np.where(x >= 0.5, x, 0.5),
    lambda x: np.where(x <= 0.5, 0.0, x),
    lambda x: np.where(x <= 0.5, x, 0.5),
)


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_passes_what_forward_mode_passes(cut: Callable[[Any], Any]) -> None:
    """The way back may read the condition off the result; also at the bound, at -0.0 and at NaN."""
    x = np.array([-np.inf, -1.0, -0.0, 0.0, 0.25, 0.5, 0.75, np.inf, np.nan])
    one = np.ones_like(x)
    forward = graphjit.jvp(cut, (x,), (one,))[1]
    np.testing.assert_array_equal(graphjit.vjp(cut, x)[1](one)[0], forward)
    assert set(forward) == {0.0, 1.0}


def test_the_way_back_through_relu_keeps_one_array_a_layer() -> None:
    def network(activation: Callable[[Any], Any], depth: int) -> int:
        def loss(weights: list[Any], x: Any) -> Any:
            for w in weights:
                x = activation(x @ w)
            return np.sum(x)

        weights, x = [np.zeros((64, 64))] * depth, np.zeros((256, 64))
        return graphjit.grad(loss).lower(weights, x).memory().arena

    layer = 256 * 64 * 8
    for relu in (graphjit.nn.relu, lambda x: np.where(x > 0.0, x, 0.0)):
        assert network(relu, 12) - network(relu, 4) == 8 * layer
        assert network(relu, 12) == network(np.tanh, 12)
