"""``graphjit bench``: graphjit beside other libraries and hand-written C, on this machine.

The suite itself is the folder ``benchmarks`` of a source checkout, which is not installed with the package.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

import graphjit
from graphjit.cli.report import UsageError, one_line_errors


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller sizes, short runs, no peers that compile for seconds.")
    ] = False,
    filter: Annotated[
        str, typer.Option(help="Workloads whose name contains this, or of the family of this name.")
    ] = "",
    peers: Annotated[str, typer.Option(metavar="A,B", help="Only these peers; --list names all.")] = "",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of every peer; default: what each of them takes.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Only float64 or only float32.")] = "",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write raw samples, machine and versions.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="Hold the run against an earlier one.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw bars by workload and curves by size (PNG).")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure peak memory too, in a process for each peer.")
    ] = False,
    first_call: Annotated[
        bool, typer.Option("--first-call/--no-first-call", help="Measure first calls, in a process for each.")
    ] = True,
    list_: Annotated[bool, typer.Option("--list", help="Show workloads and peers, measure nothing.")] = False,
) -> None:
    """Measure graphjit beside other libraries: every result is checked before it is timed."""
    with one_line_errors():
        command = _suite()
        names = tuple(name.strip() for name in peers.split(",") if name.strip())
        options = command.Options(
            quick, filter, names, threads, dtype, json, compare, plot, memory, first_call
        )
        try:
            status = command.show(options) if list_ else command.main(options)
        except command.OptionError as error:
            raise UsageError(str(error)) from None
        raise typer.Exit(status or 0)


def _suite() -> ModuleType:
    """``benchmarks.command`` of the checkout that is the current directory, or in which this package lies."""
    for folder in (Path.cwd(), Path(graphjit.__file__).resolve().parents[1]):
        # The name alone is not enough: others call a folder so too.
        if (folder / "benchmarks" / "command.py").is_file() and (
            folder / "benchmarks" / "workloads"
        ).is_dir():
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            return importlib.import_module("benchmarks.command")
    raise UsageError(
        "the benchmarks are part of a source checkout, not of the installed package: run this in its directory"
    )
