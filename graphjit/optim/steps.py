"""Steps that keep a count, or nothing: clipping, scaling. Formulas and names are optax's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from graphjit.optim.base import (
    EmptyState,
    GradientTransformation,
    Mask,
    Schedule,
    Tree,
    each,
    identity,
    increment,
    like,
    masked,
    new_count,
    scaled,
    stateless,
)
from graphjit.trace.pytree import flatten


class CountState(NamedTuple):
    """The number of steps done, and nothing else."""

    count: Any


# --------------------------------------------------------------------------------------------------- clipping


def clip(max_delta: float) -> GradientTransformation:
    """Clip each number to ``[-max_delta, max_delta]``.

    Parameters
    ----------
    max_delta : float
        The largest absolute value.

    Returns
    -------
    GradientTransformation
        The step, without state.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> step = optim.clip(1.0)
    >>> step.update(np.array([0.5, -7.0]), step.init(None))[0]
    array([ 0.5, -1. ])
    """

    def clipped(leaf: Any) -> Any:
        bound = like(max_delta, leaf)
        return np.clip(leaf, -bound, bound)

    return stateless(lambda updates, params: each(clipped, updates))


def global_norm(updates: Tree) -> Any:
    """Return the Euclidean norm of all numbers in a tree together.

    Parameters
    ----------
    updates : pytree
        Arrays and numbers.

    Returns
    -------
    float
        The norm.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optim.global_norm({"w": np.array([3.0, 0.0]), "b": 4.0})
    np.float64(5.0)
    """
    squares = [np.sum(np.square(leaf)) for leaf in flatten(updates)[0] if leaf is not None]
    return np.sqrt(sum(squares, 0.0))


def clip_by_global_norm(max_norm: float) -> GradientTransformation:
    """Shorten updates so that the norm of all of them together is at most ``max_norm``.

    Parameters
    ----------
    max_norm : float
        The largest norm.

    Returns
    -------
    GradientTransformation
        The step, without state.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> step = optim.clip_by_global_norm(1.0)
    >>> step.update({"w": np.array([3.0, 0.0]), "b": 4.0}, step.init(None))[0]
    {'w': array([0.6, 0. ]), 'b': np.float64(0.8)}
    """

    def shortened(updates: Tree, params: Tree) -> Tree:
        norm = global_norm(updates)
        return scaled(updates, max_norm / np.maximum(norm, max_norm))  # 1 within the bound

    return stateless(shortened)


# ---------------------------------------------------------------------------------------------------- scaling


def scale(step_size: float) -> GradientTransformation:
    """Multiply updates by a number.

    Parameters
    ----------
    step_size : float
        The number.

    Returns
    -------
    GradientTransformation
        The step, without state.

    Examples
    --------
    >>> from graphjit import optim
    >>> optim.scale(-0.5).update({"w": 3.0}, optim.EmptyState())[0]
    {'w': -1.5}
    """
    return stateless(lambda updates, params: scaled(updates, step_size))


def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    """Multiply updates by a number that depends on the number of steps done.

    Parameters
    ----------
    step_size_fn : callable
        A schedule. The first step asks it for 0.

    Returns
    -------
    GradientTransformation
        The step; its state is the count, an int32.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.scale_by_schedule(lambda count: 1.0 / (1 + count))
    >>> updates, state = step.update(8.0, step.init(None))
    >>> print(updates, step.update(8.0, state)[0])
    8.0 4.0
    """

    def update(updates: Tree, state: CountState, params: Tree = None) -> tuple[Tree, CountState]:
        return scaled(updates, step_size_fn(state.count)), CountState(increment(state.count))

    return GradientTransformation(lambda params: CountState(new_count()), update)


def scale_by_learning_rate(
    learning_rate: float | Schedule | None = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiply updates by minus the learning rate.

    Parameters
    ----------
    learning_rate : float, array or callable, optional
        A number or a schedule. None leaves updates as they are.
    flip_sign : bool, optional
        False keeps the sign.

    Returns
    -------
    GradientTransformation
        The step.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.scale_by_learning_rate(0.5)
    >>> step.update(3.0, step.init(None))[0]
    -1.5
    """
    if learning_rate is None:
        return identity()
    sign = -1 if flip_sign else 1
    if callable(learning_rate):
        return scale_by_schedule(lambda count: sign * learning_rate(count))
    # Multiplied in each step: an array may have changed.
    return stateless(lambda updates, params: scaled(updates, sign * learning_rate))


def add_decayed_weights(
    weight_decay: float | Schedule = 0.0, mask: Mask | None = None
) -> GradientTransformation:
    """Add parameters, times a factor, to updates.

    Parameters
    ----------
    weight_decay : float, array or callable, optional
        The factor, or a schedule of it.
    mask : pytree of bool or callable, optional
        Leaves to which it applies, as in `masked`.

    Returns
    -------
    GradientTransformation
        The step. Its ``update`` needs the parameters.

    Examples
    --------
    >>> from graphjit import optim
    >>> step = optim.add_decayed_weights(0.5)
    >>> params = {"w": 4.0}
    >>> step.update({"w": 1.0}, step.init(params), params)[0]
    {'w': 3.0}
    """

    def init(params: Tree) -> EmptyState | CountState:
        return CountState(new_count()) if callable(weight_decay) else EmptyState()

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        if params is None:
            raise ValueError("weight decay needs the parameters: update(grads, state, params)")
        factor: Any = weight_decay
        if callable(weight_decay):
            factor, state = weight_decay(state.count), CountState(increment(state.count))
        return each(lambda g, p: g + like(factor, p) * p, updates, params), state

    step = GradientTransformation(init, update)
    return step if mask is None else masked(step, mask)
