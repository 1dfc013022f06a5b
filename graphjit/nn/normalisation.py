"""Normalisation: subtract a mean, divide by the root of a mean square, scale and shift.

Input: activations, and scales and shifts of the normalised axes. Output: the same shape; `batch_norm` also
gives its running statistics, which it does not keep itself.
Invariant: variances are those of the population (divided by n), as in every framework; only the running one
of `batch_norm` is divided by n - 1, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from graphjit.nn.checks import axes_of, axis_of, complain


def layer_norm(
    x: Any,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
) -> Any:
    """Each row with mean 0 and variance 1, then scaled and shifted.

    Parameters
    ----------
    x : ndarray
        Activations.
    weight, bias : array_like, optional
        Scales and shifts, in the shape of the normalised axes.
    axis : int or tuple of int, optional
        The axes over which mean and variance are taken.
    eps : float, optional
        Added to the variance.

    Returns
    -------
    ndarray
        ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    Raises
    ------
    ShapeError
        A scale or shift has another shape than the normalised axes.

    Notes
    -----
    Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.layer_norm(np.array([[1.0, 2.0, 3.0]]), np.array([1.0, 1.0, 10.0])).round(3)
    array([[-1.225,  0.   , 12.247]])
    """
    axes = axes_of("layer_norm", axis, x.ndim)
    return _affine("layer_norm", _standard(x, axes, eps), weight, bias, axes)


def rms_norm(
    x: Any, weight: ArrayLike | None = None, *, axis: int | tuple[int, ...] = -1, eps: float = 1e-5
) -> Any:
    """Each row with mean square 1, then scaled.

    Parameters
    ----------
    x : ndarray
        Activations.
    weight : array_like, optional
        Scales, in the shape of the normalised axes.
    axis : int or tuple of int, optional
        The axes over which the mean square is taken.
    eps : float, optional
        Added to the mean square. Models differ here; PyTorch takes the machine epsilon by default.

    Returns
    -------
    ndarray
        ``x / sqrt(mean(x**2) + eps) * weight``.

    Raises
    ------
    ShapeError
        `weight` has another shape than the normalised axes.

    Notes
    -----
    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.rms_norm(np.array([[1.0, 1.0], [3.0, 4.0]])).round(3)
    array([[1.   , 1.   ],
           [0.849, 1.131]])
    """
    axes = axes_of("rms_norm", axis, x.ndim)
    scaled = x / np.sqrt(np.mean(np.square(x), axis=axes, keepdims=True) + eps)
    return _affine("rms_norm", scaled, weight, None, axes)


def group_norm(
    x: Any,
    num_groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    axis: int = -1,
    eps: float = 1e-5,
) -> Any:
    """Each group of channels of each sample with mean 0 and variance 1, then channels scaled and shifted.

    Parameters
    ----------
    x : ndarray
        Activations; the first axis is that of samples.
    num_groups : int
        Number of groups, which divides that of channels. 1 makes one row of each sample; as many as there are
        channels makes it instance normalisation.
    weight, bias : array_like, optional
        A scale and a shift for each channel.
    axis : int, optional
        The axis of channels: the last one, or 1 for NCHW as in PyTorch.
    eps : float, optional
        Added to the variance.

    Returns
    -------
    ndarray
        In the shape of `x`.

    Raises
    ------
    ShapeError
        The groups do not divide the channels, or there are other shapes of scales and shifts.

    Notes
    -----
    Wu and He, "Group Normalization", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2).round(3)
    array([[-1.,  1., -1.,  1.]])
    """
    channel = axis_of("group_norm", axis, x.ndim)
    channels = x.shape[channel]
    if channel == 0:
        raise complain("group_norm", "the first axis is that of samples, not of channels")
    if num_groups < 1 or channels % num_groups:
        raise complain("group_norm", f"{num_groups} groups do not divide {channels} channels")
    before, after = x.shape[:channel], x.shape[channel + 1 :]
    grouped = np.reshape(x, (*before, num_groups, channels // num_groups, *after))
    inside = tuple(i for i in range(1, grouped.ndim) if i != channel)
    normal = np.reshape(_standard(grouped, inside, eps), x.shape)
    return _affine("group_norm", normal, weight, bias, (channel,))


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    axis: int = -1,
    eps: float = 1e-5,
) -> tuple[Any, Any, Any]:
    """Each channel with mean 0 and variance 1 over the batch, then scaled and shifted.

    Parameters
    ----------
    x : ndarray
        Activations.
    running_mean, running_var : ndarray
        What earlier batches left: one number for each channel, zeros and ones to begin with.
    weight, bias : array_like, optional
        A scale and a shift for each channel.
    training : bool, optional
        Whether the statistics are those of this batch; False: the running ones.
    momentum : float, optional
        The part of this batch in the new running statistics, as in PyTorch (Flax and Keras count the other
        part).
    axis : int, optional
        The axis of channels: the last one, or 1 for NCHW as in PyTorch.
    eps : float, optional
        Added to the variance.

    Returns
    -------
    out : ndarray
        In the shape of `x`.
    running_mean, running_var : ndarray
        Those for the next call; without `training` the same that came in. The variance that goes in is that
        of the batch divided by n - 1, as in PyTorch.

    Raises
    ------
    ShapeError
        Statistics, scales or shifts are not one for each channel, or a batch to train on has one element for
        each channel.

    Notes
    -----
    Ioffe and Szegedy, "Batch Normalization", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> out, mean, var = graphjit.nn.batch_norm(x, np.zeros(2), np.ones(2), training=True)
    >>> out.round(3), mean, var
    (array([[-1., -1.],
           [ 1.,  1.]]), array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    channel = axis_of("batch_norm", axis, x.ndim)
    mean = _along("batch_norm", "running_mean", running_mean, x.shape, (channel,))
    var = _along("batch_norm", "running_var", running_var, x.shape, (channel,))
    if training:
        others = tuple(i for i in range(x.ndim) if i != channel)
        count = x.size // max(x.shape[channel], 1)
        if count < 2:
            raise complain(
                "batch_norm", f"x has shape {x.shape}: one element for each channel has no variance"
            )
        mean, var = np.mean(x, axis=others, keepdims=True), np.var(x, axis=others, keepdims=True)
        running_mean = (1.0 - momentum) * running_mean + momentum * np.reshape(mean, -1)
        running_var = (1.0 - momentum) * running_var + momentum * count / (count - 1) * np.reshape(var, -1)
    out = _affine("batch_norm", (x - mean) / np.sqrt(var + eps), weight, bias, (channel,))
    return out, running_mean, running_var


def _standard(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    """Mean 0 and variance 1 over the axes."""
    centred = x - np.mean(x, axis=axes, keepdims=True)
    return centred / np.sqrt(np.mean(np.square(centred), axis=axes, keepdims=True) + eps)


def _affine(name: str, x: Any, weight: Any, bias: Any, axes: tuple[int, ...]) -> Any:
    """Scaled and shifted along the axes."""
    if weight is not None:
        x = x * _along(name, "weight", weight, x.shape, axes)
    return x if bias is None else x + _along(name, "bias", bias, x.shape, axes)


def _along(name: str, what: str, values: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """An array in the shape of some axes, so that it broadcasts along the others."""
    wanted = tuple(shape[i] for i in axes)
    if np.shape(values) != wanted:
        raise complain(name, f"{what} has shape {np.shape(values)}, for x of shape {shape} it is {wanted}")
    return np.reshape(values, tuple(n if i in axes else 1 for i, n in enumerate(shape)))
