"""Pictures of a run: bars by workload on a logarithmic scale, how each library scales with size, and the best
of the others relative to graphjit.

Input: a `Record`, and where to draw. Output: PNG files, or one SVG file.
Invariant: a peer has the same colour everywhere, and nothing is drawn for what was not measured.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mode
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.reporting.targets import NATIVE
from benchmarks.results import Measurement, Record, geometric_mean

COLUMNS = 4


def draw(record: Record, folder: Path) -> list[Path]:
    """Write all pictures into `folder`, which is made if need be. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for dtype in sorted({row.dtype for row in record.rows}):
        rows = [row for row in record.rows if row.dtype == dtype and row.samples]
        if rows:
            written.append(_bars(rows, folder / f"bars_{dtype}.png", dtype))
        families = _curves(rows)
        if families:
            written.append(_scaling(families, folder / f"scaling_{dtype}.png", dtype))
    return written


def relative(record: Record, path: Path) -> None:
    """Draw for each family of workloads how many times as long as graphjit the best other library takes, and
    how many times hand-written C. Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    families = _relative_times(record)
    height = 1.6 + 0.22 * len(families)
    # The same record gives the same file; text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "graphjit", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(8, height))
        _draw_relative(axes, families)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)


RelativeTimes = tuple[str, str, float, float | None]
"""A family, its best peer, that peer's time and that of hand-written C, both over graphjit's."""


def _relative_times(record: Record) -> list[RelativeTimes]:
    """Geometric means over the rows of each family, where graphjit gains most first; the best peer is the one
    that wins most rows.
    """
    rows_of: dict[str, list[Measurement]] = {}
    for row in record.rows:
        if row.ratio() is not None:
            rows_of.setdefault(row.family, []).append(row)
    found = []
    for family, rows in rows_of.items():
        winners = [row.best() or "" for row in rows]
        ours, native = (
            geometric_mean(row.ratio() for row in rows),
            geometric_mean(row.ratio(NATIVE) for row in rows),
        )
        if ours is not None:
            found.append((family, mode(winners), 1.0 / ours, None if native is None else 1.0 / native))
    return sorted(found, key=lambda family: -family[2])


def _draw_relative(axes: Any, families: list[RelativeTimes]) -> None:
    colours, named = _colours(), set()
    for line, (_, peer, times, native) in enumerate(families):
        label = None if peer in named else peer
        named.add(peer)
        # From one, so that what is slower than the best peer points to the left.
        axes.barh(line, times - 1.0, 0.75, left=1.0, color=colours[peer], label=label)
        axes.annotate(f" {times:.3g}", (max(times, 1.0), line), va="center", fontsize=8)
        if native is not None:
            label = None if NATIVE in named else "hand-written C"
            named.add(NATIVE)
            axes.plot(native, line, "|", color="black", markersize=9, markeredgewidth=2, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(families)), [family for family, *_ in families])
    axes.set_ylim(len(families) - 0.4, -0.6)
    axes.set_xlabel("time of the best other library over graphjit's (to the right graphjit is faster)")
    axes.margins(x=0.1)
    axes.grid(axis="x", which="major", alpha=0.3)
    if families:
        axes.legend(loc="lower right", fontsize=8)


def _colours() -> dict[str, Any]:
    from matplotlib import colormaps

    palette = colormaps["tab10"]
    return {peer: palette(index % 10) for index, peer in enumerate(PEERS)}


def _timed(rows: list[Measurement]) -> list[str]:
    return [peer for peer in PEERS if any(peer in row.samples for row in rows)]


def _bars(rows: list[Measurement], path: Path, dtype: str) -> Path:
    from matplotlib import pyplot

    peers, colours = _timed(rows), _colours()
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.09 * len(rows) * (len(peers) + 2)))
    thickness = 0.85 / len(peers)
    for index, peer in enumerate(peers):
        medians = [
            (place, median) for place, row in enumerate(rows) if (median := row.median(peer)) is not None
        ]
        places = [place + (index - (len(peers) - 1) / 2) * thickness for place, _ in medians]
        axes.barh(places, [median for _, median in medians], thickness, label=peer, color=colours[peer])
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row.workload for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("seconds a call (median)")
    axes.set_title(f"Time by workload, {dtype}: shorter is faster")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.6 / figure.get_figheight()), ncols=min(5, len(peers))
    )
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return path


def _curves(rows: list[Measurement]) -> dict[str, list[Measurement]]:
    """Families with more than one size, smallest first."""
    families: dict[str, list[Measurement]] = {}
    for row in rows:
        if row.size:
            families.setdefault(row.family, []).append(row)
    ordered = {family: sorted(found, key=lambda row: row.size or 0.0) for family, found in families.items()}
    return {family: found for family, found in ordered.items() if len({row.size for row in found}) > 1}


def _scaling(families: dict[str, list[Measurement]], path: Path, dtype: str) -> Path:
    from matplotlib import pyplot

    colours = _colours()
    columns = min(COLUMNS, len(families))
    lines = math.ceil(len(families) / columns)
    figure, grid = pyplot.subplots(
        lines, columns, figsize=(max(9, 4 * columns), 1.0 + 3.2 * lines), squeeze=False
    )
    drawn: dict[str, Any] = {}
    for axes, (family, rows) in zip(grid.flat, families.items(), strict=False):
        for peer in _timed(rows):
            points = [(row.size, median) for row in rows if (median := row.median(peer)) is not None]
            (drawn[peer],) = axes.plot(
                *zip(*points, strict=True), marker="o", markersize=3, color=colours[peer]
            )
        axes.set(xscale="log", yscale="log", title=family, xlabel="size", ylabel="seconds a call")
        axes.grid(which="major", alpha=0.3)
    for axes in grid.flat[len(families) :]:
        axes.remove()
    figure.suptitle(f"Time by size, {dtype}")
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(5, len(drawn)))
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
