"""Where elementary functions are called rather than inlined, and which kernels are not optimised.

Job: keep code generation short where it would take longer than it saves.
Input and output: a loop kernel.
Invariant: values do not depend on the choice; the function that is called computes what is inlined elsewhere.

An inlined elementary function is fast, but takes a millisecond to generate: a loop body with many of them, or
one that runs for few elements, calls them. So do chains of functions that wait for one another: one call
computes several vectors, whose latencies then overlap.
"""

from __future__ import annotations

from dataclasses import replace

from graphjit.ir.scalars import is_function
from graphjit.limits import Limits
from graphjit.loops.ir import Choose, For, Let, LoopKernel, Repeat, Scalar, Statement, walk
from graphjit.loops.passes.vectorize import is_chained


def call_functions(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Mark loops whose functions are calls, and kernels that are long and straight."""
    straight = not any(isinstance(s, For | Repeat | Choose) for s in kernel.body)
    quick = straight and len(kernel.body) > limits.code.straight_line
    return replace(kernel, body=_body(kernel.body, 1, limits), quick=quick)


def _body(body: tuple[Statement, ...], runs: int, limits: Limits) -> tuple[Statement, ...]:
    """Statements of a loop body that runs so many times in all."""
    return tuple(_loop(s, runs * s.extent, limits) if isinstance(s, For) else s for s in body)


def _loop(loop: For, runs: int, limits: Limits) -> For:
    functions = sum(
        isinstance(s, Let) and isinstance(s.value, Scalar) and is_function(s.value.op)
        for s in walk(loop.body)
    )
    most = limits.code.calls_short if runs <= limits.code.short else limits.code.calls
    calls = functions > most or (loop.unroll > 1 and is_chained(loop, limits.vectors))
    return replace(loop, calls=calls, body=_body(loop.body, runs, limits))
