"""Optimisers, made of the steps in `moments` and `steps` exactly as optax makes them."""

from __future__ import annotations

from typing import Any

from graphjit.optim.base import GradientTransformation, Mask, Schedule, chain, identity
from graphjit.optim.moments import (
    scale_by_adam,
    scale_by_lion,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
    trace,
)
from graphjit.optim.steps import add_decayed_weights, scale_by_learning_rate


def sgd(
    learning_rate: float | Schedule,
    momentum: float | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
) -> GradientTransformation:
    """Go against the gradient, with momentum if wished.

    Parameters
    ----------
    learning_rate : float, array or callable
        A number, or a schedule.
    momentum : float, optional
        What remains of earlier gradients from step to step.
    nesterov : bool, optional
        Look one step ahead.
    accumulator_dtype : dtype, optional
        That of the sums of gradients; without it, that of the parameters.

    Returns
    -------
    GradientTransformation
        The optimiser.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> from graphjit import optim
    >>> optimiser = optim.sgd(0.1, momentum=0.9)
    >>> @graphjit.jit(donate_argnums=(0, 1))
    ... def step(params, state):
    ...     gradient = graphjit.grad(lambda x: np.sum((x - 3.0) ** 2))(params)
    ...     updates, state = optimiser.update(gradient, state, params)
    ...     return optim.apply_updates(params, updates), state
    >>> params = np.zeros(2)
    >>> state = optimiser.init(params)
    >>> for _ in range(300):
    ...     params, state = step(params, state)
    >>> params.round(3)
    array([3., 3.])
    """
    first = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return chain(first, scale_by_learning_rate(learning_rate))


def adagrad(
    learning_rate: float | Schedule, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> GradientTransformation:
    """Adagrad: each number's rate falls with the squares of its gradients so far.

    J. Duchi, E. Hazan, Y. Singer, 2011.

    Parameters
    ----------
    learning_rate : float, array or callable
        A number, or a schedule.
    initial_accumulator_value : float, optional
        The sums of squares at the start.
    eps : float, optional
        Added under the root.

    Returns
    -------
    GradientTransformation
        The optimiser.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optimiser = optim.adagrad(1.0, initial_accumulator_value=0.0)
    >>> optimiser.update(np.array([4.0, 0.0]), optimiser.init(np.zeros(2)))[0].round(6)
    array([-1., -0.])
    """
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))


def rmsprop(
    learning_rate: float | Schedule,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    """RMSProp: gradients divided by the root of the mean of their squares.

    T. Tieleman, G. Hinton, 2012; the centred form is that of A. Graves, 2013.

    Parameters
    ----------
    learning_rate : float, array or callable
        A number, or a schedule.
    decay : float, optional
        What remains of the mean of squares from step to step.
    eps : float, optional
        Added to the mean, or to its root.
    initial_scale : float, optional
        The mean of squares at the start.
    eps_in_sqrt : bool, optional
        Whether ``eps`` is added under the root.
    centered : bool, optional
        Divide by the standard deviation instead.
    momentum : float, optional
        What remains of earlier updates from step to step.
    nesterov : bool, optional
        Look one step ahead.
    bias_correction : bool, optional
        Correct the mean for its start.

    Returns
    -------
    GradientTransformation
        The optimiser.

    Examples
    --------
    >>> from graphjit import optim
    >>> optimiser = optim.rmsprop(0.1, decay=0.75, eps=0.0)
    >>> print(optimiser.update(4.0, optimiser.init(0.0))[0])
    -0.2
    """
    scaling = scale_by_stddev if centered else scale_by_rms
    return chain(
        scaling(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )


def adam(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam: the mean of gradients, divided by the root of the mean of their squares.

    D. P. Kingma, J. Ba, 2015; with ``nesterov`` T. Dozat, 2016.

    Parameters
    ----------
    learning_rate : float, array or callable
        A number, or a schedule.
    b1, b2 : float, optional
        What remains of the mean of gradients, and of squares, from step to step.
    eps : float, optional
        Added to the root.
    eps_root : float, optional
        Added under the root.
    mu_dtype : dtype, optional
        That of the means of gradients; without it, that of the parameters.
    nesterov : bool, optional
        Look one step ahead.

    Returns
    -------
    GradientTransformation
        The optimiser.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optimiser = optim.adam(0.5, eps=0.0)
    >>> optimiser.update(np.array([0.1, -7.0]), optimiser.init(np.zeros(2)))[0].round(12)
    array([-0.5,  0.5])
    """
    scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    weight_decay: float | Schedule = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam, and besides a part of the parameters is taken away in each step.

    I. Loshchilov, F. Hutter, 2019.

    Parameters
    ----------
    learning_rate : float, array or callable
        A number, or a schedule.
    b1, b2 : float, optional
        What remains of the mean of gradients, and of squares, from step to step.
    eps : float, optional
        Added to the root.
    eps_root : float, optional
        Added under the root.
    mu_dtype : dtype, optional
        That of the means of gradients; without it, that of the parameters.
    weight_decay : float, array or callable, optional
        The part, times the learning rate.
    mask : pytree of bool or callable, optional
        Leaves of which it is taken away, as in `masked`.
    nesterov : bool, optional
        Look one step ahead.

    Returns
    -------
    GradientTransformation
        The optimiser. Its ``update`` needs the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optimiser = optim.adamw(0.5, weight_decay=0.1, mask={"w": True, "b": False})
    >>> params = {"w": np.array([10.0]), "b": np.array([10.0])}
    >>> zero = {"w": np.zeros(1), "b": np.zeros(1)}
    >>> updates, state = optimiser.update(zero, optimiser.init(params), params)
    >>> updates["w"], updates["b"]
    (array([-0.5]), array([-0.]))
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def lion(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: Any = None,
    weight_decay: float | Schedule = 1e-3,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Lion: the sign of a mean of gradients. It keeps one moment, and wants a third of Adam's rate or less.

    X. Chen and others, 2023.

    Parameters
    ----------
    learning_rate : float, array or callable
        A number, or a schedule.
    b1 : float, optional
        Weight of the mean beside the gradient in the sign.
    b2 : float, optional
        What remains of the mean from step to step.
    mu_dtype : dtype, optional
        That of the means; without it, that of the parameters.
    weight_decay : float, array or callable, optional
        The part of the parameters that is taken away in each step, times the learning rate.
    mask : pytree of bool or callable, optional
        Leaves of which it is taken away, as in `masked`.

    Returns
    -------
    GradientTransformation
        The optimiser. Its ``update`` needs the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import optim
    >>> optimiser = optim.lion(0.5, weight_decay=0.0)
    >>> params = np.ones(2)
    >>> optimiser.update(np.array([0.1, -7.0]), optimiser.init(params), params)[0]
    array([-0.5,  0.5])
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
