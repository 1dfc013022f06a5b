"""Every snippet of the documents is true: Python blocks run, command blocks print what stands below them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graphjit.cli.main import app

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall((ROOT / document).read_text()) if kind == language]


def test_readme_snippets_run_in_order(capsys):
    namespace: dict[str, object] = {}
    snippets = blocks("README.md", "python")
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, str(ROOT / "README.md"), "exec"), namespace)


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "pip install '.[examples]' && python examples/digits.py" in text
    assert "pip install '.[test]' && pytest" in text


COMMANDS = [(name, block) for name in ("ARCHITECTURE.md", "README.md") for block in blocks(name, "console")]


@pytest.mark.parametrize(
    ("document", "block"), COMMANDS, ids=[block.split("\n")[0][19:] for _, block in COMMANDS]
)
def test_command_blocks_print_what_they_show(document, block, monkeypatch, request):
    first, _, shown = block.partition("\n")
    assert first.startswith("$ graphjit "), first
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "160")
    done = CliRunner().invoke(app, shlex.split(first)[2:])
    assert done.exit_code == 0, done.output
    printed = "\n".join(line.rstrip() for line in done.output.strip().splitlines()) + "\n"
    if request.config.getoption("--update-golden"):
        path = ROOT / document
        path.write_text(
            path.read_text().replace(f"```console\n{block}```", f"```console\n{first}\n{printed}```")
        )
    else:
        assert printed.splitlines() == [line.rstrip() for line in shown.strip().splitlines()]
