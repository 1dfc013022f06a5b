"""A deep network, layers of dense - layer norm - GELU: value and gradient, plain, and with `checkpoint`
around every few layers, which keeps only what goes from block to block and computes the rest again on the way
back.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import ELEMENTARY, FULL, QUICK, TEST, Namespace, Pytree, Workload

EPSILON = 1e-5


def make(block_size: int, checkpointed: bool, ns: Namespace) -> Callable[..., Any]:
    np, special = ns.np, ns.special

    def block(x: Any, layers: Any) -> Any:
        for weights, bias, scale, shift in layers:
            z = x @ weights + bias
            centred = z - np.mean(z, axis=1, keepdims=True)
            variance = np.mean(centred * centred, axis=1, keepdims=True)
            z = centred / np.sqrt(variance + EPSILON) * scale + shift
            x = 0.5 * z * (1.0 + special.erf(z * 0.5**0.5))
        return x

    one = ns.transforms.checkpoint(block) if checkpointed else block

    def f(layers: Any, x: Any, y: Any) -> Any:
        for first in range(0, len(layers), block_size):
            x = one(x, layers[first : first + block_size])
        return np.mean((x - y) ** 2)

    return f


def torch_port(block_size: int, checkpointed: bool, torch: Any, layers: Any, x: Any, y: Any) -> Any:
    functional = torch.nn.functional

    def block(x: Any, layers: Any) -> Any:
        for weights, bias, scale, shift in layers:
            z = functional.layer_norm(torch.addmm(bias, x, weights), bias.shape, scale, shift, EPSILON)
            x = functional.gelu(z)
        return x

    checkpoint = importlib.import_module("torch.utils.checkpoint").checkpoint
    one = partial(checkpoint, block, use_reentrant=False) if checkpointed else block
    for first in range(0, len(layers), block_size):
        x = one(x, layers[first : first + block_size])
    return functional.mse_loss(x, y)


def inputs(depth: int, width: int, batch: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    layers = []
    for _ in range(depth):
        layer = (
            rng.normal(size=(width, width)) / numpy.sqrt(width),
            0.1 * rng.normal(size=width),
            rng.uniform(1.5, 2.0, width),
            0.1 * rng.normal(size=width),
        )
        layers.append(tuple(array.astype(dtype) for array in layer))
    x, y = (rng.normal(size=(batch, width)).astype(dtype) for _ in range(2))
    return layers, x, y


def _workload(
    depth: int, width: int, batch: int, block_size: int, checkpointed: bool, suites: Sequence[str]
) -> Workload:
    name = "deep_network_checkpoint" if checkpointed else "deep_network"
    numbers = batch * width
    return Workload(
        f"{name}_{depth}x{width}",
        partial(make, block_size, checkpointed),
        partial(inputs, depth, width, batch),
        family=name,
        size=depth * numbers * width,
        suites=suites,
        torch=partial(torch_port, block_size, checkpointed),
        # What is computed twice is no part of what the result takes.
        flops=depth * numbers * (6 * width + 30 + 2 * ELEMENTARY),
    )


WORKLOADS = tuple(
    _workload(depth, width, batch, block_size, checkpointed, suites)
    for checkpointed in (False, True)
    for depth, width, batch, block_size, suites in (
        (4, 6, 5, 2, TEST),
        (12, 64, 64, 3, QUICK),
        (50, 256, 512, 5, FULL),
    )
)
