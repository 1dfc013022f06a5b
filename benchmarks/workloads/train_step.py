"""One whole step of training as one function: loss, gradient of all parameters, Adam's update of them.

Formula: D. P. Kingma, J. Ba, 2015, with the bias corrections computed from the step's number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, TEST, Namespace, Pytree, Workload
from benchmarks.workloads import mlp

RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


def adam(
    sqrt: Callable[[Any], Any], number: Any, params: Any, m: Any, v: Any, gradients: Any
) -> tuple[Any, Any, Any]:
    """New parameters and moments, all of them dicts of lists."""
    correction1, correction2 = 1.0 - BETA1**number, 1.0 - BETA2**number
    new: tuple[Any, Any, Any] = ({}, {}, {})
    for key in ("weights", "biases"):
        rows = []
        for p, first, second, g in zip(params[key], m[key], v[key], gradients[key], strict=True):
            first = BETA1 * first + (1.0 - BETA1) * g
            second = BETA2 * second + (1.0 - BETA2) * g * g
            p = p - RATE * (first / correction1) / (sqrt(second / correction2) + EPSILON)
            rows.append((p, first, second))
        for tree, column in zip(new, zip(*rows, strict=True), strict=True):
            tree[key] = list(column)
    return new


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np
    loss = mlp.make_classifier("relu", ns)

    def step(params: Any, m: Any, v: Any, number: Any, x: Any, y: Any) -> Any:
        value, gradients = ns.transforms.value_and_grad(loss)(params, x, y)
        return (value, *adam(np.sqrt, number, params, m, v, gradients))

    return step


def torch_port(torch: Any, params: Any, m: Any, v: Any, number: Any, x: Any, y: Any) -> Any:
    loss = partial(mlp.torch_classifier, "relu", torch)
    gradients, value = torch.func.grad_and_value(loss)(params, x, y)
    return (value, *adam(torch.sqrt, number, params, m, v, gradients))


def inputs(sizes: tuple[int, ...], batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    params, x, y = mlp.inputs(sizes, batch, seed, dtype)
    rng = numpy.random.default_rng(seed + 1)
    moments = [
        {
            key: [scale * rng.uniform(0.5, 1.0, leaf.shape).astype(dtype) for leaf in leaves]
            for key, leaves in params.items()
        }
        for scale in (1e-3, 1e-5)
    ]
    return params, *moments, numpy.array(10.0, dtype), x, y


def _workload(sizes: tuple[int, ...], batch: int, suites: Sequence[str]) -> Workload:
    return Workload(
        "train_step_" + "_".join(map(str, sizes)),
        make,
        partial(inputs, sizes, batch),
        transform="jit",
        dtypes=("float64", "float32"),
        family="train_step",
        size=mlp.products(sizes, batch),
        suites=suites,
        torch=torch_port,
        flops=mlp.products(sizes, batch),
        same_as=mlp.KINKS,
    )


WORKLOADS = (
    _workload((5, 7, 3), 6, TEST),
    _workload((16, 32, 32, 4), 32, BOTH),
    _workload((784, 128, 10), 256, BOTH),
    _workload((784, 512, 512, 10), 1024, FULL),
)
