"""Learning rates that depend on the number of steps done, with optax's names and formulas.

A schedule is a function of the count, which may be a Python int, an array or a traced value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphjit.optim.base import Schedule


def constant_schedule(value: float) -> Schedule:
    """Stay at one value.

    Parameters
    ----------
    value : float
        The value.

    Returns
    -------
    callable
        The schedule.

    Examples
    --------
    >>> from graphjit import optim
    >>> optim.constant_schedule(0.1)(1000)
    0.1
    """
    return lambda count: value


def polynomial_schedule(
    init_value: float, end_value: float, power: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Go from one value to another along a power of the steps that remain.

    Parameters
    ----------
    init_value, end_value : float
        The first and the last value.
    power : float
        1 is a straight line, 2 a parabola that arrives flat.
    transition_steps : int
        Steps from the first value to the last. If not positive, the first value stays.
    transition_begin : int, optional
        Steps before that, at the first value.

    Returns
    -------
    callable
        The schedule.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)
    >>> print(rate(0), rate(5), rate(20))
    1.0 0.25 0.0
    """
    if transition_steps <= 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)

    def schedule(count: Any) -> Any:
        left = 1 - np.clip(count - begin, 0, transition_steps) / transition_steps
        return (init_value - end_value) * left**power + end_value

    return schedule


def linear_schedule(
    init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Go from one value to another along a straight line.

    Parameters
    ----------
    init_value, end_value : float
        The first and the last value.
    transition_steps : int
        Steps from the first value to the last. If not positive, the first value stays.
    transition_begin : int, optional
        Steps before that, at the first value.

    Returns
    -------
    callable
        The schedule.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.linear_schedule(0.0, 1.0, transition_steps=4)
    >>> print(rate(0), rate(1), rate(9))
    0.0 0.25 1.0
    """
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def piecewise_constant_schedule(
    init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Multiply the value at some steps.

    Parameters
    ----------
    init_value : float
        The first value.
    boundaries_and_scales : mapping, optional
        For a number of steps the factor that holds from then on.

    Returns
    -------
    callable
        The schedule.

    Raises
    ------
    ValueError
        A factor is negative.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})
    >>> print(rate(9), rate(10), rate(20))
    1.0 0.5 0.05
    """
    steps = sorted((boundaries_and_scales or {}).items())
    if any(scale < 0.0 for _, scale in steps):
        raise ValueError(f"piecewise_constant_schedule: no factor may be negative, not {dict(steps)}")

    def schedule(count: Any) -> Any:
        value: Any = init_value
        for boundary, scale in steps:
            value = np.where(count < boundary, value, value * scale)
        return value

    return schedule


def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Multiply the value by a factor in each so many steps: ``init_value * decay_rate ** (count / steps)``.

    Parameters
    ----------
    init_value : float
        The first value.
    transition_steps : int
        Steps in which the value is multiplied once. If not positive, the first value stays.
    decay_rate : float
        The factor. 0 means that the first value stays, as in optax.
    transition_begin : int, optional
        Steps before that, at the first value.
    staircase : bool, optional
        Whether the value stays between full multiples of ``transition_steps``.
    end_value : float, optional
        The value does not go beyond it.

    Returns
    -------
    callable
        The schedule.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.exponential_decay(1.0, transition_steps=10, decay_rate=0.25, end_value=0.1)
    >>> print(rate(0), rate(5), rate(1000))
    1.0 0.5 0.1
    """
    if transition_steps <= 0 or decay_rate == 0:
        return constant_schedule(init_value)
    begin = max(transition_begin, 0)

    def schedule(count: Any) -> Any:
        times = np.maximum(count - begin, 0) / transition_steps
        if staircase:
            times = np.floor(times)
        value = init_value * np.power(decay_rate, times)
        if end_value is not None:
            value = (np.maximum if decay_rate < 1.0 else np.minimum)(value, end_value)
        return value

    return schedule


def cosine_decay_schedule(
    init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """Go down along half a period of a cosine.

    Parameters
    ----------
    init_value : float
        The first value.
    decay_steps : int
        Steps to the last value.
    alpha : float, optional
        The last value, as a fraction of the first.
    exponent : float, optional
        Power of the cosine's factor.

    Returns
    -------
    callable
        The schedule.

    Raises
    ------
    ValueError
        ``decay_steps`` is not positive.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.cosine_decay_schedule(1.0, 10, alpha=0.5)
    >>> print(rate(0), rate(5), rate(10))
    1.0 0.75 0.5
    """
    if not decay_steps > 0:
        raise ValueError(f"cosine_decay_schedule: decay_steps must be positive, not {decay_steps!r}")

    def schedule(count: Any) -> Any:
        cosine = 0.5 * (1 + np.cos(np.pi * np.minimum(count, decay_steps) / decay_steps))
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return schedule


def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """Go up along a straight line, then down along half a period of a cosine.

    Parameters
    ----------
    init_value, peak_value : float
        The first and the largest value.
    warmup_steps : int
        Steps of the way up.
    decay_steps : int
        Steps of both ways together.
    end_value : float, optional
        The last value.
    exponent : float, optional
        Power of the cosine's factor.

    Returns
    -------
    callable
        The schedule.

    Raises
    ------
    ValueError
        ``decay_steps`` is not more than ``warmup_steps``: no step is left for the way down.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=30)
    >>> print(rate(5), rate(10), rate(20), rate(30))
    0.5 1.0 0.5 0.0
    """
    if not decay_steps > warmup_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: decay_steps counts the warm-up too and must be more than "
            f"warmup_steps, not {decay_steps!r} and {warmup_steps!r}"
        )
    alpha = 0.0 if peak_value == 0.0 else end_value / peak_value
    down = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)
    return join_schedules([linear_schedule(init_value, peak_value, warmup_steps), down], [warmup_steps])


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Run schedules one after the other.

    Parameters
    ----------
    schedules : sequence of callable
        The schedules. Each but the first counts from its own start.
    boundaries : sequence of int
        The number of steps at which each but the first begins.

    Returns
    -------
    callable
        All of them as one.

    Raises
    ------
    ValueError
        There is not one boundary between any two schedules.

    Examples
    --------
    >>> from graphjit import optim
    >>> rate = optim.join_schedules(
    ...     [optim.constant_schedule(1.0), optim.linear_schedule(1.0, 0.0, 4)], boundaries=[10]
    ... )
    >>> print(rate(9), rate(12))
    1.0 0.5
    """
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            f"join_schedules: {len(schedules)} schedules need {len(schedules) - 1} boundaries, not {len(boundaries)}"
        )

    def schedule(count: Any) -> Any:
        value = schedules[0](count)
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            value = np.where(count < boundary, value, following(count - boundary))
        return value

    return schedule
