"""SciPy's minimisers over containers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

import graphjit
from graphjit import optim


def rosenbrock(p):
    return np.sum(100.0 * (p["rest"] - p["first"] ** 2) ** 2 + (1.0 - p["first"]) ** 2)


START = {"first": np.array([[-1.2, 0.5]]), "rest": np.array([[1.0, 2.0]])}


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "CG"])
def test_it_is_scipys_minimum(method):
    found = optim.minimize(rosenbrock, START, method=method)
    plain = optimize.minimize(
        graphjit.value_and_grad(lambda v: rosenbrock({"first": v[:2], "rest": v[2:]})),
        np.concatenate([START["first"][0], START["rest"][0]]),
        jac=True,
        method=method,
    )
    assert found.success
    assert found.x.keys() == found.jac.keys() == START.keys()
    assert found.x["first"].shape == (1, 2)
    np.testing.assert_allclose(np.concatenate([found.x["first"][0], found.x["rest"][0]]), plain.x, atol=1e-6)
    assert (found.nit, found.nfev) == (plain.nit, plain.nfev)


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS", "CG", "SLSQP", "TNC", "Newton-CG", "trust-constr"])
def test_the_gradient_is_a_container(method):
    found = optim.minimize(
        lambda p: np.sum((p["first"] - 2.0) ** 2) + np.sum(p["rest"] ** 2), START, method=method
    )
    assert found.success
    gradient = found.grad if method == "trust-constr" else found.jac
    assert gradient.keys() == START.keys()
    np.testing.assert_allclose(gradient["first"], 2 * (found.x["first"] - 2.0), atol=1e-6)
    np.testing.assert_allclose(gradient["first"], 0.0, atol=1e-4)
    np.testing.assert_allclose(gradient["rest"], 0.0, atol=1e-4)


def test_arguments_bounds_and_callback():
    def distance(p, target):
        return np.sum((p[0] - target) ** 2) + (p[1] - 5.0) ** 2

    told = []

    def callback(intermediate_result):
        told.append(intermediate_result.x)
        assert intermediate_result.fun >= 0

    found = optim.minimize(
        distance,
        (np.zeros(3), 1.0),
        (np.array([-1.0, 2.0, 9.0]),),
        bounds=((0.0, None), (4.0, 3.0)),
        callback=callback,
    )
    np.testing.assert_allclose(found.x[0], [0.0, 2.0, 4.0], atol=1e-6)
    assert found.x[1] == pytest.approx(3.0)
    np.testing.assert_allclose(told[-1][0], found.x[0])


def test_an_argument_that_is_no_tuple_is_the_only_one():
    found = optim.minimize(lambda p, target: np.sum((p - target) ** 2), np.zeros(2), np.array([3.0, -2.0]))
    np.testing.assert_allclose(found.x, [3.0, -2.0], atol=1e-6)


def test_methods_without_a_gradient_are_scipys_too():
    with pytest.warns(RuntimeWarning, match="does not use gradient"):
        found = optim.minimize(
            lambda p: np.sum((p["x"] - 1.0) ** 2), {"x": np.zeros(2)}, method="Nelder-Mead"
        )
    np.testing.assert_allclose(found.x["x"], 1.0, atol=1e-3)
    assert "jac" not in found


def test_a_callback_may_stop():
    def callback(intermediate_result):
        raise StopIteration

    assert optim.minimize(rosenbrock, START, callback=callback).nit == 1


def test_single_precision_and_options():
    dtypes = []

    def fun(x):
        dtypes.append(x.dtype)
        return np.sum((x - 1.0) ** 4)

    found = optim.minimize(fun, np.zeros(3, np.float32), options={"maxiter": 2})
    assert set(dtypes) == {np.dtype(np.float32)}
    assert found.x.dtype == np.float32
    assert found.nit == 2


def test_a_function_is_compiled_once():
    calls = []

    def fun(x, shift):
        calls.append(1)
        return np.sum((x - shift) ** 2)

    for shift in (1.0, 2.0, 3.0):
        assert optim.minimize(fun, np.zeros(2), (shift,)).x == pytest.approx([shift, shift], abs=1e-6)
    once = len(calls)
    optim.minimize(fun, np.zeros(2), (4.0,))
    assert len(calls) == once <= 2


def test_errors():
    with pytest.raises(TypeError, match="numbers of floating point, not 1"):
        optim.minimize(rosenbrock, {"first": 1, "rest": 2.0})
    with pytest.raises(ValueError, match=r"bounds=.* does not fit"):
        optim.minimize(rosenbrock, START, bounds=({"third": 0.0}, None))
    with pytest.raises(ValueError, match=r"bounds are a pair, .*, not \(0.0,\)"):
        optim.minimize(rosenbrock, START, bounds=(0.0,))
    with pytest.raises(ValueError, match="TNC has no intermediate results"):
        optim.minimize(rosenbrock, START, method="TNC", callback=print)
    with pytest.raises(TypeError, match="minimize takes a function, not float"):
        optim.minimize(3.0, START)
