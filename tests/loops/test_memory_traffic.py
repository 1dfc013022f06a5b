"""What goes past the caches, what is fetched ahead, and what runs in which lanes: decisions, and that they
change no value.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled_harness import compiled, run, traced

import graphjit
from graphjit.backend.llvm.threads import pool
from graphjit.limits import host_limits
from graphjit.loops.ir import For, walk

RNG = np.random.default_rng(0)
WIDE = host_limits().changed(vectors={"vector_bytes": 64})
"""Loops as they are where vectors have 64 bytes: with shorter ones sums are cut into more blocks."""


def fetched(made):
    """What loops in lanes fetch ahead, one list a loop."""
    return [list(loop.fetch) for loop in lane_loops(made)]


def lane_loops(made):
    return [
        s
        for kernel in made.kernels.values()
        for s in walk(kernel.body)
        if isinstance(s, For) and s.kind == "simd"
    ]


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------ ahead


def test_rows_in_several_passes_are_fetched_ahead_where_they_come_from_memory():
    assert "llvm.prefetch" in compiled(softmax, np.zeros((2000, 300))).module.render()
    assert "llvm.prefetch" not in compiled(softmax, np.zeros((100, 300))).module.render()  # stays in a cache
    assert (
        "llvm.prefetch" not in compiled(lambda x: x * 2 + 1, np.zeros((2000, 300))).module.render()
    )  # one pass


@pytest.mark.parametrize("shape", [(3, 800, 700), (600, 60, 700)])
def test_the_next_row_is_fetched_not_the_next_matrix(shape):
    made = compiled(lambda x, mask: softmax(x + mask), np.zeros(shape), np.zeros(shape[1:]))
    offsets = [address.offset for places in fetched(made) for _, address in places]
    assert offsets
    assert max(offsets) * 8 < host_limits().traffic.ahead_bytes


def test_halves_of_a_row_are_both_fetched_and_neighbours_once():
    def halves(x):
        return softmax(x[:, :300]) + softmax(x[:, 300:])

    def shifted(x):
        return softmax(x[:, 1:] + x[:, :-1])

    for function, count in ((halves, 2), (shifted, 1)):
        made = compiled(function, np.zeros((2000, 600)), limits=WIDE)
        inputs = [buffer for places in fetched(made) for buffer, _ in places if buffer.kind == "input"]
        assert len(inputs) == count, function


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(2, 3), (9, 17), (70, 65), (33, 130)])
def test_fetching_and_streaming_change_no_bit(dtype, shape):
    x = RNG.normal(size=shape).astype(dtype)

    def loss(x):
        return np.sum(softmax(x) ** 2, axis=1)

    everywhere = host_limits().changed(traffic={"far_bytes": 0, "streamed_bytes": 0, "last_cache": 0})
    for function in (loss, graphjit.grad(lambda x: np.sum(loss(x)))):
        graph = traced(function, x)
        for a, b in zip(run(graph, [x]), run(graph, [x], everywhere), strict=True):
            np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------------------------- streaming


def test_results_go_past_the_caches_only_where_nothing_reads_them_again():
    limits = host_limits().changed(traffic={"streamed_bytes": 8_000, "last_cache": 24_000})

    def streams(function, *args):
        return "nontemporal" in compiled(function, *args, limits=limits).module.render()

    small, large = np.zeros(1_100), np.zeros(4_000)
    assert not streams(lambda x: x + 1.0, small)  # both together stay in the cache
    assert streams(lambda x, y, z: x + y + z, *[small] * 3)

    def returned_and_read(x):
        y = np.cumsum(x.reshape(40, 50), axis=1)
        return y, y.T @ y

    assert not streams(returned_and_read, np.zeros(2_000))
    assert not streams(lambda x: np.exp(x), large)  # heavy
    assert not streams(lambda x: (x + 1.0, x - 1.0), large)  # two results


# ------------------------------------------------------------------------------------------------------ lanes


def test_short_rows_with_heavy_work_run_across_rows_and_long_ones_along():
    def logsumexp(x):
        return np.log(np.sum(np.exp(x), axis=1))

    assert {s.extent for s in lane_loops(compiled(logsumexp, np.zeros((48, 4)), limits=WIDE))} == {48}
    assert 1000 in {s.extent for s in lane_loops(compiled(logsumexp, np.zeros((48, 1000)), limits=WIDE))}


def test_rows_that_are_picked_by_number_run_along():
    i = np.arange(48)
    made = compiled(lambda w, i: np.sum(w[i] * 2.0, axis=1), np.zeros((100, 64)), i)
    assert 48 not in {s.extent for s in lane_loops(made)}


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 7, 9, 16, 33])
@pytest.mark.parametrize("rows", [3, 8, 31, 64, 65])
def test_values_are_the_same_across_and_along(rows, columns, dtype):
    x = RNG.normal(size=(rows, columns)).astype(dtype)

    def rowwise(x):
        return np.log(np.sum(np.exp(x), axis=1)) + np.log1p(np.max(np.abs(x), axis=1)) - np.min(x, axis=1)

    tolerance = {"rtol": 64 * np.finfo(dtype).eps, "atol": 64 * np.finfo(dtype).eps}
    np.testing.assert_allclose(graphjit.jit(rowwise)(x), rowwise(x), **tolerance)
    plus, minus = (
        np.sum(rowwise(x.astype(np.float64) + s * 1e-6 * np.ones_like(x, np.float64))) for s in (1, -1)
    )
    assert np.sum(graphjit.grad(lambda x: np.sum(rowwise(x)))(x)) == pytest.approx(
        (plus - minus) / 2e-6, rel=1e-3, abs=1e-3
    )


# ----------------------------------------------------------------------------------------------------- chains


def test_chains_with_integer_powers_and_remainders_beside_them():
    x, i, j = RNG.normal(size=100), RNG.integers(1, 5, size=100), RNG.integers(0, 4, size=100)

    def f(x, i, j):
        return np.tanh(np.tanh(np.tanh(x))) * i**j + np.fmod(j, i)

    np.testing.assert_allclose(graphjit.jit(f)(x, i, j), f(x, i, j), rtol=1e-14, atol=1e-14)
    with pytest.raises(ZeroDivisionError):
        graphjit.jit(f)(x, 0 * i, j)
    with pytest.raises(ValueError, match="negative integer powers"):
        graphjit.jit(f)(x, i, -j - 1)
    powers = graphjit.jit(lambda i, j: (i**j) ** j % 1000 + ((i**j) ** j) ** (j // 2))(i, j)
    np.testing.assert_array_equal(powers, (i**j) ** j % 1000 + ((i**j) ** j) ** (j // 2))


def test_chains_of_several_arguments_of_numbers_and_of_strided_rows():
    x = RNG.uniform(0.5, 1.5, size=(3, 201))

    def f(x, s):
        return np.hypot(np.arctan2(np.power(np.sqrt(x.T), s), s), np.log1p(np.exp(x.T)))

    np.testing.assert_allclose(graphjit.jit(f)(x, 1.25), f(x, 1.25), rtol=1e-14)
    from scipy import special

    def rare(x):
        return special.gammaln(special.erfcx(np.tanh(np.exp(x))))

    y = np.ascontiguousarray(x.ravel())
    np.testing.assert_allclose(graphjit.jit(rare)(y), rare(y), rtol=1e-12)


def test_a_chain_for_each_row_does_not_multiply_what_is_inside():
    def f(x):
        total = np.sum(np.exp(x), axis=1)
        return np.tanh(np.sin(np.cos(np.tanh(total))))

    text = compiled(f, np.zeros((60, 20))).module.render()
    assert not re.search(r"gj_\w+_8x\d", text)
    x = RNG.normal(size=(60, 20))
    np.testing.assert_allclose(graphjit.jit(f)(x), f(x), rtol=1e-13)


# ----------------------------------------------------------------------------------------------- ragged loops


@pytest.mark.parametrize("size", [1, 7, 8, 9, 31, 33, 63, 64, 65, 100, 127])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8])
def test_ragged_sums_and_extrema(size, dtype):
    x = (RNG.normal(size=(5, size)) * 50).astype(dtype)

    def f(x):
        return np.sum(x, axis=1), np.max(x, axis=1), np.min(x * 2, axis=1), np.prod(x > 0, axis=1), x + x

    for made, expected in zip(graphjit.jit(f)(x), f(x), strict=True):
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-3 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("size", [100_003, 131_079])
def test_ragged_blocks_are_the_same_for_any_number_of_threads(size):
    x = RNG.normal(size=size)
    before, found = pool.num_threads(), []
    f = graphjit.jit(lambda x: (np.sum(x * x), np.cumsum(x), 2 * x - 1))
    try:
        for count in (1, 2, 3, 8):
            pool.configure(count)
            found.append(f(x))
    finally:
        pool.configure(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found[0][1], np.cumsum(x), atol=1e-9)


# ----------------------------------------------------------------------------------- derivatives of quotients


def test_derivative_by_a_divisor_of_no_row():
    gradient = graphjit.grad(lambda x, y: np.sum(x / y), argnums=1)
    for y in (0.0, -1.0, np.nan):
        np.testing.assert_array_equal(gradient(np.zeros((3, 0)), np.full((3, 1), y)), np.zeros((3, 1)))


def test_derivative_by_a_divisor_keeps_small_and_large_terms():
    gradient = graphjit.grad(lambda c, x, y: np.sum(c * (x / y[:, None])), argnums=2)
    for c, x, y in ((1e-30, 1e-36, 1e-20), (1e20, 1e25, 1e5), (1e-30, 1e-30, 1e-20)):
        made = gradient(*(np.full(shape, v, np.float32) for shape, v in (((5, 3), c), ((5, 3), x), (5, y))))
        np.testing.assert_allclose(made, np.full(5, -3 * c * x / y / y), rtol=1e-5)


def test_sums_of_negated_values_keep_the_sign_of_zero():
    x = np.array([[1.0, -1.0], [2.0, -2.0]])
    np.testing.assert_array_equal(graphjit.jit(lambda x: 1 / np.sum(-x, axis=1))(x), [np.inf, np.inf])


@pytest.mark.parametrize("y", [0.0, -0.0, np.inf, np.nan, 1e-3, -7.0])
def test_derivative_by_a_divisor_of_each_row(y):
    x, w = RNG.normal(size=(2, 3, 5))
    made = graphjit.grad(lambda x, y: np.sum(w * np.sin(x / y)), argnums=1)(x, np.full((3, 1), y))
    with np.errstate(all="ignore"):
        expected = np.sum(-w * np.cos(x / y) * (x / y) / y, axis=1, keepdims=True)
    np.testing.assert_allclose(made, expected, rtol=1e-13)
