"""The user's lines beside the graph: their text, and what each takes.

Input: what every node takes, the places of all items. Output: files with the lines to show, nanoseconds by
line.
Invariant: the shares of all lines, and of what belongs to none, sum up to the estimate of the program.
"""

from __future__ import annotations

import ast
import linecache
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphjit.ir.names import one_line
from graphjit.ir.node import Location, Node
from graphjit.view.board import BACKWARD
from graphjit.view.graphs import phase

AROUND = 3
"""Lines shown before and after one that is needed, where its function is not found."""
LONG = 120
"""Lines up to which a whole function is shown."""
WIDTH = 160
"""Characters of a line."""


@dataclass
class Spent:
    """Nanoseconds of one line."""

    total: float = 0.0
    backward: float = 0.0
    """The part of the way back."""


def by_line(costs: Mapping[Node, float]) -> dict[tuple[str, int] | None, Spent]:
    """What each line takes; None is what no line of the user's stands for."""
    found: dict[tuple[str, int] | None, Spent] = defaultdict(Spent)
    for node, nanoseconds in costs.items():
        spent = found[key_of(node.loc)]
        spent.total += nanoseconds
        spent.backward += nanoseconds if phase(node) == BACKWARD else 0.0
    return dict(found)


def key_of(loc: Location | None) -> tuple[str, int] | None:
    """A line, whatever function it is in."""
    return None if loc is None else (loc.file, loc.line)


def shown_lines(needed: Iterable[tuple[str, int]]) -> dict[str, list[tuple[int, str]]]:
    """The lines to show of each file, with their numbers: whole functions where they are not too long."""
    by_file: dict[str, set[int]] = defaultdict(set)
    for file, line in needed:
        by_file[file].add(line)
    found = {}
    for file, lines in by_file.items():
        text = _text(file)
        numbers = sorted(number for number in _around(text, lines) if 1 <= number <= len(text))
        found[file] = [(number, one_line(text[number - 1].expandtabs(4), WIDTH)) for number in numbers]
        found[file] += [(line, "") for line in sorted(lines - set(numbers))]
    return found


def _text(file: str) -> list[str]:
    try:
        return [line.rstrip("\r\n") for line in linecache.getlines(file)]
    except ValueError:  # no file can have that name
        return []


def _around(text: list[str], lines: set[int]) -> set[int]:
    """The numbers of lines to show."""
    spans = _functions(text)
    shown: set[int] = set()
    for line in lines:
        around = [(start, stop) for start, stop in spans if start <= line <= stop and stop - start < LONG]
        start, stop = min(around, default=(line - AROUND, line + AROUND))  # the outermost one that fits
        shown |= set(range(start, stop + 1))
    return shown


def _functions(text: list[str]) -> list[tuple[int, int]]:
    """First and last line of every function."""
    try:
        tree = ast.parse("\n".join(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def short_name(file: str) -> str:
    """A file as people say it."""
    return one_line(os.path.basename(file))
