"""Positional encodings: what tells attention where in a sequence a row is.

Input: positions. Output: sines and cosines of them, or rows turned by them.
Invariant: angles are taken in double precision, also where the result is single: far positions need it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from graphjit.nn.checks import complain


def sinusoidal_positions(
    length: int, width: int, *, base: float = 10000.0, dtype: DTypeLike = np.float64
) -> np.ndarray:
    """Sines and cosines of positions, of wavelengths from 2 pi to almost ``2 pi * base``.

    Parameters
    ----------
    length : int
        The number of positions.
    width : int
        The number of features, an even one: sines at even places, cosines at odd ones.
    base : float, optional
        How much longer the longest wave would be than the shortest one.
    dtype : dtype, optional
        The dtype of the result.

    Returns
    -------
    ndarray
        Of shape (length, width), to add to the rows of a sequence.

    Raises
    ------
    ShapeError
        `width` is odd.

    Notes
    -----
    Vaswani and others, "Attention Is All You Need", 2017.

    Examples
    --------
    >>> import graphjit
    >>> graphjit.nn.sinusoidal_positions(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]])
    """
    angles = _angles("sinusoidal_positions", np.arange(length), width, base)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width).astype(dtype)


def rotary_positions(
    x: Any, positions: ArrayLike | None = None, *, base: float = 10000.0, interleaved: bool = False
) -> Any:
    """Pairs of features turned by angles that grow with the position.

    Products of queries and keys that are turned so depend on the distance of their positions alone.

    Parameters
    ----------
    x : ndarray
        Queries or keys of shape (..., length, width), the width an even number.
    positions : array_like, optional
        Where each row is; they broadcast against (..., length). 0, 1, ... by default.
    base : float, optional
        How much slower the slowest pair would turn than the first one.
    interleaved : bool, optional
        Whether neighbouring features are a pair, as in the paper; False: feature i and the one half a width
        after it, as in most language models of today.

    Returns
    -------
    ndarray
        In the shape and dtype of `x`.

    Raises
    ------
    ShapeError
        The width is odd, or there are less than two axes.

    Notes
    -----
    Su and others, "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.rotary_positions(np.array([[1.0, 0.0], [1.0, 0.0]])).round(3)
    array([[1.   , 0.   ],
           [0.54 , 0.841]])
    """
    if x.ndim < 2:
        raise complain("rotary_positions", f"x has shape {x.shape}, not (..., length, width)")
    length, width = x.shape[-2:]
    angles = _angles("rotary_positions", np.arange(length) if positions is None else positions, width, base)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    pairs = np.reshape(x, (*x.shape[:-1], width // 2, 2) if interleaved else (*x.shape[:-1], 2, width // 2))
    axis = -1 if interleaved else -2
    a, b = np.take(pairs, 0, axis=axis), np.take(pairs, 1, axis=axis)
    return np.reshape(np.stack([a * cos - b * sin, a * sin + b * cos], axis=axis), x.shape)


def _angles(name: str, positions: ArrayLike, width: int, base: float) -> Any:
    """The angle of each pair of features at each position."""
    if width % 2:
        raise complain(name, f"the width is {width}, and features come in pairs")
    rates = float(base) ** (np.arange(width // 2) * (-2.0 / max(width, 1)))
    return np.multiply(np.expand_dims(positions, -1), rates)
