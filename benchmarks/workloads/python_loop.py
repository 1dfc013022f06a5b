"""A long Python loop of scalar operations, traced out in full: nothing repeats, nothing folds, depth is
length.

A swinging pendulum by symplectic Euler steps: neither the state nor its derivatives die out or blow up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.workload import TEST, Namespace, Pytree, Workload, label

OPERATIONS_A_TURN = 5


def make(operations: int, ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(angle: Any, speed: Any) -> Any:
        for _ in range(operations // OPERATIONS_A_TURN):
            speed = speed - 0.1 * np.sin(angle)
            angle = angle + 0.1 * speed
        return angle

    return f


def inputs(seed: int, dtype: str) -> tuple[Pytree, ...]:
    return 1.0, seed / 1000.0


WORKLOADS = tuple(
    Workload(
        f"python_loop_{label(operations)}",
        partial(make, operations),
        inputs,
        argnums=(0, 1),
        family="python_loop",
        size=operations,
        suites=suites,
    )
    for operations, suites in ((100, TEST), (1_000, ("spine",)), (10_000, ("spine",)), (100_000, ("spine",)))
)
