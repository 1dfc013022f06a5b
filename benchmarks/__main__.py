"""`python -m benchmarks`, to which `graphjit bench` hands over: its options.

Input: options. Output: what `command` prints, and its exit status; a mistake is one line and exit status 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command
from benchmarks.suite import OptionError, Options
from graphjit.cli.report import UsageError, one_line_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
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
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.json",
            help="Write docs/results.md and its picture from a run that --json saved, measure nothing.",
        ),
    ] = None,
) -> None:
    """Measure graphjit beside other libraries: every result is checked before it is timed."""
    names = tuple(name.strip() for name in peers.split(",") if name.strip())
    options = Options(quick, filter, names, threads, dtype, json, compare, plot, memory, first_call)
    with one_line_errors():
        try:
            if list_:
                status = command.show(options)
            elif report is not None:
                status = command.report(report)
            else:
                status = command.main(options)
        except OptionError as error:
            raise UsageError(str(error)) from None
    raise typer.Exit(status)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
