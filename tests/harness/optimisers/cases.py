"""What is compared with optax: each case is made from a module, which is optax or `graphjit.optim`.

Gradients are formulas in NumPy, so both get the same numbers. They are neither small nor of one sign, and
they depend on the step, so that moments do not settle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = Path(__file__).with_name("recorded.json")
STEPS = 100
KEPT = (10, STEPS)
"""Steps after which the parameters are recorded."""
COUNTS = (0, 1, 4, 5, 9, 10, 11, 20, 29, 30, 31, 100)
"""Arguments of schedules."""

Optim = Any


def wide(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A schedule that counts in int64: JAX divides an int32 in float32, NumPy in float64."""
    return lambda count: schedule(count.astype("int64"))


WEIGHTS_ONLY = {"w": True, "b": False}

OPTIMISERS: dict[str, Callable[[Optim], Any]] = {
    "sgd": lambda o: o.sgd(0.05),
    "sgd_momentum": lambda o: o.sgd(0.05, momentum=0.9),
    "sgd_nesterov": lambda o: o.sgd(0.05, momentum=0.9, nesterov=True),
    "sgd_schedule": lambda o: o.sgd(wide(o.exponential_decay(0.1, 10, 0.8))),
    "adagrad": lambda o: o.adagrad(0.2),
    "adagrad_from_zero": lambda o: o.adagrad(0.2, initial_accumulator_value=0.0, eps=1e-3),
    "rmsprop": lambda o: o.rmsprop(0.01),
    "rmsprop_eps_outside": lambda o: o.rmsprop(0.01, eps=1e-3, eps_in_sqrt=False, initial_scale=1.0),
    "rmsprop_centered_nesterov": lambda o: o.rmsprop(
        0.01, decay=0.8, centered=True, momentum=0.9, nesterov=True, eps=1e-3
    ),
    "rmsprop_corrected": lambda o: o.rmsprop(0.01, bias_correction=True, momentum=0.5),
    "rmsprop_centered_corrected": lambda o: o.rmsprop(0.01, bias_correction=True, centered=True, eps=1e-2),
    "adam": lambda o: o.adam(0.05),
    "adam_eps_root": lambda o: o.adam(0.05, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
    "nadam": lambda o: o.adam(0.05, nesterov=True),
    "adamw": lambda o: o.adamw(0.05, weight_decay=0.1),
    "adamw_masked_warm_up": lambda o: o.adamw(
        wide(o.warmup_cosine_decay_schedule(0.0, 0.1, 10, 90, 0.01)), weight_decay=0.1, mask=WEIGHTS_ONLY
    ),
    "adamw_mask_function": lambda o: o.adamw(0.05, weight_decay=0.1, mask=lambda params: WEIGHTS_ONLY),
    "adamw_scheduled_decay": lambda o: o.adamw(0.05, weight_decay=wide(o.linear_schedule(0.2, 0.0, 50))),
    "lion": lambda o: o.lion(0.01),
    "lion_masked": lambda o: o.lion(0.01, b1=0.8, b2=0.9, weight_decay=0.1, mask=WEIGHTS_ONLY),
    "clipped": lambda o: o.chain(o.clip(0.3), o.sgd(0.05, momentum=0.9)),
    "clipped_by_norm": lambda o: o.chain(o.clip_by_global_norm(1.0), o.adam(0.05)),
    "masked": lambda o: o.chain(o.masked(o.trace(0.9), WEIGHTS_ONLY), o.scale(-0.05)),
    "pieces": lambda o: o.chain(
        o.scale_by_adam(),
        o.add_decayed_weights(0.01),
        o.scale_by_schedule(wide(o.piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.1}))),
        o.scale_by_learning_rate(0.05, flip_sign=False),
        o.identity(),
        o.scale(-1.0),
    ),
}

SCHEDULES: dict[str, Callable[[Optim], Any]] = {
    "constant": lambda o: o.constant_schedule(0.3),
    "piecewise": lambda o: o.piecewise_constant_schedule(1.0, {5: 0.5, 30: 0.1}),
    "exponential": lambda o: o.exponential_decay(1.0, 10, 0.5),
    "staircase": lambda o: o.exponential_decay(1.0, 10, 0.5, transition_begin=4, staircase=True),
    "exponential_end": lambda o: o.exponential_decay(1.0, 10, 0.5, end_value=0.3),
    "exponential_up": lambda o: o.exponential_decay(1.0, 10, 1.5, end_value=2.0),
    "exponential_none": lambda o: o.exponential_decay(1.0, 10, 0.0),
    "cosine": lambda o: o.cosine_decay_schedule(1.0, 30),
    "cosine_alpha": lambda o: o.cosine_decay_schedule(2.0, 30, alpha=0.1, exponent=1.5),
    "linear": lambda o: o.linear_schedule(1.0, 0.1, 20),
    "linear_later": lambda o: o.linear_schedule(0.1, 1.0, 20, transition_begin=5),
    "linear_none": lambda o: o.linear_schedule(0.1, 1.0, 0),
    "polynomial": lambda o: o.polynomial_schedule(1.0, 0.1, 2, 20),
    "warm_up": lambda o: o.warmup_cosine_decay_schedule(0.1, 1.0, 10, 30),
    "warm_up_end": lambda o: o.warmup_cosine_decay_schedule(0.0, 1.0, 5, 31, end_value=0.2, exponent=2.0),
    "joined": lambda o: o.join_schedules(
        [o.constant_schedule(1.0), o.linear_schedule(1.0, 0.0, 10), o.constant_schedule(0.5)], [10, 30]
    ),
}


def start() -> dict[str, np.ndarray]:
    """Parameters: a matrix, and a vector."""
    return {"w": np.array([[1.5, -0.7], [0.2, 2.1], [-1.1, 0.4]]), "b": np.array([0.3, -0.2])}


def gradients(params: dict[str, Any], number: Any) -> dict[str, Any]:
    """Those of the step ``number``. They look at ``params`` through NumPy only."""
    return {
        name: 0.5 * p + np.sin(5.0 * p) + np.cos(0.7 * number) * (0.4 if name == "w" else 0.2)
        for name, p in params.items()
    }


def flat(params: dict[str, Any]) -> list[float]:
    """All numbers in order."""
    return [float(x) for name in ("w", "b") for x in np.asarray(params[name]).ravel()]


def trajectory(optim: Optim, make: Callable[[Optim], Any], update: Any = None) -> list[list[float]]:
    """Parameters after the steps `KEPT`. ``update`` is a compiled form of the optimiser's."""
    optimiser, params = make(optim), start()
    state = optimiser.init(params)
    kept = []
    for number in range(1, STEPS + 1):
        updates, state = (update or optimiser.update)(gradients(params, number), state, params)
        params = {
            name: np.asarray(p) for name, p in optim.apply_updates(params, updates).items()
        }  # no others' arrays in the formulas
        if number in KEPT:
            kept.append(flat(params))
    return kept


def recorded() -> dict[str, Any]:
    """optax's numbers, as `optimisers.record` wrote them."""
    return json.loads(RECORDED.read_text())  # type: ignore[no-any-return]
