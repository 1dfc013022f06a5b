"""Likelihoods of state-space models over a long series: a Kalman filter's, differentiated with respect to the
logarithms of its noise variances, and a hidden Markov model's (forward algorithm), with respect to all of its
logits, once in logarithms and once with probabilities scaled at every step.

Formulas: R. E. Kalman, 1960; L. R. Rabiner, 1989.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from benchmarks.workload import BOTH, ELEMENTARY, TEST, Namespace, Pytree, Workload, label
from benchmarks.workloads.recurrent import TOO_SLOW

STATE, SEEN = 4, 2
SYMBOLS = 8


def make_kalman(ns: Namespace) -> Callable[..., Any]:
    np, linalg = ns.np, ns.np.linalg

    def f(noise: Any, transition: Any, sensor: Any, series: Any) -> Any:
        variances = np.exp(noise)
        process, measurement = np.diag(variances[:STATE]), np.diag(variances[STATE:])

        def step(carry: Any, seen: Any) -> Any:
            mean, covariance = carry
            mean = transition @ mean
            covariance = transition @ covariance @ transition.T + process
            residual = seen - sensor @ mean
            across = sensor @ covariance
            spread = across @ sensor.T + measurement
            inverse = linalg.inv(spread)
            surprise = residual @ inverse @ residual + linalg.slogdet(spread)[1]
            mean = mean + across.T @ (inverse @ residual)
            covariance = covariance - across.T @ inverse @ across
            return (mean, covariance), surprise

        _, surprises = ns.loops.scan(step, (np.zeros(STATE), np.eye(STATE)), series)
        return 0.5 * (np.mean(surprises) + SEEN * math.log(2.0 * math.pi))

    return f


def torch_kalman(torch: Any, noise: Any, transition: Any, sensor: Any, series: Any) -> Any:
    variances = torch.exp(noise)
    process, measurement = torch.diag(variances[:STATE]), torch.diag(variances[STATE:])
    mean = torch.zeros(STATE, dtype=series.dtype)
    covariance = torch.eye(STATE, dtype=series.dtype)
    total = torch.zeros((), dtype=series.dtype)
    for seen in series:
        mean = transition @ mean
        covariance = transition @ covariance @ transition.T + process
        residual = seen - sensor @ mean
        across = sensor @ covariance
        spread = across @ sensor.T + measurement
        inverse = torch.linalg.inv(spread)
        total = total + residual @ inverse @ residual + torch.logdet(spread)
        mean = mean + across.T @ (inverse @ residual)
        covariance = covariance - across.T @ inverse @ across
    return 0.5 * (total / len(series) + SEEN * math.log(2.0 * math.pi))


def kalman_inputs(steps: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    """A point in the plane that moves at nearly constant speed; its place is seen."""
    rng = numpy.random.default_rng(seed)
    noise = numpy.concatenate([rng.normal(-3.0, 0.3, STATE), rng.normal(-1.0, 0.3, SEEN)])
    transition, sensor = numpy.eye(STATE) + 0.1 * numpy.eye(STATE, k=2), numpy.eye(SEEN, STATE)
    series = numpy.cumsum(0.2 * rng.normal(size=(steps, SEEN)), axis=0) + 0.5 * rng.normal(size=(steps, SEEN))
    return tuple(array.astype(dtype) for array in (noise, transition, sensor, series))


def _kalman(steps: int, suites: Sequence[str]) -> Workload:
    return Workload(
        f"kalman_{label(steps)}",
        make_kalman,
        partial(kalman_inputs, steps),
        family="kalman",
        size=steps,
        suites=suites,
        torch=torch_kalman,
        absent={"torch.compile": TOO_SLOW},
        native="kalman",
        # Forward four products of 4x4 with 4x4 or less, backward twice that.
        flops=steps * 3 * 2 * (2 * STATE**3 + 3 * SEEN * STATE**2),
    )


def make_forward(scaled: bool, ns: Namespace) -> Callable[..., Any]:
    np, logsumexp = ns.np, ns.special.logsumexp

    def log_step(moves: Any, carry: Any, seen: Any) -> Any:
        return logsumexp(carry[:, None] + moves, axis=0) + seen

    def scaled_step(moves: Any, carry: Any, seen: Any) -> Any:
        weights, total = carry
        weights = (weights @ moves) * seen
        mass = np.sum(weights)
        return weights / mass, total + np.log(mass)

    def f(logits: Any, series: Any) -> Any:
        moves, emissions = (
            logits[key] - logsumexp(logits[key], axis=1, keepdims=True) for key in ("moves", "emissions")
        )
        start = logits["start"] - logsumexp(logits["start"])
        # One row for each symbol seen: the logarithm of its probability in every state.
        rows = emissions.T[series]
        one = scaled_step if scaled else log_step
        if scaled:
            moves, rows, start = np.exp(moves), np.exp(rows), np.exp(start)
            weights = start * rows[0]
            mass = np.sum(weights)
            first = (weights / mass, np.log(mass))
        else:
            first = start + rows[0]
        last, _ = ns.loops.scan(lambda carry, seen: (one(moves, carry, seen), None), first, rows[1:])
        return -(last[1] if scaled else logsumexp(last)) / len(series)

    return f


def torch_forward(scaled: bool, torch: Any, logits: Any, series: Any) -> Any:
    moves, emissions = (torch.log_softmax(logits[key], dim=1) for key in ("moves", "emissions"))
    start = torch.log_softmax(logits["start"], dim=0)
    rows = emissions.T[series]
    if not scaled:
        weights = start + rows[0]
        for seen in rows[1:]:
            weights = torch.logsumexp(weights[:, None] + moves, dim=0) + seen
        return -torch.logsumexp(weights, dim=0) / len(series)
    moves, rows, weights = torch.exp(moves), torch.exp(rows), torch.exp(start)
    masses = []
    for index, seen in enumerate(rows):
        weights = (weights @ moves if index else weights) * seen
        masses.append(torch.sum(weights))
        weights = weights / masses[-1]
    return -torch.sum(torch.log(torch.stack(masses))) / len(series)


def hidden_inputs(states: int, steps: int, seed: int, dtype: str) -> tuple[Pytree, ...]:
    rng = numpy.random.default_rng(seed)
    shapes = {"start": (states,), "moves": (states, states), "emissions": (states, SYMBOLS)}
    logits = {key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
    return logits, rng.integers(SYMBOLS, size=steps)


def _hidden(scaled: bool, states: int, steps: int, suites: Sequence[str]) -> Workload:
    family = "hmm_scaled" if scaled else "hmm_log"
    return Workload(
        f"{family}_{states}x{label(steps)}",
        partial(make_forward, scaled),
        partial(hidden_inputs, states, steps),
        family=family,
        size=steps * states**2,
        suites=suites,
        torch=partial(torch_forward, scaled),
        absent={"torch.compile": TOO_SLOW},
        flops=steps * states**2 * (6 if scaled else ELEMENTARY + 6),
    )


WORKLOADS = (
    _kalman(9, TEST),
    _kalman(1_000, BOTH),
    *(
        _hidden(scaled, states, steps, suites)
        for scaled in (False, True)
        for states, steps, suites in ((5, 9, TEST), (16, 1_000, BOTH))
    ),
)
