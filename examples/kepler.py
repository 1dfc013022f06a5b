"""Fit the orbit of a planet through a solver: Kepler's equation, differentiated implicitly by
`graphjit.custom_root`.

Input: none; the radial velocities of a star are made up, with noise, from the orbit of a planet on a long
ellipse. Output: the steps of the fit, the elements found beside the true ones with their standard errors, and
the derivatives of the solver beside finite differences and beside those that go back through its iterations.

Where the planet is at a time follows from Kepler's equation E - e sin(E) = M, which has no solution in closed
form. Newton's method solves it for all times at once. Its derivative needs no iteration: the implicit
function theorem gives it from the equation at the solution.

    python examples/kepler.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphjit
from graphjit import pipeline

ITERATIONS, MOST_STEPS = 10, 100
ELEMENTS = {
    "period": 111.4,
    "amplitude": 470.0,
    "eccentricity": 0.68,
    "argument": 0.8,
    "phase": 2.5,
    "drift": -3.0,
}
"""Period in days, amplitude and drift in m/s, angles in radians."""
NOISE = 12.0


def newton(equation: Callable[[Any], Any], start: Any, slope: Callable[[Any], Any]) -> Any:
    """A fixed number of Newton steps: enough for every eccentricity below 0.9 from this start."""
    x = start
    for _ in range(ITERATIONS):
        x = x - equation(x) / slope(x)
    return x


def eccentric_anomaly(mean_anomaly: np.ndarray, eccentricity: float) -> np.ndarray:
    """E of E - e sin(E) = M, whose derivative does not pass through the iterations."""

    def equation(x: np.ndarray) -> np.ndarray:
        return x - eccentricity * np.sin(x) - mean_anomaly

    def solve(equation: Callable[[Any], Any], start: np.ndarray) -> np.ndarray:
        return newton(equation, start, lambda x: 1.0 - eccentricity * np.cos(x))

    def tangent_solve(linear: Callable[[Any], Any], right: np.ndarray) -> np.ndarray:
        # Each time has an equation of its own: the linear map is a product with these slopes.
        return right / linear(np.ones_like(right))

    start = first_guess(mean_anomaly, eccentricity)
    return graphjit.custom_root(equation, start, solve, tangent_solve)


def eccentric_anomaly_unrolled(mean_anomaly: np.ndarray, eccentricity: float) -> np.ndarray:
    """The same, differentiated through every iteration."""
    return newton(
        lambda x: x - eccentricity * np.sin(x) - mean_anomaly,
        first_guess(mean_anomaly, eccentricity),
        lambda x: 1.0 - eccentricity * np.cos(x),
    )


def first_guess(mean_anomaly: np.ndarray, eccentricity: float) -> np.ndarray:
    """On the side of the solution from which Newton's method converges (J. M. A. Danby, 1987)."""
    return mean_anomaly + 0.85 * eccentricity * np.sign(np.sin(mean_anomaly))


def velocities(elements: np.ndarray, times: np.ndarray, anomaly: Callable[..., Any]) -> np.ndarray:
    """Radial velocities of the star at these times."""
    period, amplitude, eccentricity, argument, phase, drift = elements
    mean_anomaly = np.mod(2.0 * np.pi * times / period + phase, 2.0 * np.pi)
    e = anomaly(mean_anomaly, eccentricity)
    ratio = np.sqrt((1.0 + eccentricity) / (1.0 - eccentricity))
    true_anomaly = 2.0 * np.arctan2(ratio * np.sin(e / 2.0), np.cos(e / 2.0))
    return amplitude * (np.cos(true_anomaly + argument) + eccentricity * np.cos(argument)) + drift


def residuals(elements: np.ndarray, times: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """In units of the noise."""
    return (velocities(elements, times, eccentric_anomaly) - seen) / NOISE


def residuals_unrolled(elements: np.ndarray, times: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return (velocities(elements, times, eccentric_anomaly_unrolled) - seen) / NOISE


def observations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times within three years, and what was seen then."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.0, 1100.0, count))
    elements = np.array(list(ELEMENTS.values()))
    seen = velocities(elements, times, eccentric_anomaly_unrolled)
    return times, seen + NOISE * rng.normal(size=count)


def fit(times: np.ndarray, seen: np.ndarray, start: np.ndarray) -> dict[str, Any]:
    """Levenberg and Marquardt's method with the Jacobian that comes through the solver."""
    compiled, jacobian = graphjit.jit(residuals), graphjit.jacfwd(residuals)
    elements, damping, values = start, 1e-3, []
    r = compiled(elements, times, seen)
    for _ in range(MOST_STEPS):
        values.append(float(0.5 * np.sum(r * r)))
        j = jacobian(elements, times, seen)
        normal = j.T @ j
        while True:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -j.T @ r)
            moved = elements + step
            found = compiled(moved, times, seen) if 0.0 <= moved[2] < 0.9 else np.array([np.inf])
            if 0.5 * np.sum(found * found) <= values[-1]:
                break
            if damping > 1e9:
                raise RuntimeError("no step makes the fit better")
            damping *= 4.0
        elements, r, damping = moved, found, damping / 8.0
        if values[-1] - 0.5 * np.sum(r * r) <= 1e-10 * values[-1]:
            break
    return {"elements": elements, "errors": np.sqrt(np.diag(np.linalg.inv(normal))), "values": values}


def derivatives(times: np.ndarray, seen: np.ndarray, elements: np.ndarray) -> dict[str, Any]:
    """The implicit Jacobian beside others, and what gradients of both kinds cost."""
    implicit = graphjit.jacfwd(residuals)(elements, times, seen)
    unrolled = graphjit.jacfwd(residuals_unrolled)(elements, times, seen)
    steps = 1e-6 * np.maximum(np.abs(elements), 1.0)
    compiled = graphjit.jit(residuals)
    columns = [
        (compiled(elements + d, times, seen) - compiled(elements - d, times, seen)) / (2.0 * np.sum(d))
        for d in np.diag(steps)
    ]
    scale = np.max(np.abs(implicit), axis=0)
    found: dict[str, Any] = {
        "to_differences": float(np.max(np.abs(implicit - np.stack(columns, axis=1)) / scale)),
        "to_unrolled": float(np.max(np.abs(implicit - unrolled) / scale)),
    }
    for name, function in (("implicit", residuals), ("unrolled", residuals_unrolled)):

        def loss(elements: np.ndarray, function: Callable[..., Any] = function) -> float:
            return np.sum(function(elements, times, seen) ** 2)

        gradient = graphjit.grad(loss)
        graph = pipeline.optimize(gradient.dispatcher.staged(elements).graph)
        found[name] = {"nodes": len(list(graph.nodes())), "seconds": seconds(gradient, elements)}
    return found


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Median of some calls, after a first one."""
    function(*arguments)
    samples = []
    for _ in range(25):
        begin = time.perf_counter()
        function(*arguments)
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples)


def report(result: dict[str, Any]) -> None:
    values = result["values"]
    print(f"half the sum of squares {values[0]:.4g} -> {values[-1]:.4g} in {len(values)} steps")
    print(f"  {'':<14} {'found':>10}    {'error':>7}   {'true':>8}")
    rows = zip(ELEMENTS.items(), result["elements"], result["errors"], strict=True)
    for (name, true), element, error in rows:
        print(f"  {name:<14} {element:10.4f} +- {error:7.4f}   {true:8.4f}")
    found = result["derivatives"]
    print(f"implicit derivatives, relative difference to central differences  {found['to_differences']:.1e}")
    print(
        f"                      to those through {ITERATIONS} iterations              {found['to_unrolled']:.1e}"
    )
    for name in ("implicit", "unrolled"):
        cost = found[name]
        print(f"gradient, {name:<10}  {cost['nodes']:5} nodes  {cost['seconds'] * 1e6:8.1f} us")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    times, seen = observations(options.observations, options.seed)
    # As one has them from a periodogram and a glance at the curve.
    start = np.array([111.0, 400.0, 0.5, 0.5, 2.3, 0.0])
    result = fit(times, seen, start)
    result["derivatives"] = derivatives(times, seen, result["elements"])
    report(result)
    if options.json:
        plain = {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in result.items()
        }
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
