"""Rosenbrock's function of n variables: its gradient, its Hessian (three diagonals, the rest zeros), and its
minimum by SciPy's L-BFGS-B from halfway to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, QUICK, TEST, Namespace, Pytree, Workload, label


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    return f


def torch_port(torch: Any, x: Any) -> Any:
    return torch.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def inputs(size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (numpy.random.default_rng(seed).uniform(-2.0, 2.0, size).astype(dtype),)


def start(size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    """The minimum is at ones. From the origin a thousand variables take five thousand iterations, one after
    the other.
    """
    return (numpy.full(size, 0.5, dtype),)


_workload = partial(Workload, make=make, torch=torch_port, numba="rosenbrock", pytensor=True)


def _gradient(size: int, suites: Sequence[str]) -> Workload:
    name = f"rosenbrock_{label(size)}"
    return _workload(
        name, inputs=partial(inputs, size), family="rosenbrock", size=size, suites=suites, flops=size * 16
    )


def _hessian(size: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"rosenbrock_hessian_{label(size)}",
        make,
        partial(inputs, size),
        transform="hessian",
        family="rosenbrock_hessian",
        size=size,
        suites=suites,
        torch=torch_port,
        flops=size * 10,
    )


def _minimum(size: int, suites: Sequence[str]) -> Workload:
    name, first = f"rosenbrock_lbfgs_{label(size)}", partial(start, size)
    # Roundings steer the path, and the stopping rule is a relative one: the minimum is met to three digits.
    near = {"float64": 1e-2}
    return _workload(
        name,
        inputs=first,
        family="rosenbrock_lbfgs",
        size=size,
        suites=suites,
        transform="minimize",
        same_as=near,
    )


WORKLOADS = (
    *(
        _gradient(size, suites)
        for size, suites in (
            (2, (*BOTH, *TEST)),
            (19, TEST),
            (1_000, BOTH),
            (100_000, QUICK),
            (1_000_000, FULL),
        )
    ),
    _hessian(7, TEST),
    _hessian(100, BOTH),
    _minimum(2, (*BOTH, *TEST)),
    _minimum(1_000, FULL),
)
