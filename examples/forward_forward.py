"""Forward-forward learning: each layer learns from its own activities, and no gradient passes through layers.

Back-propagation walks through a network twice: forward, where it must keep the activities of every layer,
and back, from the last layer to the first. G. Hinton ("The Forward-Forward Algorithm", 2022) replaces the way
back by a second way forward. The network sees *positive* data, a digit next to its right label, and
*negative* data, the same digit next to a wrong one. Each layer has a goodness, here the mean of its squared
activities, and a loss of its own:

    softplus(threshold - goodness)  for positive data,  softplus(goodness - threshold)  for negative data.

So a layer learns to be lively where the label fits and quiet where it does not. What it hands on is scaled
to a mean square of one: otherwise the next layer could read the goodness off the size and had nothing left to
learn. To classify a digit, try all ten labels and take the one with the largest goodness, summed over layers.

Input: the 1 797 real 8x8 digits that ship with scikit-learn, and a seed. Both ways train networks of the same
hidden layers with the same optimiser; a training step (forward, gradients, update) is one compiled function
each. Output:

- test accuracy of both, the mean over seeds: back-propagation reads better, forward-forward comes close;
- the time of a training step, and of reading the test digits, where forward-forward tries ten labels;
- temporary memory of a training step by depth, as the compiler plans it: it grows with every layer for
  back-propagation, and stays where it is for forward-forward. That is what the method is for.
- the gradient of a layer beside its formula, written by hand in NumPy.

    pip install '.[examples]' && python examples/forward_forward.py --plot forward_forward.png
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy.special import expit
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphjit
from graphjit import data, nn, optim, random

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Layer = dict[str, np.ndarray]
Set = tuple[np.ndarray, np.ndarray]
"""Images and labels."""
PIXELS, CLASSES, WIDTH, LAYERS, BATCH = 64, 10, 256, 3, 64
THRESHOLD = np.float32(2.0)
FORWARD, BACK = "forward-forward", "back-propagation"
RATES = {FORWARD: 0.01, BACK: 0.003}


# Forward-forward.


def with_label(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images and the one-hot code of a label beside them."""
    return np.concatenate([images, nn.one_hot(labels, CLASSES, dtype=images.dtype)], axis=1)


def activities(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Of one layer. It sees the direction of what comes from below, not its size."""
    x = nn.rms_norm(x)
    return nn.relu(nn.linear(x, layer["w"], layer["b"]))


def goodness(hidden: np.ndarray) -> np.ndarray:
    return np.mean(hidden * hidden, axis=1)


def layer_loss(layer: Layer, positive: np.ndarray, negative: np.ndarray) -> Any:
    """The loss of one layer and, beside it, what goes to the next one."""
    right, wrong = activities(layer, positive), activities(layer, negative)
    value = np.mean(nn.softplus(THRESHOLD - goodness(right)) + nn.softplus(goodness(wrong) - THRESHOLD))
    return value, (right, wrong)


def layer_gradient_by_hand(layer: Layer, positive: np.ndarray, negative: np.ndarray) -> Layer:
    """With goodness g = mean(h^2): d softplus(u)/du = sigmoid(u), dg/dh = 2 h / width, and relu passes what
    is above zero (h is 0 elsewhere, so its factor h says so already). No other layer appears.
    """
    gradient = {name: np.zeros_like(p) for name, p in layer.items()}
    for x, sign in ((positive, -1.0), (negative, 1.0)):
        x = x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + 1e-5)
        hidden = np.maximum(x @ layer["w"] + layer["b"], 0.0)
        slope = sign * expit(sign * (np.mean(hidden * hidden, axis=1) - THRESHOLD)) / len(x)
        d_sum = slope[:, None] * 2.0 * hidden / hidden.shape[1]
        gradient["w"] += x.T @ d_sum
        gradient["b"] += np.sum(d_sum, axis=0)
    return gradient


def forward_forward_step(optimiser: optim.GradientTransformation) -> Callable[..., Any]:
    def step(layers: list[Layer], states: list[Any], images: np.ndarray, labels: np.ndarray, key: Any) -> Any:
        wrong_labels = (labels + random.randint(key, labels.shape, 1, CLASSES)) % CLASSES
        positive, negative = with_label(images, labels), with_label(images, wrong_labels)
        new_layers, new_states, losses = [], [], []
        for layer, state in zip(layers, states, strict=True):
            (value, (positive, negative)), gradient = graphjit.value_and_grad(layer_loss, has_aux=True)(
                layer, positive, negative
            )
            updates, state = optimiser.update(gradient, state, layer)
            new_layers.append(optim.apply_updates(layer, updates))
            new_states.append(state)
            losses.append(value)
        return new_layers, new_states, sum(losses) / len(losses)

    return graphjit.jit(step, donate_argnums=(0, 1))


@graphjit.jit
def goodness_of_labels(layers: list[Layer], images: np.ndarray) -> np.ndarray:
    """The summed goodness of each image, a row, with each label, a column."""

    def total(label: np.ndarray) -> np.ndarray:
        x, found = with_label(images, np.full(len(images), label)), 0.0
        for layer in layers:
            x = activities(layer, x)
            found = found + goodness(x)
        return found

    return graphjit.vmap(total, out_axes=1)(np.arange(CLASSES))


# Back-propagation, through the same hidden layers.


def scores(layers: list[Layer], images: np.ndarray) -> np.ndarray:
    x = images
    for layer in layers[:-1]:
        x = nn.relu(nn.linear(x, layer["w"], layer["b"]))
    return nn.linear(x, layers[-1]["w"], layers[-1]["b"])


compiled_scores = graphjit.jit(scores)


def back_propagation_step(optimiser: optim.GradientTransformation) -> Callable[..., Any]:
    def loss(layers: list[Layer], images: np.ndarray, labels: np.ndarray) -> float:
        return nn.cross_entropy(scores(layers, images), labels)

    def step(layers: list[Layer], state: Any, images: np.ndarray, labels: np.ndarray, key: Any) -> Any:
        value, gradient = graphjit.value_and_grad(loss)(layers, images, labels)
        updates, state = optimiser.update(gradient, state, layers)
        return optim.apply_updates(layers, updates), state, value

    return graphjit.jit(step, donate_argnums=(0, 1))


# Data, training, measuring.


def load(seed: int) -> tuple[Set, Set]:
    """Training and test digits, four fifths and one fifth, with pixels from 0 to 1."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (images[order] / 16.0).astype(np.float32), labels[order]
    split = len(labels) * 4 // 5
    return (images[:split], labels[:split]), (images[split:], labels[split:])


def initial_layers(seed: int, sizes: Sequence[int]) -> list[Layer]:
    rng = np.random.default_rng(seed)
    return [
        {"w": nn.he_normal(rng, (n, m), np.float32), "b": np.zeros(m, np.float32)}
        for n, m in itertools.pairwise(sizes)
    ]


class Method:
    """One of the two ways: its layers, its training step, and how it reads digits."""

    def __init__(self, name: str, depth: int, rate: float | Callable[[Any], Any], seed: int = 0) -> None:
        self.name, optimiser, hidden = name, optim.adam(rate), [WIDTH] * depth
        self.state: Any
        if name == FORWARD:
            self.layers = initial_layers(seed, [PIXELS + CLASSES, *hidden])
            self.state = [optimiser.init(layer) for layer in self.layers]
            self.step, self.read = forward_forward_step(optimiser), goodness_of_labels
        else:
            self.layers = initial_layers(seed, [PIXELS, *hidden, CLASSES])
            self.state = optimiser.init(self.layers)
            self.step, self.read = back_propagation_step(optimiser), compiled_scores

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        return float(np.mean(np.argmax(self.read(self.layers, images), axis=1) == labels))

    def arena(self, batch: int) -> int:
        """Bytes of temporary memory that a training step plans, beside parameters and state."""
        example = np.zeros((batch, PIXELS), np.float32), np.zeros(batch, np.int64), random.key(0)
        return self.step.lower(self.layers, self.state, *example).memory().arena


def train(
    name: str, sets: tuple[Set, Set], seed: int, options: argparse.Namespace
) -> tuple[Method, list[float]]:
    """The method after training, and its test accuracy after each epoch."""
    training, test = sets
    batches = data.batches(training, BATCH, seed=seed, drop_last=True)
    decay = optim.cosine_decay_schedule(RATES[name], options.epochs * len(batches))
    method, history, number = Method(name, LAYERS, decay, seed), [], 0
    bar = tqdm(range(options.epochs), desc=f"{name}, seed {seed}", disable=options.no_progress)
    for _ in bar:
        for images, labels in batches:
            key = random.fold_in(random.key(seed), number)
            method.layers, method.state, value = method.step(method.layers, method.state, images, labels, key)
            number += 1
        history.append(method.accuracy(*test))
        bar.set_postfix(loss=f"{value:.3f}", accuracy=f"{history[-1]:.1%}")
    return method, history


def seconds(methods: dict[str, Method], sets: tuple[Set, Set]) -> dict[str, dict[str, float]]:
    """Of a training step and of reading the test digits: the best of some, in turns."""
    (images, labels), test = sets
    batch = images[:BATCH], labels[:BATCH], random.key(0)
    found: dict[str, dict[str, float]] = {"step": {}, "reading": {}}
    for _ in range(30):
        for name, method in methods.items():
            begin = time.perf_counter()
            method.layers, method.state, _ = method.step(method.layers, method.state, *batch)
            middle = time.perf_counter()
            method.read(method.layers, test[0])
            for what, took in (("step", middle - begin), ("reading", time.perf_counter() - middle)):
                found[what][name] = min(took, found[what].get(name, took))
    return found


def gradient_difference() -> float:
    """The gradient of a layer against its formula, in float64: the largest relative difference."""
    images, labels = load(0)[0]
    positive = with_label(images[:BATCH].astype(np.float64), labels[:BATCH])
    negative = with_label(images[:BATCH].astype(np.float64), (labels[:BATCH] + 3) % CLASSES)
    layer = {
        name: p.astype(np.float64) for name, p in initial_layers(0, [PIXELS + CLASSES, WIDTH])[0].items()
    }
    ours, _ = graphjit.grad(layer_loss, has_aux=True)(layer, positive, negative)
    theirs = layer_gradient_by_hand(layer, positive, negative)
    return max(float(np.max(np.abs(ours[n] - theirs[n])) / np.max(np.abs(theirs[n]))) for n in theirs)


def goodness_of_sets(layers: list[Layer], test: Set) -> dict[str, np.ndarray]:
    """The summed goodness of each test digit with its right label, and with each wrong one."""
    found, right = goodness_of_labels(layers, test[0]), nn.one_hot(test[1], CLASSES) == 1.0
    return {"right": found[right], "wrong": found[~right]}


def plot(result: dict[str, Any], target: Path) -> None:
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for color, name in (("C0", FORWARD), ("C1", BACK)):
        for number, history in enumerate(result["history"][name]):
            epochs = np.arange(1, len(history) + 1)
            label = name if number == 0 else None
            axes[0].plot(epochs, 100.0 * (1.0 - np.array(history)), color, alpha=0.7, label=label)
        arena = np.array(result["arena"][name]) / 2**20
        axes[1].plot(result["depths"], arena, f"{color}o-", label=name)
    axes[0].set(xlabel="epoch", ylabel="test digits misread [%]", yscale="log")
    axes[0].set_title("Learning (a line a seed)")
    axes[0].set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes[0].set_yticks([], minor=True)
    axes[1].set(xlabel="hidden layers", ylabel="temporary memory [MiB]", ylim=(0.0, None))
    axes[1].set_title(f"Memory of a training step, batch {result['memory_batch']}")
    bins = np.linspace(0.0, max(np.max(found) for found in result["goodness"].values()), 50)
    for color, name in (("C2", "right"), ("C3", "wrong")):
        found = result["goodness"][name]
        axes[2].hist(found, bins, density=True, color=color, alpha=0.6, label=f"{name} label")
    axes[2].set(xlabel=f"goodness, summed over {LAYERS} layers", ylabel="density")
    axes[2].set_title("Test digits beside right and wrong labels")
    for axis in axes:
        axis.legend()
        axis.grid(True, alpha=0.3, which="both")
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(result: dict[str, Any]) -> None:
    print(f"{'':34}{FORWARD:>16}{BACK:>18}")
    rows = (
        ("test accuracy, mean of the seeds", result["accuracy"], 100.0, " %"),
        ("training step", result["seconds"]["step"], 1e3, " ms"),
        (f"reading {result['test_digits']} test digits", result["seconds"]["reading"], 1e3, " ms"),
    )
    for title, found, factor, unit in rows:
        ours, theirs = (f"{factor * found[name]:.2f}{unit}" for name in (FORWARD, BACK))
        print(f"{title:34}{ours:>16}{theirs:>18}")
    for i, depth in enumerate(result["depths"]):
        ours, theirs = (f"{result['arena'][name][i] / 2**20:.2f} MiB" for name in (FORWARD, BACK))
        print(f"{f'temporary memory, {depth} hidden layers':34}{ours:>16}{theirs:>18}")
    print(f"gradient of a layer: {result['gradient_difference']:.1e} from its formula, relative")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs")
    parser.add_argument("--quick", action="store_true", help="one run of eight epochs")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs, options.seeds = 8, 1
    depths, batch = ([2, 4, 8] if options.quick else [2, 4, 8, 16]), 512
    seeds, names = range(options.seed, options.seed + options.seeds), (FORWARD, BACK)
    runs = {name: [train(name, load(seed), seed, options) for seed in seeds] for name in names}
    sets, first = load(options.seed), {name: runs[name][0][0] for name in names}
    result: dict[str, Any] = {
        "history": {name: [history for _, history in runs[name]] for name in names},
        "accuracy": {name: statistics.mean(history[-1] for _, history in runs[name]) for name in names},
        "goodness": goodness_of_sets(first[FORWARD].layers, sets[1]),
        "test_digits": len(sets[1][0]),
        "seconds": seconds(first, sets),
        "depths": depths,
        "memory_batch": batch,
        "arena": {name: [Method(name, depth, 0.01).arena(batch) for depth in depths] for name in names},
        "gradient_difference": gradient_difference(),
    }
    report(result)
    if options.plot:
        plot(result, options.plot)
        print(f"plot written to {options.plot}")
    return result


if __name__ == "__main__":
    main()
