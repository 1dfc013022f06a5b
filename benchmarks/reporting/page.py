"""The page `docs/results.md`: what one run of the suite found, as Markdown tables and one picture.

Input: a `Record` and the folder of the documents. Output: `results.md`, `_static/results.svg` in it.
Invariant: everything on the page is computed from the record, so the same record gives the same page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.reporting import plot
from benchmarks.reporting.report import BUSY_LIMIT, duration
from benchmarks.reporting.summary import limits_line
from benchmarks.reporting.targets import SINGLE_LIMIT, targets
from benchmarks.results import OURS, Measurement, Record, geometric_mean

PICTURE = Path("_static") / "results.svg"

CHOICES = ("quick", "filter", "peers", "threads", "dtype", "memory", "first_call")
"""The options that change what is measured."""

INTRODUCTION = f"""\
# Results

`graphjit bench --report RUN.json` wrote this page from one run of the benchmark suite; nothing on it is written
by hand. The file `benchmarks/README.md` of the source tells what is measured, and how.

- A **time** is the median of repeated calls, and its **spread** the distance between the quartiles, relative to
  the median.
- A **ratio** is graphjit's time over that of another library: below 1 graphjit is faster.
- The **best peer** is the fastest library that differentiates by itself (JAX, PyTorch, Autograd, PyTensor).
  `numpy` computes the function without its derivative; `native` is C, and `numba` loops, written by hand.
- A cell is empty where nothing was measured, or the workload is not written for that library.

![Times of the best other library and of hand-written C relative to graphjit]({PICTURE.as_posix()})
"""


def write(record: Record, docs: Path) -> list[Path]:
    """Write page and picture into the folder `docs`. Raises ImportError without matplotlib."""
    picture, page = docs / PICTURE, docs / "results.md"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot.relative(record, picture)
    page.write_text(text(record))
    return [page, picture]


def text(record: Record) -> str:
    """The page."""
    parts = [INTRODUCTION, "## Machine\n"]
    if (record.machine.get("busy") or 0.0) > BUSY_LIMIT:
        parts.append("**Others used this machine during the run: no figure below can be trusted.**\n")
    parts.append(_table(("what", "value"), _machine(record)))
    parts += ["## Geometric means\n", _means(record)]
    judged = [
        (
            row.what,
            row.beside,
            row.ratio,
            row.target,
            "" if row.met is None else "met" if row.met else "missed",
        )
        for row in targets(record)
    ]
    if judged:
        parts += ["## Targets\n", _table(("what", "judged by", "found", "target", ""), judged)]
    for dtype in sorted({row.dtype for row in record.rows}, reverse=True):
        rows = [row for row in record.rows if row.dtype == dtype]
        parts += [f"## Workloads, {dtype}\n", _workloads(record, rows)]
    refusals = list(_refusals(record))
    if refusals:
        parts += ["## Not timed\n", "\n".join(refusals) + "\n"]
    return "\n".join(parts)


def _machine(record: Record) -> Iterator[tuple[str, str]]:
    facts = record.machine
    for what in ("date", "processor", "cores", "system", "python"):
        if what in facts:
            yield what, str(facts[what])
    if facts.get("busy") is not None:
        yield "used by others when the run began", f"{facts['busy']:.0%}"
    yield "limits", limits_line(record.limits).partition(": ")[2]
    yield "versions", ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items())
    chosen = {name: record.options[name] for name in CHOICES if record.options.get(name)}
    yield "options", ", ".join(f"{name} {_words(value)}" for name, value in chosen.items())
    for name, why in record.missing.items():
        yield f"without {name}", why


def _words(value: Any) -> str:
    """An option's value: ``jax numpy`` for a list, ``yes`` for a switch."""
    if value is True:
        return "yes"
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def _means(record: Record) -> str:
    """A line for the best peer, for each peer, and for first calls."""

    def line(what: str, ratios: Iterable[float | None]) -> tuple[str, ...]:
        measured = [ratio for ratio in ratios if ratio is not None]
        slower = sum(ratio > SINGLE_LIMIT for ratio in measured)
        return what, str(len(measured)), _ratio(geometric_mean(measured)), str(slower)

    lines = [line("best peer", (row.ratio() for row in record.rows))]
    for peer in _others(record.rows):
        lines.append(line(peer, (row.ratio(peer) for row in record.rows)))
    lines.append(line("first call, jax", (row.first_ratio("jax") for row in record.rows)))
    head = ("graphjit's time over that of", "rows", "geometric mean", f"rows above {SINGLE_LIMIT:g}")
    return _table(head, [cells for cells in lines if cells[1] != "0"])


def _workloads(record: Record, rows: Sequence[Measurement]) -> str:
    def best(row: Measurement) -> str:
        return row.best() or ""

    def time(row: Measurement) -> str:
        median = row.median()
        return "" if median is None else duration(median)

    def spread(row: Measurement) -> str:
        return f"{row.spread():.0%}" if row.median() else ""

    def of_limit(row: Measurement) -> str:
        fraction = row.fraction(record.limits)
        return "" if fraction is None else f"{fraction:.0%}"

    def first_call(row: Measurement) -> str:
        first = row.first_call()
        return "" if first is None else duration(first)

    def ratio_to(peer: str) -> Callable[[Measurement], str]:
        return lambda row: _ratio(row.ratio(peer))

    columns: list[tuple[str, Callable[[Measurement], str]]] = [
        ("workload", lambda row: row.workload),
        ("what", lambda row: row.transform),
        ("graphjit", time),
        ("spread", spread),
        ("best peer", best),
        *((f"to {peer}", ratio_to(peer)) for peer in _others(rows)),
        ("of limit", of_limit),
        ("first call", first_call),
        ("first call to jax", lambda row: _ratio(row.first_ratio("jax"))),
    ]
    kept = [(title, cells) for title, cell in columns if any(cells := [cell(row) for row in rows])]
    return _table([title for title, _ in kept], zip(*(cells for _, cells in kept), strict=True))


def _refusals(record: Record) -> Iterator[str]:
    for row in record.rows:
        for peer, why in row.refused.items():
            yield f"- {row.name}, {peer}: {_escaped(why)}"


def _others(rows: Sequence[Measurement]) -> list[str]:
    """Peers with a time in one of the rows, in the order of the suite."""
    return [peer for peer in PEERS if peer != OURS and any(row.samples.get(peer) for row in rows)]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    """One line that Markdown takes for text: messages of errors hold anything."""
    for special in "\\|*_<>[]":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
