"""The command line: ``graphjit inspect``, ``ops``, ``flags``, ``machine`` and ``bench``.

Each command is a file of its own. Output is text on stdout; a mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

from typing import Annotated

import typer

import graphjit
from graphjit.cli.bench import HANDED_ON, bench
from graphjit.cli.flags import flags
from graphjit.cli.inspect import inspect
from graphjit.cli.machine import machine
from graphjit.cli.ops import ops

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compiled derivatives of plain NumPy code: look at a function at every stage of its compilation.",
)
app.command()(inspect)
app.command()(ops)
app.command()(flags)
app.command()(machine)
app.command(context_settings=HANDED_ON, add_help_option=False)(bench)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"graphjit {graphjit.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before a command."""
