"""The objective of a hand tracker: a hand of 22 bones in a pose of 26 numbers, its skin, and how far the skin
is from points that were seen. Asked for are its gradient, and the Jacobian of all its residuals.

After the problem of that name in ADBench (F. Srajer, Z. Kukelova, A. Fitzgibbon, 2018; the hand model of
J. Taylor et al., 2014), on a made-up hand: a chain of two bones that carries five fingers of four bones each.
The pose is a turn (a rotation vector) and a shift of the whole hand, and four angles a finger: two at its
first joint, one at each of the next two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, TEST, Namespace, Pytree, Transform, Workload

FINGERS = 5
BONES, POSE = 2 + 4 * FINGERS, 6 + 4 * FINGERS
PARENTS = (None, 0, *(1 if bone % 4 == 2 else bone - 1 for bone in range(2, BONES)))
"""The bone that each bone hangs on: the fingers' first ones on the second of all."""


def residuals(pose: Any, hand: Any, targets: Any, matched: Any, library: Any, array: Any) -> Any:
    """From each target to the vertex that it is matched with, an array (targets, 3).

    `library` is NumPy or looks like it; `array` makes an array of nested lists.
    """
    places = absolutes(pose, hand["at_rest"], library, array)
    transforms = [place @ hand["to_bones"][bone] for bone, place in enumerate(places)]
    blended = library.einsum("vb,bij->vij", hand["weights"], library.stack(transforms))
    skin = library.einsum("vij,vj->vi", blended, hand["vertices"])[:, :3]
    placed = skin @ rotation(pose[:3], library, array).T + pose[3:6]
    return placed[matched] - targets


def absolutes(pose: Any, at_rest: Any, library: Any, array: Any) -> list[Any]:
    """Where each bone is, as 4x4 matrices: its turn, in its place on the bone that it hangs on."""
    found: list[Any] = []
    for bone, parent in enumerate(PARENTS):
        relative = at_rest[bone]
        finger, joint = divmod(bone - 2, 4)
        if bone >= 2 and joint < 3:
            angles = pose[6 + 4 * finger : 10 + 4 * finger]
            if joint == 0:
                relative = relative @ about_z(angles[3], library, array)
            relative = relative @ about_x(angles[joint], library, array)
        found.append(relative if parent is None else found[parent] @ relative)
    return found


def about_x(angle: Any, library: Any, array: Any) -> Any:
    """A finger bends."""
    c, s = library.cos(angle), library.sin(angle)
    return array([[1.0, 0.0, 0.0, 0.0], [0.0, c, -s, 0.0], [0.0, s, c, 0.0], [0.0, 0.0, 0.0, 1.0]])


def about_z(angle: Any, library: Any, array: Any) -> Any:
    """A finger spreads."""
    c, s = library.cos(angle), library.sin(angle)
    return array([[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def rotation(vector: Any, library: Any, array: Any) -> Any:
    """The 3x3 matrix of a rotation vector, by Rodrigues' formula."""
    angle = library.sqrt(library.sum(vector * vector))
    x, y, z = vector[0] / angle, vector[1] / angle, vector[2] / angle
    c, s = library.cos(angle), library.sin(angle)
    t = 1.0 - c
    return array(
        [
            [t * x * x + c, t * x * y - s * z, t * x * z + s * y],
            [t * x * y + s * z, t * y * y + c, t * y * z - s * x],
            [t * x * z - s * y, t * y * z + s * x, t * z * z + c],
        ]
    )


def make_objective(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(pose: Any, hand: Any, targets: Any, matched: Any) -> Any:
        return np.sum(residuals(pose, hand, targets, matched, np, np.array) ** 2)

    return f


def make_residuals(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(pose: Any, hand: Any, targets: Any, matched: Any) -> Any:
        return np.ravel(residuals(pose, hand, targets, matched, np, np.array))

    return f


def torch_residuals(torch: Any, pose: Any, hand: Any, targets: Any, matched: Any) -> Any:
    def array(rows: Any) -> Any:
        numbers = [x if isinstance(x, torch.Tensor) else pose.new_tensor(x) for row in rows for x in row]
        return torch.stack(numbers).reshape(len(rows), len(rows[0]))

    return residuals(pose, hand, targets, matched, torch, array).ravel()


def torch_objective(torch: Any, pose: Any, hand: Any, targets: Any, matched: Any) -> Any:
    return torch.sum(torch_residuals(torch, pose, hand, targets, matched) ** 2)


def inputs(vertices: int, targets: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    at_rest = numpy.zeros((BONES, 4, 4))
    at_rest[:] = numpy.eye(4)
    # Fingers side by side on the second bone, all bones along y.
    at_rest[1:, 1, 3] = 1.0
    at_rest[2::4, 0, 3] = numpy.linspace(-1.0, 1.0, FINGERS)
    places: list[numpy.ndarray] = []
    for relative, parent in zip(at_rest, PARENTS, strict=True):
        places.append(relative if parent is None else places[parent] @ relative)
    to_bones = numpy.linalg.inv(numpy.stack(places))
    # Each vertex lies along a bone; that bone and its neighbours share it.
    bones = numpy.arange(vertices) % BONES
    along = numpy.stack([places[bone][:3, 3] for bone in bones])
    along[:, 1] += rng.uniform(0.0, 1.0, vertices)
    skin = numpy.column_stack((along + 0.2 * rng.normal(size=(vertices, 3)), numpy.ones(vertices)))
    ends = numpy.stack([place[:3, 3] for place in places])
    distance = numpy.sum((skin[:, None, :3] - ends) ** 2, axis=2)
    weights = numpy.exp(-3.0 * distance) + 1e-3 * numpy.eye(BONES)[bones]
    hand = {
        "at_rest": at_rest,
        "to_bones": to_bones,
        "weights": weights / numpy.sum(weights, axis=1, keepdims=True),
        "vertices": skin,
    }
    matched = rng.integers(vertices, size=targets)
    seen = skin[matched, :3] + 0.3 * rng.normal(size=(targets, 3))
    pose = rng.uniform(0.1, 0.6, POSE)
    return (
        pose.astype(dtype),
        {key: array.astype(dtype) for key, array in hand.items()},
        seen.astype(dtype),
        matched,
    )


def _workload(transform: Transform, vertices: int, targets: int, suites: Sequence[str]) -> Workload:
    whole = transform == "jacfwd"
    return Workload(
        f"{'hand_jacobian' if whole else 'hand_tracking'}_{vertices}x{targets}",
        make_residuals if whole else make_objective,
        partial(inputs, vertices, targets),
        transform=transform,
        family="hand_jacobian" if whole else "hand_tracking",
        size=vertices,
        suites=suites,
        torch=torch_residuals if whole else torch_objective,
    )


WORKLOADS = tuple(
    _workload(transform, vertices, targets, suites)
    for transform in ("value_and_grad", "jacfwd")
    # The smaller number is that of ADBench's first data set, the larger that of its hand.
    for vertices, targets, suites in ((13, 7, TEST), (544, 100, BOTH))
)
