"""Choose the loops that run in SIMD lanes.

Job: on each path of nested loops mark one loop ``simd`` and say how many vectors it unrolls.
Input and output: a loop kernel.
Invariants: at most one simd loop on a path; a loop is simd only if its iterations are independent but for
accumulators; the choice depends on shapes and vector width, so results depend on neither load nor threads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphjit.ir.scalars import cost, is_function
from graphjit.limits import Limits, VectorLimits
from graphjit.loops.ir import (
    Accumulate,
    Axis,
    Check,
    Choose,
    For,
    Let,
    Load,
    LoopKernel,
    Multiply,
    Push,
    Ref,
    Repeat,
    Scalar,
    Statement,
    Store,
    loads,
    open_accumulators,
    running,
    uses,
    walk,
    widest,
)
from graphjit.loops.lanes import varying

APART = 2
"""A distance of elements that are gathered."""


def vectorize(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Mark simd loops."""
    found = limits.vectors
    return kernel.with_body(tuple(_nest(s, found) if isinstance(s, For) else s for s in kernel.body))


def _nest(loop: For, limits: VectorLimits) -> For:
    if loop.kind == "simd":  # it was lowered so
        return replace(loop, lanes=lanes_of(loop, limits))
    inner = [s for s in loop.body if isinstance(s, For)]
    if not inner:
        return _simd(loop, limits) if _pays(loop, limits) else loop
    if _may_lane(loop, limits) and _outer_cycles(loop, limits) < _inner_cycles(loop, limits):
        return _simd(loop, limits)
    return replace(loop, body=tuple(_nest(s, limits) if isinstance(s, For) else s for s in loop.body))


def _may_lane(loop: For, limits: VectorLimits) -> bool:
    """Whether a loop around others could run in lanes."""
    return loop.kind == "serial" and loop.extent >= limits.min_lanes and _can_lane(loop)


def _can_lane(loop: For) -> bool:
    """Whether lanes of ``loop`` stay independent.

    Inner loops do not stop early because of it or depend on a condition, all lanes take the same number of
    steps and the same branches, no two write to one place, there is no matrix product, which has lanes of its
    own, and running values (which the back end carries from lane to lane) change only in the innermost loop.
    """
    if running(loop) and any(isinstance(s, For) for s in loop.body):
        return False
    differs = varying(loop)
    for statement in walk(loop.body):
        if isinstance(statement, For) and _keeps_apart(statement, loop.axis):
            return False
        if isinstance(statement, Store) and _collides(statement, loop.axis, differs):
            return False
        if isinstance(statement, Multiply | Push):
            return False
        if isinstance(statement, Repeat) and statement.holds in differs:
            return False
        if isinstance(statement, Choose) and statement.which in differs:
            return False
    return True


def _keeps_apart(inner: For, axis: Axis) -> bool:
    """Whether a loop has lanes of its own, runs under a condition, or ends where ``axis`` says."""
    depends = inner.bound is not None and bool(inner.bound.start[axis])
    return inner.kind != "serial" or inner.when is not None or depends


def _collides(statement: Store, axis: Axis, varying: set[Ref]) -> bool:
    """Whether two lanes might write to one place."""
    return any(ref in varying for ref, _ in statement.dynamic) or not statement.address[axis]


def _pays(loop: For, limits: VectorLimits) -> bool:
    """Whether an innermost loop is faster in lanes: strided access costs a little more than in single steps,
    operations a fraction.
    """
    if not _can_lane(loop) or loop.extent < limits.min_lanes:
        return False
    operations = sum(
        (isinstance(s, Let) and isinstance(s.value, Scalar)) or isinstance(s, Accumulate)
        for s in walk(loop.body)
    )
    return _accesses(loop.axis, loop.body) + 0.5 * operations > 0


@dataclass(frozen=True)
class _Lanes:
    """A loop that runs in lanes: how many it has, and what differs from one to the next."""

    axis: Axis
    count: int
    varying: set[Ref]

    @classmethod
    def of(cls, loop: For, limits: VectorLimits) -> _Lanes:
        return cls(loop.axis, limits.vector_bytes // widest(loop), varying(loop))

    def steps(self, extent: int) -> int:
        """Vectors that cover so many iterations."""
        return -(-extent // self.count)


def _outer_cycles(loop: For, limits: VectorLimits) -> float:
    """Cycles of one iteration of ``loop`` when it runs in lanes itself and the loops in it one step at a
    time.
    """
    lanes = _Lanes.of(loop, limits)
    return _one_by_one(loop.body, lanes, limits) * lanes.steps(loop.extent) / loop.extent


def _one_by_one(body: tuple[Statement, ...], lanes: _Lanes, limits: VectorLimits) -> float:
    """Cycles of statements in the lanes of a loop around them, the loops among them one step at a time."""
    total = _cycles(body, lanes, limits)
    for inner in body:
        if isinstance(inner, For):
            total += inner.extent * (limits.step + _one_by_one(inner.body, lanes, limits))
    return total


def _inner_cycles(loop: For, limits: VectorLimits) -> float:
    """The same when the loops in it run in lanes, where they can."""
    total = _cycles(loop.body, None, limits)
    for inner in loop.body:
        if isinstance(inner, For):
            total += _innermost(inner, limits)
    return total


def _innermost(loop: For, limits: VectorLimits) -> float:
    """Cycles of a loop in the best of ways: in lanes, or what is in it."""
    if any(isinstance(s, For) for s in loop.body):
        each = _inner_cycles(loop, limits)
        if _may_lane(loop, limits):
            each = min(each, _outer_cycles(loop, limits))
        return loop.extent * (limits.step + each)
    lanes = _Lanes.of(loop, limits) if _pays(loop, limits) else None
    sums, steps = (len(open_accumulators(loop)), lanes.steps(loop.extent)) if lanes else (0, loop.extent)
    return sums * limits.horizontal + steps * (limits.step + _cycles(loop.body, lanes, limits))


def _cycles(body: tuple[Statement, ...], lanes: _Lanes | None, limits: VectorLimits) -> float:
    """Cycles of the statements themselves, without the loops among them, in lanes or one by one."""
    total = 0.0
    for statement in body:
        step = _step(statement, lanes)
        if step is not None:
            total += limits.gathered * lanes.count if lanes and abs(step) > 1 else 1
        elif isinstance(statement, Accumulate):
            total += 1
        elif isinstance(statement, Let) and isinstance(statement.value, Scalar):
            total += cost(statement.value.op)
        elif isinstance(statement, Repeat):
            total += max(1, statement.extent) * _cycles((*statement.test, *statement.body), lanes, limits)
        elif isinstance(statement, Choose):
            total += max(_cycles(branch, lanes, limits) for branch in statement.branches)
    return total


def _step(statement: Statement, lanes: _Lanes | None) -> int | None:
    """How far the elements of neighbouring lanes lie apart in memory; None for what moves none."""
    if isinstance(statement, Store):
        return statement.address[lanes.axis] if lanes else 1
    if not (isinstance(statement, Let) and isinstance(statement.value, Load)):
        return None
    if lanes and not lanes.varying.isdisjoint(ref for ref, _ in statement.value.dynamic):
        return APART
    return statement.value.address[lanes.axis] if lanes else 1


IN_BLOCK = 0.25
"""What an element of a record counts for whose neighbours are accessed too: they move together
(`backend/llvm/kernels/blocks.py`)."""
RECORD = 4
"""Longest record that is read and written by whole vectors and shuffles (`backend/llvm/kernels/strided.py`);
longer ones are cut into blocks."""


def _accesses(axis: Axis, body: tuple[Statement, ...]) -> float:
    """How much memory access speaks for lanes along ``axis``, above 0, or against them, each place counted
    once; arithmetic decides where access does not.
    """
    score = 0.01
    # No set: fractions are added up in the order of the code, not in that of addresses.
    places = dict.fromkeys((False, load.buffer, load.address) for load in loads(body))
    for statement in walk(body):
        if isinstance(statement, Store):
            places[True, statement.buffer, statement.address] = None
        elif isinstance(statement, Let) and isinstance(statement.value, Scalar):
            score += 0.01 * cost(statement.value.op)
    for written, buffer, address in places:
        step = address[axis]
        beside = step > RECORD and any((written, buffer, address + offset) in places for offset in (1, -1))
        score += 1.0 if abs(step) == 1 else 0.1 if step == 0 else -IN_BLOCK if beside else -1.0
    return score


def _simd(loop: For, limits: VectorLimits) -> For:
    """``loop`` in lanes, with so many vectors at a time as its work, its chains and its length ask for."""
    work = sum(
        limits.function
        if isinstance(s, Let) and isinstance(s.value, Scalar) and is_function(s.value.op)
        else 1
        for s in walk(loop.body)
        if not isinstance(s, For | Check)
    )
    lanes = lanes_of(loop, limits)
    unroll = _vectors_for_work(loop, work, lanes, limits)
    vectors = -(-loop.extent // lanes)
    most = min(sums_side_by_side(loop, limits), vectors, max(1, limits.sums_code // max(1, work)))
    if most > unroll:
        # What is halved again and again at the end needs a power of two.
        halves = loop.bound is not None or open_accumulators(loop)
        unroll = 1 << (most.bit_length() - 1) if halves else _even_share(vectors, most)
    return replace(loop, kind="simd", unroll=unroll, lanes=lanes)


def _vectors_for_work(loop: For, work: int, lanes: int, limits: VectorLimits) -> int:
    """How many vectors at a time the work and the chains of a loop body ask for."""
    waiting = side_by_side(loop, limits)
    if waiting > 1:
        unroll = waiting
        while unroll > 1 and work * unroll > limits.steps_code:
            unroll //= 2
    elif work <= limits.unroll_4:
        unroll = 4
    elif work <= limits.unroll_2:
        unroll = 2
    else:
        unroll = limits.chained_unroll if is_chained(loop, limits) else 1
    # One vector after the other would wait as long as all of them side by side.
    while unroll > 1 and loop.extent < (lanes * unroll if waiting > 1 else limits.steps * unroll):
        unroll //= 2
    return unroll


def _even_share(vectors: int, most: int) -> int:
    """How many vectors to compute at a time, so that the last ones have company too: 9 are 5 and 4."""
    exact = next((n for n in range(most, most // 2, -1) if vectors % n == 0), None)
    return exact or -(-vectors // -(-vectors // most))


def lanes_of(loop: For, limits: VectorLimits) -> int:
    """Lanes so that the widest value in the loop fills a register; of a short loop no more than it has
    iterations, or the next power of two.
    """
    return max(2, min(32, limits.vector_bytes // widest(loop), 1 << (loop.extent - 1).bit_length()))


def side_by_side(loop: For, limits: VectorLimits) -> int:
    """How many vectors a loop computes at a time whose iterations take steps that wait for one another: while
    one waits, others have work. 1: it takes no steps, or they have enough to do.
    """
    most = max((_waiting(s, limits) for s in loop.body if isinstance(s, Repeat)), default=0.0)
    vectors = 1
    while vectors < limits.chained_unroll and most > vectors * limits.idle:
        vectors *= 2
    return vectors


def _waiting(steps: Repeat, limits: VectorLimits) -> float:
    """How many times as long as a step works it waits for what it computes itself."""
    wait: dict[Ref, float] = {}
    busy = 0.0
    for statement in walk((steps,)):
        if isinstance(statement, Let):
            units = cost(statement.value.op) if isinstance(statement.value, Scalar) else 1
            busy += units / limits.units
            before = max((wait.get(ref, 0.0) for ref in uses(statement)), default=0.0)
            wait[statement.ref] = before + limits.latency * max(1.0, units / limits.units)
    return max(wait.values(), default=0.0) / max(busy, 1.0)


def sums_side_by_side(loop: For, limits: VectorLimits) -> int:
    """How many vectors a loop in lanes needs at a time, so that the sums in it need not wait: each addition
    waits for the one before it, which takes longer than to read and multiply what is added. 1: there are
    no such sums.
    """
    differs = varying(loop)
    most = 1
    for inner in walk(loop.body):
        if not isinstance(inner, For) or any(isinstance(s, For | Repeat | Choose) for s in inner.body):
            continue
        sums = [s for s in inner.body if isinstance(s, Accumulate) and s.value in differs]
        if not sums or running(inner):
            continue
        made = [s.value for s in inner.body if isinstance(s, Let) and s.ref in differs]
        loaded = sum(isinstance(value, Load) for value in made)
        # A product is added in one operation.
        worked = sum(cost(value.op) for value in made if isinstance(value, Scalar) and value.op != "mul")
        busy = max(loaded, worked + len(sums)) / limits.units
        vectors = 1
        while len(sums) * 2 * vectors <= limits.sums_registers and limits.latency > vectors * busy:
            vectors *= 2
        most = max(most, vectors)
    return most


def is_chained(loop: For, limits: VectorLimits) -> bool:
    """Whether elementary functions of an innermost loop wait for one another, or the steps that it takes: one
    vector at a time leaves the processor idle.
    """
    if side_by_side(loop, limits) > 1:
        return True
    depth: dict[Ref, int] = {}
    for statement in loop.body:
        if isinstance(statement, For):
            return False
        if isinstance(statement, Let) and isinstance(statement.value, Scalar):
            own = is_function(statement.value.op) and statement.ref.dtype.kind == "f"
            depth[statement.ref] = own + max((depth.get(ref, 0) for ref in statement.value.args), default=0)
    return max(depth.values(), default=0) >= limits.chained
