"""Gradient descent inside of gradient descent: the error on held-out rows after a hundred steps of ridge
regression, differentiated with respect to the logarithms of learning rate and penalty. Each of the two
derivatives is taken forward or backward: `descent_reverse_over_forward` takes the outer one backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy

from benchmarks.workload import BOTH, TEST, Namespace, Pytree, Workload
from benchmarks.workloads.recurrent import TOO_SLOW

STEPS = 100
MODES = {"forward": "jacfwd", "reverse": "grad"}
NOT_NESTED = {"autograd": "its forward mode fills a NumPy array, which takes no traced numbers"}


def loss(mean: Callable[[Any], Any], weights: Any, penalty: Any, x: Any, y: Any) -> Any:
    return 0.5 * mean((x @ weights - y) ** 2) + 0.5 * penalty * (weights @ weights)


def make(inner: str, ns: Namespace) -> Callable[..., Any]:
    np = ns.np
    gradient = getattr(ns.transforms, MODES[inner])(partial(loss, np.mean), 0)

    def f(logarithms: Any, x: Any, y: Any, held_x: Any, held_y: Any) -> Any:
        rate, penalty = np.exp(logarithms[0]), np.exp(logarithms[1])

        def step(i: Any, weights: Any) -> Any:
            return weights - rate * gradient(weights, penalty, x, y)

        weights = ns.loops.fori_loop(0, STEPS, step, np.zeros(x.shape[1]))
        return np.mean((held_x @ weights - held_y) ** 2)

    return f


def torch_port(inner: str, torch: Any, logarithms: Any, x: Any, y: Any, held_x: Any, held_y: Any) -> Any:
    gradient = getattr(torch.func, MODES[inner])(partial(loss, torch.mean), 0)
    rate, penalty = torch.exp(logarithms).unbind()
    weights = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(STEPS):
        weights = weights - rate * gradient(weights, penalty, x, y)
    return torch.mean((held_x @ weights - held_y) ** 2)


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    x, held_x = rng.normal(size=(2, rows, columns))
    true = rng.normal(size=columns)
    y, held_y = (side @ true + 0.5 * rng.normal(size=rows) for side in (x, held_x))
    return tuple(array.astype(dtype) for array in (numpy.array([-3.0, -2.0]), x, y, held_x, held_y))


def _workload(
    outer: Literal["forward", "reverse"], inner: str, rows: int, columns: int, suites: Sequence[str]
) -> Workload:
    return Workload(
        f"descent_{outer}_over_{inner}_{rows}x{columns}",
        partial(make, inner),
        partial(inputs, rows, columns),
        transform="jacfwd" if outer == "forward" else "grad",
        family=f"descent_{outer}_over_{inner}",
        size=rows * columns,
        suites=suites,
        torch=partial(torch_port, inner),
        absent={"torch.compile": TOO_SLOW} | (NOT_NESTED if inner == "forward" else {}),
        # Two products a step; forward twice again for each of two directions, backward twice again.
        flops=STEPS * 4 * rows * columns * 3,
    )


WORKLOADS = tuple(
    _workload(outer, inner, rows, columns, suites)
    for outer in ("forward", "reverse")
    for inner in ("forward", "reverse")
    for rows, columns, suites in ((5, 3, TEST), (32, 8, BOTH))
)
