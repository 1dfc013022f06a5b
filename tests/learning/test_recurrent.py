"""Recurrent layers beside loops over steps and sequences, written gate by gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layers_harness import assert_layer, assert_near, values

import graphjit
from graphjit import nn

RNG = np.random.default_rng(13)
GATES = {"rnn": 1, "relu": 1, "lstm": 4, "gru": 3}
sigmoid = lambda x: 1 / (1 + np.exp(-x))


def weights(name: str, features: int, hidden: int, shifted: bool) -> list[np.ndarray]:
    rows = GATES[name] * hidden
    w = [RNG.normal(size=(rows, features)), RNG.normal(size=(rows, hidden))]
    return w + ([RNG.normal(size=rows), RNG.normal(size=rows)] if shifted else [])


def step(name: str, x: np.ndarray, h: Any, w: list[np.ndarray]) -> Any:
    """One sequence, one step: a block of rows for each gate."""
    b = w[2:] or [np.zeros(len(w[0]))] * 2
    n = w[1].shape[1]
    block = lambda k, v, part: w[part][k * n : (k + 1) * n] @ v + b[part][k * n : (k + 1) * n]
    if name in ("rnn", "relu"):
        total = block(0, x, 0) + block(0, h, 1)
        return np.tanh(total) if name == "rnn" else np.maximum(total, 0)
    if name == "lstm":
        i, f, g, o = (block(k, x, 0) + block(k, h[0], 1) for k in range(4))
        c = sigmoid(f) * h[1] + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    r, z = (sigmoid(block(k, x, 0) + block(k, h, 1)) for k in range(2))
    new = np.tanh(block(2, x, 0) + r * block(2, h, 1))
    return (1 - z) * new + z * h


def loops(name: str, x: np.ndarray, state: Any, w: list[np.ndarray], lengths: Any, reverse: bool) -> Any:
    """Sequence by sequence."""
    outputs = np.zeros((*x.shape[:2], w[1].shape[1]))
    ends = []
    for j in range(x.shape[1]):
        h = tuple(part[j] for part in state) if name == "lstm" else state[j]
        times = range(x.shape[0] if lengths is None else lengths[j])
        for t in reversed(times) if reverse else times:
            h = step(name, x[t, j], h, w)
            outputs[t, j] = h[0] if name == "lstm" else h
        ends.append(h)
    end = tuple(np.stack(parts) for parts in zip(*ends)) if name == "lstm" else np.stack(ends)
    return outputs, end


def layer_of(name: str, **options: Any) -> Any:
    function = nn.rnn if name == "relu" else getattr(nn, name)
    more = {"nonlinearity": "relu"} if name == "relu" else {}
    return lambda x, state, w: function(x, state, *w, **options, **more)


@pytest.mark.sample(4)
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("name", GATES)
def test_cells(name: str, shifted: bool) -> None:
    w, x = weights(name, 3, 2, shifted), RNG.normal(size=(4, 3))
    state = tuple(RNG.normal(size=(2, 4, 2))) if name == "lstm" else RNG.normal(size=(4, 2))
    _, expected = loops(name, x[None], state, w, None, False)
    function = nn.rnn_cell if name == "relu" else getattr(nn, f"{name}_cell")
    more = {"nonlinearity": "relu"} if name == "relu" else {}
    assert_layer(lambda x, state, w: function(x, state, *w, **more), (x, state, w), expected, order=2)


@pytest.mark.sample(8)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("began", [True, False])
@pytest.mark.parametrize("name", GATES)
def test_sequences(name: str, began: bool, some: bool, reverse: bool) -> None:
    w, x = weights(name, 3, 2, began), RNG.normal(size=(5, 4, 3))
    states = RNG.normal(size=(2, 4, 2)) * began
    state: Any = tuple(states) if name == "lstm" else states[0]
    lengths = np.array([5, 1, 0, 3]) if some else None
    expected = loops(name, x, state, w, lengths, reverse)
    layer = layer_of(name, reverse=reverse, lengths=lengths)
    if began:
        assert_layer(layer, (x, state, w), expected)
    else:
        assert_layer(lambda x, w: layer(x, None, w), (x, w), expected)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_second_derivatives_of_sequences(name: str) -> None:
    w, x = weights(name, 2, 2, True), RNG.normal(size=(3, 2, 2))
    graphjit.check_grads(layer_of(name, lengths=np.array([3, 2])), (x, None, w), 2)


@pytest.mark.parametrize("name", GATES)
def test_batch_first_and_what_fills_up(name: str) -> None:
    """What comes after the end of a sequence may be anything: neither values nor derivatives read it."""
    w, x, lengths = weights(name, 3, 2, True), RNG.normal(size=(5, 4, 3)), np.array([5, 1, 0, 3])
    layer = layer_of(name, lengths=lengths, batch_first=True)
    outputs, end = layer_of(name, lengths=lengths)(x, None, w)
    turned = np.swapaxes(x, 0, 1).copy()
    for j, length in enumerate(lengths):
        turned[j, length:] = np.nan
    found = values(lambda x, w: layer(x, None, w), (turned, w), "d")
    assert_near(found, (np.swapaxes(outputs, 0, 1), end))
    loss = lambda x, w: np.sum(layer(x, None, w)[0] ** 2)
    by_x, by_w = graphjit.grad(loss, argnums=(0, 1))(turned, w)
    expected = graphjit.grad(loss, argnums=(0, 1))(np.swapaxes(x, 0, 1), w)
    assert_near((by_x, by_w), expected, 10)
    assert not np.any(by_x[1, 1:])


def test_lengths_may_be_traced() -> None:
    w, x = weights("gru", 3, 2, True), RNG.normal(size=(5, 2, 3))
    compiled = graphjit.jit(lambda x, lengths: nn.gru(x, None, *w, lengths=lengths))
    for lengths in (np.array([2, 5]), np.array([4, 1])):
        assert_near(compiled(x, lengths), nn.gru(x, None, *w, lengths=lengths), 4)


def test_what_does_not_fit_is_an_error() -> None:
    x, w = np.ones((5, 4, 3)), weights("lstm", 3, 2, True)
    cases: list[tuple[Any, str]] = [
        (lambda: nn.lstm(x[0], None, *w), r"lstm: x has shape \(4, 3\)"),
        (lambda: nn.gru(x, None, *w), r"gru: w_hh has shape \(8, 2\), not \(3 \* hidden, hidden\)"),
        (lambda: nn.lstm(x[..., :2], None, *w), r"w_ih has shape \(8, 3\), for x of shape"),
        (lambda: nn.lstm(x, None, *w[:3], np.ones(2)), r"b_hh has shape \(2,\)"),
        (lambda: nn.lstm(x, None, *w, lengths=np.ones(5, int)), r"lengths have shape \(5,\)"),
        (lambda: nn.lstm(x, (x[0], x[0]), *w), r"lstm: a state has shape \(4, 3\), .* it is \(..., 2\)"),
        (lambda: nn.rnn_cell(x, x[..., :2], np.eye(3), np.eye(3)), "rnn_cell: a state has shape"),
        (lambda: nn.rnn_cell(x, x, np.eye(3), np.eye(3), nonlinearity="sin"), "rnn_cell: nonlinearity is"),
        (lambda: nn.rnn(x, None, np.eye(3), np.eye(3), nonlinearity="sin"), "rnn: nonlinearity is"),
    ]
    for call, said in cases:
        with pytest.raises(graphjit.ShapeError, match=said):
            call()
