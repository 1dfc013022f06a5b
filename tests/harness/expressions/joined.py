"""Random arguments of ops that join arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.ir.node import Node

Found = tuple[list[Node], dict[str, Any]] | None


def random_segments(
    rng: np.random.Generator, lengths: Sequence[int]
) -> tuple[tuple[int, int, int, int], ...]:
    """One to three segments of arrays with so many elements along the axis."""
    segments = []
    for _ in range(rng.integers(1, 4)):
        which = int(rng.integers(len(lengths)))
        start, step = int(rng.integers(lengths[which])), int(rng.choice((-2, -1, 1, 3)))
        most = (start if step < 0 else lengths[which] - 1 - start) // abs(step) + 1
        segments.append((which, start, step, int(rng.integers(1, most + 1))))
    return tuple(segments)


def random_concatenate(maker: Any) -> Found:
    """Arguments and attributes of a concatenation, of nodes that a maker of graphs has; None: it has none."""
    first = maker.recent(lambda node: bool(node.shape))
    if first is None:
        return None
    axis = int(maker.rng.integers(len(first.shape)))

    def fits(node: Node) -> bool:
        if node.dtype != first.dtype or len(node.shape) != len(first.shape):
            return False
        return all(i == axis or n == m for i, (n, m) in enumerate(zip(node.shape, first.shape, strict=True)))

    args = [first]
    for _ in range(maker.rng.integers(1, 4)):
        other = maker.recent(fits)
        if other is not None:
            args.append(other)
    return args, {"axis": axis}


def random_splice(maker: Any) -> Found:
    """The same for a splice."""
    joined = random_concatenate(maker)
    if joined is None:
        return None
    axis = joined[1]["axis"]
    args = [arg for arg in joined[0] if arg.shape[axis]]
    if not args:
        return None
    return args, {"axis": axis, "segments": random_segments(maker.rng, [arg.shape[axis] for arg in args])}
