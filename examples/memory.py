"""What reverse mode keeps in memory, and what `checkpoint` saves: by a formula, by the plan, and measured.

The way back of a gradient begins at the output, and for each layer it reads what the way there computed. So
that must be kept: memory grows with depth times batch, while forward mode, or the value alone, can forget
each layer behind it. `checkpoint` trades time for memory. Of a segment of layers it keeps what went in, and
computes the rest again when the way back comes to it.

Count in layers: one is the output of a layer for the whole batch. A network of n layers

- without checkpoints takes n + 2: all layers, and the gradient at two neighbouring ones;
- in segments of k layers takes n / k + k + 1: the ends of all segments, and the one that is computed again.
  That is least for k = sqrt(n): memory then grows as 2 sqrt(n). (A. Griewank, 1992; T. Chen and others, 2016)

Time is the price: each segment is computed twice on the way there, and that is a third more operations, for
the way back takes two thirds of them.

Input: the 1 797 real 8x8 digits that ship with scikit-learn. A deep network of 64 tanh units a layer reads
them. Output: for each depth, batch and length of segments, working memory by the formula above, by the plan
that the compiler made before anything ran (`lower(...).memory()`), and by what the system says that one call
added to the memory of this process, where it tells that (Linux); a plot (`--plot FILE`).
Claims: the plan is the formula, but for two layers at most (as far as caches reach, the compiler takes blocks
of rows through several layers at once; then neighbours need less, or one more, at a time). What is measured
is the plan and about one MiB more: memory comes in pages, and code and stacks take some. Gradients with and
without checkpoints are the same but for rounding.

    pip install '.[examples]' && python examples/memory.py --plot memory.png
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphjit
from graphjit import nn
from graphjit.view.arena import arena_of

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

WIDTH, CLASSES = 64, 10
REPEATS = 3
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Case(NamedTuple):
    """One gradient: layers, digits, and layers of a segment; 0 is without checkpoints."""

    depth: int
    batch: int
    segment: int


def layers(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    for w in weights:
        x = np.tanh(x @ w)
    return x


segment_of_layers = graphjit.checkpoint(layers)


def gradient_of(segment: int) -> Any:
    """Value and gradient with respect to all weights."""

    def loss(weights: list[np.ndarray], head: np.ndarray, x: np.ndarray, labels: np.ndarray) -> float:
        if segment == 0:
            x = layers(weights, x)
        else:
            for first in range(0, len(weights), segment):
                x = segment_of_layers(weights[first : first + segment], x)
        return nn.cross_entropy(x @ head, labels)

    return graphjit.value_and_grad(loss, argnums=(0, 1))


def inputs(case: Case, seed: int) -> tuple[Any, ...]:
    """Rotations as weights, so that neither activations nor gradients fade too fast, and digits."""
    rng = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    weights = [nn.orthogonal(rng, (WIDTH, WIDTH)) for _ in range(case.depth)]
    head = nn.lecun_normal(rng, (WIDTH, CLASSES))
    return weights, head, pixels[: case.batch] / 16.0, labels[: case.batch]


# Three ways to know.


def by_formula(case: Case) -> float:
    """In layers. The logits and their gradient are kept besides; they are narrower."""
    n, k = case.depth, case.segment
    return (n + 2 if k == 0 else math.ceil(n / k) + k + 1) + 2 * CLASSES / WIDTH


def kilobytes(name: str) -> int:
    """A figure of this process, by the system: VmRSS is what it has in memory, VmHWM the most it had."""
    return int(
        next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")).split()[1]
    )


def measured(compiled: Any, arguments: tuple[Any, ...]) -> tuple[Any, int | None]:
    """Results of the first call, and by how many bytes this process grew in it at most, without results.

    Only the very first one shows: equal functions share their code and its memory.
    """
    gc.collect()
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)  # what is free goes back to the system: else the call would take it, unseen
    try:
        before = kilobytes("VmRSS")
        CLEAR.write_text("5")  # from here on a new VmHWM
    except OSError:
        return compiled(*arguments), None
    value, (weights, head) = compiled(*arguments)
    peak = 1024 * (kilobytes("VmHWM") - before)
    return (value, (weights, head)), peak - sum(g.nbytes for g in (*weights, head))


def examine(case: Case, seed: int) -> tuple[dict[str, Any], Any]:
    """All figures of one gradient, and its results."""
    arguments = inputs(case, seed)
    lowered = gradient_of(case.segment).lower(*arguments)  # nothing runs yet
    compiled = lowered.compile()
    results, peak = measured(compiled, arguments)
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        compiled(*arguments)
        seconds.append(time.perf_counter() - begin)
    figures = case._asdict() | {
        "layer_bytes": 8 * WIDTH * case.batch,
        "formula": by_formula(case),
        "planned_bytes": lowered.memory().arena,
        "measured_bytes": peak,
        "flops": lowered.cost().total.flops,
        "seconds": min(seconds),
        "over_time": in_use(lowered),
    }
    return figures, results


def in_use(lowered: Any) -> list[int]:
    """Bytes of the plan that are in use at each step of the program."""
    arena = arena_of(lowered)
    return [
        sum(life.nbytes for life in arena.lives if life.first <= step <= life.last)
        for step in range(len(arena.steps))
    ]


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two results in any array, relative to that array's largest entry."""
    flat = [(value, *weights, head) for value, (weights, head) in (ours, theirs)]
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(*flat, strict=True))


# What it found, printed and drawn.


def cases_of(depths: list[int], batches: list[int], segments: list[int]) -> list[Case]:
    """Each depth with the largest batch, each batch with the largest depth: without checkpoints and with the
    best segments. The deepest network with all segments.
    """
    deepest, largest = max(depths), max(batches)
    pairs = [(depth, largest) for depth in depths] + [(deepest, batch) for batch in batches]
    cases = [Case(depth, batch, k) for depth, batch in pairs for k in (0, math.isqrt(depth))]
    return list(dict.fromkeys(cases + [Case(deepest, largest, k) for k in segments]))


def curve(axis: Any, rows: list[dict[str, Any]], key: str, color: str, label: str) -> None:
    """The plan as a line, what was measured as points."""
    rows, x = sorted(rows, key=lambda row: row[key]), sorted(row[key] for row in rows)
    axis.plot(x, [row["planned_bytes"] / 2**20 for row in rows], color + "-", label=f"{label}: planned")
    if all(row["measured_bytes"] is not None for row in rows):
        axis.plot(x, [row["measured_bytes"] / 2**20 for row in rows], color + "o", label="measured")


def plot(rows: list[dict[str, Any]], target: Path) -> None:
    """Memory by depth, batch and length of segments, and over the time of one call."""
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8), layout="constrained")
    deepest, largest = max(row["depth"] for row in rows), max(row["batch"] for row in rows)
    best = math.isqrt(deepest)
    for key, other, value, axis in (
        ("depth", "batch", largest, axes[0, 0]),
        ("batch", "depth", deepest, axes[0, 1]),
    ):
        some = [row for row in rows if row[other] == value]
        curve(axis, [row for row in some if row["segment"] == 0], key, "C3", "no checkpoints")
        kept = [row for row in some if row["segment"] == math.isqrt(row["depth"])]
        curve(axis, kept, key, "C0", "segments of sqrt(depth)")
        axis.set(
            xlabel={"depth": "layers", "batch": "digits in the batch"}[key],
            title=f"By {key}; {other} {value}",
        )
        axis.set(ylim=(0, None))
    full = [row for row in rows if row["depth"] == deepest and row["batch"] == largest]
    curve(axes[1, 0], [row for row in full if row["segment"]], "segment", "C0", "segments")
    axes[1, 0].axhline(full[0]["planned_bytes"] / 2**20, color="C3", linestyle=":", label="no checkpoints")
    axes[1, 0].set(
        xlabel="layers of a segment", title=f"By segment; {deepest} layers, batch {largest}", ylim=(0, None)
    )
    for row, color in ((full[0], "C3"), (next(row for row in full if row["segment"] == best), "C0")):
        used = np.array(row["over_time"]) / 2**20
        name = f"segments of {best}" if row["segment"] else "no checkpoints"
        axes[1, 1].fill_between(
            np.linspace(0, 100, len(used)), used, step="mid", color=color, alpha=0.5, label=name
        )
    axes[1, 1].set(xlabel="steps of the program [%]", title="Over one call; the way there ends at the peak")
    for axis in axes.flat:
        axis.set_ylabel("working memory [MiB]")
        axis.legend()
        axis.grid(True, alpha=0.3)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(rows: list[dict[str, Any]], apart: float) -> None:
    print("working memory of a gradient, in layers (outputs of a layer for the whole batch), and time")
    print("  depth  batch  segment  formula  planned  measured       MiB  1e6 operations      ms")
    for row in rows:
        one, peak = row["layer_bytes"], row["measured_bytes"]
        print(
            f"  {row['depth']:5} {row['batch']:6} {row['segment'] or '-':>8} {row['formula']:8.2f} "
            f"{row['planned_bytes'] / one:8.2f} {'-' if peak is None else f'{peak / one:.2f}':>9} "
            f"{row['planned_bytes'] / 2**20:9.1f} {row['flops'] / 1e6:15.0f} {row['seconds'] * 1e3:7.1f}"
        )
    print(f"gradient difference      {apart:.1e}   relative, with and without checkpoints")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few and small networks")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    depths, batches, segments = [4, 9, 16, 36, 64], [448, 896, 1792], [2, 4, 8, 16, 32]
    if options.quick:
        depths, batches, segments = [4, 16], [448, 1792], [2, 4, 8]
    rows, firsts, apart = [], {}, 0.0
    cases = cases_of(depths, batches, segments)
    examine(Case(1, 8, 0), options.seed)  # what the library loads once does not count
    for case in tqdm(cases, desc="gradients", disable=options.no_progress):
        row, results = examine(case, options.seed)
        rows.append(row)
        apart = max(apart, difference(results, firsts.setdefault(case[:2], results)))
    result = {"rows": rows, "gradient_difference": apart}
    report(rows, apart)
    if options.plot:
        plot(rows, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
