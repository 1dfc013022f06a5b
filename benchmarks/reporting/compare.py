"""Two runs beside each other: what became slower or faster, and by how much more than the noise.

Input: two `Record`s. Output: one line a row that both have. Invariant: the other libraries' change is shown
beside ours, since it is what the machine did; two runs on different machines are compared all the same, with
a warning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.reporting.report import duration
from benchmarks.results import OURS, Measurement, Record, geometric_mean


@dataclass(frozen=True)
class Change:
    """`ratio` is our new median over the old, `noise` the relative spread of both, `others` the same ratio of
    all other peers, geometric mean; None without any.
    """

    name: str
    old: float
    new: float
    noise: float
    others: float | None

    @property
    def ratio(self) -> float:
        """Above one: slower than before."""
        return self.new / self.old

    @property
    def verdict(self) -> str:
        """`slower` or `faster` where the change exceeds the noise, else nothing."""
        if abs(math.log(self.ratio)) <= math.log1p(self.noise):
            return ""
        return "slower" if self.ratio > 1.0 else "faster"


def changes(old: Record, new: Record) -> list[Change]:
    """In the order of the new run."""
    before = {(row.workload, row.dtype): row for row in old.rows}
    found = []
    for row in new.rows:
        earlier = before.get((row.workload, row.dtype))
        if earlier is None:
            continue
        then, now = earlier.median(), row.median()
        if then is None or now is None:
            continue
        others = geometric_mean(_ratio(earlier, row, peer) for peer in row.samples if peer != OURS)
        found.append(Change(row.name, then, now, math.hypot(earlier.spread(), row.spread()), others))
    return found


def _ratio(old: Measurement, new: Measurement, peer: str) -> float | None:
    then, now = old.median(peer), new.median(peer)
    return None if then is None or now is None else now / then


def print_changes(old: Record, new: Record, console: Console) -> None:
    """The table, and the geometric mean of all ratios."""
    found = changes(old, new)
    table = Table(title="graphjit's medians, new over old", title_justify="left")
    for title in ("workload", "old", "new", "ratio", "noise", "others' ratio", ""):
        table.add_column(title, justify="left" if title in ("workload", "") else "right")
    colours = {"slower": "red", "faster": "green"}
    for change in found:
        verdict = f"[{colours[change.verdict]}]{change.verdict}[/]" if change.verdict else ""
        others = "" if change.others is None else f"{change.others:.3g}x"
        cells = (
            change.name,
            duration(change.old),
            duration(change.new),
            f"{change.ratio:.3g}x",
            f"{change.noise:.0%}",
        )
        table.add_row(*cells, others, verdict)
    console.print(table)
    for what in ("processor", "cores"):
        if old.machine.get(what) != new.machine.get(what):
            console.print(
                f"[bold red]the runs are of different machines: {old.machine.get(what)}, {new.machine.get(what)}[/]"
            )
    mean = geometric_mean(change.ratio for change in found)
    console.print(f"{len(found)} rows in both" + ("" if mean is None else f", geometric mean {mean:.3g}x"))
