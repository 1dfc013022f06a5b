"""Forecast sunspots with three recurrent networks, and look at how far their gradients reach back.

Input: the number of sunspots of each year from 1700 to 2008, which ships with statsmodels. A recurrent
network reads one year after the other, keeps a state h, and says what the next year brings. It is a plain
Python loop; its gradient walks the loop backwards, which is called back-propagation through time.

A step backwards multiplies dL/dh by the derivative of one step. A hundred such factors make a gradient vanish
or explode. To see it, the example adds zeros to the state of each year: the gradient with respect to these
zeros is dL/dh of each year. L is the squared error of one forecast, that of 1920. What it shows, and its test
asserts:

- An RNN with small weights forgets: its state of 1820 has no say in 1920. With large ones dL/dh explodes.
- Gates (LSTM, GRU) that start half open forget even faster, since each year halves the state. Gates that
  start open keep dL/dh within a few powers of ten over the whole century.
- One gradient that exploded throws the weights so far away that the network never comes back. Clipped to a
  length of at most one, the same steps learn.
- The forecasts of all three networks are better than "next year is like this year", and none is clearly
  better than a linear model of the last nine years: there is not more to find in 309 numbers. Gates that
  start open do worse than those that start half open. They remember what does not come again.

The whole training step (forecast, gradient, clipping, AdamW) is one compiled function. Its state is donated:
the new one is written where the old one lies. `--plot FILE` writes a plot, `--quick` trains fewer networks.

    pip install '.[examples]' && python examples/sequence.py
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
from statsmodels.datasets import sunspots
from tqdm import tqdm

import graphjit
from graphjit import nn, optim

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Parameters = dict[str, np.ndarray]
CELLS: dict[str, Callable[..., Any]] = {"RNN": nn.rnn_cell, "LSTM": nn.lstm_cell, "GRU": nn.gru_cell}
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
HIDDEN, RATE, DECAY = 16, 0.01, 0.3
HALF, OPEN = 0.0, 3.0
"""What is added to the gate that keeps the state. The gate is its sigmoid: a half, and 0.95."""
STARTS = {
    "RNN, weights x 0.9": ("RNN", 0.9, HALF),
    "RNN, weights x 2": ("RNN", 2.0, HALF),
    "LSTM, half open": ("LSTM", 1.0, HALF),
    "LSTM, open": ("LSTM", 1.0, OPEN),
    "GRU, half open": ("GRU", 1.0, HALF),
    "GRU, open": ("GRU", 1.0, OPEN),
}
TRAINED = {"RNN": ("RNN", 1.0, HALF)} | {name: STARTS[name] for name in list(STARTS)[2:]}

TABLE = sunspots.load_pandas().data
YEARS, COUNTS = TABLE["YEAR"].to_numpy(int), TABLE["SUNACTIVITY"].to_numpy(float)
SERIES = (np.sqrt(COUNTS) - 6.0) / 2.7
"""Mean 0, deviation 1 or so. Of roots: large numbers of sunspots are less certain than small ones."""
LEARN = (YEARS[1:] > 1720) & (YEARS[1:] <= 1879)  # the years before only fill the state
CHOOSE = (YEARS[1:] > 1879) & (YEARS[1:] <= 1920)  # they say when to stop
TEST = YEARS[1:] > 1920


def initial_parameters(kind: str, gain: float, opened: float, seed: int = 0) -> Parameters:
    """Rotations times `gain`; the gate that keeps the state, second in both, is shifted by `opened`."""
    rng, gates = np.random.default_rng(seed), GATES[kind]
    shift = np.zeros(gates * HIDDEN)
    shift[HIDDEN : 2 * HIDDEN] = opened
    return {
        "w_ih": 0.5 * rng.normal(size=(gates * HIDDEN, 1)),
        "w_hh": np.concatenate([gain * nn.orthogonal(rng, (HIDDEN, HIDDEN)) for _ in range(gates)]),
        "b_ih": shift,
        "b_hh": np.zeros(gates * HIDDEN),
        "out": nn.glorot_normal(rng, (HIDDEN, 1)),
    }


def forecasts(
    kind: str, params: Parameters, series: np.ndarray, zeros: np.ndarray | None = None
) -> np.ndarray:
    """Of the year after each one of `series`: what that one had, plus what the network adds.

    `zeros`, of shape (years, arrays of a state, HIDDEN), are added to the states. An LSTM has two, h and c.
    """
    weights = params["w_ih"], params["w_hh"], params["b_ih"], params["b_hh"]
    state, found = np.zeros((2 if kind == "LSTM" else 1, HIDDEN)), []
    for year in range(len(series)):
        x = series[year : year + 1]
        if kind == "LSTM":
            state = np.stack(nn.lstm_cell(x, (state[0], state[1]), *weights))
        else:
            state = CELLS[kind](x, state[0], *weights)[None]
        if zeros is not None:
            state = state + zeros[year]
        found.append(x[0] + (state[0] @ params["out"])[0])
    return np.array(found)


@graphjit.grad(argnums=2)
def slopes(kind: str, params: Parameters, zeros: np.ndarray, series: np.ndarray) -> float:
    """dL/dh of each year but the last one of `series`, whose forecast has the error L."""
    return (forecasts(kind, params, series[:-1], zeros)[-1] - series[-1]) ** 2


def reach(kind: str, params: Parameters, series: np.ndarray) -> np.ndarray:
    """The length of dL/dh of each year."""
    zeros = np.zeros((len(series) - 1, 2 if kind == "LSTM" else 1, HIDDEN))
    return np.sqrt(np.sum(slopes(kind, params, zeros, series) ** 2, axis=(1, 2)))


class Trainer:
    """A network's training step, compiled as a whole, and the loop around it."""

    def __init__(self, kind: str, optimiser: optim.GradientTransformation) -> None:
        def loss(params: Parameters, series: np.ndarray) -> tuple[float, np.ndarray]:
            found = forecasts(kind, params, series[:-1])
            return np.mean(np.square(found - series[1:])[LEARN]), found

        def step(params: Parameters, state: Any, series: np.ndarray) -> tuple[Any, ...]:
            (value, found), gradient = graphjit.value_and_grad(loss, has_aux=True)(params, series)
            updates, state = optimiser.update(gradient, state, params)
            return optim.apply_updates(params, updates), state, value, found, optim.global_norm(gradient)

        self.step = graphjit.jit(step, donate_argnums=(0, 1))
        self.optimiser = optimiser

    def train(self, params: Parameters, steps: int) -> dict[str, Any]:
        """Changes `params`. The forecasts are those of the step that does best in the years to choose by."""
        state, best = self.optimiser.init(params), np.inf
        result: dict[str, Any] = {"loss": [], "gradient": []}
        for _ in range(steps):
            params, state, value, found, norm = self.step(params, state, SERIES)
            result["loss"].append(float(value))
            result["gradient"].append(float(norm))
            if (error := off_by(found, CHOOSE)) < best:
                best, result["forecasts"] = error, found
        return result


def off_by(found: np.ndarray, chosen: np.ndarray) -> float:
    """Root mean square error in sunspots; no forecast is below none."""
    counts = np.maximum(2.7 * found + 6.0, 0.0) ** 2
    return float(np.sqrt(np.mean((counts - COUNTS[1:])[chosen] ** 2)))


def linear_model() -> np.ndarray:
    """Forecasts by the last nine years, fitted by least squares to the years up to 1920; G. U. Yule, 1927,
    used two.
    """
    windows = np.lib.stride_tricks.sliding_window_view(SERIES[:-1], 9)
    columns = np.column_stack([windows, np.ones(len(windows))])
    known = ~TEST[8:]
    found = np.full(len(TEST), np.nan)
    found[8:] = columns @ np.linalg.lstsq(columns[known], SERIES[9:][known], rcond=None)[0]
    return found


def clipping(steps: int) -> dict[str, dict[str, Any]]:
    """Plain steps along the gradient, of the RNN whose gradient explodes."""
    runs = {}
    for name, steps_before in (("not clipped", []), ("clipped", [optim.clip_by_global_norm(1.0)])):
        params = initial_parameters(*STARTS["RNN, weights x 2"])
        runs[name] = Trainer("RNN", optim.chain(*steps_before, optim.sgd(0.1))).train(params, steps)
        runs[name]["largest weight"] = max(float(np.max(np.abs(weights))) for weights in params.values())
    return runs


def plot(result: dict[str, Any], found: dict[str, np.ndarray], target: Path) -> None:
    figure = pyplot.figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplot_mosaic([["reach", "clipping"], ["series", "series"]])
    styles = ("C0--", "C3-", "C1--", "C1-", "C2--", "C2-")
    for (name, norms), style in zip(result["reach"].items(), styles, strict=True):
        axes["reach"].semilogy(np.arange(1920 - len(norms), 1920), norms, style, label=name)
    axes["reach"].set(
        title="How far back the error of 1920 reaches, before training",
        xlabel="year t of the state",
        ylabel="length of dL/dh$_t$",
    )
    for name, run in result["clipping"].items():
        axes["clipping"].semilogy(run["loss"], label=f"{name}, at most {max(run['loss']):.2g}")
    axes["clipping"].set(
        title="The RNN whose gradient explodes, by steps along it",
        xlabel="step",
        ylabel="mean square error, of scaled numbers",
        ylim=(0.05, 20.0),
    )
    shown = YEARS[1:] > 1900
    axes["series"].plot(YEARS[1:][shown], COUNTS[1:][shown], "k.-", label="seen")
    for color, name in zip(("C0", "C1", "C2"), ("RNN", "LSTM, half open", "GRU, half open"), strict=True):
        counts = np.maximum(2.7 * found[name] + 6.0, 0.0) ** 2
        label = f"{name.split(',')[0]}, off by {result['off_by'][name]:.1f}"
        axes["series"].plot(YEARS[1:][shown], counts[shown], color, linewidth=1.2, label=label)
    axes["series"].axvspan(1900, 1920.5, color="0.92", label="not in the test")
    axes["series"].set(
        title="Forecasts of the next year", xlabel="year", ylabel="sunspots", xlim=(1900, YEARS[-1] + 1)
    )
    for axis in axes.values():
        axis.legend(fontsize="small")
        axis.grid(True, alpha=0.3)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(result: dict[str, Any]) -> None:
    print("length of dL/dh, L the error of the forecast of 1920")
    print(f"  {'':<22} {'1919':>9} {'1900':>9} {'1870':>9} {'1820':>9}")
    for name, norms in result["reach"].items():
        print(f"  {name:<22}" + "".join(f" {norms[i]:9.1e}" for i in (-1, -20, -50, -100)))
    print("RNN, weights x 2, by steps along the gradient")
    for name, run in result["clipping"].items():
        print(
            f"  {name:<22} loss {run['loss'][0]:.2f} to {run['loss'][-1]:.2g}, longest gradient "
            f"{max(run['gradient']):.0e}, largest weight {run['largest weight']:.2g}"
        )
    print("forecasts of the years 1921 to 2008 are off by, in sunspots")
    for name, error in result["off_by"].items():
        print(f"  {name:<22} {error:5.1f}")
    print(f"a training step over {len(YEARS)} years takes", end=" ")
    print(", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in result["step_seconds"].items()))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first network of each kind")
    parser.add_argument("--quick", action="store_true", help="two networks of each kind instead of eight")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    seeds, steps = range(options.seed, options.seed + (2 if options.quick else 8)), 400
    end = int(np.searchsorted(YEARS, 1920)) + 1
    bar = tqdm(total=len(STARTS) + 1 + len(TRAINED) * len(seeds), disable=options.no_progress)

    result: dict[str, Any] = {"reach": {}, "off_by": {}, "step_seconds": {}}
    for name, (kind, gain, opened) in STARTS.items():
        bar.set_description(f"reach of {name}")
        result["reach"][name] = reach(
            kind, initial_parameters(kind, gain, opened), SERIES[end - 101 : end]
        ).tolist()
        bar.update()
    bar.set_description("clipping")
    result["clipping"] = clipping(steps)
    bar.update()

    found = {"like this year": SERIES[:-1], "linear, nine years": linear_model()}
    rate = optim.cosine_decay_schedule(RATE, steps)
    optimiser = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(rate, weight_decay=DECAY))
    trainers = {kind: Trainer(kind, optimiser) for kind in CELLS}
    for name, (kind, gain, opened) in TRAINED.items():
        members = []
        for seed in seeds:
            bar.set_description(f"{name}, network {seed}")
            begin = time.perf_counter()
            members.append(
                trainers[kind].train(initial_parameters(kind, gain, opened, seed), steps)["forecasts"]
            )
            result["step_seconds"][kind] = (time.perf_counter() - begin) / steps
            bar.update()
        found[name] = np.mean(members, axis=0)
    bar.close()
    result["off_by"] = {name: off_by(each, TEST) for name, each in found.items()}
    for run in result["clipping"].values():
        del run["forecasts"]
    report(result)
    if options.plot:
        plot(result, found, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
