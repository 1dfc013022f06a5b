"""Windows over the spatial axes of images and series: what convolutions and pooling are written with.

Input: arrays in one of the layouts, and strides, paddings and dilations as users write them. Output: arrays
with channels last, and views of their windows. Nothing is copied but what padding adds.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from graphjit.nn.checks import complain

Numbers = int | Sequence[int]
Padding = Literal["same", "valid"] | int | Sequence[int | Sequence[int]]
Pairs = tuple[tuple[int, int], ...]

LAYOUTS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW")}
"""By the number of spatial axes: channels last, channels after the batch."""


def channels_last(name: str, x: Any, layout: str, spatial: int | None = None) -> tuple[Any, bool]:
    """An array with its channels at the end, and whether they have to be moved back."""
    known = [each for n, both in LAYOUTS.items() if spatial in (None, n) for each in both]
    if layout not in known:
        raise complain(name, f"layout is {' or '.join(known)}, not {layout!r}")
    if np.ndim(x) != len(layout):
        raise complain(name, f"x has shape {np.shape(x)}, which is not of layout {layout}")
    moved = layout.index("C") == 1
    return (np.moveaxis(x, 1, -1) if moved else x), moved


def channels_back(x: Any, moved: bool) -> Any:
    """The inverse of `channels_last`."""
    return np.moveaxis(x, -1, 1) if moved else x


def each_axis(name: str, what: str, value: Numbers, axes: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each spatial axis."""
    try:
        given = (
            tuple(map(operator.index, value))
            if isinstance(value, Sequence)
            else (operator.index(value),) * axes
        )
    except TypeError:
        given = ()
    if len(given) != axes or min(given) < least:
        kind = "an integer" if axes == 1 else f"an integer or {axes} of them"
        raise complain(name, f"{what} is {kind}, of at least {least}, not {value!r}")
    return given


def pairs(
    name: str, padding: Padding, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """What is added before and after each spatial axis.

    "same" is that of TensorFlow and JAX: a result for each stride, the odd element after.
    """
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if padding == "same":
        missing = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, span, stride in zip(sizes, spans, strides, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in missing)
    each: list[Any] = list(padding) if isinstance(padding, Sequence) else [padding] * len(sizes)
    if len(sizes) == 1 and len(each) == 2:
        each = [each]  # the pair of the only axis
    try:
        both = [
            tuple(map(operator.index, one)) if isinstance(one, Sequence) else (operator.index(one),) * 2
            for one in each
        ]
    except TypeError:
        both = []
    if len(both) != len(sizes) or any(len(pair) != 2 or min(pair) < 0 for pair in both):
        raise complain(
            name,
            f'padding is "same", "valid", an integer, or an integer or a pair for each axis, not {padding!r}',
        )
    return tuple((before, after) for before, after in both)


def padded(x: Any, added: Pairs, value: float = 0) -> Any:
    """More elements before and after the spatial axes."""
    if not any(map(any, added)):
        return x
    around = ((0, 0), *added, *((0, 0),) * (np.ndim(x) - len(added) - 1))
    return np.pad(x, around, constant_values=value)


def windows(
    name: str, x: Any, spans: Sequence[int], strides: Sequence[int], dilations: Sequence[int] = ()
) -> Any:
    """(batch, positions..., rest..., taps...): every stride-th window over the spatial axes, and of each of
    them every dilation-th element; all of them by default.
    """
    axes = tuple(range(1, len(spans) + 1))
    if any(span > x.shape[axis] for span, axis in zip(spans, axes, strict=True)):
        sizes = tuple(x.shape[axis] for axis in axes)
        raise complain(name, f"a window spans {tuple(spans)}, more than x with its padding, {sizes}")
    steps = [slice(None, None, step) for step in strides]
    spreads = [slice(None, None, spread) for spread in dilations]
    rest = [slice(None)] * (np.ndim(x) - len(spans) - 1)
    return sliding_window_view(x, tuple(spans), axis=axes)[(slice(None), *steps, *rest, *spreads)]
