"""Cumulative sums and products, weighted so that their gradients are cumulative sums from the other end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(function: str, ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any, weights: Any) -> Any:
        return np.sum(weights * getattr(np, function)(x))

    return f


def torch_port(function: str, torch: Any, x: Any, weights: Any) -> Any:
    return torch.sum(weights * getattr(torch, function)(x, 0))


def inputs(size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    # Factors near one, so that the product neither dies out nor blows up.
    return numpy.exp(rng.normal(size=size) / numpy.sqrt(size)).astype(dtype), rng.normal(size=size).astype(
        dtype
    )


def _workload(function: str, size: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"{function}_{label(size)}",
        partial(make, function),
        partial(inputs, size),
        family=function,
        size=size,
        suites=suites,
        torch=partial(torch_port, function),
        # PyTensor has no gradient for a product along no axis.
        pytensor=function == "cumsum",
        flops=size * 4,
    )


WORKLOADS = tuple(
    _workload(function, size, suites)
    for function in ("cumsum", "cumprod")
    for size, suites in ((29, TEST), (1_000, BOTH), (100_000, QUICK), (1_000_000, FULL))
)
