"""Train a small Transformer to write Python's manual, one character after the other.

Input: the text of the module `pydoc_data.topics`, which ships with Python: what `help("for")` and the like
print, about half a million characters. Its last tenth is kept aside. Output: text that the network writes
before and after training, and how well it foresees the next character of the part kept aside, in nats (a nat
is 1.44 bits): the mean of -log of the probability that it gave to the right one.

A Transformer reads 64 characters at once. Each position looks back at the ones before it (causal attention),
mixes in what it finds, and goes through a small network of its own; layer norms keep the numbers in range.
It is compared with tables that count which character follows one, two or three others. After 300 steps it
foresees better than the table of one, after 800 better than that of two: its test asserts both. After 1 500
it is about as good as the table of three.

The whole training step (forward, backward, clipping, AdamW with a rate that goes up and then down a cosine)
is one compiled function. Its parameters and moments are donated: the new ones are written where the old ones
lie. Writing is compiled too: it draws a character from the probabilities and puts it behind the others.

`--plot FILE` writes a plot, `--quick` trains for 300 steps.

    pip install '.[examples]' && python examples/characters.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import matplotlib
import numpy as np
from tqdm import tqdm

import graphjit
from graphjit import nn, optim, random

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Parameters = dict[str, Any]
LENGTH, WIDTH, HEADS, LAYERS, BATCH = 64, 64, 4, 2, 16
RATE = 3e-3


def load() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The text as numbers, the part to learn and the part kept aside, and the characters they stand for."""
    text = "\n".join(topics.values())
    alphabet = sorted(set(text))
    place = {character: i for i, character in enumerate(alphabet)}
    numbers = np.array([place[character] for character in text], dtype=np.int32)
    split = len(numbers) * 9 // 10
    return numbers[:split], numbers[split:], alphabet


def initial_parameters(characters: int, seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    normal = lambda *shape: np.asarray(rng.normal(0.0, 0.02, shape), np.float32)
    ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    layers = [
        {
            "norm1": (ones.copy(), zeros.copy()),
            "attention": [nn.glorot_normal(rng, (WIDTH, WIDTH), np.float32) for _ in range(4)],
            "norm2": (ones.copy(), zeros.copy()),
            "up": nn.glorot_normal(rng, (WIDTH, 4 * WIDTH), np.float32),
            "down": nn.glorot_normal(rng, (4 * WIDTH, WIDTH), np.float32),
        }
        for _ in range(LAYERS)
    ]
    return {
        "characters": normal(characters, WIDTH),
        "positions": normal(LENGTH, WIDTH),
        "layers": layers,
        "norm": (ones.copy(), zeros.copy()),
        "out": normal(WIDTH, characters),
    }


def logits(params: Parameters, text: np.ndarray) -> np.ndarray:
    """Of what comes after each character of `text`, which has the shape (..., LENGTH)."""
    x = nn.embedding(text, params["characters"]) + params["positions"]
    for layer in params["layers"]:
        y = nn.layer_norm(x, *layer["norm1"])
        x = x + nn.multi_head_attention(y, y, y, *layer["attention"], num_heads=HEADS, is_causal=True)
        y = nn.layer_norm(x, *layer["norm2"])
        x = x + nn.gelu(y @ layer["up"]) @ layer["down"]
    return nn.layer_norm(x, *params["norm"]) @ params["out"]


def loss(params: Parameters, text: np.ndarray) -> float:
    """Mean -log of the probability of each next character; `text` has one character more than is read."""
    return nn.cross_entropy(logits(params, text[:, :-1]), text[:, 1:])


def make_step(optimiser: optim.GradientTransformation) -> Callable[..., tuple[Any, ...]]:
    def step(params: Parameters, state: Any, text: np.ndarray) -> tuple[Any, ...]:
        value, gradient = graphjit.value_and_grad(loss)(params, text)
        updates, state = optimiser.update(gradient, state, params)
        return optim.apply_updates(params, updates), state, value

    return graphjit.jit(step, donate_argnums=(0, 1))


def make_optimiser(steps: int) -> optim.GradientTransformation:
    """Weights of products decay to zero; those of norms, which scale and shift, do not."""
    layer = {"norm1": False, "attention": True, "norm2": False, "up": True, "down": True}
    decayed = {"characters": True, "positions": True, "layers": [layer] * LAYERS, "norm": False, "out": True}
    rate = optim.warmup_cosine_decay_schedule(0.0, RATE, steps // 10, steps, RATE / 10)
    return optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(rate, weight_decay=0.1, mask=decayed))


compiled_loss = graphjit.jit(loss)


def foreseen(params: Parameters, kept: np.ndarray) -> float:
    """Mean loss over texts kept aside, batch after batch of one shape."""
    return float(np.mean([compiled_loss(params, batch) for batch in kept]))


@graphjit.jit
def next_character(params: Parameters, text: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws what comes after the last LENGTH characters, and returns it and the LENGTH last ones then."""
    drawn = random.categorical(key, logits(params, text)[-1]).astype(np.int32)
    return drawn, np.append(text[1:], drawn)


def write(params: Parameters, start: np.ndarray, length: int, seed: int) -> list[int]:
    """Characters that the network puts behind `start`."""
    text, key, written = start, random.key(seed), []
    for i in range(length):
        drawn, text = next_character(params, text, random.fold_in(key, i))
        written.append(int(drawn))
    return written


def table_loss(learn: np.ndarray, kept: np.ndarray, others: int, characters: int) -> float:
    """What a table of counts foresees that knows the last `others` characters.

    Counts of few examples are mixed with what the table of one character less says, as if that had been seen
    five times.
    """

    def grams(text: np.ndarray, size: int) -> np.ndarray:
        """Each `size` characters in a row as one number."""
        places = characters ** np.arange(size, dtype=np.int64)[::-1]
        return np.lib.stride_tricks.sliding_window_view(text, size) @ places

    chance = np.full(len(kept) - others, 1.0 / characters)
    for known in range(others + 1):
        seen = Counter(grams(learn, known + 1).tolist())
        before = Counter(grams(learn[:-1], known).tolist()) if known else {0: len(learn)}
        wanted = grams(kept, known + 1)[others - known :].tolist()
        hits = np.array([seen.get(gram, 0) for gram in wanted])
        tries = np.array([before.get(gram // characters, 0) if known else len(learn) for gram in wanted])
        chance = (hits + 5.0 * chance) / (tries + 5.0)
    return float(-np.mean(np.log(chance)))


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Trains a network; returns what was found on the way."""
    learn, kept, alphabet = load()
    windows = np.lib.stride_tricks.sliding_window_view(learn, LENGTH + 1)
    batches = np.lib.stride_tricks.sliding_window_view(kept, LENGTH + 1)[::LENGTH]
    # Texts kept aside, in batches of 64 that are each spread over all of them.
    batches = batches[: len(batches) // 64 * 64].reshape(64, -1, LENGTH + 1).swapaxes(0, 1)
    params, optimiser = initial_parameters(len(alphabet), options.seed), make_optimiser(options.steps)
    state, step = optimiser.init(params), make_step(optimiser)
    tell = lambda: "".join(alphabet[i] for i in write(params, kept[:LENGTH], options.write, options.seed))
    result: dict[str, Any] = {"prompt": "".join(alphabet[i] for i in kept[:LENGTH]), "before": tell()}
    result |= {"loss": [], "kept": {0: foreseen(params, batches[:1])}, "seconds": []}

    rng = np.random.default_rng(options.seed)
    bar = tqdm(range(1, options.steps + 1), desc="steps", disable=options.no_progress)
    for number in bar:
        text = windows[rng.integers(0, len(windows), BATCH)]
        begin = time.perf_counter()
        params, state, value = step(params, state, text)
        result["seconds"].append(time.perf_counter() - begin)
        result["loss"].append(float(value))
        if number % 50 == 0:
            result["kept"][number] = foreseen(params, batches[:1])
            bar.set_postfix(loss=f"{value:.2f}", kept=f"{result['kept'][number]:.2f}")
    result["after"], result["foreseen"] = tell(), foreseen(params, batches)
    result["tables"] = {others: table_loss(learn, kept, others, len(alphabet)) for others in range(4)}
    return result


def plot(result: dict[str, Any], target: Path) -> None:
    figure, axis = pyplot.subplots(figsize=(9, 5), layout="constrained")
    axis.plot(np.arange(1, len(result["loss"]) + 1), result["loss"], color="0.8", label="batches learned")
    axis.plot(
        list(result["kept"]),
        list(result["kept"].values()),
        "C0.-",
        label=f"text kept aside: {result['foreseen']:.2f}",
    )
    for others, value in result["tables"].items():
        label = f"table of counts, {others} before"
        axis.axhline(value, color=f"C{others + 1}", linestyle="--", label=f"{label}: {value:.2f}")
    axis.set(
        title="How well a small Transformer foresees the next character of Python's manual",
        xlabel="training step",
        ylabel="-log of the probability of the right one [nats]",
    )
    axis.legend()
    axis.grid(True, alpha=0.3)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(result: dict[str, Any]) -> None:
    print(f"after the text\n{result['prompt']!r}")
    for when in ("before", "after"):
        print(f"--- the network wrote {when} training\n{result[when]}\n---")
    print(f"-log of the probability of the next character, in text kept aside: {result['foreseen']:.2f} nats")
    for others, value in result["tables"].items():
        print(f"  a table of counts that knows {others} characters before: {value:.2f}")
    median = float(np.median(result["seconds"]))
    print(f"training step            {median * 1e3:.1f} ms for {BATCH * LENGTH} characters")
    print(f"first call               {result['seconds'][0]:.2f} s (trace, differentiate, compile, run)")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--write", type=int, default=400, metavar="N", help="characters to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="300 steps")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps = 300
    result = train(options)
    report(result)
    if options.plot:
        plot(result, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
