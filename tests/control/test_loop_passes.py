"""Passes on loops: what they take away, what they move, what they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.interpret import interpret
from graphjit.ir.node import Graph, Node, with_bodies
from graphjit.ir.parser import parse_graph
from graphjit.passes.fission import fission
from graphjit.passes.simplify import simplify
from graphjit.passes.sum_onwards import one_by_one, sum_onwards
from graphjit.passes.tidy_loops import tidy_loops
from graphjit.pipeline import GRAPH_PASSES, optimize
from graphjit.trace.pytree import flatten


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


def test_loops_around_the_same_loop_are_one() -> None:
    """The derivative of a sum of roots needs the roots, but no sum of them."""

    def root(a: Any) -> Any:
        new = lambda x: (0.5 * (x[0] + a / x[0]), x[0])
        return graphjit.while_loop(lambda x: np.abs(x[0] - x[1]) > 1e-9, new, (a + 1.0, a * 0.0))[0]

    def f(numbers: Any) -> Any:
        return graphjit.scan(lambda total, a: (total + root(a), None), 0.0, numbers)[0]

    numbers, tangent = np.linspace(1.0, 5.0, 9), np.linspace(-1.0, 2.0, 9)
    forward = lambda x, t: graphjit.jvp(f, (x,), (t,))
    assert [loop.op.name for loop in loops(optimized(forward, numbers, tangent))] == ["scan", "while"]
    value, slope = graphjit.jit(forward)(numbers, tangent)
    np.testing.assert_allclose(value, np.sum(np.sqrt(numbers)), rtol=1e-12)
    np.testing.assert_allclose(slope, np.sum(tangent / (2.0 * np.sqrt(numbers))), rtol=1e-9)

    def g(numbers: Any) -> Any:
        sums = lambda total, a: (total + root(a) * 2.0, None)
        others = lambda total, a: (total - root(a + 1.0), None)
        return graphjit.scan(sums, 0.0, numbers)[0], graphjit.scan(others, 0.0, numbers)[0]

    assert [loop.op.name for loop in loops(optimized(g, numbers))].count("scan") == 2  # other loops inside


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


@pytest.mark.parametrize("shape", [(16,), (3, 16), (2, 3, 16)])
def test_so_are_those_of_the_way_back(shape: tuple[int, ...]) -> None:
    def loss(h: Any, w: Any) -> Any:
        return np.sum(graphjit.scan(lambda h, _: (np.tanh(h @ w), None), h, None, length=20)[0])

    rng = np.random.default_rng(0)
    h, w = rng.standard_normal(shape), rng.standard_normal((16, 16)) / 4
    there, back = loops(optimized(graphjit.grad(loss), h, w))
    assert [arg.op.name for arg in there.args if arg.shape == w.shape] == ["input"]
    assert [arg.op.name for arg in back.args if arg.shape == w.shape] == ["transpose"]
    graphjit.check_grads(loss, (h, w), order=1, modes=["rev"])


def test_a_matrix_that_is_used_on_its_own_result_is_turned_at_both_places() -> None:
    def twice(w: Any, h: Any) -> Any:
        return graphjit.fori_loop(0, 9, lambda i, h: np.tanh(w @ np.tanh(w @ h)), h)

    rng = np.random.default_rng(0)
    w, h = rng.standard_normal((10, 10)), rng.standard_normal(10)
    graph = optimized(twice, w, h)
    (loop,) = loops(graph)
    assert [arg.op.name for arg in loop.args if arg.shape == (10, 10)] == ["transpose"]
    (there,) = interpret(graph, w, h)
    for _ in range(9):
        h = np.tanh(w @ np.tanh(w @ h))
    np.testing.assert_allclose(there, h, rtol=1e-12)


def recurrent(weights: Any, h: Any, xs: Any) -> Any:
    w_h, w_x, w_y, b = weights

    def step(h: Any, x: Any) -> Any:
        h = np.tanh(h @ w_h + x @ w_x + b)
        return h, h @ w_y

    h, ys = graphjit.scan(step, h, xs)
    return np.sum(ys**2) + np.sum(h)


def drawn(batch: tuple[int, ...], n: int = 6, steps: int = 12) -> tuple[Any, ...]:
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=shape) / 3 for shape in ((n, n), (4, n), (n, 3), (n,))]
    return weights, rng.normal(size=(*batch, n)), rng.normal(size=(steps, *batch, 4))


@pytest.mark.parametrize("batch", [(), (5,)])
def test_products_that_the_recurrence_does_not_need_leave_the_loop(batch: tuple[int, ...]) -> None:
    args = drawn(batch)
    graph = graphjit.make_graph(graphjit.value_and_grad(recurrent, argnums=(0, 1, 2)))(*args)
    made = graph
    for step in GRAPH_PASSES[: GRAPH_PASSES.index(fission) + 1]:
        made = step(made)
    forward, back = loops(tidy_loops(simplify(made)))
    assert body(forward).count("contract") == 1  # h @ w_h
    assert body(back).count("contract") == 1  # w_h times the cotangent
    leaves = flatten(args)[0]
    for got, want in zip(interpret(made, *leaves), interpret(graph, *leaves), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11)


@pytest.mark.parametrize("batch", [(), (5,)])
def test_split_loops_compute_the_same(batch: tuple[int, ...]) -> None:
    args = drawn(batch)
    value, grads = graphjit.value_and_grad(recurrent)(*args)
    assert value == pytest.approx(recurrent(*args), rel=1e-12)
    direction = [np.random.default_rng(6).normal(size=w.shape) for w in args[0]]
    moved = [
        recurrent([w + s * d for w, d in zip(args[0], direction, strict=True)], *args[1:])
        for s in (1e-6, -1e-6)
    ]
    slope = sum(float(np.sum(g * d)) for g, d in zip(grads, direction, strict=True))
    assert slope == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-6)


def test_sums_of_terms_that_are_not_stacked_stay() -> None:
    def f(w: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, total = carry
            h = np.sin(h * w + x)
            return (h, total + h), None

        return graphjit.scan(step, (w, w), xs)[0][1]

    (loop,) = loops(optimized(f, np.ones(40), np.ones((20, 40))))
    assert loop.attrs["carried"] == 2


# -------------------------------------------------------------------------------------------- sums that go on


def summed(onto: str, zeros: str = "0.0", last: str = "%4", size: int = 20) -> Graph:
    """A sum of a loop, added ``onto`` something."""
    return parse_graph(f"""graph f
  %0 = input name='x' : f64[{size}]
  %1 = input name='g' : f64[{size}]
  %2 = const value={zeros} : f64[]
  %3 = broadcast_to %2 shape=({size},) : f64[{size}]
  %4 = const value=3 : i64[]
  %5 = const value=0 : i64[]
  %6 = while %4 %0 %5 %3 test={{
    graph test
      %0 = input name='n' : i64[]
      %1 = input name='x' : f64[{size}]
      %2 = input name='i' : i64[]
      %3 = input name='sum' : f64[{size}]
      %4 = lt %2 %0 : bool[]
      return %4
  }} body={{
    graph step
      %0 = input name='n' : i64[]
      %1 = input name='x' : f64[{size}]
      %2 = input name='i' : i64[]
      %3 = input name='sum' : f64[{size}]
      %4 = add %3 %1 : f64[{size}]
      %5 = mul %4 %4 : f64[{size}]
      %6 = const value=1 : i64[]
      %7 = add %2 %6 : i64[]
      return %7 {last}
  }} carried=2 taped=0 : (i64[], f64[{size}])
  %7 = item %6 index=1 : f64[{size}]
  %8 = sin %7 : f64[{size}]
  %9 = add {onto} %7 : f64[{size}]
  return %9
""")


def test_a_sum_goes_on_with_what_it_would_be_added_to() -> None:
    graph = summed("%1")
    made = sum_onwards(graph)
    (loop,) = loops(made)
    assert loop.args[-1] is made.inputs[1]
    assert made.outputs[0].op.name == "item"
    x, g = np.arange(20.0), np.linspace(-1.0, 1.0, 20)
    np.testing.assert_allclose(interpret(made, x, g)[0], interpret(graph, x, g)[0], rtol=1e-15)


@pytest.mark.parametrize(
    "graph",
    [
        summed("%8"),  # which depends on the loop
        summed("%1", zeros="1.0"),  # the sum does not begin with zeros
        summed("%1", last="%5"),  # and is no sum
        summed("%1", size=16),  # so few numbers are in registers
    ],
)
def test_other_loops_begin_as_they_did(graph: Graph) -> None:
    assert "add" in [node.op.name for node in sum_onwards(graph).nodes()]


def test_elements_are_added_to_a_large_array_one_by_one() -> None:
    graph = parse_graph("""graph f
  %0 = input name='x' : f64[30]
  %1 = input name='i' : i64[]
  %2 = input name='a' : f64[]
  %3 = scatter_add %2 %1 shape=(30,) axes=(0,) : f64[30]
  %4 = reshape %2 shape=(1,) : f64[1]
  %5 = embed %4 shape=(30,) starts=(7,) steps=(1,) : f64[30]
  %6 = add %3 %5 : f64[30]
  %7 = add %0 %6 : f64[30]
  return %7
""")
    made = one_by_one(graph)
    (out,) = made.outputs
    assert [out.args[1].op.name, out.args[0].op.name] == ["embed", "add"]
    assert out.args[0].args[0] is made.inputs[0]
    args = np.ones(30), np.int64(3), np.float64(0.5)
    np.testing.assert_array_equal(interpret(made, *args)[0], interpret(graph, *args)[0])


def test_the_way_back_keeps_elements_and_no_arrays() -> None:
    """The inner loop reads rows of an array that the outer one writes."""

    def solved(low: Any, n: Any) -> Any:
        x = np.zeros(30)
        for i in range(n):
            total = 1.0
            for j in range(i):
                total = total - low[i, j] * x[j]
            x[i] = total / low[i, i]
        return np.sum(x * x)

    graph = optimized(graphjit.grad(solved), np.eye(30) + 0.1, 30)
    kept = [part.record.shape for node in loops(graph) for part in node.parts if part.record is not None]
    assert kept
    assert set(kept) == {()}
    # Neither way makes an array of zeros, nor adds two arrays, in a step.
    for node in loops(graph):
        inner: Graph = node.attrs["body"].graph  # type: ignore[attr-defined]
        assert not [x for x in inner.nodes() if x.op.name == "broadcast_to" and x.type.size > 16]
