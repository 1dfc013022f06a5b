"""Convolutions and their transposes: contractions over windows.

Input: images or series, weights, strides, paddings and dilations. Output: one value for each position of a
window and each output channel.
Invariants: inside, channels are the last axis, with groups an axis of their own before it, and weights are
(taps..., in / groups, out). Windows are a view: nothing like im2col is stored by compiled code. A transposed
convolution is one convolution for each phase of the stride, so no zero is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from graphjit.nn.checks import complain
from graphjit.nn.windows import (
    Numbers,
    Padding,
    channels_back,
    channels_last,
    each_axis,
    padded,
    pairs,
    windows,
)
from graphjit.ops.folds import Phase, phases


def conv1d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    layout: Literal["NWC", "NCW"] = "NWC",
) -> Any:
    """Products of weights, which are not flipped, with windows of series.

    Parameters
    ----------
    x : ndarray
        Series of shape (batch, length, channels), or (batch, channels, length) for NCW.
    w : ndarray
        Weights of shape (taps, in / groups, out) as in JAX; for NCW (out, in / groups, taps) as in PyTorch.
    b : ndarray, optional
        Shifts of shape (out,).
    stride : int, optional
        How far it is from one window to the next.
    padding : "same", "valid", int or pair, optional
        Zeros before and after the series, as in `conv2d`.
    dilation : int, optional
        How far it is from one element of a window to the next.
    groups : int, optional
        The number of groups of channels, as in `conv2d`.
    layout : {"NWC", "NCW"}, optional
        The order of axes of `x` and of the result.

    Returns
    -------
    ndarray
        Of shape (batch, positions, out), or (batch, out, positions) for NCW.

    Raises
    ------
    ShapeError
        Shapes or options do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x, w = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1), np.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> graphjit.nn.conv1d(x, w).ravel()
    array([1., 2., 4.])
    """
    return _convolved("conv1d", x, w, b, _Options(stride, padding, dilation, groups), layout)


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Numbers = 1,
    padding: Padding = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    layout: Literal["NHWC", "NCHW"] = "NHWC",
) -> Any:
    """Products of weights, which are not flipped, with windows of images.

    Parameters
    ----------
    x : ndarray
        Images of shape (batch, height, width, channels), or (batch, channels, height, width) for NCHW.
    w : ndarray
        Weights of shape (kh, kw, in / groups, out) as in JAX; for NCHW (out, in / groups, kh, kw) as in
        PyTorch.
    b : ndarray, optional
        Shifts of shape (out,).
    stride : int or pair of int, optional
        How far it is from one window to the next.
    padding : "same", "valid", int or sequence, optional
        Zeros around the images: a number, one for each of the two axes, or a pair (before, after) for each.
        "same" adds so many that there is a result for each stride, the odd one after, as in JAX.
    dilation : int or pair of int, optional
        How far it is from one element of a window to the next.
    groups : int, optional
        The number of groups of channels: outputs of a group are made of its inputs alone. As many as there
        are channels makes it depthwise.
    layout : {"NHWC", "NCHW"}, optional
        The order of axes of `x` and of the result.

    Returns
    -------
    ndarray
        Of shape (batch, rows, columns, out), or (batch, out, rows, columns) for NCHW.

    Raises
    ------
    ShapeError
        Shapes or options do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x, w = np.arange(16.0).reshape(1, 4, 4, 1), np.ones((3, 3, 1, 1))
    >>> graphjit.nn.conv2d(x, w)[0, :, :, 0]
    array([[45., 54.],
           [81., 90.]])
    >>> graphjit.nn.conv2d(x, w, padding="same", stride=2).shape
    (1, 2, 2, 1)
    """
    return _convolved("conv2d", x, w, b, _Options(stride, padding, dilation, groups), layout)


def conv_transpose2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Numbers = 1,
    padding: Padding = 0,
    output_padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    layout: Literal["NHWC", "NCHW"] = "NHWC",
) -> Any:
    """The transpose of `conv2d`: what its derivative does to a cotangent. It makes images larger.

    Parameters
    ----------
    x : ndarray
        Images of shape (batch, height, width, channels), or (batch, channels, height, width) for NCHW.
    w : ndarray
        Weights of the convolution that is transposed: of shape (kh, kw, out / groups, in), or for NCHW
        (in, out / groups, kh, kw) as in PyTorch.
    b : ndarray, optional
        Shifts of shape (out,).
    stride : int or pair of int, optional
        How far it is from the window of one element of `x` to that of the next.
    padding : "same", "valid", int or sequence, optional
        What is cut off around the result, in the forms of `conv2d`. "same" makes a result of `stride` times
        the size of `x`.
    output_padding : int or pair of int, optional
        Rows and columns more at the end, which the convolution would not have reached. Not with "same".
    dilation : int or pair of int, optional
        How far it is from one element of a window to the next.
    groups : int, optional
        The number of groups of channels.
    layout : {"NHWC", "NCHW"}, optional
        The order of axes of `x` and of the result.

    Returns
    -------
    ndarray
        With ``(size - 1) * stride + dilation * (k - 1) + 1 + output_padding`` rows and columns, without what
        `padding` cuts off.

    Raises
    ------
    ShapeError
        Shapes or options do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> x, w = np.array([[1.0, 2.0]]).reshape(1, 1, 2, 1), np.ones((1, 3, 1, 1))
    >>> graphjit.nn.conv_transpose2d(x, w, stride=(1, 2)).ravel()
    array([1., 1., 3., 2., 2.])
    """
    name = "conv_transpose2d"
    x, w, moved = _arranged(name, x, w, groups, layout, transposed=True)
    sizes, taps, split = x.shape[1:-1], w.shape[:2], w.shape[-1] // groups
    steps, spreads = (
        each_axis(name, what, value, 2) for what, value in (("stride", stride), ("dilation", dilation))
    )
    further = each_axis(name, "output_padding", output_padding, 2, least=0)
    spans = _spans(taps, spreads)
    if padding == "same":
        if any(further):
            raise complain(name, 'with padding="same" the size of the result is known: output_padding is 0')
        outs = tuple(size * step for size, step in zip(sizes, steps, strict=True))
        cut = pairs(name, padding, outs, spans, steps)
    else:
        cut = pairs(name, padding, sizes, spans, steps)
        full = ((n - 1) * s + span + f for n, s, span, f in zip(sizes, steps, spans, further, strict=True))
        outs = tuple(n - before - after for n, (before, after) in zip(full, cut, strict=True))
        if min(outs) < 1:
            raise complain(name, f"padding cuts off all there is: the result would have the size {outs}")
    # (taps..., out / groups, in) -> (taps..., in / groups, out)
    w = np.reshape(w, (*taps, w.shape[-2], groups, split))
    w = np.reshape(np.transpose(w, (0, 1, 4, 3, 2)), (*taps, split, -1))
    by_axis = [
        _phases(*each) for each in zip(taps, steps, spreads, (before for before, _ in cut), strict=True)
    ]
    return _shifted(name, _by_phases(x, w, groups, by_axis, outs), b, moved)


class _Options(NamedTuple):
    """Those of convolutions, as users write them."""

    stride: Numbers
    padding: Padding
    dilation: Numbers
    groups: int


def _convolved(name: str, x: Any, w: Any, b: Any, options: _Options, layout: str) -> Any:
    """A convolution over any number of spatial axes."""
    x, w, moved = _arranged(name, x, w, options.groups, layout)
    spatial = np.ndim(x) - 2
    strides = each_axis(name, "stride", options.stride, spatial)
    dilations = each_axis(name, "dilation", options.dilation, spatial)
    spans = _spans(w.shape[:-2], dilations)
    around = pairs(name, options.padding, x.shape[1:-1], spans, strides)
    parts = windows(name, padded(_grouped(x, options.groups), around), spans, strides, dilations)
    return _shifted(name, _contracted(parts, w, options.groups), b, moved)


def _spans(taps: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """How many elements a window reaches over."""
    return tuple((n - 1) * d + 1 for n, d in zip(taps, dilations, strict=True))


def _arranged(
    name: str, x: Any, w: Any, groups: int, layout: str, transposed: bool = False
) -> tuple[Any, Any, bool]:
    """Images or series, and weights that fit them, with channels last; and whether channels were elsewhere.

    Weights are then of shape (taps..., in / groups, out), or (taps..., out / groups, in).
    """
    spatial = 1 if name == "conv1d" else 2
    x, moved = channels_last(name, x, layout, spatial)
    if np.ndim(w) != spatial + 2:
        raise complain(name, f"w has shape {np.shape(w)}, not {spatial + 2} axes")
    w = np.transpose(w, (*range(2, spatial + 2), 1, 0)) if moved else w
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise complain(name, f"{groups} groups do not divide {channels} channels of x")
    if transposed:
        fits, what = w.shape[-1] == channels, f"(taps..., out / groups, {channels})"
    else:
        fits = w.shape[-2] * groups == channels and w.shape[-1] % groups == 0
        what = f"(taps..., {channels // groups}, out), with out a multiple of {groups}"
    if not fits or min(w.shape[:spatial]) < 1:
        raise complain(
            name, f"w has, channels last, the shape {w.shape}; for {channels} channels of x it is {what}"
        )
    return x, w, moved


def _grouped(x: Any, groups: int) -> Any:
    """Channels as (groups, channels of a group), where there are several."""
    return x if groups == 1 else np.reshape(x, (*x.shape[:-1], groups, -1))


def _contracted(parts: Any, w: Any, groups: int) -> Any:
    """(batch, positions..., out) of windows and weights."""
    spatial = np.ndim(w) - 2
    if groups == 1:
        over = (tuple(range(spatial + 1, 2 * spatial + 2)), (spatial, *range(spatial)))
        return np.tensordot(parts, w, axes=over)
    w = np.reshape(w, (*w.shape[:-1], groups, -1))
    positions, taps = "hw"[:spatial], "kl"[:spatial]
    out = np.einsum(f"n{positions}gc{taps},{taps}cgo->n{positions}go", parts, w)
    return np.reshape(out, (*out.shape[:-2], -1))


def _shifted(name: str, out: Any, b: Any, moved: bool) -> Any:
    """The shifts of channels, and the axes as they were."""
    if b is not None:
        if np.shape(b) != out.shape[-1:]:
            raise complain(name, f"b has shape {np.shape(b)}, for {out.shape[-1]} channels of the result")
        out = out + b
    return channels_back(out, moved)


def _phases(taps: int, stride: int, dilation: int, cut: int) -> list[Phase]:
    """Those of a fold whose first ``cut`` elements are left out: it begins with another phase, or later in
    the same one.
    """
    whole = phases(taps, stride, dilation)
    turned = (divmod(start + cut, stride) for start in range(stride))
    return [whole[start]._replace(offset=whole[start].offset + later) for later, start in turned]


def _by_phases(x: Any, w: Any, groups: int, by_axis: list[list[Phase]], outs: tuple[int, ...]) -> Any:
    """One convolution for each pair of phases, side by side."""
    rows, columns = by_axis
    lengths = tuple(-(-out // len(each)) for out, each in zip(outs, by_axis, strict=True))
    blocks = np.stack(
        [
            np.stack([_one_phase(x, w, groups, (row, column), lengths) for column in columns], axis=3)
            for row in rows
        ],
        axis=2,
    )  # (batch, m, row, n, column, out)
    batch, m, down, n, right, channels = blocks.shape
    return np.reshape(blocks, (batch, m * down, n * right, channels))[:, : outs[0], : outs[1]]


def _one_phase(x: Any, w: Any, groups: int, both: tuple[Phase, Phase], lengths: tuple[int, ...]) -> Any:
    """The results of a phase, ``lengths`` of them along the two axes: a convolution with some of the taps."""
    if not all(phase.number for phase in both):
        return np.zeros((x.shape[0], *lengths, w.shape[-1]), np.result_type(x, w))
    spreads = [phase.spread for phase in both]
    spans = _spans([phase.number for phase in both], spreads)
    added, needed = [], []
    for phase, size, span, length in zip(both, x.shape[1:3], spans, lengths, strict=True):
        before = span - 1 - phase.offset  # the first window begins so far before x; negative: behind
        count = length - 1 + span
        added.append((max(before, 0), max(count - before - size, 0)))
        needed.append(slice(max(-before, 0), max(-before, 0) + count))
    x = padded(x, tuple(added))[:, needed[0], needed[1]]
    row, column = (slice(phase.first, None, phase.stride) for phase in both)
    part = np.flip(w[row, column], axis=(0, 1))
    parts = windows("conv_transpose2d", _grouped(x, groups), spans, (1, 1), spreads)
    return _contracted(parts, part, groups)
