"""Stretches of a row of numbers that repeat with a period.

Candidates for the period are distances at which the same number, or the same stretch of numbers, comes again.
Short stretches find the period of a loop whose operations differ from each other, long ones that of a loop
whose body repeats itself in part.

Input: labels. Output: candidates, and for each the stretches in which each label equals the one a period
before. Invariant: time is that of a few sorts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphjit.passes.reroll.recording import STEPS

CANDIDATES = 6
"""Most frequent distances that are tried for stretches of each length."""
WIDER = 8
"""How many times as long the next longer stretches are."""
PRIME = np.uint64(0x9E3779B97F4A7C15)


def periods(labels: np.ndarray) -> list[int]:
    """Candidates for periods, the shortest first."""
    found: set[int] = set()
    keys, width = labels.astype(np.uint64), 1
    while width * STEPS <= len(labels):
        found.update(_distances(keys))
        if _is_covered(labels, found):
            break
        for _ in range(WIDER - 1):
            keys = keys[:-width] * PRIME + keys[width:]
        width *= WIDER
    return sorted(found)


def _distances(keys: np.ndarray) -> list[int]:
    """The most frequent distances between equal keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    gaps = (order[1:] - order[:-1])[ordered[1:] == ordered[:-1]]
    counts = np.bincount(gaps[gaps * (STEPS - 1) <= len(keys)])
    best = np.argsort(-counts, kind="stable")[:CANDIDATES]
    return [int(p) for p in best if counts[p] >= STEPS - 1]


def _is_covered(labels: np.ndarray, candidates: set[int]) -> bool:
    """Whether one of the candidates is a period of almost everything."""
    return any(np.mean(labels[p:] == labels[:-p]) > 0.9 for p in candidates)


def stretches(labels: np.ndarray, period: int, free: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and stop of stretches that have this period for at least `STEPS` repetitions, where all is
    ``free``.
    """
    equal = (labels[period:] == labels[:-period]) & free[period:] & free[:-period]
    edges = np.flatnonzero(np.diff(equal.astype(np.int8), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2).tolist():
        if stop - start >= (STEPS - 1) * period:
            yield start, stop + period
