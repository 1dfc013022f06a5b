"""How tests load the examples, which are scripts and in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"
"""What a file of that format begins with."""


def load(name: str) -> ModuleType:
    """The example of that name as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def needs(*libraries: str) -> None:
    """Skip the test where libraries of the extra `examples` are missing."""
    for library in libraries:
        pytest.importorskip(library, reason="the example needs the examples extra")
