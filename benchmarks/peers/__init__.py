"""The libraries a workload can run under, each behind the same questions (`base.Peer`).

Invariant: a library that is not installed is reported, never required; nothing is imported before it is asked
for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence

from benchmarks.peers.base import Peer, Prepared

__all__ = ["DEFAULT_QUICK", "PEERS", "RIVALS", "Peer", "Prepared", "available", "version"]


def _maker(module: str, name: str) -> Callable[[], Peer]:
    return lambda: getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)()


PEERS: dict[str, Callable[[], Peer]] = {
    "graphjit": _maker("numpy_like", "Graphjit"),
    "numpy": _maker("numpy_like", "NumpyForward"),
    "autograd": _maker("numpy_like", "Autograd"),
    "jax": _maker("numpy_like", "Jax"),
    "torch": _maker("pytorch", "Torch"),
    "torch.compile": _maker("pytorch", "TorchCompile"),
    "pytensor": _maker("symbolic", "PyTensor"),
    "numba": _maker("reference", "HandwrittenNumba"),
    "native": _maker("reference", "Native"),
    "native-reused": _maker("reference", "NativeReused"),
}

RIVALS = ("jax", "torch", "torch.compile", "autograd", "pytensor")
"""The libraries that differentiate a function by themselves: the best of these is `the best peer`."""

DEFAULT_QUICK = tuple(name for name in PEERS if name not in ("torch.compile", "pytensor"))
"""Peers of a quick run: without those that take seconds to compile each workload."""


def available(names: Sequence[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers among `names` that can be had, and for the others the reason why not."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = PEERS[name]()
        except (ImportError, FileNotFoundError) as error:
            missing[name] = str(error)
    return found, missing


def version(name: str) -> str:
    """Installed version of the distribution `name`, empty if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
