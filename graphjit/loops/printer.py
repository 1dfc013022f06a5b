"""Loop kernels as text for people and the command line.

Job: one line a statement, indented by loop nesting.
Input: a `LoopKernel`.  Output: text.
Invariant: everything that the back ends print from is in the text: loop kinds, extents, bounds, addresses,
combiners, error codes.

    kernel k0  # tanh mul
      t1 = 2.0 : f64
      simd i0 in 0..12 lanes 8:
        t0 = load in0[i0] : f64
        t2 = mul t0 t1 : f64
        store out0[i0] = t2
"""

from __future__ import annotations

import numpy as np

from graphjit.ir.types import short
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Check,
    Const,
    Expression,
    For,
    Index,
    Init,
    Let,
    Load,
    LoopKernel,
    Matrix,
    Multiply,
    Ref,
    Statement,
)

INDENT = "  "


def print_kernel(kernel: LoopKernel) -> str:
    """The text of one kernel."""
    lines = [
        f"kernel {kernel.name}"
        + (" quick" if kernel.quick else "")
        + (f"  # {kernel.comment}" if kernel.comment else "")
    ]
    lines += [
        f"{INDENT}local {buffer.name} : {short(buffer.dtype)}[{buffer.size}]" for buffer in kernel.locals
    ]
    # An explicit stack: loop nests are shallow, but no traversal here recurses on what a user's program
    # decides.
    stack = [(statement, 1) for statement in reversed(kernel.body)]
    while stack:
        statement, depth = stack.pop()
        lines.append(INDENT * depth + statement_text(statement))
        if isinstance(statement, For):
            stack += [(inner, depth + 1) for inner in reversed(statement.body)]
    return "\n".join(lines) + "\n"


def statement_text(statement: Statement) -> str:
    """One statement; of a loop, its head."""
    if isinstance(statement, Let):
        text = f"{statement.ref!r} = {expression_text(statement.value)} : {short(statement.ref.dtype)}"
        return text + _failing(statement.value)
    if isinstance(statement, Init):
        return f"{statement.ref!r} = {'running ' if statement.running else ''}accumulator {statement.combine} : {short(statement.ref.dtype)}"
    if isinstance(statement, Accumulate):
        factor = "" if statement.factor is None else f" times {statement.factor!r}"
        return f"accumulate {statement.ref!r}{factor} {statement.combine} {statement.value!r}"
    if isinstance(statement, Check):
        return f"check {statement.ok!r} else error {statement.code}"
    if isinstance(statement, For):
        return _head(statement)
    if isinstance(statement, Multiply):
        (m, n, k), how = statement.shape, "+=" if statement.adds else "="
        text = f"multiply {_matrix(statement.out)} {how} {_matrix(statement.x)} by {_matrix(statement.y)}, ({m}, {k}) by ({k}, {n})"
        bound = statement.bound
        return (
            text
            if bound is None
            else f"{text} while {bound.start!r} + {'k' if statement.adds else 'm'} < {bound.stop}"
        )
    place = f"{statement.buffer.name}[{_place(statement.address, statement.dynamic)}]"
    past = " past the caches" if statement.streamed else ""
    return f"store {place} {f'{statement.combine}=' if statement.combine else '='} {statement.value!r}{past}"


def expression_text(value: Expression) -> str:
    """The right-hand side of a definition."""
    if isinstance(value, Const):
        return _number(value.value)
    if isinstance(value, Load):
        text = f"load {value.buffer.name}[{_place(value.address, value.dynamic)}]"
        return text if value.guard is None else f"{text} where {value.guard!r}"
    if isinstance(value, Index):
        return f"index {value.value!r}"
    return " ".join([value.op, *map(repr, value.args)])


def _failing(value: Expression) -> str:
    code = getattr(value, "check", 0)
    return f" else error {code}" if code else ""


def _head(loop: For) -> str:
    parts = [f"{'for' if loop.kind == 'serial' else loop.kind} {loop.axis!r} in 0..{loop.extent}"]
    if loop.kind == "simd":
        parts.append(f"lanes {loop.lanes}")
    if loop.unroll != 1:
        parts.append(f"unroll {loop.unroll}")
    if loop.tail == "apart":
        parts.append("tail apart")
    if loop.calls:
        parts.append("calls")
    if loop.fetch:
        parts.append("fetch " + ", ".join(f"{buffer.name}[{address!r}]" for buffer, address in loop.fetch))
    if loop.bound is not None:
        parts.append(f"while {loop.bound.start!r} + {loop.axis!r} < {loop.bound.stop}")
    if loop.when is not None:
        parts.append(f"when {loop.when!r}")
    text = " ".join(parts) + ":"
    return f"{text}  # about {loop.nanoseconds / 1e3:.1f} us" if loop.nanoseconds else text


def _matrix(matrix: Matrix) -> str:
    return f"{matrix.buffer.name}[{matrix.address!r}; {matrix.row}, {matrix.column}]"


def _place(address: Address, dynamic: tuple[tuple[Ref, int], ...]) -> str:
    moved = [f"{ref!r}" if factor == 1 else f"{factor}*{ref!r}" for ref, factor in dynamic]
    fixed = [repr(address)] if address.terms or address.offset or not moved else []
    return " + ".join([*fixed, *moved])


def _number(value: np.generic) -> str:
    return str(value.item())
