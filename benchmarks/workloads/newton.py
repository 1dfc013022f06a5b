"""Cube roots by Newton's iteration from far away, one number after the other, each until a step is small: the
sum of the roots, its derivative along a direction, and its value and gradient through all iterations.

Far from the root a step takes away a third, so a root takes some seventy iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy

from benchmarks.workload import BOTH, TEST, Namespace, Pytree, Workload

FAR, TOLERANCE = 1e12, 1e-9
BOUND = 100
"""Iterations that are enough for every root."""


def iteration(a: Any, x: Any) -> Any:
    return (2.0 * x + a / (x * x)) / 3.0


def make(bounded: bool, ns: Namespace) -> Callable[..., Any]:
    """`bounded` is the form that reverse mode through a loop of known length can take: BOUND iterations,
    which change nothing once the step is small.
    """
    np, loops = ns.np, ns.loops

    def unfinished(carry: Any) -> Any:
        x, before = carry
        return np.abs(x - before) > TOLERANCE * np.abs(x)

    def f(numbers: Any) -> Any:
        def add_root(total: Any, a: Any) -> Any:
            def body(carry: Any) -> Any:
                return iteration(a, carry[0]), carry[0]

            def masked(i: Any, carry: Any) -> Any:
                more, new = unfinished(carry), body(carry)
                return np.where(more, new[0], carry[0]), np.where(more, new[1], carry[1])

            first = (0.0 * a + FAR, 0.0 * a)
            if bounded:
                root, _ = loops.fori_loop(0, BOUND, masked, first)
            else:
                root, _ = loops.while_loop(unfinished, body, first)
            return total + root, None

        return loops.scan(add_root, 0.0 * numbers[0], numbers)[0]

    return f


def torch_port(torch: Any, numbers: Any) -> Any:
    total = torch.zeros((), dtype=numbers.dtype)
    for a in numbers:
        x, before = torch.full_like(a, FAR), torch.zeros_like(a)
        while torch.abs(x - before) > TOLERANCE * torch.abs(x):
            x, before = iteration(a, x), x
        total = total + x
    return total


def inputs(count: int, directed: bool, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    numbers = rng.uniform(1.0, 10.0, count).astype(dtype)
    return (numbers, rng.normal(size=count).astype(dtype)) if directed else (numbers,)


IN_PIECES = "it compiles every turn of the loop by itself, and is slower than without"
NATIVE = {"jit": "newton_value", "value_and_grad": "newton"}


def _workload(
    family: str, transform: Literal["jit", "jvp", "value_and_grad"], count: int, suites: Sequence[str]
) -> Workload:
    return Workload(
        f"{family}_{count}",
        partial(make, False),
        partial(inputs, count, transform == "jvp"),
        transform=transform,
        family=family,
        size=count,
        suites=suites,
        torch=torch_port,
        # JAX differentiates a loop of unknown length forward only.
        jax=partial(make, True) if transform == "value_and_grad" else None,
        absent={"torch.compile": IN_PIECES},
        native=NATIVE.get(transform),
    )


WORKLOADS = tuple(
    _workload(family, transform, count, suites)
    for family, transform in (("newton", "jit"), ("newton_jvp", "jvp"), ("newton_grad", "value_and_grad"))
    for count, suites in ((3, TEST), (1, BOTH), (100, BOTH))
)
