"""Rows gathered from a table by index, and the gradient scattered back: indices repeat, so that rows are
added to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(table: Any, indices: Any, weights: Any) -> Any:
        return np.sum(weights * np.tanh(table[indices]))

    return f


def torch_port(torch: Any, table: Any, indices: Any, weights: Any) -> Any:
    return torch.sum(weights * torch.tanh(torch.nn.functional.embedding(indices, table)))


def inputs(rows: int, width: int, picked: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return (
        rng.normal(size=(rows, width)).astype(dtype),
        rng.integers(rows, size=picked),
        rng.normal(size=(picked, width)).astype(dtype),
    )


def _workload(rows: int, width: int, picked: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"embedding_{label(rows)}x{width}",
        make,
        partial(inputs, rows, width, picked),
        family="embedding",
        size=rows * width,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        flops=picked * width * (ELEMENTARY + 5),
        # The gradient is as large as the table and mostly zeros; of the table only the picked rows are read.
        moved=rows * width + picked * (4 * width + 1),
    )


WORKLOADS = (_workload(11, 5, 17, TEST), _workload(2_000, 64, 512, QUICK), _workload(100_000, 64, 4096, FULL))
