"""Random arguments of the ops of sliding windows."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

Found = tuple[list[Any], dict[str, Hashable]] | None


def random_window(maker: Any) -> Found:
    """Windows over one or two axes of something recent."""
    x = maker.recent(lambda node: any(n > 1 for n in node.shape) and node.type.size < 500)
    if x is None:
        return None
    long = [a for a, n in enumerate(x.shape) if n > 1]
    axes = sorted(int(a) for a in maker.rng.permutation(long)[: int(maker.rng.integers(1, 3))])
    sizes, spreads = [], []
    for axis in axes:
        sizes.append(int(maker.rng.integers(1, min(4, x.shape[axis] + 1))))
        most = (x.shape[axis] - 1) // max(1, sizes[-1] - 1)
        spreads.append(int(maker.rng.integers(1, max(1, min(2, most)) + 1)))
    steps = tuple(int(maker.rng.integers(1, 4)) for _ in axes)
    return [x], {"axes": tuple(axes), "sizes": tuple(sizes), "steps": steps, "spreads": tuple(spreads)}


def random_pair(maker: Any) -> Found:
    """Two axes of equal length."""
    x = maker.recent(lambda node: len(set(node.shape)) < len(node.shape))
    if x is None:
        return None
    pairs = [(i, j) for j in range(len(x.shape)) for i in range(j) if x.shape[i] == x.shape[j]]
    return [x], {"pair": pairs[int(maker.rng.integers(len(pairs)))]}


def random_fold(maker: Any) -> Found:
    """Something recent whose last axes are taps of the axis before: one axis, any step."""
    x = maker.recent(lambda node: len(node.shape) > 1 and node.dtype.kind in "fiu" and 0 not in node.shape)
    if x is None:
        return None
    axis = int(maker.rng.integers(0, len(x.shape) - 1))
    step, spread = (int(n) for n in maker.rng.integers(1, 4, 2))
    length = (x.shape[axis] - 1) * step + (x.shape[axis + 1] - 1) * spread + 1
    length += int(maker.rng.integers(0, step))
    return [x], {"axes": (axis,), "lengths": (length,), "steps": (step,), "spreads": (spread,)}


def random_windowed_product(maker: Any) -> Found:
    """The product of windows over one axis with taps, channels and new columns."""
    x = maker.recent(lambda node: len(node.shape) == 2 and node.dtype.kind == "f" and node.shape[0] > 1)
    if x is None:
        return None
    size = int(maker.rng.integers(1, min(4, x.shape[0] + 1)))
    y = maker.matching(x.type.with_shape((size, x.shape[1], int(maker.rng.integers(1, 6)))))
    if y is None:
        return None
    attrs = {"axes": (0,), "sizes": (size,), "steps": (int(maker.rng.integers(1, 3)),), "spreads": (1,)}
    return [x, y], {**attrs, "contract": ((1, 2), (0, 1)), "batch": ((), ())}
