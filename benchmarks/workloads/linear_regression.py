"""Least squares by matrix-vector products: the matrix is read for the residual, and once more for the
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(w: Any, x: Any, y: Any) -> Any:
        residual = x @ w - y
        return 0.5 * np.mean(residual * residual)

    return f


def torch_port(torch: Any, w: Any, x: Any, y: Any) -> Any:
    residual = x @ w - y
    return 0.5 * torch.mean(residual * residual)


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)).astype(dtype)
    w = rng.normal(size=columns).astype(dtype)
    return 0.5 * w, x, (x @ w + 0.1 * rng.normal(size=rows)).astype(dtype)


def _workload(rows: int, columns: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"linear_regression_{label(rows)}x{columns}",
        make,
        partial(inputs, rows, columns),
        family="linear_regression",
        size=rows * columns,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        flops=4 * rows * columns,
    )


WORKLOADS = (_workload(41, 7, TEST), _workload(1_000, 50, BOTH), _workload(200_000, 100, FULL))
