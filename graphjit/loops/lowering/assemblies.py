"""Lower steps that are written piece by piece: embed with gaps, scatter, argmax, sliding products.

Job: loop nests that push values to computed addresses, or look for a position.
Input: an `Assembly`.  Output: a `LoopKernel`.
Invariant: every element of the result is written before the kernel ends; elements added to one place are
added in index order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import axis_index, index_over, linear
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64
from graphjit.limits import Limits, ScatterLimits
from graphjit.loops import ir
from graphjit.loops.ir import Address, Axis, Let, LoopKernel, Statement, Store
from graphjit.loops.lowering.kernels import Nest
from graphjit.schedule.access import storage
from graphjit.schedule.program import Assembly, Program


def lower_assembly(program: Program, step: Assembly, limits: Limits) -> LoopKernel:
    """Loop IR of a step that is not a fused kernel."""
    kind = step.node.op.lower.kind  # type: ignore[union-attr]
    if kind not in LOWERINGS:
        raise IRError(f"no loop lowering for {step.node!r}")
    return LoopKernel(
        step.name, tuple(LOWERINGS[kind](program, step.node, limits)), comment=step.node.op.name
    )


def _nest(program: Program, shape: tuple[int, ...]) -> tuple[Nest, tuple[Address, ...]]:
    axes = [Axis(f"i{i}") for i in range(len(shape))]
    nest = Nest(program, [(a, n) for a, n in zip(axes, shape, strict=True) if n != 1])
    return nest, index_over(axes, shape)


def _push(
    program: Program, value: Node, out: Node, place: Callable[[tuple[Address, ...]], Address]
) -> list[Statement]:
    """Write every element of ``value`` to ``place(index)``."""
    nest, index = _nest(program, value.shape)
    ref = nest.value(value, index)
    nest.lists[-1].append(Store(program.buffers[out], place(index), ref))
    nest.close(len(nest.axes), len(nest.axes))
    return nest.lists[0]


def _fill(program: Program, out: Node, value: Any) -> list[Statement]:
    nest, index = _nest(program, out.shape)
    nest.lists[-1].append(Store(program.buffers[out], linear(out.shape, index), nest.const(value, out.dtype)))
    nest.close(len(nest.axes), len(nest.axes))
    return nest.lists[0]


def _renumbered(parts: list[list[Statement]]) -> list[Statement]:
    """Several nests in one kernel."""
    counter = itertools.count()
    return [statement for part in parts for statement in ir.renumbered(tuple(part), counter)]


def _embed(program: Program, node: Node, limits: Limits) -> list[Statement]:
    starts: Any = node.attrs["starts"]
    steps: Any = node.attrs["steps"]

    def place(index: tuple[Address, ...]) -> Address:
        return linear(node.shape, [i * t + s for i, s, t in zip(index, starts, steps, strict=True)])

    return _renumbered([_fill(program, node, 0), _push(program, node.args[0], node, place)])


def _scatter(program: Program, node: Node, limits: Limits) -> list[Statement]:
    """Zeros (or a copy), then every update at its data-dependent place, in index order."""
    axes: Any = node.attrs["axes"]
    adding = node.op.name == "scatter_add"
    updates, indices = (node.args[0], node.args[1:]) if adding else (node.args[1], node.args[2:])
    if adding:
        first = _fill(program, node, 0)
    elif program.buffers.get(storage(node.args[0])) is program.buffers[node]:
        first = []  # the array is changed where it lies
    else:
        first = _push(program, node.args[0], node, lambda index: linear(node.shape, index))
    empty = next((a for a in axes if node.shape[a] == 0), None)
    if empty is not None:
        if not updates.type.size:
            return first
        code = program.error(IndexError, f"index is out of bounds for axis {empty} with size 0", node.loc)
        never = ir.Ref(0, BOOL)
        return _renumbered([first, [Let(never, ir.Const(np.False_)), ir.Check(never, code)]])
    nest, index = _nest(program, updates.shape)
    depth = len(indices[0].shape)
    level = nest.level(index[:depth])
    dynamic, rest = nest.positions(node, indices, axes, node.shape, index, level)
    value = nest.value(updates, index)
    nest.lists[-1].append(Store(program.buffers[node], rest, value, dynamic, "add" if adding else ""))
    nest.close(len(nest.axes), len(nest.axes) - level)
    tasks, task = _owners(node, updates, axes, depth, limits.scatters), Axis("task")
    columns = nest.lists[level][-1]
    if tasks > 1 and isinstance(columns, ir.For):
        nest.lists[level].pop()
        # Each task reads all positions and updates the rows that are its own: those whose number leaves its
        # own when divided by the tasks.
        owner = nest.let(0, I64, ir.Index(axis_index(task)))
        low = nest.scalar(level, I64, "and", dynamic[0][0], nest.const(tasks - 1, I64))
        mine = nest.scalar(level, BOOL, "eq", low, owner)
        nest.lists[level].append(replace(columns, when=mine))
        nest.close(level, level)
        return _renumbered([first, [ir.For(task, tasks, tuple(nest.lists[0]), "parallel")]])
    nest.close(level, level)
    return _renumbered([first, nest.lists[0]])


def _owners(node: Node, updates: Node, axes: tuple[int, ...], depth: int, limits: ScatterLimits) -> int:
    """How many tasks (a power of two) share the rows along the first axis.

    All read every position, which takes each of them as long as a few dozen elements: wide rows have more
    tasks.
    """
    row = math.prod(updates.shape[depth:]) * updates.dtype.itemsize
    shared = limits.least_bytes <= updates.type.nbytes < limits.most_bytes
    if axes[0] != 0 or row < limits.row_bytes or not shared:
        return 1
    tasks = min(limits.max_tasks, 2 * math.isqrt(row // limits.row_bytes), node.shape[0])
    return int(1 << tasks.bit_length() - 1)


def _argreduce(program: Program, node: Node, limits: Limits) -> list[Statement]:
    """The first position of the extremum (of the first NaN, if there is one) along the reduced axes."""
    x = node.args[0]
    axes: Any = node.attrs["axes"]
    outer = [i for i in range(len(x.shape)) if i not in axes]
    names = [Axis(f"i{i}") for i in range(len(x.shape))]
    index = index_over(names, x.shape)
    nest = Nest(program, [(names[i], x.shape[i]) for i in (*outer, *axes) if x.shape[i] != 1])
    inner = sum(1 for i in axes if x.shape[i] != 1)
    row = len(nest.axes) - inner
    combine = "max" if node.op.name == "argmax" else "min"
    best, position = nest.fresh(x.dtype), nest.fresh(I64)
    last = int(np.prod([x.shape[a] for a in axes], dtype=np.int64)) - 1
    # First pass: the extremum.  Second pass: the smallest position whose element is it (or is NaN when it is
    # NaN).
    nest.lists[row].append(ir.Init(best, combine))
    value = nest.value(x, index)
    nest.lists[-1].append(ir.Accumulate(best, combine, value))
    nest.close(len(nest.axes), inner)
    nest.open(inner)
    nest.lists[row].append(ir.Init(position, "min"))
    found = nest.fresh(x.dtype)
    nest.lists[row].append(Let(found, ir.Scalar("copy", (best,))))
    again = nest.value(x, index)
    depth = len(nest.axes)
    equal = nest.scalar(depth, BOOL, "eq", again, found)
    if x.dtype.kind == "f":
        equal = nest.scalar(depth, BOOL, "or", equal, nest.scalar(depth, BOOL, "isnan", again))
    at = nest.let(depth, I64, ir.Index(linear([x.shape[a] for a in axes], [index[a] for a in axes])))
    none = nest.const(last, I64)
    candidate = nest.scalar(depth, I64, "select", equal, at, none)
    nest.lists[-1].append(ir.Accumulate(position, "min", candidate))
    nest.close(len(nest.axes), inner)
    kept = nest.fresh(I64)
    nest.lists[row].append(Let(kept, ir.Scalar("copy", (position,))))
    place = linear(node.shape, [index[i] for i in outer])
    nest.lists[row].append(Store(program.buffers[node], place, kept))
    nest.close(row, row)
    return nest.lists[0]


def _correlate(program: Program, node: Node, limits: Limits) -> list[Statement]:
    from graphjit.loops.lowering.correlations import lower_correlate  # few programs have one

    return lower_correlate(program, node, limits)


LOWERINGS: dict[str, Callable[[Program, Node, Limits], list[Statement]]] = {
    "embed": _embed,
    "scatter": _scatter,
    "argreduce": _argreduce,
    "correlate": _correlate,
}
