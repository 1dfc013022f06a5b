"""Initial weights, drawn from a NumPy generator.

Input: a generator, a shape. Output: an array. Weights are drawn before anything is traced: numbers drawn in a
trace would be the same at every call, so graphjit refuses that.
Invariant: with *fan in* the number of inputs of an output, and *fan out* that of outputs of an input, weights
of a layer have a variance that these two decide. All axes but those of inputs and outputs, such as height and
width of a kernel, count for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from graphjit.nn.checks import axis_of, complain

Shape = Sequence[int]


def _fans(name: str, shape: Shape, in_axis: int, out_axis: int) -> tuple[float, float]:
    """Fan in and fan out."""
    if len(shape) < 2:
        raise complain(name, f"weights of shape {tuple(shape)} have no axes of inputs and outputs")
    into, out = (axis_of(name, axis, len(shape)) for axis in (in_axis, out_axis))
    field = math.prod(n for i, n in enumerate(shape) if i not in (into, out))
    return float(shape[into] * field), float(shape[out] * field)


def _uniform(rng: np.random.Generator, shape: Shape, variance: float, dtype: DTypeLike) -> np.ndarray:
    bound = math.sqrt(3.0 * variance)
    return rng.uniform(-bound, bound, tuple(shape)).astype(dtype)


def _normal(rng: np.random.Generator, shape: Shape, variance: float, dtype: DTypeLike) -> np.ndarray:
    return rng.normal(0.0, math.sqrt(variance), tuple(shape)).astype(dtype)


def glorot_uniform(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    in_axis: int = -2,
    out_axis: int = -1,
) -> np.ndarray:
    """Uniform weights of variance ``2 / (fan in + fan out)``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs: the last two; for PyTorch's layout 1 and 0.

    Returns
    -------
    ndarray
        Uniform between ``-sqrt(6 / (fan in + fan out))`` and ``sqrt(6 / (fan in + fan out))``.

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010;
    for symmetric activations such as tanh. PyTorch calls it xavier_uniform.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.glorot_uniform(np.random.default_rng(0), (300, 200))
    >>> float(np.std(w).round(3)), float(np.abs(w).max().round(3))
    (0.063, 0.11)
    """
    variance = 2.0 / max(sum(_fans("glorot_uniform", shape, in_axis, out_axis)), 1.0)
    return _uniform(rng, shape, variance, dtype)


def glorot_normal(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    in_axis: int = -2,
    out_axis: int = -1,
) -> np.ndarray:
    """Normal weights of variance ``2 / (fan in + fan out)``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs: the last two; for PyTorch's layout 1 and 0.

    Returns
    -------
    ndarray
        Normal with the standard deviation ``sqrt(2 / (fan in + fan out))``, and no tails cut off
        (JAX cuts them off at twice that).

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010;
    for symmetric activations such as tanh. PyTorch calls it xavier_normal.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.glorot_normal(np.random.default_rng(0), (300, 200))
    >>> float(np.std(w).round(3)), float(np.mean(w).round(2))
    (0.063, 0.0)
    """
    variance = 2.0 / max(sum(_fans("glorot_normal", shape, in_axis, out_axis)), 1.0)
    return _normal(rng, shape, variance, dtype)


def he_uniform(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    in_axis: int = -2,
    out_axis: int = -1,
) -> np.ndarray:
    """Uniform weights of variance ``2 / fan in``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs: the last two; for PyTorch's layout 1 and 0.

    Returns
    -------
    ndarray
        Uniform between ``-sqrt(6 / fan in)`` and ``sqrt(6 / fan in)``.

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    He and others, "Delving Deep into Rectifiers", 2015; for relu. PyTorch calls it kaiming_uniform.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.he_uniform(np.random.default_rng(0), (300, 200))
    >>> float(np.std(w).round(3)), float(np.abs(w).max().round(3))
    (0.082, 0.141)
    """
    variance = 2.0 / max(_fans("he_uniform", shape, in_axis, out_axis)[0], 1.0)
    return _uniform(rng, shape, variance, dtype)


def he_normal(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    in_axis: int = -2,
    out_axis: int = -1,
) -> np.ndarray:
    """Normal weights of variance ``2 / fan in``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs: the last two; for PyTorch's layout 1 and 0.

    Returns
    -------
    ndarray
        Normal with the standard deviation ``sqrt(2 / fan in)``, and no tails cut off
        (JAX cuts them off at twice that).

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    He and others, "Delving Deep into Rectifiers", 2015; for relu. PyTorch calls it kaiming_normal.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.he_normal(np.random.default_rng(0), (300, 200))
    >>> float(np.std(w).round(3)), float(np.mean(w).round(2))
    (0.082, 0.0)
    """
    variance = 2.0 / max(_fans("he_normal", shape, in_axis, out_axis)[0], 1.0)
    return _normal(rng, shape, variance, dtype)


def lecun_uniform(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    in_axis: int = -2,
    out_axis: int = -1,
) -> np.ndarray:
    """Uniform weights of variance ``1 / fan in``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs: the last two; for PyTorch's layout 1 and 0.

    Returns
    -------
    ndarray
        Uniform between ``-sqrt(3 / fan in)`` and ``sqrt(3 / fan in)``.

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    LeCun and others, "Efficient BackProp", 1998; for selu, and for layers without an activation.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.lecun_uniform(np.random.default_rng(0), (300, 200))
    >>> float(np.std(w).round(3)), float(np.abs(w).max().round(3))
    (0.058, 0.1)
    """
    variance = 1.0 / max(_fans("lecun_uniform", shape, in_axis, out_axis)[0], 1.0)
    return _uniform(rng, shape, variance, dtype)


def lecun_normal(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    in_axis: int = -2,
    out_axis: int = -1,
) -> np.ndarray:
    """Normal weights of variance ``1 / fan in``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    in_axis, out_axis : int, optional
        The axes of inputs and outputs: the last two; for PyTorch's layout 1 and 0.

    Returns
    -------
    ndarray
        Normal with the standard deviation ``sqrt(1 / fan in)``, and no tails cut off
        (JAX cuts them off at twice that).

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    LeCun and others, "Efficient BackProp", 1998; for selu, and for layers without an activation.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.lecun_normal(np.random.default_rng(0), (300, 200))
    >>> float(np.std(w).round(3)), float(np.mean(w).round(2))
    (0.058, 0.0)
    """
    variance = 1.0 / max(_fans("lecun_normal", shape, in_axis, out_axis)[0], 1.0)
    return _normal(rng, shape, variance, dtype)


def orthogonal(
    rng: np.random.Generator,
    shape: Shape,
    dtype: DTypeLike = np.float64,
    *,
    scale: float = 1.0,
    column_axis: int = -1,
) -> np.ndarray:
    """A random matrix with orthonormal columns, or rows if there are more columns.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.
    scale : float, optional
        A factor of the matrix.
    column_axis : int, optional
        The axis of columns; all others together are the rows.

    Returns
    -------
    ndarray
        Evenly distributed among all such matrices: Q of a matrix of normal numbers, whose R has a positive
        diagonal.

    Raises
    ------
    ShapeError
        There are less than two axes.

    Notes
    -----
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", 2014; Mezzadri, "How to generate random matrices from the classical compact groups", 2007.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> w = graphjit.nn.orthogonal(np.random.default_rng(0), (4, 3))
    >>> bool(np.allclose(w.T @ w, np.eye(3)))
    True
    """
    if len(shape) < 2:
        raise complain("orthogonal", f"a matrix has two axes or more, not the shape {tuple(shape)}")
    column = axis_of("orthogonal", column_axis, len(shape))
    columns, rows = shape[column], math.prod(n for i, n in enumerate(shape) if i != column)
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q = scale * q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
    matrix = q if rows >= columns else q.T
    others = [n for i, n in enumerate(shape) if i != column]
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(*others, columns), -1, column)).astype(dtype)


def zeros(rng: np.random.Generator | None, shape: Shape, dtype: DTypeLike = np.float64) -> np.ndarray:
    """Zeros, for shifts: an initialiser that draws nothing.

    Parameters
    ----------
    rng : numpy.random.Generator or None
        Not used; all initialisers have it.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.

    Returns
    -------
    ndarray
        ``np.zeros(shape, dtype)``.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.nn.zeros(None, (2,))
    array([0., 0.])
    """
    return np.zeros(tuple(shape), dtype)


def ones(rng: np.random.Generator | None, shape: Shape, dtype: DTypeLike = np.float64) -> np.ndarray:
    """Ones, for scales: an initialiser that draws nothing.

    Parameters
    ----------
    rng : numpy.random.Generator or None
        Not used; all initialisers have it.
    shape : sequence of int
        The shape of the weights.
    dtype : dtype, optional
        The dtype of the result.

    Returns
    -------
    ndarray
        ``np.ones(shape, dtype)``.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.nn.ones(None, (2,))
    array([1., 1.])
    """
    return np.ones(tuple(shape), dtype)
