"""Sum over rows of log(sum(exp(row))), with the row's maximum taken out by hand. Its gradient is the softmax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import Namespace, Pytree, Workload


def make(ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any) -> Any:
        top = np.max(x, axis=1, keepdims=True)
        return np.sum(np.log(np.sum(np.exp(x - top), axis=1)) + top[:, 0])

    return f


def torch_port(torch: Any, x: Any) -> Any:
    return torch.sum(torch.logsumexp(x, dim=1))


def inputs(rows: int, columns: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (3.0 * numpy.random.default_rng(seed).normal(size=(rows, columns)).astype(dtype),)


WORKLOADS = (Workload("log_sum_exp", make, partial(inputs, 512, 200), torch=torch_port, native="log_sum_exp"),)
