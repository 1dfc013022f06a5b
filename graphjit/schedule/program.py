"""The program: what the scheduler decided, between the graph IR and the loop IR.

Job: hold the steps in execution order, and where every stored value lives. A step is a fused `Kernel`, a
matrix `Product`, a `Sweep` of several of them over blocks of rows, an `Assembly`, which computes one node in
a way of its own, or a `Control`, a loop or choice with programs inside.
Invariant: a step reads only inputs, constants and what earlier steps (or earlier phases of itself) wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from graphjit.ir.buffers import Buffer
from graphjit.ir.node import Graph, Location, Node
from graphjit.ir.opdef import Reduce
from graphjit.schedule.pieces import Destination


@dataclass(eq=False)
class Member:
    """A node computed by a kernel.

    Attributes:
        node: what is computed.
        phase: the loops over a row run once for each phase; what reads a sum over the row is in a later one.
        outer: whether it is computed once a row, after the loop over the elements of the row.
    """

    node: Node
    phase: int
    outer: bool

    @property
    def is_row(self) -> bool:
        """Whether it has one value a row, which is complete after the loop over the row."""
        return self.outer or isinstance(self.node.op.lower, Reduce)


@dataclass(eq=False)
class Kernel:
    """Fused loops that compute several nodes.

    Attributes:
        space: extents of the loops.
        axes: the reduced axes, or None when nothing is reduced.
        scan: the axis along which members have running values, and whether from its end; it is the innermost
            loop then.
        members: what is computed.
        cost: of one element, in additions.
        by_node: the members by what they compute.
        inputs: the stored values that it reads and others compute.
        owners: the concatenations that it writes pieces of.
        kept: how many members are stored in any case; the others may stay in registers.
        name: of the step, or of the part of a sweep.
    """

    space: tuple[int, ...]
    axes: tuple[int, ...] | None
    scan: tuple[int, bool] | None = None
    members: list[Member] = field(default_factory=list)
    cost: int = 0
    by_node: dict[Node, Member] = field(default_factory=dict)
    inputs: set[Node] = field(default_factory=set)
    owners: set[Node] = field(default_factory=set)
    kept: int = 0
    name: str = ""

    @property
    def outer(self) -> tuple[int, ...]:
        """Positions of the axes that are not reduced."""
        return tuple(i for i in range(len(self.space)) if self.axes is None or i not in self.axes)

    def sums_over(self, depth: int) -> bool:
        """Whether one of the first ``depth`` axes is reduced."""
        return self.axes is not None and any(axis < depth for axis in self.axes)

    @property
    def nodes(self) -> list[Node]:
        """The nodes computed here."""
        return [member.node for member in self.members]


@dataclass(eq=False)
class Assembly:
    """A node that loops of a special form compute: embeds with gaps, scatters, argmax, correlations."""

    node: Node
    name: str = ""

    @property
    def nodes(self) -> list[Node]:
        """The node computed here."""
        return [self.node]


Levels = tuple[tuple[int, int], ...]
"""Axes that do not lie evenly one in the other: (length, stride) of each, the outermost first."""


def runs_of(levels: Levels) -> int:
    """How many runs there are."""
    return math.prod(length for length, _ in levels)


@dataclass(eq=False)
class Product:
    """A contraction computed by a matrix kernel: ``batch`` products of (m, k) by (k, n).

    ``lhs`` and ``rhs`` are the row and column strides of the operands in elements; ``batch_strides`` lead
    from one product of the batch to the next, in the operands and in the result. Rows and terms of sliding
    windows do not lie evenly in the left operand: ``lhs`` then holds within a run of them, and
    ``outer_rows`` and ``outer_terms`` say how many runs there are and how far apart they lie, from the
    outermost on.
    """

    node: Node
    m: int
    n: int
    k: int
    lhs: tuple[int, int]
    rhs: tuple[int, int]
    batch: int = 1
    batch_strides: tuple[int, int, int] = (0, 0, 0)
    outer_rows: Levels = ()
    outer_terms: Levels = ()
    name: str = ""

    @property
    def nodes(self) -> list[Node]:
        """The node computed here."""
        return [self.node]

    @property
    def in_runs(self) -> bool:
        """Whether rows or terms come in several runs."""
        return bool(self.outer_rows or self.outer_terms)

    @property
    def rows(self) -> Levels:
        """All levels of the rows, the last one within a run."""
        return (*self.outer_rows, (self.m // runs_of(self.outer_rows), self.lhs[0]))

    @property
    def terms(self) -> Levels:
        """All levels of the terms."""
        return (*self.outer_terms, (self.k // runs_of(self.outer_terms), self.lhs[1]))


@dataclass(eq=False)
class Sweep:
    """Kernels and thin products over the same rows, run on one block of rows after the other.

    Attributes:
        parts: what runs on each block, in order.
        rows: how many there are; with a batch, for each of its elements.
        block: how many a block has.
        tasks: runs of blocks that threads claim; of a batch, each element is one.
        row_by_row: the nodes that have a value for each row: all but sums over rows.
        batch: elements of the batch, 1 if there is none.
        name: of the step.
    """

    parts: list[Kernel | Product]
    rows: int
    block: int
    tasks: int
    row_by_row: set[Node]
    batch: int = 1
    name: str = ""

    @property
    def nodes(self) -> list[Node]:
        """The nodes computed here."""
        return [node for part in self.parts for node in part.nodes]


@dataclass(eq=False)
class Control:
    """A loop or a choice (`graphjit.schedule.loops.control`).

    Attributes:
        node: what is computed; its op says how.
        results: the nodes that take its results, None where nobody reads one.
        inner: the programs that it runs, by what they are for: ``body``, ``test``, ``branch0`` ...; a step
            that is one kernel has none.
        scratch: where its own memory begins in the arena.
        name: of the step.
    """

    node: Node
    results: list[Node | None]
    inner: dict[str, Program]
    scratch: int = 0
    name: str = ""

    @property
    def nodes(self) -> list[Node]:
        """The values computed here."""
        return [node for node in self.results if node is not None]

    @property
    def in_registers(self) -> bool:
        """Whether it is one kernel (`schedule.loops.registers`)."""
        return not self.inner

    @property
    def staying(self) -> frozenset[int]:
        """The carries that stay where they lie, by number."""
        return frozenset(self.inner["body"].staying) if "body" in self.inner else frozenset()


Step = Kernel | Assembly | Product | Sweep | Control

ALIGN = 64
"""Alignment of values in an arena, but for single numbers."""


def padded(nbytes: int) -> int:
    """Bytes that a value takes in an arena."""
    return 8 if nbytes <= 8 else -(-nbytes // ALIGN) * ALIGN


def kernels_of(step: Step) -> list[Kernel]:
    """The fused kernels of a step."""
    parts = step.parts if isinstance(step, Sweep) else [step]
    return [part for part in parts if isinstance(part, Kernel)]


@dataclass(frozen=True)
class Cost:
    """What a step does: bytes it must move, floating-point operations, estimated nanoseconds on one core."""

    nbytes: int = 0
    flops: int = 0
    nanoseconds: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.nbytes + other.nbytes, self.flops + other.flops, self.nanoseconds + other.nanoseconds
        )

    def times(self, count: int) -> Cost:
        """The same, so many times."""
        return Cost(count * self.nbytes, count * self.flops, count * self.nanoseconds)


class Failure(NamedTuple):
    """What goes wrong while a program runs, and at which line of the user's."""

    kind: type[Exception]
    message: str
    loc: Location | None

    def text(self) -> str:
        """The message with the line."""
        return f"{self.message} (at {self.loc})" if self.loc else self.message


@dataclass
class Program:
    """A scheduled graph.

    Attributes:
        graph: what is computed.
        steps: in execution order.
        buffers: where each value lies that is not only in registers.
        constants: the arrays of constant buffers, by slot.
        arena: bytes of the block of memory for intermediate values.
        destinations: where else a root is written, as a piece of concatenations.
        in_place: number of an output -> of the donated input that it may be written into.
        staying: number of an output -> of the input that it lies in: who runs the program gives one place for
            both (`graphjit.schedule.loops.staying`).
        errors: what kernels may report.
    """

    graph: Graph
    steps: list[Step]
    buffers: dict[Node, Buffer]
    constants: list[np.ndarray]
    arena: int
    destinations: dict[Node, list[Destination]] = field(default_factory=dict)
    in_place: dict[int, int] = field(default_factory=dict)
    staying: dict[int, int] = field(default_factory=dict)
    errors: list[Failure] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the graph."""
        return self.graph.name

    def with_inner(self) -> Iterator[Program]:
        """This program and all inside it."""
        yield self
        for step in self.steps:
            if isinstance(step, Control):
                for inner in step.inner.values():
                    yield from inner.with_inner()

    def error(self, kind: type[Exception], message: str, loc: Location | None) -> int:
        """The status code (1, 2 ...) that a kernel reports for this failure at the user's line ``loc``."""
        failure = Failure(kind, message, loc)
        if failure not in self.errors:
            self.errors.append(failure)
        return self.errors.index(failure) + 1
