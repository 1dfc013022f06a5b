"""Lists to which long loops append: the loop is recorded once, the list holds what Python would put in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.ir.node import with_bodies
from graphjit.trace import stage

RNG = np.random.default_rng(12)
W = RNG.normal(size=(4, 4)) / 3
X = RNG.normal(size=(20, 4))


@pytest.fixture(autouse=True)
def _short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LONG", 30)


def states(x: Any) -> Any:
    h, kept = np.zeros(4), []
    for t in range(len(x)):
        h = np.tanh(W @ h + x[t])
        kept.append(h)
    return np.stack(kept)


def last_of_the_list(x: Any) -> Any:
    kept = [np.zeros(4)]
    for t in range(len(x)):
        kept.append(np.tanh(W @ kept[-1] + x[t]))
    return np.array(kept)


def losses(x: Any) -> Any:
    h, errors = np.zeros(4), []
    for t in range(len(x)):
        h = np.tanh(W @ h + x[t])
        errors.append(np.sum(h * h))
    return sum(errors), errors[3], errors[-1]


def two_lists_and_tuples(x: Any) -> Any:
    h, c, kept, pairs = np.zeros(4), np.ones(4), [], [("begin", None)]
    for t in range(len(x)):
        h, c = np.tanh(W @ h + x[t]), 0.5 * c + h
        kept.append(h)
        kept += [c]
        pairs.append((c * 2.0, "step"))
    return kept[0], kept[7], np.stack(kept[::2]), [pair[1] for pair in pairs], pairs[5][0]


def before_the_update(x: Any) -> Any:
    h, kept = np.ones(4), []
    for t in range(len(x)):
        kept.append(h)
        h = np.tanh(W @ h + x[t])
    return np.stack(kept), kept[0] is kept[1], len(kept)


def numbers_of_steps(x: Any) -> Any:
    kept: list[Any] = []
    for t in range(len(x)):
        kept.append(t * 2)
        kept.append(np.sin(x[t, 0]))
    return kept[-2] + 0.5, kept[1], len(kept)


def inner_loop(x: Any) -> Any:
    kept = [x[0]]
    for t in range(len(x)):
        y = x[t]
        for k in range(16):
            y = np.sin(y) + k
            kept.append(y)
        kept.append(kept[-1] + kept[-1])
    return np.stack(kept[::5])


class History:
    def __init__(self) -> None:
        self.states: list[Any] = []

    def add(self, h: Any) -> None:
        self.states.append(h)


def in_an_object(x: Any) -> Any:
    history, h = History(), np.zeros(4)
    for t in range(len(x)):
        h = np.tanh(W @ h + x[t])
        history.add(h)
    return np.stack(history.states)


def copies_of_an_array_in_place(x: Any) -> Any:
    h, kept = np.zeros(4), []
    for t in range(len(x)):
        h += np.sin(x[t])
        kept.append(h.copy())
    return np.stack(kept), h


def filled_before_it_is_appended(x: Any) -> Any:
    """What a step writes into an array that it makes itself is in the list."""
    kept = []
    for t in range(len(x)):
        row = np.zeros(4)
        row[1:] = x[t, 1:]
        kept.append((row, t))
    return np.stack([row for row, _ in kept])


def filled_after_it_is_appended(x: Any) -> Any:
    h, kept = np.zeros(4), []
    for t in range(len(x)):
        h = np.tanh(W @ h + x[t])
        kept.append(h)
        h[0] = x[t, 0]
    return np.stack(kept), h


def changed_afterwards(x: Any) -> Any:
    h, kept = np.zeros(4), []
    for t in range(len(x)):
        h = np.tanh(W @ h + x[t])
        kept.append(h)
    h *= 2.0
    kept[3][0] = 7.0
    return np.stack(kept), h


def first_is_the_array_before(x: Any) -> Any:
    h = np.zeros(4) + x[0]
    begin, kept = h, []
    for t in range(len(x)):
        kept.append(h)
        h = np.tanh(W @ h + x[t])
    begin += 5.0
    return np.stack(kept)


WHOLE = [
    states,
    last_of_the_list,
    losses,
    two_lists_and_tuples,
    before_the_update,
    numbers_of_steps,
    inner_loop,
    in_an_object,
    copies_of_an_array_in_place,
    filled_before_it_is_appended,
    filled_after_it_is_appended,
    changed_afterwards,
    first_is_the_array_before,
]


def one_array_many_times(x: Any) -> Any:
    h, kept = np.zeros(4), []
    for t in range(len(x)):
        h += x[t]
        kept.append(h)
    return np.stack(kept)


def held_twice(x: Any) -> Any:
    h, before, kept = np.ones(4), np.zeros(4), []
    for t in range(len(x)):
        before, h = h, np.tanh(W @ h + x[t])
        kept.append(before)
    before += 1.0
    return np.stack(kept), h


def shifted_twice(x: Any) -> Any:
    h = np.ones(4) * x[1]
    begin, before, kept = h, np.zeros(4), []
    for t in range(len(x)):
        kept.append(before)
        before, h = h, np.tanh(W @ h + x[t])
    begin += 1.0
    return np.stack(kept), h


def views(x: Any) -> Any:
    h, kept = np.ones(4), []
    for t in range(len(x)):
        h = np.tanh(W @ h + x[t])
        kept.append(h[1:])
    h[2] = 9.0
    return np.stack(kept)


def one_from_outside(x: Any) -> Any:
    y, kept = x * 2.0, []
    for t in range(len(x)):
        kept.append(y)
        y[t] += np.sum(np.sin(x[t]))
    return np.stack(kept)


def length_of_the_list(x: Any) -> Any:
    kept: list[Any] = []
    for t in range(len(x)):
        kept.append(np.sin(x[t]) * len(kept))
    return np.stack(kept)


def parity_of_the_length(x: Any) -> Any:
    kept: list[Any] = []
    for t in range(len(x)):
        kept.append(np.sin(x[t]) if len(kept) % 2 else np.cos(x[t]))
    return np.stack(kept)


def begins_in_the_loop(x: Any) -> Any:
    kept: list[Any] = []
    for t in range(len(x)):
        if not kept:
            kept.append(np.zeros(4))
        kept.append(np.tanh(W @ kept[-1] + x[t]))
    return np.stack(kept)


def two_behind(x: Any) -> Any:
    kept = [x[0], x[1]]
    for t in range(len(x)):
        kept.append(np.sin(kept[-2]) + x[t])
    return np.stack(kept)


def mean_so_far(x: Any) -> Any:
    kept = []
    for t in range(len(x)):
        kept.append(np.sin(x[t]) + sum(kept))
    return np.stack(kept)


def counted_by_type(x: Any) -> Any:
    kept = [1.0]
    for t in range(len(x)):
        count = len([y for y in kept if isinstance(y, float)])
        kept.append(np.sin(x[t]) * count)
    return kept[1], kept[5]


def a_slice(x: Any) -> Any:
    kept = []
    for t in range(len(x)):
        kept.append(np.sin(x[t]) + len(kept[3:]))
    return np.stack(kept)


def item_assigned(x: Any) -> Any:
    kept = [x[0]]
    for t in range(len(x)):
        kept[-1] = kept[-1] + 1.0
        kept.append(np.sin(x[t]))
    return np.stack(kept)


def window_of_three(x: Any) -> Any:
    kept = [x[0]]
    for t in range(len(x)):
        kept.append(np.sin(x[t]) + kept[0])
        if len(kept) > 3:
            kept.pop(0)
    return np.stack(kept)


def lists_in_a_list(x: Any) -> Any:
    pair, kept = [0.0, 0.0], []
    for t in range(len(x)):
        pair[0] = np.sum(x[t])
        kept.append(pair)
    return kept[0][0], kept[5][0]


STEP_BY_STEP = [
    one_array_many_times,
    held_twice,
    shifted_twice,
    views,
    one_from_outside,
    length_of_the_list,
    parity_of_the_length,
    begins_in_the_loop,
    two_behind,
    mean_so_far,
    counted_by_type,
    a_slice,
    item_assigned,
    window_of_three,
    lists_in_a_list,
]


def check_values(function: Callable[..., Any]) -> None:
    import optree

    got, want = graphjit.jit(function)(X), function(X.copy())
    for g, w in zip(optree.tree_leaves(got), optree.tree_leaves(want), strict=True):
        if isinstance(w, str):
            assert g == w
        else:
            np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", WHOLE)
def test_recorded_once(function: Callable[..., Any]) -> None:
    check_values(function)
    names = [node.op.name for node in with_bodies(graphjit.make_graph(function)(X))]
    assert "scan" in names
    assert names.count("tanh") + names.count("sin") <= 3


@pytest.mark.parametrize("function", STEP_BY_STEP)
def test_recorded_step_by_step(function: Callable[..., Any]) -> None:
    """What a single step cannot tell is found out, whatever it costs."""
    check_values(function)
    assert "scan" not in [node.op.name for node in with_bodies(graphjit.make_graph(function)(X))]


def test_gradients_and_sizes() -> None:
    def loss(x: Any) -> Any:
        return np.sum(states(x) ** 2) + sum(losses(x)[0:1])

    graphjit.check_grads(loss, (X,), order=2)
    graph = graphjit.make_graph(states)(X)
    assert not any(node.op.name == "concatenate" for node in graph.nodes())


def test_the_log_says_why_a_list_keeps_a_loop(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(graphjit.config, "log_topics", frozenset({"reroll"}))
    graphjit.jit(length_of_the_list)(X)
    assert (
        "is recorded step by step: what a step does depends on how long a list is" in capsys.readouterr().err
    )
