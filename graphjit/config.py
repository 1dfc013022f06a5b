"""Every environment variable that graphjit reads: name, meaning and default in one table.

This is the only reader of ``os.environ``; ``graphjit flags`` prints the table.

Invariants: variables are read once, at import; changing one later has no effect. A variable of ours that is
misspelt, or whose text means nothing, is an error at import: a setting that is silently ignored costs an
afternoon.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphjit.errors import ConfigError

TOPICS = {
    "retrace": "why a function is traced again",
    "grad": "arguments that a result does not depend on",
    "compile": "every compilation: size, steps, time",
    "jacobian": "which mode a Jacobian is computed by, and why",
    "control": "functions whose Python control flow is converted, and why",
    "donate": "donated arguments that cannot be reused",
    "reroll": "Python loops that are compiled as loops, and why others are not",
}
"""What GRAPHJIT_LOG can print."""

OURS = "GRAPHJIT_"


@dataclass(frozen=True)
class Setting:
    """One variable: how its text is read, what holds without it, what it does."""

    name: str
    read: Callable[[str], Any]
    default: Any
    help: str


def _topics(text: str) -> frozenset[str]:
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    unknown = sorted(words - TOPICS.keys())
    if unknown:
        raise ValueError(f"there is no topic {unknown[0]!r}; the topics are {', '.join(TOPICS)}")
    return words


def _count(text: str) -> int | None:
    if not text.strip():
        return None
    if not (text.strip().isdecimal() and int(text) > 0):
        raise ValueError("it must be a number of threads, 1 or more")
    return int(text)


def _foreign_count(text: str) -> int | None:
    """OpenMP's variable: a list whose first number counts. Text without sense is for others to refuse."""
    first = text.split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _switch(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("", "0", "1", "false", "true", "off", "on", "no", "yes"):
        raise ValueError("it is a switch: 1 or 0")
    return word in ("1", "true", "on", "yes")


def _frames(text: str) -> str:
    if text.strip() not in ("", "user", "full"):
        raise ValueError("it must be user or full")
    return text.strip() or "user"


def _directory(text: str) -> str:
    if os.path.exists(text) and not os.path.isdir(text):
        raise ValueError("is no directory")
    return text


def _cache_directory(ours: str | None, parent: str | None) -> str | None:
    if ours is not None:
        try:
            # The working directory may change, and belong to somebody else then.
            return os.path.abspath(ours) if ours else None
        except OSError:  # or be gone already
            return None
    where = parent or os.path.expanduser("~/.cache")
    return os.path.join(where, "graphjit") if os.path.isabs(where) else None


SETTINGS = (
    Setting(
        "GRAPHJIT_LOG", _topics, frozenset(), f"comma-separated topics printed to stderr: {', '.join(TOPICS)}"
    ),
    Setting(
        "GRAPHJIT_NUM_THREADS",
        _count,
        None,
        "threads of compiled code; default: all cores of the affinity mask",
    ),
    Setting(
        "OMP_NUM_THREADS",
        _foreign_count,
        None,
        "threads of compiled code when GRAPHJIT_NUM_THREADS is not set",
    ),
    Setting(
        "GRAPHJIT_CACHE_DIR",
        str,
        None,
        "directory for object code of graphjit's own library; empty: none is kept",
    ),
    Setting(
        "XDG_CACHE_HOME",
        str,
        None,
        "where that directory, graphjit, lies when GRAPHJIT_CACHE_DIR is not set; default: ~/.cache",
    ),
    Setting(
        "GRAPHJIT_DISABLE_JIT", _switch, False, "1: nothing is compiled, as inside graphjit.disable_jit()"
    ),
    Setting(
        "GRAPHJIT_PYTHON_CONTROL_FLOW",
        _switch,
        True,
        "0: if, while and for on traced values are errors, as with python_control_flow=False",
    ),
    Setting(
        "GRAPHJIT_DEBUG_NANS",
        _switch,
        False,
        "1: a result with a new NaN or infinity is an error that names the operation, as inside graphjit.debug_nans()",
    ),
    Setting(
        "GRAPHJIT_MACHINE",
        str,
        None,
        "the machine that code is made for: avx2, baseline, or a JSON file (graphjit machine)",
    ),
    Setting(
        "GRAPHJIT_TRACEBACK",
        _frames,
        "user",
        "full: tracebacks show graphjit's own frames too; user: only those of your code",
    ),
    Setting("GRAPHJIT_VERIFY", _switch, False, "1: verify graphs and loops after every pass"),
    Setting(
        "GRAPHJIT_DUMP",
        _directory,
        "",
        "directory in which every compilation writes what each pass changed, in numbered files",
    ),
)


def read(environment: Mapping[str, str]) -> dict[str, Any]:
    """Values of all settings.

    Raises:
        ConfigError: a variable that begins with GRAPHJIT_ has a name that does not exist or a text that means
        nothing.
    """
    names = [setting.name for setting in SETTINGS]
    for name in sorted(environment):
        if name.startswith(OURS) and name not in names:
            import difflib  # here: importing graphjit must stay quick

            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise ConfigError(
                f"there is no setting {name}{hint} graphjit reads {', '.join(n for n in names if n.startswith(OURS))}"
            )
    values = {}
    for setting in SETTINGS:
        try:
            values[setting.name] = (
                setting.read(environment[setting.name]) if setting.name in environment else setting.default
            )
        except ValueError as error:
            raise ConfigError(f"{setting.name}={environment[setting.name]!r}: {error}") from None
    return values


_values = read(os.environ)

log_topics: frozenset[str] = _values["GRAPHJIT_LOG"]
num_threads: int | None = _values["GRAPHJIT_NUM_THREADS"] or _values["OMP_NUM_THREADS"]
verify_passes: bool = _values["GRAPHJIT_VERIFY"]
cache_directory: str | None = _cache_directory(_values["GRAPHJIT_CACHE_DIR"], _values["XDG_CACHE_HOME"])
dump_directory: str | None = os.path.abspath(_values["GRAPHJIT_DUMP"]) if _values["GRAPHJIT_DUMP"] else None
machine: str | None = _values["GRAPHJIT_MACHINE"] or None
disable_jit: bool = _values["GRAPHJIT_DISABLE_JIT"]
python_control_flow: bool = _values["GRAPHJIT_PYTHON_CONTROL_FLOW"]
debug_nans: bool = _values["GRAPHJIT_DEBUG_NANS"]
full_traceback: bool = _values["GRAPHJIT_TRACEBACK"] == "full"
