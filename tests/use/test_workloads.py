"""The workloads of the benchmarks: each computes what NumPy computes, and its derivatives are the slopes of
that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optree
import pytest
import scipy.special

import graphjit
from benchmarks.agreement import disagreement, largest_difference
from benchmarks.peers import available
from benchmarks.workload import DIRECTIONAL, Loops, Namespace, Workload, label
from benchmarks.workloads import _FAMILIES, WORKLOADS, bundle_adjustment, projection_jacobians
from benchmarks.workloads import suite as workloads

SMALL = [(workload, dtype) for workload in workloads("test") for dtype in workload.dtypes]
NAMES = [f"{workload.name}-{dtype}" for workload, dtype in SMALL]
OURS = available(["graphjit"])[0]["graphjit"]
# Loops by Python: what compiled ones are held against.
NUMPY = replace(OURS.namespace, loops=Loops())  # type: ignore[attr-defined]


def plain(workload: Workload) -> Callable[..., Any]:
    """The workload's function in NumPy, called for one example after the other where it is one of
    examples.
    """
    f, in_axes = workload.make(NUMPY), workload.in_axes
    if in_axes is None:
        return f

    def each(*arguments: Any) -> Any:
        batched = next(leaf for leaf, axis in zip(arguments, in_axes, strict=True) if axis is not None)
        results = [
            f(*(given if axis is None else given[i] for given, axis in zip(arguments, in_axes, strict=True)))
            for i in range(len(batched))
        ]
        return np.stack(results)

    return each


def moved(workload: Workload, arguments: tuple[Any, ...], step: float, directions: Any) -> tuple[Any, ...]:
    """The function's arguments with those that are differentiated moved along `directions`."""
    argnums = workload.argnums if isinstance(workload.argnums, tuple) else (workload.argnums,)
    given = list(workload.forward_arguments(arguments))
    for position, direction in zip(argnums, directions, strict=True):
        given[position] = optree.tree_map(lambda leaf, d: leaf + step * d, given[position], direction)
    return tuple(given)


def inner(left: Any, right: Any) -> float:
    pairs = zip(optree.tree_leaves(left), optree.tree_leaves(right), strict=True)
    return sum(float(np.sum(np.asarray(a, float) * np.asarray(b, float))) for a, b in pairs)


def slope(f: Callable[..., Any], workload: Workload, arguments: tuple[Any, ...], directions: Any) -> Any:
    step = 1e-6
    above, below = (f(*moved(workload, arguments, sign * step, directions)) for sign in (1.0, -1.0))
    return optree.tree_map(lambda a, b: (np.asarray(a) - np.asarray(b)) / (2.0 * step), above, below)


@pytest.mark.sample(9)
@pytest.mark.parametrize(("workload", "dtype"), SMALL, ids=NAMES)
def test_value_is_numpys(workload: Workload, dtype: str) -> None:
    arguments = workload.inputs(3, dtype)
    prepared = OURS.prepare(workload, arguments)
    found = workload.forward_value(prepared.fn(*prepared.arguments))
    forward = workload.forward_arguments(arguments)
    if found is None:
        f = graphjit.jit(workload.make(NUMPY))
        found = (f if workload.in_axes is None else graphjit.vmap(f, workload.in_axes))(*forward)
    expected = plain(workload)(*forward)
    assert largest_difference(found, expected) <= workload.tolerance(dtype)


DERIVATIVES = [
    workload
    for workload, dtype in SMALL
    if dtype == "float64" and workload.transform not in ("jit", "minimize")
]


LIBRARIES = ("jax", "torch", "autograd", "native")


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.filterwarnings("ignore")  # theirs
def test_libraries_agree(name: str) -> None:
    """Where a library is installed: on every workload that is written for it."""
    peers, missing = available([name])
    if missing:
        pytest.skip(missing[name])
    agreed, apart = 0, []
    for workload in workloads("test"):
        if name in workload.absent:
            continue
        arguments = workload.inputs(3, "float64")
        try:
            theirs = peers[name].prepare(workload, arguments)
            found = theirs.fn(*theirs.arguments)
        except (LookupError, NotImplementedError):
            continue
        ours = OURS.prepare(workload, arguments)
        difference = disagreement(ours.fn(*ours.arguments), found, workload.tolerance("float64"))
        apart += [f"{workload.name}: {difference}"] if difference else []
        agreed += not difference
    assert not apart
    assert agreed


OTHER_FORMS = [w for w in WORKLOADS.values() if w.jax is not None and "test" in w.suites]


@pytest.mark.parametrize("workload", OTHER_FORMS, ids=lambda workload: workload.name)
def test_forms_for_jax_compute_the_same(workload: Workload) -> None:
    """Under NumPy they give the number that the workload gives."""
    assert workload.jax is not None
    namespace = Namespace(np, scipy.special)
    arguments = workload.inputs(3, "float64")
    expected = workload.make(namespace)(*arguments)
    assert workload.jax(namespace)(*arguments) == pytest.approx(expected, rel=1e-12)


def pushed(jacobian: Any, direction: Any, shared: bool) -> Any:
    """Jacobian times direction; every example has a direction of its own where they do not share one."""
    if shared:
        return np.tensordot(jacobian, direction, np.ndim(direction))
    return np.stack([pushed(j, d, True) for j, d in zip(jacobian, direction, strict=True)])


@pytest.mark.sample(4)
@pytest.mark.parametrize("workload", DERIVATIVES, ids=lambda workload: workload.name)
def test_derivative_is_the_slope_of_the_value(workload: Workload) -> None:
    arguments = workload.inputs(5, "float64")
    prepared = OURS.prepare(workload, arguments)
    result = prepared.fn(*prepared.arguments)
    f = plain(workload)
    if workload.transform == "jvp":
        assert np.allclose(result[1], slope(f, workload, arguments, (arguments[1],)), rtol=1e-6, atol=1e-8)
        return
    argnums = workload.argnums if isinstance(workload.argnums, tuple) else (workload.argnums,)
    rng = np.random.default_rng(7)
    directions = tuple(
        optree.tree_map(lambda leaf: rng.normal(size=np.shape(leaf)), arguments[i]) for i in argnums
    )
    if workload.transform == "hvp":
        gradient = graphjit.grad(f)
        expected = inner(slope(gradient, workload, arguments, (arguments[1],)), directions[0])
        assert inner(result, directions[0]) == pytest.approx(expected, rel=1e-6)
    elif workload.transform == "hessian":
        expected = slope(graphjit.grad(f), workload, arguments, directions)
        assert np.allclose(result @ directions[0], expected, rtol=1e-6, atol=1e-8)
    elif workload.transform == "jacfwd" or workload.in_axes is not None:
        assert isinstance(workload.argnums, int)
        shared = workload.in_axes is None or workload.in_axes[workload.argnums] is None
        expected = slope(f, workload, arguments, directions)
        pairs = zip(optree.tree_leaves(result), optree.tree_leaves(directions), strict=True)
        found = sum(pushed(jacobian, direction, shared) for jacobian, direction in pairs)
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-8)
    elif workload.transform == "vjp":
        assert inner(result[1], directions[0]) == pytest.approx(
            inner(arguments[1], slope(f, workload, arguments, directions)), rel=1e-6
        )
    else:
        gradients = result[1] if workload.transform == "value_and_grad" else result
        found = inner(gradients if len(argnums) > 1 else (gradients,), directions)
        assert found == pytest.approx(float(slope(f, workload, arguments, directions)), rel=2e-6)


def test_step_of_bundle_adjustment_is_that_of_the_whole_problem() -> None:
    """Its reduced system gives the cameras' part of the solution of the damped normal equations."""
    (workload,) = (w for w in workloads("test") if w.family == "bundle_adjustment")
    arguments = workload.inputs(3, "float64")
    prepared = OURS.prepare(workload, arguments)
    cost, matrix, right = prepared.fn(*prepared.arguments)
    cameras, points, pixels, camera, point, *_ = arguments
    project = projection_jacobians.make(NUMPY)

    def residuals(unknowns: np.ndarray) -> np.ndarray:
        moved_cameras, moved_points = np.split(unknowns, [cameras.size])
        moved_cameras, moved_points = moved_cameras.reshape(-1, 9), moved_points.reshape(-1, 3)
        seen = [project(moved_cameras[c], moved_points[p]) for c, p in zip(camera, point, strict=True)]
        return np.ravel(np.array(seen) - pixels)

    unknowns = np.concatenate([cameras.ravel(), points.ravel()])
    steps = 1e-6 * np.eye(unknowns.size)
    jacobian = np.stack([(residuals(unknowns + s) - residuals(unknowns - s)) / 2e-6 for s in steps], axis=1)
    normal = jacobian.T @ jacobian + bundle_adjustment.DAMPING * np.eye(unknowns.size)
    step = np.linalg.solve(normal, -jacobian.T @ residuals(unknowns))
    assert cost == pytest.approx(0.5 * np.sum(residuals(unknowns) ** 2))
    assert np.allclose(np.linalg.solve(matrix, right), step[: cameras.size], rtol=1e-3, atol=1e-5)


def test_minimum_is_met() -> None:
    workload = WORKLOADS["rosenbrock_lbfgs_2"]
    prepared = OURS.prepare(workload, workload.inputs(1, "float64"))
    assert np.allclose(prepared.fn(*prepared.arguments), 1.0, atol=1e-3)


def test_names_are_unique_and_every_family_has_a_small_size() -> None:
    assert len(WORKLOADS) == sum(len(family.WORKLOADS) for family in _FAMILIES)
    full, quick, test = (
        {workload.family for workload in WORKLOADS.values() if suite in workload.suites}
        for suite in ("full", "quick", "test")
    )
    assert test == {workload.family for workload in WORKLOADS.values()}
    assert full == quick == test - {"python_loop"}
    assert all(
        workload.transform not in DIRECTIONAL or workload.argnums == 0 for workload in WORKLOADS.values()
    )


def test_sizes_in_names() -> None:
    assert [label(size) for size in (2, 512, 1000, 100_000, 2_000_000)] == ["2", "512", "1e3", "1e5", "2e6"]
