"""Steer a truck over a mountain road in real time, with derivatives by forward mode in every step.

Input: elevations around Jacksboro, Tennessee, which ship with matplotlib. A road crosses them, and a truck
shall drive it at 20 m/s. Its controller has a model, which says how fast the truck will be in two seconds.
But the model believes that it is empty and weighs 12 tonnes; in truth it weighs 20. Twenty times a second the
controller asks the model two questions, each with one parameter:

- What speed should we have now, by the forces of the last two seconds, and how does that depend on the mass?
  From the difference to the speed that was measured a Kalman filter of one number learns the mass.
- What speed shall we have in two seconds, and how does that depend on the force? A step of Newton's method
  gives the force that leads to 20 m/s.

Forward mode (`jvp`) gives the value and its derivative in one run of the model. It keeps nothing for a way
back. Output: the time of a call (p50, p99, the longest), the mass that was learned, and how far the speed was
off, beside a controller that never learns. What the test asserts: after a minute the mass is right to 5 %,
the truck that learns is off by less than a third, the derivatives are those of differences, and all calls
run the one program that the first call compiled. So all do the same work, and what differs is the machine.

For that, arguments keep their types: a Python float and a NumPy float64 promote differently, so each of them
has a program of its own. Here all single numbers are Python's.

`--plot FILE` writes a plot, `--quick` drives for one minute.

    pip install '.[examples]' && python examples/sensitivity.py
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cbook import get_sample_data
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

import graphjit

matplotlib.use("Agg")  # before pyplot is imported
from matplotlib import pyplot

PERIOD, AHEAD = 0.05, 40  # seconds between two decisions; how many of them the model looks ahead
TARGET, BELIEVED, TRUE_MASS = 20.0, 12_000.0, 20_000.0  # m/s, kg, kg
STRONGEST, BRAKES = 45_000.0, -60_000.0  # N
GRAVITY, ROLLING, DRAG = 9.81, 0.006, 0.5 * 1.2 * 6.0  # m/s^2, none, kg/m
NOISE = 0.02
"""Standard deviation of the speed that is measured, in m/s."""

LAND = np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False))["elevation"][90].astype(float)
PLACES = 74.3 * np.arange(len(LAND))  # metres; 1/1200 degree of longitude at 36.6 degrees north
ROAD = gaussian_filter1d(LAND, 14.0)  # a road has cuttings and bridges
SLOPE = np.gradient(ROAD, PLACES)


def change(mass: float, force: float, speed: float, place: float) -> float:
    """Acceleration by force, gravity, tyres and air."""
    slope = np.interp(place, PLACES, SLOPE)
    return (force - DRAG * speed * speed) / mass - GRAVITY * (slope + ROLLING)


def drive(mass: float, forces: np.ndarray, speed: float, place: float) -> float:
    """The speed after all `forces`, each of which lasts for PERIOD, by the midpoint rule."""
    for force in forces:
        middle = speed + 0.5 * PERIOD * change(mass, force, speed, place)
        place_of_middle = place + 0.5 * PERIOD * speed
        speed = speed + PERIOD * change(mass, force, middle, place_of_middle)
        place = place + PERIOD * middle
    return speed


@graphjit.jit
def drive_and_slope(
    mass: float, forces: np.ndarray, speed: float, place: float, d_mass: float, d_forces: np.ndarray
) -> tuple[float, float]:
    """The speed, and its derivative along a direction of mass and forces."""
    return graphjit.jvp(lambda m, f: drive(m, f, speed, place), (mass, forces), (d_mass, d_forces))


class Controller:
    """Learns the mass, chooses the force, and keeps the time of each call of the model."""

    def __init__(self, learns: bool) -> None:
        self.learns = learns
        self.mass, self.variance = BELIEVED, 5_000.0**2
        self.past = np.zeros(AHEAD)
        self.measured: list[tuple[float, float]] = []
        self.seconds: list[float] = []

    def ask(self, *arguments: Any) -> tuple[float, float]:
        begin = time.perf_counter()
        answer = drive_and_slope(*arguments)
        self.seconds.append(time.perf_counter() - begin)
        return answer

    def step(self, speed: float, place: float) -> float:
        """The force for the next PERIOD, when `speed` and `place` have been measured."""
        self.measured.append((speed, place))
        if self.learns and len(self.measured) > AHEAD:
            self.learn(speed)
        force = self.past[-1]
        then, slope = self.ask(self.mass, np.full(AHEAD, force), speed, place, 0.0, np.ones(AHEAD))
        force = float(np.clip(force + (TARGET - then) / slope, BRAKES, STRONGEST))
        self.past = np.append(self.past[1:], force)
        return force

    def learn(self, speed: float) -> None:
        """A step of the Kalman filter. Both speeds are uncertain, and the AHEAD predictions of two seconds
        see nearly the same, so each counts for a part.
        """
        expected, slope = self.ask(self.mass, self.past, *self.measured[-1 - AHEAD], 1.0, np.zeros(AHEAD))
        of_speed = 2.0 * AHEAD * NOISE**2
        gain = self.variance * slope / (slope * slope * self.variance + of_speed)
        self.mass = float(self.mass + gain * (speed - expected))
        self.variance = float(self.variance * (1.0 - gain * slope))


def travel(
    learns: bool, steps: int, seed: int, progress: str | None
) -> tuple[Controller, dict[str, list[float]]]:
    """Drives the true truck, ten times as finely as the controller's model."""
    rng, controller = np.random.default_rng(seed), Controller(learns)
    speed, place = TARGET, 1_000.0
    history: dict[str, list[float]] = {"place": [], "speed": [], "mass": [], "force": []}
    collects = gc.isenabled()
    gc.disable()  # Python must not stop to look for garbage: a control loop has no time for it
    try:
        for _ in tqdm(range(steps), desc=progress, disable=progress is None):
            force = controller.step(speed + NOISE * rng.normal(), place)
            for _ in range(10):
                speed += PERIOD / 10 * float(change(TRUE_MASS, force, speed, place))
                place += PERIOD / 10 * speed
            for name, value in zip(history, (place, speed, controller.mass, force), strict=True):
                history[name].append(float(value))
    finally:
        if collects:
            gc.enable()
    return controller, history


def difference() -> float:
    """Relative difference of both derivatives to central differences, the larger one."""
    forces, here = np.full(AHEAD, 9_000.0), (18.0, 4_000.0)
    ones, none = np.ones(AHEAD), np.zeros(AHEAD)
    worst = 0.0
    for d_mass, d_forces, h in ((1.0, none, 1.0), (0.0, ones, 10.0)):
        _, ours = drive_and_slope(BELIEVED, forces, *here, d_mass, d_forces)
        above = drive(BELIEVED + h * d_mass, forces + h * d_forces, *here)
        below = drive(BELIEVED - h * d_mass, forces - h * d_forces, *here)
        worst = max(worst, abs(float(ours * 2.0 * h / (above - below)) - 1.0))
    return worst


def costs() -> dict[str, float]:
    """Median seconds of the speed alone, of forward mode and of reverse mode."""
    arguments = BELIEVED, np.full(AHEAD, 9_000.0), TARGET, 4_000.0
    functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "speed alone": (graphjit.jit(drive), arguments),
        "forward mode": (drive_and_slope, (*arguments, 1.0, np.zeros(AHEAD))),
        "reverse mode": (graphjit.value_and_grad(drive), arguments),
    }
    found = {}
    for name, (function, given) in functions.items():
        function(*given)
        samples = []
        for _ in range(1000):
            begin = time.perf_counter()
            function(*given)
            samples.append(time.perf_counter() - begin)
        found[name] = float(np.median(samples))
    return found


def plot(histories: dict[str, dict[str, list[float]]], seconds: np.ndarray, target: Path) -> None:
    figure, axes = pyplot.subplots(2, 2, figsize=(13, 7.5), layout="constrained")
    axes[0, 0].fill_between(PLACES / 1e3, LAND, LAND.min() - 20.0, color="0.88", label="land")
    axes[0, 0].plot(PLACES / 1e3, ROAD, "k", label="road")
    farthest = max(max(history["place"]) for history in histories.values())
    axes[0, 0].axvspan(1.0, farthest / 1e3, color="C0", alpha=0.1, label="driven")
    axes[0, 0].set(title="The road", xlabel="place [km]", ylabel="elevation [m]")
    for (name, history), style in zip(histories.items(), ("C3", "C0"), strict=True):
        times = PERIOD * np.arange(len(history["speed"]))
        axes[0, 1].plot(times, history["speed"], style, label=name)
        axes[1, 0].plot(times, np.array(history["mass"]) / 1e3, style, label=name)
    axes[0, 1].axhline(TARGET, color="k", linestyle=":", label="wanted")
    axes[0, 1].set(title="Speed", xlabel="time [s]", ylabel="speed [m/s]")
    axes[1, 0].axhline(TRUE_MASS / 1e3, color="k", linestyle=":", label="truth")
    axes[1, 0].set(title="Mass in the controller's model", xlabel="time [s]", ylabel="mass [t]")
    edges = np.geomspace(seconds.min(), seconds.max() * 1.01, 60)
    axes[1, 1].hist(seconds * 1e6, edges * 1e6, log=True, label=f"{len(seconds)} calls")
    for share, color in ((50, "C1"), (99, "C3")):
        value = 1e6 * float(np.percentile(seconds, share))
        axes[1, 1].axvline(value, color=color, linestyle="--", label=f"p{share}: {value:.1f} us")
    axes[1, 1].set(
        title="Time of a call: the model and its derivative",
        xlabel=f"time [us], of {PERIOD * 1e6:.0f} between two decisions",
        ylabel="calls",
        xscale="log",
    )
    for axis in axes.flat:
        axis.legend(fontsize="small")
        axis.grid(True, alpha=0.3)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def report(result: dict[str, Any]) -> None:
    call = result["call"]
    print(f"first call               {result['first_call']:.2f} s (trace, differentiate, compile, run)")
    print(
        f"a call of the jvp        p50 {call['p50'] * 1e6:.1f} us, p99 {call['p99'] * 1e6:.1f} us, longest "
        f"{call['max'] * 1e6:.0f} us of {call['number']}"
    )
    print(
        f"  the longest takes      {call['max'] / PERIOD:.2%} of the {PERIOD * 1e3:.0f} ms between decisions"
    )
    for name, seconds in result["costs"].items():
        print(f"  {name:<22} {seconds * 1e6:.1f} us")
    print(f"derivatives              {result['difference']:.1e}   relative difference to central differences")
    print(
        f"mass                     {result['mass']:.0f} +- {result['mass_error']:.0f} kg, in truth {TRUE_MASS:.0f}"
    )
    for name, off in result["off_by"].items():
        print(f"speed, {name:<17} off by {off:.3f} m/s in the mean")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one minute of driving instead of twenty")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    steps = int((60 if options.quick else 1_200) / PERIOD)
    begin = time.perf_counter()
    drive_and_slope(BELIEVED, np.zeros(AHEAD), TARGET, 0.0, 0.0, np.ones(AHEAD))
    first_call = time.perf_counter() - begin

    runs = {
        name: travel(learns, steps, options.seed, None if options.no_progress else name)
        for name, learns in (("never learns", False), ("learns the mass", True))
    }
    seconds = np.concatenate([controller.seconds for controller, _ in runs.values()])
    pupil = runs["learns the mass"][0]
    settled = int(20.0 / PERIOD)  # what comes before is the time of learning
    result = {
        "first_call": first_call,
        "call": {
            "p50": float(np.percentile(seconds, 50)),
            "p99": float(np.percentile(seconds, 99)),
            "max": float(seconds.max()),
            "number": len(seconds),
        },
        "costs": costs(),
        "difference": difference(),
        "mass": float(pupil.mass),
        "mass_error": float(np.sqrt(pupil.variance)),
        "off_by": {
            name: float(np.mean(np.abs(np.array(history["speed"][settled:]) - TARGET)))
            for name, (_, history) in runs.items()
        },
    }
    report(result)
    if options.plot:
        plot({name: history for name, (_, history) in runs.items()}, seconds, options.plot)
        print(f"plot written to {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
