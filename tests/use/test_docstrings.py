"""Public docstrings: numpydoc's form, every parameter described, every example true."""

from __future__ import annotations

import doctest
import inspect
import operator
import re
from typing import Any

import pytest

import graphjit

MODULES = [name for name in graphjit.__all__ if inspect.ismodule(getattr(graphjit, name))]
PUBLIC = sorted(set(graphjit.__all__) - set(MODULES)) + [
    f"{module}.{name}" for module in MODULES for name in getattr(graphjit, module).__all__
]
public = lambda name: operator.attrgetter(name)(graphjit)
FUNCTIONS = [name for name in PUBLIC if not inspect.isclass(public(name))]
SECTIONS = ("Parameters", "Returns", "Yields", "Raises", "See Also", "Notes", "Examples")


def sections(name: str) -> dict[str, str]:
    """The text of a public docstring by section; what comes before the first one is under the empty name."""
    parts = re.split(r"^(\w[\w ]*)\n-+$", inspect.getdoc(public(name)) or "", flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def described(text: str) -> list[str]:
    """Names of the entries of a section, ``a, b : int`` being two."""
    heads = [line.partition(" : ")[0] for line in text.strip().splitlines() if not line.startswith(" ")]
    return [name.strip().lstrip("*") for head in heads for name in head.split(",") if name.strip()]


@pytest.mark.parametrize("name", PUBLIC)
def test_sections_are_numpydocs(name: str) -> None:
    text = inspect.getdoc(public(name)) or ""
    found = sections(name)
    summary = found.pop("").splitlines()[0]
    assert summary.endswith(".")
    assert list(found) == [section for section in SECTIONS if section in found], "unknown, or out of order"
    assert "Examples" in found
    for title in found:
        assert f"{title}\n{'-' * len(title)}\n" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_and_results_are_described(name: str) -> None:
    function: Any = public(name)
    found = sections(name)
    assert described(found.get("Parameters", "")) == list(inspect.signature(function).parameters)
    assert found.keys() & {"Returns", "Yields"} or name in ("set_num_threads", "disable_jit")


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_are_true(name: str) -> None:
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    (test,) = finder.find(public(name), name, globs={})
    assert test.examples
    told: list[str] = []
    assert runner.run(test, out=told.append).failed == 0, "".join(told)
