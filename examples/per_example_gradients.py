"""Gradients of every training example by itself, `vmap` of `grad`: what their norms tell about digits.

Input: the 1 797 real 8x8 digits that ship with scikit-learn. Output: while a small network is trained, how
the norms of the examples' gradients are spread, and how noisy a gradient of a batch is; in the end the digits
with the largest gradients, which are those that the network finds hardest; and the time of one call of `vmap`
beside a loop of single gradients, which must give the same numbers.

The batch from which on noise no longer matters is estimated as tr(C) / |g|^2, C the covariance of the
examples' gradients and g their mean (S. McCandlish, J. Kaplan, D. Amodei, 2018).

    pip install '.[examples]' && python examples/per_example_gradients.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphjit

Parameters = dict[str, np.ndarray]
HIDDEN, CLASSES, BATCH, LEARNING_RATE = 64, 10, 64, 0.2
QUANTILES = (0.05, 0.5, 0.95, 1.0)


def loss(params: Parameters, image: np.ndarray, label: np.ndarray) -> float:
    """Softmax cross-entropy of a 64-64-10 network for one image; `label` is one-hot."""
    hidden = np.tanh(image @ params["w1"] + params["b1"])
    logits = hidden @ params["w2"] + params["b2"]
    return logsumexp(logits) - np.sum(label * logits)


single_gradient = graphjit.grad(loss)
gradients_of_each = graphjit.vmap(graphjit.grad(loss), in_axes=(None, 0, 0))


@graphjit.jit
def norms_and_mean(
    params: Parameters, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, Parameters]:
    """The norm of each example's gradient, and the mean of the gradients: none of them is kept."""
    each = graphjit.vmap(graphjit.grad(loss), in_axes=(None, 0, 0))(params, images, labels)
    squares = [np.sum(g * g, axis=tuple(range(1, g.ndim))) for g in each.values()]
    return np.sqrt(sum(squares)), {name: np.mean(g, axis=0) for name, g in each.items()}


@graphjit.grad
def batch_gradient(params: Parameters, images: np.ndarray, labels: np.ndarray) -> float:
    """Of the mean loss: what training needs."""
    return np.mean(graphjit.vmap(loss, in_axes=(None, 0, 0))(params, images, labels))


def load(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images scaled to 0..1, and labels, in random order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order] / 16.0, labels[order]


def initial_parameters(seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(64, HIDDEN)) / 8.0,
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(size=(HIDDEN, CLASSES)) / np.sqrt(HIDDEN),
        "b2": np.zeros(CLASSES),
    }


def statistics_of(params: Parameters, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Quantiles of the norms, and the batch from which on noise no longer matters."""
    norms, mean = norms_and_mean(params, images, labels)
    square = sum(float(np.sum(g * g)) for g in mean.values())
    return {
        "quantiles": [float(norm) for norm in np.quantile(norms, QUANTILES)],
        "noise_scale": (float(np.mean(norms**2)) - square) / square,
        "norms": norms,
    }


def train(
    images: np.ndarray, labels: np.ndarray, epochs: int, seed: int, progress: bool
) -> tuple[Parameters, dict[int, dict[str, Any]]]:
    """Gradient descent on shuffled batches; the parameters, and the statistics before some of the epochs and
    after the last.
    """
    params, rng = initial_parameters(seed), np.random.default_rng(seed + 1)
    found = {}
    for epoch in tqdm(range(epochs), desc="training", disable=not progress):
        if epoch & (epoch - 1) == 0:
            found[epoch] = statistics_of(params, images, labels)
        order = rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            gradient = batch_gradient(params, images[batch], labels[batch])
            params = {name: params[name] - LEARNING_RATE * gradient[name] for name in params}
    found[epochs] = statistics_of(params, images, labels)
    return params, found


def one_after_another(params: Parameters, images: np.ndarray, labels: np.ndarray) -> Parameters:
    """What `gradients_of_each` does, as a Python loop."""
    found = [single_gradient(params, image, label) for image, label in zip(images, labels, strict=True)]
    return {name: np.stack([gradient[name] for gradient in found]) for name in params}


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Median of some calls, after a first one."""
    function(*arguments)
    samples = []
    for _ in range(9):
        begin = time.perf_counter()
        function(*arguments)
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples)


def drawn(image: np.ndarray) -> list[str]:
    """An image as lines of text."""
    return ["".join(" .:*#"[int(4.0 * pixel + 0.5)] for pixel in row) for row in image.reshape(8, 8)]


def report(result: dict[str, Any], images: np.ndarray, labels: np.ndarray, guesses: np.ndarray) -> None:
    head = "  ".join(f"{quantile:>8.0%}" for quantile in QUANTILES)
    print(f"norms of the examples' gradients, by quantile\n  epoch  {head}   batch that noise asks for")
    for epoch, found in result["epochs"].items():
        cells = "  ".join(f"{norm:8.1e}" for norm in found["quantiles"])
        print(f"  {epoch:5}  {cells}   {found['noise_scale']:.0f}")
    hardest = result["hardest"]
    print("the digits with the largest gradients, and what the network takes them for")
    print("  " + "   ".join(f"{labels[i]} as {guesses[i]}  " for i in hardest))
    for lines in zip(*(drawn(images[i]) for i in hardest), strict=True):
        print("  " + "   ".join(lines))
    times = result["seconds"]
    print(
        f"{BATCH} gradients             {times['vmap'] * 1e6:.0f} us by vmap, "
        f"{times['loop'] * 1e6:.0f} us one after another"
    )
    print(f"relative difference      {result['difference']:.1e}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    images, labels = load(options.seed)
    one_hot = np.eye(CLASSES)[labels]
    params, epochs = train(images, one_hot, options.epochs, options.seed, not options.no_progress)

    logits = np.tanh(images @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
    guesses = np.argmax(logits, axis=1)
    batch = params, images[:BATCH], one_hot[:BATCH]
    ours, theirs = gradients_of_each(*batch), one_after_another(*batch)
    norms = epochs[options.epochs]["norms"]
    result = {
        "epochs": {
            epoch: {name: value for name, value in found.items() if name != "norms"}
            for epoch, found in epochs.items()
        },
        "hardest": [int(i) for i in np.argsort(-norms)[:6]],
        "accuracy": float(np.mean(guesses == labels)),
        "norm_of_wrong": float(np.mean(norms[guesses != labels])) if np.any(guesses != labels) else None,
        "norm_of_right": float(np.mean(norms[guesses == labels])),
        "difference": max(
            float(np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name]))) for name in ours
        ),
        "seconds": {
            "vmap": seconds(gradients_of_each, *batch),
            "loop": seconds(one_after_another, *batch),
        },
    }
    report(result, images, labels, guesses)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
