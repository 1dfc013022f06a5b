"""Sum of European call prices over many rows. Its gradient with respect to the five input arrays gives every
row's greeks. Formula: F. Black and M. Scholes, 1973."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload, label

SQRT_HALF = 0.7071067811865476


def make(ns: Namespace) -> Callable[..., Any]:
    np, special = ns.np, ns.special

    def cdf(x: Any) -> Any:
        return 0.5 * special.erf(x * SQRT_HALF) + 0.5

    def f(spot: Any, strike: Any, expiry: Any, rate: Any, vol: Any) -> Any:
        spread = vol * np.sqrt(expiry)
        d1 = (np.log(spot / strike) + (rate + 0.5 * vol * vol) * expiry) / spread
        d2 = d1 - spread
        return np.sum(spot * cdf(d1) - strike * np.exp(-rate * expiry) * cdf(d2))

    return f


def inputs(rows: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    ranges = ((80, 120), (80, 120), (0.25, 2.0), (0.01, 0.06), (0.15, 0.45))
    return tuple(rng.uniform(low, high, rows).astype(dtype) for low, high in ranges)


def torch_port(torch: Any, spot: Any, strike: Any, expiry: Any, rate: Any, vol: Any) -> Any:
    spread = vol * torch.sqrt(expiry)
    d1 = (torch.log(spot / strike) + (rate + 0.5 * vol * vol) * expiry) / spread
    cdf1, cdf2 = torch.special.ndtr(d1), torch.special.ndtr(d1 - spread)
    return torch.sum(spot * cdf1 - strike * torch.exp(-rate * expiry) * cdf2)


def _workload(rows: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"black_scholes_{label(rows)}",
        make,
        partial(inputs, rows),
        argnums=(0, 1, 2, 3, 4),
        family="black_scholes",
        size=rows,
        suites=suites,
        torch=torch_port,
        native="black_scholes",
        numba="black_scholes",
        pytensor=True,
        # log, sqrt, two erf, two exp (one of them the density), and the arithmetic between them.
        flops=rows * (6 * ELEMENTARY + 40),
    )


WORKLOADS = (
    _workload(37, TEST),
    _workload(1_000, ("full", "quick", "spine")),
    _workload(100_000, BOTH),
    _workload(1_000_000, ("spine",)),
    _workload(10_000_000, FULL),
)
