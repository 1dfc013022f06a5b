"""`python -m benchmarks`: the same as `graphjit bench`."""

from __future__ import annotations

import typer

from graphjit.cli.bench import bench

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(bench)

if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
