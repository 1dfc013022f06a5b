"""Races between calls: interleaved, waited for, reported as medians with their spread.

Input: `Contestant`s. Output: seconds a call, one sample a round, for each. Invariant: every contestant runs in
every round, in rotating order, after a pause in which the others' threads go to sleep and after untimed calls
of its own, so that neither a slow phase of the machine nor a neighbour's spinning thread falls on one alone.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

BATCH_SECONDS = 200e-6
PAUSE_SECONDS = 0.005
MIN_ROUNDS, MAX_ROUNDS = 7, 151

_LOOP = """
def batch(turns, clock):
    begin = clock()
    for _ in turns:
        result = {expression}
    wait(result)
    return clock() - begin
"""


@dataclass(frozen=True)
class Contestant:
    """`expression` is the timed Python expression over `fn` and `a0, a1, ...`; by default the plain call."""

    name: str
    fn: Callable[..., Any] | None
    arguments: tuple[Any, ...]
    wait: Callable[[Any], Any]
    expression: str = ""

    def batch(self) -> Callable[[Iterator[None], Callable[[], float]], float]:
        """A compiled timing loop: a call through `fn(*arguments)` would add the unpacking to small calls."""
        names = [f"a{position}" for position in range(len(self.arguments))]
        scope = dict(zip(names, self.arguments, strict=True)) | {"fn": self.fn, "wait": self.wait}
        exec(_LOOP.format(expression=self.expression or f"fn({', '.join(names)})"), scope)
        return scope["batch"]


@dataclass
class Samples:
    """Seconds a call, one entry a round."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance between the quartiles, relative to the median; 0 for a single sample."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


def race(contestants: Sequence[Contestant], budget_seconds: float) -> dict[str, Samples]:
    """Time all `contestants` in rounds until about `budget_seconds` are used, at least MIN_ROUNDS times."""
    batches = {contestant.name: contestant.batch() for contestant in contestants}
    counts: dict[str, int] = {}
    round_seconds = 0.0
    for name, batch in batches.items():
        batch(itertools.repeat(None, 3), time.perf_counter)
        once = min(batch(itertools.repeat(None, 1), time.perf_counter) for _ in range(3))
        # Above the batch length a call stands alone, so that no asynchronous library overlaps two of them.
        counts[name] = max(1, int(BATCH_SECONDS / max(once, 1e-9)))
        round_seconds += 1.3 * once * counts[name] + PAUSE_SECONDS
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget_seconds / round_seconds)))
    samples = {name: Samples() for name in batches}
    order = list(batches)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            shift = turn % len(order)
            for name in order[shift:] + order[:shift]:
                batch, count = batches[name], counts[name]
                time.sleep(PAUSE_SECONDS)
                batch(itertools.repeat(None, max(1, count // 4)), time.perf_counter)
                samples[name].seconds.append(batch(itertools.repeat(None, count), time.perf_counter) / count)
    finally:
        gc.enable()
    return samples
