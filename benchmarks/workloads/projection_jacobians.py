"""Jacobians of a camera's projection, 3 coordinates to 2, at many points: `vmap` of `jacfwd`, one 2x3 matrix
a point.

The camera is that of bundle adjustment in the large (S. Agarwal et al., 2010): a rotation vector (turned into
a rotation by Rodrigues' formula), a translation, a focal length and two coefficients of radial distortion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def project(camera: Any, point: Any) -> Any:
        """Where a camera of 9 numbers sees a point of 3; it looks along its negative z axis."""
        turn, shift, focal, k1, k2 = camera[:3], camera[3:6], camera[6], camera[7], camera[8]
        angle = np.sqrt(np.sum(turn * turn))
        axis = turn / angle
        c, s = np.cos(angle), np.sin(angle)
        seen = c * point + s * np.cross(axis, point) + (1.0 - c) * np.dot(axis, point) * axis + shift
        flat = -seen[:2] / seen[2]
        square = np.sum(flat * flat)
        return focal * (1.0 + square * (k1 + k2 * square)) * flat

    return project


def torch_port(torch: Any, camera: Any, point: Any) -> Any:
    turn, shift, focal, k1, k2 = camera[:3], camera[3:6], camera[6], camera[7], camera[8]
    angle = torch.sqrt(torch.sum(turn * turn))
    axis = turn / angle
    c, s = torch.cos(angle), torch.sin(angle)
    across = torch.linalg.cross(axis, point)
    seen = c * point + s * across + (1.0 - c) * torch.dot(axis, point) * axis + shift
    flat = -seen[:2] / seen[2]
    square = torch.sum(flat * flat)
    return focal * (1.0 + square * (k1 + k2 * square)) * flat


def cameras(count: int, rng: numpy.random.Generator) -> numpy.ndarray:
    """Cameras five units away from points around the origin, all of which they see."""
    return numpy.column_stack(
        (
            rng.uniform(-0.4, 0.4, (count, 3)),
            rng.uniform(-0.3, 0.3, (count, 2)),
            rng.uniform(-5.5, -4.5, count),
            rng.uniform(450.0, 550.0, count),
            rng.uniform(-0.1, 0.1, count),
            rng.uniform(-0.01, 0.01, count),
        )
    )


def inputs(count: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return cameras(1, rng)[0].astype(dtype), rng.uniform(-1.0, 1.0, (count, 3)).astype(dtype)


def _workload(count: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"projection_jacobians_{label(count)}",
        make,
        partial(inputs, count),
        argnums=1,
        transform="jacfwd",
        in_axes=(None, 0),
        family="projection_jacobians",
        size=count,
        suites=suites,
        torch=torch_port,
        native="projection_jacobians",
        # The point in the camera's frame, the flat one, the distortion, and the matrix of its derivatives.
        flops=count * 75,
    )


WORKLOADS = (_workload(13, TEST), _workload(2_000, QUICK), _workload(100_000, FULL))
