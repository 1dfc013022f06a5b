"""Scatters shared by tasks that own rows of the result, errors noted by several tasks at once, results
written past the caches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from compiled_harness import Make, examine, executable, kernels, run, with_gradient
from random_graphs import random_graph

import graphjit
from graphjit import pipeline
from graphjit.backend.llvm.threads import pool
from graphjit.backend.numba.executable import NumbaExecutable
from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.types import I64, Type
from graphjit.limits import Limits, host_limits
from graphjit.loops.cost import kernel_cost
from graphjit.loops.ir import For, walk
from graphjit.loops.printer import print_kernel

DTYPES = [np.dtype(name) for name in ("f8", "f4", "i8", "i4", "u1")]


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = pool.num_threads()
    yield
    pool.configure(before)


EVERYWHERE = host_limits().changed(
    scatters={"row_bytes": 1, "least_bytes": 0, "most_bytes": 1 << 40}, threads={"worth_ns": 0}
)
"""Every scatter is shared, every loop is worth a thread."""
ALONE = host_limits().changed(scatters={"max_tasks": 1})
PAST_CACHES = {"streamed_bytes": 0, "last_cache": 0}


def shared(graph: Graph) -> list[For]:
    """Parallel loops whose tasks own rows."""
    loops = [s for made in kernels(graph) for s in made.body if isinstance(s, For) and s.kind == "parallel"]
    return [loop for loop in loops if any(isinstance(s, For) and s.when is not None for s in walk(loop.body))]


def scatter(
    shape: tuple[int, ...],
    positions: tuple[int, ...],
    dtype: np.dtype,
    axes: tuple[int, ...] = (0,),
    adding: bool = True,
) -> Graph:
    make = Make()
    b = make.b
    indices = [make.input(*positions, dtype=I64.type(0).dtype) for _ in axes]
    rest = tuple(n for a, n in enumerate(shape) if a not in axes)
    updates = b.input(Type(dtype, (*positions, *rest)), "u")
    if adding:
        return Graph("g", [updates, *indices], [b.scatter_add(updates, *indices, shape=shape, axes=axes)])
    x = b.input(Type(dtype, shape), "x")
    return Graph("g", [x, updates, *indices], [b.scatter_set(x, updates, *indices, axes=axes)])


def values(graph: Graph, limits: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    limit = iter(limits)
    for i, node in enumerate(graph.inputs):
        if node.dtype == I64 and i >= len(graph.inputs) - len(limits):
            n = next(limit)
            found.append(rng.integers(-n, n, size=node.shape))
        else:
            found.append((rng.normal(size=node.shape) * 50).astype(node.dtype))
    return found


def for_every_number_of_threads(
    graph: Graph, given: list[np.ndarray], limits: Limits | None = None
) -> np.ndarray:
    found = []
    for count in (1, 2, 3, 8):
        pool.configure(count)
        found += [run(graph, given, limits)[0] for _ in range(5)]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].view(np.uint8), other.view(np.uint8))
    return found[0]


@pytest.mark.sample(4)
@pytest.mark.parametrize("adding", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "columns", "count"),
    [(1000, 128, 900), (37, 700, 400), (3, 2100, 70), (1, 600, 300), (20_000, 65, 2000)],
)
def test_rows_get_their_updates_in_order(rows, columns, count, dtype, adding):
    columns *= 8 // dtype.itemsize
    graph = scatter((rows, columns), (count,), dtype, adding=adding)
    given = values(graph, (rows,))
    assert bool(shared(graph)) == (rows > 1)
    found = for_every_number_of_threads(graph, given)
    want = np.zeros((rows, columns), dtype) if adding else given[0].copy()
    updates, at = given[-2:]
    for i, row in zip(
        at, updates, strict=True
    ):  # as one thread does: the order of roundings is part of the result
        want[i] = want[i] + row if adding else row
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("adding", [True, False])
@pytest.mark.parametrize(
    ("shape", "positions", "axes"),
    [
        ((5,), (9,), (0,)),
        ((4, 3), (6,), (1,)),
        ((7, 9), (3, 4), (0,)),
        ((6, 5), (4,), (0, 1)),
        ((6, 5, 33), (4, 2), (0, 1)),
        ((6, 5, 17), (11,), (0, 2)),
        ((6, 2, 5), (), (0,)),
        ((33, 2, 3, 5), (20,), (0,)),
        ((9, 4), (0,), (0,)),
        ((9, 0), (3,), (0,)),
        ((2, 1), (5,), (0,)),
    ],
)
def test_every_form_when_all_are_shared(shape, positions, axes, adding):
    graph = scatter(shape, positions, np.dtype("f8"), axes, adding)
    given = values(graph, tuple(shape[a] for a in axes))
    want = interpret(graph, *given)[0]
    np.testing.assert_array_equal(for_every_number_of_threads(graph, given, EVERYWHERE), want)
    made = pipeline.compile_graph(graph, limits=EVERYWHERE)
    np.testing.assert_array_equal(
        NumbaExecutable(made.program, made.kernels, python=True).run(given)[0], want
    )


@pytest.mark.parametrize("chunk", range(3))
def test_random_graphs_when_all_are_shared_and_streamed(chunk):
    limits = EVERYWHERE.changed(traffic=PAST_CACHES)
    pool.configure(3)
    for seed in range(60_000 + chunk * 10, 60_000 + chunk * 10 + 10):
        examine(random_graph(seed, 25), seed, limits)
        examine(with_gradient(random_graph(seed + 500, 20, differentiable=True)), seed + 500, limits)


def embedding(table, at, weights):
    return np.sum(table[at] * weights)


def test_the_gradient_of_rows_picked_from_a_table():
    rng = np.random.default_rng(1)
    table, weights = rng.normal(size=(500, 96)), rng.normal(size=(1500, 96))
    at = rng.integers(-500, 500, size=1500)
    want = np.zeros_like(table)
    np.add.at(want, at, weights)
    compiled = graphjit.grad(embedding)
    for count in (1, 2, 3, 8):
        pool.configure(count)
        np.testing.assert_array_equal(compiled(table, at, weights), want)


@pytest.mark.parametrize("bad", [500, -501, 2**40, -(2**40)])
@pytest.mark.parametrize("place", [0, 1, 777, 1499])
def test_a_position_out_of_bounds_is_reported_whoever_meets_it(bad, place):
    rng = np.random.default_rng(1)
    table, weights = rng.normal(size=(500, 96)), rng.normal(size=(1500, 96))
    at = rng.integers(-500, 500, size=1500)

    def f(updates, at):
        out = np.zeros((500, 96))
        np.add.at(out, at, updates)
        return out

    compiled = [(graphjit.jit(f), (weights, at)), (graphjit.grad(embedding), (table, at, weights))]
    for g, args in compiled:
        g(*args)
    at[place] = bad
    for count in (1, 2, 8):
        pool.configure(count)
        for g, args in compiled:
            for _ in range(5):
                with pytest.raises(
                    IndexError, match=r"(?s)out of bounds for axis 0 with size 500.*test_shared_scatters\.py"
                ):
                    g(*args)


def test_an_error_is_not_lost_among_tasks_that_have_none():
    """Every block of a long gather notes its own state; one of them has something to report."""
    pool.configure(8)
    x, at = np.arange(1000.0), np.zeros(400_000, np.int64)
    g = graphjit.jit(lambda x, at: np.exp(x[at]))
    g(x, at)
    for place in range(0, 400_000, 3989):
        at[place] = 1000
        with pytest.raises(IndexError):
            g(x, at)
        at[place] = 0
    g(x, at)


def test_of_several_errors_every_number_of_threads_reports_the_same():
    def f(i, j):
        return i // j + (i % (j - 1))

    i, j = np.full(200_000, 7), np.full(200_000, 3)
    j[:100], j[-100:] = 1, 0
    messages = set()
    g = graphjit.jit(f)
    for count in (1, 2, 3, 8):
        pool.configure(count)
        for _ in range(10):
            with pytest.raises(ZeroDivisionError) as raised:
                g(i, j)
            messages.add(str(raised.value))
    assert len(messages) == 1


def test_few_narrow_or_very_many_updates_stay_with_one_thread():
    f8 = np.dtype("f8")
    for rows, columns, count in [(1000, 128, 8), (1000, 8, 5000), (1000, 64, 20_000), (1, 512, 512)]:
        graph = scatter((rows, columns), (count,), f8)
        assert not shared(graph), (rows, columns, count)
    (loop,) = shared(scatter((1000, 64), (1000,), f8))
    assert loop.extent == 2
    (loop,) = shared(scatter((1000, 1024), (100,), f8))
    assert loop.extent == 8


def test_a_shared_scatter_as_text_and_what_it_costs():
    graph = scatter((1000, 64), (1000,), np.dtype("f8"))
    (made,) = kernels(graph)
    text = print_kernel(made)
    assert "parallel task in 0..2:" in text
    assert " when t" in text
    cost = kernel_cost(made)
    (alone,) = kernels(graph, ALONE)
    assert kernel_cost(alone).flops == cost.flops == 64_000
    assert kernel_cost(alone).nbytes == cost.nbytes


# -------------------------------------------------------------------------------------------- past the caches


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_streamed_results_wherever_their_memory_begins(dtype, shift):
    limits = host_limits().changed(traffic=PAST_CACHES)
    for n in (1, 7, 64, 1000, 70_003):
        given = np.arange(n).astype(dtype)
        for tripled in (True, False):
            make = Make()
            x = make.b.input(Type(dtype, (n,)), "x")
            value = make.b.mul(x, make.b.full(3, x.type)) if tripled else make.b.full(5, x.type)
            graph = Graph("g", [x], [value])
            text = pipeline.compile_graph(graph, limits=limits).module.render()
            assert n < 1000 or "nontemporal" in text
            room = np.zeros(n + shift, dtype)[shift:]
            executable(graph, limits).run([given], {0: room})
            np.testing.assert_array_equal(room, given * dtype.type(3) if tripled else np.full(n, 5, dtype))


def test_only_large_results_stream():
    def text(n: int) -> str:
        make = Make()
        x = make.input(n)
        return pipeline.compile_graph(Graph("g", [x], [make.b.mul(x, 2.0)])).module.render()

    assert "nontemporal" not in text(1 << 20)
    assert "nontemporal" in text(1 << 22)
    assert "fence" in text(1 << 22)
