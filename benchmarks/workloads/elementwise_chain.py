"""Forty elementwise operations in a row: what fusion is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload, label


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


def _workload(size: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"elementwise_chain_{label(size)}",
        make,
        partial(inputs, size),
        argnums=(0, 1),
        family="elementwise_chain",
        size=size,
        suites=suites,
        torch=torch_port,
        native="elementwise_chain",
        numba="elementwise_chain",
        pytensor=True,
        # A turn is a tanh and three operations forward, and seven more backward.
        flops=size * 10 * (ELEMENTARY + 10),
    )


WORKLOADS = (
    _workload(83, TEST),
    _workload(1_000, BOTH),
    _workload(100_000, ("full", "quick", "spine")),
    _workload(5_000_000, FULL),
)
