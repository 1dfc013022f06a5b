"""Object code of the library on disk: found again, never trusted blindly, bounded."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from graphjit.backend.llvm.objects import jit, store

PROGRAM = """
import numpy as np
import graphjit
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.threads import pool

compiled = []
begin = jit._parsed
jit._parsed = lambda text, machine: (compiled.append(text), begin(text, machine))[1]
pool.configure(2)
a = np.arange(300 * 300.0).reshape(300, 300) / 9e4
result = graphjit.jit(lambda a: np.sin(a * 1e6) @ a)(a)
assert np.allclose(result, np.sin(a * 1e6) @ a)
print(len(compiled))
"""


def compiled(directory: Path | str, **environment: str) -> int:
    """How many modules a process compiles whose library lies there."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("XDG")}
    given |= {"GRAPHJIT_CACHE_DIR": str(directory)} | environment
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def contents(directory: Path) -> dict[str, bytes]:
    """What is kept there, without the mark."""
    return {
        file.name: file.read_bytes() for file in (directory / store.NAME).iterdir() if file.name != store.MARK
    }


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setattr(store.config, "cache_directory", str(tmp_path / "kept"))
    monkeypatch.setattr(store, "_opened", {})
    yield tmp_path / "kept" / store.NAME
    for folder in store._opened.values():
        if folder.descriptor is not None and folder.is_open():
            os.close(folder.descriptor)


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
    assert store.folder() is not None


def test_damaged_files_are_made_anew(tmp_path):
    cold = compiled(tmp_path)
    files = contents(tmp_path)
    for i, (name, content) in enumerate(files.items()):
        damaged = content[:-1] + bytes([content[-1] ^ 1]), b"", content[: len(content) // 2]
        (tmp_path / store.NAME / name).write_bytes(damaged[i % 3])
    assert compiled(tmp_path) == cold
    assert contents(tmp_path) == files


@pytest.mark.slow
def test_nothing_is_kept_where_it_should_not_be(tmp_path):
    shared = tmp_path / "shared"
    (shared / store.NAME).mkdir(parents=True)
    (shared / store.NAME).chmod(0o777)
    file = tmp_path / "file"
    file.write_text("")
    assert len({compiled(shared), compiled(""), compiled(file / "below")}) == 1
    assert contents(shared) == {}


def refused(capfd, why: str) -> None:
    """The store is off, nothing works and nothing fails, and that was said in one line."""
    for _ in range(2):
        assert store.folder() is None
        store.keep(store.key("refused"), b"code")
        assert store.find(store.key("refused")) is None
    said = capfd.readouterr().err
    assert why in said
    assert "GRAPHJIT_CACHE_DIR" in said
    assert said.count("\n") == 1


def large_files(place: Path) -> dict[str, int]:
    """Five old files of somebody, more than the store may hold."""
    place.mkdir(parents=True, exist_ok=True)
    for i in range(5):
        with open(place / f"thesis_{i}.tex", "wb") as file:
            file.truncate(9 << 20)
        os.utime(place / f"thesis_{i}.tex", (i, i))
    return {file.name: file.stat().st_size for file in place.iterdir()}


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_folder_of_the_user_with_our_name_stays(kept, capfd, mode):
    files = large_files(kept)
    kept.chmod(mode)
    refused(capfd, "was not made by graphjit" if mode == 0o700 else "has mode 755, not 700")
    assert {file.name: file.stat().st_size for file in kept.iterdir()} == files


def test_a_link_in_place_of_the_folder_is_not_followed(kept, tmp_path, capfd):
    files = large_files(tmp_path / "victim")
    (tmp_path / "victim").chmod(0o700)
    kept.parent.mkdir()
    kept.parent.chmod(0o777)
    kept.symlink_to(tmp_path / "victim")
    refused(capfd, "something else than a folder")
    assert {file.name: file.stat().st_size for file in (tmp_path / "victim").iterdir()} == files


def test_a_link_to_a_store_of_ours_is_not_followed_either(kept, tmp_path, capfd):
    store.keep(store.key("text"), b"code")
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    store._opened.clear()
    refused(capfd, "something else than a folder")


def test_a_planted_file_or_pipe_in_place_of_the_folder(kept, capfd):
    kept.parent.mkdir()
    os.mkfifo(kept)
    refused(capfd, "something else than a folder")


def test_a_file_on_the_way_to_the_folder(kept, capfd):
    kept.parent.write_text("mine")
    refused(capfd, "a part of the path is a file")
    assert kept.parent.read_text() == "mine"


def test_a_folder_of_another_user_is_not_used(kept, monkeypatch, capfd):
    kept.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(store.os, "geteuid", lambda: os.getuid() + 1)
    refused(capfd, "belongs to another user")
    assert list(kept.iterdir()) == []


def test_a_mark_that_is_not_ours_does_not_count(kept, capfd):
    kept.mkdir(parents=True, mode=0o700)
    (kept / store.MARK).write_text(
        "Signature: 8a477f597d28d172789f06886806bc55\n# This folder was made by another program.\n"
    )
    (kept / store.MARK).chmod(0o600)
    refused(capfd, "was not made by graphjit")


def test_an_empty_folder_of_mode_700_is_taken(kept):
    kept.mkdir(parents=True, mode=0o700)
    store.keep(store.key("text"), b"code")
    assert store.find(store.key("text")) == b"code"


def plant_link(path: Path, other: Path) -> None:
    path.symlink_to(other)


def plant_hard_link(path: Path, other: Path) -> None:
    path.hardlink_to(other)


def plant_pipe(path: Path, other: Path) -> None:
    os.mkfifo(path, 0o600)


def plant_folder(path: Path, other: Path) -> None:
    path.mkdir()


def plant_open_file(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())
    path.chmod(0o666)


def plant_readable_file(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (plant_link, "is no regular file"),
        (plant_hard_link, "has a second name"),
        (plant_pipe, "is no regular file"),
        (plant_folder, "is no regular file"),
        (plant_open_file, "has mode 666"),
        (plant_readable_file, "has mode 644"),
    ],
)
@pytest.mark.parametrize("first", ["find", "keep"])
def test_what_lies_in_place_of_a_file_is_neither_loaded_nor_replaced(
    kept, tmp_path, capfd, plant, why, first
):
    name = store.key("refused")
    store.keep(name, b"code")
    (kept / name).rename(tmp_path / "other")
    plant(kept / name, tmp_path / "other")
    before = (kept / name).lstat()
    if first == "find":
        assert store.find(name) is None
    else:
        store.keep(name, b"new code")
    refused(capfd, why)
    after = (kept / name).lstat()
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)
    assert (tmp_path / "other").read_bytes().endswith(b"code")
    assert not list(kept.glob("new-*"))


def test_a_file_of_another_user_is_not_loaded(kept, monkeypatch, capfd):
    name = store.key("text")
    store.keep(name, b"code")
    monkeypatch.setattr(store.os, "geteuid", lambda: os.getuid() + 1)
    assert store.find(name) is None
    refused(capfd, "belongs to another user")
    assert (kept / name).exists()


@pytest.mark.slow
def test_files_exchanged_with_each_other_count_as_missing(tmp_path):
    cold = compiled(tmp_path)
    files = contents(tmp_path)
    one, other = sorted(files)[:2]
    place = tmp_path / store.NAME
    (place / one).write_bytes(files[other])
    (place / other).write_bytes(files[one])
    assert compiled(tmp_path) == cold - len(files) + 2
    assert contents(tmp_path) == files


def test_a_folder_exchanged_after_it_was_opened_gains_nothing(kept, tmp_path):
    name = store.key("text")
    store.keep(name, b"code")
    kept.rename(tmp_path / "moved")
    kept.mkdir()
    (kept / name).write_bytes((tmp_path / "moved" / name).read_bytes().replace(b"code", b"evil"))
    assert store.find(name) == b"code"
    store.keep(store.key("more"), b"more")
    assert [file.name for file in kept.iterdir()] == [name]


def test_a_folder_opened_to_others_later_is_no_longer_used(kept, capfd):
    store.keep(store.key("refused"), b"code")
    kept.chmod(0o777)
    refused(capfd, "has mode 777")


def test_only_files_of_ours_are_deleted(kept, monkeypatch, tmp_path):
    store.keep(store.key("first"), bytes(50))
    theirs = {
        kept / "thesis.tex": 0o600,
        kept / "0123": 0o600,
        kept / store.key("theirs"): 0o644,
        kept / f"new-{'0' * 16}.txt": 0o600,
    }
    linked = kept / store.key("linked")
    (tmp_path / "photo").write_bytes(bytes(1000))
    (tmp_path / "photo").chmod(0o600)
    linked.hardlink_to(tmp_path / "photo")
    for path, mode in theirs.items():
        path.write_bytes(bytes(1000))
        path.chmod(mode)
        os.utime(path, (1, 1))
    left = kept / f"new-{'0' * 16}"  # of a process that died
    left.write_bytes(bytes(1000))
    left.chmod(0o600)
    os.utime(left, (1, 1))
    monkeypatch.setattr(store, "LIMIT", 100)
    store.keep(store.key("second"), bytes(50))
    assert all(path.exists() for path in (*theirs, linked))
    assert not left.exists()
    assert not (kept / store.key("first")).exists()
    assert store.find(store.key("second")) == bytes(50)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o277])
def test_modes_do_not_depend_on_the_umask(kept, mask):
    before = os.umask(mask)
    try:
        store.keep(store.key("text"), b"code")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (kept, kept.parent)}
    assert modes == {0o700 & ~mask}
    if modes == {0o700}:
        assert {stat.S_IMODE(file.stat().st_mode) for file in kept.iterdir()} == {0o600}
        assert store.find(store.key("text")) == b"code"


def test_a_full_disk_leaves_nothing_behind(kept, monkeypatch, capfd):
    store.keep(store.key("old"), b"old")
    monkeypatch.setattr(
        store.os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    store.keep(store.key("text"), b"code")
    assert store.find(store.key("text")) is None
    assert store.find(store.key("old")) == b"old"
    assert sorted(file.name for file in kept.iterdir()) == sorted([store.MARK, store.key("old")])
    assert capfd.readouterr().err == ""


def test_a_disk_that_is_only_read_serves(kept, monkeypatch, capfd):
    store.keep(store.key("text"), b"code")
    store._opened.clear()
    read_only = OSError(30, "Read-only file system")

    def refuse(*args, **keywords):
        raise read_only

    opens = os.open
    monkeypatch.setattr(store.os, "utime", refuse)
    monkeypatch.setattr(
        store.os,
        "open",
        lambda path, flags, *rest, **at: refuse() if flags & os.O_CREAT else opens(path, flags, *rest, **at),
    )
    assert store.find(store.key("text")) == b"code"
    store.keep(store.key("more"), b"more")
    assert store.find(store.key("more")) is None
    assert capfd.readouterr().err == ""


def test_a_program_that_closes_every_descriptor(kept, tmp_path):
    """As daemons do; the number may then belong to another folder."""
    name = store.key("text")
    store.keep(name, b"code")
    number = store.folder()
    assert number is not None
    (tmp_path / "theirs").mkdir()
    theirs = os.open(tmp_path / "theirs", os.O_RDONLY)
    os.dup2(theirs, number)
    os.close(theirs)
    try:
        assert store.find(name) == b"code"
        store.keep(store.key("more"), b"more")
        assert list((tmp_path / "theirs").iterdir()) == []
        assert os.path.samestat(os.fstat(number), (tmp_path / "theirs").stat())  # not ours to close
    finally:
        os.close(number)


def busy(seed: int) -> bool:
    """Keeps and finds in a small store that others use as well."""
    right = True
    for i in range(60):
        name = store.key(str((seed + i) % 7))
        found = store.find(name)
        right &= found in (None, name.encode() * 10)
        store.keep(name, name.encode() * 10)
    return right


def test_processes_that_write_and_delete_at_once(kept, monkeypatch, capfd):
    monkeypatch.setattr(store, "LIMIT", 3 * 672)
    with multiprocessing.get_context("fork").Pool(4) as pool:  # before the folder is there: all four make it
        assert all(pool.map(busy, range(4)))
    store.keep(store.key("last"), b"code")
    assert sum(file.stat().st_size for file in kept.iterdir() if file.name != store.MARK) <= 3 * 672
    assert not list(kept.glob("new-*"))
    assert capfd.readouterr().err == ""


def test_files_of_others_stay(kept, monkeypatch):
    monkeypatch.setattr(store, "LIMIT", 100)
    assert store.folder() is not None
    theirs = kept.parent / "thesis.dat"
    theirs.write_bytes(bytes(1000))
    (kept / "folder").mkdir()
    (kept / "link").symlink_to(theirs)
    for i in range(3):
        store.keep(store.key(str(i)), bytes(50))
    assert theirs.exists()
    assert [store.find(store.key(str(i))) is not None for i in range(3)] == [False, False, True]


@pytest.mark.slow
def test_the_usual_place(tmp_path):
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GRAPHJIT_CACHE_DIR", "XDG_CACHE_HOME")
    }
    code = "from graphjit import config; print(config.cache_directory)"
    for environment, expected in (
        ({"XDG_CACHE_HOME": str(tmp_path), "HOME": "/elsewhere"}, tmp_path / "graphjit"),
        ({"HOME": str(tmp_path)}, tmp_path / ".cache" / "graphjit"),
        ({"GRAPHJIT_CACHE_DIR": ""}, None),
        ({"GRAPHJIT_CACHE_DIR": "below"}, Path.cwd() / "below"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], env=given | environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(expected)


def test_a_working_directory_that_is_gone(tmp_path):
    code = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); from graphjit import config; print(config.cache_directory)"
    environment = os.environ | {
        "GRAPHJIT_CACHE_DIR": "below",
        "PYTHONPATH": str(Path(store.__file__).parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr


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
    for file in kept.iterdir():
        file.unlink()
    kept.rmdir()
    assert store.find(name) is None
    store.keep(name, b"code")
    assert store.find(name) is None
