"""Import this module to make NumPy code run on tracers: it imports every family of functions, which fills the
tables FUNCTIONS, UFUNCS and METHODS.
"""

from __future__ import annotations

import graphjit.ops  # noqa: F401 (declares the ops before the tables look them up)
from graphjit.trace.arrays import copies, filling, items, sharing
from graphjit.trace.numpy import (
    calculus,
    creation,
    diagonals,
    einsum,
    joining,
    linear,
    methods,
    padding,
    reductions,
    refused,
    scipy_special,
    selection,
    shapes,
    sorted_tables,
    statistics,
    systems,
    ufunc_methods,
    ufuncs,
)

FAMILIES = (
    calculus,
    copies,
    creation,
    diagonals,
    einsum,
    filling,
    items,
    joining,
    linear,
    methods,
    padding,
    reductions,
    refused,
    scipy_special,
    selection,
    shapes,
    sharing,
    sorted_tables,
    statistics,
    systems,
    ufunc_methods,
    ufuncs,
)
