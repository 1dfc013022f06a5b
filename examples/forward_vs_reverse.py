"""What forward mode, reverse mode, numerical and symbolic differentiation cost: measured, printed, plotted.

Input: the handwritten digits that ship with scikit-learn, for the gradient of a network; functions written
here for the rest (`--quick` for fewer sizes). Output: tables on the terminal and a PNG.

- The gradient of a network with n parameters: n forward passes, one by one or 32 at a time, against one
  backward pass. Per layer both a forward pass (a product with a tangent) and a backward pass multiply three
  times, where an evaluation of the loss multiplies once: each costs about three evaluations, whatever n is.
  So forward mode does about n times the work. What one pass of it takes less of is memory, since it never
  comes back to what an earlier layer computed; 32 passes at a time need 32 of everything.
- Time of a whole Jacobian of a map from n to m numbers: forward mode takes n products with a basis tangent,
  reverse mode m products with a basis cotangent, numerical differentiation n + 1 evaluations.
- Memory: reverse mode must keep what the way back needs, forward mode need not.
- Error of numerical differentiation over its step: truncation on one side, rounding on the other.
- Expression swell: nodes of the symbolic derivative beside nodes of the compiled graph.

    pip install '.[examples]' && python examples/forward_vs_reverse.py
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
from sklearn.datasets import load_digits
from tqdm import tqdm

import graphjit
from graphjit import nn, pipeline

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

Map = Callable[[np.ndarray], np.ndarray]


# n forward passes against one backward pass, for a network with n parameters.

PIXELS, CLASSES, HIDDEN_LAYERS, BATCH, AT_ONCE = 64, 10, 8, 256, 32
METHODS = ("evaluation", "one by one", f"{AT_ONCE} at a time", "backward")


def layers_of(parameters: np.ndarray, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of the layers, cut from one vector."""
    sizes, start, layers = (PIXELS, *[width] * HIDDEN_LAYERS, CLASSES), 0, []
    for n, m in itertools.pairwise(sizes):
        middle = start + n * m
        layers.append((parameters[start:middle].reshape(n, m), parameters[middle : middle + m]))
        start = middle + m
    return layers


def parameter_count(width: int) -> int:
    return (PIXELS + 1) * width + (HIDDEN_LAYERS - 1) * (width + 1) * width + (width + 1) * CLASSES


def network_loss(parameters: np.ndarray, width: int, images: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of a network of `HIDDEN_LAYERS` layers of tanh."""
    x, layers = images, layers_of(parameters, width)
    for w, b in layers[:-1]:
        x = np.tanh(x @ w + b)
    return nn.cross_entropy(nn.linear(x, *layers[-1]), labels)


def gradient_methods(width: int) -> dict[str, tuple[Any, Sequence[Any]]]:
    """Each of METHODS as a compiled function and the arguments of all calls for one gradient; each call
    gives a part of the gradient ("evaluation": the loss alone).
    """
    images, labels = load_digits(return_X_y=True)
    images, labels, n = images[:BATCH] / 16.0, labels[:BATCH], parameter_count(width)

    def loss(x: np.ndarray) -> float:
        return network_loss(x, width, images, labels)

    def push(x: np.ndarray, i: int) -> float:
        """The derivative with respect to parameter `i`: the tangent is 1 there, else 0."""
        return graphjit.jvp(loss, (x,), ((np.arange(n) == i).astype(float),))[1]

    starts = [np.minimum(np.arange(start, start + AT_ONCE), n - 1) for start in range(0, n, AT_ONCE)]
    several = graphjit.jit(graphjit.vmap(push, in_axes=(None, 0)))
    calls: tuple[tuple[Any, Sequence[Any]], ...] = (
        (graphjit.jit(loss), [()]),
        (graphjit.jit(push), [(i,) for i in range(n)]),
        (several, [(start,) for start in starts]),
        (graphjit.grad(loss), [()]),
    )
    return dict(zip(METHODS, calls, strict=True))


def gradient_costs(width: int, repeats: int) -> dict[str, Any]:
    """Seconds of the whole gradient by each method, floating-point operations and temporary memory as the
    compiler plans them, and the largest disagreement with the backward pass.
    """
    n = parameter_count(width)
    x = np.random.default_rng(0).normal(size=n) / np.sqrt(width)
    found: dict[str, Any] = {"n": n, "seconds": {}, "flops": {}, "arena": {}, "disagreement": 0.0}
    gradients = {}
    for name, (compiled, calls) in gradient_methods(width).items():

        def whole(x: np.ndarray, compiled: Any = compiled, calls: Any = calls) -> np.ndarray:
            return np.concatenate([np.atleast_1d(compiled(x, *call)) for call in calls])[:n]

        gradients[name] = whole(x)
        lowered = compiled.lower(x, *calls[0])
        found["arena"][name] = lowered.memory().arena
        found["flops"][name] = lowered.cost().total.flops * len(calls)
        found["seconds"][name] = seconds_of(whole, x, repeats)
    for name in METHODS[1:3]:
        difference = np.max(np.abs(gradients[name] - gradients["backward"]))
        found["disagreement"] = max(found["disagreement"], float(difference))
    return found


# Time against the number of inputs and outputs.


def make_map(inputs: int, outputs: int) -> Map:
    """A smooth map from `inputs` to `outputs` numbers."""
    mixing = np.random.default_rng(0).normal(size=(outputs, inputs)) / np.sqrt(inputs)

    def f(x: np.ndarray) -> np.ndarray:
        return np.tanh(mixing @ np.sin(x))

    return f


def jacobian_methods(f: Map, inputs: int, outputs: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Each method as a function that returns the whole Jacobian, shape (outputs, inputs)."""
    tangents, cotangents, step = np.eye(inputs), np.eye(outputs), 1e-7

    @graphjit.jit
    def push(x: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        return graphjit.jvp(f, (x,), (tangent,))[1]

    @graphjit.jit
    def pull(x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        return graphjit.vjp(f, x)[1](cotangent)[0]

    compiled = graphjit.jit(f)

    def numerical(x: np.ndarray) -> np.ndarray:
        base = compiled(x)
        return np.stack([(compiled(x + step * tangent) - base) / step for tangent in tangents], axis=1)

    return {
        "forward": lambda x: np.stack([push(x, tangent) for tangent in tangents], axis=1),
        "reverse": lambda x: np.stack([pull(x, cotangent) for cotangent in cotangents]),
        "numerical": numerical,
    }


def seconds_of(method: Callable[[np.ndarray], Any], x: np.ndarray, repeats: int) -> float:
    """Median seconds of `method(x)`, which has run before."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        method(x)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def time_jacobians(shapes: Sequence[tuple[int, int]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each method for each (inputs, outputs), and the largest disagreement of the two exact
    modes.
    """
    found: dict[str, list[float]] = {"forward": [], "reverse": [], "numerical": [], "disagreement": []}
    for inputs, outputs in shapes:
        x = np.random.default_rng(1).normal(size=inputs)
        methods = jacobian_methods(make_map(inputs, outputs), inputs, outputs)
        results = {name: method(x) for name, method in methods.items()}
        found["disagreement"].append(float(np.max(np.abs(results["forward"] - results["reverse"]))))
        for name, method in methods.items():
            found[name].append(seconds_of(method, x, repeats))
    return found


# Memory against depth and batch.


def deep(weights: list[np.ndarray], x: np.ndarray) -> float:
    for weight in weights:
        x = np.tanh(x @ weight)
    return np.mean(x * x)


@graphjit.jit
def deep_forward(weights: list[np.ndarray], x: np.ndarray, tangent: np.ndarray) -> Any:
    return graphjit.jvp(lambda x: deep(weights, x), (x,), (tangent,))


@graphjit.jit
def deep_reverse(weights: list[np.ndarray], x: np.ndarray) -> Any:
    return graphjit.value_and_grad(deep, argnums=1)(weights, x)


def arena_bytes(compiled: Any, *arguments: Any) -> int:
    """Bytes of temporary storage that one call of a compiled function plans for, beside arguments and
    results.
    """
    graph = pipeline.optimize(compiled.dispatcher.staged(*arguments).graph)
    return pipeline.schedule(graph)[1].arena


def memory(depths: Sequence[int], batches: Sequence[int], width: int) -> list[dict[str, int]]:
    """Arena of both modes for every depth and batch."""
    rows = []
    for batch in batches:
        for depth in depths:
            weights = [np.full((width, width), 0.1)] * depth
            x = np.zeros((batch, width))
            rows.append(
                {
                    "depth": depth,
                    "batch": batch,
                    "forward": arena_bytes(deep_forward, weights, x, x),
                    "reverse": arena_bytes(deep_reverse, weights, x),
                }
            )
    return rows


# The error of numerical differentiation.


def wave(x: float) -> float:
    return np.exp(x) * np.sin(3.0 * x)


def wave_derivative(x: float) -> float:
    return np.exp(x) * (np.sin(3.0 * x) + 3.0 * np.cos(3.0 * x))


def step_errors(x: float, steps: np.ndarray) -> dict[str, Any]:
    """Relative errors of one-sided and central differences for each step, and of the compiled gradient."""
    exact = wave_derivative(x)
    one_sided = np.array([(wave(x + h) - wave(x)) / h for h in steps])
    central = np.array([(wave(x + h) - wave(x - h)) / (2.0 * h) for h in steps])
    return {
        "one-sided": np.abs(one_sided / exact - 1.0),
        "central": np.abs(central / exact - 1.0),
        "compiled": float(abs(graphjit.grad(wave)(x) / exact - 1.0)),
    }


# Expression swell: x_{k+1} = 4 x_k (1 - x_k), the example of Baydin et al., 2018.


def logistic(x: Any, turns: int) -> Any:
    for _ in range(turns):
        x = 4.0 * x * (1.0 - x)
    return x


def symbolic_logistic(turns: int) -> Any:
    """The same as an expression: "x", a number, or (operator, left, right)."""
    x: Any = "x"
    for _ in range(turns):
        x = ("*", ("*", 4.0, x), ("-", 1.0, x))
    return x


def symbolic_derivative(expression: Any) -> Any:
    """The rules of a textbook, applied as they stand."""
    if not isinstance(expression, tuple):
        return 1.0 if expression == "x" else 0.0
    operator, left, right = expression
    d_left, d_right = symbolic_derivative(left), symbolic_derivative(right)
    if operator == "*":
        return ("+", ("*", d_left, right), ("*", left, d_right))
    return (operator, d_left, d_right)


def written_nodes(expression: Any) -> int:
    """Nodes of the expression when written out."""
    return 1 + sum(map(written_nodes, expression[1:])) if isinstance(expression, tuple) else 1


def graph_nodes(turns: int) -> int:
    """Nodes of the compiled gradient's optimized graph."""
    gradient = graphjit.grad(lambda x: logistic(x, turns))
    return len(list(pipeline.optimize(gradient.dispatcher.staged(0.3).graph).nodes()))


def swell(turns: Sequence[int]) -> dict[str, list[int]]:
    return {
        "symbolic": [written_nodes(symbolic_derivative(symbolic_logistic(turn))) for turn in turns],
        "graph": [graph_nodes(turn) for turn in turns],
    }


def plot_gradients(axes: Any, rows: list[dict[str, Any]]) -> None:
    sizes = [row["n"] for row in rows]
    looks = dict(zip(METHODS, ("k:", "C0o-", "C4s-", "C1o-"), strict=True))
    names = {"one by one": "n forward passes", "backward": "one backward pass"}
    names[METHODS[2]] = f"n forward passes, {METHODS[2]}"
    names["evaluation"] = "one evaluation of the loss"
    for name, look in looks.items():
        axes[0].loglog(sizes, [row["seconds"][name] * 1e3 for row in rows], look, label=names[name])
        axes[1].loglog(sizes, [row["arena"][name] / 2**20 for row in rows], look, label=names[name])
    axes[0].set(ylabel="time of the whole gradient [ms]", title="Gradient of a network: time")
    axes[1].set(ylabel="temporary storage [MiB]", title="Gradient of a network: memory")
    for axis in axes:
        axis.set_xlabel("parameters n")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set_ylim(top=200.0 * axis.get_ylim()[1])  # room for the legend


def plot(results: dict[str, Any], target: Path) -> None:
    figure, axes = pyplot.subplots(2, 4, figsize=(19, 8), layout="constrained")
    plot_gradients(axes[:, 3], results["gradients"])
    for axis, key, label in (
        (axes[0, 0], "inputs", "inputs n (m = 1)"),
        (axes[0, 1], "outputs", "outputs m (n = 1)"),
    ):
        sizes, found = results[key]["sizes"], results[key]["seconds"]
        for method in ("forward", "reverse", "numerical"):
            axis.loglog(sizes, np.array(found[method]) * 1e6, "o-", label=method)
        axis.set(xlabel=label, ylabel="time of the whole Jacobian [us]", title=f"Jacobian: many {key}")
    rows = results["memory"]
    deepest, largest = max(row["depth"] for row in rows), max(row["batch"] for row in rows)
    for axis, key, fixed, value in (
        (axes[0, 2], "depth", "batch", largest),
        (axes[1, 0], "batch", "depth", deepest),
    ):
        chosen = [row for row in rows if row[fixed] == value]
        for mode in ("forward", "reverse"):
            axis.plot([row[key] for row in chosen], [row[mode] / 2**20 for row in chosen], "o-", label=mode)
        axis.set(xlabel=f"{key} ({fixed} {value})", ylabel="temporary storage [MiB]")
        axis.set_title(f"What is kept, by {key}")
    errors = results["errors"]
    for name in ("one-sided", "central"):
        # An error of exactly zero has no place on a logarithmic axis.
        axes[1, 1].loglog(errors["steps"], np.maximum(errors[name], 1e-17), label=name)
    axes[1, 1].axhline(
        max(errors["compiled"], 1e-17), color="black", linestyle=":", label="compiled gradient"
    )
    axes[1, 1].set(xlabel="step h", ylabel="relative error of the derivative")
    axes[1, 1].set_title("Numerical differentiation")
    nodes = results["swell"]
    axes[1, 2].semilogy(nodes["turns"], nodes["symbolic"], "o-", label="symbolic derivative")
    axes[1, 2].semilogy(nodes["turns"], nodes["graph"], "o-", label="compiled graph")
    axes[1, 2].set(xlabel="iterations of the logistic map", ylabel="nodes", title="Expression swell")
    for axis in axes.flat:
        axis.legend()
        axis.grid(True, alpha=0.3)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report_gradients(rows: list[dict[str, Any]]) -> None:
    print(f"the gradient of a network of {HIDDEN_LAYERS} hidden layers: time, operations, temporary memory")
    print(f"  {'parameters':>10} {'':>14}" + "".join(f" {name:>14}" for name in METHODS))
    for row in rows:
        for what, factor, unit in (
            ("seconds", 1e3, "ms"),
            ("flops", 1e-6, "Mflop"),
            ("arena", 2**-10, "KiB"),
        ):
            numbers = "".join(f" {row[what][name] * factor:14.2f}" for name in METHODS)
            print(f"  {row['n'] if what == 'seconds' else '':10} {unit:>14}{numbers}")


def report(results: dict[str, Any]) -> None:
    report_gradients(results["gradients"])
    for key, one in (("inputs", "m = 1"), ("outputs", "n = 1")):
        print(f"time of the whole Jacobian against the number of {key} ({one}), in us")
        print(f"  {key:>9} {'forward':>10} {'reverse':>10} {'numerical':>10}")
        found = results[key]["seconds"]
        for i, size in enumerate(results[key]["sizes"]):
            columns = (f" {found[name][i] * 1e6:10.1f}" for name in ("forward", "reverse", "numerical"))
            print(f"  {size:9}" + "".join(columns))
    print("temporary storage of a chain of tanh(x @ W) layers, in KiB")
    print(f"  {'depth':>9} {'batch':>10} {'forward':>10} {'reverse':>10}")
    for row in results["memory"]:
        print(
            f"  {row['depth']:9} {row['batch']:10} {row['forward'] / 1024:10.1f} {row['reverse'] / 1024:10.1f}"
        )
    errors = results["errors"]
    print("relative error of a derivative")
    for name in ("one-sided", "central"):
        best = int(np.argmin(errors[name]))
        print(
            f"  {name} differences: {errors[name][best]:.1e} at their best step {errors['steps'][best]:.0e}"
        )
    print(f"  compiled gradient: {errors['compiled']:.1e}")
    print("nodes of the derivative of the iterated logistic map")
    print(f"  {'turns':>9} {'symbolic':>10} {'graph':>10}")
    for turn, symbolic, graph in zip(*results["swell"].values(), strict=True):
        print(f"  {turn:9} {symbolic:10} {graph:10}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, default=Path("forward_vs_reverse.png"), metavar="FILE")
    options = parser.parse_args(arguments)
    sizes = (1, 8, 64) if options.quick else (1, 4, 16, 64, 256, 1024)
    repeats = 5 if options.quick else 15
    steps = np.logspace(-1, -15, 57)
    depths = (2, 8) if options.quick else (2, 4, 8, 16, 32)
    batches = (16, 64) if options.quick else (64, 256, 1024)
    turns = (1, 2, 4, 6) if options.quick else tuple(range(1, 11))
    widths = (2, 8) if options.quick else (2, 4, 8, 16, 24)
    bar = tqdm(widths, desc="gradients of networks", disable=options.no_progress)
    results = {
        "gradients": [gradient_costs(width, 3) for width in bar],
        "inputs": {"sizes": sizes, "seconds": time_jacobians([(size, 1) for size in sizes], repeats)},
        "outputs": {"sizes": sizes, "seconds": time_jacobians([(1, size) for size in sizes], repeats)},
        # Many rows of narrower layers are swept block by block: forward and back, and nothing is kept.
        "memory": memory(depths, batches, 32 if options.quick else 128),
        "errors": {"steps": steps} | step_errors(0.7, steps),
        "swell": {"turns": turns} | swell(turns),
    }
    report(results)
    plot(results, options.plot)
    print(f"plot written to {options.plot}")
    return results


if __name__ == "__main__":
    main()
