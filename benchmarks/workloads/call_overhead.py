"""Calls whose work is next to nothing, so that what is measured is the way in and out.

`vector8`: gradient of a function of one 8-vector, an 8-vector. `pytree6`: the gradient of a function of a dict
of lists of six small arrays, the same tree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload


def make_vector8(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        return np.sum(x * x)

    return f


def vector8_inputs(seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (numpy.random.default_rng(seed).normal(size=8).astype(dtype),)


def torch_vector8(torch: Any, x: Any) -> Any:
    return torch.sum(x * x)


def make_pytree6(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(tree: Any) -> Any:
        total = 0.0
        for weights, bias in zip(tree["weights"], tree["biases"], strict=True):
            total = total + np.sum(weights * weights) + np.sum(bias * bias)
        return total

    return f


def pytree6_inputs(seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return (
        {
            "weights": [rng.normal(size=(3, 4)).astype(dtype) for _ in range(3)],
            "biases": [rng.normal(size=4).astype(dtype) for _ in range(3)],
        },
    )


def torch_pytree6(torch: Any, tree: Any) -> Any:
    return sum(torch.sum(leaf * leaf) for leaf in [*tree["weights"], *tree["biases"]])


WORKLOADS = (
    Workload("vector8", make_vector8, vector8_inputs, with_value=False, torch=torch_vector8),
    Workload("pytree6", make_pytree6, pytree6_inputs, with_value=False, torch=torch_pytree6),
)
