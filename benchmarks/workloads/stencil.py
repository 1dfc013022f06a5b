"""Explicit heat steps on a grid, zero outside, with a conductivity field: differentiated with respect to
both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import FULL, QUICK, TEST, Namespace, Pytree, Workload

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
    return rng.normal(size=(rows, columns)).astype(dtype), rng.uniform(0.05, 0.2, (rows, columns)).astype(
        dtype
    )


def _workload(rows: int, columns: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"stencil_{rows}x{columns}",
        make,
        partial(inputs, rows, columns),
        argnums=(0, 1),
        family="stencil",
        size=rows * columns,
        suites=suites,
        torch=torch_port,
        native="stencil",
        # Forward seven operations a point and sweep, backward sixteen.
        flops=rows * columns * SWEEPS * 23,
        # The state of every sweep is written once and read once on the way back: more than that is not needed
        # even when no two sweeps share a visit to memory.
        moved=rows * columns * (4 + 2 * SWEEPS),
    )


WORKLOADS = (
    _workload(9, 11, TEST),
    _workload(256, 256, QUICK),
    _workload(512, 512, ("spine",)),
    _workload(1024, 1024, FULL),
)
