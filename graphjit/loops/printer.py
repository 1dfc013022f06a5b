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
    Choose,
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
    Peek,
    Positions,
    Push,
    Repeat,
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
    stack: list[tuple[Statement | str, int]] = [(statement, 1) for statement in reversed(kernel.body)]
    while stack:
        statement, depth = stack.pop()
        if isinstance(statement, str):
            lines.append(INDENT * depth + statement)
            continue
        lines.append(INDENT * depth + statement_text(statement))
        stack += reversed(_inside(statement, depth))
    return "\n".join(lines) + "\n"


def _inside(statement: Statement, depth: int) -> list[tuple[Statement | str, int]]:
    """What stands in a statement, with words for where parts begin."""
    found: list[tuple[Statement | str, int]] = []
    if isinstance(statement, Repeat):
        found += [(inner, depth + 1) for inner in statement.test]
        if statement.holds is not None:
            found.append((f"while {statement.holds!r}", depth + 1))
        found += [(inner, depth + 1) for inner in statement.body]
        pairs = ", ".join(f"{c.ref!r} = {c.after!r}" for c in statement.carried)
        return [*found, (f"next {pairs}".rstrip(), depth + 1)]
    if isinstance(statement, Choose):
        for number, branch in enumerate(statement.branches):
            values = ", ".join(f"{ref!r} = {refs[number]!r}" for ref, refs in statement.results)
            found += [(f"branch {number}:", depth), *((inner, depth + 1) for inner in branch)]
            found.append((f"leave {values}", depth + 1))
        return found
    return [(inner, depth + 1) for inner in statement.body] if isinstance(statement, For) else []


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
    if isinstance(statement, For | Repeat | Choose):
        return _head(statement)
    if isinstance(statement, Push):
        rows = (f"{w.ref!r} = {w.before!r} with {', '.join(map(repr, w.values))}" for w in statement.writes)
        return f"write {'; '.join(rows)}"
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
    if isinstance(value, Peek):
        return f"tape before {value.tape!r}" if value.at < 0 else f"read {value.tape!r}[{value.at}]"
    return " ".join([value.op, *map(repr, value.args)])


def _failing(value: Expression) -> str:
    code = getattr(value, "check", 0)
    return f" else error {code}" if code else ""


def _head(loop: For | Repeat | Choose) -> str:
    if isinstance(loop, Choose):
        return f"choose {loop.which!r}"
    if isinstance(loop, Repeat):
        carried = ", ".join(f"{c.ref!r} = {c.start!r}" for c in loop.carried)
        steps = f" in 0..{loop.extent}" if loop.holds is None else ""
        lends = " giving tapes back" if loop.lends else ""
        return f"repeat {loop.axis!r}{steps} from {carried}{lends}:"
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


def _place(address: Address, dynamic: Positions) -> str:
    moved = [f"{ref!r}" if factor == 1 else f"{factor}*{ref!r}" for ref, factor in dynamic]
    fixed = [repr(address)] if address.terms or address.offset or not moved else []
    return " + ".join([*fixed, *moved])


def _number(value: np.generic) -> str:
    return str(value.item())
