"""Rows of a benchmark table, the table on the terminal, and the same as JSON with raw samples.

Invariant: a row's `met` is computed where the figures are, and None where there is nothing to meet.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers import version
from graphjit.machine import cores

DISTRIBUTIONS = (
    "graphjit",
    "numpy",
    "scipy",
    "llvmlite",
    "numba",
    "jax",
    "jaxlib",
    "torch",
    "autograd",
    "pytensor",
)


@dataclass
class Row:
    """`figure` is ours, `beside` what it is held against, `ratio` and `target` as they are to be read."""

    what: str
    figure: str
    beside: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    noise: str = ""
    raw: dict[str, Any] = field(default_factory=dict)


def duration(seconds: float) -> str:
    """Three digits and a unit: 54.0 ns, 1.30 us, 22.1 ms, 3.20 s."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000.0:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


BUSY_LIMIT = 0.1
"""Share of the processor that others may use before a warning is printed."""


def busy_share(seconds: float = 1.0) -> float | None:
    """Share of all processor time used by others while this process sleeps; None where /proc/stat is
    missing.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return None

    def ticks() -> tuple[int, int]:
        fields = [int(part) for part in stat.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # all, and idle with waiting for devices

    total, idle = ticks()
    time.sleep(seconds)
    total_after, idle_after = ticks()
    return 1.0 - (idle_after - idle) / max(1, total_after - total)


def machine() -> dict[str, Any]:
    """Date, processor, usable cores, what others use of it, and versions: what a figure is worth nothing
    without.
    """
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": name,
        "cores": cores(),
        "busy": busy_share(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in DISTRIBUTIONS if (found := version(name))},
    }


def print_table(
    title: str, rows: list[Row], missing: dict[str, str], facts: dict[str, Any], console: Console
) -> None:
    table = Table(title=title, title_justify="left")
    noisy = any(row.noise for row in rows)
    for column in ("what", "figure", "beside", "ratio", "target", "", *(("spread",) if noisy else ())):
        table.add_column(column, justify="left" if column in ("what", "beside") else "right", overflow="fold")
    verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for row in rows:
        table.add_row(
            row.what,
            row.figure,
            row.beside,
            row.ratio,
            row.target,
            verdict[row.met],
            *((row.noise,) if noisy else ()),
        )
    console.print(table)
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    console.print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}; {versions}",
        soft_wrap=True,
    )
    if facts["busy"] is not None and facts["busy"] > BUSY_LIMIT:
        console.print(
            f"[bold red]other processes used {facts['busy']:.0%} of this machine when the run began: no figure of a "
            "library with threads, and no ratio to one, can be trusted[/]",
            soft_wrap=True,
        )
    for name, reason in missing.items():
        console.print(f"skipped: {name} ({reason})", soft_wrap=True)
    judged = [row for row in rows if row.met is not None]
    console.print(f"{sum(bool(row.met) for row in judged)} of {len(judged)} targets met")


def write_json(path: Path, rows: list[Row], missing: dict[str, str], facts: dict[str, Any]) -> None:
    record = {"machine": facts, "missing": missing, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(record, indent=1) + "\n")
