"""The project's documents as tests read them: fenced blocks, inline code, links, headings.

A document is named by its path from the top of the checkout. The reading is that of plain Markdown: what
GitHub shows and what the site shows come from the same text.
"""

from __future__ import annotations

import functools
import importlib
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from graphjit.cli.main import app
from graphjit.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md")
    if not any(part.startswith("_") for part in path.relative_to(ROOT).parts)
)
"""Every document, except what a build of the site leaves below ``docs/_build``."""

FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the number of the line on which the text begins."""

    language: str
    text: str
    line: int


@functools.cache
def read(document: str) -> str:
    """The text of a document."""
    return (ROOT / document).read_text(encoding="utf-8")


@functools.cache
def blocks(document: str) -> tuple[Block, ...]:
    """The fenced blocks of a document, in order."""
    text = read(document)
    return tuple(
        Block(found[2].strip(), found[3], text.count("\n", 0, found.start(3)) + 1)
        for found in FENCE.finditer(text)
    )


def prose(document: str) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", read(document))


def spans(document: str) -> list[str]:
    """Inline code of a document."""
    return SPAN.findall(prose(document))


def links(document: str) -> list[str]:
    """Targets of the links and pictures of a document."""
    return LINK.findall(SPAN.sub("", prose(document)))


def anchors(document: str) -> set[str]:
    """Anchors of the headings of a document, as GitHub and the site make them."""
    return {slug(heading) for heading in HEADING.findall(prose(document))}


def slug(heading: str) -> str:
    """The anchor of a heading: lower case, words joined by hyphens, without punctuation."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def commands() -> dict[str, Any]:
    """The commands of the command line by name; the program itself is ``graphjit``."""
    group = get_command(app)
    found = {"graphjit": group, **getattr(group, "commands", {})}
    if not found["bench"].params:  # it hands all options over to the program of the checkout
        found["bench"] = get_command(importlib.import_module("benchmarks.__main__").app)
    return found


def options(command: str) -> set[str]:
    """Every option of a command."""
    names = (name for parameter in commands()[command].params for name in _names(parameter))
    return {name for name in names if name.startswith("-")} | {"--help"}


def _names(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def shell_lines(document: str) -> Iterator[str]:
    """Commands that a document shows: lines of shell blocks, of indented blocks, and inline code that begins
    with a program's name.
    """
    for block in blocks(document):
        if block.language in ("sh", "bash", "shell"):
            yield from (line for line in block.text.replace("\\\n", " ").splitlines() if line.strip())
    for line in prose(document).splitlines():
        if re.match(r" {4}\S", line) and re.match(r" *(\w+=\S+ )*(pip|python|graphjit|pytest) ", line):
            yield line.strip()
    for span in spans(document):
        if re.match(r"(\w+=\S+ )*(pip|python|graphjit|pytest) ", span):
            yield span


# Tables of the reference that are made from the code and stand between two comments of their page.


def generated(name: str) -> str:
    """The text that stands in a page between ``<!-- generated: NAME -->`` and ``<!-- end -->``."""
    if name == "settings":
        rows = [(f"`{setting.name}`", _default(setting.default), setting.help) for setting in SETTINGS]
        return _table(("variable", "default", "meaning"), rows)
    command = commands()[name]
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    table = _table(("argument or option", "meaning"), rows) if rows else "It takes no arguments.\n"
    return f"{textwrap.fill(command.help, 110)}\n\n{table}"


def _row(parameter: Any) -> tuple[str, str]:
    meaning = " ".join(parameter.help.split())
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`", meaning
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    if parameter.default not in (None, False, True, ""):
        meaning += f" Default: `{parameter.default}`."
    return f"`{' / '.join(_names(parameter))}{value}`", meaning


def _default(value: object) -> str:
    return "none" if value is None or value in (frozenset(), "") else str(value).lower()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


GENERATED = re.compile(r"^<!-- generated: (\S*) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
