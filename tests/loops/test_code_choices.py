"""Choices of code that stand in the loop IR: calls, tails, kernels that are not optimised; and the table
of scalar operations that they are made by.
"""

from __future__ import annotations

import numpy as np
import pytest
from compiled_harness import kernels, run, traced

import graphjit
from graphjit.ir import scalars
from graphjit.ir.opdef import REGISTRY, Scalar
from graphjit.limits import host_limits
from graphjit.loops.ir import For, walk
from graphjit.loops.printer import print_kernel


def lane_loops(function, *args):
    return [
        s
        for k in kernels(traced(function, *args))
        for s in walk(k.body)
        if isinstance(s, For) and s.kind == "simd"
    ]


# ---------------------------------------------------------------------------------------------------- calls


def many(x):
    return sum(np.exp(x * k) for k in range(1, 21))


def test_functions_are_called_where_there_are_many_or_elements_are_few():
    def calls(function, n):
        return {loop.calls for loop in lane_loops(function, np.zeros(n))}

    assert calls(np.exp, 10_000) == {False}
    assert calls(many, 10_000) == {True}
    assert calls(lambda x: np.exp(x) + np.sin(x) + np.cos(x), 64) == {True}
    assert calls(lambda x: np.exp(x) + np.sin(x), 64) == {False}


@pytest.mark.parametrize("n", [1, 7, 8, 64, 1000])
def test_called_and_inlined_functions_have_the_same_value(n):
    x = np.linspace(-1.0, 1.0, n)
    inlined = host_limits().changed(code={"calls": 1000, "calls_short": 1000})
    graph = traced(many, x)
    np.testing.assert_array_equal(run(graph, [x])[0], run(graph, [x], inlined)[0])


def test_long_straight_kernels_are_not_optimised():
    def steps(x):
        a, b = x[0], x[1]
        for _ in range(150):
            a, b = a * b + 1.0, b - a
        return a + b

    graph, x = traced(steps, np.ones(2), reroll=False), np.array([0.5, -0.25])
    hasty, patient = (host_limits().changed(code={"straight_line": n}) for n in (20, 100_000))
    assert any(kernel.quick and "quick" in print_kernel(kernel) for kernel in kernels(graph, hasty))
    assert not any(kernel.quick for kernel in kernels(graph, patient))
    np.testing.assert_array_equal(run(graph, [x], hasty)[0], run(graph, [x], patient)[0])


# ---------------------------------------------------------------------------------------------------- tails


def test_unrolling_gives_way_to_whole_vectors():
    lanes = host_limits().vectors.vector_bytes // 8
    (whole,) = lane_loops(lambda x: x + 1.0, np.zeros(101 * lanes))
    assert (whole.unroll, whole.is_ragged) == (1, False)
    (rest,) = lane_loops(lambda x: x + 1.0, np.zeros(101 * lanes + 1))
    assert rest.unroll == 4
    assert rest.is_ragged


@pytest.mark.parametrize("vectors", [1, 2, 3, 5, 8, 9, 11, 16, 40])
def test_sums_in_lanes_stand_side_by_side(vectors):
    """They would wait for one another's additions; the last vectors are not alone."""
    width = vectors * host_limits().vectors.vector_bytes // 8
    x, w = np.linspace(-1.0, 1.0, 30), np.random.default_rng(0).standard_normal((30, width))
    graph = traced(lambda x, w: np.tanh(np.sum(x[:, None] * w, axis=0)), x, w)
    loops = [s for k in kernels(graph) for s in walk(k.body) if isinstance(s, For) and s.kind == "simd"]
    (loop,) = (s for s in loops if any(isinstance(inner, For) for inner in s.body))
    assert loop.unroll == {1: 1, 2: 2, 3: 3, 5: 5, 9: 5, 11: 6}.get(vectors, 8)
    np.testing.assert_allclose(run(graph, [x, w])[0], np.tanh(x @ w), rtol=1e-13, atol=1e-15)


def test_arrays_without_elements_have_loops_without_statements():
    def step(total, row):
        return total + np.sum(row), np.sign(row)

    total, signs = graphjit.jit(lambda rows: graphjit.scan(step, 0.0, rows))(np.ones((4, 0)))
    assert (total, signs.shape) == (0.0, (4, 0))


def test_light_loops_keep_their_tail_apart_and_heavy_ones_mask_it():
    assert {loop.tail for loop in lane_loops(lambda x: x + 1.0, np.zeros(1003))} == {"apart"}
    assert {loop.tail for loop in lane_loops(np.exp, np.zeros(1003))} == {"masked"}
    assert {loop.tail for loop in lane_loops(lambda x: np.exp(x[::2]), np.zeros(2006))} == {"apart"}


# ----------------------------------------------------------------------------------------------- the table


def test_every_elementwise_op_has_a_row():
    for name, declared in REGISTRY.items():
        if isinstance(declared.lower, Scalar):
            assert declared.lower.name in scalars.SCALARS, name
    assert not {name for name, row in scalars.SCALARS.items() if row.numba not in ("", "ufunc", "runtime")}
