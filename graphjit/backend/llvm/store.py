"""Object code of graphjit's own library, kept on disk.

Job: find what an earlier process compiled, keep what this one compiles.
Input: a key that says everything the code depends on.  Output: object code, or None.
Invariants: what is damaged, of another user or cannot be read counts as missing, and nothing here raises; a file appears whole or not at
all; together they take at most `LIMIT` bytes, those unused for longest go first.

The library (entry points, thread pool, parts of matrix products, rare paths of elementary functions) is the same in every process, like the
library that other packages bring along compiled.  Programs of users are not kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from graphjit import config

LIMIT = 32 << 20
_CHECK = hashlib.sha256().digest_size


def key(*facts: str) -> str:
    """A file name for what depends on these facts and nothing else."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(f"{len(fact)}:{fact}".encode())
    return digest.hexdigest()


@cache
def directory() -> Path | None:
    """Where object code is kept; None where it is not to be, or where others could put code."""
    if config.cache_directory is None:
        return None
    try:
        config.cache_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = config.cache_directory.stat()
    except OSError:
        return None
    foreign = hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & 0o022)
    return None if foreign or not os.access(config.cache_directory, os.W_OK) else config.cache_directory


def find(name: str) -> bytes | None:
    """The object code of that key."""
    where = directory()
    if where is None:
        return None
    try:
        content = (where / name).read_bytes()
        os.utime(where / name)
    except OSError:
        return None
    check, code = content[:_CHECK], content[_CHECK:]
    return code if hashlib.sha256(code).digest() == check else None


def keep(name: str, code: bytes) -> None:
    """Keep ``code`` for later processes, where that is possible."""
    where = directory()
    if where is None:
        return
    with suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=where, prefix="new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, where / name)
        except OSError:
            os.unlink(temporary)
            raise
        _trim(where)


def _trim(where: Path) -> None:
    files = sorted(((file, file.stat()) for file in where.iterdir()), key=lambda pair: pair[1].st_mtime_ns, reverse=True)
    total = 0
    for file, facts in files:
        total += facts.st_size
        if total > LIMIT:
            file.unlink()
