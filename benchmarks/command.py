"""What `graphjit bench` and `python -m benchmarks` do once their options are read.

Input: `Options`. Output: tables on standard output, files where asked for, the exit status: 1 where graphjit
failed on a workload, else 0.
Invariant: a number of threads takes effect in a process of its own, since libraries read it when they are
loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import results, suite
from benchmarks.peers import PEERS
from benchmarks.reporting import compare, page, plot, summary, targets
from benchmarks.reporting.report import print_table
from benchmarks.suite import OptionError, Options

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def main(options: Options) -> int:
    """Run the suite and report. Raises OptionError for what cannot be done as asked."""
    options.wanted_peers(), options.wanted_rows()
    old = None if options.compare is None else _saved(options.compare, "--compare")
    if options.threads is not None and os.environ.get("GRAPHJIT_NUM_THREADS") != str(options.threads):
        return _with_threads(options)
    console = _console()
    record = suite.run(options, console)
    summary.print_rows(record, console)
    summary.print_losers(record, console)
    print_table("targets", targets.targets(record), record.missing, record.machine, console)
    if old is not None:
        compare.print_changes(old, record, console)
    if options.json is not None:
        record.save(options.json)
    if options.plot is not None:
        try:
            _tell_written(plot.draw(record, options.plot), console)
        except ImportError as error:
            console.print(f"nothing drawn: {error}: pip install matplotlib", soft_wrap=True)
    return 1 if any(results.OURS in row.refused for row in record.rows) else 0


def report(path: Path) -> int:
    """Write the page of results and its picture from a saved run. Raises OptionError where it cannot."""
    record = _saved(path, "--report")
    try:
        _tell_written(page.write(record, DOCS), _console())
    except ImportError as error:
        raise OptionError(f"--report draws a picture: {error}: pip install matplotlib") from None
    return 0


def show(options: Options) -> int:
    """What `--list` prints: the chosen workloads, and which peers there are."""
    table = Table(box=None, pad_edge=False)
    for title in ("workload", "family", "what is timed", "dtypes", "by hand"):
        table.add_column(title, no_wrap=True)
    chosen: dict[str, tuple[str, ...]] = {}
    for workload, dtype in options.wanted_rows():
        first = workload.name not in chosen
        dtypes = (dtype,) if first else (*chosen[workload.name][3].split(", "), dtype)
        hand = ", ".join(name for name, there in (("C", workload.native), ("Numba", workload.numba)) if there)
        chosen[workload.name] = (workload.name, workload.family, workload.asked, ", ".join(dtypes), hand)
    for cells in chosen.values():
        table.add_row(*cells)
    console = _console()
    console.print(table)
    console.print(f"peers: {', '.join(PEERS)}", soft_wrap=True)
    return 0


def _console() -> Console:
    # Into a file or pipe the tables need a width of their own.
    return Console() if sys.stdout.isatty() else Console(width=220)


def _tell_written(paths: Iterable[Path], console: Console) -> None:
    for path in paths:
        console.print(f"written: {path}", soft_wrap=True)


def _saved(path: Path, option: str) -> results.Record:
    """The run in the file that ``option`` names: read before measuring, so that a wrong name does not cost a
    run.
    """
    try:
        return results.load(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"{option}: {error}") from None


def arguments(options: Options) -> Sequence[str]:
    """The command line that says the same as `options`, wherever it runs."""
    given = []
    for name in ("quick", "memory"):
        given += [f"--{name}"] if getattr(options, name) else []
    given += [] if options.first_call else ["--no-first-call"]
    for name in ("filter", "dtype", "threads", "json", "compare", "plot"):
        value = getattr(options, name)
        given += [f"--{name}", str(value.resolve() if isinstance(value, Path) else value)] if value else []
    return [*given, "--peers", ",".join(options.peers)] if options.peers else given


def _with_threads(options: Options) -> int:
    threads = options.threads or 1
    affinity = getattr(os, "sched_setaffinity", None)
    cores = sorted(os.sched_getaffinity(0))[:threads] if affinity else []

    def bind() -> None:
        # Some libraries go by the cores that they may use, whatever they are told.
        if affinity:
            affinity(0, cores)

    command = [sys.executable, "-m", "benchmarks", *arguments(options)]
    environment = suite.environment(threads)
    return subprocess.run(
        command, cwd=ROOT, env=environment, preexec_fn=bind if affinity else None
    ).returncode
