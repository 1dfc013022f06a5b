"""Hessian-vector product of a network's loss in all of its parameters: forward mode over reverse mode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy

from benchmarks.workload import BOTH, TEST, Pytree, Workload
from benchmarks.workloads import mlp


def inputs(sizes: tuple[int, ...], batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    params, x, y = mlp.inputs(sizes, batch, seed, dtype)
    rng = numpy.random.default_rng(seed + 1)
    direction = {
        key: [rng.normal(size=leaf.shape).astype(dtype) for leaf in leaves] for key, leaves in params.items()
    }
    return params, direction, x, y


def _workload(sizes: tuple[int, ...], batch: int, activation: str, suites: Sequence[str]) -> Workload:
    return Workload(
        "hvp_mlp_" + "_".join(map(str, sizes)),
        partial(mlp.make_classifier, activation),
        partial(inputs, sizes, batch),
        transform="hvp",
        family="hvp_mlp",
        size=mlp.products(sizes, batch),
        suites=suites,
        torch=partial(mlp.torch_classifier, activation),
        # Every product of the gradient, and its derivative in each of two factors where both of them move.
        flops=2 * mlp.products(sizes, batch),
    )


WORKLOADS = (
    _workload((5, 7, 3), 6, "tanh", TEST),
    _workload((16, 32, 32, 4), 32, "tanh", BOTH),
    _workload((784, 128, 10), 256, "relu", BOTH),
)
