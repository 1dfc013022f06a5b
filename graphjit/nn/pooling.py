"""Pooling: the largest element or the mean of each window.

Input: images or series. Output: one value for each position of a window, channel by channel.
Invariant: the gradient of a maximum goes to all elements that are equally large, in equal parts, as that of
``np.max`` does. (PyTorch's and JAX's goes to the first of them.)
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from graphjit.nn.checks import complain
from graphjit.nn.windows import (
    Numbers,
    Padding,
    Pairs,
    channels_back,
    channels_last,
    each_axis,
    padded,
    pairs,
    windows,
)

Layout = Literal["NHWC", "NCHW", "NWC", "NCW"]


def max_pool(
    x: Any,
    window: Numbers,
    *,
    stride: Numbers | None = None,
    padding: Padding = 0,
    layout: Layout = "NHWC",
) -> Any:
    """The largest element of each window.

    Parameters
    ----------
    x : ndarray
        Images of shape (batch, height, width, channels), or series, as `layout` says.
    window : int or pair of int
        The size of windows.
    stride : int or pair of int, optional
        How far it is from one window to the next; as far as a window is wide by default.
    padding : "same", "valid", int or sequence, optional
        Elements around, as in `conv2d`; they are less than all others. A window reaches into `x`.
    layout : {"NHWC", "NCHW", "NWC", "NCW"}, optional
        The order of axes of `x` and of the result.

    Returns
    -------
    ndarray
        With one element for each window.

    Raises
    ------
    ShapeError
        Options do not fit, or the padding is as wide as a window.

    Notes
    -----
    Where several elements of a window are equally large, each gets an equal part of the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.max_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    x, moved = channels_last("max_pool", x, layout)
    sizes, strides, around = _geometry("max_pool", x, window, stride, padding)
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    parts = windows("max_pool", padded(x, around, least), sizes, strides)
    return channels_back(np.max(parts, axis=_taps(sizes)), moved)


def avg_pool(
    x: Any,
    window: Numbers,
    *,
    stride: Numbers | None = None,
    padding: Padding = 0,
    count_include_pad: bool = True,
    layout: Layout = "NHWC",
) -> Any:
    """The mean of each window.

    Parameters
    ----------
    x : ndarray
        Images of shape (batch, height, width, channels), or series, as `layout` says.
    window : int or pair of int
        The size of windows.
    stride : int or pair of int, optional
        How far it is from one window to the next; as far as a window is wide by default.
    padding : "same", "valid", int or sequence, optional
        Zeros around, as in `conv2d`. A window reaches into `x`.
    count_include_pad : bool, optional
        Whether these zeros count in the mean, as in PyTorch and JAX by default; False: the mean is over the
        elements of `x` alone.
    layout : {"NHWC", "NCHW", "NWC", "NCW"}, optional
        The order of axes of `x` and of the result.

    Returns
    -------
    ndarray
        With one element for each window.

    Raises
    ------
    ShapeError
        Options do not fit, or the padding is as wide as a window.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.avg_pool(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    x, moved = channels_last("avg_pool", x, layout)
    sizes, strides, around = _geometry("avg_pool", x, window, stride, padding)
    parts = windows("avg_pool", padded(x, around), sizes, strides)
    if count_include_pad or not any(map(any, around)):
        return channels_back(np.mean(parts, axis=_taps(sizes)), moved)
    inside = np.ones((1, *x.shape[1:-1], 1), x.dtype)  # windows that no value decides: counted once
    counts = windows("avg_pool", padded(inside, around), sizes, strides)
    means = np.sum(parts, axis=_taps(sizes)) / np.sum(counts, axis=_taps(sizes))
    return channels_back(means, moved)


def global_avg_pool(x: Any, *, layout: Layout = "NHWC") -> Any:
    """The mean of each channel over all positions.

    Parameters
    ----------
    x : ndarray
        Images of shape (batch, height, width, channels), or series, as `layout` says.
    layout : {"NHWC", "NCHW", "NWC", "NCW"}, optional
        The order of axes of `x`.

    Returns
    -------
    ndarray
        Of shape (batch, channels).

    Raises
    ------
    ShapeError
        `x` is not of this layout.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.global_avg_pool(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 4.]])
    """
    x, _ = channels_last("global_avg_pool", x, layout)
    return np.mean(x, axis=tuple(range(1, x.ndim - 1)))


def _geometry(
    name: str, x: Any, window: Numbers, stride: Numbers | None, padding: Padding
) -> tuple[tuple[int, ...], tuple[int, ...], Pairs]:
    """Sizes of windows, strides, and what is added around."""
    axes = np.ndim(x) - 2
    sizes = each_axis(name, "window", window, axes)
    strides = sizes if stride is None else each_axis(name, "stride", stride, axes)
    around = pairs(name, padding, x.shape[1:-1], sizes, strides)
    if any(max(pair) >= size for pair, size in zip(around, sizes, strict=True)):
        raise complain(
            name, f"padding {around} is as wide as a window of {sizes}: a window may lie outside of x"
        )
    return sizes, strides, around


def _taps(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a window's elements."""
    return tuple(range(-len(sizes), 0))
