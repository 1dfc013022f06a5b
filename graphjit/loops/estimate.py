"""How long a loop will take on one core, estimated.

Job: one number for a loop nest, by which loops are split, calls give the GIL away, and long calls look for
signals.
Input: a loop.  Output: nanoseconds.
Invariant: the estimate depends on shapes, operations and the record of the machine; it is the same for every
number of threads.
"""

from __future__ import annotations

import math

from graphjit.ir.scalars import MEMORY, SERIAL, cost
from graphjit.loops.ir import (
    COMPOUND,
    Accumulate,
    Axis,
    Choose,
    For,
    Let,
    Load,
    Multiply,
    Ref,
    Repeat,
    Scalar,
    Statement,
    Store,
)
from graphjit.machine import machine

USUAL_TRIPS = 10_000
"""What is taken for the length of a loop whose length is not known."""


def estimate(loop: For | Repeat) -> int:
    """Estimated nanoseconds of a loop on one core."""
    if isinstance(loop, Repeat):
        return int(_estimate((loop,), 1, None, 1))
    tasks = loop.extent if loop.kind == "parallel" else 1
    return int(_estimate(loop.body, loop.extent, loop.axis if loop.kind == "simd" else None, tasks))


def product_ns(operations: int) -> int:
    """Estimated nanoseconds of a matrix product of float64, by its multiply-adds, on one core."""
    here = machine()
    return operations // (here.rates.multiply_adds * here.vector_bytes // 8)


def _estimate(body: tuple[Statement, ...], times: int, lanes: Axis | None, tasks: int) -> float:
    """Of statements that run ``times`` times, in lanes along an axis or one by one; a loop under a condition
    runs in one of the tasks.
    """
    unit = machine().rates.addition * (SERIAL * 1e-3 if lanes is None else 1e-3)
    summed = {s.value for s in body if isinstance(s, Accumulate) and s.combine == "add"}
    total = 0.0
    for statement in body:
        if isinstance(statement, COMPOUND):
            total += _with_lists(statement, times, lanes, tasks)
        elif isinstance(statement, Multiply):
            total += times * product_ns(math.prod(statement.shape))
        else:
            total += times * unit * _units(statement, lanes, summed)
    return total


def _with_lists(statement: Statement, times: int, lanes: Axis | None, tasks: int) -> float:
    """Of a loop or a choice."""
    if isinstance(statement, For):
        runs = times if statement.when is None else times / tasks
        inner_lanes = statement.axis if lanes is None and statement.kind == "simd" else lanes
        return runs * (_estimate(statement.body, statement.extent, inner_lanes, tasks) + 1)
    if isinstance(statement, Repeat):
        steps = statement.extent if statement.holds is None else USUAL_TRIPS
        return times * _estimate((*statement.test, *statement.body), steps, lanes, tasks)
    assert isinstance(statement, Choose)
    return times * max(_estimate(branch, 1, lanes, tasks) for branch in statement.branches)


def _units(statement: Statement, lanes: Axis | None, summed: set[Ref]) -> float:
    """Of one element, in additions; ``summed`` is what sums add up."""
    if isinstance(statement, Let) and isinstance(statement.value, Scalar):
        multiplied_and_added = statement.value.op == "mul" and statement.ref in summed  # one operation
        return 0 if multiplied_and_added else cost(statement.value.op)
    if isinstance(statement, Let) and isinstance(statement.value, Load):
        load = statement.value
        once = lanes is not None and not load.address[lanes] and not load.dynamic
        return MEMORY / (SERIAL if once else 1)  # one for all lanes
    return MEMORY if isinstance(statement, Store) else 1
