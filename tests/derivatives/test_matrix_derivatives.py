"""Derivatives of solve, inv, det, slogdet and cholesky: against differences, formulas and each other, at
regular and at singular matrices, to second order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_harness import record
from op_matrix import check_derivative, jvp_graph, vjp_graph

import graphjit
from graphjit.interpret import interpret


def regular(*shape: int, seed: int = 0) -> np.ndarray:
    """Matrices with a condition of some dozens whose pivots lie anywhere."""
    rng = np.random.default_rng([seed, *shape])
    n = shape[-1]
    q = np.linalg.qr(rng.normal(size=shape))[0] if n else np.zeros(shape)
    return np.asarray(q * np.linspace(0.5, 2.0, n) + 0.1 * rng.normal(size=shape))


def positive(*shape: int) -> np.ndarray:
    a = regular(*shape)
    return np.asarray(a @ np.swapaxes(a, -1, -2) + 0.2 * np.eye(shape[-1]))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "solve": np.linalg.solve,
    "inv": np.linalg.inv,
    "det": np.linalg.det,
    "slogdet": lambda a: np.linalg.slogdet(a)[1],
    "cholesky": np.linalg.cholesky,
    "upper": lambda a: np.linalg.cholesky(a, upper=True),
}


def arguments(name: str, *shape: int) -> list[np.ndarray]:
    if name == "solve":
        return [regular(*shape), regular(*shape, seed=1)[..., :2]]
    return [positive(*shape) if name in ("cholesky", "upper") else regular(*shape)]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_both_modes_and_both_orders(name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    for stack in ((), (2,)):
        arrays = arguments(name, *stack, n, n)
        graph, captured, _ = record(FUNCTIONS[name], arrays)
        assert not captured
        check_derivative(graph, arrays, rng)
        if n > 5 or stack:
            continue
        for derived in (jvp_graph(graph), vjp_graph(graph)):
            extra = [rng.normal(size=node.shape) for node in derived.inputs[len(arrays) :]]
            check_derivative(derived, [*arrays, *extra], rng)


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [1, 3, 4, 6, 8])
def test_compiled_gradients(name: str, n: int) -> None:
    """Compiled code gives what the interpreter gives, for a stack that fills no whole vectors."""
    arrays = arguments(name, 11, n, n)
    weights = np.random.default_rng(0).normal(size=FUNCTIONS[name](*arrays).shape)

    def loss(*args):
        return np.sum(FUNCTIONS[name](*args) * weights)

    argnums = tuple(range(len(arrays)))
    value, found = graphjit.value_and_grad(loss, argnums=argnums)(*arrays)
    np.testing.assert_allclose(value, loss(*arrays), rtol=1e-11)
    graph, _, _ = record(FUNCTIONS[name], arrays)
    for got, want in zip(found, interpret(vjp_graph(graph), *arrays, weights), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)
    direction = [np.random.default_rng(1).normal(size=x.shape) for x in arrays]
    _, moved = graphjit.jvp(lambda *args: loss(*args), tuple(arrays), tuple(direction))
    np.testing.assert_allclose(moved, sum(np.sum(g * d) for g, d in zip(found, direction, strict=True)))


def test_formulas() -> None:
    a = regular(7, 5, 5)
    inverse = np.swapaxes(np.linalg.inv(a), -1, -2)
    found = graphjit.grad(lambda a: np.sum(np.linalg.det(a)))(a)
    np.testing.assert_allclose(found, np.linalg.det(a)[:, None, None] * inverse, rtol=1e-11, atol=1e-12)
    found = graphjit.grad(lambda a: np.sum(np.linalg.slogdet(a)[1]))(a)
    np.testing.assert_allclose(found, inverse, rtol=1e-11, atol=1e-12)


def test_gradient_of_cholesky_is_that_of_the_triangle_that_is_read() -> None:
    """log det by the factor's diagonal: what lies off the diagonal stands for two elements."""
    s = positive(5, 4, 4)

    def log_det(s):
        return np.sum(2.0 * np.log(np.diagonal(np.linalg.cholesky(s), axis1=-2, axis2=-1)))

    found, inverse = graphjit.grad(log_det)(s), np.linalg.inv(s)
    np.testing.assert_allclose(found, np.tril(inverse) + np.tril(inverse, -1), rtol=1e-11)
    upper = graphjit.grad(lambda s: np.sum(np.linalg.cholesky(s, upper=True)))(s)
    lower = graphjit.grad(lambda s: np.sum(np.linalg.cholesky(s)))(s)
    np.testing.assert_allclose(upper, np.swapaxes(lower, -1, -2), rtol=1e-12)


# ------------------------------------------------------------------------------------------ singular matrices


def minors(a: np.ndarray) -> np.ndarray:
    n = a.shape[-1]
    found = np.empty_like(a)
    for i, j in np.ndindex(n, n):
        minor = np.delete(np.delete(a, i, -2), j, -1)
        found[..., i, j] = (-1) ** (i + j) * np.linalg.det(minor)
    return found


def of_rank(n: int, rank: int, count: int = 12) -> np.ndarray:
    """Matrices of small integers with exactly this rank, their zeros and dependent rows anywhere."""
    rng = np.random.default_rng([n, rank])
    left = rng.integers(-2, 3, (count, n, rank))
    right = rng.integers(-2, 3, (count, rank, n))
    left[:, rng.permutation(n)[:rank]] = np.eye(rank, dtype=int)
    right[:, :, rng.permutation(n)[:rank]] = np.eye(rank, dtype=int)
    return (left @ right).astype(float)


@pytest.mark.sample(2)
@pytest.mark.parametrize("n", range(1, 9))
def test_gradient_of_the_determinant_at_singular_matrices(n: int) -> None:
    """It is the matrix of cofactors; of rank n - 1 these are not zero, below they are."""
    for rank in range(max(0, n - 3), n + 1):
        a = of_rank(n, rank)
        found = graphjit.grad(lambda a: np.sum(np.linalg.det(a)))(a)
        wanted = np.round(minors(a))  # integers
        assert np.all(wanted.any(axis=(1, 2)) == (rank >= n - 1))
        size = 1.0 + np.abs(a).max() ** max(n - 1, 0)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-13 * size)


def test_a_column_of_zeros() -> None:
    """The first pivot is zero though the rank is n - 1."""
    for n in range(2, 9):
        a = regular(n, n)
        a[:, 0] = 0.0
        found = graphjit.grad(np.linalg.det)(a)
        np.testing.assert_allclose(found, minors(a), rtol=1e-10, atol=1e-12)
        assert np.abs(found[:, 0]).min() > 0


@pytest.mark.parametrize("n", [2, 3, 4])
def test_second_derivatives_of_the_determinant_at_singular_matrices(n: int) -> None:
    """Up to four rows the formulas divide by nothing, in any order."""
    rng = np.random.default_rng(n)
    for a in of_rank(n, n - 1, 3):
        v = rng.normal(size=(n, n))
        _, found = graphjit.jvp(graphjit.grad(np.linalg.det), (a,), (v,))
        h = 1e-3
        wanted = (minors(a + h * v) - minors(a - h * v)) / (2 * h)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_selected_away() -> None:
    """Where a singular matrix is not chosen, its infinite derivative of slogdet does not show."""
    a = np.concatenate([regular(3, 4, 4), np.zeros((2, 4, 4))])

    def f(a):
        sign, log = np.linalg.slogdet(a)
        return np.sum(np.where(sign != 0, log, 0.0))

    value, found = graphjit.value_and_grad(f)(a)
    np.testing.assert_allclose(value, np.linalg.slogdet(a[:3])[1].sum())
    np.testing.assert_allclose(found[:3], np.swapaxes(np.linalg.inv(a[:3]), -1, -2), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found[3:], 0.0)


@pytest.mark.parametrize("n", [3, 6])
def test_singular_systems_fail_in_derivatives_too(n: int) -> None:
    a, b = np.zeros((4, n, n)), np.ones((4, n, 1))
    for argnums in (0, 1, (0, 1)):
        gradient = graphjit.grad(lambda a, b: np.sum(np.linalg.solve(a, b)), argnums=argnums)
        with pytest.raises(np.linalg.LinAlgError, match="Singular matrix"):
            gradient(a, b)


# ------------------------------------------------------------------------------------------------ in programs


def negative_log_likelihood(theta, x, y):
    """A Gaussian process with a squared exponential kernel."""
    gap = x[:, None] - x[None, :]
    k = np.exp(theta[0] - 0.5 * gap * gap * np.exp(theta[1])) + np.exp(theta[2]) * np.eye(len(x))
    factor = np.linalg.cholesky(k)
    return 0.5 * y @ np.linalg.solve(k, y) + np.sum(np.log(np.diagonal(factor)))


def test_hessian_of_a_likelihood() -> None:
    rng = np.random.default_rng(0)
    x, y, theta = rng.normal(size=7), rng.normal(size=7), np.array([0.3, -0.2, -1.0])
    gradient = graphjit.grad(negative_log_likelihood)

    def difference(f, h=1e-4):
        rows = []
        for e in np.eye(3) * h:
            ahead, behind = f(theta + e, x, y), f(theta - e, x, y)
            ahead2, behind2 = f(theta + 2 * e, x, y), f(theta - 2 * e, x, y)
            rows.append((8 * (ahead - behind) - (ahead2 - behind2)) / (12 * h))
        return np.array(rows)

    np.testing.assert_allclose(gradient(theta, x, y), difference(negative_log_likelihood), rtol=1e-8)
    columns = [graphjit.jvp(lambda t: gradient(t, x, y), (theta,), (e,))[1] for e in np.eye(3)]
    np.testing.assert_allclose(columns, difference(gradient), rtol=1e-7, atol=1e-9)
    rows = [graphjit.grad(lambda t, e=e: gradient(t, x, y) @ e)(theta) for e in np.eye(3)]
    np.testing.assert_allclose(rows, columns, rtol=1e-10, atol=1e-12)


def test_derivative_of_a_newton_step() -> None:
    """A step contains a gradient and a solve; its derivative at the minimum is zero, as theory says."""
    target = np.array([0.5, -1.0, 2.0])

    def f(x):
        return np.sum(np.cosh(x - target)) + 0.3 * np.sum((x - target) ** 2) ** 2

    def step(x):
        gradient = graphjit.grad(f)
        hessian = np.stack([graphjit.jvp(gradient, (x,), (e,))[1] for e in np.eye(3)])
        return x - np.linalg.solve(hessian, gradient(x))

    x = target + 0.3
    for _ in range(6):
        x = graphjit.jit(step)(x)
    np.testing.assert_allclose(x, target, atol=1e-12)
    for e in np.eye(3):
        moved, along = graphjit.jvp(step, (target,), (e,))
        np.testing.assert_allclose(moved, target, atol=1e-15)
        np.testing.assert_allclose(along, 0.0, atol=1e-14)
