"""np.convolve and np.correlate: NumPy's values and dtypes at every size, exact beside infinities, linear
memory, derivatives of every order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_harness import run
from grids import part, parts
from threads_harness import same_bits

import graphjit
from graphjit import pipeline
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.ir.types import F64, Type
from graphjit.limits import host_limits
from graphjit.loops.cost import costs

MODES = ("full", "same", "valid")
FUNCTIONS = (np.convolve, np.correlate)
SIZES = (1, 2, 3, 8, 9, 17, 33, 64, 65, 130, 300)
DTYPES = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")

Function = Callable[..., Any]


def compiled(function: Function, mode: str, backend: str = "llvm") -> Function:
    return graphjit.jit(lambda a, v: function(a, v, mode), backend=backend)


@pytest.mark.sample(2)
@pytest.mark.parametrize("number", parts(3))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_size(function: Function, number: int) -> None:
    rng = np.random.default_rng(1)
    for n, m, mode in part(number, 3, SIZES, SIZES, MODES):
        a, v = rng.normal(size=n), rng.normal(size=m)
        want, got = function(a, v, mode), compiled(function, mode)(a, v)
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_long_series(function: Function) -> None:
    """From many tiles to blocks of threads; whole numbers, so every sum is exact."""
    for n, m in ((5_000, 700), (3_000, 3_000), (700, 5_000), (100_000, 3), (20_001, 257)):
        for mode in MODES:
            a, v = (
                (np.arange(n) * 7 % 11 - 5).astype(np.float32),
                (np.arange(m) * 5 % 7 - 3).astype(np.float32),
            )
            np.testing.assert_array_equal(compiled(function, mode)(a, v), function(a, v, mode))


CASES = tuple(itertools.product(((20, 6), (6, 20), (70, 40)), MODES))


@pytest.mark.sample(7)
@pytest.mark.parametrize("number", parts(len(CASES)))
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("first", DTYPES)
def test_dtypes(function: Function, first: str, number: int) -> None:
    """Each part has all pairs of dtypes, each with another case."""
    rng = np.random.default_rng(2)
    for second, ((n, m), mode) in part(number, len(CASES), DTYPES, CASES):
        a, v = rng.integers(0, 9, n).astype(first), rng.integers(0, 9, m).astype(second)
        want, got = function(a, v, mode), compiled(function, mode)(a, v)
        assert got.dtype == want.dtype, (first, second)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_only_terms_that_exist_are_added(function: Function, mode: str) -> None:
    rng = np.random.default_rng(3)
    for n, m in ((5, 3), (3, 5), (100, 70), (70, 100), (300, 300), (40, 1), (1, 1)):
        a, v = rng.normal(size=n), rng.normal(size=m)
        v[0], a[-1] = np.inf, np.nan
        want, got = function(a, v, mode), compiled(function, mode)(a, v)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


@pytest.mark.parametrize("vector", [16, 32, 64])
def test_shorter_vectors_and_results_cut_anywhere(vector: int) -> None:
    """Loops whose length changes with the result are cut by mask wherever they end, whatever a step takes."""
    widest = host_limits().vectors.vector_bytes
    limits = host_limits().changed(vectors={"vector_bytes": min(vector, widest)})
    rng = np.random.default_rng(vector)
    for n, m, low, length in (
        (90, 70, 66, 95),
        (33, 33, 1, 34),
        (40, 34, 33, 37),
        (64, 36, -32, 6),
        (17, 9, 4, 17),
        (9, 64, 32, 64),
        (200, 66, -168, 6),
        (64, 36, -25, 12),
    ):
        x, w = (
            np.concatenate([rng.normal(size=size), np.full(64, np.nan)])[:size] for size in (n, m)
        )  # what is read beyond the end shows
        b = Builder()
        inputs = [b.input(Type(F64, (size,)), name) for size, name in ((n, "x"), (m, "w"))]
        graph = Graph("slides", inputs, [b.correlate(*inputs, low=low, length=length)])
        (got,) = run(graph, [x, w], limits)
        np.testing.assert_allclose(got, interpret(graph, x, w)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_the_numba_back_end() -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(4)
    a, v = rng.normal(size=200), rng.normal(size=90)
    for mode in MODES:
        np.testing.assert_allclose(
            compiled(np.convolve, mode, "numba")(a, v), np.convolve(a, v, mode), rtol=1e-12, atol=1e-12
        )


def test_a_number_is_a_series_and_errors_say_what_is_wrong() -> None:
    np.testing.assert_array_equal(graphjit.jit(np.convolve)(np.arange(3.0), 2.0), [0, 2, 4])
    for function, empty, where in (
        (np.convolve, "a", "a cannot"),
        (np.convolve, "v", "v cannot"),
        (np.correlate, "a", "first"),
        (np.correlate, "v", "second"),
    ):
        sizes = {"a": 3, "v": 2, empty: 0}
        for plain in (function, graphjit.jit(function)):
            with pytest.raises(ValueError, match=where + ".*empty"):
                plain(np.ones(sizes["a"]), np.ones(sizes["v"]))
    with pytest.raises(ValueError, match=r"mode must be one of.*'whole'.*test_convolutions"):
        graphjit.jit(lambda a: np.convolve(a, a, "whole"))(np.ones(3))
    with pytest.raises(ValueError, match=r"object too deep.*\(2, 2\).*test_convolutions"):
        graphjit.jit(lambda a: np.correlate(a, a[0]))(np.ones((2, 2)))


def toeplitz(v: np.ndarray, n: int) -> np.ndarray:
    """The matrix T of np.convolve(a, v) = T @ a for a series a of n elements."""
    made = np.zeros((n + len(v) - 1, n))
    for k, value in enumerate(v):
        made[np.arange(n) + k, np.arange(n)] = value
    return made


@pytest.mark.sample(2)
@pytest.mark.parametrize(("n", "m"), [(9, 4), (4, 9), (7, 7), (70, 66), (150, 20)])
def test_derivatives(n: int, m: int) -> None:
    """First ones against the explicit matrix, second ones against differences, both in both modes."""
    rng = np.random.default_rng(n)
    a, v, c, d, e = (
        rng.normal(size=n),
        rng.normal(size=m),
        rng.normal(size=n + m - 1),
        rng.normal(size=n),
        rng.normal(size=m),
    )

    def loss(a: Any, v: Any) -> Any:
        return np.sum(np.tanh(np.convolve(a, v)) * c)

    gradient = graphjit.grad(loss, argnums=(0, 1))
    matrix, other = toeplitz(v, n), toeplitz(a, m)
    slope = c * (1 - np.tanh(matrix @ a) ** 2)
    np.testing.assert_allclose(gradient(a, v)[0], matrix.T @ slope, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(gradient(a, v)[1], other.T @ slope, rtol=1e-11, atol=1e-12)
    _, tangent = graphjit.jvp(loss, (a, v), (d, e))
    np.testing.assert_allclose(tangent, (matrix.T @ slope) @ d + (other.T @ slope) @ e, rtol=1e-11)

    def along(a: Any, v: Any) -> Any:
        by_a, by_v = gradient(a, v)
        return np.sum(by_a * d) + np.sum(by_v * e)

    h = 1e-6
    differences = [
        (p - q) / (2 * h)
        for p, q in zip(gradient(a + h * d, v + h * e), gradient(a - h * d, v - h * e), strict=True)
    ]
    reverse = graphjit.grad(along, argnums=(0, 1))(a, v)
    forward = graphjit.jvp(gradient, (a, v), (d, e))[1]
    for got in (reverse, forward):
        for mine, want in zip(got, differences, strict=True):
            np.testing.assert_allclose(mine, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_in_every_mode(function: Function, mode: str) -> None:
    rng = np.random.default_rng(5)
    for n, m in ((12, 5), (5, 12), (6, 6)):
        a, v, h = rng.normal(size=n), rng.normal(size=m), 1e-6
        weights = rng.normal(size=len(function(a, v, mode)))

        def loss(a: Any, v: Any, weights: np.ndarray = weights) -> Any:
            return np.sum(function(a, v, mode) * weights)

        by_a, by_v = graphjit.grad(loss, argnums=(0, 1))(a, v)
        want_a = [(loss(a + h * step, v) - loss(a - h * step, v)) / (2 * h) for step in np.eye(n)]
        want_v = [(loss(a, v + h * step) - loss(a, v - h * step)) / (2 * h) for step in np.eye(m)]
        np.testing.assert_allclose(by_a, want_a, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(by_v, want_v, rtol=1e-7, atol=1e-8)


def test_long_kernels_keep_their_digits_and_bits() -> None:
    a, v = np.full(6_000, 0.1, np.float32), np.full(5_000, 0.1, np.float32)
    exact = np.convolve(a.astype(np.float64), v.astype(np.float64))
    assert (
        np.max(np.abs(graphjit.jit(np.convolve)(a, v) - exact) / exact) <= 40 * np.finfo(np.float32).eps
    )  # one chain: some thousands
    rng = np.random.default_rng(6)
    a, v = rng.normal(size=20_000), rng.normal(size=700)
    same_bits(graphjit.value_and_grad(lambda a, v: np.sum(np.convolve(a, v) ** 2), argnums=(0, 1)), a, v)


def test_memory_and_work_are_those_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arena holds no matrix of windows, and no term is computed that is not there."""
    seen = []
    lower = pipeline.lower

    def spy(program: Any, *runner: Any) -> Any:
        kernels = lower(program, *runner)
        seen.append((program.arena, sum(cost.flops for cost in costs(program, kernels).values())))
        return kernels

    monkeypatch.setattr(pipeline, "lower", spy)
    n = 4_000
    a, v = np.ones(n), np.ones(n)
    graphjit.jit(lambda a, v: np.convolve(a, v, "full"))(a, v)
    graphjit.grad(lambda a, v: np.sum(np.convolve(a, v, "same") ** 2), argnums=(0, 1))(a, v)
    (arena, flops), (backward, _) = seen
    assert arena <= 8 * 2 * n  # the reversed kernel
    assert backward <= 8 * 8 * n
    assert flops <= 1.2 * 2 * n * n
