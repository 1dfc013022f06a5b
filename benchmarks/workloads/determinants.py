"""A batch of 4x4 matrices: chained with a second batch, then log of the determinant and trace of the inverse.

Determinant and adjugate by 2x2 minors, written out by components as one does in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(a: Any, b: Any) -> Any:
        return np.mean(_measure(a @ b, np.log))

    return f


def torch_port(torch: Any, a: Any, b: Any) -> Any:
    return torch.mean(_measure(a @ b, torch.log))


def _measure(m: Any, log: Callable[[Any], Any]) -> Any:
    """log(det(m)^2) + trace(inv(m)) for every matrix."""
    rows = [[m[:, i, j] for j in range(4)] for i in range(4)]

    def minors(top: Any, bottom: Any) -> dict[tuple[int, int], Any]:
        return {(i, j): top[i] * bottom[j] - top[j] * bottom[i] for i in range(4) for j in range(i + 1, 4)}

    s, c = minors(rows[0], rows[1]), minors(rows[2], rows[3])
    det = (
        s[0, 1] * c[2, 3]
        - s[0, 2] * c[1, 3]
        + s[0, 3] * c[1, 2]
        + s[1, 2] * c[0, 3]
        - s[1, 3] * c[0, 2]
        + s[2, 3] * c[0, 1]
    )
    adjugate0 = rows[1][1] * c[2, 3] - rows[1][2] * c[1, 3] + rows[1][3] * c[1, 2]
    adjugate1 = rows[0][0] * c[2, 3] - rows[0][2] * c[0, 3] + rows[0][3] * c[0, 2]
    adjugate2 = rows[3][0] * s[1, 3] - rows[3][1] * s[0, 3] + rows[3][3] * s[0, 1]
    adjugate3 = rows[2][0] * s[1, 2] - rows[2][1] * s[0, 2] + rows[2][2] * s[0, 1]
    return log(det * det) + (adjugate0 + adjugate1 + adjugate2 + adjugate3) / det


def inputs(count: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    # Diagonally heavy, so that no matrix is close to singular and libraries can be compared digit by digit.
    return tuple((4.0 * numpy.eye(4) + rng.uniform(-1.0, 1.0, (count, 4, 4))).astype(dtype) for _ in range(2))


def _workload(count: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"determinants_{label(count)}",
        make,
        partial(inputs, count),
        argnums=(0, 1),
        family="determinants",
        size=count,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        # Three 4x4 products, and about three times the seventy operations of the measure.
        flops=count * (3 * 112 + 200 + 2 * ELEMENTARY),
    )


WORKLOADS = (_workload(13, TEST), _workload(2_000, QUICK), _workload(100_000, FULL))
