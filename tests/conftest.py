"""Options and fixtures that every test file shares."""

from __future__ import annotations

import gc
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything imports graphjit, which reads its settings once: every pass and every kernel is verified in
# tests.
os.environ.setdefault("GRAPHJIT_VERIFY", "1")

# The benchmarks are no part of the installed package. At the end of the path: what is installed is what gets
# tested.
sys.path.append(str(Path(__file__).parent.parent))

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing with them"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked ``sample(n)``, one case of n runs by default, and the others with the slow tests.

    Which ones is a hash of their names: every run takes the same, whatever the order of parameters.
    """
    cases: dict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("sample")
        if mark and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0], mark.args[0]].append(item)
    for (_, share), group in cases.items():
        group.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in group[-(-len(group) // share) :]:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Libraries and tests stay: no collection of garbage looks through these million objects again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["interpreted", "compiled"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`control_harness.run` interprets what a function records, or compiles it."""
    import control_harness

    monkeypatch.setattr(control_harness, "COMPILED", request.param == "compiled")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: ``text`` is what tests/golden/name holds."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"there is no {path.name}; run pytest --update-golden"
        assert text == path.read_text(), (
            f"{path.name} differs; if it should, run pytest --update-golden and read the diff"
        )

    return compare
