"""Layers on features: `linear`, `embedding`, `dropout`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from graphjit import random
from graphjit.nn.checks import axes_of, complain


def linear(x: Any, w: Any, b: ArrayLike | None = None) -> Any:
    """A product with a matrix, and a shift.

    Parameters
    ----------
    x : ndarray
        Activations, with features on the last axis.
    w : ndarray
        Weights of shape (in, out): the transpose of PyTorch's.
    b : array_like, optional
        Shifts of shape (out,).

    Returns
    -------
    ndarray
        ``x @ w + b``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.linear(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([0.5, 0.5]))
    array([[1.5, 6.5]])
    """
    product = np.matmul(x, w)
    return product if b is None else product + b


def embedding(indices: Any, table: Any) -> Any:
    """The rows of a table that integers name.

    Parameters
    ----------
    indices : array_like of int
        Numbers of rows, in any shape. They are NumPy's: a negative one counts from the end, one that is out
        of bounds is an IndexError.
    table : ndarray
        One row for each word, of shape (words, features).

    Returns
    -------
    ndarray
        The shape of `indices`, and one more axis of features. The gradient in `table` adds up where a row is
        named several times.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.embedding(np.array([2, 0]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    array([[4., 5.],
           [0., 1.]])
    """
    return np.take(table, indices, axis=0)


def dropout(
    key: Any, x: Any, rate: float, *, training: bool = True, broadcast_axes: int | Sequence[int] = ()
) -> Any:
    """Elements set to 0 at random; the others grow, so that the mean stays.

    Parameters
    ----------
    key : ndarray
        A key of `graphjit.random`; use each one once. It is not read where nothing is dropped.
    x : ndarray
        Activations.
    rate : float
        The probability of a 0.
    training : bool, optional
        False: `x` comes back as it is.
    broadcast_axes : int or sequence of int, optional
        Axes along which all elements share one decision. With the axes of height and width, whole channels
        are dropped, as in PyTorch's ``dropout2d``.

    Returns
    -------
    ndarray
        ``x / (1 - rate)`` or 0.

    Raises
    ------
    ShapeError
        `rate` is no probability, or there is no such axis.

    Notes
    -----
    The same key drops the same elements: on any number of threads, compiled or not. Srivastava and others,
    "Dropout", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.dropout(None, np.array([1.0, 2.0]), 0.5, training=False)
    array([1., 2.])
    """
    if not 0.0 <= rate <= 1.0:
        raise complain("dropout", f"rate is between 0 and 1, not {rate!r}")
    shared = axes_of("dropout", broadcast_axes, x.ndim)
    if not training or rate == 0.0:
        return x
    if rate == 1.0:
        return np.zeros_like(x)
    shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
    return np.where(random.bernoulli(key, 1.0 - rate, shape), x / (1.0 - rate), 0)
