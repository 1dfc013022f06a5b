"""Running sums, products and recurrences: in lanes along their axis or beside it, fused with what surrounds them, in both directions."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from test_backend import Make, check, run, same

import graphjit
from graphjit import pipeline
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import F32, F64
from graphjit.loops.ir import For, LoopKernel, walk
from graphjit.schedule.program import Kernel, Program
from graphjit.transforms.reverse import cotangents

LENGTHS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1000)


def schedule(graph: Graph) -> tuple[Program, dict[str, LoopKernel]]:
    program = pipeline.schedule(pipeline.optimize(graph))[1]
    return program, pipeline.lower(program)


def scan(make: Make, name: str, x: Node, axis: int, reverse: bool) -> Node:
    if name == "recurrence":
        return make.b.recurrence(make.b.mul(x, 0.25), x, axis=axis, reverse=reverse)
    return getattr(make.b, name)(x, axis=axis, reverse=reverse)


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


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "recurrence"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 9, 17), (17, 1, 3), (2, 33, 1), (40, 2, 70), (0, 3, 2), (3, 0, 2)])
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
    assert all(any(isinstance(s, For) and s.kind == "simd" for s in walk(kernel.body)) for kernel in kernels.values())
    rng = np.random.default_rng(0)
    values = [rng.normal(size=100), rng.normal(size=100)]
    value, (dx, dw) = graphjit.value_and_grad(loss, argnums=(0, 1))(*values)
    products = np.cumprod(values[0])
    np.testing.assert_allclose(value, np.sum(values[1] * products), rtol=1e-12)
    np.testing.assert_allclose(dw, products, rtol=1e-12)
    np.testing.assert_allclose(dx, np.cumsum((values[1] * products)[::-1])[::-1] / values[0], rtol=1e-9, atol=1e-12)


def test_products_with_zeros_have_their_derivatives():
    x = np.array([0.5, 0.0, 2.0, 0.0, 3.0, -1.0, 0.25, 0.0, 1.5, 2.0])
    w = np.arange(1.0, 11.0)
    wanted = np.zeros(10)
    for k in range(10):
        for j in range(k + 1):
            wanted[j] += w[k] * np.prod(np.delete(x[: k + 1], j))
    np.testing.assert_allclose(graphjit.grad(lambda x: np.sum(w * np.cumprod(x)))(x), wanted, rtol=1e-13)


def test_products_pass_the_ends_of_the_range_as_numpy_does():
    """Neighbours overflow or vanish together where the running value does not; NaN and infinity stay in their places."""
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
    for threads in "1238":
        env = os.environ | {"GRAPHJIT_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
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


