"""What the documents point to exists: links, anchors, files, folders, commands, options, settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    blocks,
    commands,
    links,
    options,
    prose,
    read,
    shell_lines,
    slug,
    spans,
)

from graphjit.config import SETTINGS

OTHERS_OPTIONS = {"--update-golden", "--parallel", "--no-deps", "--build", "--test-dir", "--check"}
"""Options of pytest, CMake, pip and ruff that the documents name."""

MADE_BY_COMMANDS = {"docs/results.md"}

SKIPPED = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", "_build"}
FILES = {
    "/" + str(path.relative_to(ROOT)) + ("/" if path.is_dir() else "")
    for path in ROOT.rglob("*")
    if not SKIPPED & set(path.relative_to(ROOT).parts)
}

everywhere = pytest.mark.parametrize("document", DOCUMENTS)
today = pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
"""The changelog names what was there once."""


@everywhere
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for target in links(document):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / document).parent / path if path else ROOT / document
        if not there.exists() or (anchor and anchor not in anchors(str(there))):
            broken.append(target)
    assert not broken


@today
def test_files_and_folders_in_code_type_exist(document: str) -> None:
    named = [
        span
        for span in spans(document)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span)
        and (span.endswith((".py", ".md", ".svg", ".txt", "/")))
    ]
    missing = [
        span
        for span in named
        if span not in MADE_BY_COMMANDS
        and not span[0].isupper()  # FILE.py and DIR/ stand for names of yours
        and not any(file.endswith("/" + span) for file in FILES)
    ]
    assert not missing


@today
def test_settings_exist(document: str) -> None:
    names = {setting.name for setting in SETTINGS}
    assert set(re.findall(r"\bGRAPHJIT_[A-Z_]*[A-Z]\b", read(document))) <= names


@today
def test_commands_and_options_exist(document: str) -> None:
    wrong = []
    for line in shell_lines(document):
        for command in re.split(r"&&|;|\|", line.partition("#")[0]):
            words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
            if words[:1] != ["graphjit"]:
                continue
            name = words[1] if len(words) > 1 and not words[1].startswith("-") else "graphjit"
            used = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 2}
            if name not in commands() or not used <= options(name):
                wrong.append(line)
    known = OTHERS_OPTIONS.union(*map(options, commands()), _options_of_scripts())
    wrong += [
        word
        for span in spans(document)
        for word in span.split()
        if re.fullmatch(r"--[a-z][\w-]*", word) and word not in known
    ]
    assert not wrong


def _options_of_scripts() -> set[str]:
    """Options of the programs in the checkout that are no part of the command line."""
    scripts = [*(ROOT / "examples").glob("*.py"), ROOT / "benchmarks" / "spine.py"]
    return {
        option
        for script in scripts
        for option in re.findall(r'add_argument\(\s*"(--[\w-]+)', script.read_text())
    }


def test_the_checks_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `title`\n[a](missing.md), [b](#two)\n`nowhere/none.py`, `graphjit inspect x --grat`, `--grat`\n"
        "GRAPHJIT_LOGG\n"
    )
    for check in (
        test_links_lead_somewhere,
        test_files_and_folders_in_code_type_exist,
        test_settings_exist,
        test_commands_and_options_exist,
    ):
        with pytest.raises(AssertionError):
            check(str(page))
    assert anchors(str(page)) == {"one-title"}
    assert slug("Why `np.where`, and [what](x.md)?") == "why-npwhere-and-what"


def test_every_page_of_docs_has_one_title_and_short_lines() -> None:
    for document in DOCUMENTS:
        text = prose(document)
        if any(block.language.startswith("{include}") for block in blocks(document)):
            continue  # a page of the site that is a document of the checkout
        if document == "docs/results.md":
            continue  # written by graphjit bench
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1, document
        if document.startswith("docs/") or document in ("README.md", "ARCHITECTURE.md"):
            long = [
                line
                for line in text.splitlines()
                if len(line) > 110 and not line.startswith(("|", "    ")) and "](" not in line
            ]
            assert not long, f"{document}: {long[0]}"


def test_the_short_documents_are_short() -> None:
    assert len(read("ARCHITECTURE.md").splitlines()) <= 200
    assert len(read("README.md").splitlines()) <= 150
