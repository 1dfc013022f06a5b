"""Importing this module makes NumPy code run on tracers: it fills the tables FUNCTIONS, UFUNCS and METHODS of ``tracer``."""

from __future__ import annotations

import graphjit.ops  # noqa: F401 (declares the ops before the tables look them up)
from graphjit.trace import buffers, copies, indexing, known, methods, scipy_special, sharing, ufunc_methods, ufuncs
from graphjit.trace.functions import (
    calculus,
    creation,
    diagonals,
    einsum,
    joining,
    linear,
    padding,
    reductions,
    refused,
    selection,
    shapes,
    statistics,
)

FAMILIES = (
    buffers,
    calculus,
    copies,
    creation,
    diagonals,
    einsum,
    indexing,
    joining,
    known,
    linear,
    methods,
    padding,
    reductions,
    refused,
    scipy_special,
    selection,
    shapes,
    sharing,
    statistics,
    ufunc_methods,
    ufuncs,
)
