"""Thin matrix products inside sweeps: rows of a network stay in cache from its input to its gradient."""

from __future__ import annotations

import numpy as np
import pytest
from compiled_harness import Make, check, run
from random_graphs import rng_for
from threads_harness import same_bits

import graphjit
from graphjit import pipeline
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.types import F32, F64
from graphjit.limits import Limits, host_limits
from graphjit.loops.ir import Multiply, walk
from graphjit.loops.printer import print_kernel
from graphjit.schedule.program import Product, Program, Sweep


def network(w, b, v, u, x, y):
    """Two hidden layers, the second one with its weights the other way round, and an output with a
    softmax.
    """
    hidden = np.tanh(np.tanh(x @ w + b) @ v.T)
    scores = hidden @ u
    scores = scores - np.max(scores, axis=1, keepdims=True)
    return np.mean(np.log(np.sum(np.exp(scores), axis=1)) - np.sum(scores * y, axis=1))


def arguments(rows: int, dtype: np.dtype = F64) -> list[np.ndarray]:
    rng = np.random.default_rng(rows)
    shapes = [(11, 24), (24,), (19, 24), (19, 5), (rows, 11), (rows, 5)]
    return [np.asarray(rng.normal(size=shape) / 3, dtype) for shape in shapes]


def parts(program) -> list[Product]:
    return [
        part
        for step in program.steps
        if isinstance(step, Sweep)
        for part in step.parts
        if isinstance(part, Product)
    ]


EVERYWHERE = host_limits().changed(
    sweeps={"min_rows": 2, "shared_bytes": 0, "block_bytes": 300, "whole_rows": 3, "tasks": 4},
    contractions={"small": 0},
)
"""No size is too small for sweeps and matrix kernels."""


def scheduled(graph: Graph, limits: Limits | None = None) -> Program:
    return pipeline.schedule(pipeline.optimize(graph, limits=limits), limits=limits)[1]


@pytest.mark.sample(2)
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("rows", [1000, 1024, 5003])
def test_a_network_is_swept_once(rows, dtype):
    args = arguments(rows, dtype)
    compiled = graphjit.value_and_grad(network, argnums=(0, 1, 2, 3, 4))
    graph = compiled.dispatcher.staged(*args).graph
    program = scheduled(graph)
    assert len(parts(program)) == 9  # three forward, three for weights, three back to the inputs
    assert sum(isinstance(step, Product) for step in program.steps) == 0
    assert program.arena < rows * dtype.itemsize  # no layer is stored for all rows
    value, gradients = compiled(*args)
    tolerance = 1e-11 if dtype == F64 else 3e-4
    for got, want in zip((value, *gradients), interpret(graph, *args), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def test_results_do_not_depend_on_threads():
    args = arguments(3001)
    compiled = graphjit.value_and_grad(network, argnums=(0, 1, 2, 3, 4))
    same_bits(compiled, *args)


def test_wide_and_batched_products_stay_steps():
    rng = np.random.default_rng(0)
    x, w, t = rng.normal(size=(300, 400)), rng.normal(size=(400, 300)), rng.normal(size=(300, 20, 20))
    graph = graphjit.jit(lambda x, w, t: (np.tanh(x @ w), np.tanh(t @ t))).dispatcher.staged(x, w, t).graph
    program = scheduled(graph)
    assert not parts(program)
    assert sum(isinstance(step, Product) for step in program.steps) == 2


@pytest.mark.parametrize(
    ("shape", "fused"),
    [((300, 4, 256), True), ((300, 5, 256), False), ((255, 2, 4000), False), ((4000, 2, 255), False)],
)
def test_wide_products_of_few_terms_are_loops(shape, fused):
    m, k, n = shape
    rng = np.random.default_rng(k)
    u, v, y = rng.normal(size=(m, k)), rng.normal(size=(k, n)), rng.normal(size=(m, n))
    compiled = graphjit.value_and_grad(lambda u, v: np.sum((u @ v - y) ** 2), argnums=(0, 1))
    graph = compiled.dispatcher.staged(u, v).graph
    program = scheduled(graph)
    products = [*parts(program), *(step for step in program.steps if isinstance(step, Product))]
    assert any((part.m, part.n) == (m, n) for part in products) != fused
    _, (du, dv) = compiled(u, v)
    rest = 2 * (u @ v - y)
    np.testing.assert_allclose(du, rest @ v.T, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dv, u.T @ rest, rtol=1e-10, atol=1e-10)


def test_what_the_next_product_reads_is_not_written_past_the_caches():
    limits = host_limits().changed(traffic={"streamed_bytes": 1000, "last_cache": 1000})
    x, w, b, v = (np.random.default_rng(0).normal(size=shape) for shape in ((4000, 8), (8, 6), (6,), (6, 5)))

    def layer(x, w, b, v):
        h = np.maximum(x @ w + b, 0)
        return h, h @ v

    graph = graphjit.jit(layer).dispatcher.staged(x, w, b, v).graph
    made = pipeline.compile_graph(graph, limits=limits)
    assert len(parts(made.program)) == 2
    assert "nontemporal" not in made.module.render()
    graph = graphjit.jit(lambda x: x + 1.0).dispatcher.staged(np.ones(2000)).graph
    alone = pipeline.compile_graph(graph, limits=limits)
    assert "nontemporal" in alone.module.render()


# In square matrices rows, columns and terms are equally many: only strides tell them apart.
SQUARES = {
    "rows": ((1,), (0,)),
    "rows, columns": ((1,), (1,)),
    "columns": ((0,), (0,)),
    "columns, rows": ((0,), (1,)),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("which", SQUARES)
@pytest.mark.parametrize("n", [4, 11, 24])
def test_square_matrices(n, which, dtype):
    make = Make()
    b = make.b
    x, y = make.input(n, n, dtype=dtype), make.input(n, n, dtype=dtype)
    hidden = b.tanh(x)
    first = b.contract(hidden, b.exp(y), contract=SQUARES[which], batch=((), ()))
    twice = b.contract(hidden, hidden, contract=SQUARES[which], batch=((), ()))
    check(make, b.mul(first, b.add(twice, y)), 100, EVERYWHERE)


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", range(4))
def test_random_networks(chunk):
    for seed in range(50_000 + chunk * 6, 50_000 + chunk * 6 + 6):
        rng = rng_for(seed)
        dtype = (F64, F32)[int(rng.integers(2))]
        sizes = [int(rng.integers(1, 20)) for _ in range(4)]
        turned = [bool(rng.integers(2)) for _ in range(3)]
        make = Make()
        b = make.b
        h = make.input(int(rng.integers(2, 40)), sizes[0], dtype=dtype)
        extra = []
        for i in range(3):
            shape = (sizes[i + 1], sizes[i]) if turned[i] else (sizes[i], sizes[i + 1])
            w = make.input(*shape, dtype=dtype)
            a = b.contract(h, w, contract=((1,), (1 if turned[i] else 0,)), batch=((), ()))
            kind = int(rng.integers(4))
            if kind == 0:
                a = b.tanh(a)
            elif kind == 1:
                a = b.sub(a, make.spread(b.max(a, axes=(1,)), a.shape, (1,)))
            elif kind == 2:
                a = b.mul(a, make.spread(b.sum(a, axes=(0,)), a.shape, (0,)))
            else:
                extra.append(b.sum(b.contract(a, a, contract=((0,), (0,)), batch=((), ())), axes=(0, 1)))
            h = a
        out = b.sum(b.mul(h, h), axes=(0, 1))
        for more in extra:
            out = b.add(out, more)
        graph = make.with_gradient(out)
        values = [np.asarray(rng.normal(size=node.shape) / 3, node.dtype) for node in graph.inputs]
        program = scheduled(graph, EVERYWHERE)
        kernels = pipeline.lower(program, limits=EVERYWHERE)
        wanted = interpret(graph, *values)
        for found in (
            run(graph, values, EVERYWHERE),
            NumbaExecutable(program, kernels, python=True).run(values),
        ):
            for got, want in zip(found, wanted, strict=True):
                tolerance = (1e-10 if dtype == F64 else 2e-3) * max(1.0, float(np.abs(want).max()))
                np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=str(seed))


def test_the_statement_in_print():
    make = Make()
    b = make.b
    x, w = make.input(10, 6), make.input(6, 5)
    graph = make.graph(b.tanh(b.contract(b.exp(x), w, contract=((1,), (0,)), batch=((), ()))))
    kernel = pipeline.lower(scheduled(graph, EVERYWHERE), limits=EVERYWHERE)["k0"]
    (product,) = [s for s in walk(kernel.body) if isinstance(s, Multiply)]
    assert product.shape[1:] == (5, 6)
    assert "(3, 6) by (6, 5) while 3*task + m < 10" in print_kernel(kernel)
