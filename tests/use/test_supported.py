"""Which systems the import refuses, and in which words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from graphjit import supported

ROOT = Path(__file__).parents[2]


def on(
    monkeypatch: pytest.MonkeyPatch,
    platform: str = "linux",
    implementation: str = "cpython",
    version: tuple[int, int] = (3, 12),
    text: str = "3.12.1 (main)",
    maxsize: int = (1 << 63) - 1,
    processor: str = "x86_64",
    lock: bool | None = None,
) -> None:
    """Make the check see a system: by default one that is supported."""
    system = SimpleNamespace(
        platform=platform,
        implementation=SimpleNamespace(name=implementation),
        version_info=(*version, 0, "final", 0),
        version=text,
        maxsize=maxsize,
    )
    if lock is not None:
        system._is_gil_enabled = lambda: lock
    monkeypatch.setattr(supported, "sys", system)
    monkeypatch.setattr(supported, "os", SimpleNamespace(uname=lambda: SimpleNamespace(machine=processor)))


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
@pytest.mark.parametrize("processor", ["x86_64", "aarch64", "arm64", "AMD64"])
@pytest.mark.parametrize("lock", [None, True])
def test_supported_systems_pass(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], processor: str, lock: bool | None
) -> None:
    on(monkeypatch, version=version, processor=processor, lock=lock)
    supported.require_supported_system()


@pytest.mark.parametrize(
    ("system", "says"),
    [
        ({"platform": "darwin"}, "this is darwin: use a Linux machine, a container"),
        ({"platform": "win32"}, "WSL on Windows"),
        ({"implementation": "pypy"}, "this is pypy: use CPython"),
        ({"version": (3, 10)}, "this is Python 3.10: make an environment with Python 3.11"),
        ({"version": (3, 14)}, "this is Python 3.14: make an environment with Python 3.11"),
        ({"version": (3, 13), "lock": False}, "free-threaded build"),
        (
            {"version": (3, 13), "lock": True, "text": "3.13.0 experimental free-threading build"},
            "free-threaded build",
        ),
        ({"maxsize": (1 << 31) - 1}, "this Python has 32 bits"),
        ({"processor": "riscv64"}, "this processor is riscv64"),
        ({"processor": "aarch64_be"}, "this processor is aarch64_be"),
        ({"processor": "armv7l"}, "this processor is armv7l"),
    ],
)
def test_others_are_refused_and_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, system: dict[str, object], says: str
) -> None:
    on(monkeypatch, **system)  # type: ignore[arg-type]
    with pytest.raises(ImportError) as caught:
        supported.require_supported_system()
    said = str(caught.value)
    assert said.startswith("graphjit runs on Linux (x86-64 or ARM64, 64 bits) with CPython 3.11 to 3.13")
    assert says in said
    assert said.endswith(".")
    assert caught.value.name == "graphjit"


def test_the_refusal_comes_before_any_library_is_loaded() -> None:
    code = (
        "import sys; sys.platform = 'darwin'\n"
        "try:\n    import graphjit\n"
        "except ImportError as error:\n    assert 'this is darwin' in str(error)\n"
        "else:\n    raise SystemExit('imported')\n"
        "assert not {'numpy', 'llvmlite', 'optree', 'numba'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_the_versions_are_those_of_the_package() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    oldest, newest = supported.OLDEST, supported.NEWEST
    assert f'requires-python = ">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"' in declared
    for minor in range(oldest[1], newest[1] + 1):
        assert f"Programming Language :: Python :: 3.{minor}" in declared
