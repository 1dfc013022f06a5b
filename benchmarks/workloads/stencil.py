"""Explicit heat steps on a grid, zero outside, with a conductivity field: differentiated with respect to both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload

SWEEPS = 10


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(u: Any, c: Any) -> Any:
        for _ in range(SWEEPS):
            p = np.pad(u, 1, mode="constant")
            u = u + c * (p[1:-1, 2:] + p[1:-1, :-2] + p[2:, 1:-1] + p[:-2, 1:-1] - 4.0 * u)
        return np.sum(u * u)

    return f


def torch_port(torch: Any, u: Any, c: Any) -> Any:
    for _ in range(SWEEPS):
        p = torch.nn.functional.pad(u, (1, 1, 1, 1))
        u = u + c * (p[1:-1, 2:] + p[1:-1, :-2] + p[2:, 1:-1] + p[:-2, 1:-1] - 4.0 * u)
    return torch.sum(u * u)


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return rng.normal(size=(rows, columns)).astype(dtype), rng.uniform(0.05, 0.2, (rows, columns)).astype(dtype)


WORKLOADS = (Workload("stencil", make, partial(inputs, 512, 512), (0, 1), torch=torch_port, native="stencil"),)
