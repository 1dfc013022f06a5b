"""Running values from lane to lane.

Job: every stage of an accumulation along the lanes of a vector, given what was accumulated before it.
Input: a vector of what joins (and of factors), the value so far. Output: the vector of stages and the last
one, as LLVM text.
Invariants: sums and all integers take log2(lanes) steps in a fixed tree (a stage depends on its own and
earlier lanes only); floating-point products and everything with factors go lane by lane, as NumPy does: a
product of neighbours could overflow where the running value does not.
"""

from __future__ import annotations

import numpy as np

from graphjit.backend.llvm.kernels.scalar import Scalars, constant, intrinsic, kind, vector
from graphjit.backend.llvm.writing.text import Function
from graphjit.ir.scalars import identity


def multiply_add(
    fn: Function, scalars: Scalars, dtype: np.dtype, lanes: int, x: str, factor: str, y: str
) -> str:
    """``x * factor + y``, rounded once where the machine can."""
    if dtype.kind == "f":
        return intrinsic(fn, "fmuladd", kind(dtype), lanes, (x, factor, y))
    return scalars.combine("add", dtype, lanes, scalars.combine("mul", dtype, lanes, x, factor), y)


def stages(
    fn: Function,
    scalars: Scalars,
    combine: str,
    dtype: np.dtype,
    lanes: int,
    before: str,
    value: str,
    factor: str | None,
) -> tuple[str, str]:
    """The running values of all lanes, and that of the last lane as a scalar."""
    if factor is not None or (combine == "mul" and dtype.kind == "f"):
        return _one_by_one(fn, scalars, combine, dtype, lanes, before, value, factor)
    of, element = vector(kind(dtype), lanes), kind(dtype)
    neutral = constant(identity(combine, dtype, True), lanes)
    width = 1
    while width < lanes:
        order = ", ".join(f"i32 {lanes + i if i < width else i - width}" for i in range(lanes))
        moved = fn.op(f"shufflevector {of} {value}, {of} {neutral}, <{lanes} x i32> <{order}>")
        value = scalars.combine(combine, dtype, lanes, moved, value)
        width *= 2
    first = fn.op(f"insertelement {of} poison, {element} {before}, i32 0")
    every = fn.op(f"shufflevector {of} {first}, {of} poison, <{lanes} x i32> zeroinitializer")
    total = fn.op(f"extractelement {of} {value}, i32 {lanes - 1}")
    return scalars.combine(combine, dtype, lanes, every, value), scalars.combine(
        combine, dtype, 1, before, total
    )


def _one_by_one(
    fn: Function,
    scalars: Scalars,
    combine: str,
    dtype: np.dtype,
    lanes: int,
    now: str,
    value: str,
    factor: str | None,
) -> tuple[str, str]:
    of, element = vector(kind(dtype), lanes), kind(dtype)
    found = "poison"
    for lane in range(lanes):
        joins = fn.op(f"extractelement {of} {value}, i32 {lane}")
        if factor is None:
            now = scalars.combine(combine, dtype, 1, now, joins)
        else:
            now = multiply_add(
                fn, scalars, dtype, 1, now, fn.op(f"extractelement {of} {factor}, i32 {lane}"), joins
            )
        found = fn.op(f"insertelement {of} {found}, {element} {now}, i32 {lane}")
    return found, now
