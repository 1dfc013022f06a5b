"""The page: one HTML file with its data, its style and its script in it.

Input: a `Lowered`. Output: text that needs no library and makes no request.
Invariants: the policy in the page's head forbids requests; users' texts are data of JSON or escaped, never
part of the page's code.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphjit.ir.node import Graph
from graphjit.lowered import Lowered
from graphjit.view.encode import as_data

SCRIPTS = ("data.js", "place.js", "draw.js", "panels.js", "arena.js", "control.js")
"""The parts of the script, in order. They share one scope."""


def page(lowered: Lowered, trace: Graph | None = None) -> str:
    """The page of a lowered call; ``trace`` is the function itself if that is its derivative."""
    return _filled(as_data(lowered, trace))


def write_page(path: Path, lowered: Lowered, trace: Graph | None = None) -> None:
    """Write the page into a file."""
    path.write_text(page(lowered, trace), encoding="utf-8")


def _filled(data: dict[str, Any]) -> str:
    """The page with its parts. What users wrote comes in last, so that no mark in it is taken for one."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    text = _asset("page.html").replace("/* the style */", _asset("style.css"))
    text = text.replace("/* the script */", f'(() => {{\n"use strict";\n{script}}})();')
    head, title, rest = text.partition("<!-- the title -->")
    middle, mark, tail = rest.partition("/* the data */")
    assert title
    assert mark
    # In JSON a "<" stands in strings only. Escaped, it ends no script.
    encoded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return "".join((head, html.escape(data["name"]), middle, encoded, tail))


def _asset(name: str) -> str:
    return files("graphjit.view").joinpath("assets", name).read_text(encoding="utf-8")
