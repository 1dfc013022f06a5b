"""The registry of elementary functions: the code, the accuracy and the source of each.

Job: give the modules of this package a decorator by which a body becomes a function:

    @function("floor", 1, 0.0, 0.0, "IEEE 754 operation")
    def floor(v: Vector, x: str) -> str:
        return v.floor(x)

Input: bodies.  Output: `FUNCTIONS`, by name.
Invariant: a body appends instructions to the function that ``v`` writes and returns one SSA name; lanes never
influence each other, so a body serves one lane and many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphjit.backend.llvm.writing.vector import Vector

Body = Callable[..., str]

FUNCTIONS: dict[str, MathFunction] = {}


@dataclass(frozen=True)
class MathFunction:
    """An elementary function of one or two arguments."""

    name: str
    arity: int
    ulp_f64: float  # largest error promised, in units in the last place of the exact result
    ulp_f32: float
    source: str  # where the method comes from
    doc: str
    body: Body
    out_of_line: bool  # long code: compiled once per process, called from everywhere


def function(
    name: str, arity: int, ulp_f64: float, ulp_f32: float, source: str, out_of_line: bool = False
) -> Callable:
    """Register a body ``(v, *args) -> name`` under ``name``; its docstring becomes the function's."""

    def register(body: Body) -> Body:
        doc = " ".join((body.__doc__ or "").split())
        FUNCTIONS[name] = MathFunction(name, arity, ulp_f64, ulp_f32, source, doc, body, out_of_line)
        return body

    return register


def through_float64(body: Body) -> Body:
    """A body that computes float32 in float64 and rounds the result once."""

    def widened(v: Vector, *args: str) -> str:
        if v.element == "double":
            return body(v, *args)
        wide = v.like("double")
        return wide.convert("fptrunc", body(wide, *(v.convert("fpext", a, wide) for a in args)), v)

    widened.__doc__ = body.__doc__
    return widened
