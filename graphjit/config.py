"""Every environment variable that graphjit reads.

Job: name, type, default and help of each setting in one table; the only reader of ``os.environ``.
Invariant: read once, at import; changing the environment later has no effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One variable: how its text is read, what holds without it, what it does."""

    name: str
    read: Callable[[str], Any]
    default: Any
    help: str


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip() for word in text.split(",") if word.strip())


def _count(text: str) -> int | None:
    first = text.split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None


def _cache_directory(ours: str | None, parent: str | None) -> str | None:
    if ours is not None:
        try:
            return os.path.abspath(ours) if ours else None  # the working directory may change, and belong to somebody else then
        except OSError:  # or be gone already
            return None
    where = parent or os.path.expanduser("~/.cache")
    return os.path.join(where, "graphjit") if os.path.isabs(where) else None


SETTINGS = (
    Setting("GRAPHJIT_LOG", _words, frozenset(), "comma-separated topics printed to stderr: retrace, grad, compile, donate"),
    Setting("GRAPHJIT_NUM_THREADS", _count, None, "threads of compiled code; default: all cores of the affinity mask"),
    Setting("OMP_NUM_THREADS", _count, None, "threads of compiled code when GRAPHJIT_NUM_THREADS is not set"),
    Setting("GRAPHJIT_CACHE_DIR", str, None, "directory for object code of graphjit's own library; empty: none is kept"),
    Setting("XDG_CACHE_HOME", str, None, "where that directory, graphjit, lies when GRAPHJIT_CACHE_DIR is not set; default: ~/.cache"),
    Setting("GRAPHJIT_VERIFY", lambda text: text not in ("", "0"), False, "verify every graph after every pass"),
)

_values: dict[str, Any] = {
    setting.name: setting.read(os.environ[setting.name]) if setting.name in os.environ else setting.default
    for setting in SETTINGS
}

log_topics: frozenset[str] = _values["GRAPHJIT_LOG"]
num_threads: int | None = _values["GRAPHJIT_NUM_THREADS"] or _values["OMP_NUM_THREADS"]
verify_passes: bool = _values["GRAPHJIT_VERIFY"]
cache_directory: str | None = _cache_directory(_values["GRAPHJIT_CACHE_DIR"], _values["XDG_CACHE_HOME"])
