"""Write out the short loops of kernels that run in each step of a loop, and make one kernel of neighbours.

Job: a step that works on small matrices runs many kernels of a few loads and operations each. Counters, tests
and jumps of loops over two or four elements take longer than these, so each iteration is written down; and
so do calls, so what was written out runs together, up to a step that was not.
Input and output: all loop kernels of a program: what runs once is not worth the longer code.
Invariant: every iteration computes the same values, in the same order.

    for i2 in 0..2:                 t1 = load in0[2*i0]
      t1 = load in0[2*i0 + i2]      accumulate t0 add t1
      accumulate t0 add t1          t2 = load in0[2*i0 + 1]
                                    accumulate t0 add t2
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.limits import Limits
from graphjit.loops.ir import (
    Address,
    Axis,
    Choose,
    For,
    LoopKernel,
    Lowered,
    Multiply,
    Ref,
    Repeat,
    Statement,
    defines,
    fresh_numbers,
    loads,
    map_refs,
    open_accumulators,
    renumbered,
    walk,
)
from graphjit.loops.passes.collapse import map_addresses

Body = tuple[Statement, ...]
UNROLLED = 4
"""Vectors of a loop in lanes up to which it is no loop."""


def write_out(lowered: Lowered, limits: Limits) -> Lowered:
    """Write out kernels that are short then, in programs that loops run, and join neighbours."""
    _, *inner = lowered.program.with_inner()
    kernels = dict(lowered.kernels)
    for program in inner:
        together: list[str] = []
        total = 0
        for step in program.steps:
            kernel = kernels.get(step.name)
            size = 0 if kernel is None or not _can_be_written(kernel) else _size(kernel.body)
            if kernel is None or not 0 < size <= limits.code.written_out:
                _join(kernels, together)
                together, total = [], 0
                continue
            if total + size > limits.code.joined:
                _join(kernels, together)
                together, total = [], 0
            kernels[step.name] = kernel.with_body(_body(kernel.body, fresh_numbers(kernel)))
            together.append(step.name)
            total += size
        _join(kernels, together)
    return Lowered(lowered.program, kernels)


def _join(kernels: dict[str, LoopKernel], names: Sequence[str]) -> None:
    """Let the first of some kernels do the work of all: the others have nothing left to do."""
    if len(names) < 2:
        return
    numbers = itertools.count()
    body = [s for name in names for s in renumbered(kernels[name].body, numbers)]
    comment = "; ".join(kernels[name].comment for name in names)
    joined = replace(kernels[names[0]], body=tuple(body), comment=comment)
    for name in names:
        kernels[name] = kernels[name].with_body(())
    kernels[names[0]] = joined


def _can_be_written(kernel: LoopKernel) -> bool:
    """Whether the loops of a kernel can be written out. Loads under a condition are in range for some
    iterations only; a loop in lanes over many vectors stays, and then what is around it may as well.
    """
    return (
        is_plain(kernel)
        and not kernel.quick
        and not kernel.locals
        and all(load.guard is None for load in loads(kernel.body))
        and all(
            s.kind == "serial" or s.extent <= UNROLLED * s.lanes
            for s in walk(kernel.body)
            if isinstance(s, For)
        )
    )


def is_plain(kernel: LoopKernel) -> bool:
    """Whether a kernel has loops of known lengths only, which run on one thread."""
    return not any(
        isinstance(s, Multiply | Repeat | Choose)
        or (isinstance(s, For) and (s.kind == "parallel" or s.bound is not None or s.when is not None))
        for s in walk(kernel.body)
    )


def _size(body: Body) -> int:
    """Statements of a body when its loops are written out."""
    return sum(
        _size(s.body) * (s.extent if s.kind == "serial" else 1) if isinstance(s, For) else 1 for s in body
    )


def _body(body: Body, numbers: Iterator[int]) -> Body:
    """Statements with loops written out; loops in lanes stay."""
    made: list[Statement] = []
    for statement in body:
        if not isinstance(statement, For):
            made.append(statement)
        elif statement.kind == "simd":
            made.append(_few_vectors(replace(statement, body=_body(statement.body, numbers))))
        else:
            inner = _body(statement.body, numbers)
            for number in range(statement.extent):
                made += _iteration(inner, statement.axis, number, numbers)
    return tuple(made)


def _few_vectors(loop: For) -> For:
    """A loop in lanes whose few vectors stand side by side; one that is not full comes behind the others."""
    vectors = loop.extent // loop.lanes
    if loop.is_ragged:
        return replace(loop, tail="apart", unroll=1 if vectors == 1 else loop.unroll)
    return replace(loop, unroll=vectors) if vectors <= UNROLLED and not open_accumulators(loop) else loop


def _iteration(body: Body, axis: Axis, number: int, numbers: Iterator[int]) -> list[Statement]:
    """The body of a loop in one iteration, with refs of its own."""

    def here(address: Address) -> Address:
        return address + Affine(address[axis] * number, {axis: -address[axis]})

    own = {ref: Ref(next(numbers), ref.dtype) for s in walk(body) for ref in defines(s)}
    return [map_refs(map_addresses(s, here), lambda ref: own.get(ref, ref)) for s in body]
