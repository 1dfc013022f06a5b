"""What is rolled up and what is not, what the log says of it, and that effects, errors and lines stay."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import config
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, with_bodies
from graphjit.passes.reroll import reroll
from tests.harness.control.loop_programs import lstm_of_two_layers, some

rng = np.random.default_rng(3)


def staged(function: Callable[..., Any], *args: Any, **options: Any) -> Graph:
    return graphjit.jit(function, **options).dispatcher.staged(*args).graph


def loops(graph: Graph) -> int:
    return sum(node.op.name == "scan" for node in with_bodies(graph))


def steps(x: Any, count: int) -> Any:
    for _ in range(count):
        x = np.tanh(x) + 0.5 * np.sin(x) - 0.1 * x  # the body
    return x


def test_forbidden() -> None:
    def f(x: Any) -> Any:
        return np.sum(steps(x, 100))

    x = np.ones(3)
    assert loops(staged(f, x)) == 1
    assert loops(staged(f, x, reroll=False)) == 0
    for make in (graphjit.grad, graphjit.value_and_grad, graphjit.jacfwd, graphjit.hessian, graphjit.vmap):
        arguments = x[:, None] if make is graphjit.vmap else x
        assert loops(make(f, reroll=False).dispatcher.staged(arguments).graph) == 0
        assert loops(make(f).dispatcher.staged(arguments).graph) > 0


def test_short_loops_stay() -> None:
    assert loops(staged(steps, np.ones(3), 15, static_argnums=1)) == 0
    assert loops(staged(steps, np.ones(3), 30, static_argnums=1)) == 0


def test_bodies_that_differ_stay() -> None:
    functions = [np.sin, np.cos, np.tanh, np.exp]
    order = rng.integers(0, 4, 200).tolist()

    def f(x: Any) -> Any:
        for number in order:
            x = functions[number](x) * 0.5 + 0.1 * x
        return x

    assert loops(staged(f, np.ones(3))) == 0


def log_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], f: Any, *args: Any) -> str:
    monkeypatch.setattr(config, "log_topics", frozenset({"reroll"}))
    graphjit.jit(f).dispatcher.staged(*args)
    return capsys.readouterr().err


def test_separate_arrays_are_not_copied_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deep(layers: Any, x: Any) -> Any:
        for w, b in layers:
            x = np.tanh(w @ x + b) * 0.9 + 0.1 * x
        return x

    layers = [(rng.normal(size=(64, 64)), rng.normal(size=64)) for _ in range(60)]
    said = log_of(monkeypatch, capsys, deep, layers, np.ones(64))
    assert "60 repetitions at " in said
    assert "stay: an argument of contract, of type f64[64,64], is another array in each step" in said
    together = tuple(np.stack(parts) for parts in zip(*layers, strict=True))

    def deep_from_one(together: Any, x: Any) -> Any:
        w, b = together
        for k in range(60):
            x = np.tanh(w[k] @ x + b[k]) * 0.9 + 0.1 * x
        return x

    assert loops(staged(deep, layers, np.ones(64))) == 0
    assert loops(staged(deep_from_one, together, np.ones(64))) == 1


def test_the_log_says_something_of_every_loop_that_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = rng.integers(0, 4, 200).tolist()

    def differs(x: Any) -> Any:
        for number in order:
            x = (np.sin, np.cos, np.tanh, np.exp)[number](x) * 0.5 + 0.1 * x
        return x

    assert "stay: no two steps are equal" in log_of(monkeypatch, capsys, differs, np.ones(3))
    said = log_of(monkeypatch, capsys, lambda x: steps(x, 20), np.ones(3))
    assert "about 20 repetitions at " in said
    assert "stay: there is too little in them" in said
    assert log_of(monkeypatch, capsys, lambda x: steps(x, 10), np.ones(3)) == ""


def test_the_log_says_what_was_rolled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def f(x: Any) -> Any:
        return steps(x, 100)

    said = log_of(monkeypatch, capsys, f, np.ones(3))
    assert said.startswith(f"graphjit: 100 repetitions at {__file__}:")
    assert said.endswith(" of 6 operations are a loop: 1 carries, 0 arrays read and 0 written\n")


def test_nodes_of_the_body_have_the_line_of_the_user() -> None:
    graph = staged(steps, np.ones(3), 100, static_argnums=1)
    (scan,) = [node for node in graph.nodes() if node.op.name == "scan"]
    inside = [node for node in scan.attrs["body"].graph.nodes() if node.args]
    with open(__file__, encoding="utf-8") as file:
        line = next(number for number, text in enumerate(file, 1) if text.endswith("# the body\n"))
    assert {node.loc.line for node in inside} == {line}


def test_effects_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        for t in range(60):
            x = np.tanh(x) + 0.5 * np.sin(x) - 0.1 * x
            if t % 20 == 0:
                graphjit.debug.print("{} {}", t, x)
        return np.sum(x)

    f(np.ones(2))
    expected = capsys.readouterr().out
    graphjit.jit(f)(np.ones(2))
    assert capsys.readouterr().out == expected
    graphjit.grad(f)(np.ones(2))
    assert capsys.readouterr().out == expected
    assert loops(staged(f, np.ones(2))) > 0


def test_an_error_of_a_step_is_raised() -> None:
    def f(x: Any, places: Any) -> Any:
        total = x[0]
        for t in range(80):
            total = np.tanh(total + x[places[t]]) + 0.1 * total  # here
        return total

    x, places = rng.normal(size=(5, 2)), rng.integers(0, 5, 80)
    compiled = graphjit.jit(f)
    assert loops(staged(f, x, places)) == 1
    np.testing.assert_allclose(compiled(x, places), f(x, places), rtol=1e-12)
    places[70] = 9
    with pytest.raises(IndexError, match=f"out of bounds for axis 0 with size 5 .at {__file__}"):
        compiled(x, places)


def test_a_loop_in_the_body_of_a_scan() -> None:
    def f(x: Any, rows: Any) -> Any:
        def step(x: Any, row: Any) -> Any:
            return steps(x + row, 80), None

        return graphjit.scan(step, x, rows)[0]

    x, rows = np.ones(3), rng.normal(size=(5, 3))
    assert loops(staged(f, x, rows)) == 2
    expected = staged(f, x, rows, reroll=False)
    assert loops(expected) == 1


def test_descent_with_a_gradient_in_each_step() -> None:
    def loss(w: Any, x: Any) -> Any:
        return np.sum((x @ w - 1.0) ** 2)

    def fit(w: Any, x: Any) -> Any:
        for _ in range(60):
            w = w - 0.01 * graphjit.grad(loss)(w, x)
        return w

    w, x = np.zeros(4), rng.normal(size=(9, 4))
    assert loops(staged(fit, w, x)) == 1
    plain = graphjit.jit(fit, reroll=False)(w, x)
    np.testing.assert_allclose(graphjit.jit(fit)(w, x), plain, rtol=1e-12)


def calls_of_the_pass(length: int) -> int:
    """Functions called while a network over so many rows is rolled up."""
    layers = [(some(16, 4), some(16, 4), some(16)) for _ in range(2)]
    graph = staged(lstm_of_two_layers, layers, some(length, 4), reroll=False)
    b = Builder()
    outputs = b.inline(graph, graph.inputs)
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        (rolled,) = reroll(b, outputs)
    finally:
        sys.setprofile(before)
    assert len(Graph("rolled", graph.inputs, [rolled])) < 30
    return counted


def test_the_pass_is_linear() -> None:
    first, second, third = map(calls_of_the_pass, (100, 200, 400))
    assert third - second <= 2.1 * (second - first)
    assert (third - second) / 200 <= 1000  # a step has 72 nodes


def test_a_graph_without_repetition_costs_one_look() -> None:
    functions = [np.sin, np.cos, np.tanh, np.exp]
    order = rng.integers(0, 4, 400).tolist()

    def f(x: Any) -> Any:
        for number in order:
            x = functions[number](x) * 0.5 + 0.1 * x
        return x

    graph = staged(f, np.ones(3))
    b = Builder()
    outputs = b.inline(graph, graph.inputs)
    assert reroll(b, outputs) == list(outputs)


def test_steps_that_do_not_count_leave_no_trace() -> None:
    """Loops that grow get one length. What lies behind their ends is zero here, and is divided by."""

    def f(a: Any, b: Any) -> Any:
        found: list[Any] = []
        for i in range(len(b)):
            rest = b[i]
            for j in range(i):
                rest = rest - found[j] / a[i, j] + 0.01 * np.log(a[i, j])
            found.append(np.tanh(rest))
        return sum(x * x for x in found)

    a, b = np.tril(rng.uniform(5, 9, (34, 34)), -1), rng.normal(size=34)
    gradient = graphjit.value_and_grad(f, (0, 1))
    assert len(gradient.dispatcher.staged(a, b).graph) < 400
    value, (of_a, of_b) = gradient(a, b)
    unrolled = graphjit.value_and_grad(f, (0, 1), reroll=False).dispatcher.staged(a, b).graph
    plain, plain_of_a, plain_of_b = interpret(unrolled, a, b)  # compiling it takes ten times as long
    assert value == pytest.approx(plain, rel=1e-13)
    np.testing.assert_allclose(of_a, plain_of_a, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(of_b, plain_of_b, rtol=1e-11, atol=1e-14)


def test_loops_that_grow_and_may_fail_stay() -> None:
    def f(x: Any, n: Any) -> Any:
        total = n[0]
        for i in range(40):
            for j in range(i):
                total = total // n[j] + x[i, j]
        return total

    x, n = np.arange(1600).reshape(40, 40), np.arange(1, 41)
    graph = staged(f, x, n)
    assert all(len(node.args) < 6 for node in graph.nodes() if node.op.name == "scan")
    assert graphjit.jit(f)(x, n) == f(x, n)
