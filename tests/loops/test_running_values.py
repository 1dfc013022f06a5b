"""Running sums, products and recurrences: in lanes along their axis or beside it, fused with what surrounds
them, in both directions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from compiled_harness import Make, check, examine, run, same, traced
from random_graphs import random_graph

import graphjit
from graphjit import pipeline
from graphjit.backend.llvm.threads import pool
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import F32, F64, Type
from graphjit.limits import Limits, host_limits
from graphjit.loops.ir import For, LoopKernel, walk
from graphjit.schedule.program import Kernel, Program
from graphjit.transforms.reverse import cotangents

LENGTHS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1000)


def schedule(graph: Graph, limits: Limits | None = None) -> tuple[Program, dict[str, LoopKernel]]:
    made = pipeline.compile_graph(graph, limits=limits)
    return made.program, made.kernels


def scan(make: Make, name: str, x: Node, axis: int, reverse: bool) -> Node:
    if name == "recurrence":
        return make.b.recurrence(make.b.mul(x, 0.25), x, axis=axis, reverse=reverse)
    return getattr(make.b, name)(x, axis=axis, reverse=reverse)


@pytest.mark.sample(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "recurrence"])
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("n", LENGTHS)
def test_every_length(n, dtype, name, reverse):
    make = Make()
    x = make.input(n, dtype=dtype)
    out = scan(make, name, x, 0, reverse)
    check(make, make.b.mul(make.b.exp(make.b.mul(out, 0.01)), x), 100)


@pytest.mark.parametrize("dtype", [np.dtype(t) for t in ("int8", "int32", "int64", "uint8", "uint32")])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_integers_wrap_around(name, dtype):
    rng = np.random.default_rng(0)
    for n in (1, 5, 16, 67):
        make = Make()
        x = make.input(n, dtype=dtype)
        for reverse in (False, True):
            graph = Graph("g", [x], [scan(make, name, x, 0, reverse)])
            values = [rng.integers(0, 100, size=n).astype(dtype)]
            np.testing.assert_array_equal(run(graph, values)[0], interpret(graph, *values)[0])


@pytest.mark.sample(2)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "recurrence"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (1, 9, 17), (17, 1, 3), (2, 33, 1), (40, 2, 70), (0, 3, 2), (3, 0, 2)]
)
def test_every_axis(shape, axis, name, reverse):
    make = Make()
    x = make.input(*shape)
    out = scan(make, name, make.b.tanh(x), axis, reverse)
    graph = make.graph(out)
    check(make, out, 100)
    values = [np.random.default_rng(1).normal(size=shape)]
    same(NumbaExecutable(*schedule(graph), python=True).run(values)[0], interpret(graph, *values)[0], name)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_rows_sum_what_runs_along_them(name, reverse):
    """A running value and a reduction over the same axis share one loop; over another axis they do not."""
    for axes, steps in (((1,), 1), ((0, 1), 1), ((0,), 2)):
        make = Make()
        x, w = make.input(6, 37), make.input(6, 37)
        out = make.b.sum(make.b.mul(w, scan(make, name, x, 1, reverse)), axes=axes)
        assert len(schedule(make.graph(out))[0].steps) == steps
        check(make, out, 1000)


def test_value_and_gradient_take_two_sweeps():
    def loss(x, w):
        return np.sum(w * np.cumprod(x))

    make = Make()
    b = make.b
    x, w = make.input(100), make.input(100)
    out = b.sum(b.mul(w, b.cumprod(x, axis=0, reverse=False)), axes=(0,))
    (gradient,) = cotangents(b, {out: b.full(1.0, out.type)}, [x])
    program, kernels = schedule(Graph("g", make.inputs, [out, gradient]))
    assert len(program.steps) == 2
    assert all(isinstance(step, Kernel) and step.scan is not None for step in program.steps)
    assert all(
        any(isinstance(s, For) and s.kind == "simd" for s in walk(kernel.body)) for kernel in kernels.values()
    )
    rng = np.random.default_rng(0)
    values = [rng.normal(size=100), rng.normal(size=100)]
    value, (dx, dw) = graphjit.value_and_grad(loss, argnums=(0, 1))(*values)
    products = np.cumprod(values[0])
    np.testing.assert_allclose(value, np.sum(values[1] * products), rtol=1e-12)
    np.testing.assert_allclose(dw, products, rtol=1e-12)
    np.testing.assert_allclose(
        dx, np.cumsum((values[1] * products)[::-1])[::-1] / values[0], rtol=1e-9, atol=1e-12
    )


def test_products_with_zeros_have_their_derivatives():
    x = np.array([0.5, 0.0, 2.0, 0.0, 3.0, -1.0, 0.25, 0.0, 1.5, 2.0])
    w = np.arange(1.0, 11.0)
    wanted = np.zeros(10)
    for k in range(10):
        for j in range(k + 1):
            wanted[j] += w[k] * np.prod(np.delete(x[: k + 1], j))
    np.testing.assert_allclose(graphjit.grad(lambda x: np.sum(w * np.cumprod(x)))(x), wanted, rtol=1e-13)


def test_products_pass_the_ends_of_the_range_as_numpy_does():
    """Neighbours overflow or vanish together where the running value does not; NaN and infinity stay in their
    places.
    """
    cases = [
        [1e-300, 1e-100, 1e200, 1e200, 1e-250, 1e300],
        [1e-200, 1e200, 1e200, 1e-200, 1e-200, 1e200, 1e200, 1e-200, 1e-100],
        [1e200, 1e200, 0.0, 3.0],
        [2.0, np.nan, 0.0, 1.0],
        [2.0, np.inf, 0.5, 0.0, 1.0],
        [-np.inf, -1.0, np.inf],
    ]
    run_products = graphjit.jit(lambda x: np.cumprod(x))
    for case in cases:
        x = np.array(case * 3)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(run_products(x), np.cumprod(x))
    run_sums = graphjit.jit(lambda x: np.cumsum(x))
    x = np.array([1.0, np.inf, 2.0, -1.0, -np.inf, 3.0, np.nan, 1.0] * 2)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run_sums(x), np.cumsum(x))


def test_the_first_factor_of_a_recurrence_is_of_no_interest():
    make = Make()
    a, u = make.input(20), make.input(20)
    for reverse, edge in ((False, 0), (True, 19)):
        graph = Graph("g", make.inputs, [make.b.recurrence(a, u, axis=0, reverse=reverse)])
        for bad in (np.nan, np.inf):
            values = [np.full(20, 0.5), np.arange(20.0)]
            values[0][edge] = bad
            np.testing.assert_allclose(run(graph, values)[0], interpret(graph, *values)[0], rtol=1e-14)


def test_what_is_heavy_stays_parallel():
    make = Make()
    b = make.b
    x = make.input(100_000)
    y = x
    for _ in range(6):
        y = b.tanh(b.exp(b.mul(y, 0.1)))
    program, kernels = schedule(make.graph(b.cumsum(y, axis=0, reverse=False)))
    assert len(program.steps) == 2
    assert any(isinstance(s, For) and s.kind == "parallel" for s in kernels["k0"].body)


def test_rows_run_side_by_side():
    make = Make()
    x = make.input(1000, 300)
    _, kernels = schedule(make.graph(make.b.cumprod(x, axis=1, reverse=True)))
    assert any(isinstance(s, For) and s.kind == "parallel" for s in kernels["k0"].body)
    make = Make()
    x = make.input(1000, 300)
    _, kernels = schedule(make.graph(make.b.cumsum(x, axis=0, reverse=False)))
    assert any(isinstance(s, For) and s.kind == "parallel" for s in kernels["k0"].body)


def test_results_do_not_depend_on_threads():
    code = """
import hashlib, numpy as np, graphjit
x = np.random.default_rng(0).normal(size=(400, 500))
f = graphjit.value_and_grad(lambda x: np.sum(np.cumsum(np.exp(x), axis=0) * 0.1) + np.sum(np.cumprod(x, axis=1)) + np.sum(np.cumsum(x)))
value, gradient = f(x)
print(hashlib.sha256(value.tobytes() + gradient.tobytes()).hexdigest())
"""
    seen = set()
    for count in "1238":
        env = os.environ | {"GRAPHJIT_NUM_THREADS": count}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1


def test_donated_arguments_are_overwritten_in_step():
    x = np.arange(1.0, 40.0)
    wanted = np.cumsum(x[::-1] * 2)[::-1]
    f = graphjit.jit(lambda x: np.cumsum(x[::-1] * 2)[::-1] + 0 * x, donate_argnums=0)
    np.testing.assert_array_equal(f(x.copy()), wanted)


def test_second_derivatives():
    x = np.array([0.5, -1.0, 2.0, 0.0, 1.5])
    gradient = graphjit.grad(lambda x: np.sum(np.cumprod(x) * np.arange(1.0, 6.0)))
    row = graphjit.grad(lambda x, v: np.sum(gradient(x) * v))
    hessian = np.stack([row(x, v) for v in np.eye(5)])
    wanted = np.zeros((5, 5))
    for k in range(5):
        for i in range(k + 1):
            for j in range(k + 1):
                if i != j:
                    wanted[i, j] += (k + 1) * np.prod(np.delete(x[: k + 1], [i, j]))
    np.testing.assert_allclose(hessian, wanted, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------- one long row in blocks


def in_blocks(graph: Graph, limits: Limits | None = None) -> bool:
    """Whether a running value is made from the totals of blocks."""
    return any(
        buffer.name.startswith(made.name + "o")
        for made in schedule(graph, limits)[1].values()
        for buffer in made.locals
    )


SHORT_BLOCKS = host_limits().changed(threads={"scan_row": 2, "scan_block": 64, "worth_ns": 0})
"""Rows of a few hundred elements are cut."""


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = pool.num_threads()
    yield
    pool.configure(before)


@pytest.mark.sample(4)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [np.dtype(t) for t in ("f8", "f4", "i8", "i4", "u1")])
@pytest.mark.parametrize("n", [2, 64, 65, 127, 128, 200, 1000, 4097])
def test_blocks_of_every_length(n, dtype, reverse):
    for name in ("cumsum", "cumprod") if dtype.kind in "iu" else ("cumsum",):
        make = Make()
        x = make.b.input(Type(dtype, (n,)), "x")
        graph = Graph("g", [x], [make.b.mul(scan(make, name, make.b.add(x, x), 0, reverse), x)])
        assert in_blocks(graph, SHORT_BLOCKS)
        values = [(np.random.default_rng(n).normal(size=n) * 50).astype(dtype)]
        wanted = interpret(graph, *values)[0]
        found = []
        for count in (1, 2, 3, 8):
            pool.configure(count)
            found.append(run(graph, values, SHORT_BLOCKS)[0])
            np.testing.assert_array_equal(found[0].view(np.uint8), found[-1].view(np.uint8))
        for got in (found[0], NumbaExecutable(*schedule(graph, SHORT_BLOCKS), python=True).run(values)[0]):
            if dtype.kind == "f":
                summed = np.abs(2 * values[0].astype("f8"))
                size = (np.cumsum(summed[::-1])[::-1] if reverse else np.cumsum(summed)) * np.abs(values[0])
                assert np.all(np.abs(got - wanted) <= 20 * np.finfo(dtype).eps * size)
            else:
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_a_long_running_sum_is_at_least_as_accurate_as_one_after_the_other(dtype):
    x = (np.random.default_rng(3).normal(size=1_000_000) + 0.1).astype(dtype)
    exact = np.cumsum(x.astype(np.longdouble))
    error = np.abs(graphjit.jit(np.cumsum)(x) - exact).max()
    assert error <= np.abs(np.cumsum(x) - exact).max()


def test_blocks_with_infinities_and_nans():
    for bad in ([np.inf], [np.nan], [np.inf, -np.inf], [-0.0]):
        x = np.arange(1.0, 1001.0)
        x[300 : 300 + len(bad)] = bad
        graph_of = Make()
        at = graph_of.input(1000)
        graph = Graph("g", [at], [scan(graph_of, "cumsum", at, 0, False)])
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(run(graph, [x], SHORT_BLOCKS)[0], np.cumsum(x))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_keep_negative_zeros(dtype):
    for n in (300, 320):
        x = np.full(n, -0.0, dtype)
        for argument in (x, np.concatenate([x, [1.0, -1.0], x]).astype(dtype)):
            got = run(traced(np.cumsum, argument), [argument], SHORT_BLOCKS)[0]
            wanted = np.cumsum(argument)
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.cumsum(np.cumsum(x)),
        lambda x: np.cumsum(np.exp(x)),
        lambda x: np.cumprod(1 + x * 1e-3),
        lambda x: np.sum(np.cumsum(x) * x),
        lambda x: (np.cumsum(x), np.cumsum(x * x) - x),
        lambda x: np.cumsum(x.reshape(4, -1), axis=1),
    ],
)
def test_what_is_and_is_not_cut_has_the_same_value(f):
    x = np.random.default_rng(0).normal(size=1000)
    results = run(traced(f, x), [x], SHORT_BLOCKS)
    for got, wanted in zip(results, f(x) if len(results) > 1 else [f(x)], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-9)


def test_only_light_sums_of_long_rows_are_cut():
    def cut(build, n=1 << 18, dtype=F64) -> bool:
        make = Make()
        x = make.input(n, dtype=dtype)
        return in_blocks(Graph("g", [x], [build(make, x)]))

    assert cut(lambda make, x: scan(make, "cumsum", x, 0, False))
    assert cut(lambda make, x: scan(make, "cumsum", make.b.mul(x, x), 0, True))
    assert not cut(lambda make, x: scan(make, "cumsum", x, 0, False), 1000)
    assert not cut(lambda make, x: scan(make, "cumsum", make.b.exp(x), 0, False))
    assert not cut(lambda make, x: scan(make, "cumprod", x, 0, False))
    assert not cut(lambda make, x: scan(make, "recurrence", x, 0, False))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_with_short_blocks(seed):
    pool.configure(3)
    examine(random_graph(70_000 + seed, 25), seed, SHORT_BLOCKS)


def test_sums_beside_a_running_sum_are_taken_by_the_same_blocks():
    x, w = np.random.default_rng(0).normal(size=(2, 1000))
    graph = traced(graphjit.value_and_grad(lambda x, w: np.sum(np.cumsum(x) * w) + np.max(x)), x, w)
    found = []
    for count in (1, 2, 3, 8):
        pool.configure(count)
        value, gradient = run(graph, [x, w], SHORT_BLOCKS)
        found.append(value.tobytes() + gradient.tobytes())
    assert len(set(found)) == 1
    np.testing.assert_allclose(value, np.sum(np.cumsum(x) * w) + np.max(x), rtol=1e-11)
    np.testing.assert_allclose(gradient, np.cumsum(w[::-1])[::-1] + (x == x.max()), rtol=1e-9, atol=1e-11)
