"""A batch of points, each turned by its own three angles in turn: three 3x3 rotation matrices, multiplied
with `@`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(angles: Any, points: Any, targets: Any) -> Any:
        return _distance(
            np.cos(angles), np.sin(angles), points, targets, np.stack, np.zeros_like, np.ones_like, np.sum
        )

    return f


def torch_port(torch: Any, angles: Any, points: Any, targets: Any) -> Any:
    return _distance(
        torch.cos(angles),
        torch.sin(angles),
        points,
        targets,
        torch.stack,
        torch.zeros_like,
        torch.ones_like,
        torch.sum,
    )


def _distance(
    c: Any, s: Any, points: Any, targets: Any, stack: Any, zeros_like: Any, ones_like: Any, total: Any
) -> Any:
    """sum(|Rz Ry Rx p - t|^2), angles about x, y and z in the columns of `c` and `s`."""
    zero, one = zeros_like(c[:, 0]), ones_like(c[:, 0])

    def matrix(*entries: Any) -> Any:
        return stack([stack(list(entries[i : i + 3]), -1) for i in (0, 3, 6)], -2)

    about_x = matrix(one, zero, zero, zero, c[:, 0], -s[:, 0], zero, s[:, 0], c[:, 0])
    about_y = matrix(c[:, 1], zero, s[:, 1], zero, one, zero, -s[:, 1], zero, c[:, 1])
    about_z = matrix(c[:, 2], -s[:, 2], zero, s[:, 2], c[:, 2], zero, zero, zero, one)
    turned = (about_z @ about_y @ about_x) @ points[:, :, None]
    between = turned[:, :, 0] - targets
    return total(between * between)


def inputs(count: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return (
        rng.uniform(-3.0, 3.0, (count, 3)).astype(dtype),
        rng.normal(size=(count, 3)).astype(dtype),
        rng.normal(size=(count, 3)).astype(dtype),
    )


def _workload(count: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"rotations_{label(count)}",
        make,
        partial(inputs, count),
        argnums=(0, 1),
        family="rotations",
        size=count,
        suites=suites,
        torch=torch_port,
        pytensor=True,
        # Six elementary functions; three turns of a vector in a plane, there and back.
        flops=count * (6 * ELEMENTARY + 50),
    )


WORKLOADS = (_workload(13, TEST), _workload(2_000, QUICK), _workload(100_000, FULL))
