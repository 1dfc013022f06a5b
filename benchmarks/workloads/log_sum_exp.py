"""Sum over rows of log(sum(exp(row))), with the row's maximum taken out by hand. Its gradient is the
softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        top = np.max(x, axis=1, keepdims=True)
        return np.sum(np.log(np.sum(np.exp(x - top), axis=1)) + top[:, 0])

    return f


def torch_port(torch: Any, x: Any) -> Any:
    return torch.sum(torch.logsumexp(x, dim=1))


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (3.0 * numpy.random.default_rng(seed).normal(size=(rows, columns)).astype(dtype),)


def _workload(rows: int, columns: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"log_sum_exp_{rows}x{columns}",
        make,
        partial(inputs, rows, columns),
        family="log_sum_exp",
        size=rows * columns,
        suites=suites,
        torch=torch_port,
        native="log_sum_exp",
        numba="log_sum_exp",
        pytensor=True,
        flops=rows * columns * (ELEMENTARY + 4),
    )


WORKLOADS = (
    _workload(5, 19, TEST),
    _workload(512, 200, ("full", "quick", "spine")),
    _workload(8192, 1024, FULL),
)
