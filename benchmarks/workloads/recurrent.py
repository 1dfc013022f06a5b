"""Recurrent networks (tanh, LSTM, GRU) over a sequence: value and gradient of the mean squared error of a
number read off every state, with respect to all parameters. The unrolled LSTM runs in a plain Python loop.

Gates stand in PyTorch's order. The input has as many numbers as the state; without a batch both are vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, FULL, TEST, UNROLLED, Namespace, Pytree, Workload, label

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
Cell = Callable[[Any, Any, Any], Any]


def rnn_cell(ns: Namespace) -> Cell:
    def cell(p: Any, h: Any, x: Any) -> Any:
        return ns.np.tanh(x @ p["w"] + h @ p["u"] + p["b"])

    return cell


def lstm_cell(ns: Namespace) -> Cell:
    np, sigmoid = ns.np, ns.special.expit

    def cell(p: Any, state: Any, x: Any) -> Any:
        h, c = state
        i, f, g, o = np.split(x @ p["w"] + h @ p["u"] + p["b"], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return cell


def gru_cell(ns: Namespace) -> Cell:
    np, sigmoid = ns.np, ns.special.expit

    def cell(p: Any, h: Any, x: Any) -> Any:
        from_x, from_h = x @ p["w"] + p["b"], h @ p["u"] + p["c"]
        (r, z, n), (hr, hz, hn) = np.split(from_x, 3, axis=-1), np.split(from_h, 3, axis=-1)
        update = sigmoid(z + hz)
        return (1.0 - update) * np.tanh(n + sigmoid(r + hr) * hn) + update * h

    return cell


CELLS = {"rnn": rnn_cell, "lstm": lstm_cell, "gru": gru_cell}


def make(kind: str, ns: Namespace) -> Callable[..., Any]:
    np, cell = ns.np, CELLS[kind](ns)

    def f(params: Any, x: Any, y: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            state = cell(params, state, row)
            return state, state[0] if kind == "lstm" else state

        rest = np.zeros(x.shape[1:], x.dtype)
        _, states = ns.loops.scan(step, (rest, rest) if kind == "lstm" else rest, x)
        return np.mean((states @ params["v"] - y) ** 2)

    return f


def torch_states(kind: str, torch: Any, params: Any, x: Any) -> Any:
    """All states, by PyTorch's own recurrent layer; `x` with a batch."""
    bias = params["b"]
    weights = (params["w"].T, params["u"].T, bias, params.get("c", torch.zeros_like(bias)))
    rest = torch.zeros((1, *x.shape[1:]), dtype=x.dtype)
    start = (rest, rest) if kind == "lstm" else rest
    run = getattr(torch, "rnn_tanh" if kind == "rnn" else kind)
    # with biases, one layer, no dropout, to be differentiated, one direction, time first
    return run(x, start, weights, True, 1, 0.0, True, False, False)[0]


def torch_port(kind: str, torch: Any, params: Any, x: Any, y: Any) -> Any:
    states = torch_states(kind, torch, params, x.reshape(len(x), -1, x.shape[-1]))
    return torch.mean((states.reshape(x.shape) @ params["v"] - y) ** 2)


def parameters(kind: str, size: int, rng: numpy.random.Generator, dtype: str) -> dict[str, numpy.ndarray]:
    width = GATES[kind] * size
    params = {
        "w": rng.normal(size=(size, width)) / numpy.sqrt(size),
        "u": rng.normal(size=(size, width)) / numpy.sqrt(size),
        "b": 0.1 * rng.normal(size=width),
    }
    if kind == "gru":
        params["c"] = 0.1 * rng.normal(size=width)
    return {key: array.astype(dtype) for key, array in params.items()}


def inputs(kind: str, size: int, steps: int, batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    params = parameters(kind, size, rng, dtype)
    params["v"] = (rng.normal(size=size) / numpy.sqrt(size)).astype(dtype)
    examples = (batch,) if batch > 1 else ()
    x = rng.normal(size=(steps, *examples, size)).astype(dtype)
    return params, x, rng.normal(size=(steps, *examples)).astype(dtype)


TOO_SLOW = "its compiler unrolls the loop and takes more than a minute"
"""Why torch.compile is not asked."""


def operations(kind: str, size: int) -> float:
    """Additions and multiplications of one step forward and backward, for one example."""
    return GATES[kind] * size * (10 * size + ELEMENTARY)


def _workload(kind: str, size: int, steps: int, batch: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"{kind}_{size}x{label(steps)}x{batch}",
        partial(make, kind),
        partial(inputs, kind, size, steps, batch),
        dtypes=("float64", "float32"),
        family=kind,
        size=operations(kind, size) * steps * batch,
        suites=suites,
        torch=partial(torch_port, kind),
        absent={"torch.compile": TOO_SLOW},
        native="rnn" if kind == "rnn" else None,
        flops=operations(kind, size) * steps * batch,
    )


def make_unrolled(ns: Namespace) -> Callable[..., Any]:
    np, cell = ns.np, lstm_cell(ns)

    def f(layers: Any, x: Any) -> Any:
        states = [(np.zeros(x.shape[1:], x.dtype),) * 2 for _ in layers]
        for row in x:
            for index, params in enumerate(layers):
                states[index] = cell(params, states[index], row)
                row = states[index][0]
        return np.mean(states[-1][0] ** 2)

    return f


def make_scanned(ns: Namespace) -> Callable[..., Any]:
    """`make_unrolled` by JAX's own loop, since its compiler takes minutes for a thousand steps."""
    np, cell = ns.np, lstm_cell(ns)

    def f(layers: Any, x: Any) -> Any:
        def step(states: Any, row: Any) -> Any:
            new = []
            for params, state in zip(layers, states):
                new.append(cell(params, state, row))
                row = new[-1][0]
            return new, None

        rest = np.zeros(x.shape[1:], x.dtype)
        states, _ = ns.loops.scan(step, [(rest, rest) for _ in layers], x)
        return np.mean(states[-1][0] ** 2)

    return f


def torch_layers(torch: Any, layers: Any, x: Any) -> Any:
    x = x[:, None]
    for params in layers:
        x = torch_states("lstm", torch, params, x)
    return torch.mean(x[-1] ** 2)


def unrolled_inputs(size: int, steps: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    layers = [parameters("lstm", size, rng, dtype) for _ in range(2)]
    return layers, rng.normal(size=(steps, size)).astype(dtype)


def _unrolled(size: int, steps: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"lstm_unrolled_2x{steps}",
        make_unrolled,
        partial(unrolled_inputs, size, steps),
        family="lstm_unrolled",
        size=steps,
        suites=suites,
        torch=torch_layers,
        jax=make_scanned,
        absent={"torch.compile": TOO_SLOW},
        flops=2 * steps * operations("lstm", size),
    )


WORKLOADS = (
    _workload("rnn", 3, 7, 1, TEST),
    _workload("rnn", 5, 6, 3, TEST),
    _workload("rnn", 8, 1_000, 1, BOTH),
    _workload("rnn", 32, 1_000, 1, BOTH),
    _workload("rnn", 32, 1_000, 32, FULL),
    _workload("lstm", 3, 7, 1, TEST),
    _workload("lstm", 5, 6, 2, TEST),
    _workload("lstm", 32, 1_000, 1, BOTH),
    _workload("lstm", 128, 100, 32, FULL),
    _workload("gru", 3, 7, 1, TEST),
    _workload("gru", 5, 6, 2, TEST),
    _workload("gru", 32, 1_000, 1, BOTH),
    _unrolled(3, 5, TEST),
    _unrolled(32, 16, BOTH),
    _unrolled(32, 1_024, UNROLLED),
)
