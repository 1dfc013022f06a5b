"""Functions that are single instructions: square root and rounding to integers.

Job: register them, so that every elementary function has a record.
Input and output: as in `function.py`.  Invariant: results are exactly rounded (sqrt) or exact.
"""

from __future__ import annotations

from graphjit.backend.llvm.math.function import function
from graphjit.backend.llvm.writing.vector import Vector

IEEE = "IEEE 754 operation"


@function("sqrt", 1, 0.5, 0.5, IEEE)
def sqrt(v: Vector, x: str) -> str:
    """Square root, exactly rounded; NaN below zero, -0 at -0."""
    return v.sqrt(x)


@function("floor", 1, 0.0, 0.0, IEEE)
def floor(v: Vector, x: str) -> str:
    """The largest integer not above x."""
    return v.floor(x)


@function("ceil", 1, 0.0, 0.0, IEEE)
def ceil(v: Vector, x: str) -> str:
    """The smallest integer not below x."""
    return v.call("ceil", x)


@function("trunc", 1, 0.0, 0.0, IEEE)
def trunc(v: Vector, x: str) -> str:
    """The integer part."""
    return v.trunc(x)


@function("rint", 1, 0.0, 0.0, IEEE)
def rint(v: Vector, x: str) -> str:
    """The nearest integer, ties to even."""
    return v.rint(x)
