"""The loop IR: a small closed grammar between scheduled kernels and machine code.

Job: say with explicit loops, loads, scalar operations, accumulators and stores what one kernel does.
Invariants: three-address form (every value has a `Ref` assigned once); indices are affine data, not text;
buffers are contiguous and addressed in elements; the closed set of statements is `STATEMENTS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.schedule.program import Program

LoopKind = Literal["parallel", "simd", "serial"]


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """A loop variable."""

    name: str

    def __repr__(self) -> str:
        return self.name


Address = Affine[Axis]


@dataclass(frozen=True, eq=False, slots=True)
class Ref:
    """A value assigned once."""

    number: int
    dtype: np.dtype

    def __repr__(self) -> str:
        return f"t{self.number}"


Positions = tuple[tuple[Ref, int], ...]
"""Data-dependent parts of an address: ``sum(factor * ref)``."""

# ------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Const:
    """A number; ``value`` is a NumPy scalar of the dtype."""

    value: np.generic


@dataclass(frozen=True, slots=True)
class Load:
    """One element of a buffer at an affine address plus ``sum(coefficient * ref)`` for data-dependent
    indices.

    Where ``guard`` is there and false, memory is not touched and the value is 1.
    """

    buffer: Buffer
    address: Address
    dynamic: Positions = ()
    guard: Ref | None = None

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it reads besides memory."""
        positions = tuple(ref for ref, _ in self.dynamic)
        return positions if self.guard is None else (*positions, self.guard)


@dataclass(frozen=True, slots=True)
class Index:
    """The number that an affine expression has in this iteration."""

    value: Address


@dataclass(frozen=True, slots=True)
class Scalar:
    """One operation of the scalar vocabulary; ``check`` is the error code for operations that can fail (0:
    cannot).
    """

    op: str
    args: tuple[Ref, ...]
    check: int = 0


@dataclass(frozen=True, slots=True)
class Peek:
    """Element ``at`` of the value that was written last on a tape; -1: the tape without that value."""

    tape: Ref
    at: int


Expression = Const | Load | Index | Scalar | Peek

# ------------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Let:
    """``ref = expression``."""

    ref: Ref
    value: Expression


@dataclass(frozen=True, slots=True)
class Init:
    """Open an accumulator at the identity of its combiner; reading the ref gives what was accumulated so far.

    Where every stage is wanted (``running``) the first one is the first value, -0.0 too.
    """

    ref: Ref
    combine: str
    running: bool = False


@dataclass(frozen=True, slots=True)
class Accumulate:
    """``accumulator = combine(accumulator, value)``; with a ``factor``, ``accumulator * factor + value``
    (rounded once or twice).
    """

    ref: Ref
    combine: str
    value: Ref
    factor: Ref | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """Write one element; with ``combine="add"`` add to what is there (serial loops only).

    ``streamed``: past the caches, in loops in lanes.
    """

    buffer: Buffer
    address: Address
    value: Ref
    dynamic: Positions = ()
    combine: str = ""
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Report error ``code`` unless ``ok`` holds; the kernel goes on with safe values and the call raises at
    its end.
    """

    ok: Ref
    code: int


@dataclass(frozen=True, slots=True)
class Bound:
    """Stop a loop early: run while ``start + axis < stop``."""

    start: Address
    stop: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in a buffer: where its first element lies, and how far rows and columns are apart, in
    elements.
    """

    buffer: Buffer
    address: Address
    row: int
    column: int = 1

    def at(self, i: Address, j: Address) -> Address:
        """Where element (i, j) lies."""
        return self.address + i * self.row + j * self.column


@dataclass(frozen=True, slots=True)
class Multiply:
    """``out = x y``, or ``out += x y``: matrices of (m, k) by (k, n); columns of y and of out are neighbours.

    The loop around it may have fewer rows left than it takes: ``bound`` then stops k where it adds to
    ``out``, else m.
    """

    out: Matrix
    x: Matrix
    y: Matrix
    shape: tuple[int, int, int]  # m, n, k
    adds: bool = False
    bound: Bound | None = None


@dataclass(frozen=True, slots=True)
class For:
    """A loop over ``axis`` in ``range(extent)``, or fewer where ``bound`` says so.

    With ``when`` it runs only where that holds: in one of the tasks of the parallel loop around it.

    The rest says how machine code is made, and changes no value. ``lanes`` and ``unroll`` are those of a simd
    loop, ``tail`` what happens to iterations that do not fill them: "masked" vectors in the same loop, or
    "apart", in one that follows. ``fetch`` are places that a simd loop asks memory for on its way. With
    ``calls`` elementary functions are called, not inlined. ``nanoseconds`` is the estimated work of a
    parallel loop.
    """

    axis: Axis
    extent: int
    body: tuple[Statement, ...]
    kind: LoopKind = "serial"
    bound: Bound | None = None
    unroll: int = 1
    nanoseconds: int = 0
    when: Ref | None = None
    lanes: int = 1
    tail: Literal["masked", "apart"] = "masked"
    fetch: tuple[tuple[Buffer, Address], ...] = ()
    calls: bool = False

    @property
    def is_ragged(self) -> bool:
        """Whether the last vectors of a simd loop can be incomplete."""
        step = self.lanes * self.unroll
        if self.bound is None:
            return self.extent % step != 0
        start = self.bound.start
        ends = (self.extent, self.bound.stop, start.offset, *start.terms.values())
        return any(end % step for end in ends)


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that the steps of a `Repeat` hand on: a step finds it in ``ref`` and leaves ``after``.

    The first step finds ``start``; when the loop has ended, ``ref`` is what the last step left.
    """

    ref: Ref
    start: Ref
    after: Ref


@dataclass(frozen=True, slots=True)
class Repeat:
    """Steps in order that hand values on in registers.

    There are ``extent`` steps, numbered by ``axis``; or, where there is a ``test``, as many as begin with
    ``holds`` true, which the test computes. ``lends``: what loops inside wrote on tapes is given back at the
    end of a step, before it writes on tapes itself.
    """

    axis: Axis
    extent: int
    carried: tuple[Carried, ...]
    body: tuple[Statement, ...]
    test: tuple[Statement, ...] = ()
    holds: Ref | None = None
    lends: bool = False


@dataclass(frozen=True, slots=True)
class Choose:
    """Run one of several branches: that with number ``which``, the first if that is too small, else the last.

    ``results`` are refs that are there afterwards, each with what every branch leaves in it.
    """

    which: Ref
    branches: tuple[tuple[Statement, ...], ...]
    results: tuple[tuple[Ref, tuple[Ref, ...]], ...]


@dataclass(frozen=True, slots=True)
class Write:
    """A value written on a tape: ``ref`` is the tape with it, ``before`` the one without."""

    ref: Ref
    before: Ref
    values: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """Write on tapes, in one piece of ``memory``. Tapes are i64: addresses, 0 where nothing is on them.

    It stands in a `Repeat` that has a test: where there is no memory, that ends.
    """

    memory: Buffer
    writes: tuple[Write, ...]


Statement = Let | Init | Accumulate | Store | Check | Multiply | For | Repeat | Choose | Push
STATEMENTS = (Let, Init, Accumulate, Store, Check, Multiply, For, Repeat, Choose, Push)
EXPRESSIONS = (Const, Load, Index, Scalar, Peek)


@dataclass(frozen=True)
class LoopKernel:
    """One kernel: statements over buffers; ``quick``: machine code is made without optimisation."""

    name: str
    body: tuple[Statement, ...]
    comment: str = ""
    locals: tuple[Buffer, ...] = field(default=())
    quick: bool = False

    def with_body(self, body: tuple[Statement, ...]) -> LoopKernel:
        """The same kernel doing something else."""
        return replace(self, body=body)


class Lowered:
    """What the loop passes work on: a program and the loop IR of its kernels, by name."""

    def __init__(self, program: Program, kernels: Mapping[str, LoopKernel]) -> None:
        self.program = program
        self.kernels = kernels


COMPOUND = (For, Repeat, Choose)
"""Statements with lists of statements in them."""


def walk(body: tuple[Statement, ...]) -> list[Statement]:
    """Every statement, loops before their bodies."""
    found: list[Statement] = []
    for statement in body:
        found.append(statement)
        if isinstance(statement, COMPOUND):
            for inner in inside(statement):
                found += walk(inner)
    return found


def inside(statement: Statement) -> tuple[tuple[Statement, ...], ...]:
    """The lists of statements in a statement, in order."""
    if isinstance(statement, For):
        return (statement.body,)
    if isinstance(statement, Repeat):
        return (statement.test, statement.body)
    return statement.branches if isinstance(statement, Choose) else ()


def defines(statement: Statement) -> tuple[Ref, ...]:
    """Refs that a statement itself defines."""
    if isinstance(statement, Let | Init):
        return (statement.ref,)
    if isinstance(statement, Repeat | Push):
        return tuple(
            x.ref for x in (statement.carried if isinstance(statement, Repeat) else statement.writes)
        )
    return tuple(ref for ref, _ in statement.results) if isinstance(statement, Choose) else ()


def loads(body: tuple[Statement, ...]) -> Iterator[Load]:
    """Every load, in order."""
    for statement in walk(body):
        if isinstance(statement, Let) and isinstance(statement.value, Load):
            yield statement.value


def map_blocks(statement: Statement, change: Callable[[Statement], Statement]) -> Statement:
    """A statement with ``change`` applied to the statements in it, if it hands values on."""
    if isinstance(statement, Repeat):
        test, body = (tuple(map(change, block)) for block in (statement.test, statement.body))
        return replace(statement, test=test, body=body)
    if isinstance(statement, Choose):
        return replace(statement, branches=tuple(tuple(map(change, s)) for s in statement.branches))
    return statement


def fresh_numbers(kernel: LoopKernel) -> itertools.count[int]:
    """Numbers for new refs of a kernel."""
    used = (ref.number for s in walk(kernel.body) for ref in defines(s))
    return itertools.count(1 + max(used, default=0))


def widest(loop: For) -> int:
    """Bytes of the widest value in a loop."""
    values = (
        s
        for s in walk(loop.body)
        if isinstance(s, Let) and s.ref.dtype.kind != "b" and not isinstance(s.value, Const)
    )
    return max((s.ref.dtype.itemsize for s in values), default=1)


def addresses(body: tuple[Statement, ...]) -> list[Address]:
    """Every affine expression used in ``body``."""
    found = []
    for statement in walk(body):
        if isinstance(statement, Let):
            if isinstance(statement.value, Load):
                found.append(statement.value.address)
            elif isinstance(statement.value, Index):
                found.append(statement.value.value)
        elif isinstance(statement, Store):
            found.append(statement.address)
        elif isinstance(statement, Multiply):
            found += [matrix.address for matrix in (statement.x, statement.y, statement.out)]
        if isinstance(statement, For | Multiply) and statement.bound is not None:
            found.append(statement.bound.start)
    return found


def buffers(body: tuple[Statement, ...]) -> list[Buffer]:
    """Every buffer that is read or written, once, in order of first use."""
    found: dict[Buffer, None] = {}
    for statement in walk(body):
        if isinstance(statement, Let) and isinstance(statement.value, Load):
            found[statement.value.buffer] = None
        elif isinstance(statement, Store):
            found[statement.buffer] = None
        elif isinstance(statement, Push):
            found[statement.memory] = None
        elif isinstance(statement, Multiply):
            found.update((matrix.buffer, None) for matrix in (statement.x, statement.y, statement.out))
    return list(found)


def map_refs(statement: Statement, fresh: Callable[[Ref], Ref]) -> Statement:
    """The statement with every ref replaced."""

    def each(dynamic: Positions) -> Positions:
        return tuple((fresh(ref), factor) for ref, factor in dynamic)

    if isinstance(statement, For):
        return replace(
            statement,
            body=tuple(map_refs(s, fresh) for s in statement.body),
            when=statement.when and fresh(statement.when),
        )
    if isinstance(statement, Repeat | Choose | Push):
        return _map_control(statement, fresh)
    if isinstance(statement, Let):
        value = statement.value
        if isinstance(value, Scalar):
            value = replace(value, args=tuple(map(fresh, value.args)))
        elif isinstance(value, Load):
            value = replace(value, dynamic=each(value.dynamic), guard=value.guard and fresh(value.guard))
        elif isinstance(value, Peek):
            value = Peek(fresh(value.tape), value.at)
        return Let(fresh(statement.ref), value)
    if isinstance(statement, Store):
        return replace(statement, value=fresh(statement.value), dynamic=each(statement.dynamic))
    if isinstance(statement, Accumulate):
        return Accumulate(
            fresh(statement.ref),
            statement.combine,
            fresh(statement.value),
            statement.factor and fresh(statement.factor),
        )
    if isinstance(statement, Init):
        return Init(fresh(statement.ref), statement.combine, statement.running)
    if isinstance(statement, Multiply):
        return statement
    return Check(fresh(statement.ok), statement.code)


def _map_control(statement: Repeat | Choose | Push, fresh: Callable[[Ref], Ref]) -> Repeat | Choose | Push:
    """`map_refs` of a statement that hands values on."""
    if isinstance(statement, Push):
        writes = (Write(fresh(w.ref), fresh(w.before), tuple(map(fresh, w.values))) for w in statement.writes)
        return replace(statement, writes=tuple(writes))

    def block(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(map_refs(s, fresh) for s in body)

    if isinstance(statement, Choose):
        results = tuple((fresh(ref), tuple(map(fresh, values))) for ref, values in statement.results)
        return Choose(fresh(statement.which), tuple(map(block, statement.branches)), results)
    carried = tuple(Carried(fresh(c.ref), fresh(c.start), fresh(c.after)) for c in statement.carried)
    test, body = block(statement.test), block(statement.body)
    holds = statement.holds and fresh(statement.holds)
    return replace(statement, carried=carried, test=test, body=body, holds=holds)


def renumbered(body: tuple[Statement, ...], numbers: Iterator[int]) -> tuple[Statement, ...]:
    """The same statements with refs numbered from ``numbers``: nests made apart can then stand in one
    kernel.
    """
    known: dict[Ref, Ref] = {}

    def fresh(ref: Ref) -> Ref:
        if ref not in known:
            known[ref] = Ref(next(numbers), ref.dtype)
        return known[ref]

    return tuple(map_refs(statement, fresh) for statement in body)


def _read_to_hand_on(statement: Repeat | Choose | Push) -> tuple[Ref, ...]:
    """Refs that a statement reads itself which hands values on."""
    if isinstance(statement, Repeat):
        return tuple(carried.start for carried in statement.carried)
    if isinstance(statement, Choose):
        return (statement.which,)
    return tuple(ref for write in statement.writes for ref in (write.before, *write.values))


def _read_by(value: Expression) -> tuple[Ref, ...]:
    """Refs that an expression reads."""
    if isinstance(value, Scalar):
        return value.args
    if isinstance(value, Peek):
        return (value.tape,)
    return value.refs if isinstance(value, Load) else ()


def uses(statement: Statement) -> tuple[Ref, ...]:
    """Refs that a statement itself reads."""
    if isinstance(statement, Let):
        return _read_by(statement.value)
    if isinstance(statement, Store):
        return (statement.value, *(ref for ref, _ in statement.dynamic))
    if isinstance(statement, Accumulate):
        return (statement.value,) if statement.factor is None else (statement.value, statement.factor)
    if isinstance(statement, For):
        return () if statement.when is None else (statement.when,)
    if isinstance(statement, Repeat | Choose | Push):
        return _read_to_hand_on(statement)
    return (statement.ok,) if isinstance(statement, Check) else ()


def free_refs(loop: For) -> set[Ref]:
    """Refs that the loop reads and does not define."""
    defined = {ref for s in walk(loop.body) for ref in defines(s)}
    return {ref for s in walk(loop.body) for ref in (*uses(s), *_left(s))} - defined


def _left(statement: Statement) -> tuple[Ref, ...]:
    """Refs that lists of statements in a statement leave to what follows."""
    if isinstance(statement, Repeat):
        lefts = tuple(carried.after for carried in statement.carried)
        return lefts if statement.holds is None else (*lefts, statement.holds)
    if isinstance(statement, Choose):
        return tuple(ref for _, values in statement.results for ref in values)
    return ()


def open_accumulators(loop: For) -> dict[Ref, str]:
    """Accumulators that the loop feeds and that live beyond it, with their combiners."""
    opened = {s.ref for s in walk(loop.body) if isinstance(s, Init)}
    return {s.ref: s.combine for s in walk(loop.body) if isinstance(s, Accumulate) and s.ref not in opened}


def running(loop: For) -> set[Ref]:
    """Accumulators of which the loop needs every stage, in order: it reads them on the way, or multiplies
    them.
    """
    found = set(open_accumulators(loop))
    if not found:
        return found
    inside = walk(loop.body)
    read = {ref for s in inside for ref in uses(s)}
    return {ref for ref in found if ref in read} | {
        s.ref for s in inside if isinstance(s, Accumulate) and s.factor and s.ref in found
    }


def parameters(kernel: LoopKernel) -> list[Buffer]:
    """The buffers that the function of a kernel is given, in order."""
    return [buffer for buffer in buffers(kernel.body) if buffer.kind not in ("local", "scratch")]
