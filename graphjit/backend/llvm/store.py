"""Object code of graphjit's own library, kept on disk.

Job: find what an earlier process compiled, keep what this one compiles.
Input: a key that says everything the code depends on.  Output: object code, or None.
Invariants: what is damaged, of another user or cannot be read counts as missing, and nothing here raises; a file appears whole or not at
all; together they take at most `LIMIT` bytes, those unused for longest go first.

The library (entry points, thread pool, parts of matrix products, rare paths of elementary functions) is the same in every process, like the
library that other packages bring along compiled.  Programs of users are not kept.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache

from graphjit import config

NAME = "code"
"""Of the directory within the one that is configured."""
LIMIT = 32 << 20
"""Bytes of all files."""
_CHECK = 32


def _digest(content: bytes) -> bytes:
    import hashlib  # with what `keep` needs, a sixth of the time to import graphjit

    return hashlib.sha256(content).digest()


def key(*facts: str) -> str:
    """A file name for what depends on these facts and nothing else."""
    return _digest("".join(f"{len(fact)}:{fact}" for fact in facts).encode()).hex()


@cache
def directory() -> str | None:
    """Where object code is kept; None where it is not to be, or where others may write.

    It is a directory of its own, since old files are deleted there.
    """
    if config.cache_directory is None:
        return None
    where = os.path.join(config.cache_directory, NAME)
    try:
        os.makedirs(os.path.dirname(where) or ".", exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(where, 0o700)
        facts = os.stat(where)
    except OSError:
        return None
    foreign = hasattr(os, "geteuid") and (facts.st_uid != os.geteuid() or facts.st_mode & 0o022)
    return None if foreign or not os.access(where, os.W_OK | os.X_OK) else where


def find(name: str) -> bytes | None:
    """The object code of that key."""
    where = directory()
    if where is None:
        return None
    path = os.path.join(where, name)
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            content = file.read()
        os.utime(path)
    except OSError:
        return None
    check, code = content[:_CHECK], content[_CHECK:]
    return code if code and _digest(code) == check else None


def keep(name: str, code: bytes) -> None:
    """Keep ``code`` for later processes, where that is possible."""
    import tempfile

    where = directory()
    if where is None:
        return
    with suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=where, prefix="new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(code) + code)
            os.replace(temporary, os.path.join(where, name))
        except OSError:
            os.unlink(temporary)
            raise
        _trim(where)


def _trim(where: str) -> None:
    files = []
    with os.scandir(where) as found:
        for file in found:
            with suppress(OSError):  # another process may trim as well
                if file.is_file(follow_symlinks=False):
                    facts = file.stat()
                    files.append((facts.st_mtime_ns, facts.st_size, file.path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > LIMIT:
            with suppress(OSError):
                os.unlink(path)
