"""The tables by which NumPy's functions, ufuncs and methods find our implementations.

The modules of `trace.numpy`, `trace.arrays` and `trace.outside` fill them when they are imported; traced
values look them up. METHODS also holds what traced values need from modules that stand above them, under
names that ndarray does not have: ``__in_place__``, ``__concretise__``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Implementation = Callable[..., Any]

FUNCTIONS: dict[Callable[..., Any], Implementation] = {}
"""NumPy function -> our implementation on tracers; filled by ``implements``."""

UFUNCS: dict[np.ufunc, Implementation] = {}
"""ufunc without an op of its own -> implementation ``(trace, *args)``."""

METHODS: dict[str, Implementation] = {}
"""ndarray method or property name -> implementation whose first argument is the tracer."""

SHARING_FUNCTIONS: set[Any] = set()
"""Keys of FUNCTIONS whose results may lie in an argument's memory. Arrays of known values go to our
implementations of these too, not to NumPy's own, so that views are followed.
"""

SHARING_METHODS: set[str] = set()
"""Names of methods and properties that speak of memory, likewise."""


def implements(*functions: Callable[..., Any]) -> Callable[[Implementation], Implementation]:
    """Register an implementation for NumPy functions (same signature; arguments may be tracers or anything
    NumPy takes).
    """

    def register(implementation: Implementation) -> Implementation:
        for function in functions:
            assert FUNCTIONS.get(function, implementation) is implementation, (
                f"{function} is registered twice"
            )
            FUNCTIONS[function] = implementation
        return implementation

    return register
