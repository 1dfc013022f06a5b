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

LIMIT = 32 << 20
_CHECK = 32


def _digest(content: bytes) -> bytes:
    import hashlib  # with what `keep` needs, a sixth of the time to import graphjit

    return hashlib.sha256(content).digest()


def key(*facts: str) -> str:
    """A file name for what depends on these facts and nothing else."""
    return _digest("".join(f"{len(fact)}:{fact}" for fact in facts).encode()).hex()


@cache
def directory() -> str | None:
    """Where object code is kept; None where it is not to be, or where others could put code."""
    where = config.cache_directory
    if where is None:
        return None
    try:
        os.makedirs(os.path.dirname(where) or ".", exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(where, 0o700)
        facts = os.stat(where)
    except OSError:
        return None
    foreign = hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & 0o022)
    return None if foreign or not os.access(where, os.W_OK | os.X_OK) else where


def find(name: str) -> bytes | None:
    """The object code of that key."""
    where = directory()
    if where is None:
        return None
    path = os.path.join(where, name)
    try:
        with open(path, "rb") as file:
            content = file.read()
        os.utime(path)
    except OSError:
        return None
    check, code = content[:_CHECK], content[_CHECK:]
    return code if _digest(code) == check else None


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
    with os.scandir(where) as found:
        files = sorted(((file.path, file.stat()) for file in found), key=lambda pair: pair[1].st_mtime_ns, reverse=True)
    total = 0
    for path, facts in files:
        total += facts.st_size
        if total > LIMIT:
            os.unlink(path)
