"""Mean softmax cross-entropy of rows of logits against soft labels, with the stable form written out by
hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(logits: Any, labels: Any) -> Any:
        shifted = logits - np.max(logits, axis=1, keepdims=True)
        log_total = np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
        return -np.mean(np.sum(labels * (shifted - log_total), axis=1))

    return f


def torch_port(torch: Any, logits: Any, labels: Any) -> Any:
    return torch.nn.functional.cross_entropy(logits, labels)


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    labels = rng.uniform(size=(rows, columns))
    labels /= labels.sum(axis=1, keepdims=True)
    return 3.0 * rng.normal(size=(rows, columns)).astype(dtype), labels.astype(dtype)


def _workload(rows: int, columns: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"softmax_cross_entropy_{rows}x{columns}",
        make,
        partial(inputs, rows, columns),
        dtypes=("float64", "float32"),
        family="softmax_cross_entropy",
        size=rows * columns,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        flops=rows * columns * (ELEMENTARY + 8),
    )


WORKLOADS = (_workload(5, 19, TEST), _workload(512, 128, BOTH), _workload(4096, 1000, FULL))
