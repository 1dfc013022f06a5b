"""Jacobian times vector and vector times Jacobian of a map from n to m numbers: what each mode costs.

Both are one pass over the matrix, whatever n and m: neither mode should lose to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, TEST, Namespace, Pytree, Transform, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any, matrix: Any) -> Any:
        z = matrix @ np.sin(x)
        return np.tanh(z) * z

    return f


def torch_port(torch: Any, x: Any, matrix: Any) -> Any:
    z = matrix @ torch.sin(x)
    return torch.tanh(z) * z


def inputs(n: int, m: int, forward: bool, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    matrix = rng.normal(size=(m, n)) / numpy.sqrt(n)
    return (
        rng.normal(size=n).astype(dtype),
        rng.normal(size=n if forward else m).astype(dtype),
        matrix.astype(dtype),
    )


def _workload(transform: Transform, n: int, m: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"{transform}_{n}_to_{m}",
        make,
        partial(inputs, n, m, transform == "jvp"),
        transform=transform,
        family=transform,
        size=n * m,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        flops=4 * n * m,
    )


SHAPES = ((5, 3, TEST), (1, 1, BOTH), (1, 1000, BOTH), (1000, 1, BOTH), (30, 30, FULL), (1000, 1000, BOTH))

WORKLOADS = tuple(
    _workload(transform, n, m, suites) for transform in ("jvp", "vjp") for n, m, suites in SHAPES
)
