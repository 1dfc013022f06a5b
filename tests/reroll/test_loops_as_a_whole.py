"""Python loops of long traces that are recorded once, not step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.ir.node import with_bodies
from graphjit.trace import stage

RNG = np.random.default_rng(11)
W = RNG.normal(size=(4, 4)) / 3


@pytest.fixture(autouse=True)
def _short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LONG", 30)


def ops_of(function: Callable[..., Any], *args: Any) -> list[str]:
    graph = graphjit.make_graph(function)(*args)
    return [node.op.name for node in with_bodies(graph)]


def recurrence(x: Any) -> Any:
    h = np.zeros((x.shape[0] + 1, 4))
    for t in range(x.shape[0]):
        h[t + 1] = np.tanh(h[t] @ W + x[t])
    return h


def two_behind(x: Any) -> Any:
    h = np.zeros((x.shape[0], 4))
    for t in range(x.shape[0]):
        h[t] = np.tanh(h[t - 1] @ W + x[t]) + h[t - 2]
    return h


def in_place(x: Any) -> Any:
    y = x.copy()
    for t in range(1, x.shape[0] - 1):
        y[t] = 0.5 * y[t - 1] + 0.3 * y[t] + 0.1 * y[t + 1] + x[-t]
    return y


def downwards(x: Any) -> Any:
    y = x.copy()
    n = x.shape[0]
    for t in range(n - 1, -1, -1):
        y[t] = np.sin(y[t])
        y[t] = 0.5 * y[t] + x[n - 1 - t]
    return y


def columns(x: Any) -> Any:
    y = x.T.copy()
    z = np.zeros(x.shape[0])
    for t in range(0, x.shape[0], 2):
        y[:, t] = y[:, t - 2] + x[t]
        z[t] = np.sum(y[:, t])
    return y + z


def rows_and_a_count(x: Any) -> Any:
    s, count = 0.0, 0
    for row in x:
        s = s + np.sum(row) * count
        count += 1
    return s * count


def choices(x: Any) -> Any:
    s = np.zeros(4)
    for i in range(x.shape[0]):
        if i % 3 == 0:
            s = s + x[i]
        else:
            s = s - x[i] * 0.5
    return s


def triangle(x: Any) -> Any:
    out = np.zeros(x.shape[0])
    for i in range(x.shape[0]):
        for j in range(i):
            out[i] += x[i, j % 4] * out[j] + 0.01 * (j - i)
        out[i] += x[i, 0]
    return out


def nested(x: Any) -> Any:
    u = x.copy()
    for _ in range(16):
        for i in range(1, u.shape[0] - 1):
            for j in range(4):
                u[i, j] = 0.25 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, (j + 1) % 4])
    return u


def step_of(h: Any, row: Any) -> Any:
    return np.tanh(h @ W) * row


def through_functions(x: Any) -> Any:
    h = np.ones(4)
    for i in range(x.shape[0]):
        h = step_of(h, x[i]) + math.pi
    return h


def layers_in_a_list(x: Any) -> Any:
    states = [(np.zeros(4), np.ones(4)) for _ in range(2)]
    for row in x:
        for k in range(2):
            h, c = states[k]
            states[k] = np.tanh(h @ W + row + c), 0.5 * c + h
            row = states[k][0]
    return np.concatenate([part for state in states for part in state])


class Cell:
    def __init__(self) -> None:
        self.state = {"h": np.zeros(4)}
        self.total = np.zeros(4)

    def step(self, row: Any) -> None:
        self.state["h"] = np.tanh(self.state["h"] @ W + row)
        self.total = self.total + self.state["h"] ** 2


def objects(x: Any) -> Any:
    cell = Cell()
    for row in x:
        cell.step(row)
    return cell.total + cell.state["h"]


PROGRAMS = [
    layers_in_a_list,
    objects,
    recurrence,
    two_behind,
    in_place,
    downwards,
    columns,
    rows_and_a_count,
    choices,
    triangle,
    nested,
    through_functions,
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [17, 32])
def test_values_and_gradients(function: Callable[..., Any], n: int) -> None:
    x = RNG.normal(size=(n, 4))
    made, wanted = graphjit.jit(function)(x.copy()), function(x.copy())
    np.testing.assert_allclose(made, wanted, rtol=1e-13, atol=1e-13)
    assert np.asarray(made).dtype == np.asarray(wanted).dtype
    weights = RNG.normal(size=np.shape(wanted))

    def loss(x: Any) -> Any:
        return np.sum(function(x) * weights)

    direction, step = RNG.normal(size=x.shape), 1e-6
    slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(np.sum(graphjit.grad(loss)(x) * direction), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_the_graph_does_not_grow_with_the_steps(function: Callable[..., Any]) -> None:
    short, long = (len(ops_of(function, RNG.normal(size=(n, 4)))) for n in (40, 400))
    assert "scan" in ops_of(function, RNG.normal(size=(40, 4)))
    assert short == long


@pytest.mark.parametrize(
    "function", [recurrence, two_behind, in_place, downwards, columns], ids=lambda f: f.__name__
)
def test_places_that_are_known_for_each_step_are_slices(function: Callable[..., Any]) -> None:
    names = ops_of(function, RNG.normal(size=(40, 4)))
    assert "scan" in names
    assert "gather" not in names
    # What was written is put in its place once, after the loop.
    assert names.count("scatter_set") <= 2


def unrolled(function: Callable[..., Any], x: np.ndarray) -> None:
    """It is traced step by step, and right."""
    assert not {"scan", "while"} & set(ops_of(function, x))
    np.testing.assert_allclose(graphjit.jit(function)(x), function(x), rtol=1e-13)


def test_what_python_does_in_each_step_is_done_in_each_step() -> None:
    seen: list[int] = []
    numbers = iter(range(1000))
    table = [float(k * k) for k in range(20)]

    def draws(x: Any) -> Any:
        for _ in range(20):
            x = x * 1.5 + next(numbers)
        return x

    def notes(x: Any) -> Any:
        for k in range(20):
            seen.append(k)
            x = np.sin(x) + 1.0
        return x

    def looks_up(x: Any) -> Any:
        for k in range(20):
            x = x * 0.5 + table[k]
        return x

    more = iter(range(1000))

    def zipped(x: Any) -> Any:
        for _ in range(20):
            for _, k in zip([0], more):
                x = x + k
        return x

    x = np.arange(3.0)
    graphjit.jit(draws)(x)
    assert next(numbers) >= 20
    graphjit.jit(notes)(x)
    assert seen[-20:] == list(range(20))
    unrolled(looks_up, x)
    graphjit.jit(zipped)(x)
    assert next(more) >= 20


def test_what_only_pythons_number_has_is_asked_of_it() -> None:
    table = {f"w{k}": float(k) for k in range(20)}

    def by_name(x: Any) -> Any:
        for k in range(20):
            x = np.sin(x) + table.get("w" + str(k), 0.0)
        return x

    def by_template(x: Any) -> Any:
        for k in range(20):
            x = np.sin(x) + table.get("w%s" % k, 0.0)  # noqa: UP031
        return x

    def by_text(x: Any) -> Any:
        for k in range(20):
            x = np.sin(x) + table.get(f"w{k!s}", 0.0)
        return x

    def by_type(x: Any) -> Any:
        for k in range(20):
            x = np.sin(x) + (1.0 if type(k) is int else 2.0)
        return x

    for function in (by_name, by_template, by_text, by_type):
        unrolled(function, np.arange(3.0))


def test_an_integer_that_python_does_not_limit_is_not_wrapped() -> None:
    def factorials(x: Any) -> Any:
        product = 1
        for k in range(1, 26):
            product = product * k
            x = x + 1.0 / product
        return x

    def powers(x: Any) -> Any:
        for k in range(70):
            x = x + 1.0 / 2**k
        return x

    def counted(x: Any) -> Any:
        n = 1 << 62
        for _ in range(40):
            n += 1 << 60
            x = x + n / (1 << 60)
        return x

    for function in (factorials, powers, counted):
        x = np.arange(3.0)
        made = graphjit.jit(function)(x)
        np.testing.assert_allclose(made, function(x), rtol=1e-14)
        assert np.isfinite(made).all()


def test_objects_and_lists_that_a_step_changes_are_not_lost() -> None:
    class Counter:
        def __init__(self) -> None:
            self.total = 0

    def kept(x: Any) -> Any:
        counter, parts = Counter(), []
        for k in range(20):
            counter.total += k
            x = np.sin(x)
            parts.append(x)
        return np.stack(parts) * counter.total

    x = np.arange(3.0)
    np.testing.assert_allclose(graphjit.jit(kept)(x), kept(x), rtol=1e-13)


def test_a_loop_is_left_alone_without_python_control_flow_or_rolling() -> None:
    x = RNG.normal(size=(20, 4))
    for options in ({"reroll": False}, {"python_control_flow": False, "reroll": False}):
        compiled: Any = graphjit.jit(recurrence, **options)
        names = [node.op.name for node in with_bodies(compiled.lower(x).simplified)]
        assert "scan" not in names


def test_short_loops_and_short_traces_are_recorded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "scan" not in ops_of(recurrence, RNG.normal(size=(15, 4)))
    monkeypatch.setattr(stage, "LONG", 4_000)
    function = graphjit.jit(recurrence, reroll=False)
    assert "scan" not in [x.op.name for x in with_bodies(function.lower(RNG.normal(size=(20, 4))).simplified)]


def test_errors_are_those_of_the_steps() -> None:
    def beyond(x: Any) -> Any:
        s = 0.0
        for k in range(20):
            s = s + np.sin(x[k]) * x[k]
        return s

    with pytest.raises(IndexError, match="out of bounds"):
        graphjit.jit(beyond)(np.arange(18.0))


def test_the_log_says_why_a_loop_is_recorded_step_by_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(graphjit.config, "log_topics", frozenset({"reroll"}))
    names = {k: k for k in range(20)}

    def looked_up(x: Any) -> Any:
        for k in range(20):
            x = np.sin(x) * names[k]
        return x

    graphjit.jit(looked_up)(np.arange(3.0))
    assert "recorded step by step" in capsys.readouterr().err
