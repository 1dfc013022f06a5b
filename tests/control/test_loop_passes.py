"""Passes on loops: what they take away, what they move, what they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphjit
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.pipeline import optimize


def optimized(function: Callable[..., Any], *args: Any) -> Graph:
    return optimize(graphjit.make_graph(function)(*args))


def loops(graph: Graph) -> list[Node]:
    return [node for node in with_bodies(graph) if node.is_bundle]


def body(node: Node) -> list[str]:
    graph: Graph = node.attrs["body"].graph  # type: ignore[attr-defined]
    return [x.op.name for x in graph.nodes() if x.op.name not in ("input", "const", "copy")]


def test_what_nobody_reads_is_gone() -> None:
    def f(x: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            a, b, c, d = carry
            return (a * 2.0, b + a, c + d, d), (np.sin(c), np.cos(a))

        (a, _, _, d), (_, cosines) = graphjit.scan(step, (x, x, x, x), None, length=5)
        return a, cosines, d

    (loop,) = loops(optimized(f, 1.5))
    assert loop.attrs["carried"] == 1
    assert len(loop.parts) == 2
    assert sorted(body(loop)) == ["cos", "mul"]


def test_known_numbers_stand_in_the_body() -> None:
    def f(x: Any) -> Any:
        two = np.full(3, 2.0)
        return graphjit.scan(lambda c, w: (c * two + w, None), x, np.ones((4, 3)))[0]

    (loop,) = loops(optimized(f, np.ones(3)))
    assert len(loop.args) == 1
    assert loop.attrs["sliced"] == 0


def test_what_does_not_change_is_computed_before() -> None:
    def f(w: Any, x: Any) -> Any:
        def step(c: Any, w: Any) -> Any:
            return np.sin(np.exp(c) * w), None

        # The weights come in as a carry that never changes.
        return graphjit.scan(
            lambda s, _: ((step(s[0], np.exp(s[1] @ s[1]))[0], s[1]), None), (x, w), None, 4
        )[0][0]

    (loop,) = loops(optimized(f, np.ones((3, 3)), np.ones((3, 3))))
    assert loop.attrs["carried"] == 1
    assert body(loop) == ["exp", "mul", "sin"]


def test_what_can_fail_stays_in_a_loop_that_may_not_run() -> None:
    def f(n: Any, k: Any) -> Any:
        def step(c: Any) -> Any:
            return c + n // k, k

        return graphjit.while_loop(lambda c: c[0] < 10, lambda c: step(c[0]), (n, k))

    graph = optimized(f, 20, 0)
    (loop,) = loops(graph)
    assert "floor_divide" in body(loop)
    assert graphjit.jit(f)(20, 0) == (20, 0)


def test_loops_without_steps_and_known_choices_are_gone() -> None:
    def f(x: Any) -> Any:
        a, ys = graphjit.scan(lambda c, _: (np.sin(c), c), x, None, length=0)
        return a, ys

    assert not loops(optimized(f, 1.0))
    value, ys = graphjit.jit(f)(1.0)
    assert value == 1.0
    assert ys.shape == (0,)


def test_matrices_that_vectors_are_multiplied_with_are_turned_once() -> None:
    def f(w: Any, h: Any) -> Any:
        return graphjit.scan(lambda h, _: (np.tanh(w @ h), None), h, None, length=20)[0]

    w, h = np.random.default_rng(0).normal(size=(2, 16, 16)) / 4
    graph = optimized(f, w, h[0])
    (loop,) = loops(graph)
    assert loop.args[0].op.name == "transpose"
    for _ in range(20):
        h[0] = np.tanh(w @ h[0])
    np.testing.assert_allclose(
        graphjit.jit(f)(w, np.random.default_rng(0).normal(size=(2, 16, 16))[1][0] / 4), h[0], rtol=1e-12
    )
