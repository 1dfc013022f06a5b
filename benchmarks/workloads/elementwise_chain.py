"""Forty elementwise operations in a row: what fusion is for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any, y: Any) -> Any:
        t = x
        for _ in range(10):
            t = t + 0.1 * np.tanh(t * y)
        return np.sum(t)

    return f


def torch_port(torch: Any, x: Any, y: Any) -> Any:
    t = x
    for _ in range(10):
        t = t + 0.1 * torch.tanh(t * y)
    return torch.sum(t)


def inputs(size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return rng.normal(size=size).astype(dtype), rng.normal(size=size).astype(dtype)


WORKLOADS = (
    Workload(
        "elementwise_chain",
        make,
        partial(inputs, 200_000),
        argnums=(0, 1),
        torch=torch_port,
        native="elementwise_chain",
    ),
)
