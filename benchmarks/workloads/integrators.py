"""Lotka-Volterra's equations integrated in time: value and gradient of the sum of squares at the end, with
respect to the four rates and the starting point.

By Runge and Kutta's classical steps of one length, in a loop of the library and in a plain Python loop; and
by P. Bogacki's and L. F. Shampine's pair of orders 3 and 2 (1989), whose steps a controller chooses, in a
loop that runs until the end is reached. The chosen lengths are differentiated too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, TEST, UNROLLED, Namespace, Pytree, Workload, label
from benchmarks.workloads.recurrent import TOO_SLOW

STEP = 0.01
Point = tuple[Any, Any]


def field(rates: Any, point: Point) -> Point:
    """Derivative in time of the number of prey and of predators."""
    growth, hunted, gain, death = rates
    prey, predators = point
    return (growth - hunted * predators) * prey, (gain * prey - death) * predators


def moved(point: Point, step: Any, slope: Point) -> Point:
    return point[0] + step * slope[0], point[1] + step * slope[1]


def classical(rates: Any, point: Point) -> Point:
    """One step of order four."""
    k1 = field(rates, point)
    k2 = field(rates, moved(point, 0.5 * STEP, k1))
    k3 = field(rates, moved(point, 0.5 * STEP, k2))
    k4 = field(rates, moved(point, STEP, k3))
    sixth = STEP / 6.0
    return (
        point[0] + sixth * (k1[0] + 2.0 * (k2[0] + k3[0]) + k4[0]),
        point[1] + sixth * (k1[1] + 2.0 * (k2[1] + k3[1]) + k4[1]),
    )


def make(steps: int, unrolled: bool, ns: Namespace) -> Callable[..., Any]:
    def f(rates: Any, start: Any) -> Any:
        rates, point = tuple(rates[i] for i in range(4)), (start[0], start[1])
        if unrolled:
            for _ in range(steps):
                point = classical(rates, point)
        else:
            point = ns.loops.fori_loop(0, steps, lambda i, at: classical(rates, at), point)
        return point[0] ** 2 + point[1] ** 2

    return f


def torch_port(steps: int, torch: Any, rates: Any, start: Any) -> Any:
    rates, point = rates.unbind(), start.unbind()
    for _ in range(steps):
        point = classical(rates, point)
    return point[0] ** 2 + point[1] ** 2


def inputs(seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    rates = numpy.array([1.5, 1.0, 1.0, 3.0]) * rng.uniform(0.9, 1.1, 4)
    return rates.astype(dtype), rng.uniform(0.8, 1.2, 2).astype(dtype)


OPERATIONS = 4 * 6 + 3 * 4 + 10
"""Additions and multiplications of a classical step; backward takes twice as many."""


def _classical(steps: int, unrolled: bool, suites: Sequence[str]) -> Workload:
    family = "rk4_unrolled" if unrolled else "rk4"
    return Workload(
        f"{family}_{label(steps)}",
        partial(make, steps, unrolled),
        inputs,
        argnums=(0, 1),
        family=family,
        size=steps,
        suites=suites,
        torch=partial(torch_port, steps),
        # Its compiler takes minutes for the unrolled loop.
        jax=partial(make, steps, False),
        absent={"torch.compile": TOO_SLOW},
        native=f"rk4_{steps}",
        flops=3 * steps * OPERATIONS,
    )


TOLERANCE, FIRST_STEP, NEARLY = 1e-5, 1e-2, 1e-10
SAFETY, LEAST, MOST = 0.9, 0.2, 5.0
TINY = 1e-12
"""Added to the squared error, so that its root has a slope where a step is exact."""


def make_attempt(ns: Namespace, end: float) -> Callable[[Any, Any], Any]:
    """A step of order three of the carry (time, length, point, slope), taken if its error is small."""
    np = ns.np

    def attempt(rates: Any, carry: Any) -> Any:
        time, length, point, k1 = carry
        length = np.minimum(length, end - time)
        k2 = field(rates, moved(point, 0.5 * length, k1))
        k3 = field(rates, moved(point, 0.75 * length, k2))
        slope = tuple((2.0 * a + 3.0 * b + 4.0 * c) / 9.0 for a, b, c in zip(k1, k2, k3))
        new = moved(point, length, slope)
        k4 = field(rates, new)
        # Difference to the embedded step of order two.
        wrong = [
            length * (-5.0 * a + 6.0 * b + 8.0 * c - 9.0 * d) / 72.0 for a, b, c, d in zip(k1, k2, k3, k4)
        ]
        parts = [w / (TOLERANCE * (1.0 + np.abs(p))) for w, p in zip(wrong, point)]
        error = np.sqrt(0.5 * (parts[0] * parts[0] + parts[1] * parts[1]) + TINY)
        factor = np.clip(SAFETY * error ** (-1.0 / 3.0), LEAST, MOST)
        taken = error <= 1.0

        def chosen(after: Point, before: Point) -> Point:
            return np.where(taken, after[0], before[0]), np.where(taken, after[1], before[1])

        time = np.where(taken, time + length, time)
        return time, length * factor, chosen(new, point), chosen(k4, k1)

    return attempt


def make_adaptive(end: float, bound: int | None, ns: Namespace) -> Callable[..., Any]:
    """With `bound`, that many attempts, which change nothing once the end is reached: the form that reverse
    mode through a loop of known length can take. They select, at which JAX is three times as fast as at a
    branch.
    """
    np, attempt = ns.np, make_attempt(ns, end)

    def f(rates: Any, start: Any) -> Any:
        rates, point = tuple(rates[i] for i in range(4)), (start[0], start[1])
        zero = 0.0 * start[0]
        first = (zero, zero + FIRST_STEP, point, field(rates, point))

        def unfinished(carry: Any) -> Any:
            return end - carry[0] > NEARLY

        def masked(i: Any, carry: Any) -> Any:
            more, (time, length, point, slope) = unfinished(carry), attempt(rates, carry)
            before = (carry[0], carry[1], *carry[2], *carry[3])
            after = (time, length, *point, *slope)
            time, length, *rest = (np.where(more, new, old) for new, old in zip(after, before))
            return time, length, (rest[0], rest[1]), (rest[2], rest[3])

        if bound is None:
            carry = ns.loops.while_loop(unfinished, lambda at: attempt(rates, at), first)
        else:
            carry = ns.loops.fori_loop(0, bound, masked, first)
        return carry[2][0] ** 2 + carry[2][1] ** 2

    return f


def torch_adaptive(end: float, torch: Any, rates: Any, start: Any) -> Any:
    attempt = make_attempt(Namespace(torch, None), end)
    rates, point = rates.unbind(), start.unbind()
    zero = 0.0 * start[0]
    carry = (zero, zero + FIRST_STEP, point, field(rates, point))
    while end - carry[0] > NEARLY:
        carry = attempt(rates, carry)
    return carry[2][0] ** 2 + carry[2][1] ** 2


def _adaptive(end: float, bound: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"adaptive_rk_{end:g}",
        partial(make_adaptive, end, None),
        inputs,
        argnums=(0, 1),
        family="adaptive_rk",
        size=end,
        suites=suites,
        torch=partial(torch_adaptive, end),
        jax=partial(make_adaptive, end, bound),
        absent={"torch.compile": TOO_SLOW},
    )


WORKLOADS = (
    _classical(9, False, TEST),
    _classical(1_000, False, BOTH),
    _classical(9, True, TEST),
    _classical(100, True, BOTH),
    _classical(500, True, UNROLLED),
    _classical(2_000, True, UNROLLED),
    _adaptive(1.0, 40, TEST),
    _adaptive(10.0, 400, BOTH),
)
