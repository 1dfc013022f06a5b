"""What an attempt to break the transformations found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import DerivativeError


def rooted_branch(x: Any) -> Any:
    return np.where(x > 0, np.sqrt(x) * np.sum(x), 0.0)


def unit(z: Any) -> Any:
    return np.where(np.sum(z * z) > 0, z / np.sqrt(np.sum(z * z)), 0.0)


@pytest.mark.parametrize("size", [2, 4, 40])
@pytest.mark.parametrize("make", [graphjit.jacfwd, graphjit.jacrev])
def test_the_branch_that_is_not_taken_stays_out_of_jacobians(make: Any, size: int) -> None:
    x = np.linspace(-1.0, 2.0, size)
    got = make(rooted_branch)(x)
    assert not np.isnan(got).any()
    np.testing.assert_array_equal(got[x <= 0], 0)
    np.testing.assert_array_equal(make(unit)(np.zeros(size)), 0)
    rows = graphjit.vmap(make(rooted_branch))(np.stack([x, x + 0.5]))
    np.testing.assert_allclose(rows[0], got, rtol=1e-12)


@pytest.mark.parametrize("size", [4, 40])
@pytest.mark.parametrize("make", [graphjit.jacfwd, graphjit.jacrev])
def test_jacobians_through_a_node_with_several_results(make: Any, size: int) -> None:
    both = graphjit.checkpoint(lambda x: (np.sin(x), np.cos(x)))
    x = np.linspace(0.0, 1.0, size)
    got = make(lambda x: np.multiply(*both(x)))(x)
    np.testing.assert_allclose(got, np.diag(np.cos(2 * x)), atol=1e-14)


def test_the_branch_that_is_not_taken_stays_out_of_hessians() -> None:
    def square(x: Any) -> Any:
        return np.sum(np.where(x > 0, np.sqrt(x), 0.0)) ** 2

    x = np.array([-1.0, 4.0, 9.0])
    got = graphjit.hessian(square)(x)
    np.testing.assert_allclose(
        got[1:, 1:] @ np.array([1.0, 2.0]), graphjit.hvp(square, (x,), (x * 0 + [0, 1, 2],))[0][1:]
    )
    np.testing.assert_array_equal(got[0], 0)


@pytest.mark.parametrize("singular", [np.sqrt, np.log, np.cbrt, lambda v: v**0.5, lambda v: 1 / v])
def test_zeros_that_were_put_in_stay_zeros_in_jacobians(singular: Callable[[Any], Any]) -> None:
    w = np.eye(40) + 1.0

    def function(x: Any) -> Any:
        return singular(np.concatenate([np.zeros(3), w @ x]))

    np.testing.assert_array_equal(graphjit.jacfwd(function)(np.ones(40))[:3], 0)
    np.testing.assert_array_equal(graphjit.jacrev(function)(np.ones(40))[:3], 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda v, i: np.broadcast_to(v, (5, 6))[i],
        lambda v, i: np.ones((5, 6))[i] + v,
        lambda v, i: np.tile(v, (5, 1))[i],
        lambda v, i: np.outer(np.ones(5), v)[i],
        lambda v, i: (v + np.zeros((5, 1)))[i],
        lambda v, i: np.repeat(v[None], 5, axis=0)[i],
    ],
)
def test_positions_are_checked_whatever_is_picked(function: Callable[..., Any]) -> None:
    v = np.arange(6.0)
    with pytest.raises(IndexError, match="out of bounds"):
        graphjit.jit(function)(v, np.array([77, -9]))
    inside = np.array([4, -5])
    np.testing.assert_array_equal(graphjit.jit(function)(v, inside), function(v, inside))


def test_selections_by_rows_of_length_one() -> None:
    y = np.array([[-1.0], [4.0]])

    def masked(y: Any) -> Any:
        return np.sum(np.where(y > 0, np.sqrt(y) * np.ones(3), 0.0))

    for make in (graphjit.grad, graphjit.jacfwd, graphjit.jacrev):
        np.testing.assert_allclose(make(masked)(y), [[0.0], [0.75]])
    z = np.array([[0.0, 0.0], [1.0, 2.0]])

    def units(z: Any) -> Any:
        norm = np.sum(z * z, axis=1, keepdims=True)
        return np.sum(np.where(norm > 0, z / np.sqrt(norm), 0.0))

    got = graphjit.grad(units)(z)
    np.testing.assert_array_equal(got[0], 0)
    assert np.isfinite(got).all()


def test_reverse_mode_transposes_the_solver_of_a_root() -> None:
    """A solver that knows its matrix, and does not ask the function that it is given."""
    m = np.array([[2.0, 1.0], [0.0, 1.0]])
    inverse, c = np.linalg.inv(m), np.array([1.0, 2.0])

    def solution(b: Any) -> Any:
        found = graphjit.custom_root(
            lambda x: m @ x - b, np.zeros(2), lambda f, x: inverse @ b, lambda g, y: inverse @ y
        )
        return np.sum(c * found)

    np.testing.assert_allclose(graphjit.grad(solution)(np.ones(2)), inverse.T @ c)
    np.testing.assert_allclose(graphjit.jacfwd(solution)(np.ones(2)), inverse.T @ c)


def test_guesses_of_integers_take_the_dtype_of_the_equation() -> None:
    def kepler(e: Any, guess: Any) -> Any:
        return graphjit.fixed_point(
            lambda x: 1.0 + e * np.sin(x), guess, tangent_solve=lambda g, y: y / g(1.0)
        )

    want = graphjit.grad(kepler)(0.1, 1.0)
    assert graphjit.grad(lambda e: kepler(e, 1))(0.1) == want
    single = graphjit.grad(lambda e: kepler(e, np.float32(1.0)))(0.1)
    assert np.isclose(single, want, rtol=1e-6)

    def solved(d: Any) -> Any:
        b = np.array([1, 2])
        return np.sum(
            graphjit.custom_linear_solve(lambda x: d * x, b, lambda f, b: b / f(np.ones(2)), symmetric=True)
        )

    np.testing.assert_allclose(graphjit.grad(solved)(np.array([1.0, 2.0])), [-1.0, -0.5])


@pytest.mark.parametrize(
    ("tangent_solve", "message"),
    [(lambda g, y: np.ones(3), r"shape \(3,\)"), (lambda g, y: (y,), "must return what it was given")],
)
def test_what_a_solver_returns_is_checked(tangent_solve: Any, message: str) -> None:
    def root(a: Any) -> Any:
        return graphjit.custom_root(lambda x: x * x - a, 1.0, lambda f, x: np.sqrt(a), tangent_solve)

    with pytest.raises(DerivativeError, match=message):
        graphjit.grad(root)(4.0)
    with pytest.raises(DerivativeError, match=r"shape \(2,\)"):
        graphjit.jit(lambda a: graphjit.custom_root(lambda x: x - a, 1.0, lambda f, x: np.ones(2)))(1.0)


def test_without_compilation_out_axes_none_is_checked_too() -> None:
    with graphjit.disable_jit(), pytest.raises(ValueError, match="varies from element to element"):
        graphjit.vmap(lambda x: x, out_axes=None)(np.arange(3.0))


def test_checkpoints_around_custom_rules() -> None:
    w, x = np.array([0.5, 1.5]), np.array([0.3, -0.2])
    g = graphjit.custom_vjp(lambda x: x * w)
    g.defvjp(lambda x: (g(x), None), lambda _, ct: (w * ct,))
    block = graphjit.checkpoint(lambda x: np.sin(g(x)))
    got = graphjit.jacrev(graphjit.grad(lambda x: np.sum(np.cos(block(x)))))(x)
    want = graphjit.hessian(lambda x: np.sum(np.cos(np.sin(x * w))))(x)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    inner = graphjit.checkpoint(np.sin)
    outer = graphjit.checkpoint(lambda x: np.sin(inner(x)))
    c = graphjit.custom_vjp(outer)
    c.defvjp(lambda x: (outer(x), x), lambda x, ct: graphjit.vjp(outer, x)[1](ct))
    assert np.isclose(graphjit.jacfwd(c)(0.3), np.cos(np.sin(0.3)) * np.cos(0.3))
    assert np.isclose(graphjit.hessian(c)(0.3), graphjit.hessian(lambda x: np.sin(np.sin(x)))(0.3))


def test_a_rule_may_read_what_varies() -> None:
    def function(x: Any, y: Any) -> Any:
        g = graphjit.custom_jvp(np.sin)
        g.defjvp(lambda p, t: (np.sin(p[0]), t[0] * np.cos(p[0]) * y))
        return g(x)

    y = np.arange(3.0) + 1
    got = graphjit.grad(lambda x: np.sum(graphjit.vmap(function)(x, y)))(np.ones(3))
    np.testing.assert_allclose(got, np.cos(1.0) * y)


def test_dtypes_of_blocks_that_are_zero() -> None:
    for make in (graphjit.jacfwd, graphjit.jacrev):
        assert make(np.argmax)(np.ones(3)).dtype == np.float64
    with pytest.raises(TypeError, match="axis_size is a number of elements"):
        graphjit.vmap(np.sin, axis_size=2.5)(np.ones(2))
    with pytest.raises(ValueError, match="chunk_size"):
        graphjit.jacfwd(np.sin, chunk_size=True)
