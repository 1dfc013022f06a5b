"""The documents are true: Python blocks run, command blocks print what stands below them, generated tables
are those of the code.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCUMENTS, GENERATED, ROOT, blocks, commands, generated, read
from typer.testing import CliRunner

import graphjit
from graphjit.cli.main import app

PAGES = [name for name in DOCUMENTS if any(block.language == "python" for block in blocks(name))]


@pytest.mark.sample(8)
@pytest.mark.parametrize("document", PAGES)
def test_python_blocks_run_in_order(document: str, tmp_path: Path) -> None:
    where = os.pathsep.join(
        (
            str(Path(graphjit.__file__).parents[1]),
            str(ROOT / "tests" / "harness"),
            os.environ.get("PYTHONPATH", ""),
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "documents.run_page", document],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": where.rstrip(os.pathsep)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_prints_something_else_fails(tmp_path: Path) -> None:
    """The test above can fail: by an exception, and by an output that is not the one shown."""
    for text in ("```python\nassert 1 == 2\n```\n", "```python\nprint(1)\n```\n\n```text\n2\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(AssertionError, match=r"AssertionError"):
            test_python_blocks_run_in_order(str(page), tmp_path)


def test_readme_names_the_two_commands() -> None:
    text = read("README.md")
    assert "pip install '.[examples]' && python examples/digits.py" in text
    assert "pip install '.[test]' && pytest" in text


COMMANDS = [(name, block.text) for name in DOCUMENTS for block in blocks(name) if block.language == "console"]


@pytest.mark.parametrize(
    ("document", "block"), COMMANDS, ids=[block.split("\n")[0][11:] for _, block in COMMANDS]
)
def test_command_blocks_print_what_they_show(
    document: str, block: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
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
        shown = "\n".join(line.rstrip() for line in shown.strip().splitlines()) + "\n"
        assert for_any_machine(printed) == for_any_machine(shown)


def for_any_machine(text: str) -> str:
    """Printed loops without what the width of vector registers decides."""
    return re.sub(r"\blanes \d+( unroll \d+)?", "lanes N", text)


TABLES = [(name, found[1], found[2]) for name in DOCUMENTS for found in GENERATED.finditer(read(name))]


@pytest.mark.parametrize(("document", "name", "text"), TABLES, ids=[name for _, name, _ in TABLES])
def test_generated_tables_are_those_of_the_code(
    document: str, name: str, text: str, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-golden"):
        path = ROOT / document
        head = f"<!-- generated: {name} -->\n"
        before, _, rest = path.read_text().partition(head)
        path.write_text(f"{before}{head}{generated(name)}<!-- end -->{rest.partition('<!-- end -->')[2]}")
    else:
        assert text == generated(name), "run pytest --update-golden and read the difference"


def test_every_command_and_setting_is_in_the_reference() -> None:
    assert {name for _, name, _ in TABLES} == {*commands(), "settings"}


def test_every_public_name_is_in_the_reference() -> None:
    text = read("docs/reference/api.md")
    missing = [name for name in graphjit.__all__ if f"graphjit.{name}\n" not in text]
    assert not missing
