"""Figures of what a program takes: memory over its steps, and time by line and by step.

Input: a `Lowered`, the name of a file. Output: a PNG, SVG or PDF file.
Invariant: the numbers are those of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphjit.lowered import Lowered
from graphjit.view.arena import Arena, arena_of
from graphjit.view.libraries import library
from graphjit.view.sources import by_line, short_name
from graphjit.view.work import node_costs

FORMATS = (".png", ".svg", ".pdf")
MOST = 20
"""Bars of a figure; the others are one bar."""
FEW = 6
"""Bars that a figure has room for; fewer are no thicker."""
THERE, BACK, GREY = "#0072b2", "#d55e00", "#8d97a1"
"""Colours of Okabe and Ito: way there, way back, others."""


def plot_memory(path: Path, lowered: Lowered) -> None:
    """Draw the arena over time: addresses against steps."""
    arena = arena_of(lowered)
    figure, axes = _figure(path, (8, 4.5))
    scale, unit = _byte_unit(arena.nbytes)
    rectangle = library("matplotlib.patches", "draws figures").Rectangle
    for life in arena.lives:
        colour = BACK if life.kept else THERE
        corner, width, height = (
            (life.first, life.offset / scale),
            life.last - life.first + 1,
            life.nbytes / scale,
        )
        patch = rectangle(
            corner, width, height, facecolor=colour, alpha=0.35, edgecolor=colour, linewidth=0.8
        )
        axes.add_patch(patch)
        if width * 14 > len(arena.steps) and life.nbytes * 18 > arena.nbytes:
            axes.text(
                corner[0] + width / 2,
                corner[1] + height / 2,
                f"{life.name} {life.type}",
                ha="center",
                va="center",
                fontsize=7,
            )
    if arena.border is not None:
        axes.axvline(arena.border, color=BACK, linestyle="--", linewidth=1)
    axes.set_xlim(0, max(1, len(arena.steps)))
    axes.set_ylim(0, max(arena.nbytes, 1) / scale)
    _name_steps(axes, arena)
    axes.set_ylabel(f"address ({unit})")
    axes.set_title(
        f"{lowered.graph.name}: memory over time, {arena.nbytes / scale:.3g} {unit}; kept for the way back: orange"
    )
    figure.savefig(path)


def plot_cost(path: Path, lowered: Lowered) -> None:
    """Draw estimated time by line of the source, and by step."""
    figure, (lines, steps) = _figure(path, (8, 7), rows=2)
    spent = by_line(node_costs(lowered.program, lowered.loops))
    rows = [
        (f"{short_name(key[0])}:{key[1]}" if key else "no line", one.total - one.backward, one.backward)
        for key, one in spent.items()
    ]
    _bars(lines, rows, "line")
    patches = library("matplotlib.patches", "draws figures")
    keys = [patches.Patch(color=THERE, label="way there"), patches.Patch(color=BACK, label="way back")]
    lines.legend(handles=keys, loc="lower right", frameon=False)
    _bars(
        steps, [(name, float(cost.nanoseconds), 0.0) for name, cost in lowered.cost().steps.items()], "step"
    )
    total = lowered.cost().total.nanoseconds
    lines.set_title(f"{lowered.graph.name}: about {total} ns on one core, by estimate")
    figure.savefig(path)


def _figure(path: Path, size: tuple[float, float], rows: int = 1) -> tuple[Any, Any]:
    """An empty figure for a file."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"a figure is a file that ends with {', '.join(FORMATS)}, not {path.name}")
    figure = library("matplotlib.figure", "draws figures").Figure(figsize=size, layout="constrained", dpi=144)
    return figure, figure.subplots(rows)


def _bars(axes: Any, rows: Sequence[tuple[str, float, float]], what: str) -> None:
    """Bars with two parts, the longest on top."""
    weight: Callable[[tuple[str, float, float]], float] = lambda row: row[1] + row[2]
    ordered = sorted(rows, key=weight, reverse=True)
    shown, others = ordered[:MOST], ordered[MOST:]
    if others:
        shown.append((f"{len(others)} others", sum(map(weight, others)), 0.0))
    names = [name for name, _, _ in shown]
    places = range(len(shown))
    axes.barh(places, [there for _, there, _ in shown], color=THERE, height=0.7)
    axes.barh(places, [back for _, _, back in shown], left=[there for _, there, _ in shown], color=BACK)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(max(len(shown), FEW) - 0.5, -0.5)
    axes.set_xlabel("nanoseconds")
    axes.set_ylabel(what)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name_steps(axes: Any, arena: Arena) -> None:
    """Names of steps, as many as fit."""
    each = -(-len(arena.steps) // MOST) or 1
    shown = range(0, len(arena.steps), each)
    axes.set_xticks([i + 0.5 for i in shown], [arena.steps[i] for i in shown], fontsize=8)


def _byte_unit(nbytes: int) -> tuple[float, str]:
    """A unit in which a number of bytes is short."""
    return next(
        (size, unit)
        for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
        if nbytes >= size or size == 1
    )
