"""Races between calls: interleaved, waited for, reported as medians with their spread.

Input: `Contestant`s. Output: seconds a call, one sample a round, for each. Invariant: every contestant runs
in every round, in rotating order, after a pause in which the others' threads go to sleep and after untimed
calls of its own, so that neither a slow phase of the machine nor a neighbour's spinning thread falls on one
alone.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

BATCH_SECONDS = 200e-6
LOOK_SECONDS = 0.005
"""Time between two looks at what the process's threads use up."""
QUIET = 0.05
"""Cores in use below which they are taken to sleep."""
PAUSE_SECONDS = 0.3
"""Longest wait for that: Intel's OpenMP, under PyTorch's MKL, spins for 0.2 s after a call."""
AWAKE_SECONDS = 0.008
"""Untimed calls before a sample: an idle core of a virtual machine takes milliseconds to come back."""
MIN_ROUNDS, MAX_ROUNDS = 7, 15
MIN_SLOW_ROUNDS = 3
SLOW_SECONDS = 0.05

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


@dataclass
class _Plan:
    """How one contestant runs: `count` timed calls after `untimed` ones, in every `stride`-th round."""

    batch: Callable[[Iterator[None], Callable[[], float]], float]
    count: int
    untimed: int
    seconds: float
    stride: int = 1


def _plan(contestant: Contestant) -> _Plan:
    batch = contestant.batch()
    once = batch(itertools.repeat(None, 1), time.perf_counter)
    if once > SLOW_SECONDS:
        # Such a call fills the caches itself: an untimed one before it would only double the cost.
        return _Plan(batch, 1, 0, once)
    batch(itertools.repeat(None, 2), time.perf_counter)
    once = min(batch(itertools.repeat(None, 1), time.perf_counter) for _ in range(3))
    # Above the batch length a call stands alone, so that no asynchronous library overlaps two of them.
    count = max(1, int(BATCH_SECONDS / max(once, 1e-9)))
    untimed = max(1, count // 4, int(AWAKE_SECONDS / max(once, 1e-9)))
    return _Plan(batch, count, untimed, once * (count + untimed))


def settle(at_most: float = PAUSE_SECONDS) -> None:
    """Wait until the threads that libraries left spinning sleep, or for that many seconds."""
    deadline = time.perf_counter() + at_most
    while time.perf_counter() < deadline:
        used, begin = time.process_time(), time.perf_counter()
        time.sleep(LOOK_SECONDS)
        if time.process_time() - used < QUIET * (time.perf_counter() - begin):
            return


def race(contestants: Sequence[Contestant], budget_seconds: float) -> dict[str, Samples]:
    """Time all `contestants` in rounds until about `budget_seconds` are used, at least MIN_ROUNDS times.

    One that is so slow that it would use up the budget alone runs in every second or third round only, at
    least in MIN_SLOW_ROUNDS of them: it stays interleaved, and the others are not cut short. Pauses do not
    count, but a small budget, which is for a look and not for a verdict, shortens them.
    """
    pause = min(PAUSE_SECONDS, budget_seconds / MIN_ROUNDS)
    plans = {contestant.name: _plan(contestant) for contestant in contestants}
    for plan in plans.values():
        plan.stride = max(
            1, min(MIN_ROUNDS // MIN_SLOW_ROUNDS, math.ceil(plan.seconds * MIN_ROUNDS / budget_seconds))
        )
    round_seconds = sum(plan.seconds / plan.stride for plan in plans.values())
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget_seconds / round_seconds)))
    samples = {name: Samples() for name in plans}
    order = list(plans)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            shift = turn % len(order)
            for name in order[shift:] + order[:shift]:
                plan = plans[name]
                if turn % plan.stride:
                    continue
                settle(pause)
                if plan.untimed:
                    plan.batch(itertools.repeat(None, plan.untimed), time.perf_counter)
                seconds = plan.batch(itertools.repeat(None, plan.count), time.perf_counter)
                samples[name].seconds.append(seconds / plan.count)
    finally:
        gc.enable()
    return samples


def cores_used(contestant: Contestant, seconds: float = 0.02) -> float:
    """Processor time over wall time of calls in a row: how many cores the contestant keeps busy."""
    batch = contestant.batch()
    once = batch(itertools.repeat(None, 2), time.perf_counter) / 2
    turns = max(3, int(seconds / max(once, 1e-9)))
    settle()
    before = time.process_time()
    elapsed = batch(itertools.repeat(None, turns), time.perf_counter)
    return (time.process_time() - before) / elapsed
