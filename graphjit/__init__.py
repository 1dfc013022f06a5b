"""graphjit: compiled derivatives of plain NumPy code on CPUs.

Decorate a function written with ``import numpy as np``; it is traced once per signature, differentiated graph
to graph, and compiled to one native function.
"""

from __future__ import annotations

from graphjit.supported import require_supported_system

require_supported_system()  # before the libraries are loaded that would fail in their own words elsewhere

# ruff: noqa: E402
from graphjit.api import get_num_threads, grad, jit, jvp, set_num_threads, value_and_grad, vjp
from graphjit.errors import (
    ConfigError,
    DerivativeError,
    GraphjitError,
    ShapeError,
    TraceError,
    UnsupportedError,
)
from graphjit.trace.pytree import register_dataclass, register_pytree_node
from graphjit.trace.recording.concrete import disable_jit

__all__ = [
    "ConfigError",
    "DerivativeError",
    "GraphjitError",
    "ShapeError",
    "TraceError",
    "UnsupportedError",
    "disable_jit",
    "get_num_threads",
    "grad",
    "jit",
    "jvp",
    "register_dataclass",
    "register_pytree_node",
    "set_num_threads",
    "value_and_grad",
    "vjp",
]
__version__ = "0.1.0"
