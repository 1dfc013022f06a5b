"""Arrays that loops change element by element: written where they lie, read before they are written over."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import pipeline
from graphjit.interpret import interpret
from graphjit.schedule.loops.versions import changed_carries, order
from graphjit.schedule.program import Control, Program
from graphjit.trace import stage

RNG = np.random.default_rng(7)
N = 9
MATRIX = RNG.normal(size=(N, N)) + N * np.eye(N)


def lu(a: Any, n: Any) -> Any:
    a = a.copy()
    for k in range(n):
        for i in range(k + 1, n):
            a[i, k] = a[i, k] / a[k, k]
            for j in range(k + 1, n):
                a[i, j] = a[i, j] - a[i, k] * a[k, j]
    return a


def cholesky(a: Any, n: Any) -> Any:
    low = np.zeros_like(a)
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total = total - low[i, k] * low[j, k]
            if i == j:
                low[i, i] = np.sqrt(total)
            else:
                low[i, j] = total / low[j, j]
    return low


def shortest(a: Any, n: Any) -> Any:
    d = a.copy()
    for k in range(n):
        for i in range(n):
            for j in range(n):
                d[i, j] = np.minimum(d[i, j], d[i, k] + d[k, j])
    return d


def sorted_(a: Any, n: Any) -> Any:
    x = a[0].copy()
    for i in range(n):
        for j in range(n - 1 - i):
            if x[j] > x[j + 1]:
                x[j], x[j + 1] = x[j + 1], x[j]
    return x


def smoothed(a: Any, n: Any) -> Any:
    for _ in range(3):
        for i in range(n):
            a[i, 0] = (a[i - 1, 0] + a[i, 0] + a[(i + 1) % n, 0]) / 3
    return a


def histogram(a: Any, n: Any) -> Any:
    counts = np.zeros(20)
    for i in range(n):
        counts[np.floor(np.abs(a[i, 0])).astype(int) % 20] += a[i, 1]
    return counts


def two(a: Any, n: Any) -> Any:
    x, y = a.copy(), np.zeros((N, N))
    for i in range(n):
        y[i, i] = x[i, 0] + y[i - 1, i - 1]
        x[i, 0] = y[i, i] * x[0, i]
    return x + y


def rows(a: Any, n: Any) -> Any:
    """Elements of rows, and a table that nobody changes."""
    low, out = a.copy(), np.zeros((N, 3))
    for i in range(n):
        out[i] = out[i - 1] * a[i, i] + low[i - 1, 3]
        low[i, 3] = out[i - 2, 1]
    return out + low[:, 1:4]


def only_a_number(a: Any, n: Any) -> Any:
    seen, count = np.zeros(20), 0.0
    for i in range(n):
        at = (i * 4) % n
        count = count + seen[at]
        seen[at] += a[i, 0]
        seen[0] += 1.0
    return count


PROGRAMS = [lu, cholesky, shortest, sorted_, smoothed, histogram, two, rows, only_a_number]
SPD = MATRIX @ MATRIX.T


def given(function: Callable[..., Any]) -> np.ndarray:
    return SPD if function is cholesky else np.abs(MATRIX) if function is shortest else MATRIX


def program_of(function: Callable[..., Any], *args: Any) -> Program:
    return graphjit.jit(function).lower(*args).program


@pytest.mark.sample(2)
@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [N, 0, 1])
def test_values_are_those_of_python(function: Callable[..., Any], n: int) -> None:
    a = given(function)
    compiled = graphjit.jit(function)(a.copy(), n)
    np.testing.assert_array_equal(compiled, function(a.copy(), n))


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_such_a_loop_is_one_kernel(function: Callable[..., Any]) -> None:
    steps = [s for s in program_of(function, given(function).copy(), N).steps if isinstance(s, Control)]
    assert steps
    assert all(step.in_registers for step in steps)


@pytest.mark.sample(2)
@pytest.mark.parametrize("function", [lu, cholesky, smoothed, histogram, two, rows], ids=lambda f: f.__name__)
def test_gradients(function: Callable[..., Any]) -> None:
    a, weights = given(function), RNG.normal(size=np.shape(function(given(function).copy(), N)))

    def loss(a: Any, n: Any) -> Any:
        return np.sum(function(a.copy(), n) * weights)

    gradient = graphjit.grad(loss)(a.copy(), N)
    direction = RNG.normal(size=a.shape)
    if function is cholesky:
        direction = direction + direction.T
    step = 1e-6
    slope = (loss(a + step * direction, N) - loss(a - step * direction, N)) / (2 * step)
    _, tangent = graphjit.jvp(lambda a: loss(a, N), (a.copy(),), (direction,))
    np.testing.assert_allclose(tangent, slope, rtol=1e-6)
    np.testing.assert_allclose(np.sum(gradient * direction), tangent, rtol=1e-11)


@pytest.mark.sample(4)
@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_numbas_code_gives_the_same(function: Callable[..., Any]) -> None:
    a = given(function)
    made = graphjit.jit(function, backend="numba")(a.copy(), N)
    np.testing.assert_array_equal(made, function(a.copy(), N))


def test_a_place_that_is_not_there_is_an_error_at_the_users_line() -> None:
    def beyond(a: Any, n: Any) -> Any:
        x = a.copy()
        for i in range(n):
            x[i + 2] = x[i]
        return x

    with pytest.raises(IndexError, match=r"out of bounds for axis 0 with size 5 \(at .*in_place.py"):
        graphjit.jit(beyond)(np.arange(5.0), 5)
    np.testing.assert_array_equal(graphjit.jit(beyond)(np.arange(5.0), 3), [0, 1, 0, 1, 0])


def test_an_argument_that_nobody_changes_stays() -> None:
    a = MATRIX.copy()
    graphjit.jit(lu)(a, N)
    np.testing.assert_array_equal(a, MATRIX)


def loops(function: Callable[..., Any], *args: Any) -> list[Any]:
    graph = graphjit.jit(function).lower(*args).optimized
    return [node for node in graph.nodes() if node.op.name == "while"]


def test_an_array_that_is_read_after_it_was_written_over_is_not_changed_in_place() -> None:
    def both(x: Any, n: Any) -> Any:
        def step(state: Any) -> Any:
            i, x = state
            y = x.copy()
            y[i] = x[i - 1] + 1.0
            at = np.floor(y[i]).astype(int) % 5  # known after the write, and the old array is read there
            y[0] = x[at]
            return i + 1, y

        return graphjit.while_loop(lambda state: state[0] < n, step, (0, x))[1]

    x = np.arange(5.0)
    (node,) = loops(both, x, 4)
    assert changed_carries(node) == {}
    np.testing.assert_array_equal(graphjit.jit(both)(x, 4), both(x, 4))


def test_what_is_read_comes_before_what_is_written() -> None:
    (node,) = loops(lambda a, n: two(a, n), MATRIX, N)
    found = changed_carries(node)
    body: Any = node.attrs["body"]
    nodes = order(body.graph, list(found.values()))
    assert len(found) == 2
    assert nodes is not None
    place = {node: i for i, node in enumerate(nodes)}
    for versions in found.values():
        for version, following in itertools.pairwise(versions):
            readers = [x for x in nodes if version in x.args and x is not following]
            assert all(place[x] < place[following] for x in readers)


def test_a_step_costs_the_same_however_large_the_array() -> None:
    def filled(x: Any, n: Any) -> Any:
        for i in range(n):
            x[i] = x[i - 1] + 1.0
        return x

    def bytes_of(size: int) -> int:
        program = program_of(filled, np.zeros(size), 3)
        (step,) = [s for s in program.steps if isinstance(s, Control)]
        assert step.in_registers
        return program.arena

    assert bytes_of(100) == bytes_of(100_000)


def test_the_interpreter_and_both_programs_agree() -> None:
    graph = graphjit.make_graph(graphjit.grad(lambda a, n: np.sum(lu(a, n) ** 2)))(MATRIX, N)
    (wanted,) = interpret(graph, MATRIX, np.int64(N))
    (found,) = interpret(pipeline.optimize(graph), MATRIX, np.int64(N))
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
    compiled = graphjit.grad(lambda a, n: np.sum(lu(a, n) ** 2))(MATRIX, N)
    np.testing.assert_allclose(compiled, wanted, rtol=1e-13)


# ------------------------------------------------------------------------------- loops that run as programs

WIDE, STEPS = 40, 20
BIG = RNG.normal(size=(WIDE, WIDE)) / 8
ROWS = RNG.normal(size=(STEPS, WIDE))
PLACES = RNG.permutation(STEPS)


def rows_at_places(w: Any, x: Any, at: Any) -> Any:
    h, out = np.zeros(WIDE), np.zeros((STEPS, WIDE))
    for t in range(STEPS):
        h = np.tanh(w @ h + x[t])
        out[at[t]] = h
    return out


def read_before(w: Any, x: Any, at: Any) -> Any:
    out = x.copy()
    for t in range(STEPS):
        mean, old = np.sum(out) / 100, out[at[t]]
        out[at[t]] = np.tanh(w @ old + mean)
    return out


def read_after(w: Any, x: Any, at: Any) -> Any:
    out, total = x.copy(), 0.0
    for t in range(STEPS):
        out[at[t]] = np.tanh(w @ out[at[t]])
        total = total + np.sum(np.sin(out))
        out[at[t - 1]] = out[at[t]] * 0.5
    return out, total


def old_and_new(w: Any, x: Any, at: Any) -> Any:
    out, before = x.copy(), x * 2.0
    for t in range(STEPS):
        before = out.copy()
        out[at[t]] = np.tanh(w @ before[at[t] - 1])
    return out, before


def swapped(w: Any, x: Any, at: Any) -> Any:
    a, b = x.copy(), x * 2.0
    for t in range(STEPS):
        a = a.copy()
        a[at[t]] = np.tanh(w @ b[t])
        a, b = b, a
    return a, b


def read_with_what_was_written(w: Any, x: Any, at: Any) -> Any:
    out, kept = x.copy(), x[0]
    for t in range(STEPS):
        new = out.copy()
        new[at[t]] = np.tanh(w @ kept)
        kept = new[at[t]] + 0.01 * np.sum(out) + 0.5 * out[at[t]]
        out = new
    return out, kept


def loop_inside(w: Any, x: Any, at: Any) -> Any:
    out = x.copy()
    for t in range(STEPS):
        h = np.tanh(w @ out[at[t]])
        for k in range(STEPS):
            out[at[k]] = out[at[k]] * 0.5 + (w @ h) * 0.1
    return out


def kept_between(w: Any, x: Any, at: Any) -> Any:
    """Each step changes the array twice, and what it was in between is a result of its own."""

    def step(out: Any, t: Any) -> Any:
        first = out.copy()
        first[at[t]] = np.tanh(w @ out[at[t] - 1])
        second = first.copy()
        second[at[t] - 2] = first[at[t]] * 0.5
        return second, first

    return graphjit.scan(step, x.copy(), np.arange(STEPS))


def single_elements(w: Any, x: Any, at: Any) -> Any:
    out, h = np.zeros((STEPS, WIDE)), x[0]
    for t in range(STEPS):
        h = np.tanh(w @ h)
        for k in range(STEPS):
            out[at[k], t] = out[at[k] - 1, t] + h[k]
    return out


AS_PROGRAMS = [
    rows_at_places,
    read_before,
    read_after,
    old_and_new,
    swapped,
    read_with_what_was_written,
    loop_inside,
    kept_between,
    single_elements,
]


def arrays_of(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else [results]


@pytest.mark.sample(2)
@pytest.mark.parametrize("function", AS_PROGRAMS)
@pytest.mark.parametrize("backend", ["llvm", "numba"])
def test_rows_are_written_where_they_lie(
    function: Callable[..., Any], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "LONG", 30)
    want = function(BIG, ROWS.copy(), PLACES)
    got = graphjit.jit(function, backend=backend)(BIG, ROWS, PLACES)
    for g, w in zip(*map(arrays_of, (got, want)), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("function", AS_PROGRAMS)
def test_their_gradients(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LONG", 30)

    def loss(w: Any, x: Any) -> Any:
        return sum(np.sum(np.sin(y) ** 2) for y in arrays_of(function(w, x.copy(), PLACES)))

    gradient = graphjit.grad(loss, argnums=(0, 1))
    direction = RNG.normal(size=BIG.shape), RNG.normal(size=ROWS.shape)
    _, tangent = graphjit.jvp(loss, (BIG, ROWS), direction)
    step = 1e-6
    ends = [loss(BIG + s * direction[0], ROWS + s * direction[1]) for s in (step, -step)]
    np.testing.assert_allclose(tangent, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)
    found = sum(np.sum(g * d) for g, d in zip(gradient(BIG, ROWS), direction, strict=True))
    np.testing.assert_allclose(found, tangent, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("function", [rows_at_places, read_before, read_after, loop_inside, single_elements])
def test_a_step_of_a_program_costs_what_it_changes(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "LONG", 30)
    program = program_of(function, BIG, ROWS, PLACES)
    steps = [step for inner in program.with_inner() for step in inner.steps if isinstance(step, Control)]
    outer = [step for step in steps if step.node.op.name == "scan" and not step.in_registers]
    assert any(step.staying for step in outer)


@pytest.mark.parametrize("function", [swapped, read_with_what_was_written])
def test_what_is_read_later_is_kept(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LONG", 30)
    program = program_of(function, BIG, ROWS, PLACES)
    steps = [step for inner in program.with_inner() for step in inner.steps if isinstance(step, Control)]
    assert steps
    assert not any(step.staying for step in steps)
