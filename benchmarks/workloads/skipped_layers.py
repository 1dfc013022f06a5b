"""A deep residual network of which most layers are skipped: one loop over the layers with a branch in it,
value and gradient with respect to all weights. Who computes both sides of the branch pays for every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, TEST, Namespace, Pytree, Workload

KEPT = 0.2


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(weights: Any, x: Any, kept: Any) -> Any:
        def step(x: Any, layer: Any) -> Any:
            matrix, used = layer
            return ns.loops.cond(used, lambda x: x + np.tanh(x @ matrix), lambda x: x, x), None

        x, _ = ns.loops.scan(step, x, (weights, kept))
        return np.mean(x**2)

    return f


def torch_port(torch: Any, weights: Any, x: Any, kept: Any) -> Any:
    for matrix, used in zip(weights, kept):
        if used:
            x = x + torch.tanh(x @ matrix)
    return torch.mean(x**2)


def inputs(layers: int, size: int, batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    weights = rng.normal(size=(layers, size, size)) / size
    x = rng.normal(size=(batch, size))
    kept = rng.uniform(size=layers) < KEPT
    kept[0] = True
    return weights.astype(dtype), x.astype(dtype), kept


def _workload(layers: int, size: int, batch: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"skipped_layers_{layers}x{size}",
        make,
        partial(inputs, layers, size, batch),
        family="skipped_layers",
        size=layers,
        suites=suites,
        torch=torch_port,
        flops=KEPT * layers * batch * size * (6 * size + ELEMENTARY),
    )


WORKLOADS = (_workload(6, 3, 2, TEST), _workload(200, 32, 32, BOTH))
