"""The steps that keep sums and means of gradients. Formulas and names are optax's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from graphjit.optim.base import (
    GradientTransformation,
    Tree,
    cast,
    each,
    full_like,
    increment,
    like,
    new_count,
    zeros_like,
)


class TraceState(NamedTuple):
    """Gradients added up."""

    trace: Any


class ScaleByAdamState(NamedTuple):
    """Means of gradients and of their squares."""

    count: Any
    mu: Any
    nu: Any


class ScaleByLionState(NamedTuple):
    """Means of gradients."""

    count: Any
    mu: Any


class ScaleByRssState(NamedTuple):
    """Sums of squares of gradients."""

    sum_of_squares: Any


class ScaleByRmsState(NamedTuple):
    """Means of squares of gradients."""

    nu: Any


class ScaleByRmsWithCountState(NamedTuple):
    """Means of squares of gradients, and their number."""

    count: Any
    nu: Any


class ScaleByRStdDevState(NamedTuple):
    """Means of gradients and of their squares."""

    mu: Any
    nu: Any


class ScaleByRStdDevWithCountState(NamedTuple):
    """Means of gradients and of their squares, and their number."""

    count: Any
    mu: Any
    nu: Any


# ---------------------------------------------------------------------------------------------------- steps


def moment(updates: Tree, means: Tree, decay: Any, order: int) -> Tree:
    """Running means of a power of the updates."""

    def after(g: Any, mean: Any) -> Any:
        return like(1 - decay, g) * (g if order == 1 else g * g) + like(decay, mean) * mean

    return each(after, updates, means)


def unbiased(means: Tree, decay: Any, count: Any) -> Tree:
    """Running means that began at zero, corrected for that."""
    correction = 1 - decay**count
    return each(lambda mean: mean / like(correction, mean), means)


def trace(decay: float, nesterov: bool = False, accumulator_dtype: Any = None) -> GradientTransformation:
    """Add up updates, older ones with less weight: momentum.

    Parameters
    ----------
    decay : float
        What remains of the sum from step to step.
    nesterov : bool, optional
        Look one step ahead.
    accumulator_dtype : dtype, optional
        That of the sums; without it, that of the parameters.

    Returns
    -------
    GradientTransformation
        The step; its state is the sums.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.trace(0.5)
    >>> updates, state = step.update(1.0, step.init(0.0))
    >>> print(step.update(1.0, state)[0])
    1.5
    """

    def update(updates: Tree, state: TraceState, params: Tree = None) -> tuple[Tree, TraceState]:
        add: Callable[[Any, Any], Any] = lambda g, t: g + like(decay, t) * t
        sums = each(add, updates, state.trace)
        ahead = each(add, updates, sums) if nesterov else sums
        return ahead, TraceState(cast(sums, accumulator_dtype))

    return GradientTransformation(lambda params: TraceState(zeros_like(params, accumulator_dtype)), update)


def scale_by_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Divide the mean of the gradients by the root of the mean of their squares: Adam without its rate.

    Parameters
    ----------
    b1, b2 : float, optional
        What remains of the mean of gradients, and of squares, from step to step.
    eps : float, optional
        Added to the root.
    eps_root : float, optional
        Added under the root.
    mu_dtype : dtype, optional
        That of the means of gradients; without it, that of the parameters.
    nesterov : bool, optional
        Look one step ahead (NAdam).

    Returns
    -------
    GradientTransformation
        The step; its state is the count and both means.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> step = optim.scale_by_adam(eps=0.0)
    >>> step.update(np.array([0.25, -8.0]), step.init(np.zeros(2)))[0].round(12)
    array([ 1., -1.])
    """

    def init(params: Tree) -> ScaleByAdamState:
        return ScaleByAdamState(new_count(), zeros_like(params, mu_dtype), zeros_like(params))

    def update(updates: Tree, state: ScaleByAdamState, params: Tree = None) -> tuple[Tree, ScaleByAdamState]:
        mu, nu = moment(updates, state.mu, b1, 1), moment(updates, state.nu, b2, 2)
        count = increment(state.count)
        if nesterov:
            ahead, now = unbiased(mu, b1, increment(count)), unbiased(updates, b1, count)
            mean = each(lambda m, g: like(b1, m) * m + like(1 - b1, g) * g, ahead, now)
        else:
            mean = unbiased(mu, b1, count)
        scaled = each(
            lambda m, v: m / (np.sqrt(v + like(eps_root, v)) + like(eps, v)), mean, unbiased(nu, b2, count)
        )
        return scaled, ScaleByAdamState(count, cast(mu, mu_dtype), nu)

    return GradientTransformation(init, update)


def scale_by_lion(b1: float = 0.9, b2: float = 0.99, mu_dtype: Any = None) -> GradientTransformation:
    """Take the sign of a mean of gradients: Lion without its rate.

    Parameters
    ----------
    b1 : float, optional
        Weight of the mean beside the gradient in the sign.
    b2 : float, optional
        What remains of the mean from step to step.
    mu_dtype : dtype, optional
        That of the means; without it, that of the parameters.

    Returns
    -------
    GradientTransformation
        The step; its state is the count and the means.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> step = optim.scale_by_lion()
    >>> step.update(np.array([0.25, -8.0]), step.init(np.zeros(2)))[0]
    array([ 1., -1.])
    """

    def init(params: Tree) -> ScaleByLionState:
        return ScaleByLionState(new_count(), zeros_like(params, mu_dtype))

    def update(updates: Tree, state: ScaleByLionState, params: Tree = None) -> tuple[Tree, ScaleByLionState]:
        signs = each(np.sign, moment(updates, state.mu, b1, 1))
        mu = cast(moment(updates, state.mu, b2, 1), mu_dtype)
        return signs, ScaleByLionState(increment(state.count), mu)

    return GradientTransformation(init, update)


def scale_by_rss(initial_accumulator_value: float = 0.1, eps: float = 1e-7) -> GradientTransformation:
    """Divide by the root of the sum of all squares so far: Adagrad without its rate.

    Parameters
    ----------
    initial_accumulator_value : float, optional
        The sums at the start.
    eps : float, optional
        Added under the root.

    Returns
    -------
    GradientTransformation
        The step; its state is the sums.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.scale_by_rss(initial_accumulator_value=9.0, eps=0.0)
    >>> print(step.update(4.0, step.init(0.0))[0])
    0.8
    """

    def init(params: Tree) -> ScaleByRssState:
        return ScaleByRssState(full_like(params, initial_accumulator_value))

    def update(updates: Tree, state: ScaleByRssState, params: Tree = None) -> tuple[Tree, ScaleByRssState]:
        sums = each(lambda g, t: g * g + t, updates, state.sum_of_squares)
        # Nothing was seen: divided by infinity, it stays zero.
        roots = each(lambda t: np.sqrt(np.where(t > 0, t + like(eps, t), np.inf)), sums)
        return each(lambda g, root: g / root, updates, roots), ScaleByRssState(sums)

    return GradientTransformation(init, update)


def _scale_by_means(
    decay: float, eps: float, initial_scale: float, eps_in_sqrt: bool, centered: bool, bias_correction: bool
) -> GradientTransformation:
    """Divide by the root of the mean of squares, less the square of the mean if ``centered``."""

    def state_of(count: Any, mu: Tree, nu: Tree) -> NamedTuple:
        if centered:
            return (
                ScaleByRStdDevWithCountState(count, mu, nu)
                if bias_correction
                else ScaleByRStdDevState(mu, nu)
            )
        return ScaleByRmsWithCountState(count, nu) if bias_correction else ScaleByRmsState(nu)

    def init(params: Tree) -> NamedTuple:
        squares = full_like(params, initial_scale)
        return state_of(new_count(), zeros_like(params) if centered else None, squares)

    def scaled(g: Any, spread: Any) -> Any:
        small = like(eps, spread)
        return g / np.sqrt(spread + small) if eps_in_sqrt else g / (np.sqrt(spread) + small)

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, NamedTuple]:
        count = increment(state.count) if bias_correction else None
        corrected = lambda means: unbiased(means, decay, count) if bias_correction else means
        mu, nu = None, moment(updates, state.nu, decay, 2)
        spread = corrected(nu)
        if centered:
            mu = moment(updates, state.mu, decay, 1)
            spread = each(lambda n, m: n - m * m, spread, corrected(mu))
        return each(scaled, updates, spread), state_of(count, mu, nu)

    return GradientTransformation(init, update)


def scale_by_rms(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divide by the root of the mean of squares: RMSProp without its rate.

    Parameters
    ----------
    decay : float, optional
        What remains of the mean from step to step.
    eps : float, optional
        Added to the mean, or to its root.
    initial_scale : float, optional
        The mean at the start.
    eps_in_sqrt : bool, optional
        Whether ``eps`` is added under the root.
    bias_correction : bool, optional
        Correct the mean for its start.

    Returns
    -------
    GradientTransformation
        The step; its state is the means.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.scale_by_rms(decay=0.75, eps=0.0)
    >>> print(step.update(4.0, step.init(0.0))[0])
    2.0
    """
    return _scale_by_means(decay, eps, initial_scale, eps_in_sqrt, False, bias_correction)


def scale_by_stddev(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divide by the standard deviation of gradients: centred RMSProp without its rate.

    Parameters
    ----------
    decay : float, optional
        What remains of the means from step to step.
    eps : float, optional
        Added to the variance, or to its root.
    initial_scale : float, optional
        The mean of squares at the start.
    eps_in_sqrt : bool, optional
        Whether ``eps`` is added under the root.
    bias_correction : bool, optional
        Correct the means for their start.

    Returns
    -------
    GradientTransformation
        The step; its state is the means of gradients and of squares.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.scale_by_stddev(decay=0.5, eps=0.0)
    >>> print(step.update(4.0, step.init(0.0))[0])
    2.0
    """
    return _scale_by_means(decay, eps, initial_scale, eps_in_sqrt, True, bias_correction)
