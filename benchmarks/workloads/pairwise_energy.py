"""Gaussian kernel energy of a cloud of weighted points. The n x n array that the source writes need not exist."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload


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


WORKLOADS = (
    Workload("pairwise_energy", make, partial(inputs, 512), (0, 1), torch=torch_port, native="pairwise_energy"),
)
