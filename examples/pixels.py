"""Train a recurrent network that reads handwritten digits one pixel after the other.

Input: the 1 797 real 8x8 digits that ship with scikit-learn, each a row of 64 numbers (`--quick` reads every
second pixel, and trains for fewer epochs). Output: the accuracy on digits kept aside, the time of a gradient
beside that of backpropagation through time written by hand in NumPy, which must be the same, and a plot
(`--plot FILE`) of what it learns.

The network is a plain Python loop over 64 steps. What it saw first must survive all of them.

    pip install '.[examples]' && python examples/pixels.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphjit

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Parameters = dict[str, np.ndarray]
HIDDEN, CLASSES, BATCH, RATE = 64, 10, 32, 0.003


@graphjit.jit
def logits(params: Parameters, pixels: np.ndarray) -> np.ndarray:
    """Of each digit, whose `pixels` are a row."""
    hidden = np.zeros((len(pixels), HIDDEN))
    for t in range(pixels.shape[1]):
        hidden = np.tanh(pixels[:, t : t + 1] * params["in"] + hidden @ params["again"] + params["bias"])
    return hidden @ params["out"] + params["out_bias"]


@graphjit.value_and_grad
def loss(params: Parameters, pixels: np.ndarray, y: np.ndarray) -> float:
    """Mean softmax cross-entropy; `y` is one-hot."""
    z = logits(params, pixels)
    return np.mean(logsumexp(z, axis=1) - np.sum(y * z, axis=1))


def loss_by_hand(params: Parameters, pixels: np.ndarray, y: np.ndarray) -> tuple[float, Parameters]:
    """The same value and gradient: backpropagation through time, derived and written by hand."""
    states = [np.zeros((len(pixels), HIDDEN))]
    for x in pixels.T:
        states.append(np.tanh(np.outer(x, params["in"]) + states[-1] @ params["again"] + params["bias"]))
    z = states[-1] @ params["out"] + params["out_bias"]
    d_z = (np.exp(z - logsumexp(z, axis=1, keepdims=True)) - y) / len(y)
    gradient = {name: np.zeros_like(p) for name, p in params.items()}
    gradient["out"], gradient["out_bias"] = states[-1].T @ d_z, np.sum(d_z, axis=0)
    d_hidden = d_z @ params["out"].T
    for x, before, after in zip(pixels.T[::-1], states[-2::-1], states[:0:-1], strict=True):
        d_sum = d_hidden * (1.0 - after * after)
        gradient["in"] += x @ d_sum
        gradient["again"] += before.T @ d_sum
        gradient["bias"] += np.sum(d_sum, axis=0)
        d_hidden = d_sum @ params["again"].T
    return np.mean(logsumexp(z, axis=1) - np.sum(y * z, axis=1)), gradient


class Adam:
    """D. P. Kingma and J. Ba (2015), on arrays that are changed in place."""

    def __init__(self, params: Parameters) -> None:
        self.params, self.steps = params, 0
        self.means = {name: np.zeros_like(p) for name, p in params.items()}
        self.squares = {name: np.zeros_like(p) for name, p in params.items()}

    def step(self, gradient: Parameters, rate: float) -> None:
        self.steps += 1
        # Through 64 steps a gradient explodes now and then: none is longer than one.
        shrink = 1.0 / max(1.0, np.sqrt(sum(np.sum(g * g) for g in gradient.values())))
        for name, p in self.params.items():
            mean, square, g = self.means[name], self.squares[name], shrink * gradient[name]
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            unbiased = np.sqrt(square / (1.0 - 0.999**self.steps)) + 1e-8
            p -= rate * mean / (1.0 - 0.9**self.steps) / unbiased


def load(seed: int, every: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test digits, four fifths and one fifth, as (pixels from 0 to 1, labels)."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    pixels, labels = np.ascontiguousarray(pixels[order, ::every] / 16.0), labels[order]
    split = len(pixels) * 4 // 5
    return (pixels[:split], labels[:split]), (pixels[split:], labels[split:])


def initial_parameters(seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        "in": rng.normal(size=HIDDEN),
        "again": np.linalg.qr(rng.normal(size=(HIDDEN, HIDDEN)))[0],  # neither grows nor fades
        "bias": np.zeros(HIDDEN),
        "out": rng.normal(size=(HIDDEN, CLASSES)) / np.sqrt(HIDDEN),
        "out_bias": np.zeros(CLASSES),
    }


def accuracy(params: Parameters, pixels: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.argmax(logits(params, pixels), axis=1) == labels))


def train(
    params: Parameters,
    data: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """Changes `params`; returns mean loss and test accuracy of each epoch. The rate falls to nothing."""
    pixels, one_hot = data[0], np.eye(CLASSES)[data[1]]
    rng, adam = np.random.default_rng(options.seed + 1), Adam(params)
    history: dict[str, list[float]] = {"loss": [], "accuracy": []}
    bar = tqdm(range(options.epochs), desc="epochs", disable=options.no_progress)
    for epoch in bar:
        rate, values = RATE * (1.0 - epoch / options.epochs), []
        # Batches are full: a last, shorter one would be another shape, hence another compilation.
        for batch in rng.permutation(len(pixels))[: len(pixels) // BATCH * BATCH].reshape(-1, BATCH):
            value, gradient = loss(params, pixels[batch], one_hot[batch])
            adam.step(gradient, rate)
            values.append(float(value))
        history["loss"].append(statistics.mean(values))
        history["accuracy"].append(accuracy(params, *test))
        bar.set_postfix(loss=f"{history['loss'][-1]:.3f}", accuracy=f"{history['accuracy'][-1]:.1%}")
    return history


def relative_difference(ours: Parameters, theirs: Parameters) -> float:
    """Largest |ours - theirs| in any array, relative to that array's largest entry."""
    return max(
        float(np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name]))) for name in theirs
    )


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Median of some calls."""
    samples = []
    for _ in range(15):
        begin = time.perf_counter()
        function(*arguments)
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples)


def plot(history: dict[str, list[float]], target: Path) -> None:
    figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
    epochs = np.arange(1, len(history["loss"]) + 1)
    axis.semilogy(epochs, history["loss"], "C0-", label="loss")
    axis.semilogy(epochs, 1.0 - np.array(history["accuracy"]), "C1-", label="share of test digits misread")
    axis.set_xlabel("epoch")
    axis.legend()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="every second pixel, six epochs")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs = 6
    data, test = load(options.seed, 2 if options.quick else 1)
    params = initial_parameters(options.seed)
    batch = params, data[0][:BATCH], np.eye(CLASSES)[data[1][:BATCH]]

    begin = time.perf_counter()
    value, gradient = loss(*batch)
    first_call = time.perf_counter() - begin
    value_by_hand, gradient_by_hand = loss_by_hand(*batch)
    times = {"graphjit": seconds(loss, *batch), "numpy": seconds(loss_by_hand, *batch)}
    history = train(params, data, test, options)
    result = {
        "test_accuracy": history["accuracy"][-1],
        "train_accuracy": accuracy(params, *data),
        "value_difference": abs(float(value) - float(value_by_hand)) / abs(float(value_by_hand)),
        "gradient_difference": relative_difference(gradient, gradient_by_hand),
        "first_call_seconds": first_call,
        "step_seconds": times,
        "history": history,
    }
    print(
        f"test accuracy            {result['test_accuracy']:.1%}   (training {result['train_accuracy']:.1%})"
    )
    print(
        f"gradient difference      {result['gradient_difference']:.1e}   relative, against backpropagation by hand"
    )
    print(f"first call               {first_call * 1e3:.0f} ms (trace, differentiate, compile, run)")
    print(
        f"loss and gradient        {times['graphjit'] * 1e3:.2f} ms, NumPy by hand {times['numpy'] * 1e3:.2f} ms"
    )
    if options.plot:
        plot(history, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
