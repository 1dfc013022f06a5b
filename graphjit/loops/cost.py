"""What each step of a program costs: memory traffic, arithmetic, estimated time.

Job: count, in the loop IR that runs, what people compare with the limits of their machine.
Input: a `Program` and its loop kernels by step name.  Output: one `Cost` per step name.
Invariants: traffic is compulsory, each element of a buffer that a step touches counting once when read and
once when written, as if the caches were perfect inside a step and empty between steps; nanoseconds are the
very numbers that decide about threads and the GIL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from graphjit.ir.buffers import Buffer
from graphjit.loops.elements import as_loops
from graphjit.loops.estimate import USUAL_TRIPS, estimate, product_ns
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Bound,
    Choose,
    For,
    Let,
    Load,
    LoopKernel,
    Positions,
    Repeat,
    Scalar,
    Statement,
    Store,
)
from graphjit.schedule.access import storage
from graphjit.schedule.program import Control, Cost, Product, Program, Step

STEP_NS = 2
"""Nanoseconds of one step of a loop besides what its body takes."""
MOVES = ("copy", "convert")
"""Scalar operations that compute nothing."""


def costs(program: Program, kernels: Mapping[str, LoopKernel]) -> dict[str, Cost]:
    """The cost of every step, in execution order."""
    return {step.name: _step(program, step, kernels) for step in program.steps}


def _step(program: Program, step: Step, kernels: Mapping[str, LoopKernel]) -> Cost:
    if isinstance(step, Product):
        return _product(program, step)
    if step.name in kernels or not isinstance(step, Control):
        return kernel_cost(kernels[step.name])
    each = [sum(costs(inner, kernels).values(), Cost()) for inner in step.inner.values()]
    if step.node.op.name == "cond":
        return max(each, key=lambda cost: cost.nanoseconds)
    return sum(each, Cost()).times(trips(step))


def trips(step: Control) -> int:
    """How often a loop runs: as often as is known, or as is usual."""
    length: Any = step.node.attrs.get("length", USUAL_TRIPS)
    return int(length)


def kernel_cost(kernel: LoopKernel) -> Cost:
    """The cost of one loop kernel; buffers of its own (partial sums) are no traffic."""
    count = _Count(set(kernel.locals))
    count.block(as_loops(kernel).body, {}, Fraction(1))
    return Cost(_bytes(count.read) + _bytes(count.written), round(count.flops), _loops(kernel))


def nanoseconds(step: Step, kernels: Mapping[str, LoopKernel]) -> int:
    """The estimate of one step alone: compilation needs no more, and counting costs time."""
    if isinstance(step, Product):
        return product_ns(step.batch * step.m * step.n * step.k)
    if isinstance(step, Control) and not step.in_registers:
        each = [STEP_NS + program_nanoseconds(inner, kernels) for inner in step.inner.values()]
        return max(each) if step.node.op.name == "cond" else trips(step) * sum(each)
    return _loops(kernels[step.name]) if step.name in kernels else 0


def program_nanoseconds(program: Program, kernels: Mapping[str, LoopKernel]) -> int:
    """The estimate of a whole program."""
    return sum(nanoseconds(step, kernels) for step in program.steps)


def _loops(kernel: LoopKernel) -> int:
    return sum(estimate(statement) for statement in kernel.body if isinstance(statement, For | Repeat))


def _product(program: Program, step: Product) -> Cost:
    x, y = (program.buffers[storage(arg)] for arg in step.node.args)
    out = program.buffers[step.node]
    m, n, k = step.m, step.n, step.k
    touched: dict[Buffer, Fraction] = {}
    for buffer, size in ((x, m * k), (y, k * n)):
        touched[buffer] = touched.get(buffer, Fraction(0)) + step.batch * size
    nbytes = _bytes(touched) + step.batch * m * n * out.dtype.itemsize
    return Cost(nbytes, 2 * step.batch * m * n * k, nanoseconds(step, {}))


def _bytes(touched: Mapping[Buffer, Fraction]) -> int:
    """Bytes of the elements touched; different accesses may touch the same ones, but never more than there
    are.
    """
    return sum(
        min(buffer.size, round(elements)) * buffer.dtype.itemsize for buffer, elements in touched.items()
    )


def _bounded(bound: Bound, extent: int, trips: Mapping[Axis, Fraction]) -> Fraction:
    """How often a loop with a bound runs on average."""
    terms = dict(bound.start.terms)
    if (
        terms and min(terms.values()) == extent and len(set(terms.values())) == len(terms)
    ):  # blocks, and blocks of blocks, that cover the range
        return Fraction(bound.stop) / math.prod(trips[axis] for axis in terms)
    most = Fraction(extent)
    blocks = next((trips[axis] for axis, factor in terms.items() if factor == extent), Fraction(1))
    if blocks != 1:  # this loop runs through one of the blocks of a range that grows or shrinks
        del terms[next(axis for axis, factor in terms.items() if factor == extent)]
        most = math.inf  # type: ignore[assignment]
    lasts = [factor * (trips[axis] - 1) for axis, factor in terms.items()]
    least = bound.start.offset + sum((last for last in lasts if last < 0), Fraction(0))
    greatest = bound.start.offset + sum((last for last in lasts if last > 0), Fraction(0))
    found = [min(most, max(Fraction(0), bound.stop - end)) for end in (least, greatest)]
    return (found[0] + found[1]) / 2 / blocks


class _Count:
    """Sums over a loop nest; trip counts are fractions because the last block of a split loop is shorter."""

    def __init__(self, own: set[Buffer]) -> None:
        self.own = own
        self.tasks = Fraction(1)  # of the parallel loop that is open
        self.flops = Fraction(0)
        self.read: dict[Buffer, Fraction] = {}
        self.written: dict[Buffer, Fraction] = {}
        self._seen: set[tuple[bool, Buffer, Address, Positions]] = set()

    def block(self, body: tuple[Statement, ...], trips: dict[Axis, Fraction], times: Fraction) -> None:
        """Count statements that run ``times`` times in all, inside loops with these trip counts."""
        for statement in body:
            if isinstance(statement, For):
                self.loop(statement, trips, times)
            elif isinstance(statement, Repeat):
                steps = Fraction(statement.extent if statement.holds is None else USUAL_TRIPS)
                inner = (*statement.test, *statement.body)
                self.block(inner, {**trips, statement.axis: steps}, times * steps)
            elif isinstance(statement, Choose):
                self.block(statement.branches[0], trips, times)
            elif isinstance(statement, Accumulate):
                terms = 1 if statement.factor is None else 2
                self.compute(terms * times, statement.value.dtype)
            elif isinstance(statement, Store):
                # Adding to memory in place reads what is there: that was written by this kernel itself, and
                # counts once.
                self.touch(self.written, statement.buffer, statement.address, statement.dynamic, trips, times)
                self.compute(times if statement.combine else Fraction(0), statement.buffer.dtype)
            elif isinstance(statement, Let) and isinstance(statement.value, Load):
                load = statement.value
                self.touch(self.read, load.buffer, load.address, load.dynamic, trips, times)
            elif isinstance(statement, Let) and isinstance(statement.value, Scalar):
                moves = statement.value.op in MOVES
                self.compute(Fraction(0) if moves else times, statement.ref.dtype)

    def loop(self, loop: For, trips: dict[Axis, Fraction], times: Fraction) -> None:
        """Count what a loop does that runs ``times`` times."""
        trip = Fraction(loop.extent)
        if loop.bound is not None:
            trip = _bounded(loop.bound, loop.extent, trips)
        if loop.kind == "parallel":
            self.tasks = trip
        runs = times if loop.when is None else times / self.tasks
        self.block(loop.body, {**trips, loop.axis: trip}, runs * trip)

    def compute(self, operations: Fraction, dtype: np.dtype) -> None:
        """Count operations, of floating-point numbers only."""
        self.flops += operations if dtype.kind == "f" else 0

    def touch(
        self,
        into: dict[Buffer, Fraction],
        buffer: Buffer,
        address: Address,
        dynamic: Positions,
        trips: dict[Axis, Fraction],
        times: Fraction,
    ) -> None:
        """Count the elements of one access; the same access again, or of what this kernel wrote before, is no
        new traffic.
        """
        access = (into is self.written, buffer, address, dynamic)
        if buffer in self.own or access in self._seen or (into is self.read and buffer in self.written):
            return
        self._seen.add(access)
        elements = times
        if not dynamic:
            elements = Fraction(1)
            for axis in address.terms:
                elements *= trips[axis]
        into[buffer] = into.get(buffer, Fraction(0)) + elements
