"""Heat steps on a grid whose edges meet, by `np.roll` in a plain Python loop and in `fori_loop`, and by
padding and slices: value and gradient with respect to the grid and a conductivity field.

JAX gets its own loop over the first form: of the unrolled one its compiler makes code that computes every
sweep again for each of the next one's neighbours, a hundred times as slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.workload import FULL, QUICK, TEST, Namespace, Workload
from benchmarks.workloads import stencil

SWEEPS = 8


def make_rolled(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(u: Any, c: Any) -> Any:
        for _ in range(SWEEPS):
            around = np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1)
            u = u + c * (around - 4.0 * u)
        return np.sum(u * u)

    return f


def make_looped(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(u: Any, c: Any) -> Any:
        def sweep(_: Any, u: Any) -> Any:
            around = np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1)
            return u + c * (around - 4.0 * u)

        u = ns.loops.fori_loop(0, SWEEPS, sweep, u)
        return np.sum(u * u)

    return f


def torch_rolled(torch: Any, u: Any, c: Any) -> Any:
    for _ in range(SWEEPS):
        around = torch.roll(u, 1, 0) + torch.roll(u, -1, 0) + torch.roll(u, 1, 1) + torch.roll(u, -1, 1)
        u = u + c * (around - 4.0 * u)
    return torch.sum(u * u)


def make_padded(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(u: Any, c: Any) -> Any:
        for _ in range(SWEEPS):
            p = np.concatenate([u[-1:], u, u[:1]], axis=0)
            p = np.concatenate([p[:, -1:], p, p[:, :1]], axis=1)
            around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
            u = u + c * (around - 4.0 * u)
        return np.sum(u * u)

    return f


def torch_padded(torch: Any, u: Any, c: Any) -> Any:
    for _ in range(SWEEPS):
        p = torch.nn.functional.pad(u[None, None], (1, 1, 1, 1), mode="circular")[0, 0]
        around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
        u = u + c * (around - 4.0 * u)
    return torch.sum(u * u)


FORMS = {
    "periodic_rolled": (make_rolled, torch_rolled),
    "periodic_looped": (make_looped, torch_rolled),
    "periodic_padded": (make_padded, torch_padded),
}


def _workload(family: str, rows: int, columns: int, suites: Sequence[str]) -> Workload:
    make, port = FORMS[family]
    return Workload(
        f"{family}_{rows}x{columns}",
        make,
        partial(stencil.inputs, rows, columns),
        argnums=(0, 1),
        family=family,
        size=rows * columns,
        suites=suites,
        torch=port,
        jax=make_looped,
        # As for the stencil with zeros outside.
        flops=rows * columns * SWEEPS * 23,
        moved=rows * columns * (4 + 2 * SWEEPS),
    )


WORKLOADS = tuple(
    _workload(family, rows, columns, suites)
    for family in FORMS
    for rows, columns, suites in ((7, 9, TEST), (120, 150, QUICK), (400, 500, FULL))
)
