"""A batch of 3x3 systems solved by cofactors (inverses and determinants), written out by components as one
does in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(a: Any, v: Any) -> Any:
        return _energy(a, v, np.log, np.mean)

    return f


def torch_port(torch: Any, a: Any, v: Any) -> Any:
    return _energy(a, v, torch.log, torch.mean)


def _energy(a: Any, v: Any, log: Callable[[Any], Any], mean: Callable[[Any], Any]) -> Any:
    """mean(|inv(a) v|^2 + log(det(a)^2))"""
    a00, a01, a02 = a[:, 0, 0], a[:, 0, 1], a[:, 0, 2]
    a10, a11, a12 = a[:, 1, 0], a[:, 1, 1], a[:, 1, 2]
    a20, a21, a22 = a[:, 2, 0], a[:, 2, 1], a[:, 2, 2]
    c00, c01, c02 = a11 * a22 - a12 * a21, a12 * a20 - a10 * a22, a10 * a21 - a11 * a20
    c10, c11, c12 = a02 * a21 - a01 * a22, a00 * a22 - a02 * a20, a01 * a20 - a00 * a21
    c20, c21, c22 = a01 * a12 - a02 * a11, a02 * a10 - a00 * a12, a00 * a11 - a01 * a10
    det = a00 * c00 + a01 * c01 + a02 * c02
    v0, v1, v2 = v[:, 0], v[:, 1], v[:, 2]
    x0 = (c00 * v0 + c10 * v1 + c20 * v2) / det
    x1 = (c01 * v0 + c11 * v1 + c21 * v2) / det
    x2 = (c02 * v0 + c12 * v1 + c22 * v2) / det
    return mean(x0 * x0 + x1 * x1 + x2 * x2 + log(det * det))


def inputs(count: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    # Diagonally heavy, so that no matrix is close to singular and libraries can be compared digit by digit.
    a = 3.0 * numpy.eye(3) + rng.uniform(-1.0, 1.0, (count, 3, 3))
    return a.astype(dtype), rng.normal(size=(count, 3)).astype(dtype)


def _workload(count: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"small_matrices_{label(count)}",
        make,
        partial(inputs, count),
        argnums=(0, 1),
        family="small_matrices",
        size=count,
        suites=suites,
        torch=torch_port,
        native="small_matrices",
        numba="small_matrices",
        pytensor=True,
        flops=count * (100 + 2 * ELEMENTARY),
    )


WORKLOADS = (_workload(13, TEST), _workload(2_000, QUICK), _workload(100_000, ("full", "spine")))
