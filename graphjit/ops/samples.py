"""What tests feed each op: intervals and cases that stand in its declaration.

Invariant: the values stay where the op is differentiable; those outside come from ``special``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

FLOATS = ("f64", "f32")
INTS = ("i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64")
BOOLS = ("bool",)
ALL = FLOATS + INTS + BOOLS
EDGES = (0.0, -0.0, float("inf"), float("-inf"), float("nan"))


@dataclass(frozen=True)
class Uniform:
    """Elementwise arguments, each uniform on its own interval, in every shape group."""

    ranges: tuple[tuple[float, float], ...]
    dtypes: tuple[str, ...] = FLOATS


def uniform(*ranges: tuple[float, float], dtypes: tuple[str, ...] = FLOATS) -> Uniform:
    """``uniform((-3, 3), (0.1, 2))``: one interval per argument."""
    return Uniform(ranges, dtypes)


Case = tuple[list[np.ndarray], dict[str, Hashable]]
Draw = Callable[..., np.ndarray]
SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (7,), (3, 5))


@dataclass(frozen=True)
class Cases:
    """Hand-picked shapes and attributes: ``make(rng, draw) -> [(arrays, attrs), ...]``.

    ``draw(*shape)`` gives random values of the dtype under test.
    """

    make: Callable[[np.random.Generator, Draw], list[Case]]
    dtypes: tuple[str, ...] = FLOATS


def elementwise_cases(arity: int) -> Callable[[np.random.Generator, Draw], list[Case]]:
    """``make`` for elementwise ops whose arguments need more care than an interval: random values in every
    shape.
    """

    def make(rng: np.random.Generator, draw: Draw) -> list[Case]:
        return [([draw(*shape) for _ in range(arity)], {}) for shape in SHAPES]

    return make
