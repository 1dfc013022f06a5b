"""The ops: one file per family, each op declared once with all of its rules.

Importing this package fills `graphjit.ir.opdef.REGISTRY`. ``graphjit ops`` lists what is there, and
``graphjit ops NAME`` shows one declaration.
"""

from __future__ import annotations

from graphjit.ops import (
    arithmetic,
    compare,
    contraction,
    correlation,
    creation,
    cumulative,
    indexing,
    linalg,
    logsumexp,
    powers,
    reductions,
    rounding,
    shapes,
    special,
    storage,
    transcendental,
)

__all__ = [
    "arithmetic",
    "compare",
    "contraction",
    "correlation",
    "creation",
    "cumulative",
    "indexing",
    "linalg",
    "logsumexp",
    "powers",
    "reductions",
    "rounding",
    "shapes",
    "special",
    "storage",
    "transcendental",
]
