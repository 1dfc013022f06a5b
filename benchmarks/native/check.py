"""Gradients of every native kernel, both builds, against central differences of its own value, and its value
against the workload's NumPy source; Jacobians against central differences of that source.

Input: the path of the shared library (default: found under `build/`). Output: one line a kernel; the exit
status is 1 when any difference is above its bound. Run by ctest.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import scipy.special

from benchmarks import native
from benchmarks.workload import Namespace, Pytree
from benchmarks.workloads import (
    black_scholes,
    elementwise_chain,
    filters,
    integrators,
    log_sum_exp,
    logistic_regression,
    mlp,
    newton,
    pairwise_energy,
    projection_jacobians,
    recurrent,
    small_matrices,
    stencil,
)

SEED = 7
STEP = 1e-5
VALUE_BOUND, GRADIENT_BOUND = 1e-12, 1e-7

# Sizes are no multiples of a vector or block, so that the loops' tails run too. What follows a colon in a
# name says which of several ways through a kernel's code is meant.
CASES: dict[str, tuple[Any, tuple[Pytree, ...], tuple[int, ...]]] = {
    "black_scholes": (black_scholes.make, black_scholes.inputs(37, SEED, "float64"), (0, 1, 2, 3, 4)),
    "mlp_16_32_32_4": (
        partial(mlp.make_classifier, "tanh"),
        mlp.inputs((16, 32, 32, 4), 5, SEED, "float64"),
        (0,),
    ),
    "log_sum_exp": (log_sum_exp.make, log_sum_exp.inputs(5, 19, SEED, "float64"), (0,)),
    "elementwise_chain": (elementwise_chain.make, elementwise_chain.inputs(83, SEED, "float64"), (0, 1)),
    "logistic_regression": (
        logistic_regression.make,
        logistic_regression.inputs(101, 7, SEED, "float64"),
        (0, 1),
    ),
    "small_matrices": (small_matrices.make, small_matrices.inputs(13, SEED, "float64"), (0, 1)),
    "stencil": (stencil.make, stencil.inputs(9, 11, SEED, "float64"), (0, 1)),
    "pairwise_energy": (pairwise_energy.make, pairwise_energy.inputs(23, SEED, "float64"), (0, 1)),
    "rnn": (partial(recurrent.make, "rnn"), recurrent.inputs("rnn", 43, 7, 19, SEED, "float64"), (0,)),
    "rnn: no batch": (
        partial(recurrent.make, "rnn"),
        recurrent.inputs("rnn", 8, 75, 1, SEED, "float64"),
        (0,),
    ),
    "kalman": (filters.make_kalman, filters.kalman_inputs(11, SEED, "float64"), (0,)),
    "rk4_9": (partial(integrators.make, 9, False), integrators.inputs(SEED, "float64"), (0, 1)),
    "newton": (partial(newton.make, False), newton.inputs(5, False, SEED, "float64"), (0,)),
}


def jacobian_difference(fast: bool, path: Path | None) -> float:
    """Largest error of a projection's Jacobian, relative to the largest entry."""
    camera, points = projection_jacobians.inputs(37, SEED, "float64")
    project = projection_jacobians.make(Namespace(numpy, scipy.special))
    found = native.KERNELS["projection_jacobians"].function(fast, path)(camera, points)
    steps = STEP * numpy.eye(3)
    slopes = numpy.array(
        [[(project(camera, p + d) - project(camera, p - d)) / (2.0 * STEP) for d in steps] for p in points]
    )
    expected = numpy.swapaxes(slopes, 1, 2)
    return float(numpy.max(numpy.abs(found - expected)) / numpy.max(numpy.abs(expected)))


def root_difference(fast: bool, path: Path | None) -> float:
    """Relative error of the sum of roots, where no gradient is asked for."""
    (numbers,) = newton.inputs(5, False, SEED, "float64")
    found = native.KERNELS["newton_value"].function(fast, path)(numbers)
    expected = float(numpy.sum(numpy.cbrt(numbers)))
    return abs(float(found) - expected) / expected


def flat(tree: Pytree) -> list[numpy.ndarray]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in flat(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [leaf for child in tree for leaf in flat(child)]
    return [tree]


def differences(name: str, fast: bool, path: Path | None) -> tuple[float, float]:
    """Relative error of the value and of the directional derivatives along each differentiated array."""
    make, arguments, argnums = CASES[name]
    kernel = native.KERNELS[name.partition(":")[0]].function(fast, path)
    expected = make(Namespace(numpy, scipy.special))(*arguments)
    value, gradients = kernel(*arguments)
    arrays = flat(tuple(arguments[position] for position in argnums))
    rng = numpy.random.default_rng(SEED)
    worst = 0.0
    for array, gradient in zip(arrays, flat(gradients), strict=True):
        original = array.copy()
        # A random direction sees every entry; single entries catch errors that could cancel in a sum.
        directions = [rng.normal(size=array.shape)]
        for index in rng.integers(array.size, size=3):
            unit = numpy.zeros(array.size)
            unit[index] = 1.0
            directions.append(unit.reshape(array.shape))
        for direction in directions:
            sides = []
            for sign in (1.0, -1.0):
                array[...] = original + sign * STEP * direction
                sides.append(kernel(*arguments)[0])
            array[...] = original
            slope = (sides[0] - sides[1]) / (2.0 * STEP)
            # A small slope of a large value carries the value's rounding: bound relative to both.
            scale = max(abs(slope), abs(float(value)), 1.0)
            worst = max(worst, abs(slope - float(numpy.sum(gradient * direction))) / scale)
    return abs(float(value) - float(expected)) / max(abs(float(expected)), 1.0), worst


def main(arguments: list[str]) -> int:
    path = Path(arguments[0]) if arguments else None
    failed = 0
    for fast in (False, True):
        for name in CASES:
            value_error, gradient_error = differences(name, fast, path)
            failed += tell(
                name, fast, value=(value_error, VALUE_BOUND), gradient=(gradient_error, GRADIENT_BOUND)
            )
        failed += tell(
            "projection_jacobians", fast, jacobian=(jacobian_difference(fast, path), GRADIENT_BOUND)
        )
        failed += tell("newton_value", fast, value=(root_difference(fast, path), VALUE_BOUND))
    return 1 if failed else 0


def tell(name: str, fast: bool, **errors: tuple[float, float]) -> bool:
    """Print each error, given with its bound; whether one is above."""
    # Written so that NaN fails.
    good = all(error <= bound for error, bound in errors.values())
    found = "  ".join(f"{what} {error:.1e}" for what, (error, _) in errors.items())
    print(f"{'ok    ' if good else 'FAILED'} {name + (' (fast)' if fast else ''):30} {found}")
    return not good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
