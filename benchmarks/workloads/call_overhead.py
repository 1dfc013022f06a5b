"""Calls whose work is next to nothing, so that what is measured is the way in and out.

`scalar`: derivative of a function of one Python number. `vector8`: gradient of a function of one 8-vector, an
8-vector. `pytree6` and `pytree60`: the gradient of a function of a dict of lists of 6 or 60 small arrays, the
same tree.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload


def make_scalar(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        return x * np.sin(x)

    return f


def scalar_inputs(seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (float(numpy.random.default_rng(seed).normal()),)


def torch_scalar(torch: Any, x: Any) -> Any:
    return x * torch.sin(x)


def make_vector(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        return np.sum(x * x)

    return f


def vector_inputs(seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (numpy.random.default_rng(seed).normal(size=8).astype(dtype),)


def torch_vector(torch: Any, x: Any) -> Any:
    return torch.sum(x * x)


def make_pytree(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(tree: Any) -> Any:
        total = 0.0
        for weights, bias in zip(tree["weights"], tree["biases"], strict=True):
            total = total + np.sum(weights * weights) + np.sum(bias * bias)
        return total

    return f


def pytree_inputs(leaves: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return (
        {
            "weights": [rng.normal(size=(3, 4)).astype(dtype) for _ in range(leaves // 2)],
            "biases": [rng.normal(size=4).astype(dtype) for _ in range(leaves // 2)],
        },
    )


def torch_pytree(torch: Any, tree: Any) -> Any:
    return sum(torch.sum(leaf * leaf) for leaf in [*tree["weights"], *tree["biases"]])


def _workload(name: str, make: Any, inputs: Any, torch: Any, numba: str | None = None) -> Workload:
    return Workload(
        name,
        make,
        inputs,
        transform="grad",
        family="call_overhead",
        suites=("full", "quick", "test"),
        torch=torch,
        numba=numba,
        pytensor=True,
    )


WORKLOADS = (
    _workload("scalar", make_scalar, scalar_inputs, torch_scalar, "scalar"),
    _workload("vector8", make_vector, vector_inputs, torch_vector, "vector8"),
    _workload("pytree6", make_pytree, partial(pytree_inputs, 6), torch_pytree),
    _workload("pytree60", make_pytree, partial(pytree_inputs, 60), torch_pytree),
)
