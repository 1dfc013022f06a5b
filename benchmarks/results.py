"""What a run of the suite leaves behind: one `Measurement` a workload and dtype, and the `Record` of the run.

Invariant: everything that is reported (ratios, fractions, targets, comparisons, plots) is computed from
these, so a record read back from its JSON file says the same as the run that wrote it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.limits import Limits
from benchmarks.peers import RIVALS
from benchmarks.timing import Samples

OURS = "graphjit"
CLEARLY = 1.5
MEMORY_NOISE = 4 << 20


@dataclass
class Measurement:
    """One workload at one dtype.

    `moved_bytes` and `flops` are the least that the result takes. `samples` and `first_calls` hold seconds by
    peer, `cold_first_call` those of graphjit where its library is not on disk yet, `memory` the bytes of
    `benchmarks.memory` by peer. `refused` says why a peer was not timed, `absent` for which peers the
    workload is not written. `cores` is how many cores graphjit kept busy, `arena` the bytes of temporary
    storage that its program plans for, None where what was timed is not one program.
    """

    workload: str
    family: str
    size: float | None
    transform: str
    dtype: str
    moved_bytes: float = 0.0
    flops: float = 0.0
    cores: float = 0.0
    arena: int | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    first_calls: dict[str, list[float]] = field(default_factory=dict)
    cold_first_call: float | None = None
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """With the dtype where it is not NumPy's default."""
        return self.workload if self.dtype == "float64" else f"{self.workload} {self.dtype}"

    def median(self, peer: str = OURS) -> float | None:
        """Seconds a call; None where the peer was not timed."""
        return Samples(self.samples[peer]).median if self.samples.get(peer) else None

    def spread(self, peer: str = OURS) -> float:
        """Distance between the quartiles, relative to the median."""
        return Samples(self.samples[peer]).spread if self.samples.get(peer) else 0.0

    def first_call(self, peer: str = OURS) -> float | None:
        """Seconds; None where it was not measured."""
        return statistics.median(self.first_calls[peer]) if self.first_calls.get(peer) else None

    def best(self, peers: Iterable[str] = RIVALS) -> str | None:
        """The fastest of `peers`; None where none of them was timed."""
        timed = [peer for peer in peers if self.samples.get(peer)]
        return min(timed, key=lambda peer: Samples(self.samples[peer]).median, default=None)

    def ratio(self, *peers: str) -> float | None:
        """Our time over that of the fastest of `peers` (default: the rivals)."""
        best, ours = self.best(peers or RIVALS), self.median()
        theirs = None if best is None else self.median(best)
        return None if ours is None or theirs is None else ours / theirs

    def first_ratio(self, peer: str) -> float | None:
        """Our first call over the peer's."""
        ours, theirs = self.first_call(), self.first_call(peer)
        return None if ours is None or theirs is None else ours / theirs

    def peak(self, peer: str = OURS) -> int | None:
        """Bytes that the workload adds to the idle process at most; None where they were not measured."""
        found = self.memory.get(peer)
        return None if found is None else found["call"] + found["kept"]

    def memory_ratio(self) -> float | None:
        """Our peak over the lowest of the rivals', both raised by what a compiled function's code and an
        allocator's rounding come to, so that small workloads are not judged by those.
        """
        ours = self.peak()
        theirs = [peak for peer in RIVALS if (peak := self.peak(peer)) is not None]
        return None if ours is None or not theirs else (ours + MEMORY_NOISE) / (min(theirs) + MEMORY_NOISE)

    def fraction(self, limits: Limits) -> float | None:
        """The least time the machine needs (all of its cores) over ours; above one where data stay in the
        caches.
        """
        ours = self.median()
        if ours is None or not (self.moved_bytes or self.flops):
            return None
        return limits.seconds(self.moved_bytes, self.flops, self.dtype) / ours

    def traffic_bound(self, limits: Limits, cache_bytes: float) -> bool:
        """Whether memory is the limit: the data do not fit the caches, and their transfer takes clearly
        longer than the arithmetic, of which `flops` is only the least.
        """
        transfer, arithmetic = (
            self.moved_bytes / limits.best_bandwidth(),
            self.flops / limits.best_arithmetic(self.dtype),
        )
        return self.moved_bytes >= CLEARLY * cache_bytes and transfer >= CLEARLY * arithmetic


@dataclass
class Record:
    """One run: the machine (`report.machine`, with `last_cache_bytes`), its limits, what was skipped, the
    rows.
    """

    machine: dict[str, Any]
    limits: Limits
    options: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)
    rows: list[Measurement] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write JSON; an interrupted run never leaves half a file."""
        beside = path.with_name(path.name + ".new")
        beside.write_text(json.dumps(asdict(self), indent=1) + "\n")
        beside.replace(path)


def load(path: Path) -> Record:
    """Read what `Record.save` wrote. Raises ValueError where the file is something else."""
    try:
        data = json.loads(path.read_text())
        limits = Limits(
            _by_threads(data["limits"]["bandwidth"]),
            {dtype: _by_threads(found) for dtype, found in data["limits"]["arithmetic"].items()},
        )
        rows = [Measurement(**row) for row in data["rows"]]
        return Record(data["machine"], limits, data["options"], data["missing"], rows)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no record of a benchmark run ({type(error).__name__}: {error})"
        ) from None


def _by_threads(found: dict[str, float]) -> dict[int, float]:
    """JSON's keys are strings."""
    return {int(threads): value for threads, value in found.items()}


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None without any."""
    known = [value for value in values if value is not None and value > 0.0]
    return math.exp(statistics.fmean(map(math.log, known))) if known else None
