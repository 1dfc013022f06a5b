"""Whole training steps of networks (loss, all gradients, AdamW), in float32: LeNet, an LSTM, a block of a
Transformer, an embedding, a layer of a million weights. And single layers that learn: batch norm, dropout.

The functions are written with `graphjit.nn`, in JAX with its own operations, in PyTorch with its layers,
which run on views of the same memory. The update is one formula everywhere.
Sources: I. Loshchilov, F. Hutter, 2019 (AdamW); A. Vaswani et al., 2017, in the order of R. Xiong et al.,
2020 (layer norm first); S. Ioffe, C. Szegedy, 2015 (batch norm); N. Srivastava et al., 2014 (dropout).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy

from benchmarks.workload import BOTH, TEST, Namespace, Pytree, Workload
from benchmarks.workloads import convolutions
from benchmarks.workloads.convolutions import Layers, draw
from benchmarks.workloads.recurrent import lstm_cell
from benchmarks.workloads.train_step import BETA1, BETA2, EPSILON, RATE

DECAY, HEADS = 1e-2, 4


class Library(NamedTuple):
    """What the networks here consist of, in one library."""

    layers: Layers
    value_and_grad: Callable[..., Any]
    """By the first argument."""
    attention: Callable[..., Any]
    """Causal, of (..., length, width)."""
    batch_norm: Callable[..., Any]
    """Of channels that come last, with the statistics of the batch."""
    dropout: Callable[[Any, Any], Any]
    """(number of the step, x): half of the elements, doubled."""
    lstm: Callable[[Mapping[str, Any], Any], Any]
    """Outputs of (time, batch, features), from zeros."""
    rows: Callable[[Any, Any], Any]
    """Rows of a table."""


def of_graphjit(ns: Namespace) -> Library:
    """`graphjit.nn` and `graphjit.random`, which are plain NumPy."""
    nn, random = importlib.import_module("graphjit.nn"), importlib.import_module("graphjit.random")

    def batch_norm(x: Any, weight: Any, bias: Any) -> Any:
        zero = numpy.zeros(x.shape[-1], x.dtype)
        return nn.batch_norm(x, zero, zero, weight, bias, training=True)[0]

    return Library(
        convolutions.of_graphjit(ns),
        ns.transforms.value_and_grad,
        partial(nn.scaled_dot_product_attention, is_causal=True),
        batch_norm,
        lambda number, x: nn.dropout(random.key(number), x, 0.5),
        lambda p, x: nn.lstm(x, None, p["w"].T, p["u"].T, p["b"])[0],
        lambda table, places: nn.embedding(places, table),
    )


def of_jax(ns: Namespace) -> Library:
    """JAX: `jax.nn`, `jax.random`, a scan for the recurrence."""
    jax, np = importlib.import_module("jax"), ns.np

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        later = np.triu(np.ones(scores.shape[-2:], bool), 1)
        return jax.nn.softmax(np.where(later, -np.inf, scores)) @ v

    def batch_norm(x: Any, weight: Any, bias: Any) -> Any:
        axes = tuple(range(x.ndim - 1))
        mean = np.mean(x, axes)
        return (x - mean) / np.sqrt(np.mean((x - mean) ** 2, axes) + 1e-5) * weight + bias

    def dropout(number: Any, x: Any) -> Any:
        kept = jax.random.bernoulli(jax.random.PRNGKey(number), 0.5, x.shape)
        return np.where(kept, x * 2, 0)

    def lstm(p: Mapping[str, Any], x: Any) -> Any:
        cell = lstm_cell(ns)

        def step(state: Any, row: Any) -> Any:
            state = cell(p, state, row)
            return state, state[0]

        rest = np.zeros((x.shape[1], p["u"].shape[0]), x.dtype)
        return ns.loops.scan(step, (rest, rest), x)[1]

    return Library(
        convolutions.of_jax(ns),
        ns.transforms.value_and_grad,
        attention,
        batch_norm,
        dropout,
        lstm,
        lambda table, places: table[places],
    )


def of_torch(torch: Any) -> Library:
    """PyTorch's layers."""
    functional = torch.nn.functional

    def value_and_grad(loss: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: torch.func.grad_and_value(loss)(*args)[::-1]

    def batch_norm(x: Any, weight: Any, bias: Any) -> Any:
        last = functional.batch_norm(x.movedim(-1, 1), None, None, weight, bias, training=True)
        return last.movedim(1, -1)

    def lstm(p: Mapping[str, Any], x: Any) -> Any:
        rest = torch.zeros((1, x.shape[1], p["u"].shape[0]), dtype=x.dtype)
        weights = (p["w"].T, p["u"].T, p["b"], torch.zeros_like(p["b"]))
        return torch.lstm(x, (rest, rest), weights, True, 1, 0.0, True, False, False)[0]

    return Library(
        convolutions.of_torch(torch),
        value_and_grad,
        partial(functional.scaled_dot_product_attention, is_causal=True),
        batch_norm,
        lambda number, x: functional.dropout(x, 0.5),
        lstm,
        lambda table, places: functional.embedding(places, table),
    )


# ---------------------------------------------------------------------------------------------------- losses


def lenet(lib: Library, params: Mapping[str, Any], x: Any, labels: Any) -> Any:
    return convolutions.lenet(lib.layers, params, x, labels)


def lstm(lib: Library, params: Mapping[str, Any], x: Any, y: Any) -> Any:
    return ((lib.lstm(params, x) @ params["out"] - y) ** 2).mean()


def transformer(lib: Library, params: Mapping[str, Any], x: Any, y: Any) -> Any:
    """One block: attention of several heads, and a network of two layers, each on what a norm leaves."""
    batch, length, width = x.shape
    norm, gelu = lib.layers.norm, lib.layers.gelu

    def heads(h: Any) -> Any:
        h = h.reshape((batch, length, HEADS, width // HEADS))
        return lib.layers.np.swapaxes(h, 1, 2)

    h = norm(x, params["scale1"], params["shift1"])
    q, k, v = (heads(h @ params[name]) for name in ("q", "k", "v"))
    mixed = lib.layers.np.swapaxes(lib.attention(q, k, v), 1, 2).reshape((batch, length, width))
    x = x + mixed @ params["o"]
    h = norm(x, params["scale2"], params["shift2"])
    x = x + gelu(h @ params["wide"]) @ params["narrow"]
    return ((x - y) ** 2).mean()


def embedding(lib: Library, params: Mapping[str, Any], places: Any, y: Any) -> Any:
    return ((lib.rows(params["table"], places) @ params["out"] - y) ** 2).mean()


def linear(lib: Library, params: Mapping[str, Any], x: Any, y: Any) -> Any:
    return ((x @ params["w"] - y) ** 2).mean()


def adamw(lib: Library, number: Any, params: Any, m: Any, v: Any, gradients: Any) -> tuple[Any, Any, Any]:
    """New parameters and moments."""
    correction1, correction2 = 1.0 - BETA1**number, 1.0 - BETA2**number
    new: tuple[Any, Any, Any] = ({}, {}, {})
    for key, p in params.items():
        g = gradients[key]
        first = BETA1 * m[key] + (1.0 - BETA1) * g
        second = BETA2 * v[key] + (1.0 - BETA2) * g * g
        change = (first / correction1) / (lib.layers.np.sqrt(second / correction2) + EPSILON) + DECAY * p
        for tree, leaf in zip(new, (p - RATE * change, first, second), strict=True):
            tree[key] = leaf
    return new


def step(loss: Any, lib: Library, params: Any, m: Any, v: Any, number: Any, *data: Any) -> Any:
    """The value of the loss, and what becomes of parameters and moments."""
    value, gradients = lib.value_and_grad(partial(loss, lib))(params, *data)
    return (value, *adamw(lib, number, params, m, v, gradients))


def batch_norm(lib: Library, x: Any, weight: Any, bias: Any, y: Any) -> Any:
    return (lib.batch_norm(x, weight, bias) * y).mean()


def dropout(lib: Library, x: Any, number: Any) -> Any:
    """Means of squares of what is left and of the gradient: each library draws other numbers."""

    def loss(x: Any) -> Any:
        return (lib.dropout(number, x) ** 2).sum()

    value, gradient = lib.value_and_grad(loss)(x)
    return value / math.prod(x.shape), (gradient * gradient).mean()


# ---------------------------------------------------------------------------------------------------- inputs


def _with_moments(rng: Any, dtype: str, params: dict[str, Any]) -> tuple[Pytree, ...]:
    moments = [
        {key: (scale * rng.uniform(0.5, 1.0, leaf.shape)).astype(dtype) for key, leaf in params.items()}
        for scale in (1e-3, 1e-5)
    ]
    return params, *moments, numpy.array(10.0, dtype)


def lenet_inputs(batch: int, size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    params, *data = convolutions.lenet_inputs(batch, size, seed, dtype)
    return (*_with_moments(numpy.random.default_rng(seed + 1), dtype, params), *data)


def lstm_inputs(sizes: tuple[int, int, int, int], seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng, (time, batch, features, hidden) = numpy.random.default_rng(seed), sizes
    shapes = {"w": (features, 4 * hidden), "u": (hidden, 4 * hidden), "b": (4 * hidden,), "out": (hidden, 1)}
    params = {name: draw(rng, dtype, *shape) for name, shape in shapes.items()}
    data = rng.normal(size=(time, batch, features)).astype(dtype), draw(rng, dtype, time, batch, 1)
    return (*_with_moments(rng, dtype, params), *data)


def transformer_inputs(sizes: tuple[int, int, int], seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng, width = numpy.random.default_rng(seed), sizes[-1]
    shapes = dict.fromkeys("qkvo", (width, width)) | {
        "wide": (width, 4 * width),
        "narrow": (4 * width, width),
    }
    params = {name: draw(rng, dtype, *shape) for name, shape in shapes.items()}
    params |= {name: rng.uniform(0.5, 1.5, width).astype(dtype) for name in ("scale1", "scale2")}
    params |= {name: draw(rng, dtype, width) for name in ("shift1", "shift2")}
    data = [rng.normal(size=sizes).astype(dtype) for _ in range(2)]
    return (*_with_moments(rng, dtype, params), *data)


def embedding_inputs(rows: int, width: int, count: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    params = {"table": rng.normal(size=(rows, width)).astype(dtype), "out": draw(rng, dtype, width, 8)}
    data = rng.integers(0, rows, count), rng.normal(size=(count, 8)).astype(dtype)
    return (*_with_moments(rng, dtype, params), *data)


def linear_inputs(n: int, batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    data = [rng.normal(size=(batch, n)).astype(dtype) for _ in range(2)]
    return (*_with_moments(rng, dtype, {"w": draw(rng, dtype, n, n)}), *data)


def norm_inputs(images: tuple[int, ...], seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    shapes = (images, images[-1:], images[-1:], images)
    x, weight, bias, y = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    return x, weight, bias, y


def dropout_inputs(n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    return numpy.random.default_rng(seed).normal(size=n).astype(dtype), numpy.array(seed)


# ------------------------------------------------------------------------------------------------- workloads


def of(ns: Namespace) -> Library:
    """The parts from the library whose namespace is given."""
    return of_jax(ns) if ns.np.__name__ == "jax.numpy" else of_graphjit(ns)


def _workload(
    name: str,
    function: Any,
    inputs: Any,
    suites: Sequence[str],
    flops: float = 0.0,
    argnums: tuple[int, ...] | None = None,
    same_as: Mapping[str, float] | None = None,
) -> Workload:
    """A workload; without ``argnums`` the function takes its gradients itself."""

    def make(ns: Namespace) -> Callable[..., Any]:
        return partial(function, of(ns))

    return Workload(
        name,
        make,
        inputs,
        argnums=0 if argnums is None else argnums,
        transform="jit" if argnums is None else "value_and_grad",
        dtypes=("float64", "float32") if suites == TEST else ("float32",),
        family=name.rsplit("_", 1)[0],
        suites=suites,
        torch=lambda torch, *arguments: function(of_torch(torch), *arguments),
        absent={"autograd": "the update needs a mode that returns the value too"},
        flops=flops,
        same_as={"float32": 1e-3} if same_as is None else same_as,
    )


def _step(name: str, loss: Any, inputs: Any, suites: Sequence[str], flops: float) -> Workload:
    return _workload(name, partial(step, loss), inputs, suites, flops)


def _lstm(time: int, batch: int, features: int, hidden: int, suites: Sequence[str]) -> Workload:
    flops = 6.0 * time * batch * 4 * hidden * (features + hidden)
    inputs = partial(lstm_inputs, (time, batch, features, hidden))
    return _step(f"lstm_step_{hidden}", lstm, inputs, suites, flops)


def _transformer(batch: int, length: int, width: int, suites: Sequence[str]) -> Workload:
    flops = 6.0 * batch * length * (12 * width * width + length * width)
    inputs = partial(transformer_inputs, (batch, length, width))
    return _step(f"transformer_step_{length}", transformer, inputs, suites, flops)


def _dropout(n: int, suites: Sequence[str]) -> Workload:
    same = {dtype: 8.0 / math.sqrt(n) for dtype in ("float32", "float64")}
    return _workload(f"dropout_{n}", dropout, partial(dropout_inputs, n), suites, same_as=same)


def _norm(images: tuple[int, ...], suites: Sequence[str]) -> Workload:
    name = f"batch_norm_{images[-1]}"
    return _workload(name, batch_norm, partial(norm_inputs, images), suites, argnums=(0, 1, 2))


WORKLOADS = (
    _step("lenet_step_test", lenet, partial(lenet_inputs, 3, 8), TEST, 0.0),
    _lstm(5, 3, 4, 6, TEST),
    _transformer(2, 5, 8, TEST),
    _step("embedding_step_test", embedding, partial(embedding_inputs, 9, 5, 12), TEST, 0.0),
    _step("adamw_step_test", linear, partial(linear_inputs, 7, 3), TEST, 0.0),
    _norm((2, 5, 6, 3), TEST),
    _dropout(1000, TEST),
    _step("lenet_step_64x28", lenet, partial(lenet_inputs, 64, 28), BOTH, 0.0),
    _lstm(50, 32, 64, 128, BOTH),
    _transformer(8, 128, 256, BOTH),
    _step("embedding_step_1e4x64", embedding, partial(embedding_inputs, 10_000, 64, 1024), BOTH, 0.0),
    _step("adamw_step_1e6", linear, partial(linear_inputs, 1000, 4), BOTH, 0.0),
    _norm((32, 28, 28, 64), BOTH),
    _dropout(1_000_000, BOTH),
)
