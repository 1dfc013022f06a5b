"""Fit exponential families by Newton's method, with the Hessian that `graphjit.hessian` makes of the
likelihood.

Input: three real data sets that ship with scikit-learn: tumours (569, benign or malignant), wines (178, of
three growers), and the chin-ups of 20 men. Output: the steps of each fit, its coefficients with their
standard errors (the inverse of the Hessian is their covariance), and how far the Hessian is from the one that
a textbook derives by hand.

A family is told by its log-partition function A alone: the negative log-likelihood of natural parameters eta
is sum(A(eta) - y * eta), its gradient X'(A'(eta) - y), its Hessian X'A''(eta)X.

    pip install '.[examples]' && python examples/newton.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_linnerud, load_wine

import graphjit

LogPartition = Callable[[np.ndarray], np.ndarray]
MOST_STEPS, PRECISION = 30, 1e-12


def bernoulli(eta: np.ndarray) -> np.ndarray:
    """log(1 + exp(eta))."""
    return np.logaddexp(0.0, eta)


def poisson(eta: np.ndarray) -> np.ndarray:
    return np.exp(eta)


def categorical(eta: np.ndarray) -> np.ndarray:
    """One parameter a class, of which the last class has none: logsumexp(eta, 0) of each row."""
    return logsumexp(np.column_stack([eta, np.zeros(len(eta))]), axis=1)


@dataclass(frozen=True)
class Problem:
    """Rows `x` with a column of ones in front, sufficient statistics `y` (one column a natural parameter),
    and the strength of a quadratic penalty on all weights but the first row, without which classes that a
    line separates have no best fit.
    """

    name: str
    log_partition: LogPartition
    x: np.ndarray
    y: np.ndarray
    columns: list[str]
    penalty: float

    def loss(self, weights: np.ndarray) -> float:
        """Negative log-likelihood of `weights`, one row a column of x."""
        eta = self.x @ weights
        total = np.sum(self.log_partition(eta)) - np.sum(self.y * eta)
        return total + 0.5 * self.penalty * np.sum(weights[1:] ** 2)


def standardized(x: np.ndarray) -> np.ndarray:
    scaled = (x - np.mean(x, axis=0)) / np.std(x, axis=0)
    return np.column_stack([np.ones(len(x)), scaled])


def problems() -> list[Problem]:
    tumours, wines, men = load_breast_cancer(), load_wine(), load_linnerud()
    return [
        Problem(
            "tumours (Bernoulli)",
            bernoulli,
            standardized(tumours.data),
            (tumours.target[:, None] == 0).astype(float),
            ["(intercept)", *map(str, tumours.feature_names)],
            1.0,
        ),
        Problem(
            "wines (categorical)",
            categorical,
            standardized(wines.data),
            np.eye(3)[wines.target][:, :2],
            ["(intercept)", *map(str, wines.feature_names)],
            1.0,
        ),
        Problem(
            "chin-ups (Poisson)",
            poisson,
            standardized(men.target),
            men.data[:, :1],
            ["(intercept)", *map(str, men.target_names)],
            0.0,
        ),
    ]


def fit(problem: Problem) -> dict[str, Any]:
    """Newton's method with steps halved until the loss falls; the loss is convex, so that it ends at the
    minimum.
    """
    value_and_grad = graphjit.value_and_grad(problem.loss)
    hessian = graphjit.hessian(problem.loss)
    weights = np.zeros((problem.x.shape[1], problem.y.shape[1]))
    decrements = []
    for _ in range(MOST_STEPS):
        value, gradient = value_and_grad(weights)
        curvature = hessian(weights).reshape(weights.size, weights.size)
        step = -np.linalg.solve(curvature, gradient.ravel()).reshape(weights.shape)
        # Twice the decrease that the quadratic model promises.
        decrements.append(float(-np.sum(step * gradient)))
        if decrements[-1] <= PRECISION * max(1.0, abs(value)):
            break
        size = 1.0
        while not problem.loss(weights + size * step) <= value - 0.25 * size * decrements[-1]:
            size *= 0.5
        weights = weights + size * step
    else:
        raise RuntimeError(f"{problem.name}: no minimum after {MOST_STEPS} steps")
    covariance = np.linalg.inv(curvature)
    return {
        "weights": weights,
        "errors": np.sqrt(np.diag(covariance)).reshape(weights.shape),
        "decrements": decrements,
        "gradient": float(np.max(np.abs(gradient))),
        "hessian_difference": largest_difference(curvature, hessian_by_hand(problem, weights)),
    }


def hessian_by_hand(problem: Problem, weights: np.ndarray) -> np.ndarray:
    """sum over rows of (x x') times the covariance of y, as textbooks derive it for each family."""
    eta = problem.x @ weights
    if problem.log_partition is poisson:
        spread = np.exp(eta)[:, :, None]
    else:
        others = np.exp(problem.log_partition(eta)).reshape(len(eta), 1)
        mean = np.exp(eta) / others
        spread = mean[:, :, None] * np.eye(mean.shape[1]) - mean[:, :, None] * mean[:, None, :]
    found = np.einsum("ni,njk,nl->ijlk", problem.x, spread, problem.x)
    penalties = np.full(weights.shape, problem.penalty)
    penalties[0] = 0.0
    return found.reshape(weights.size, weights.size) + np.diag(penalties.ravel())


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative to the largest entry."""
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def report(problem: Problem, result: dict[str, Any], shown: int) -> None:
    print(f"{problem.name}: {problem.x.shape[0]} rows, {result['weights'].size} coefficients")
    decrements = "  ".join(f"{decrement:.1e}" for decrement in result["decrements"])
    print(f"    Newton decrements      {decrements}")
    print(f"    gradient at the end    {result['gradient']:.1e}")
    print(f"    Hessian                {result['hessian_difference']:.1e} from the one derived by hand")
    ratios = result["weights"] / result["errors"]
    clearest = sorted(range(len(problem.columns)), key=lambda row: -np.max(np.abs(ratios[row])))
    for row in clearest[:shown]:
        cells = "   ".join(
            f"{weight:+.3f} +- {error:.3f}"
            for weight, error in zip(result["weights"][row], result["errors"][row], strict=True)
        )
        print(f"    {problem.columns[row]:<28} {cells}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shown", type=int, default=5, help="coefficients to print, the clearest first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    results = {}
    for problem in problems():
        results[problem.name] = fit(problem)
        report(problem, results[problem.name], options.shown)
    if options.json:
        plain = {
            name: {key: np.asarray(value).tolist() for key, value in result.items()}
            for name, result in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main()
