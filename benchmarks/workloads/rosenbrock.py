"""Rosenbrock's function of n variables: its gradient, and its minimum by SciPy's L-BFGS-B from halfway to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    return f


def torch_port(torch: Any, x: Any) -> Any:
    return torch.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def inputs(size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (numpy.random.default_rng(seed).uniform(-2.0, 2.0, size).astype(dtype),)


def start(size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    """The minimum is at ones. From the origin a thousand variables take five thousand iterations, one after the other."""
    return (numpy.full(size, 0.5, dtype),)


def _gradient(size: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"rosenbrock_{label(size)}",
        make,
        partial(inputs, size),
        family="rosenbrock",
        size=size,
        suites=suites,
        torch=torch_port,
        numba="rosenbrock",
        pytensor=True,
        flops=size * 16,
    )


def _minimum(size: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"rosenbrock_lbfgs_{label(size)}",
        make,
        partial(start, size),
        transform="minimize",
        family="rosenbrock_lbfgs",
        size=size,
        suites=suites,
        torch=torch_port,
        numba="rosenbrock",
        pytensor=True,
        # Roundings steer the path, and the stopping rule is a relative one: the minimum is met to three digits.
        same_as={"float64": 1e-2},
    )


WORKLOADS = (
    _gradient(2, ("full", "quick", "test")),
    _gradient(19, TEST),
    _gradient(1_000, BOTH),
    _gradient(100_000, QUICK),
    _gradient(1_000_000, FULL),
    _minimum(2, ("full", "quick", "test")),
    _minimum(1_000, FULL),
)
