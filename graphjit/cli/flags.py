"""``graphjit flags``: every environment variable that graphjit reads."""

from __future__ import annotations

import typer

from graphjit.cli.report import table
from graphjit.config import SETTINGS


def flags() -> None:
    """List the environment variables that graphjit reads, once, when it is imported."""
    rows = [(setting.name, _default(setting.default), setting.help) for setting in SETTINGS]
    typer.echo(table(("variable", "default", "meaning"), rows))


def _default(value: object) -> str:
    return "none" if value is None or value == frozenset() else str(value).lower()
