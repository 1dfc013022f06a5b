"""Multi-head self-attention of one sequence, and the gradient of a loss in its four weight matrices and its
input.

Formula: A. Vaswani et al., 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload


def make(width: int, heads: int, ns: Namespace) -> Callable[..., Any]:
    np = ns.np

    def f(x: Any, wq: Any, wk: Any, wv: Any, wo: Any) -> Any:
        length = x.shape[0]

        def split(z: Any) -> Any:
            return np.transpose(np.reshape(z, (length, heads, width // heads)), (1, 0, 2))

        q, k, v = split(x @ wq), split(x @ wk), split(x @ wv)
        scores = (q @ np.transpose(k, (0, 2, 1))) / math.sqrt(width // heads)
        e = np.exp(scores - np.max(scores, axis=2, keepdims=True))
        mixed = (e / np.sum(e, axis=2, keepdims=True)) @ v
        out = x + np.reshape(np.transpose(mixed, (1, 0, 2)), (length, width)) @ wo
        return np.mean(out * out)

    return f


def torch_port(heads: int, torch: Any, x: Any, wq: Any, wk: Any, wv: Any, wo: Any) -> Any:
    length, width = x.shape

    def split(z: Any) -> Any:
        return z.reshape(length, heads, width // heads).transpose(0, 1)

    attend = torch.nn.functional.scaled_dot_product_attention
    mixed = attend(split(x @ wq), split(x @ wk), split(x @ wv))
    out = x + mixed.transpose(0, 1).reshape(length, width) @ wo
    return torch.mean(out * out)


def inputs(length: int, width: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    weights = [(rng.normal(size=(width, width)) / math.sqrt(width)).astype(dtype) for _ in range(4)]
    return rng.normal(size=(length, width)).astype(dtype), *weights


def _workload(length: int, width: int, heads: int, suites: Sequence[str]) -> Workload:
    # Four projections, then scores and mixing; backward twice as much.
    flops = 3 * (2.0 * 4 * length * width * width + 2.0 * 2 * length * length * width)
    return Workload(
        f"attention_{length}",
        partial(make, width, heads),
        partial(inputs, length, width),
        argnums=(0, 1, 2, 3, 4),
        dtypes=("float64", "float32"),
        family="attention",
        size=length,
        suites=suites,
        torch=partial(torch_port, heads),
        pytensor=True,
        flops=flops + heads * length * length * ELEMENTARY,
    )


WORKLOADS = (_workload(7, 6, 2, TEST), _workload(64, 64, 4, BOTH), _workload(512, 64, 4, FULL))
