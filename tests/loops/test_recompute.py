"""What is kept and what is computed again: the cut by hand, counts of kernels and bytes, values."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from compiled_harness import compiled, examine, run_function, traced, with_gradient
from random_graphs import random_graph

import graphjit
from graphjit import pipeline
from graphjit.limits import Limits, host_limits
from graphjit.loops.cost import costs
from graphjit.mincut import Network
from graphjit.pipeline import Compiled
from graphjit.schedule import recompute
from graphjit.schedule.fuse import fuse
from graphjit.schedule.program import Cost, Kernel, kernels_of
from graphjit.schedule.recompute import decide
from graphjit.schedule.sweep import join_sweeps

LARGE, SMALL = 4_000_000, 20_000


def kept(found: Compiled) -> list[str]:
    """The arrays that stay in the arena between steps."""
    return [
        node.op.name
        for node, buffer in found.program.buffers.items()
        if buffer.kind == "arena" and node.type.size > 1
    ]


def moved(found: Compiled) -> int:
    return sum(costs(found.program, found.kernels).values(), Cost()).nbytes


FAR = host_limits().changed(recompute={"far_bytes": 0, "least_bytes": 0})
"""As if there were no caches: then the cut decides about small arrays too."""


def eager(operation: int) -> Limits:
    """Nearly everything is computed again: an operation weighs little, and any gain is taken."""
    return FAR.changed(recompute={"operation": operation}, schedule={"worth": 1_000})


def cheap(x):
    z = x * x + x * 3.0 + x * x * x + 1.0
    return z / np.sum(z)


def wide(x, y):
    z = x * x + y * x + x + y * y * x
    return z / np.sum(z)


def dear(x):
    z = np.tanh(np.exp(np.tanh(x)))
    return z / np.sum(z)


def standardised(x):
    d = x - np.mean(x)
    return d / np.sqrt(np.mean(d * d))


def chosen(x):
    z = np.where(np.tanh(x) > 0.5, x, -x)
    return z / np.sum(z)


def widened(x):
    z = np.tanh(x).astype(np.float64) * 2.0 + 1.0
    return z * np.max(z)


def test_a_cheap_value_is_computed_again_where_it_would_go_through_memory():
    x = np.ones(LARGE)
    found = compiled(cheap, x)
    assert len(found.program.steps) == 2
    assert kept(found) == []
    assert moved(found) < 8 * LARGE * 3 + 100  # the argument twice, and the result


def test_a_cheap_value_is_kept_where_it_stays_in_a_cache():
    x = np.ones(SMALL)
    found = compiled(cheap, x)
    assert len(found.program.steps) == 2
    assert kept(found) == ["add"]
    assert moved(found) > 8 * SMALL * 4


def test_a_small_gain_is_left():
    x = np.ones(LARGE)
    assert kept(compiled(wide, x, x)) == ["add"]  # both arguments would be read again


@pytest.mark.parametrize("n", [SMALL, LARGE])
def test_a_dear_value_is_kept_at_every_size(n):
    found = compiled(dear, np.ones(n))
    assert kept(found) == ["tanh"]
    assert moved(found) < 8 * n * 4 + 100


def test_nothing_but_the_argument_is_read_again():
    found = compiled(standardised, np.ones(LARGE))
    assert len(found.program.steps) == 3
    assert kept(found) == []
    assert moved(found) < 8 * LARGE * 4 + 100


def test_the_cut_lies_where_values_are_narrow():
    x = np.ones(LARGE)
    found = compiled(chosen, x)
    assert kept(found) == ["gt"]  # a byte for each element; what is behind is cheap, what is before is not
    assert compiled(chosen, x[:SMALL]).program.arena > 8 * SMALL

    found = compiled(widened, x.astype(np.float32))
    assert kept(found) == ["tanh"]
    assert found.program.arena < 4 * LARGE + 200


def test_each_further_reader_computes_again():
    def f(x, times):
        z = np.sqrt(x * x + 1.0)
        total = 0.0
        for _ in range(times):
            total = total + np.sum(np.log(z + total))
        return total

    assert kept(compiled(lambda x: f(x, 2), np.ones(LARGE))) == []
    assert kept(compiled(lambda x: f(x, 6), np.ones(LARGE))) == ["sqrt"]


def test_shifted_and_repeated_values_are_left_alone():
    def shifted(x):
        z = x * x + x * 3.0 + x * x * x + 1.0
        return (z[1:] - z[:-1]) * np.sum(z)

    def repeated(x, y):
        z = x * x + x * 3.0 + x * x * x + 1.0
        return (z[:, None] * y) / np.sum(z)

    x = np.ones(LARGE)
    for found in (compiled(shifted, x), compiled(repeated, x, np.ones((LARGE, 3)))):
        assert not decide(found.optimized, found.fusion, host_limits())


def test_nothing_is_asked_about_programs_that_fit_into_a_cache(monkeypatch):
    monkeypatch.setattr(recompute, "_Question", None)
    compiled(graphjit.value_and_grad(lambda x: np.sum(cheap(x) ** 2)), np.ones(SMALL))


def test_a_schedule_that_is_not_cheaper_is_not_taken(monkeypatch):
    x = np.ones(LARGE)
    monkeypatch.setattr(pipeline, "traffic_and_work", lambda graph, fusion, limits: 0)
    assert kept(compiled(cheap, x)) == ["add"]


def test_elements_keep_every_bit():
    x, y = np.random.default_rng(0).uniform(0.5, 1.5, (2, 1001))
    cases = [
        (cheap, (x,)),
        (wide, (x, y)),
        (standardised, (x,)),
        (chosen, (x,)),
        (widened, (x.astype(np.float32),)),
    ]
    assert not kept(compiled(cheap, x, limits=FAR))
    never = FAR.changed(recompute={"many_values": 0})
    assert kept(compiled(cheap, x, limits=never))
    for function, args in cases:
        (again,), (stored,) = (
            run_function(function, *args, limits=FAR),
            run_function(function, *args, limits=never),
        )
        assert again.tobytes() == stored.tobytes()


@pytest.mark.sample(3)
@pytest.mark.parametrize("chunk", range(6))
def test_random_graphs(chunk):
    limits = eager(chunk % 2)
    for seed in range(chunk * 12, chunk * 12 + 12):
        examine(random_graph(seed, 25), seed, limits)
    for seed in range(1000 + chunk * 4, 1000 + chunk * 4 + 4):
        examine(with_gradient(random_graph(seed, 20, differentiable=True)), seed, limits)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_of_statistics(seed):
    rng = random.Random(seed)
    unary = [
        np.tanh,
        np.exp,
        np.sqrt,
        lambda v: v + 1.5,
        lambda v: v * v,
        lambda v: v.astype(np.float32).astype(np.float64),
    ]
    binary = [np.add, np.multiply, np.maximum, lambda v, w: np.where(v > w, v, w * 0.5)]
    plan = [
        (rng.choice(unary), rng.choice(binary), rng.random(), rng.random(), rng.random() < 0.3)
        for _ in range(15)
    ]

    def f(x, y):
        values = [x, y]
        for one, two, first, second, whole in plan:
            v = two(one(values[int(first * len(values))]), values[int(second * len(values))])
            v = v / (1.0 + np.max(v))
            values.append(v / np.sum(v) if whole else v)
        return sum(values[2:])

    x, y = np.random.default_rng(seed).uniform(0.1, 1.0, (2, 501))
    np.testing.assert_allclose(run_function(f, x, y, limits=eager(0))[0], f(x, y), rtol=1e-5)
    found = compiled(f, x, y, limits=eager(0))
    assert found.fusion.stored != fuse(found.optimized, eager(0)).stored


def test_kernels_stay_within_their_limit():
    def f(x):
        for _ in range(60):
            x = np.tanh(x * 3.0 + 1.0) / np.sum(np.exp(x))
        return x

    limits = eager(0)
    graph = pipeline.optimize(traced(f, np.ones(50), reroll=False))
    decided = decide(graph, join_sweeps(fuse(graph, limits), limits), limits)
    assert decided
    for step in fuse(graph, limits, decided=decided).steps:
        assert isinstance(step, Kernel)
        assert all(kernel.cost <= limits.fusion.kernel_cost for kernel in kernels_of(step))


def test_many_values_are_left_alone():
    assert kept(compiled(cheap, np.ones(100), limits=FAR)) == []
    two = FAR.changed(recompute={"many_values": 2})
    assert kept(compiled(cheap, np.ones(100), limits=two)) == ["add"]


def test_cuts_are_minimal():
    rng = random.Random(0)
    for _ in range(200):
        n = rng.randint(2, 6)
        edges = [(*rng.sample(range(n), 2), rng.choice([0, 1, 2, 5, 9])) for _ in range(rng.randint(1, 12))]
        network = Network(n)
        for edge in edges:
            network.edge(*edge)

        def weight(side, edges=edges):
            return sum(capacity for tail, head, capacity in edges if side[tail] and not side[head])

        found = network.cut(0, 1)
        assert (found[0], found[1]) == (True, False)
        sides = ((True, False, *rest) for rest in itertools.product((False, True), repeat=n - 2))
        assert weight(found) == min(map(weight, sides))


def test_edges_without_a_limit_are_not_cut():
    network = Network(3)
    network.edge(0, 2, None)
    network.edge(2, network.vertex(), 3)
    network.edge(3, 1, None)
    assert network.cut(0, 1) == [True, False, True, False]
