"""Random numbers of several distributions, each a function of a key.

Job: turn the words of `philox` into numbers. Each block of four is turned before it is laid out, so that a
number is stored once, as what was asked for.
Invariants: the same key gives the same numbers, traced or not, on any machine up to the last bits of
elementary functions, for any number of threads; numbers of 32 bits take the halves of a word, the low one
first, as NumPy's generators do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.random.keys import Shape, as_shape, require_key
from graphjit.random.philox import Word, counters, philox, product


def _laid_out(key: Word, shape: tuple[int, ...], turned: Callable[[list[Word]], list[Any]], each: int) -> Any:
    """An array of a shape, filled with what ``turned`` makes of each block: ``each`` numbers of one word."""
    size, of_block = math.prod(shape), 4 * each
    # NumPy's generator counts before it computes, so the first block is number 1.
    columns = turned(philox(key, counters(-(-size // of_block)) + 1))
    return np.stack(columns, axis=-1).reshape(-1)[:size].reshape(shape)


def _parts(words: list[Word], dtype: Any) -> list[Any]:
    """Words cut into unsigned integers of a dtype, the lowest first."""
    shifts = range(0, 64, 8 * np.dtype(dtype).itemsize)
    shifted = [word >> shift if shift else word for word in words for shift in shifts]
    return [word.astype(dtype, copy=False) for word in shifted]  # without the bits above


def _unit(words: list[Word], single: bool) -> list[Any]:
    """Numbers in [0, 1), as NumPy's generators make them."""
    if single:
        return [(half >> 8).astype(np.float32) * np.float32(2.0**-24) for half in _parts(words, np.uint32)]
    return [(word >> 11).astype(np.float64) * 2.0**-53 for word in words]


def _is_single(dtype: Any, function: str) -> bool:
    """Whether float32 is asked for, and not float64."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"random.{function}: the dtype must be float32 or float64, not {np.dtype(dtype)}")
    return np.dtype(dtype) == np.float32


def bits(key: Any, shape: Shape = (), dtype: Any = np.uint64) -> Any:
    """Draw random bits.

    Parameters
    ----------
    key : ndarray
        A key.
    shape : tuple of int, optional
        The shape of the result.
    dtype : dtype, optional
        uint8, uint16, uint32 or uint64.

    Returns
    -------
    ndarray
        The bits, those of ``np.random.Philox(key=key)``.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import random
    >>> key = random.key(7)
    >>> bool((random.bits(key, (5,)) == np.random.Philox(key=key).random_raw(5)).all())
    True
    """
    wanted = np.dtype(dtype)
    if wanted.kind != "u":
        raise TypeError(f"random.bits: the dtype must be an unsigned integer, not {wanted}")
    turned = lambda words: _parts(words, wanted)
    return _laid_out(require_key(key, "bits"), as_shape(shape, "bits"), turned, 8 // wanted.itemsize)


def uniform(
    key: Any, shape: Shape = (), dtype: Any = np.float64, minval: Any = 0.0, maxval: Any = 1.0
) -> Any:
    """Draw numbers that are evenly spread over ``[minval, maxval)``.

    Parameters
    ----------
    key : ndarray
        A key.
    shape : tuple of int, optional
        The shape of the result.
    dtype : dtype, optional
        float64, with 53 random bits in each number, or float32, with 24.
    minval, maxval : float or ndarray, optional
        The ends; arrays must fit the shape. Rounding may give ``maxval`` itself where they are not 0 and 1.

    Returns
    -------
    ndarray
        The numbers; between 0 and 1 those of ``np.random.Generator(np.random.Philox(key=key)).random``.

    Examples
    --------
    >>> from graphjit import random
    >>> random.uniform(random.key(7), (3,)).round(3)
    array([0.872, 0.295, 0.42 ])
    """
    single = _is_single(dtype, "uniform")
    turned = lambda words: _unit(words, single)
    unit = _laid_out(require_key(key, "uniform"), as_shape(shape, "uniform"), turned, 2 if single else 1)
    if isinstance(minval, int | float) and isinstance(maxval, int | float) and (minval, maxval) == (0, 1):
        return unit
    return (unit * (maxval - minval) + minval).astype(unit.dtype, copy=False)


def normal(key: Any, shape: Shape = (), dtype: Any = np.float64) -> Any:
    """Draw numbers of the normal distribution with mean 0 and deviation 1.

    Parameters
    ----------
    key : ndarray
        A key.
    shape : tuple of int, optional
        The shape of the result.
    dtype : dtype, optional
        float64 or float32.

    Returns
    -------
    ndarray
        The numbers.

    Notes
    -----
    G. E. P. Box, M. E. Muller, 1958: two numbers ``u`` and ``v`` that are evenly spread over (0, 1] give
    ``sqrt(-2 log u)`` times the cosine and the sine of ``2 pi v``. ``u`` has all bits of a word, or of a half
    for float32, so that the tails are there: up to 9.4 deviations, or 6.7.

    Examples
    --------
    >>> from graphjit import random
    >>> random.normal(random.key(7), (3,)).round(3)
    array([ 0.147, -0.502,  1.091])
    """
    single = _is_single(dtype, "normal")
    kind: type[Any] = np.float32 if single else np.float64

    def turned(words: list[Word]) -> list[Any]:
        numbers, width, kept = (_parts(words, np.uint32), 32, 24) if single else (words, 64, 53)
        drawn = []
        for first, second in zip(numbers[::2], numbers[1::2], strict=True):
            radius = np.sqrt(-2.0 * np.log((first.astype(kind) + 0.5) * 2.0**-width))
            angle = (second >> width - kept).astype(kind) * (2.0**-kept * 2.0 * math.pi) - math.pi
            drawn += [radius * np.cos(angle), radius * np.sin(angle)]
        return drawn

    return _laid_out(require_key(key, "normal"), as_shape(shape, "normal"), turned, 2 if single else 1)


def bernoulli(key: Any, p: Any = 0.5, shape: Shape | None = None) -> Any:
    """Draw True with probability ``p``.

    Parameters
    ----------
    key : ndarray
        A key.
    p : float or ndarray, optional
        The probability. For an array of float32 and a NumPy float32, 24 random bits are compared, else 53.
    shape : tuple of int, optional
        The shape of the result; without it, that of ``p``.

    Returns
    -------
    ndarray
        Bools.

    Examples
    --------
    >>> from graphjit import random
    >>> random.bernoulli(random.key(7), 0.7, (5,))
    array([False,  True,  True,  True,  True])
    """
    single = getattr(p, "dtype", None) == np.float32
    wanted = np.shape(p) if shape is None else as_shape(shape, "bernoulli")
    if np.ndim(p):
        return uniform(require_key(key, "bernoulli"), wanted, np.float32 if single else np.float64) < p
    turned = lambda words: [number < p for number in _unit(words, single)]  # what is stored is a byte
    return _laid_out(require_key(key, "bernoulli"), wanted, turned, 2 if single else 1)


def categorical(key: Any, logits: Any, axis: int = -1, shape: Shape | None = None) -> Any:
    """Draw indices, each with a probability proportional to the exponential of its logit.

    Parameters
    ----------
    key : ndarray
        A key.
    logits : ndarray
        Logarithms of probabilities, up to a constant.
    axis : int, optional
        The axis along which the indices count.
    shape : tuple of int, optional
        The shape of the result: that of ``logits`` without ``axis``, or further axes in front of it.

    Returns
    -------
    ndarray
        Indices of int64.

    Raises
    ------
    ValueError
        ``shape`` does not end with that of ``logits`` without ``axis``.

    Notes
    -----
    The largest of the logits with noise of Gumbel's distribution, ``-log(-log u)``, is taken (E. J. Gumbel,
    1954).

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import random
    >>> random.categorical(random.key(7), np.log([0.1, 0.2, 0.7]), shape=(6,))
    array([2, 2, 1, 2, 2, 2])
    """
    logits = np.moveaxis(logits, axis, -1)
    batch = logits.shape[:-1]
    wanted = batch if shape is None else as_shape(shape, "categorical")
    ahead = len(wanted) - len(batch)
    if ahead < 0 or wanted[ahead:] != batch:
        raise ValueError(f"random.categorical: shape {wanted} does not end with {batch}, that of the logits")

    def turned(words: list[Word]) -> list[Any]:
        inside = [((word >> 12).astype(np.float64) + 0.5) * 2.0**-52 for word in words]  # neither 0 nor 1
        return [-np.log(-np.log(u)) for u in inside]

    noise = _laid_out(require_key(key, "categorical"), (*wanted, logits.shape[-1]), turned, 1)
    return np.argmax(noise + logits, axis=-1)


def randint(key: Any, shape: Shape, minval: Any, maxval: Any, dtype: Any = np.int64) -> Any:
    """Draw integers that are evenly spread over ``[minval, maxval)``.

    Parameters
    ----------
    key : ndarray
        A key.
    shape : tuple of int
        The shape of the result.
    minval, maxval : int or ndarray
        The ends; arrays must fit the shape.
    dtype : dtype, optional
        An integer.

    Returns
    -------
    ndarray
        The integers. Where ``maxval`` is not above ``minval``, they are ``minval``.

    Raises
    ------
    TypeError
        The dtype or an end is no integer.

    Notes
    -----
    The high word of the product of 64 random bits and the number of values: probabilities differ by at most
    2**-64.

    Examples
    --------
    >>> from graphjit import random
    >>> random.randint(random.key(7), (6,), 1, 7)
    array([6, 2, 3, 3, 1, 5])
    """
    wanted = np.dtype(dtype)
    low, high = (np.asarray(end) for end in (minval, maxval))
    if wanted.kind not in "iu" or low.dtype.kind not in "iu" or high.dtype.kind not in "iu":
        raise TypeError(
            f"random.randint: ends and dtype must be integers, not {low.dtype}, {high.dtype} and {wanted}"
        )
    span = np.where(high > low, high.astype(np.uint64) - low.astype(np.uint64), np.uint64(0))
    key, shape = require_key(key, "randint"), as_shape(shape, "randint")
    if low.shape == high.shape == ():
        turned = lambda words: [product(word, span)[0] for word in words]
        above = _laid_out(key, shape, turned, 1)
    else:
        above = product(bits(key, shape), span)[0]
    return (above + low.astype(np.uint64)).astype(wanted)
