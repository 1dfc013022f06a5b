"""Train a small network on handwritten digits, with gradients of plain NumPy code compiled by graphjit.

Input: the 1 797 real 8x8 digits that ship with scikit-learn. Output: test accuracy, time per epoch, and the
same training with backpropagation written by hand in NumPy beside it, which must give the same gradients and
reach the same parameters.

    pip install '.[examples]' && python examples/digits.py
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
HIDDEN, CLASSES, BATCH, LEARNING_RATE = 128, 10, 32, 0.2


@graphjit.value_and_grad
def loss(params: Parameters, x: np.ndarray, y: np.ndarray) -> float:
    """Mean softmax cross-entropy of a 64-128-10 network; `y` is one-hot."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    logits = hidden @ params["w2"] + params["b2"]
    return np.mean(logsumexp(logits, axis=1) - np.sum(y * logits, axis=1))


def loss_by_hand(params: Parameters, x: np.ndarray, y: np.ndarray) -> tuple[float, Parameters]:
    """The same value and gradient, derived and written by hand."""
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    logits = hidden @ params["w2"] + params["b2"]
    shifted = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    total = np.sum(shifted, axis=1, keepdims=True)
    value = np.mean(np.log(total[:, 0]) + np.max(logits, axis=1) - np.sum(y * logits, axis=1))
    d_logits = (shifted / total - y) / len(x)
    d_hidden = (d_logits @ params["w2"].T) * (1.0 - hidden * hidden)
    gradient = {
        "w1": x.T @ d_hidden,
        "b1": np.sum(d_hidden, axis=0),
        "w2": hidden.T @ d_logits,
        "b2": np.sum(d_logits, axis=0),
    }
    return value, gradient


def load(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test digits, four fifths and one fifth, as (images scaled to 0..1, labels)."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order] / 16.0, labels[order]
    split = len(images) * 4 // 5
    return (images[:split], labels[:split]), (images[split:], labels[split:])


def initial_parameters(seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(64, HIDDEN)) / 8.0,
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(size=(HIDDEN, CLASSES)) / np.sqrt(HIDDEN),
        "b2": np.zeros(CLASSES),
    }


def train(
    value_and_grad: Callable[..., tuple[float, Parameters]],
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    seed: int,
    progress: str | None,
) -> tuple[Parameters, list[float]]:
    """Stochastic gradient descent on shuffled mini-batches; returns the parameters and the seconds of each
    epoch.

    Batches are full: a last, shorter one would be another shape, hence another compilation.
    """
    params, one_hot = initial_parameters(seed), np.eye(CLASSES)[labels]
    rng, seconds = np.random.default_rng(seed + 1), []
    bar = tqdm(range(epochs), desc=progress, disable=progress is None)
    for _ in bar:
        begin = time.perf_counter()
        order = rng.permutation(len(images))
        value = 0.0
        for start in range(0, len(images) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            value, gradient = value_and_grad(params, images[batch], one_hot[batch])
            params = {name: params[name] - LEARNING_RATE * gradient[name] for name in params}
        seconds.append(time.perf_counter() - begin)
        bar.set_postfix(loss=f"{value:.4f}")
    return params, seconds


def accuracy(params: Parameters, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of `images` whose largest logit is the right one."""
    logits = np.tanh(images @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def relative_difference(ours: Parameters, theirs: Parameters) -> float:
    """Largest |ours - theirs| in any array, relative to that array's largest entry."""
    return max(
        float(np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name]))) for name in theirs
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    (images, labels), (test_images, test_labels) = load(options.seed)

    batch = (initial_parameters(options.seed), images[:BATCH], np.eye(CLASSES)[labels[:BATCH]])
    begin = time.perf_counter()
    value, gradient = loss(*batch)
    first_call = time.perf_counter() - begin
    value_by_hand, gradient_by_hand = loss_by_hand(*batch)

    runs = {}
    for name, function in (("graphjit", loss), ("numpy", loss_by_hand)):
        progress = None if options.no_progress else f"{name:>8}"
        runs[name] = train(function, images, labels, options.epochs, options.seed, progress)
    params = runs["graphjit"][0]
    result = {
        "test_accuracy": accuracy(params, test_images, test_labels),
        "train_accuracy": accuracy(params, images, labels),
        "value_difference": abs(float(value) - float(value_by_hand)) / abs(float(value_by_hand)),
        "gradient_difference": relative_difference(gradient, gradient_by_hand),
        "parameter_difference": relative_difference(params, runs["numpy"][0]),
        "first_call_seconds": first_call,
        "epoch_seconds": {name: statistics.median(seconds) for name, (_, seconds) in runs.items()},
    }
    epoch = result["epoch_seconds"]
    print(
        f"test accuracy            {result['test_accuracy']:.2%}   (training {result['train_accuracy']:.2%})"
    )
    print(
        f"gradient difference      {result['gradient_difference']:.1e}   relative, against backpropagation by hand"
    )
    print(
        f"after training           {result['parameter_difference']:.1e}   relative difference of the parameters"
    )
    print(f"first call               {first_call * 1e3:.1f} ms (trace, differentiate, compile, run)")
    print(
        f"time per epoch           {epoch['graphjit'] * 1e3:.2f} ms, NumPy by hand {epoch['numpy'] * 1e3:.2f} ms"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
