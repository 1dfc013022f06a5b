"""The whole suite: every workload under every peer, checked, timed, and put on record.

Input: `Options`. Output: a `Record`. Invariant: the machine's limits are measured in the same run; one peer's
failure on one workload ends neither the row nor the run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks import first_call, limits, memory
from benchmarks.contest import contest, reason
from benchmarks.peers import DEFAULT_QUICK, PEERS, RIVALS, Peer, available
from benchmarks.reporting.report import machine
from benchmarks.results import OURS, Measurement, Record
from benchmarks.workload import Workload
from benchmarks.workloads import suite
from graphjit.machine import machine as described

SLOW_COMPILERS = ("torch.compile", "pytensor")
"""Their first calls take seconds to minutes: measured at the smallest size of each family only."""


class OptionError(Exception):
    """Something asked for does not exist."""


@dataclass(frozen=True)
class Options:
    """The options of `graphjit bench`, by the same names; `peers` and `dtype` empty for all."""

    quick: bool = False
    filter: str = ""
    peers: tuple[str, ...] = ()
    threads: int | None = None
    dtype: str = ""
    json: Path | None = None
    compare: Path | None = None
    plot: Path | None = None
    memory: bool = False
    first_call: bool = True

    @property
    def budget(self) -> float:
        """Seconds of timing for each peer on each workload."""
        return 0.06 if self.quick else 0.5

    @property
    def patience(self) -> float:
        """Seconds that a peer may take for its first call."""
        return 60.0 if self.quick else 180.0

    def wanted_peers(self) -> tuple[str, ...]:
        """Names, graphjit first: it is what all others are checked against. Raises OptionError for an unknown
        one.
        """
        for name in self.peers:
            if name not in PEERS:
                raise OptionError(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
        chosen = self.peers or (DEFAULT_QUICK if self.quick else tuple(PEERS))
        return (OURS, *(name for name in chosen if name != OURS))

    def wanted_rows(self) -> list[tuple[Workload, str]]:
        """Workloads with their dtypes. Raises OptionError where the options leave none."""
        chosen = suite("quick" if self.quick else "full")
        if self.filter and not self.quick:
            chosen += suite("unrolled")
        rows = [
            (workload, dtype)
            for workload in chosen
            for dtype in workload.dtypes
            if (self.filter in workload.name or self.filter == workload.family) and self.dtype in ("", dtype)
        ]
        if not rows:
            raise OptionError(
                f"no workload has {self.filter!r} in its name and dtype {self.dtype or 'any'}; --list shows them"
            )
        return rows


def run(options: Options, console: Console) -> Record:
    """Measure everything that `options` ask for; Ctrl-C ends the run with what was measured so far."""
    rows = options.wanted_rows()
    peers, missing = available(options.wanted_peers())
    if OURS not in peers:
        raise OptionError(f"graphjit cannot be imported: {missing[OURS]}")
    # Before anything runs here: what is busy now is others.
    facts = machine() | {"last_cache_bytes": described().caches[-1]}
    cores = options.threads or facts["cores"]
    threads, repetitions = sorted({1, cores}), 5 if options.quick else 20
    found = limits.measure(threads, repetitions)
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    record = Record(facts, found, asked, missing)
    with _progress() as progress:
        task = progress.add_task("", total=len(rows))
        try:
            for workload, dtype in rows:

                def say(what: str, name: str = f"{workload.name} {dtype}") -> None:
                    progress.update(task, description=f"{name}: {what}")

                with tempfile.TemporaryDirectory() as library:
                    record.rows.append(_row(options, workload, dtype, peers, library, say))
                progress.advance(task)
                if options.json is not None:
                    # After every row, so that a run that dies leaves what it had.
                    record.save(options.json)
        except KeyboardInterrupt:
            console.print(f"interrupted after {len(record.rows)} of {len(rows)} rows")
    # Once more, since the first time others may have been at work.
    record.limits.raise_to(limits.measure(threads, repetitions))
    return record


def _row(
    options: Options,
    workload: Workload,
    dtype: str,
    peers: dict[str, Peer],
    library: str,
    say: Callable[[str], None],
) -> Measurement:
    say("timing")
    row = Measurement(workload.name, workload.family, workload.size, workload.asked, dtype)
    outcome = contest(workload, dtype, peers, options.budget * len(peers), patience=options.patience)
    row.samples = {name: samples.seconds for name, samples in outcome.samples.items()}
    row.refused, row.absent = outcome.refused, outcome.absent
    row.cores, row.arena = outcome.cores, outcome.arena
    if workload.transform != "minimize":
        itemsize = 8 if dtype == "float64" else 4
        row.moved_bytes = outcome.moved_bytes if workload.moved is None else workload.moved * itemsize
        row.flops = workload.flops
    # In processes of their own each; a peer that could not be timed here would fail there too.
    timed = [name for name in (OURS, *RIVALS) if name in row.samples]
    if options.first_call and dtype == workload.dtypes[0]:
        say("first calls")
        _first_calls(
            options, workload, dtype, row, [name for name in timed if name in (OURS, "jax")], library
        )
    if options.memory:
        for name in timed:
            if name in SLOW_COMPILERS:  # half a minute each
                continue
            say(f"memory of {name}")
            try:
                row.memory[name] = memory.in_fresh_process(name, workload, dtype, library, options.patience)
            except (RuntimeError, OSError) as error:
                row.refused[f"{name}, memory"] = reason(error)
    return row


def _first_calls(
    options: Options, workload: Workload, dtype: str, row: Measurement, timed: list[str], library: str
) -> None:
    """Fill `row.first_calls`: in turns, since the machine may be slower at one time than at another; ours
    before with the directory `library` empty.
    """
    with contextlib.suppress(RuntimeError, OSError):  # told below
        row.cold_first_call = first_call.in_fresh_process(
            OURS, workload, dtype, library, 2 * options.patience
        )["first"]
    expected = None
    for _ in range(1 if options.quick else 3):
        for name in timed:
            try:
                found = first_call.in_fresh_process(name, workload, dtype, library, 2 * options.patience)
            except (RuntimeError, OSError) as error:
                row.refused[f"{name}, first call"] = reason(error)
                continue
            expected = found if name == OURS else expected
            if expected is None or not first_call.same(expected, found, workload.tolerance(dtype)):
                row.refused[f"{name}, first call"] = "differs from graphjit"
                continue
            row.first_calls.setdefault(name, []).append(found["first"])


def _progress() -> Progress:
    columns = (
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    # On standard error, so that the tables can be piped.
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


THREAD_VARIABLES = ("GRAPHJIT", "OMP", "MKL", "OPENBLAS", "NUMBA")


def environment(threads: int) -> dict[str, str]:
    """The environment in which all peers use that many threads; JAX goes by the affinity mask
    (`command.main`).
    """
    return os.environ | {f"{name}_NUM_THREADS": str(threads) for name in THREAD_VARIABLES}
