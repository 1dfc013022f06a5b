"""Loops whose slices grow or shrink with the step are rolled up, and compute what Python computes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, with_bodies
from graphjit.ir.verify import verify
from tests.harness.control import growing_programs as programs

N = 40
SEEDS = 60


def loops(graph: Graph) -> int:
    return sum(node.op.name == "scan" for node in with_bodies(graph))


def flat(results: Any) -> np.ndarray:
    parts = results if isinstance(results, tuple | list) else [results]
    return np.concatenate([np.ravel(part) for part in parts])


def close(found: Any, wanted: Any) -> None:
    for one, two in zip(found, wanted, strict=True):
        scale = np.max(np.abs(two), initial=1e-3)
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9 * scale)


def loss_of(f: programs.Program) -> programs.Program:
    def loss(a: Any, b: Any) -> Any:
        found = f(a, b)
        parts = found if isinstance(found, tuple) else (found,)
        return sum(np.sum(np.sin(part)) for part in parts)

    return loss


def gradients(f: programs.Program, args: Any, **options: Any) -> tuple[Graph, Any]:
    made = graphjit.value_and_grad(loss_of(f), argnums=(0, 1), **options)
    graph = made.dispatcher.staged(*args).graph
    verify(graph)
    return graph, interpret(graph, *args)


@pytest.mark.sample(4)
@pytest.mark.parametrize("f", programs.PROGRAMS, ids=lambda f: f.__name__)
def test_programs_written_by_hand(f: programs.Program) -> None:
    args = programs.arguments(N)
    graph = graphjit.jit(f).dispatcher.staged(*args).graph
    assert loops(graph) >= 1
    assert len(graph.nodes()) < 200
    close([np.asarray(x) for x in interpret(graph, *args)], [f(*args)])
    rolled, found = gradients(f, args)
    assert loops(rolled) >= loops(graph)
    _, wanted = gradients(f, args, reroll=False)
    close(found, wanted)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "name",
    ["forward_substitution", "cholesky", "householder", "not_there_yet", "only_pairs_that_belong_together"],
)
def test_compiled(name: str) -> None:
    f = getattr(programs, name)
    args = programs.arguments(N)
    with graphjit.debug_nans():
        value, found = graphjit.value_and_grad(loss_of(f), argnums=(0, 1))(*args)
    _, wanted = gradients(f, args, reroll=False)
    close([value, *found], wanted)


@pytest.mark.sample(12)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_programs(seed: int) -> None:
    source = programs.Source(seed)
    f, args = source.function(), programs.arguments(24, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = f(*args)
        if not np.isfinite(flat(wanted)).all() or np.abs(flat(wanted)).max() > 1e6:
            pytest.skip("the program overflows")
    graph = graphjit.jit(f).dispatcher.staged(*args).graph
    verify(graph)
    close(interpret(graph, *args), wanted)
    _, rolled = gradients(f, args)
    _, unrolled = gradients(f, args, reroll=False)
    close(rolled, unrolled)


def test_loops_are_rolled_up_from_the_first_step_on() -> None:
    """The interpreter specialises ``x[i]`` after some steps: that must not make another place of it."""

    def f(a: Any, b: Any) -> Any:
        for k in range(len(b)):
            a = np.tanh(a[:, k : k + 1] * 0.1 + a) + a[k : k + 1] * b[k] - 0.1 * a
        return a

    graph = graphjit.jit(f).dispatcher.staged(*programs.arguments(20)).graph
    (scan,) = [node for node in graph.nodes() if node.op.name == "scan"]
    assert scan.attrs["length"] == 20


def test_no_table_of_what_counts_is_kept() -> None:
    graph = graphjit.jit(programs.forward_substitution).dispatcher.staged(*programs.arguments(N)).graph
    tables = [node for node in with_bodies(graph) if node.is_const and node.type.size >= N * N]
    assert not tables


def test_second_derivatives() -> None:
    f = loss_of(programs.forward_substitution)
    a, b = programs.arguments(N)
    found = graphjit.hvp(f, (a, b), (a * 0.1, b))
    step = 1e-5
    plus = graphjit.grad(f, argnums=(0, 1))(a + step * 0.1 * a, b + step * b)
    minus = graphjit.grad(f, argnums=(0, 1))(a - step * 0.1 * a, b - step * b)
    for one, up, down in zip(found, plus, minus, strict=True):
        np.testing.assert_allclose(one, (up - down) / (2 * step), rtol=1e-6, atol=1e-9)
