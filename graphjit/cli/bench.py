"""``graphjit bench``: hand over to the benchmarks of a source checkout.

The process becomes ``python -m benchmarks`` of that checkout, with the same options.

Input: options, which are not read here. Output: what that program prints, and its exit status.
Invariant: nothing of ``benchmarks`` is imported: it is no part of the installed package, and stands above it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

import graphjit
from graphjit.cli.report import UsageError, one_line_errors

HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""How the command is registered: all options, ``--help`` among them, are those of the benchmarks."""

PROGRAM = """\
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""
"""``python -m benchmarks`` of the checkout that is the first argument.

With ``-m`` itself the current directory would come first, and may hold another folder of that name.
"""


def bench(context: typer.Context) -> None:
    """Measure graphjit beside other libraries and hand-written C; needs a source checkout."""
    with one_line_errors():
        root = checkout()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(root), *context.args])


def checkout() -> Path:
    """The source checkout that is the current directory, or else the one in which this package lies.

    Raises:
        UsageError: neither is one.
    """
    for folder in (Path.cwd(), Path(graphjit.__file__).resolve().parents[1]):
        # A folder called benchmarks is not enough: others have one too.
        if all((folder / "benchmarks" / name).exists() for name in ("command.py", "workloads")):
            return folder
    raise UsageError(
        "the benchmarks are part of a source checkout, not of the installed package: run this in its directory"
    )
