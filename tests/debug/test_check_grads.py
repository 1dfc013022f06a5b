"""`check_grads` finds wrong derivatives, says where, and passes right ones."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import check_grads

RNG = np.random.default_rng(5)


def said(*args, **kwargs) -> str:
    """The message of a fault."""
    with pytest.raises(AssertionError) as caught:
        check_grads(*args, **kwargs)
    return str(caught.value)


def numbers(message: str) -> tuple[float, float]:
    """The derivative and the differences in a message."""
    found = re.search(r" is ([-\w.+]+), and ([-\w.+]+) by", message)
    assert found is not None, message
    return float(found[1]), float(found[2])


def with_rules(factor_x=1.0, factor_y=1.0, mode="vjp"):
    """``x * sin(y)`` with derivatives that may be off by factors."""
    if mode == "vjp":
        f = graphjit.custom_vjp(lambda x, y: x * np.sin(y))
        f.defvjp(
            lambda x, y: (f(x, y), (x, y)),
            lambda r, ct: (factor_x * ct * np.sin(r[1]), factor_y * ct * r[0] * np.cos(r[1])),
        )
    else:
        f = graphjit.custom_jvp(lambda x, y: x * np.sin(y))
        f.defjvps(
            lambda dx, out, x, y: factor_x * dx * np.sin(y),
            lambda dy, out, x, y: factor_y * x * np.cos(y) * dy,
        )
    return f


def cosine_point(x):
    """``y = x * cos(y)``."""
    return graphjit.fixed_point(
        lambda y: x * np.cos(y), 0.5, num_steps=60, tangent_solve=lambda g, y: y / g(1.0)
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("modes", ["fwd", "rev", ("fwd", "rev")])
def test_right_derivatives_pass(dtype, modes):
    def loss(params, x, power):
        hidden = np.tanh(x @ params["w"] + params["b"])
        return {"loss": np.mean(hidden**power), "best": np.argmax(x), "bias": np.exp(params["b"])}

    params = {"w": RNG.normal(size=(3, 2)).astype(dtype), "b": np.ones(2, dtype)}
    check_grads(loss, (params, RNG.normal(size=(5, 3)).astype(dtype), 2), 3, modes)


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda x: x**3, (2.0,)),
        (lambda x, y: x / y, (np.float32(2.0), 3.0)),
        (
            lambda xs: [np.cumsum(xs[0]), {"n": np.sum(xs[1]["y"] ** 2)}],
            ([np.ones(3), {"y": np.ones((2, 2))}],),
        ),
        (lambda x, i, name: x[i] * (2.0 if name == "double" else 1.0), (np.arange(4.0), [0, 2], "double")),
        (lambda x: np.sum(np.log(x)), (np.array([1e-9, 3e-9]),)),
        (lambda x: np.sum(x * x), (np.array([1e9, 3e9]),)),
        (graphjit.vmap(lambda x: np.sin(x) @ x), (np.ones((3, 2)),)),
        (graphjit.jit(graphjit.checkpoint(lambda x: np.sin(np.exp(x)))), (np.ones(3),)),
        (cosine_point, (0.4,)),
    ],
)
def test_functions_of_all_kinds(f, args):
    check_grads(f, args, 2)


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
def test_rules_of_the_users_own(mode):
    args = (np.array([1.3, 0.2]), np.array([0.4, 2.0]))
    check_grads(with_rules(mode=mode), args, 3)
    for modes in ("fwd", "rev"):
        wrong = said(with_rules(factor_y=1.01, mode=mode), args, 1, modes)
        assert "argument y" in wrong
        assert "argument x" not in wrong
        assert f"mode {modes}, order 1" in wrong
        assert "argument x" in said(with_rules(factor_x=1.01, mode=mode), args, 1, modes)


def test_the_message_holds_both_numbers():
    double = graphjit.custom_jvp(lambda x: x * x)
    double.defjvps(lambda dx, out, x: 4.0 * x * dx)
    for modes in ("fwd", "rev"):
        found, expected = numbers(said(double, (np.array(1.5),), 1, modes))
        assert found == pytest.approx(2.0 * expected, rel=1e-6)


def test_faults_of_the_second_order_alone():
    square = graphjit.custom_jvp(lambda x: x**2)
    square.defjvps(lambda dx, out, x: 2.0 * graphjit.stop_gradient(x) * dx)
    check_grads(square, (np.array([1.0, 2.0]),), 1)
    assert "mode fwd of fwd, order 2: the derivative of the derivative of the result" in said(
        square, (np.array([1.0, 2.0]),), 2
    )
    assert "mode rev of rev, order 2: the cotangent of argument x" in said(square, (np.ones(2),), 2, "rev")


def test_modes_that_disagree():
    """A tolerance that hides a fault from the differences does not hide it from the other mode."""
    f = graphjit.custom_vjp(lambda x: np.sin(x))
    f.defvjp(lambda x: (f(x), x), lambda x, ct: (ct * np.cos(x) * (1.0 + 1e-7),))
    check_grads(f, (np.ones(3),), 1)  # both modes come from one rule
    wrong = graphjit.custom_jvp(lambda x: np.sin(x))

    @wrong.defjvp
    def rule(primals, tangents):
        return wrong(*primals), np.cos(primals[0]) * tangents[0] + 1e-8

    assert "fwd against rev" in said(wrong, (np.ones(3),), 1)


def test_the_part_of_the_result_and_the_place_are_named():
    stopped = lambda p: {"good": np.sin(p), "bad": p * graphjit.stop_gradient(np.array([0.0, 1.0]) * p)}
    wrong = said(stopped, (np.array([1.0, 2.0]),), 1)
    assert "the derivative of the result['bad'][1] in argument p" in wrong


def test_tolerances_and_steps():
    nearly = graphjit.custom_jvp(lambda x: np.sin(x))
    nearly.defjvps(lambda dx, out, x: 1.001 * np.cos(x) * dx)
    said(nearly, (np.ones(2),), 1)
    check_grads(nearly, (np.ones(2),), 1, rtol=1e-2)
    check_grads(nearly, (np.ones(2),), 1, atol=1e-2)
    kink = lambda x: np.sum(np.abs(x - 1.0))
    said(kink, (np.array([1.0 + 1e-9]),), 1)
    check_grads(kink, (np.array([1.0 + 1e-9]),), 1, eps=1e-11, rtol=1e-3)


def test_values_are_compared_too():
    f = graphjit.custom_jvp(lambda x: np.sin(x))
    f.defjvps(lambda dx, out, x: np.cos(x) * dx)

    def differently(x):
        return f(x) * (1.0 if type(x) is np.ndarray else 2.0)

    assert "where the derivative is taken" in said(differently, (np.ones(3),), 1)


def test_points_without_derivative():
    assert "not finite" in said(lambda x: np.sum(np.sqrt(x)), (np.array([1.0, 0.0]),), 1)


def test_arguments_stay_as_they_are():
    x = np.ones(3)

    def doubled(x):
        y = x.copy()
        y *= 2.0
        return y

    check_grads(doubled, (x,), 2)
    np.testing.assert_array_equal(x, np.ones(3))


def test_what_makes_no_sense():
    with pytest.raises(graphjit.DerivativeError, match=r"no argument of .*<lambda> is floating point"):
        check_grads(lambda n: n * 2, (3,), 1)
    with pytest.raises(graphjit.DerivativeError, match="returns nothing that is floating point"):
        check_grads(lambda x: np.argmax(x), (np.ones(3),), 1)
    with pytest.raises(ValueError, match="order is an integer of at least 1"):
        check_grads(np.sin, (1.0,), 0)
    with pytest.raises(ValueError, match='modes are "fwd" and "rev"'):
        check_grads(np.sin, (1.0,), 1, modes=("forward",))
    with pytest.raises(ValueError, match="eps is the length of a step"):
        check_grads(np.sin, (1.0,), 1, eps=-1.0)
    with pytest.raises(TypeError, match="check_grads takes a function"):
        check_grads(3, (1.0,), 1)


def test_control_flow_of_plain_python() -> None:
    def f(x: Any) -> Any:
        if x < 0:
            return -x
        while x < 10:
            x = x * x
        return x

    graphjit.check_grads(f, (2.0,), order=2)
    graphjit.check_grads(lambda x: f(x), (-3.0,), order=1)
