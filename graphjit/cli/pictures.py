"""What ``graphjit inspect`` writes into files: the page of a function, and figures of memory and time.

Input: the stages, names of files. Output: files, and a line for each of them.
Invariant: what they show is made by `graphjit.view`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from graphjit.cli.report import UsageError
from graphjit.cli.stages import Stages


def write_pictures(stages: Stages, html: Path | None, memory: Path | None, cost: Path | None) -> str:
    """Write the files that are asked for.

    Raises:
        UsageError: a file cannot be written, or has an ending that no figure has.
    """
    from graphjit.view.figures import plot_cost, plot_memory  # rarely asked for
    from graphjit.view.page import write_page

    whole = stages.whole  # what is wrong with the function is no fault of a file
    trace = stages.own.graph if stages.derivative else None
    wanted: tuple[tuple[Path | None, Callable[[Path], None]], ...] = (
        (html, lambda path: write_page(path, whole, trace)),
        (memory, lambda path: plot_memory(path, whole)),
        (cost, lambda path: plot_cost(path, whole)),
    )
    written = []
    for path, write in wanted:
        if path is not None:
            try:
                write(path)
            except (OSError, ValueError) as error:
                raise UsageError(f"{path} cannot be written: {error}") from None
            written.append(f"wrote {path}, {path.stat().st_size} bytes")
    return "\n".join(written)
