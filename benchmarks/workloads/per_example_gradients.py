"""The gradient of a network's loss for each example of a batch, none of them summed: `vmap` of `grad`.

What private training clips example by example (M. Abadi et al., 2016), and what importance sampling and
influence functions look at. The parameters are shared, their gradients are as many as the examples: 64-64-10
is a network for 8x8 digits, 784-128-10 one for MNIST, and 128 examples are one of the batches in the
comparison of implementations by P. Subramani, N. Vadivelu and G. Kamath, 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.workload import BOTH, FULL, TEST, Namespace, Workload
from benchmarks.workloads import mlp


def make(ns: Namespace) -> Callable[..., Any]:
    np, special = ns.np, ns.special

    def loss(params: Any, x: Any, y: Any) -> Any:
        *hidden, last = zip(params["weights"], params["biases"], strict=True)
        h = x
        for weights, bias in hidden:
            h = np.tanh(h @ weights + bias)
        logits = h @ last[0] + last[1]
        return special.logsumexp(logits) - np.sum(y * logits)

    return loss


def torch_port(torch: Any, params: Any, x: Any, y: Any) -> Any:
    *hidden, last = zip(params["weights"], params["biases"], strict=True)
    h = x
    for weights, bias in hidden:
        h = torch.tanh(h @ weights + bias)
    logits = h @ last[0] + last[1]
    return torch.logsumexp(logits, 0) - torch.sum(y * logits)


def _workload(sizes: tuple[int, ...], batch: int, suites: Sequence[str]) -> Workload:
    return Workload(
        "per_example_gradients_" + "_".join(map(str, (*sizes, batch))),
        make,
        partial(mlp.inputs, sizes, batch),
        transform="grad",
        in_axes=(None, 0, 0),
        family="per_example_gradients",
        size=mlp.products(sizes, batch),
        suites=suites,
        torch=torch_port,
        # The outer products of the way back have nothing to add up.
        flops=mlp.products(sizes, batch) / 2,
    )


WORKLOADS = (
    _workload((5, 7, 3), 6, TEST),
    _workload((64, 64, 10), 128, BOTH),
    _workload((784, 128, 10), 128, FULL),
)
