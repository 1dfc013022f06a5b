"""What every command shares: plain tables, and mistakes as one line on stderr.

No colours and no wrapping, so that people and scripts read the same output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from graphjit.errors import GraphjitError


class UsageError(Exception):
    """Something asked for on the command line does not exist or does not fit."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what users can get wrong into one line on stderr and exit code 2."""
    try:
        yield
    except (UsageError, GraphjitError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two blanks apart."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
