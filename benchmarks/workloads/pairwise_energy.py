"""Gaussian kernel energy of a cloud of weighted points. The n x n array that the source writes need not
exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(p: Any, q: Any) -> Any:
        between = p[:, None, :] - p[None, :, :]
        kernel = np.exp(-0.5 * np.sum(between * between, axis=2))
        return 0.5 * np.sum(q[:, None] * q[None, :] * kernel)

    return f


def torch_port(torch: Any, p: Any, q: Any) -> Any:
    between = p[:, None, :] - p[None, :, :]
    kernel = torch.exp(-0.5 * torch.sum(between * between, dim=2))
    return 0.5 * torch.sum(q[:, None] * q[None, :] * kernel)


def inputs(points: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return rng.normal(size=(points, 3)).astype(dtype), rng.normal(size=points).astype(dtype)


def _workload(points: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"pairwise_energy_{points}",
        make,
        partial(inputs, points),
        argnums=(0, 1),
        family="pairwise_energy",
        size=points,
        suites=suites,
        torch=torch_port,
        native="pairwise_energy",
        numba="pairwise_energy",
        pytensor=True,
        # Every pair once: three differences, an exponential, and what three components of force cost.
        flops=points * points / 2 * (ELEMENTARY + 20),
    )


WORKLOADS = (_workload(23, TEST), _workload(512, ("full", "quick", "spine")), _workload(2048, FULL))
