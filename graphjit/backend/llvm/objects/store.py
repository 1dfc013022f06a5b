"""Object code of graphjit's own library, kept on disk between processes.

`find` gives what an earlier process compiled, `keep` keeps what this one compiles. The key says everything
that the code depends on. The library (entry points, thread pool, parts of matrix products, rare paths of
elementary functions) is the same in every process, like the library that other packages bring along compiled.
Programs of users are not kept.

Nothing is read, replaced or deleted but files that this module wrote: regular files of this user with mode
600, one name and a name of ours, in a folder of mode 700 that bears our mark. The folder is opened once and
used by descriptor, so whoever exchanges it or its parents gains nothing. If something else lies where a file
or the folder should be, it stays as it is: the store is off for this process then, and says so once.

What is damaged or cannot be read counts as missing. A file appears whole or not at all. Together files take
at most `LIMIT` bytes; those unused for longest go first. Nothing here raises.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from graphjit import config

NAME = "objects"
"""Of the folder within the directory that is configured."""
LIMIT = 32 << 20
"""Bytes of all files."""
MARK = "CACHEDIR.TAG"
"""Name of the file that makes the folder ours; backup programs know it by its first line."""
_MARK_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Object code of graphjit, which deletes and replaces files of this folder.\n"
_TEMPORARY = "new-"
_HEX = frozenset("0123456789abcdef")
_CHECK = 32
_READ = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)  # a pipe must not stop us
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_ABLE = (
    hasattr(os, "geteuid")
    and hasattr(os, "O_NOFOLLOW")
    and os.listdir in os.supports_fd
    and {os.open, os.stat, os.rename, os.unlink} <= os.supports_dir_fd
)


class _InTheWayError(Exception):
    """What lies there is not ours; the text names it and says why."""


class _Folder:
    """The open folder; without a descriptor, the store is off."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor
        self.identity = _identity(os.fstat(descriptor)) if descriptor is not None else None

    def is_open(self) -> bool:
        """Whether the descriptor is still that of the folder: programs that become daemons close all there
        are.
        """
        if self.descriptor is None:
            return True
        try:
            return _identity(os.fstat(self.descriptor)) == self.identity
        except OSError:
            return False


_opened: dict[str, _Folder] = {}
"""By path; changed by single operations of the dictionary only, since a lock might be held when the process
forks.
"""


def _digest(content: bytes) -> bytes:
    import hashlib  # with what `keep` needs, a sixth of the time to import graphjit

    return hashlib.sha256(content).digest()


def key(*facts: str) -> str:
    """A file name for what depends on these facts and nothing else."""
    return _digest("".join(f"{len(fact)}:{fact}" for fact in facts).encode()).hex()


def folder() -> int | None:
    """Descriptor of the folder of object code; None where none is kept."""
    if config.cache_directory is None or not _ABLE:
        return None
    where = os.path.join(config.cache_directory, NAME)
    found = _opened.get(where)
    if found is not None and not found.is_open():
        _opened.pop(where, None)  # its number may be another file's by now, so it is not ours to close
        found = None
    if found is None:
        fresh = _Folder(_open_folder(where))
        found = _opened.setdefault(where, fresh)
        if found is not fresh and fresh.descriptor is not None:  # another thread was faster
            os.close(fresh.descriptor)
    return found.descriptor


def find(name: str) -> bytes | None:
    """The object code of that key."""
    where = folder()
    if where is None:
        return None
    try:
        content = _read(where, name)
    except _InTheWayError as reason:
        _switch_off(reason)
        return None
    check, code = content[:_CHECK], content[_CHECK:]
    return code if code and _bound(name, code) == check else None


def keep(name: str, code: bytes) -> None:
    """Keep ``code`` for later processes, where that is possible."""
    where = folder()
    if where is None:
        return
    try:
        with suppress(OSError):  # a full disk, one that is only read, a folder that is gone
            _write(where, name, _bound(name, code) + code)
            _trim(where)
    except _InTheWayError as reason:
        _switch_off(reason)


def _bound(name: str, code: bytes) -> bytes:
    """The digest that says: this code belongs to this key."""
    return _digest(name.encode() + code)


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_uid, facts.st_mode


def _switch_off(reason: Exception) -> None:
    """No store from now on; the descriptor stays open, since another thread may be using it."""
    if config.cache_directory is None:
        return
    where = os.path.join(config.cache_directory, NAME)
    old = _opened.get(where)
    _opened[where] = _Folder(None)
    if old is None or old.descriptor is not None:
        _say(where, reason)


def _say(where: str, reason: Exception) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(
                f"graphjit: no object code is kept in {where!r}: {reason}. It is left as it is; move it, or set GRAPHJIT_CACHE_DIR to "
                "another directory (empty: keep none)",
                file=sys.stderr,
            )


def _open_folder(where: str) -> int | None:
    """The folder, made and marked if need be; None where that cannot be, said if something lies in the
    way.
    """
    descriptor = None
    try:
        _make_folders(where)
        if not stat.S_ISDIR(os.lstat(where).st_mode):
            raise _InTheWayError("something else than a folder lies there")
        descriptor = os.open(where, _READ | os.O_DIRECTORY)
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid():
            raise _InTheWayError("the folder belongs to another user")
        if facts.st_mode & 0o777 != 0o700:
            raise _InTheWayError(f"the folder has mode {facts.st_mode & 0o777:03o}, not 700")
        _mark(descriptor)
        return descriptor
    except NotADirectoryError:
        _say(where, _InTheWayError("a part of the path is a file"))
    except _InTheWayError as reason:
        _say(where, reason)
    except OSError:  # no such place to be had: read-only, full, forbidden
        pass
    if descriptor is not None:
        os.close(descriptor)
    return None


def _make_folders(where: str) -> None:
    """Folders up to ``where``, those that are made for this user only, whatever the process allows others in
    new ones.
    """
    missing = []
    while not os.path.lexists(where):
        missing.append(where)
        where = os.path.dirname(where)
    for path in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            os.mkdir(path, 0o700)


def _mark(at: int) -> None:
    """See to it that the folder is ours: it bears our mark, or it is empty and gets it."""
    for _ in range(2):  # another process may mark it between our two looks
        if _read(at, MARK) == _MARK_TEXT:
            return
        if all(name.startswith(_TEMPORARY) and _is_our_name(name) for name in os.listdir(at)):
            return _write(at, MARK, _MARK_TEXT)
    raise _InTheWayError("the folder holds other files and was not made by graphjit")


def _is_our_name(name: str) -> bool:
    digits = name.removeprefix(_TEMPORARY)
    return len(digits) == (64 if digits == name else 16) and _HEX.issuperset(digits)


def _check_ours(name: str, facts: os.stat_result) -> None:
    why = ""
    if not stat.S_ISREG(facts.st_mode):
        why = "is no regular file"
    elif facts.st_uid != os.geteuid():
        why = "belongs to another user"
    elif stat.S_IMODE(facts.st_mode) != 0o600:
        why = f"has mode {stat.S_IMODE(facts.st_mode):03o}, not 600"
    elif facts.st_nlink > 1:
        why = "has a second name (hard link)"
    if why:
        raise _InTheWayError(f"{name} {why}")


def _facts(at: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=at, follow_symlinks=False)


def _read(at: int, name: str) -> bytes:
    """What a file of ours holds; nothing if it is not there or cannot be read."""
    try:
        _check_ours(name, _facts(at, name))  # before it is opened: opening a device may do something
        file = os.open(name, _READ, dir_fd=at)
        try:
            facts = os.fstat(file)
            _check_ours(name, facts)
            content = b""
            while len(content) < facts.st_size and (more := os.read(file, facts.st_size - len(content))):
                content += more
            with suppress(OSError):  # a disk that is only read serves as well
                os.utime(file)
        finally:
            os.close(file)
    except OSError:
        return b""
    return content


def _write(at: int, name: str, content: bytes) -> None:
    """Write a file whole or not at all; what is there and not ours is not replaced."""
    temporary = f"{_TEMPORARY}{os.urandom(8).hex()}"
    handle = os.open(temporary, _WRITE, 0o600, dir_fd=at)
    try:
        try:
            os.fchmod(handle, 0o600)  # the process may forbid its new files even to itself
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)
        with suppress(FileNotFoundError):
            _check_ours(name, _facts(at, name))
        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=at)
        raise


def _trim(at: int) -> None:
    """Delete what was used longest ago until the rest fits."""
    files = []
    for name in filter(_is_our_name, os.listdir(at)):
        with suppress(
            OSError, _InTheWayError
        ):  # another process may trim as well; what is not ours does not count
            facts = _facts(at, name)
            _check_ours(name, facts)
            files.append((facts.st_mtime_ns, facts.st_size, name))
    total = 0
    for _, size, name in sorted(files, reverse=True):
        total += size
        if total > LIMIT:
            with suppress(OSError):
                os.unlink(name, dir_fd=at)
