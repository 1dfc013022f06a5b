"""Logistic regression on dense data: a matrix-vector product, a row loss, and the transposed product back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(w: Any, b: Any, x: Any, y: Any) -> Any:
        z = x @ w + b
        return np.mean(np.logaddexp(0.0, z) - y * z)

    return f


def torch_port(torch: Any, w: Any, b: Any, x: Any, y: Any) -> Any:
    return torch.nn.functional.binary_cross_entropy_with_logits(x @ w + b, y)


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)).astype(dtype)
    w = rng.normal(size=columns).astype(dtype)
    y = (x @ w + rng.normal(size=rows) > 0.0).astype(dtype)
    return 0.5 * w, numpy.array(0.1, dtype), x, y


def _workload(rows: int, columns: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"logistic_regression_{label(rows)}x{columns}",
        make,
        partial(inputs, rows, columns),
        argnums=(0, 1),
        family="logistic_regression",
        size=rows,
        suites=suites,
        torch=torch_port,
        native="logistic_regression",
        pytensor=True,
        flops=rows * (4 * columns + 2 * ELEMENTARY),
    )


WORKLOADS = (_workload(101, 7, TEST), _workload(2_000, 32, QUICK), _workload(100_000, 32, ("full", "spine")))
