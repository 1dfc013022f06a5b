"""Large grids of cases: a part of each runs by default, the rest with the slow tests.

A part holds the combinations whose numbers add up to the same remainder. So each choice of one kind still
meets each of another, where a third kind has as many choices as there are parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest


def parts(count: int) -> list[Any]:
    """Parameters of a test that takes one part at a time: their numbers, of which all but 0 are slow."""
    return [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, count))]


def part(number: int, count: int, *choices: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The combinations that belong to a part."""
    for chosen in itertools.product(*map(enumerate, choices)):
        if sum(i for i, _ in chosen) % count == number:
            yield tuple(value for _, value in chosen)
