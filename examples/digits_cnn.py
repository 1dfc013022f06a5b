"""Train a convolutional network like LeNet on handwritten digits, five times, and say how well it reads.

A convolution looks at an image through a small window, here of 3 by 3 pixels, and moves it over all places.
Each of its filters is a set of weights that is the same everywhere: an edge is an edge wherever it lies. So
a layer needs few weights, and a digit that is moved a little is still read. Pooling keeps the largest of each
2 by 2 answers, so the next layer's windows reach twice as far. What is left goes through two dense layers.
(Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, 1998; their digits had 32 by 32 pixels and their windows 5 by
5.)

Input: the 1 797 real 8x8 digits that ship with scikit-learn, in a new order for each seed: four fifths to
learn from, one fifth to be tested on. One split says little: a test of 360 digits moves by 0.28 % with each
of them. So there are five seeds, each with its own split, first weights and batches.
Output: the test accuracy of each seed and their mean, the time of an epoch, and, where PyTorch is installed,
with the same network there, what both take for an epoch on one thread, and how far apart their
gradients are; a plot (`--plot FILE`).
Claims: the mean is above 98.5 %; the gradient is PyTorch's within the rounding of float32.

The whole training step is one compiled program: loss, gradient, and AdamW, which writes new weights and
moments where the old ones lay (`donate_argnums`). The loop around it is plain Python.

    pip install '.[examples]' && python examples/digits_cnn.py --plot digits_cnn.png
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphjit
from graphjit import data, nn, optim

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Parameters = dict[str, np.ndarray]
Digits = tuple[np.ndarray, np.ndarray]
"""Images of shape (count, 8, 8, 1) with values from 0 to 1, and their labels."""
FILTERS, HIDDEN, CLASSES, BATCH = (16, 32), 128, 10, 32
RATE, DECAY = 3e-3, 0.1
"""The largest learning rate, and how fast weights decay by themselves."""


def load(seed: int) -> tuple[Digits, Digits]:
    """Training and test digits."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (pixels[order] / 16.0).astype(np.float32).reshape(-1, 8, 8, 1), labels[order]
    split = len(labels) * 4 // 5
    return (images[:split], labels[:split]), (images[split:], labels[split:])


def initial_parameters(seed: int) -> Parameters:
    """Weights so large that neither activations nor gradients grow or fade from layer to layer."""
    rng, (first, second) = np.random.default_rng(seed), FILTERS
    return {
        "conv1": nn.he_normal(rng, (3, 3, 1, first), np.float32),
        "bias1": np.zeros(first, np.float32),
        "conv2": nn.he_normal(rng, (3, 3, first, second), np.float32),
        "bias2": np.zeros(second, np.float32),
        "dense3": nn.he_normal(rng, (2 * 2 * second, HIDDEN), np.float32),
        "bias3": np.zeros(HIDDEN, np.float32),
        "dense4": nn.lecun_normal(rng, (HIDDEN, CLASSES), np.float32),
        "bias4": np.zeros(CLASSES, np.float32),
    }


@graphjit.jit
def logits(params: Parameters, images: np.ndarray) -> np.ndarray:
    """Ten numbers for each image; the largest says what it is."""
    x = nn.relu(nn.conv2d(images, params["conv1"], params["bias1"], padding="same"))  # 8 by 8 by 16
    x = nn.max_pool(x, 2)  # 4 by 4 by 16
    x = nn.relu(nn.conv2d(x, params["conv2"], params["bias2"], padding="same"))  # 4 by 4 by 32
    x = nn.max_pool(x, 2)  # 2 by 2 by 32
    x = nn.relu(nn.linear(x.reshape(len(x), -1), params["dense3"], params["bias3"]))
    return nn.linear(x, params["dense4"], params["bias4"])


@graphjit.value_and_grad
def loss(params: Parameters, images: np.ndarray, labels: np.ndarray) -> float:
    return nn.cross_entropy(logits(params, images), labels)


def guesses(params: Parameters, images: np.ndarray) -> np.ndarray:
    return np.argmax(logits(params, images), axis=1)


def new_step(optimiser: optim.GradientTransformation) -> Callable[..., tuple[Parameters, Any, float]]:
    """A whole step of training as one program."""

    def step(params: Parameters, state: Any, images: np.ndarray, labels: np.ndarray) -> Any:
        value, gradient = loss(params, images, labels)
        updates, state = optimiser.update(gradient, state, params)
        return optim.apply_updates(params, updates), state, value

    return graphjit.jit(step, donate_argnums=(0, 1))


def rate_of(epochs: int, steps: int) -> Callable[[Any], Any]:
    """It rises for one epoch, then falls to nothing along a cosine."""
    return optim.warmup_cosine_decay_schedule(0.0, RATE, steps, max(2, epochs) * steps)


def train(
    seeds: list[int], epochs: int, bar: tqdm
) -> tuple[dict[int, Parameters], dict[int, dict[str, list[float]]]]:
    """Parameters of each seed, and for each epoch its loss, test accuracy and seconds."""
    steps = len(load(0)[0][1]) // BATCH
    optimiser = optim.adamw(rate_of(epochs, steps), weight_decay=DECAY)
    step = new_step(optimiser)  # for all seeds: it is compiled once
    found, histories = {}, {}
    for seed in seeds:
        training, test = load(seed)
        # Batches are full: a last, shorter one would be another shape, hence another compilation.
        batches = data.batches(training, BATCH, seed=seed, drop_last=True)
        params = initial_parameters(seed)
        state = optimiser.init(params)
        history: dict[str, list[float]] = {"loss": [], "accuracy": [], "seconds": []}
        for _ in range(epochs):
            begin, values = time.perf_counter(), []
            for images, labels in batches:
                params, state, value = step(params, state, images, labels)
                values.append(value)
            history["seconds"].append(time.perf_counter() - begin)
            history["loss"].append(float(np.mean(values)))
            history["accuracy"].append(float(np.mean(guesses(params, test[0]) == test[1])))
            bar.update()
            bar.set_postfix(seed=seed, loss=f"{history['loss'][-1]:.4f}")
        found[seed], histories[seed] = params, history
    return found, histories


# The same network in PyTorch, to compare.


def torch_weights(torch: Any, params: Parameters) -> dict[str, Any]:
    """PyTorch has outputs first: (out, in, height, width) and (out, in). Its images have channels before
    height and width, so after the pooling the rows of the dense layer come in another order.
    """
    dense3 = params["dense3"].reshape(2, 2, FILTERS[1], HIDDEN).transpose(3, 2, 0, 1).reshape(HIDDEN, -1)
    moved = params | {
        "conv1": params["conv1"].transpose(3, 2, 0, 1),
        "conv2": params["conv2"].transpose(3, 2, 0, 1),
        "dense3": dense3,
        "dense4": params["dense4"].T,
    }
    return {name: torch.tensor(np.ascontiguousarray(w), requires_grad=True) for name, w in moved.items()}


def torch_loss(torch: Any, p: dict[str, Any], images: Any, labels: Any) -> Any:
    f = torch.nn.functional
    x = f.max_pool2d(f.relu(f.conv2d(images, p["conv1"], p["bias1"], padding=1)), 2)
    x = f.max_pool2d(f.relu(f.conv2d(x, p["conv2"], p["bias2"], padding=1)), 2)
    x = f.relu(f.linear(x.flatten(1), p["dense3"], p["bias3"]))
    return f.cross_entropy(f.linear(x, p["dense4"], p["bias4"]), labels)


def beside_torch(seed: int, epochs: int) -> dict[str, float] | None:
    """How far the gradients of the first batch are apart, relative to the largest of each array, and the
    shortest epochs of both on one thread, in turns; None where there is no PyTorch.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    batches = list(data.batches(load(seed)[0], BATCH, seed=seed, drop_last=True))
    tensors = [(torch.tensor(x.transpose(0, 3, 1, 2).copy()), torch.tensor(y)) for x, y in batches]
    params = initial_parameters(seed)
    gradient = torch_weights(torch, loss(params, *batches[0])[1])
    theirs = torch_weights(torch, params)
    torch_loss(torch, theirs, *tensors[0]).backward()
    apart = [
        float((gradient[n].detach() - w.grad).abs().max() / w.grad.abs().max()) for n, w in theirs.items()
    ]

    optimiser = torch.optim.AdamW(theirs.values(), lr=RATE, weight_decay=DECAY)
    ours = optim.adamw(RATE, weight_decay=DECAY)
    step, state = new_step(ours), ours.init(params)
    seconds: dict[str, list[float]] = {"graphjit": [], "torch": []}
    threads = graphjit.get_num_threads(), torch.get_num_threads()
    graphjit.set_num_threads(1), torch.set_num_threads(1)
    for _ in range(epochs):
        begin = time.perf_counter()
        for images, labels in batches:
            params, state, _ = step(params, state, images, labels)
        between = time.perf_counter()
        for images, labels in tensors:
            optimiser.zero_grad()
            torch_loss(torch, theirs, images, labels).backward()
            optimiser.step()
        seconds["graphjit"].append(between - begin)
        seconds["torch"].append(time.perf_counter() - between)
    graphjit.set_num_threads(threads[0]), torch.set_num_threads(threads[1])
    return {"gradient_difference": max(apart)} | {name: min(times) for name, times in seconds.items()}


# What it found, printed and drawn.


def plot(seeds: list[int], found: dict[int, Parameters], histories: dict[int, Any], target: Path) -> None:
    """How the seeds learn, the filters of the first layer, and digits that were misread."""
    figure = pyplot.figure(figsize=(14, 4.5), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.3, 1.0, 1.0))
    axis = left.subplots()
    errors = 100.0 - 100.0 * np.array([histories[seed]["accuracy"] for seed in seeds])
    epochs = np.arange(1, errors.shape[1] + 1)
    axis.plot(epochs, errors.T, color="C0", alpha=0.3, linewidth=1)
    axis.plot(epochs, errors.mean(axis=0), color="C0", linewidth=2, label=f"mean of {len(seeds)} seeds")
    axis.axhline(1.5, color="black", linestyle=":", label="1.5 %")
    axis.set(xlabel="epoch", ylabel="test digits misread [%]", title="Learning", yscale="log")
    axis.yaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axis.legend()
    axis.grid(True, which="both", alpha=0.3)
    filters = found[seeds[0]]["conv1"][:, :, 0].transpose(2, 0, 1)
    largest = np.max(np.abs(filters))
    middle.suptitle("Filters of the first layer (red +, blue -)")
    for small, weights in zip(middle.subplots(4, 4).flat, filters, strict=True):
        small.imshow(weights, cmap="RdBu_r", vmin=-largest, vmax=largest)
        small.set_axis_off()
    wrong, count = [], 0
    for seed in seeds:
        images, labels = load(seed)[1]
        said = guesses(found[seed], images)
        count += len(said)
        wrong += [(images[i, :, :, 0], labels[i], said[i]) for i in np.flatnonzero(said != labels)]
    right.suptitle(f"Misread: {len(wrong)} of {count} (true, said)")
    for number, small in enumerate(right.subplots(3, 4).flat):
        small.set_axis_off()
        if number < len(wrong):
            image, label, guess = wrong[number]
            small.imshow(image, cmap="gray_r")
            small.set_title(f"{label}, {guess}", fontsize=9)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(result: dict[str, Any]) -> None:
    each, seconds, torch = result["test_accuracy"], result["epoch_seconds"], result["torch"]
    print(f"test accuracy            {', '.join(f'{a:.2%}' for a in each)}")
    print(f"  mean of {len(each)} seed(s)      {result['mean_test_accuracy']:.2%}")
    print(f"time per epoch           {seconds * 1e3:.1f} ms on {graphjit.get_num_threads()} thread(s)")
    print(
        f"first epoch              {result['first_epoch_seconds']:.2f} s (trace, differentiate, compile, run)"
    )
    if torch is None:
        print("PyTorch is not installed: there is nothing to compare with")
        return
    print(f"on one thread            {torch['graphjit'] * 1e3:.1f} ms, PyTorch {torch['torch'] * 1e3:.1f} ms")
    print(f"gradient difference      {torch['gradient_difference']:.1e}   relative, to PyTorch's in float32")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--quick", action="store_true", help="one seed, ten epochs")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs, options.seeds = 10, 1
    seeds = list(range(options.seed, options.seed + options.seeds))
    with tqdm(total=len(seeds) * options.epochs, desc="epochs", disable=options.no_progress) as bar:
        found, histories = train(seeds, options.epochs, bar)
    accuracies = [histories[seed]["accuracy"][-1] for seed in seeds]
    seconds = [second for seed in seeds for second in histories[seed]["seconds"]]
    result = {
        "test_accuracy": accuracies,
        "mean_test_accuracy": statistics.mean(accuracies),
        "epoch_seconds": statistics.median(seconds),
        "first_epoch_seconds": seconds[0],
        "losses": histories[seeds[0]]["loss"],
        "torch": beside_torch(seeds[0], 3 if options.quick else 6),
    }
    report(result)
    if options.plot:
        plot(seeds, found, histories, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
