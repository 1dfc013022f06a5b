"""Convolutions alone, pooling, a small network for digits, a residual and a ConvNeXt block: values and all
gradients, in float32.

Channels come last. The function is written with `graphjit.nn`, in JAX with its own convolution, in PyTorch
with `torch.nn.functional` on views of the same memory (its "channels last").
Sources: Y. LeCun et al., 1998 (LeNet); K. He et al., 2016 (residual blocks); Z. Liu et al., 2022 (ConvNeXt).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, FULL, TEST, Namespace, Pytree, Workload


class Layers(NamedTuple):
    """What the networks here consist of, in one library."""

    np: Any
    conv: Callable[..., Any]
    """(images, weights, padding, groups): step 1."""
    pool: Callable[[Any], Any]
    """The largest of each 2 by 2 elements."""
    gelu: Callable[[Any], Any]
    norm: Callable[..., Any]
    """Along the channels, with weights and shifts."""
    cross_entropy: Callable[[Any, Any], Any]
    """The mean over rows of logits with whole numbers as labels."""


def of_graphjit(ns: Namespace) -> Layers:
    """`graphjit.nn`, which is plain NumPy."""
    nn = importlib.import_module("graphjit.nn")
    return Layers(
        ns.np,
        lambda x, w, padding, groups=1: nn.conv2d(x, w, padding=padding, groups=groups),
        lambda x: nn.max_pool(x, 2),
        nn.gelu,
        nn.layer_norm,
        nn.cross_entropy,
    )


def of_jax(ns: Namespace) -> Layers:
    """JAX: XLA's convolution, its window reduction, the formulas of `jax.nn`."""
    jax, lax = importlib.import_module("jax"), importlib.import_module("jax.lax")
    np = ns.np

    def conv(x: Any, w: Any, padding: int, groups: int = 1) -> Any:
        around = [(padding, padding)] * 2
        axes = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, w, (1, 1), around, dimension_numbers=axes, feature_group_count=groups
        )

    def norm(x: Any, weight: Any, bias: Any) -> Any:
        centred = x - np.mean(x, -1, keepdims=True)
        return centred / np.sqrt(np.mean(centred * centred, -1, keepdims=True) + 1e-5) * weight + bias

    def cross_entropy(logits: Any, labels: Any) -> Any:
        chosen = np.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -np.mean(chosen)

    def pool(x: Any) -> Any:
        return lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    return Layers(np, conv, pool, jax.nn.gelu, norm, cross_entropy)


def of_torch(torch: Any) -> Layers:
    """PyTorch, channels last in memory."""
    functional = torch.nn.functional

    def first(x: Any) -> Any:
        return x.permute(0, 3, 1, 2)

    def last(x: Any) -> Any:
        return x.permute(0, 2, 3, 1)

    def conv(x: Any, w: Any, padding: int, groups: int = 1) -> Any:
        return last(functional.conv2d(first(x), w.permute(3, 2, 0, 1), padding=padding, groups=groups))

    return Layers(
        torch,
        conv,
        lambda x: last(functional.max_pool2d(first(x), 2)),
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda x, weight, bias: functional.layer_norm(x, x.shape[-1:], weight, bias),
        functional.cross_entropy,
    )


# -------------------------------------------------------------------------------------------------- functions


def convolution(layers: Layers, padding: int, groups: int, x: Any, w: Any) -> Any:
    out = layers.conv(x, w, padding, groups)
    return (out * out).mean()


def pooling(layers: Layers, x: Any) -> Any:
    out = layers.pool(x)
    return (out * out).mean()


def lenet(layers: Layers, weights: Mapping[str, Any], x: Any, labels: Any) -> Any:
    h = layers.pool(_relu(layers, layers.conv(x, weights["c1"], 2) + weights["b1"]))
    h = layers.pool(_relu(layers, layers.conv(h, weights["c2"], 2) + weights["b2"]))
    h = h.reshape((h.shape[0], -1))
    h = _relu(layers, h @ weights["w3"] + weights["b3"])
    return layers.cross_entropy(h @ weights["w4"] + weights["b4"], labels)


def residual(layers: Layers, x: Any, w1: Any, w2: Any) -> Any:
    out = _relu(layers, x + layers.conv(_relu(layers, layers.conv(x, w1, 1)), w2, 1))
    return (out * out).mean()


def convnext(layers: Layers, weights: Mapping[str, Any], x: Any) -> Any:
    channels = x.shape[-1]
    h = layers.conv(x, weights["depthwise"], 3, channels)
    h = layers.norm(h, weights["scale"], weights["shift"])
    h = layers.gelu(h @ weights["wide"]) @ weights["narrow"]
    out = x + weights["gamma"] * h
    return (out * out).mean()


def _relu(layers: Layers, x: Any) -> Any:
    return x.relu() if layers.np.__name__ == "torch" else layers.np.maximum(x, 0)


# ----------------------------------------------------------------------------------------------------- inputs


def draw(rng: Any, dtype: str, *shape: int) -> Any:
    """Weights whose products keep the size of what they multiply."""
    fan = max(1, math.prod(shape[:-1]))
    return (rng.normal(size=shape) / math.sqrt(fan)).astype(dtype)


def _images(rng: Any, dtype: str, *shape: int) -> Any:
    return rng.normal(size=shape).astype(dtype)


def convolution_inputs(
    images: tuple[int, ...], w: tuple[int, ...], seed: int, dtype: str
) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    return _images(rng, dtype, *images), draw(rng, dtype, *w)


def pooling_inputs(images: tuple[int, ...], seed: int, dtype: str) -> tuple[Pytree, ...]:
    return (_images(numpy.random.default_rng(seed), dtype, *images),)


def lenet_inputs(batch: int, size: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    flat = (size // 4) ** 2 * 16
    shapes = {"c1": (5, 5, 1, 8), "c2": (5, 5, 8, 16), "w3": (flat, 64), "w4": (64, 10)}
    weights = {name: draw(rng, dtype, *shape) for name, shape in shapes.items()}
    weights |= {f"b{i}": draw(rng, dtype, n) for i, n in ((1, 8), (2, 16), (3, 64), (4, 10))}
    return weights, _images(rng, dtype, batch, size, size, 1), rng.integers(0, 10, batch)


def residual_inputs(images: tuple[int, ...], seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    c = images[-1]
    return _images(rng, dtype, *images), draw(rng, dtype, 3, 3, c, c), draw(rng, dtype, 3, 3, c, c)


def convnext_inputs(images: tuple[int, ...], seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    c = images[-1]
    shapes = {"depthwise": (7, 7, 1, c), "wide": (c, 4 * c), "narrow": (4 * c, c)}
    weights = {name: draw(rng, dtype, *shape) for name, shape in shapes.items()}
    weights |= {name: draw(rng, dtype, c) for name in ("scale", "shift", "gamma")}
    return weights, _images(rng, dtype, *images)


# -------------------------------------------------------------------------------------------------- workloads


def of(ns: Namespace) -> Layers:
    """The layers of the library whose namespace is given."""
    return of_jax(ns) if ns.np.__name__ == "jax.numpy" else of_graphjit(ns)


def _workload(
    name: str, function: Any, inputs: Any, argnums: Any, flops: float, size: float, suites: Sequence[str]
) -> Workload:
    def make(ns: Namespace) -> Callable[..., Any]:
        return partial(function, of(ns))

    return Workload(
        name,
        make,
        inputs,
        argnums=argnums,
        dtypes=("float64", "float32") if suites == TEST else ("float32",),
        family=name.rsplit("_", 1)[0],
        size=size,
        suites=suites,
        torch=lambda torch, *arguments: function(of_torch(torch), *arguments),
        absent={"autograd": "Autograd has no sliding windows"},
        flops=flops,
        same_as={"float32": 1e-3},
    )


def _conv(
    name: str,
    images: tuple[int, int, int, int],
    w: tuple[int, int, int, int],
    groups: int,
    suites: Sequence[str],
) -> Workload:
    n, height, width, _ = images
    terms = math.prod(w[:3])
    flops = 3 * 2.0 * n * height * width * w[3] * terms  # forward, and both gradients as much each
    function = partial(_padded_convolution, w[0] // 2, groups)
    return _workload(
        name, function, partial(convolution_inputs, images, w), (0, 1), flops, images[-1], suites
    )


def _padded_convolution(padding: int, groups: int, layers: Layers, x: Any, w: Any) -> Any:
    return convolution(layers, padding, groups, x, w)


def _lenet(batch: int, size: int, suites: Sequence[str]) -> Workload:
    per_image = size * size * 25 * 8 + (size // 2) ** 2 * 200 * 16 + (size // 4) ** 2 * 16 * 64 + 640
    name = f"lenet_{batch}x{size}"
    return _workload(
        name, lenet, partial(lenet_inputs, batch, size), 0, 6.0 * batch * per_image, batch, suites
    )


def _residual(images: tuple[int, int, int, int], suites: Sequence[str]) -> Workload:
    n, height, width, c = images
    flops = 2 * 6.0 * n * height * width * 9 * c * c
    name = f"residual_block_{c}"
    return _workload(name, residual, partial(residual_inputs, images), (0, 1, 2), flops, c, suites)


def _convnext(images: tuple[int, int, int, int], suites: Sequence[str]) -> Workload:
    n, height, width, c = images
    elements = n * height * width * c
    flops = 6.0 * elements * (49 + 8 * c) + 4 * ELEMENTARY * elements
    name = f"convnext_block_{c}"
    return _workload(name, convnext, partial(convnext_inputs, images), (0, 1), flops, c, suites)


def _pool(images: tuple[int, int, int, int], suites: Sequence[str]) -> Workload:
    name = f"max_pool_{images[-1]}"
    return _workload(name, pooling, partial(pooling_inputs, images), (0,), 0.0, images[-1], suites)


WORKLOADS = (
    _conv("convolution_test", (2, 7, 6, 3), (3, 3, 3, 5), 1, TEST),
    _conv("depthwise_test", (2, 7, 6, 5), (3, 3, 1, 5), 5, TEST),
    _lenet(3, 8, TEST),
    _residual((2, 5, 6, 4), TEST),
    _convnext((1, 8, 7, 6), TEST),
    _pool((2, 7, 6, 3), TEST),
    _conv("convolution_5x5x1to8", (64, 28, 28, 1), (5, 5, 1, 8), 1, FULL),
    _conv("convolution_5x5x8to16", (64, 14, 14, 8), (5, 5, 8, 16), 1, FULL),
    _conv("convolution_3x3x64to64", (32, 14, 14, 64), (3, 3, 64, 64), 1, BOTH),
    _conv("depthwise_7x7x96", (8, 28, 28, 96), (7, 7, 1, 96), 96, BOTH),
    _pool((64, 28, 28, 32), BOTH),
    _lenet(64, 28, BOTH),
    _residual((32, 14, 14, 64), BOTH),
    _convnext((8, 28, 28, 96), BOTH),
)
