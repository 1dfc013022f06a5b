"""Learn the noise of a Kalman filter from the flow of the Nile, with gaps in the record.

Input: the volume of the Nile at Aswan in each year from 1871 to 1970. Output: the variances that make the
record most likely under two models, with their standard errors, for the whole record and for one that lacks
forty years; how far the gradient is from differences; and a plot (`--plot FILE`) of the filtered level.

What is seen is a level with noise. The level walks at random, and in the second model so does its slope. The
filter is a plain Python loop that skips the years without a number by a plain `if`. graphjit differentiates
its likelihood, and SciPy maximises it. J. Durbin and S. J. Koopman, Time Series Analysis by State Space
Methods (2012), give the answer for the first model and the whole record: 15099 and 1469.1.

    pip install '.[examples]' && python examples/nile.py
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy.optimize import minimize

import graphjit

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

# In 10^8 cubic metres. G. W. Cobb, The problem of the Nile, Biometrika 65 (1978); `datasets::Nile` of R.
NILE = """
    1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140
    1100 1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969
    831 726 456 824 702 1120 1100 832 764 821 768 845 864 862 698 845 744 796 1040 759
    781 865 845 944 984 897 822 1010 771 676 649 846 812 742 801 1040 860 874 848 890
    744 749 838 1050 918 986 797 923 975 815 1020 906 901 1170 912 746 919 718 714 740"""
FLOW = np.array(NILE.split(), dtype=float)
YEARS = np.arange(1871, 1871 + len(FLOW))
NOISES = ("of what is seen", "of the level", "of the slope")
UNKNOWN = 1e7
"""Variance of a state of which nothing is known before the first year."""


def kalman(log_noise: np.ndarray, flow: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Minus the log-likelihood of `flow`, and the level with its variance as known at the end of each year.

    `log_noise` has the logarithms of the variances, as many of NOISES as the model has. NaN is no number.
    """
    noise = np.exp(log_noise)
    size = len(noise) - 1
    forward = np.eye(size) + np.eye(size, k=1)
    state, cov = np.zeros(size), UNKNOWN * np.eye(size)
    loss, levels, variances = 0.0, [], []
    for year in range(len(flow)):
        if not np.isnan(flow[year]):
            error, variance = flow[year] - state[0], cov[0, 0] + noise[0]
            gain = cov[:, 0] / variance
            state = state + gain * error
            cov = cov - np.outer(gain, cov[0])
            if year >= size:  # the first years only say where the state begins
                loss = loss + 0.5 * (np.log(2 * np.pi * variance) + error**2 / variance)
        levels.append(state[0])
        variances.append(cov[0, 0])
        state = forward @ state
        cov = forward @ cov @ forward.T + np.diag(noise[1:])
    return loss, np.array(levels), np.array(variances)


def loss(log_noise: np.ndarray, flow: np.ndarray) -> float:
    return kalman(log_noise, flow)[0]


value_and_gradient = graphjit.value_and_grad(loss)
curvature = graphjit.hessian(loss)
filtered = graphjit.jit(kalman)


def fit(size: int, flow: np.ndarray) -> dict[str, Any]:
    """The variances of a model with a state of `size` numbers, and what it cost to find them."""
    start = np.log([1e4, 1e3, 1e1][: size + 1])
    begin = time.perf_counter()
    value_and_gradient(start, flow)
    first_call = time.perf_counter() - begin
    begin = time.perf_counter()
    # No variance is below a millionth of a unit: the likelihood of less is the same.
    bounds = [(np.log(1e-6), None)] * len(start)
    found = minimize(value_and_gradient, start, (flow,), "L-BFGS-B", jac=True, bounds=bounds)
    seconds = time.perf_counter() - begin

    h = 1e-5
    differences = [(loss(start + d, flow) - loss(start - d, flow)) / (2 * h) for d in h * np.eye(len(start))]
    gradient = value_and_gradient(start, flow)[1]
    return {
        "variances": np.exp(found.x).tolist(),
        "errors": standard_errors(found.x, flow),
        "log_likelihood": -float(found.fun),
        "difference": float(np.max(np.abs(gradient - differences)) / np.max(np.abs(gradient))),
        "first_call": first_call,
        "seconds": seconds,
        "calls": found.nfev,
    }


def standard_errors(log_noise: np.ndarray, flow: np.ndarray) -> list[float | None]:
    """Of the variances; None where the likelihood has no curvature, as at a variance that is nothing."""
    hessian = curvature(log_noise, flow)
    known = np.diag(hessian) > 1e-3
    covariance = np.linalg.inv(hessian[np.ix_(known, known)])
    errors: list[float | None] = [None] * len(log_noise)
    for i, error in zip(np.flatnonzero(known), np.sqrt(np.diag(covariance)), strict=True):
        errors[i] = float(np.exp(log_noise[i]) * error)
    return errors


def report(name: str, result: dict[str, Any]) -> None:
    print(f"{name}: log-likelihood {result['log_likelihood']:.2f}")
    for noise, variance, error in zip(NOISES, result["variances"], result["errors"], strict=False):
        print(f"  variance {noise:<16} {variance:9.1f}" + (f" +- {error:.0f}" if error else ""))
    print(
        f"  {result['calls']} values and gradients in {result['seconds'] * 1e3:.1f} ms, "
        f"after a first call of {result['first_call']:.2f} s"
    )


def plot(log_noise: np.ndarray, flow: np.ndarray, target: Path) -> None:
    """The record, and the filtered level with two standard deviations on either side."""
    _, levels, variances = filtered(log_noise, flow)
    figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
    width = 2.0 * np.sqrt(variances)
    axis.fill_between(YEARS, levels - width, levels + width, color="C0", alpha=0.25, linewidth=0)
    axis.plot(YEARS, levels, "C0-", label="level")
    axis.plot(YEARS, FLOW, "o", color="0.8", label="not shown to the filter")
    axis.plot(YEARS, flow, "ko", label="flow")
    axis.set_ylim(400, 1500)
    axis.set_ylabel("10^8 cubic metres a year")
    axis.legend()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    gaps = FLOW.copy()
    gaps[20:40] = gaps[60:80] = np.nan
    results = {
        "local level": fit(1, FLOW),
        "local linear trend": fit(2, FLOW),
        "local level, forty years missing": fit(1, gaps),
    }
    for name, result in results.items():
        report(name, result)
    worst = max(result["difference"] for result in results.values())
    print(f"gradients                {worst:.1e}   relative difference to central differences")
    if options.plot:
        plot(np.log(results["local level"]["variances"]), gaps, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
