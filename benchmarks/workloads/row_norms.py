"""Layer norm and RMS norm of rows, with scale and shift; the loss weights every entry, so that no gradient
vanishes.

Formulas: J. L. Ba, J. R. Kiros, G. E. Hinton, 2016; B. Zhang, R. Sennrich, 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, FULL, TEST, Namespace, Pytree, Workload

EPSILON = 1e-5


def make_layer_norm(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any, scale: Any, shift: Any, weights: Any) -> Any:
        centred = x - np.mean(x, axis=1, keepdims=True)
        variance = np.mean(centred * centred, axis=1, keepdims=True)
        return np.sum(weights * (centred / np.sqrt(variance + EPSILON) * scale + shift))

    return f


def torch_layer_norm(torch: Any, x: Any, scale: Any, shift: Any, weights: Any) -> Any:
    return torch.sum(weights * torch.nn.functional.layer_norm(x, x.shape[1:], scale, shift, EPSILON))


def make_rms_norm(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any, scale: Any, weights: Any) -> Any:
        square = np.mean(x * x, axis=1, keepdims=True)
        return np.sum(weights * (x / np.sqrt(square + EPSILON) * scale))

    return f


def torch_rms_norm(torch: Any, x: Any, scale: Any, weights: Any) -> Any:
    return torch.sum(weights * torch.nn.functional.rms_norm(x, x.shape[1:], scale, EPSILON))


def inputs(rows: int, columns: int, vectors: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    given = [
        rng.normal(size=(rows, columns)),
        *rng.uniform(0.5, 1.5, (vectors, columns)),
        rng.normal(size=(rows, columns)),
    ]
    return tuple(array.astype(dtype) for array in given)


def _workload(family: str, rows: int, columns: int, suites: Sequence[str]) -> Workload:
    layer = family == "layer_norm"
    return Workload(
        f"{family}_{rows}x{columns}",
        make_layer_norm if layer else make_rms_norm,
        partial(inputs, rows, columns, 2 if layer else 1),
        argnums=(0, 1, 2) if layer else (0, 1),
        dtypes=("float64", "float32"),
        family=family,
        size=rows * columns,
        suites=suites,
        torch=torch_layer_norm if layer else torch_rms_norm,
        pytensor=True,
        flops=rows * columns * (20 if layer else 14),
    )


WORKLOADS = tuple(
    _workload(family, rows, columns, suites)
    for family in ("layer_norm", "rms_norm")
    for rows, columns, suites in ((5, 19, TEST), (256, 256, BOTH), (4096, 1024, FULL))
)
