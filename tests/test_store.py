"""Object code of the library on disk: found again, never trusted blindly, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphjit.backend.llvm import jit, store

PROGRAM = """
import numpy as np
import graphjit
from graphjit.backend.llvm import jit, threads

compiled = []
begin = jit._parsed
jit._parsed = lambda text, machine: (compiled.append(text), begin(text, machine))[1]
threads.configure(2)
a = np.arange(300 * 300.0).reshape(300, 300) / 9e4
result = graphjit.jit(lambda a: np.sin(a * 1e6) @ a)(a)
assert np.allclose(result, np.sin(a * 1e6) @ a)
print(len(compiled))
"""


def compiled(directory: Path | str, **environment: str) -> int:
    """How many modules a process compiles whose library lies there."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("XDG")}
    given |= {"GRAPHJIT_CACHE_DIR": str(directory)} | environment
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def contents(directory: Path) -> dict[str, bytes]:
    """What is kept there."""
    return {file.name: file.read_bytes() for file in (directory / store.NAME).iterdir()}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setattr(store.config, "cache_directory", str(tmp_path / "kept"))
    store.directory.cache_clear()
    yield tmp_path / "kept" / store.NAME
    store.directory.cache_clear()


def test_a_second_process_compiles_programs_only(tmp_path):
    cold = compiled(tmp_path / "new" / "code")
    files = contents(tmp_path / "new" / "code")
    warm = compiled(tmp_path / "new" / "code")
    assert cold - warm == len(files) >= 5
    assert contents(tmp_path / "new" / "code") == files
    assert oct((tmp_path / "new" / "code" / store.NAME).stat().st_mode & 0o777) == "0o700"


def test_what_is_raised_while_code_is_kept_is_not_lost(kept, monkeypatch):
    """By a signal handler, say: called back from C, Python would print it and go on."""

    def stop(name, code):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        jit.NativeModule("define i64 @gj_test_of_the_store() {\n  ret i64 41\n}\n", opt=0, library=True)
    assert store.directory() == str(kept)


def test_damaged_files_are_made_anew(tmp_path):
    cold = compiled(tmp_path)
    files = contents(tmp_path)
    for i, (name, content) in enumerate(files.items()):
        damaged = content[:-1] + bytes([content[-1] ^ 1]), b"", content[: len(content) // 2]
        (tmp_path / store.NAME / name).write_bytes(damaged[i % 3])
    assert compiled(tmp_path) == cold
    assert contents(tmp_path) == files


def test_nothing_is_kept_where_it_should_not_be(tmp_path):
    shared = tmp_path / "shared"
    (shared / store.NAME).mkdir(parents=True)
    (shared / store.NAME).chmod(0o777)
    file = tmp_path / "file"
    file.write_text("")
    assert len({compiled(shared), compiled(""), compiled(file / "below")}) == 1
    assert contents(shared) == {}


def test_files_of_others_stay(kept, monkeypatch):
    monkeypatch.setattr(store, "LIMIT", 100)
    assert store.directory() == str(kept)
    theirs = kept.parent / "thesis.dat"
    theirs.write_bytes(bytes(1000))
    (kept / "folder").mkdir()
    (kept / "link").symlink_to(theirs)
    for i in range(3):
        store.keep(store.key(str(i)), bytes(50))
    assert theirs.exists()
    assert [store.find(store.key(str(i))) is not None for i in range(3)] == [False, False, True]


def test_the_usual_place(tmp_path):
    given = {name: value for name, value in os.environ.items() if name not in ("GRAPHJIT_CACHE_DIR", "XDG_CACHE_HOME")}
    code = "from graphjit import config; print(config.cache_directory)"
    for environment, expected in (
        ({"XDG_CACHE_HOME": str(tmp_path), "HOME": "/elsewhere"}, tmp_path / "graphjit"),
        ({"HOME": str(tmp_path)}, tmp_path / ".cache" / "graphjit"),
        ({"GRAPHJIT_CACHE_DIR": ""}, None),
        ({"GRAPHJIT_CACHE_DIR": "below"}, Path.cwd() / "below"),
    ):
        done = subprocess.run([sys.executable, "-c", code], env=given | environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(expected)


def test_what_is_kept_is_found(kept):
    name = store.key("text", "0")
    assert name != store.key("text0", "")
    assert store.find(name) is None
    store.keep(name, b"code")
    assert store.find(name) == b"code"


def test_the_oldest_go_first(kept, monkeypatch):
    monkeypatch.setattr(store, "LIMIT", 4 * (1000 + 32))
    names = [store.key(str(i)) for i in range(6)]
    for i, name in enumerate(names):
        store.keep(name, bytes(1000))
        os.utime(kept / name, (i, i))
        if i == 3:
            assert store.find(names[0]) is not None
    assert [store.find(name) is not None for name in names] == [True, False, False, True, True, True]


def test_a_directory_that_vanishes_is_no_error(kept):
    name = store.key("text")
    store.keep(name, b"code")
    (kept / name).unlink()
    kept.rmdir()
    assert store.find(name) is None
    store.keep(name, b"code")
    assert store.find(name) is None
