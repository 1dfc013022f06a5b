"""Fit a differential equation to lynxes and hares, with SciPy's least squares and graphjit's Jacobian.

Input: the pelts of snowshoe hares and Canadian lynxes that the Hudson's Bay Company took from 1900 to 1920.
Output: the rates of Lotka and Volterra's equations with their standard errors, how far the Jacobian is from
differences, what the fit costs with either, and a plot (`--plot FILE`) of the data and the fitted orbits.

The equations have no solution in closed form: Runge and Kutta's method walks through them, in a plain Python
loop. graphjit differentiates the whole walk.

    pip install '.[examples]' && python examples/populations.py
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
from scipy.optimize import OptimizeResult, least_squares

import graphjit

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

ANIMALS = ("hares", "lynxes")
NAMES = ("hares' growth", "hunting", "lynxes' death", "feeding", "hares in 1900", "lynxes in 1900")
# In thousands. The table of E. P. Odum, Fundamentals of Ecology (1953), after D. A. MacLulich (1937), as
# B. Carpenter gives it in "Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan" (2018).
HARES = """30 47.2 70.2 77.4 36.3 20.6 18.1 21.4 22 25.4 27.1
           40.3 57 76.6 52.3 19.5 11.2 7.6 14.6 16.2 24.7"""
LYNXES = """4 6.1 9.8 35.2 59.4 41.7 19 13 8.3 9.1 7.4
            8 12.3 19.5 45.7 51.1 29.7 15.8 9.7 10.1 8.6"""
PELTS = np.column_stack([np.array(HARES.split(), dtype=float), np.array(LYNXES.split(), dtype=float)])
YEARS = np.arange(1900, 1900 + len(PELTS))
STEPS = 10
"""Of Runge and Kutta's method, a year."""


def change(animals: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Lotka and Volterra: hares breed and are eaten, lynxes starve and eat."""
    hares, lynxes = animals
    growth, hunting, death, feeding = rates
    return np.stack([(growth - hunting * lynxes) * hares, (feeding * hares - death) * lynxes])


def orbit(logs: np.ndarray) -> np.ndarray:
    """Animals after each step, in the order of time."""
    rates, animals, h = np.exp(logs[:4]), np.exp(logs[4:]), 1.0 / STEPS
    found = [animals]
    for _ in range((len(YEARS) - 1) * STEPS):
        k1 = change(animals, rates)
        k2 = change(animals + h / 2 * k1, rates)
        k3 = change(animals + h / 2 * k2, rates)
        k4 = change(animals + h * k3, rates)
        animals = animals + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        found.append(animals)
    return np.array(found)


@graphjit.jit
def log_orbit(logs: np.ndarray) -> np.ndarray:
    return np.log(orbit(logs))


@graphjit.jit
def residuals(logs: np.ndarray) -> np.ndarray:
    """Of logarithms: what is caught is a share, more or less, of what is there."""
    return (log_orbit(logs)[::STEPS] - np.log(PELTS)).ravel()


jacobian = graphjit.jacfwd(residuals)
slopes = graphjit.jacfwd(log_orbit)


def fit(start: np.ndarray, jac: Callable[..., np.ndarray] | str) -> tuple[OptimizeResult, float]:
    """What SciPy finds, and the seconds it takes once everything is compiled."""
    begin = time.perf_counter()
    found = least_squares(residuals, start, jac)
    return found, time.perf_counter() - begin


def by_differences(logs: np.ndarray) -> np.ndarray:
    """The Jacobian by central differences."""
    h = 1e-5
    columns = [(residuals(logs + d) - residuals(logs - d)) / (2 * h) for d in h * np.eye(len(logs))]
    return np.stack(columns, axis=1)


def plot(logs: np.ndarray, covariance: np.ndarray, target: Path) -> None:
    """The pelts, the fitted orbit, and two standard errors of it on either side."""
    middle, slope = log_orbit(logs), slopes(logs)
    error = np.sqrt(np.einsum("tai,ij,taj->ta", slope, covariance, slope))
    figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
    times = YEARS[0] + np.arange(len(middle)) / STEPS
    for i, name in enumerate(ANIMALS):
        low, high = np.exp(middle[:, i] - 2 * error[:, i]), np.exp(middle[:, i] + 2 * error[:, i])
        axis.fill_between(times, low, high, color=f"C{i}", alpha=0.25, linewidth=0)
        axis.plot(times, np.exp(middle[:, i]), f"C{i}-")
        axis.plot(YEARS, PELTS[:, i], f"C{i}o", label=name)
    axis.set_xticks(YEARS[::4])
    axis.set_ylabel("pelts, thousands")
    axis.legend()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    # Rates that give a cycle of about ten years, and the animals that were seen in the first one.
    start = np.log([0.5, 0.03, 0.8, 0.03, *PELTS[0]])
    begin = time.perf_counter()
    residuals(start), jacobian(start)
    first_calls = time.perf_counter() - begin

    found, seconds = fit(start, jacobian)
    theirs, seconds_of_theirs = fit(start, "3-point")
    j, freedom = jacobian(found.x), PELTS.size - len(found.x)
    covariance = np.linalg.inv(j.T @ j) * (2.0 * found.cost / freedom)
    result = {
        "values": np.exp(found.x).tolist(),
        "errors": (np.exp(found.x) * np.sqrt(np.diag(covariance))).tolist(),
        "noise": float(np.sqrt(2.0 * found.cost / freedom)),
        "difference": float(np.max(np.abs(j - by_differences(found.x))) / np.max(np.abs(j))),
        "to_theirs": float(np.max(np.abs(found.x - theirs.x))),
        "first_calls": first_calls,
        "seconds": {"graphjit": seconds, "3-point": seconds_of_theirs},
    }
    for name, value, error in zip(NAMES, result["values"], result["errors"], strict=True):
        print(f"  {name:<15} {value:8.4f} +- {error:.4f}")
    print(f"an observation is off by {result['noise']:.0%}")
    print(f"Jacobian                 {result['difference']:.1e}   relative difference to central differences")
    print(f"first calls              {first_calls:.2f} s (trace, differentiate, compile, run)")
    print(f"fit                      {seconds * 1e3:.1f} ms in {found.nfev} steps")
    print(f"  with SciPy's own       {seconds_of_theirs * 1e3:.1f} ms in {theirs.nfev} steps (3-point)")
    if options.plot:
        plot(found.x, covariance, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
