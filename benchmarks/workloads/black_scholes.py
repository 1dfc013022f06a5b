"""Sum of European call prices over many rows. Its gradient with respect to the five input arrays gives every
row's greeks. Formula: F. Black and M. Scholes, 1973."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload

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


def _workload(name: str, rows: int) -> Workload:
    return Workload(
        name,
        make,
        partial(inputs, rows),
        argnums=(0, 1, 2, 3, 4),
        torch=torch_port,
        native="black_scholes",
    )


WORKLOADS = (_workload("black_scholes_1e3", 1_000), _workload("black_scholes_1e6", 1_000_000))
