"""Which systems graphjit runs on, and the refusal at import of all others.

graphjit reads the memory layout of CPython's objects, makes native code for two processors, and starts its
threads through Linux. Elsewhere an import could end in a crash or in wrong numbers, so it ends in an
``ImportError`` that says what is wrong and what to do. `graphjit/__init__.py` calls
`require_supported_system` before it imports anything else; nothing here imports a library.
"""

from __future__ import annotations

import os
import sys

PROCESSORS = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "ARM64", "arm64": "ARM64"}
"""Names that kernels give to the supported processors, and ours for them."""

OLDEST, NEWEST = (3, 11), (3, 13)
"""Versions of CPython on which it runs."""

_VERSIONS = " to ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))
WHERE = f"graphjit runs on Linux (x86-64 or ARM64, 64 bits) with CPython {_VERSIONS}, not free-threaded"


def refusal() -> str | None:
    """Why this system is not supported and what to do; None where it is."""
    if not sys.platform.startswith("linux"):
        return f"this is {sys.platform}: use a Linux machine, a container, or WSL on Windows"
    if sys.implementation.name != "cpython":
        return f"this is {sys.implementation.name}: use CPython"
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = ".".join(str(part) for part in sys.version_info[:2])
        return f"this is Python {found}: make an environment with Python {_VERSIONS}"
    if _free_threaded():
        return "this is the free-threaded build: make an environment with the ordinary one"
    if sys.maxsize < 1 << 32:
        return "this Python has 32 bits: make an environment with a 64-bit Python"
    processor = os.uname().machine
    if processor.lower() not in PROCESSORS:
        return f"this processor is {processor}: use a machine with one of the two"
    return None


def require_supported_system() -> None:
    """Refuse what is not supported.

    Raises:
        ImportError: this system is not one of those on which graphjit runs; the message says what to do.
    """
    why = refusal()
    if why is not None:
        raise ImportError(f"{WHERE}; {why}.", name="graphjit")


def _free_threaded() -> bool:
    """Whether this is the build without the interpreter's lock, even if the lock was switched on."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return "free-threading" in sys.version or (enabled is not None and not enabled())
