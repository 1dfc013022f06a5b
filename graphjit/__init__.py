"""graphjit: compiled derivatives of plain NumPy code on CPUs.

Decorate a function written with ``import numpy as np``; it is traced once per signature, differentiated graph
to graph, and compiled to one native function.
"""

from __future__ import annotations

from graphjit.supported import require_supported_system

require_supported_system()  # before the libraries are loaded that would fail in their own words elsewhere

# ruff: noqa: E402
import importlib
from types import ModuleType

from graphjit import debug
from graphjit.api.associative import associative_scan
from graphjit.api.batches import vmap
from graphjit.api.checking import check_grads
from graphjit.api.compiled import get_num_threads, jit, set_num_threads
from graphjit.api.control import cond, fori_loop, map, scan, switch, while_loop
from graphjit.api.derivatives import grad, hvp, jvp, linearize, value_and_grad, vjp
from graphjit.api.implicit import custom_linear_solve, custom_root, fixed_point
from graphjit.api.jacobians import hessian, jacfwd, jacobian, jacrev
from graphjit.api.lowering import make_graph
from graphjit.api.rules import (
    checkpoint,
    checkpoint_name,
    checkpoint_policies,
    custom_jvp,
    custom_vjp,
    stop_gradient,
)
from graphjit.errors import (
    ConfigError,
    DerivativeError,
    GraphjitError,
    ShapeError,
    TraceError,
    UnsupportedError,
)
from graphjit.trace.nonfinite import debug_nans
from graphjit.trace.pytree import register_dataclass, register_pytree_node
from graphjit.trace.recording.concrete import disable_jit
from graphjit.view import notebook as _notebook  # noqa: F401  a method of every compiled function

__all__ = [
    "ConfigError",
    "DerivativeError",
    "GraphjitError",
    "ShapeError",
    "TraceError",
    "UnsupportedError",
    "associative_scan",
    "check_grads",
    "checkpoint",
    "checkpoint_name",
    "checkpoint_policies",
    "cond",
    "custom_jvp",
    "custom_linear_solve",
    "custom_root",
    "custom_vjp",
    "dask",
    "data",
    "debug",
    "debug_nans",
    "disable_jit",
    "distributed",
    "fixed_point",
    "fori_loop",
    "get_num_threads",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jit",
    "jvp",
    "linearize",
    "make_graph",
    "map",
    "nn",
    "optim",
    "random",
    "register_dataclass",
    "register_pytree_node",
    "scan",
    "set_num_threads",
    "stop_gradient",
    "switch",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
__version__ = "0.1.0"

_ON_DEMAND = ("dask", "data", "distributed", "nn", "optim", "random")
"""Modules that are loaded when they are first asked for, so that who only differentiates does not wait."""


def __getattr__(name: str) -> ModuleType:
    if name in _ON_DEMAND:
        return importlib.import_module(f"graphjit.{name}")
    raise AttributeError(f"module 'graphjit' has no attribute {name!r}")
