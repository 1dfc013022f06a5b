"""Activations: functions of single numbers, and `softmax` and `log_softmax` along an axis.

Input and output: arrays of floating-point numbers, of the same dtype and shape.
Invariant: the branch that is not taken neither overflows nor reaches a derivative, so no argument warns, and
a NaN comes from NaN or infinite arguments alone. At a kink the derivative is PyTorch's, which each function
states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, DTypeLike

SQRT_2_OVER_PI = 0.7978845608028654
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def relu(x: ArrayLike) -> Any:
    """Positive numbers as they are, and 0 for the others.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``max(x, 0)``; the derivative at 0 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.relu(np.array([-2.0, 0.0, 3.0]))
    array([0., 0., 3.])
    """
    return np.where(np.less_equal(x, 0), 0, x)


def relu6(x: ArrayLike) -> Any:
    """Numbers between 0 and 6 as they are, others cut off there.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``min(max(x, 0), 6)``; the derivative at 0 and at 6 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.relu6(np.array([-2.0, 3.0, 7.0]))
    array([0., 3., 6.])
    """
    return np.where(np.greater_equal(x, 6), 6, relu(x))


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01) -> Any:
    """Positive numbers as they are, and a small multiple of the others.

    Parameters
    ----------
    x : array_like
        Numbers.
    negative_slope : float, optional
        The factor of numbers below 0.

    Returns
    -------
    ndarray
        ``x`` or ``negative_slope * x``; the derivative at 0 is `negative_slope` (JAX: 1).

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.leaky_relu(np.array([-2.0, 3.0]))
    array([-0.02,  3.  ])
    """
    return np.where(np.greater(x, 0), x, np.multiply(negative_slope, x))


def elu(x: ArrayLike, alpha: float = 1.0) -> Any:
    """Positive numbers as they are, others on an exponential that ends at `-alpha`.

    Parameters
    ----------
    x : array_like
        Numbers.
    alpha : float, optional
        How far below 0 the results go.

    Returns
    -------
    ndarray
        ``x`` or ``alpha * (exp(x) - 1)``; the derivative at 0 is `alpha`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.elu(np.array([-1000.0, 1000.0]))
    array([  -1., 1000.])
    """
    return np.where(np.greater(x, 0), x, np.multiply(alpha, np.expm1(_not_positive(x))))


def selu(x: ArrayLike) -> Any:
    """`elu` with the two constants that keep mean 0 and variance 1 from layer to layer.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``1.0507 * elu(x, 1.6733)``; the derivative at 0 is that of the left side, 1.7581.

    Notes
    -----
    The constants are those of Klambauer and others, "Self-Normalizing Neural Networks", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.selu(np.array([-1.0, 1.0])).round(4)
    array([-1.1113,  1.0507])
    """
    return SELU_SCALE * elu(x, SELU_ALPHA)


def celu(x: ArrayLike, alpha: float = 1.0) -> Any:
    """`elu` whose derivative has no jump, whatever `alpha` is.

    Parameters
    ----------
    x : array_like
        Numbers.
    alpha : float, optional
        How far below 0 the results go.

    Returns
    -------
    ndarray
        ``x`` or ``alpha * (exp(x / alpha) - 1)``; the derivative at 0 is 1.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.celu(np.array([-1.0, 1.0]), 2.0).round(4)
    array([-0.7869,  1.    ])
    """
    return np.where(np.greater(x, 0), x, alpha * np.expm1(_not_positive(x) / alpha))


def _not_positive(x: ArrayLike) -> Any:
    """0 for positive numbers: what is not taken of an exponential does not overflow."""
    return np.where(np.greater(x, 0), 0, x)


def gelu(x: ArrayLike, approximate: bool = True) -> Any:
    """Numbers times the probability that a normal variable is smaller.

    Parameters
    ----------
    x : array_like
        Numbers.
    approximate : bool, optional
        Whether the probability is taken by tanh, at most 4.8e-4 off, as in JAX by default; False: exactly, as
        in PyTorch by default.

    Returns
    -------
    ndarray
        ``x * ndtr(x)``, or ``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``.

    Notes
    -----
    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x = np.array([-1.0, 0.0, 1.0])
    >>> graphjit.nn.gelu(x).round(4), graphjit.nn.gelu(x, approximate=False).round(4)
    (array([-0.1588,  0.    ,  0.8412]), array([-0.1587,  0.    ,  0.8413]))
    """
    if not approximate:
        return x * scipy.special.ndtr(x)
    # tanh is 1 long before, and a cube that is infinite would make a NaN of its derivative
    near = np.clip(x, -30, 30)
    return np.multiply(0.5, x) * (1.0 + np.tanh(SQRT_2_OVER_PI * (near + 0.044715 * (near * near * near))))


def silu(x: ArrayLike) -> Any:
    """Numbers times their sigmoid; also called swish.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``x / (1 + exp(-x))``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.silu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.2689,  0.    ,  0.7311])
    """
    return x * scipy.special.expit(x)


def softplus(x: ArrayLike) -> Any:
    """The logarithm of 1 plus the exponential: a smooth `relu`.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``log(1 + exp(x))``, which neither overflows nor loses small numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.softplus(np.array([-1000.0, 0.0, 1000.0])).round(4)
    array([0.000e+00, 6.931e-01, 1.000e+03])
    """
    return np.logaddexp(x, 0.0)


def sigmoid(x: ArrayLike) -> Any:
    """The logistic function, from 0 to 1.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``1 / (1 + exp(-x))``; the same as ``scipy.special.expit``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return scipy.special.expit(x)


def log_sigmoid(x: ArrayLike) -> Any:
    """The logarithm of the sigmoid.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``-log(1 + exp(-x))``; the same as ``scipy.special.log_expit``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.log_sigmoid(np.array([-1000.0, 0.0])).round(4)
    array([-1.000e+03, -6.931e-01])
    """
    return scipy.special.log_expit(x)


def tanh(x: ArrayLike) -> Any:
    """The hyperbolic tangent, from -1 to 1.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``np.tanh(x)``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.tanh(np.array([-1000.0, 0.0, 1000.0]))
    array([-1.,  0.,  1.])
    """
    return np.tanh(x)


def hard_tanh(x: ArrayLike) -> Any:
    """Numbers between -1 and 1 as they are, others cut off there.

    Parameters
    ----------
    x : array_like
        Numbers.

    Returns
    -------
    ndarray
        ``min(max(x, -1), 1)``; the derivative at -1 and at 1 is 0 (JAX: 1).

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.hard_tanh(np.array([-2.0, 0.5, 2.0]))
    array([-1. ,  0.5,  1. ])
    """
    return np.where(np.greater_equal(x, 1), 1, np.where(np.less_equal(x, -1), -1, x))


def softmax(x: ArrayLike, axis: int | tuple[int, ...] = -1, where: ArrayLike | None = None) -> Any:
    """Exponentials along an axis, divided by their sum.

    Parameters
    ----------
    x : array_like
        Numbers; an element that is -inf gets 0.
    axis : int or tuple of int, optional
        The axes along which the results sum to 1.
    where : array_like of bool, optional
        Elements that take part; it broadcasts against `x`. The others get 0, and their numbers, NaN
        included, touch neither results nor derivatives.

    Returns
    -------
    ndarray
        Numbers from 0 to 1. Where `where` leaves nothing along the axis all are 0, and so is their
        derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x = np.array([[1.0, 1.0, 1000.0], [1.0, 2.0, 3.0]])
    >>> graphjit.nn.softmax(x, where=np.array([[True, True, False], [False, False, False]]))
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 0. ]])
    """
    if where is None:
        return scipy.special.softmax(x, axis=axis)
    shape = np.shape(where)
    some = np.any(np.reshape(where, (1,) * (np.ndim(x) - len(shape)) + shape), axis=axis, keepdims=True)
    # a row in which nothing takes part becomes one of zeros, in which no NaN is made, and is left out then
    taking_part = np.where(some, np.where(where, x, -np.inf), 0)
    return np.where(some, scipy.special.softmax(taking_part, axis=axis), 0)


def log_softmax(x: ArrayLike, axis: int | tuple[int, ...] = -1) -> Any:
    """The logarithm of `softmax`, which loses no small probability.

    Parameters
    ----------
    x : array_like
        Numbers; an element that is -inf stays so, and its derivative is 0.
    axis : int or tuple of int, optional
        The axes along which the exponentials of the results sum to 1.

    Returns
    -------
    ndarray
        ``x - log(sum(exp(x)))``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.log_softmax(np.array([0.0, 1000.0, -np.inf]))
    array([-1000.,     0.,   -inf])
    """
    return scipy.special.log_softmax(x, axis=axis)


def one_hot(x: ArrayLike, num_classes: int, *, dtype: DTypeLike = np.float64, axis: int = -1) -> Any:
    """A 1 at the place that each integer names, zeros elsewhere.

    Parameters
    ----------
    x : array_like of int
        Classes, counted from 0.
    num_classes : int
        How many there are.
    dtype : dtype, optional
        The dtype of the result.
    axis : int, optional
        Where the new axis is in the result.

    Returns
    -------
    ndarray
        The shape of `x` with one more axis. An integer that is no class gets zeros alone, as in JAX.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.one_hot(np.array([1, 0]), 3)
    array([[0., 1., 0.],
           [1., 0., 0.]])
    """
    hits = np.equal(np.expand_dims(x, -1), np.arange(num_classes))
    return np.moveaxis(hits, -1, axis).astype(dtype)
