"""The table of a run on the terminal: one line a workload and dtype, then what was skipped or failed.

Invariant: a column that would be empty is left out, so that a narrow terminal suffices for a short run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.limits import Limits
from benchmarks.reporting.report import duration
from benchmarks.reporting.targets import NATIVE, SINGLE_LIMIT, losers
from benchmarks.results import OURS, Measurement, Record

Column = tuple[str, Callable[[Measurement], str]]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}x"


def _seconds(value: float | None) -> str:
    return "" if value is None else duration(value)


def amount(count: float, unit: str) -> str:
    """Three digits with a decimal prefix: 15.2 GB/s, 88.0 kB."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {prefix}{unit}"
    return f"{count:.3g} {unit}"


def _rate(count: float, row: Measurement, unit: str) -> str:
    median = row.median()
    return amount(count / median, unit) if count and median else ""


def _best(row: Measurement) -> str:
    best = row.best()
    return "" if best is None else f"{_seconds(row.median(best))} {best}"


def _memory(row: Measurement) -> str:
    peak = row.peak()
    return "" if peak is None else amount(peak, "B")


def columns(limits: Limits) -> Sequence[Column]:
    """Titles with the text of each row's cell."""

    def fraction(row: Measurement) -> str:
        found = row.fraction(limits)
        return "" if found is None else f"{found:.1%}"

    return (
        ("workload", lambda row: row.name),
        ("graphjit", lambda row: _seconds(row.median())),
        ("spread", lambda row: f"{row.spread():.0%}" if row.median() else ""),
        ("best peer", _best),
        ("ratio", lambda row: _ratio(row.ratio())),
        ("to numpy", lambda row: _ratio(row.ratio("numpy"))),
        ("to native", lambda row: _ratio(row.ratio(NATIVE))),
        ("to numba", lambda row: _ratio(row.ratio("numba"))),
        ("bandwidth", lambda row: _rate(row.moved_bytes, row, "B/s")),
        ("arithmetic", lambda row: _rate(row.flops, row, "F/s")),
        ("of limit", fraction),
        ("first call", lambda row: _seconds(row.first_call())),
        ("to jax", lambda row: _ratio(row.first_ratio("jax"))),
        ("cold", lambda row: _seconds(row.cold_first_call)),
        ("peak", _memory),
        ("to lowest", lambda row: _ratio(row.memory_ratio())),
    )


def print_rows(record: Record, console: Console) -> None:
    """The table, the limits it refers to, and everything that was refused."""
    kept = [
        (title, cells)
        for title, cell in columns(record.limits)
        if any(cells := [cell(row) for row in record.rows])
    ]
    table = Table(
        title="graphjit bench: medians, and ratios of graphjit's time to others'", title_justify="left"
    )
    for title, _ in kept:
        table.add_column(
            title,
            justify="left" if title in ("workload", "best peer") else "right",
            no_wrap=title == "workload",
        )
    for line in zip(*(cells for _, cells in kept), strict=True):
        table.add_row(*line)
    console.print(table)
    console.print(limits_line(record.limits), soft_wrap=True)
    for row in record.rows:
        for peer, why in row.refused.items():
            style = "bold red" if peer == OURS else "default"
            console.print(f"[{style}]{row.name}: {peer}: [/]", soft_wrap=True, end="")
            console.print(why, soft_wrap=True, markup=False)


def print_losers(record: Record, console: Console) -> None:
    """Every row that a peer wins by more than noise is allowed."""
    for row in losers(record):
        console.print(
            f"above {SINGLE_LIMIT:g}x: {row.name}: {_ratio(row.ratio())} {row.best()}", soft_wrap=True
        )


def limits_line(limits: Limits) -> str:
    """The machine's limits in words."""
    parts = [
        f"triad on {threads} thread(s) {amount(found, 'B/s')}" for threads, found in limits.bandwidth.items()
    ]
    for dtype, by_threads in limits.arithmetic.items():
        parts += [f"{dtype} FMA on {threads} {amount(found, 'F/s')}" for threads, found in by_threads.items()]
    return f"limits of this machine: {', '.join(parts)}"
