"""Matrix products alone, forward: squares, skinny shapes, one of a network's layers, batches of small
ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, TEST, Namespace, Pytree, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    def f(a: Any, b: Any) -> Any:
        return a @ b

    return f


def torch_port(torch: Any, a: Any, b: Any) -> Any:
    return a @ b


def inputs(batch: tuple[int, ...], m: int, k: int, n: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return rng.normal(size=(*batch, m, k)).astype(dtype), rng.normal(size=(*batch, k, n)).astype(dtype)


def _workload(family: str, batch: tuple[int, ...], m: int, k: int, n: int, suites: Sequence[str]) -> Workload:
    shape = f"{m}" if m == k == n else f"{m}x{k}x{n}"
    flops = 2.0 * math.prod(batch) * m * k * n
    return Workload(
        "_".join([family, *map(str, batch), shape]),
        make,
        partial(inputs, batch, m, k, n),
        transform="jit",
        dtypes=("float64", "float32"),
        family=family,
        size=flops,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        flops=flops,
    )


SQUARES = (
    (5, TEST),
    (8, BOTH),
    (16, BOTH),
    (32, BOTH),
    (64, BOTH),
    (128, BOTH),
    (256, BOTH),
    (512, FULL),
    (1024, FULL),
)
SKINNY = (
    (11, 3, 2, TEST),
    (256, 784, 128, BOTH),
    (4096, 32, 32, BOTH),
    (32, 4096, 32, BOTH),
    (1, 1024, 1024, FULL),
    (1024, 1024, 1, FULL),
    (2048, 2, 2048, FULL),
)
BATCHES = ((3, 4, TEST), (10_000, 4, BOTH), (1_000, 8, BOTH), (200, 32, FULL))

WORKLOADS = (
    *(_workload("matmul", (), n, n, n, suites) for n, suites in SQUARES),
    *(_workload("matmul_skinny", (), m, k, n, suites) for m, k, n, suites in SKINNY),
    *(_workload("matmul_batch", (count,), n, n, n, suites) for count, n, suites in BATCHES),
)
