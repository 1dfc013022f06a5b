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
from graphjit.loops.ir import Choose, For, Let, Load, Multiply, Repeat, Scalar, Statement, Store
from graphjit.machine import machine

USUAL_TRIPS = 10_000
"""What is taken for the length of a loop whose length is not known."""


def estimate(loop: For | Repeat) -> int:
    """Estimated nanoseconds of a loop on one core."""
    if isinstance(loop, Repeat):
        return int(_estimate((loop,), 1, False, 1))
    tasks = loop.extent if loop.kind == "parallel" else 1
    return int(_estimate(loop.body, loop.extent, loop.kind == "simd", tasks))


def product_ns(operations: int) -> int:
    """Estimated nanoseconds of a matrix product of float64, by its multiply-adds, on one core."""
    here = machine()
    return operations // (here.rates.multiply_adds * here.vector_bytes // 8)


def _estimate(body: tuple[Statement, ...], times: int, lanes: bool, tasks: int) -> float:
    """Of statements that run ``times`` times; a loop under a condition runs in one of the tasks."""
    unit = machine().rates.addition * (1e-3 if lanes else SERIAL * 1e-3)
    total = 0.0
    for statement in body:
        if isinstance(statement, For):
            runs = times if statement.when is None else times / tasks
            total += runs * (
                _estimate(statement.body, statement.extent, lanes or statement.kind == "simd", tasks) + 1
            )
        elif isinstance(statement, Repeat):
            steps = statement.extent if statement.holds is None else USUAL_TRIPS
            inner = (*statement.test, *statement.body)
            total += times * _estimate(inner, steps, lanes, tasks)
        elif isinstance(statement, Choose):
            total += times * max(_estimate(branch, 1, lanes, tasks) for branch in statement.branches)
        elif isinstance(statement, Multiply):
            total += times * product_ns(math.prod(statement.shape))
        elif isinstance(statement, Let) and isinstance(statement.value, Scalar):
            total += times * unit * cost(statement.value.op)
        elif isinstance(statement, Store) or (
            isinstance(statement, Let) and isinstance(statement.value, Load)
        ):
            total += times * unit * MEMORY
        else:
            total += times * unit
    return total
