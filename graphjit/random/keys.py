"""Keys: what random numbers are a function of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.random.philox import Word, counters, philox

Shape = int | Sequence[int]

WORD = (1 << 64) - 1
SPLIT, FOLD_IN = 1, 2
"""The highest word of the counter where keys are made. It is 0 where numbers are, so keys and numbers never
come from the same block."""


def key(seed: Any) -> Any:
    """Make a key from a number.

    Parameters
    ----------
    seed : int
        Any integer; of a traced one and of an array's element 64 bits count, of a Python int 128.

    Returns
    -------
    ndarray
        The key: two numbers of uint64, as ``np.random.Philox(key=...)`` takes them.

    Raises
    ------
    TypeError
        ``seed`` is no integer.

    Examples
    --------
    >>> from graphjit import random
    >>> random.key(42)
    array([42,  0], dtype=uint64)
    """
    if isinstance(seed, int):
        return np.array([seed & WORD, (seed >> 64) & WORD], np.uint64)
    if not hasattr(seed, "dtype") or seed.dtype.kind not in "iu" or seed.shape:
        raise TypeError(f"random.key takes one integer, not {seed!r}")
    sign = seed.astype(np.int64) >> 63 if seed.dtype.kind == "i" else seed & 0
    return np.stack([seed.astype(np.uint64), sign.astype(np.uint64)])


def require_key(key: Any, function: str) -> Word:
    """The key, if it is one."""
    if getattr(key, "dtype", None) != np.uint64 or key.shape != (2,):
        found = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else repr(key)
        raise TypeError(
            f"random.{function} takes one key, two numbers of uint64 made by random.key, not {found}; "
            "for several keys use graphjit.vmap"
        )
    return key


def as_shape(shape: Shape, function: str) -> tuple[int, ...]:
    """A shape, or the number of elements on one axis, as a shape."""
    sizes = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"random.{function}: no axis may have a negative size, not {shape!r}")
    return sizes


def split(key: Any, num: int | tuple[int, ...] = 2) -> Any:
    """Make several keys from one. Do not use the old one any more.

    Parameters
    ----------
    key : ndarray
        A key.
    num : int or tuple of int, optional
        How many, or the shape of an array of keys.

    Returns
    -------
    ndarray
        Keys along the first axes, of shape ``(num, 2)``. The first ones do not depend on how many there are.

    Examples
    --------
    >>> from graphjit import random
    >>> first, second = random.split(random.key(0))
    >>> bool((first == second).any())
    False
    """
    shape = as_shape(num, "split")
    words = philox(require_key(key, "split"), counters(math.prod(shape)), SPLIT)
    return np.stack(words[:2], axis=-1).reshape((*shape, 2))


def fold_in(key: Any, data: Any) -> Any:
    """Make a key from a key and a number, such as the number of a step.

    Parameters
    ----------
    key : ndarray
        A key.
    data : int
        An integer, of which 64 bits count; it may be traced.

    Returns
    -------
    ndarray
        The new key.

    Examples
    --------
    >>> from graphjit import random
    >>> key = random.key(0)
    >>> bool((random.fold_in(key, 1) == random.fold_in(key, 2)).any())
    False
    """
    number = np.uint64(data & WORD) if isinstance(data, int) else data
    if not hasattr(number, "dtype") or number.dtype.kind not in "iu" or number.shape:
        raise TypeError(f"random.fold_in takes one integer, not {data!r}")
    counter = np.reshape(number, (1,)).astype(np.uint64)
    return np.concatenate(philox(require_key(key, "fold_in"), counter, FOLD_IN)[:2])
