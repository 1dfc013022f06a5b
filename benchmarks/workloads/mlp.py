"""Fully connected networks: value and gradient of the training loss with respect to all parameters.

Parameters are a dict of lists. Networks with several outputs end in softmax cross-entropy against one-hot
labels; the 2-3-1 network ends in a sigmoid and a mean squared error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import FULL, TEST, Namespace, Pytree, Workload


def make_classifier(activation: str, ns: Namespace) -> Callable[..., Any]:
    np, special = ns.np, ns.special

    def f(params: Any, x: Any, y: Any) -> Any:
        *hidden, last = zip(params["weights"], params["biases"], strict=True)
        h = x
        for weights, bias in hidden:
            z = h @ weights + bias
            h = np.tanh(z) if activation == "tanh" else np.maximum(z, 0.0)
        logits = h @ last[0] + last[1]
        return np.mean(special.logsumexp(logits, axis=1) - np.sum(y * logits, axis=1))

    return f


def torch_classifier(activation: str, torch: Any, params: Any, x: Any, y: Any) -> Any:
    functional = torch.nn.functional
    *hidden, last = zip(params["weights"], params["biases"], strict=True)
    h = x
    for weights, bias in hidden:
        z = torch.addmm(bias, h, weights)
        h = torch.tanh(z) if activation == "tanh" else torch.relu(z)
    return functional.cross_entropy(torch.addmm(last[1], h, last[0]), y)


def make_regressor(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(params: Any, x: Any, y: Any) -> Any:
        (w0, w1), (b0, b1) = params["weights"], params["biases"]
        h = np.maximum(x @ w0 + b0, 0.0)
        out = 1.0 / (1.0 + np.exp(-(h @ w1 + b1)))
        return np.mean((out - y) ** 2)

    return f


def torch_regressor(torch: Any, params: Any, x: Any, y: Any) -> Any:
    (w0, w1), (b0, b1) = params["weights"], params["biases"]
    h = torch.relu(torch.addmm(b0, x, w0))
    return torch.nn.functional.mse_loss(torch.sigmoid(torch.addmm(b1, h, w1)), y)


def inputs(sizes: tuple[int, ...], batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    pairs = list(itertools.pairwise(sizes))
    params = {
        "weights": [(rng.normal(size=pair) / numpy.sqrt(pair[0])).astype(dtype) for pair in pairs],
        "biases": [(0.1 * rng.normal(size=pair[1])).astype(dtype) for pair in pairs],
    }
    x = rng.normal(size=(batch, sizes[0])).astype(dtype)
    if sizes[-1] == 1:
        return params, x, rng.uniform(size=(batch, 1)).astype(dtype)
    return params, x, numpy.eye(sizes[-1], dtype=dtype)[rng.integers(sizes[-1], size=batch)]


def products(sizes: Sequence[int], batch: int) -> float:
    """Additions and multiplications of the matrix products of forward and backward pass; the first layer's
    input needs no gradient.
    """
    pairs = [a * b for a, b in itertools.pairwise(sizes)]
    return 2.0 * batch * (3 * sum(pairs) - pairs[0])


KINKS = {"float32": 2e-3}
"""Among a million of relu's inputs some lie so close to zero that libraries round them to different sides:
one unit of one sample then counts or does not.
"""


def _workload(sizes: tuple[int, ...], batch: int, activation: str, suites: Sequence[str]) -> Workload:
    name = "mlp_" + "_".join(map(str, sizes))
    regressor = sizes[-1] == 1
    return Workload(
        name,
        make_regressor if regressor else partial(make_classifier, activation),
        partial(inputs, sizes, batch),
        dtypes=("float64", "float32"),
        family="mlp",
        size=products(sizes, batch),
        suites=suites,
        torch=torch_regressor if regressor else partial(torch_classifier, activation),
        native="mlp_16_32_32_4" if sizes == (16, 32, 32, 4) else None,
        pytensor=True,
        flops=products(sizes, batch),
        same_as=KINKS if activation == "relu" else {},
    )


WORKLOADS = (
    _workload((2, 3, 1), 4, "relu", ("full", "quick", "test", "spine")),
    _workload((5, 7, 3), 6, "tanh", TEST),
    _workload((16, 32, 32, 4), 32, "tanh", ("full", "quick", "spine")),
    _workload((784, 128, 10), 256, "relu", ("full", "quick", "spine")),
    _workload((784, 512, 512, 10), 1024, "relu", FULL),
)
