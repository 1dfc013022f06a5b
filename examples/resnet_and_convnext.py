"""Why deep networks have skip connections: how gradients travel back through residual and ConvNeXt blocks.

A block computes F(x), and a skip connection adds what came in: y = x + F(x). On the way back it therefore
hands on the gradient that it got, dL/dx = dL/dy + F'(x)^T dL/dy, where a block without one has the second
term alone. A product of many such terms grows or fades with each block; with the first one it need not.

Two blocks are compared, as their authors wrote them:

- the residual block: two 3x3 convolutions, each with batch norm, ReLU between them and after the sum
  (K. He, X. Zhang, S. Ren and J. Sun, 2016);
- the ConvNeXt block: a 7x7 depthwise convolution (each channel by itself), layer norm, four times as many
  channels, GELU, back, and layer scale, a factor of each channel that begins at 1e-6 (Z. Liu and others,
  2022).

Input: patches of the two photographs that ship with scikit-learn; the label says which one a patch is from.
Output: for deep stacks of fresh blocks, with and without skips, the norm of the gradient at each depth; what
the skip adds to a gradient, as a difference from the formula above; operations, time and memory of one block,
forward and with its gradient; a plot (`--plot FILE`).
Claims, for networks before their first step of training:

- Without skips, batch norm and ReLU make gradients explode: they grow by 1.4 with each block towards the
  input, about 1000 times in 20 blocks (G. Yang and others, 2019, on batch norm). With skips it is 25 times,
  most of it in the first blocks: what is carried along grows from block to block, what each adds does not.
- With skips and layer scale a ConvNeXt block is nearly the identity: all depths have the same gradient.
  Without skips the same network has no gradient at all after a few blocks: layer scale needs the skip.
- A skip is not the only remedy: with neither skip nor layer scale, layer norm holds it to 1.1 a block.
- A gradient takes three times the operations of the value, and more memory: the way back reads what the way
  there computed. The ConvNeXt block has half the operations of a residual block with as many channels, and
  needs more memory, for it is four times as wide inside.

To see the gradient inside of a network, add zeros (probes) to the places of interest, and differentiate with
respect to them. All depths take one way back.

    pip install '.[examples]' && python examples/resnet_and_convnext.py --plot resnet_and_convnext.png
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.datasets import load_sample_images
from tqdm import tqdm

import graphjit
from graphjit import nn

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Parameters = dict[str, Any]
Block = Callable[[Parameters, np.ndarray, bool], np.ndarray]
SIZE, CHANNELS, LAYER_SCALE = 28, 16, 1e-6


def patches(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares of two photographs, of mean 0 and deviation 1, and the number of the photograph of each."""
    rng, photographs = np.random.default_rng(seed), load_sample_images().images
    labels = rng.integers(0, len(photographs), count)
    found = np.empty((count, SIZE, SIZE, 3), np.float32)
    for i, label in enumerate(labels):
        top, left = (rng.integers(0, side - SIZE) for side in photographs[label].shape[:2])
        found[i] = photographs[label][top : top + SIZE, left : left + SIZE]
    return (found - found.mean()) / found.std(), labels


# The blocks.


def batch_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """By mean and variance of the batch; those that it collects for later are not needed here."""
    return nn.batch_norm(x, np.zeros_like(scale), np.ones_like(scale), scale, shift, training=True)[0]


def residual(w: Parameters, x: np.ndarray, skip: bool) -> np.ndarray:
    h = nn.relu(batch_norm(nn.conv2d(x, w["first"], padding="same"), w["scale1"], w["shift1"]))
    h = batch_norm(nn.conv2d(h, w["second"], padding="same"), w["scale2"], w["shift2"])
    return nn.relu(x + h if skip else h)


def convnext(w: Parameters, x: np.ndarray, skip: bool) -> np.ndarray:
    h = nn.conv2d(x, w["depthwise"], w["shift1"], padding="same", groups=x.shape[-1])
    h = nn.layer_norm(h, w["scale"], w["shift2"])
    h = nn.linear(nn.gelu(nn.linear(h, w["wide"], w["shift3"])), w["narrow"], w["shift4"])
    h = w["layer_scale"] * h
    return x + h if skip else h


def residual_weights(rng: np.random.Generator, channels: int, layer_scale: float) -> Parameters:
    """`layer_scale` is not for this block."""
    weights = {
        name: nn.he_normal(rng, (3, 3, channels, channels), np.float32) for name in ("first", "second")
    }
    weights |= {name: np.ones(channels, np.float32) for name in ("scale1", "scale2")}
    return weights | {name: np.zeros(channels, np.float32) for name in ("shift1", "shift2")}


def convnext_weights(rng: np.random.Generator, channels: int, layer_scale: float) -> Parameters:
    wide = 4 * channels
    return {
        "depthwise": nn.lecun_normal(rng, (7, 7, 1, channels), np.float32),
        "scale": np.ones(channels, np.float32),
        "wide": nn.he_normal(rng, (channels, wide), np.float32),
        "narrow": nn.lecun_normal(rng, (wide, channels), np.float32),
        "shift3": np.zeros(wide, np.float32),
        "layer_scale": np.full(channels, layer_scale, np.float32),
    } | {name: np.zeros(channels, np.float32) for name in ("shift1", "shift2", "shift4")}


BLOCKS: dict[str, tuple[Block, Callable[..., Parameters]]] = {
    "residual": (residual, residual_weights),
    "ConvNeXt": (convnext, convnext_weights),
}
STACKS = {
    "residual, skips": ("residual", True, 1.0),
    "residual, no skips": ("residual", False, 1.0),
    "ConvNeXt, skips": ("ConvNeXt", True, LAYER_SCALE),
    "ConvNeXt, no skips": ("ConvNeXt", False, LAYER_SCALE),
    "ConvNeXt, no skips, no layer scale": ("ConvNeXt", False, 1.0),
}
"""Deep networks: the block, whether there are skips, what layer scale begins with."""


# Gradients by depth.


def network(
    params: Parameters, probes: list[np.ndarray], x: np.ndarray, block: Block, skip: bool
) -> np.ndarray:
    """Patches of 2 by 2 pixels become channels, then come the blocks, at last the mean over all places."""
    x = nn.layer_norm(nn.conv2d(x, params["stem"], stride=2))
    for weights, probe in zip(params["blocks"], probes, strict=True):
        x = block(weights, x + probe, skip)
    return nn.layer_norm(nn.global_avg_pool(x)) @ params["head"]


def gradient_by_depth(name: str, depth: int, batch: int, seed: int) -> list[float]:
    """The norm of the gradient at the entrance of each block, from the input to the output."""
    (block, initial), skip, layer_scale = BLOCKS[STACKS[name][0]], *STACKS[name][1:]
    rng = np.random.default_rng(seed)
    params = {
        "stem": nn.lecun_normal(rng, (2, 2, 3, CHANNELS), np.float32),
        "blocks": [initial(rng, CHANNELS, layer_scale) for _ in range(depth)],
        "head": nn.lecun_normal(rng, (CHANNELS, 2), np.float32),
    }
    probes = [np.zeros((batch, SIZE // 2, SIZE // 2, CHANNELS), np.float32) for _ in range(depth)]

    def loss(probes: list[np.ndarray], x: np.ndarray, labels: np.ndarray) -> float:
        return nn.cross_entropy(network(params, probes, x, block, skip), labels)

    @graphjit.jit
    def norms(probes: list[np.ndarray], x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.stack([np.sqrt(np.sum(g * g)) for g in graphjit.grad(loss)(probes, x, labels)])

    return norms(probes, *patches(batch, seed)).tolist()


def growth(norms: list[float]) -> tuple[float, float]:
    """By which factor gradients grow with each block towards the input: in the half of the blocks that is
    next to it, and in the other half.
    """
    middle, last = (len(norms) - 1) // 2, len(norms) - 1
    return (norms[0] / norms[middle] if norms[middle] else 0.0) ** (1 / middle), (
        norms[middle] / norms[-1]
    ) ** (1 / (last - middle))


def what_a_skip_adds(seed: int) -> float:
    """The largest difference of dL/dx from dL/dy + F'(x)^T dL/dy, relative; a ConvNeXt block in float64."""
    rng = np.random.default_rng(seed)
    weights = {k: w.astype(np.float64) for k, w in convnext_weights(rng, CHANNELS, 1.0).items()}
    x, above = rng.normal(size=(2, 2, 14, 14, CHANNELS))

    def back(skip: bool) -> np.ndarray:
        return graphjit.vjp(lambda x: convnext(weights, x, skip), x)[1](above)[0]

    with_skip = back(True)
    return float(np.max(np.abs(with_skip - (above + back(False)))) / np.max(np.abs(with_skip)))


# What one block takes.


def cost(name: str, batch: int, side: int, channels: int, seed: int) -> dict[str, dict[str, float]]:
    """Parameters, operations, time and memory of one block, forward and with all its gradients."""
    block, initial = BLOCKS[name]
    rng = np.random.default_rng(seed)
    weights = initial(rng, channels, 1.0)
    x = rng.normal(size=(batch, side, side, channels)).astype(np.float32)

    def loss(weights: Parameters, x: np.ndarray) -> float:
        return np.mean(np.square(block(weights, x, True)))

    found = {}
    for way, function in (
        ("forward", graphjit.jit(loss)),
        ("gradient", graphjit.value_and_grad(loss, argnums=(0, 1))),
    ):
        lowered, seconds = function.lower(weights, x), []
        function(weights, x)
        for _ in range(7):
            begin = time.perf_counter()
            function(weights, x)
            seconds.append(time.perf_counter() - begin)
        found[way] = {
            "parameters": sum(w.size for w in weights.values()),
            "flops": lowered.cost().total.flops,
            "seconds": min(seconds),
            "bytes": lowered.memory().arena,
        }
    return found


def plot(results: dict[str, Any], target: Path) -> None:
    figure, (left, *others) = pyplot.subplots(
        1, 4, figsize=(15, 4.5), layout="constrained", width_ratios=(3, 1, 1, 1)
    )
    for name, norms in results["norms"].items():
        color, line = "C0" if name.startswith("residual") else "C1", "-" if name.endswith(" skips") else ":"
        line = "--" if name.endswith("no skips") else line
        shown = np.where(np.array(norms) > 0.0, norms, np.nan)  # zero has no place on this axis
        left.semilogy(range(1, len(norms) + 1), shown, color + "o" + line, markersize=3, label=name)
    left.set(xlabel="block, from the input to the output", ylabel="norm of dL/dx at its entrance")
    left.set(title="Gradient by depth, before training", xticks=range(1, len(norms) + 1), ylim=(1e-9, None))
    left.legend(loc="lower left")
    left.grid(True, alpha=0.3)
    for axis, key, scale, title in (
        (others[0], "flops", 1e-9, "operations [1e9]"),
        (others[1], "seconds", 1e3, "time [ms]"),
        (others[2], "bytes", 2**-20, "working memory [MiB]"),
    ):
        for i, way in enumerate(("forward", "gradient")):
            heights = [found[way][key] * scale for found in results["cost"].values()]
            axis.bar(np.arange(len(heights)) + 0.4 * i - 0.2, heights, 0.4, label=way, color=("C7", "C3")[i])
        axis.set_xticks(range(len(BLOCKS)), BLOCKS)
        axis.set_title(title, fontsize=11)
    others[0].legend(title="one block", loc="upper right")
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(results: dict[str, Any]) -> None:
    print(
        "norm of the gradient     first block, last block; its growth with each block, first and second half"
    )
    for name, norms in results["norms"].items():
        near, far = growth(norms)
        print(f"  {name:<36} {norms[0]:9.1e} {norms[-1]:9.1e} {near:7.3f} {far:7.3f}")
    print(f"a skip adds dL/dy        {results['skip_difference']:.1e}   relative difference from the formula")
    print("one block                parameters, 1e6 operations, ms, MiB of working memory")
    for name, ways in results["cost"].items():
        for way, found in ways.items():
            print(
                f"  {name + ', ' + way:<22} {found['parameters']:10} {found['flops'] / 1e6:10.0f} "
                f"{found['seconds'] * 1e3:8.2f} {found['bytes'] / 2**20:8.2f}"
            )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="seven blocks, small batches")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    depth, batch, side, channels = (7, 8, 14, 16) if options.quick else (options.depth, 32, 28, 64)
    results: dict[str, Any] = {"norms": {}, "skip_difference": what_a_skip_adds(options.seed), "cost": {}}
    with tqdm(total=len(STACKS) + len(BLOCKS), desc="networks", disable=options.no_progress) as bar:
        for name in STACKS:
            results["norms"][name] = gradient_by_depth(name, depth, batch, options.seed)
            bar.update()
        for name in BLOCKS:
            results["cost"][name] = cost(name, 8, side, channels, options.seed)
            bar.update()
    report(results)
    if options.plot:
        plot(results, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
