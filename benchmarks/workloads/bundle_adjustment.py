"""A Gauss-Newton step of bundle adjustment up to its linear system: the blocks of every observation's
Jacobian, 2x9 for the camera and 2x3 for the point, summed to normal equations from which the points are
eliminated.

The system in the points is 3x3 a point and inverted by cofactors; what is left (the Schur complement) is one
of 9 unknowns a camera. B. Triggs et al., 2000; S. Agarwal et al., 2010. The camera is that of
`projection_jacobians`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import FULL, QUICK, TEST, Namespace, Pytree, Workload, label
from benchmarks.workloads import projection_jacobians

DAMPING = 1e-3


def make(ns: Namespace) -> Callable[..., Any]:
    np, vmap, jacfwd, add_at = ns.np, ns.transforms.vmap, ns.transforms.jacfwd, ns.add_at
    project = projection_jacobians.make(ns)

    def residual(camera: Any, point: Any, pixel: Any) -> tuple[Any, Any]:
        difference = project(camera, point) - pixel
        return difference, difference

    def step(cameras: Any, points: Any, pixels: Any, camera: Any, point: Any, first: Any, second: Any) -> Any:
        """Half the sum of squares, matrix and right-hand side of the cameras' system.

        Observation i is of `point[i]` by `camera[i]`; `first` and `second` are all pairs of observations of
        one point.
        """
        # Beside its derivatives, the function's value.
        linearized = vmap(jacfwd(residual, (0, 1), has_aux=True))
        (by_camera, by_point), r = linearized(cameras[camera], points[point], pixels)
        u = add_at(np.zeros((len(cameras), 9, 9)), camera, np.einsum("nki,nkj->nij", by_camera, by_camera))
        v = add_at(np.zeros((len(points), 3, 3)), point, np.einsum("nki,nkj->nij", by_point, by_point))
        b_cameras = add_at(np.zeros((len(cameras), 9)), camera, -np.einsum("nki,nk->ni", by_camera, r))
        b_points = add_at(np.zeros((len(points), 3)), point, -np.einsum("nki,nk->ni", by_point, r))
        u, v = u + DAMPING * np.eye(9), v + DAMPING * np.eye(3)
        both = np.einsum("nki,nkj->nij", by_camera, by_point)
        eliminated = np.einsum("nij,njk->nik", both, inverse(v, np.stack)[point])
        pairs = np.einsum("nik,njk->nij", eliminated[first], both[second])
        blocks = np.zeros((len(cameras), len(cameras), 9, 9))
        blocks = add_at(blocks, (camera[first], camera[second]), -pairs)
        every = np.arange(len(cameras))
        blocks = add_at(blocks, (every, every), u)
        right = add_at(b_cameras, camera, -np.einsum("nij,nj->ni", eliminated, b_points[point]))
        size = 9 * len(cameras)
        matrix = np.reshape(np.transpose(blocks, (0, 2, 1, 3)), (size, size))
        return 0.5 * np.sum(r * r), matrix, np.ravel(right)

    return step


def inverse(m: Any, stack: Callable[..., Any]) -> Any:
    """Of symmetric 3x3 matrices, by cofactors."""
    a, b, c, d, e, f = m[:, 0, 0], m[:, 0, 1], m[:, 0, 2], m[:, 1, 1], m[:, 1, 2], m[:, 2, 2]
    c00, c01, c02 = d * f - e * e, c * e - b * f, b * e - c * d
    c11, c12, c22 = a * f - c * c, b * c - a * e, a * d - b * b
    rows = [stack(row, -1) for row in ([c00, c01, c02], [c01, c11, c12], [c02, c12, c22])]
    return stack(rows, -2) / (a * c00 + b * c01 + c * c02)[:, None, None]


def torch_port(
    torch: Any, cameras: Any, points: Any, pixels: Any, camera: Any, point: Any, first: Any, second: Any
) -> Any:
    def residual(camera: Any, point: Any, pixel: Any) -> tuple[Any, Any]:
        difference = projection_jacobians.torch_port(torch, camera, point) - pixel
        return difference, difference

    linearized = torch.func.vmap(torch.func.jacfwd(residual, (0, 1), has_aux=True))
    (by_camera, by_point), r = linearized(cameras[camera], points[point], pixels)

    def total(count: int, index: Any, values: Any) -> Any:
        return values.new_zeros((count, *values.shape[1:])).index_add(0, index, values)

    u = total(len(cameras), camera, by_camera.mT @ by_camera) + DAMPING * torch.eye(9, dtype=r.dtype)
    v = total(len(points), point, by_point.mT @ by_point) + DAMPING * torch.eye(3, dtype=r.dtype)
    b_cameras = total(len(cameras), camera, -torch.einsum("nki,nk->ni", by_camera, r))
    b_points = total(len(points), point, -torch.einsum("nki,nk->ni", by_point, r))
    both = by_camera.mT @ by_point
    eliminated = both @ inverse(v, torch.stack)[point]
    pairs = eliminated[first] @ both[second].mT
    place = camera[first] * len(cameras) + camera[second]
    blocks = -total(len(cameras) ** 2, place, pairs).reshape(len(cameras), len(cameras), 9, 9)
    every = torch.arange(len(cameras))
    blocks = blocks.index_put((every, every), u, accumulate=True)
    right = b_cameras - total(len(cameras), camera, torch.einsum("nij,nj->ni", eliminated, b_points[point]))
    size = 9 * len(cameras)
    matrix = blocks.permute(0, 2, 1, 3).reshape(size, size)
    return 0.5 * torch.sum(r * r), matrix, right.ravel()


def inputs(cameras: int, points: int, views: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    placed = projection_jacobians.cameras(cameras, rng)
    scene = rng.uniform(-1.0, 1.0, (points, 3))
    # Every point is seen by `views` different cameras, in no order.
    camera = numpy.concatenate([rng.permutation(cameras)[:views] for _ in range(points)])
    point = numpy.repeat(numpy.arange(points), views)
    order = rng.permutation(len(camera))
    camera, point = camera[order], point[order]
    by_point = numpy.argsort(point, kind="stable").reshape(points, views)
    pixels = rng.uniform(-100.0, 100.0, (len(camera), 2))
    return (
        placed.astype(dtype),
        scene.astype(dtype),
        pixels.astype(dtype),
        camera,
        point,
        numpy.repeat(by_point, views, axis=1).ravel(),
        numpy.tile(by_point, (1, views)).ravel(),
    )


def _workload(cameras: int, points: int, views: int, suites: Sequence[str]) -> Workload:
    observations = points * views
    return Workload(
        f"bundle_adjustment_{label(observations)}",
        make,
        partial(inputs, cameras, points, views),
        transform="jit",
        family="bundle_adjustment",
        size=observations,
        suites=suites,
        torch=torch_port,
        # Jacobians and their products, and the products of pairs.
        flops=observations * (400 + 4 * (81 + 27 + 9 + 12) + 9 * 3 * 6 + views * 9 * 9 * 6),
    )


WORKLOADS = (_workload(3, 7, 2, TEST), _workload(8, 100, 4, QUICK), _workload(16, 2_000, 5, FULL))
