"""`custom_root`, `custom_linear_solve`, `fixed_point`: derivatives of solutions, not of solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_harness import traced

import graphjit
from graphjit import DerivativeError

RNG = np.random.default_rng(15)


def newton(f: Any, x: Any) -> Any:
    for _ in range(30):
        x = x - f(x) / graphjit.grad(f)(x)
    return x


def divide(g: Any, y: Any) -> Any:
    return y / g(1.0)


def root(a: Any) -> Any:
    return graphjit.custom_root(lambda x: x**3 - a, 1.0, newton, divide)


def test_a_root_in_every_mode_and_order() -> None:
    a = 5.0
    first, second = a ** (-2 / 3) / 3, -2 / 9 * a ** (-5 / 3)
    assert np.isclose(graphjit.jit(root)(a), a ** (1 / 3), rtol=1e-14)
    for made in (
        graphjit.grad(root)(a),
        graphjit.jvp(root, (a,), (1.0,))[1],
        graphjit.jacfwd(root)(a),
        graphjit.jacrev(root)(a),
        graphjit.linearize(root, a)[1](1.0),
        graphjit.vjp(root, a)[1](1.0)[0],
    ):
        np.testing.assert_allclose(made, first, rtol=1e-13)
    for made in (
        graphjit.hessian(root)(a),
        graphjit.grad(graphjit.grad(root))(a),
        graphjit.hvp(root, (a,), (1.0,))[0],
    ):
        np.testing.assert_allclose(made, second, rtol=1e-12)
    many = np.array([1.0, 5.0, 8.0])
    np.testing.assert_allclose(graphjit.vmap(graphjit.grad(root))(many), many ** (-2 / 3) / 3, rtol=1e-13)
    total = graphjit.grad(lambda a: np.sum(graphjit.vmap(root)(a)))(many)
    np.testing.assert_allclose(total, many ** (-2 / 3) / 3, rtol=1e-13)


def test_no_derivative_goes_through_the_solver() -> None:
    """A solver of thirty steps, whose derivative has not more nodes than that of one of two."""

    def steps(count: int) -> int:
        def solve(f: Any, x: Any) -> Any:
            for _ in range(count):
                x = x - f(x) / 3.0
            return x

        def solution(a: Any) -> Any:
            return graphjit.custom_root(lambda x: x * x - a, 1.0, solve, divide)

        whole = traced(graphjit.grad(solution), 2.0)
        return sum(node.op.name != "custom" and bool(node.origin) for node in whole.nodes())

    assert steps(30) == steps(2)


def test_a_solver_that_cannot_be_differentiated_serves() -> None:
    def bisect(f: Any, x: Any) -> Any:
        low, high = 0.0 * x, x + 10.0
        for _ in range(60):
            middle = (low + high) / 2
            below = np.floor(np.sign(f(middle))) < 0
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def solution(a: Any) -> Any:
        return graphjit.custom_root(lambda x: x * x - a, 0.0, bisect, divide)

    np.testing.assert_allclose(graphjit.grad(solution)(4.0), 0.25, rtol=1e-12)


def test_auxiliary_results_and_trees() -> None:
    def solve(f: Any, x: Any) -> Any:
        for _ in range(40):
            residual = f(x)
            x = {"u": x["u"] - residual["u"] / 4, "v": x["v"] - residual["v"] / 4}
        return x, np.abs(residual["u"])

    def tangent_solve(g: Any, y: Any) -> Any:
        """Two equations of which each has its own unknown."""
        slope = g({"u": 1.0, "v": np.ones(2)})
        return {"u": y["u"] / slope["u"], "v": y["v"] / slope["v"]}

    def solution(a: Any) -> Any:
        equation = lambda x: {"u": x["u"] ** 2 - a, "v": x["v"] ** 2 - 2 * a}
        x, worst = graphjit.custom_root(
            equation, {"u": 1.5, "v": np.full(2, 2.0)}, solve, tangent_solve, has_aux=True
        )
        return x["u"] + np.sum(x["v"]) + 0.0 * worst

    want = 0.5 / np.sqrt(2.0) + 2 * 2 * 0.5 / np.sqrt(4.0)
    np.testing.assert_allclose(graphjit.grad(solution)(2.0), want, rtol=1e-10)
    np.testing.assert_allclose(graphjit.jvp(solution, (2.0,), (1.0,))[1], want, rtol=1e-10)


A = RNG.normal(size=(4, 4)) + 4 * np.eye(4)
B = RNG.normal(size=4)


def gauss_seidel(matvec: Any, b: Any) -> Any:
    x = 0.0 * b
    for _ in range(60):
        x = x + (b - matvec(x)) / 6.0
    return x


def solved(a: Any, b: Any) -> Any:
    return graphjit.custom_linear_solve(lambda x: a @ x, b, gauss_seidel, gauss_seidel)


def test_linear_systems_in_every_mode() -> None:
    v = RNG.normal(size=4)

    def number(solve: Any) -> Any:
        return lambda a, b: np.sum(np.sin(solve(a, b) * v))

    np.testing.assert_allclose(graphjit.jit(solved)(A, B), np.linalg.solve(A, B), rtol=1e-8)
    x = np.linalg.solve(A, B)
    ct = np.linalg.solve(A.T, np.cos(x * v) * v)
    ga, gb = graphjit.grad(number(solved), argnums=(0, 1))(A, B)
    np.testing.assert_allclose(gb, ct, rtol=1e-7)
    np.testing.assert_allclose(ga, -np.outer(ct, x), rtol=1e-7)
    np.testing.assert_allclose(graphjit.jacfwd(number(solved), argnums=1)(A, B), ct, rtol=1e-7)
    tangent = graphjit.jvp(solved, (A, B), (A, B))[1]
    np.testing.assert_allclose(tangent, np.zeros(4), atol=1e-8)
    hess = graphjit.hessian(number(solved), argnums=1)(A, B)
    inverse = np.linalg.inv(A)
    np.testing.assert_allclose(
        hess, inverse.T @ np.diag(-np.sin(x * v) * v * v) @ inverse, rtol=1e-6, atol=1e-9
    )
    rows = np.stack([B, 2 * B])
    batch = graphjit.vmap(graphjit.grad(number(solved), argnums=1), (None, 0))(A, rows)
    np.testing.assert_allclose(batch[0], gb, rtol=1e-7)


def test_symmetric_systems_need_one_solver() -> None:
    d = np.array([1.0, 2.0])

    def solution(d: Any, b: Any) -> Any:
        return graphjit.custom_linear_solve(
            lambda x: d * x, b, lambda f, b: b / f(np.ones(2)), symmetric=True
        )

    np.testing.assert_allclose(graphjit.grad(lambda d: np.sum(solution(d, d + 1)))(d), -1 / d**2, rtol=1e-14)
    one_way = lambda d: np.sum(
        graphjit.custom_linear_solve(lambda x: d * x, d, lambda f, b: b / f(np.ones(2)))
    )
    assert np.allclose(graphjit.jvp(one_way, (d,), (d,))[1], 0)
    with pytest.raises(DerivativeError, match="pass transpose_solve, or symmetric=True"):
        graphjit.grad(one_way)(d)


def test_fixed_points() -> None:
    def kepler(e: Any, m: Any) -> Any:
        return graphjit.fixed_point(lambda x: m + e * np.sin(x), m, num_steps=80, tangent_solve=divide)

    e, m = 0.3, 1.0
    x = graphjit.jit(kepler)(e, m)
    np.testing.assert_allclose(x - e * np.sin(x), m, rtol=1e-14)
    ge, gm = graphjit.grad(kepler, argnums=(0, 1))(e, m)
    np.testing.assert_allclose(ge, np.sin(x) / (1 - e * np.cos(x)), rtol=1e-12)
    np.testing.assert_allclose(gm, 1 / (1 - e * np.cos(x)), rtol=1e-12)
    with graphjit.disable_jit():
        np.testing.assert_allclose(graphjit.grad(kepler)(e, m), ge, rtol=1e-12)
    assert np.isclose(kepler(e, m), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a: graphjit.custom_root(lambda x: np.array([x, x]) - a, 1.0, newton, divide),
            "must return what it takes",
        ),
        (
            lambda a: np.sum(graphjit.custom_root(lambda x: x - a, np.zeros(9), lambda f, x: x - f(x))),
            "9 unknowns; up to 8 are solved directly",
        ),
    ],
)
def test_what_means_nothing_is_refused(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(DerivativeError, match=message):
        graphjit.grad(call)(2.0)


@pytest.mark.parametrize("tol", [None, 1e-14])
def test_steps_of_a_fixed_point_are_a_loop(tol: Any) -> None:
    """As many as are asked for, or until nothing changes; the code is that of one step."""

    def kepler(e: Any, m: Any, steps: int = 60) -> Any:
        return graphjit.fixed_point(lambda x: m + e * np.sin(x), m, num_steps=steps, tol=tol)

    x = kepler(0.1, 1.0)
    np.testing.assert_allclose(x - 0.1 * np.sin(x), 1.0, rtol=1e-13)
    np.testing.assert_allclose(graphjit.jit(kepler)(0.1, 1.0), x, rtol=1e-13)
    np.testing.assert_allclose(graphjit.grad(kepler)(0.1, 1.0), np.sin(x) / (1 - 0.1 * np.cos(x)), rtol=1e-12)
    slopes = graphjit.vmap(graphjit.grad(kepler), (0, None))(np.array([0.1, 0.5]), 1.0)
    np.testing.assert_allclose(slopes, [graphjit.grad(kepler)(e, 1.0) for e in (0.1, 0.5)], rtol=1e-12)
    few, many = (graphjit.make_graph(lambda e, n=n: kepler(e, 1.0, n))(0.1).nodes() for n in (9, 9000))
    assert len(few) == len(many)
    assert kepler(0.1, 1.0, 0) == graphjit.jit(lambda e: kepler(e, 1.0, 0))(0.1) == 1.0
    assert kepler(0.1, 1.0, 1) == graphjit.jit(lambda e: kepler(e, 1.0, 1))(0.1)


def test_a_tolerance_ends_the_iteration() -> None:
    """Of trees, and of a guess of integers; a NaN ends it too."""

    def f(a: Any) -> Any:
        def step(s: Any) -> Any:
            return {"x": 0.5 * np.cos(s["x"]) * a, "y": 0.1 * s["y"] + s["x"][0]}

        return graphjit.fixed_point(step, {"x": a, "y": 0}, num_steps=10**9, tol=1e-13)

    a = np.array([1.0, 2.0])
    for found in (f(a), graphjit.jit(f)(a)):
        np.testing.assert_allclose(found["x"], 0.5 * np.cos(found["x"]) * a, atol=1e-12)
        np.testing.assert_allclose(found["y"], found["x"][0] / 0.9, atol=1e-12)
    endless = graphjit.jit(lambda a: graphjit.fixed_point(lambda x: x * a, 1.0, num_steps=10**9, tol=0.0))
    assert np.isnan(endless(np.nan))
