"""The ops: one file per family, each op declared once with all of its rules.

Importing this package fills `graphjit.ir.opdef.REGISTRY`. ``graphjit ops`` lists what is there, and
``graphjit ops NAME`` shows one declaration.
"""

from __future__ import annotations

from graphjit.ops import (
    arithmetic,
    bodies,
    compare,
    contraction,
    control,
    correlation,
    creation,
    cumulative,
    folds,
    indexing,
    linalg,
    logsumexp,
    marks,
    powers,
    reductions,
    rounding,
    shapes,
    special,
    splicing,
    storage,
    transcendental,
    windows,
)

__all__ = [
    "arithmetic",
    "bodies",
    "compare",
    "contraction",
    "control",
    "correlation",
    "creation",
    "cumulative",
    "folds",
    "indexing",
    "linalg",
    "logsumexp",
    "marks",
    "powers",
    "reductions",
    "rounding",
    "shapes",
    "special",
    "splicing",
    "storage",
    "transcendental",
    "windows",
]
