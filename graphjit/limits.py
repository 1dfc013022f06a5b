"""Thresholds: from where on a decision of the compiler goes the other way.

Job: hold every tuned number of the compiler, by the stage that reads it, with what was measured for it.
Input: the record of the machine, for the numbers that follow from cache sizes and vector width.
Output: `host_limits()`, the record for this machine, which `pipeline` passes down to every stage.
Invariant: nothing changes a record; a test that wants other numbers makes one and passes it:

    one_kernel = host_limits().changed(fusion={"tiny": 0})
    compile_graph(graph, limits=one_kernel)

What follows from the instruction set or the caches is computed in `Limits.of`; all other numbers stand beside
their explanation.  What an algorithm needs to be right (a table's size, the length of a series) is no limit
and stays where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from graphjit.machine import CACHES, Machine, machine


class VectorLimits(NamedTuple):
    """`loops/vectorize.py`: which loop of a nest runs in SIMD lanes, and how far it is unrolled."""

    vector_bytes: int
    """Bytes of a vector register."""
    min_lanes: int = 4
    """Iterations from which lanes are worth their set-up."""
    chained: int = 3
    """Elementary functions, each waiting for the one before it, that make a chain: one vector at a time then
    leaves the processor idle."""
    chained_unroll: int = 4
    """Vectors that such a chain computes side by side (ten `tanh`: 1.77 to 0.80 ms a million)."""


class FusionLimits(NamedTuple):
    """`schedule/roots.py`: which values are stored; `schedule/constraints.py`: which share a loop nest.

    Costs are those of the ops' declarations: an addition is 1, a quotient 6, an exponential 20.
    """

    inline_shared: int = 4
    """Cost up to which a value with several readers is computed again by each of them. Tried from 1 to 24 on
    stencils, norms, softmax, attention and networks: up to 8 all within noise; at 12 the stencil,
    Rosenbrock's function and RMS norm 20 to 40 percent slower, at 24 softmax and layer norm too.
    """
    inline: int = 200
    """Cost from which an expression is stored even when one reader only wants it."""
    growth: float = 1.5
    """Repetition of a value, by broadcasting or as part of a larger array, from which it is stored unless it
    is cheap."""
    depth: int = 150
    """Operations in a row that may be inlined: the passes below call themselves for each."""
    kernel_cost: int = 2500
    """Cost of one kernel: registers and time of compilation."""
    kernel_values: int = 192
    """Values that one kernel reads and writes: code generation is superlinear in their number."""
    look_back: int = 48
    """Steps that a value may still join, counted from the last one."""
    serial_cost: int = 60
    """Cost of a kernel with a running value along one long row, which runs on one thread."""
    tiny: int = 4096
    """Elements up to which loops that share no data still share a kernel."""
    shifted_readers: int = 2
    """Readers at shifted points up to which a cheap value is computed again by each of them."""
    heavy_row: int = 20
    """Cost of a value for each row (an elementary function) from which it may be a kernel of its own ..."""
    short_row: int = 128
    """... where rows are not longer than this, so that they do not hide that it runs once at a time ..."""
    many_rows: int = 64
    """... and there are at least so many rows to fill lanes with."""
    explained_steps: int = 1000
    """Steps up to which reasons for refusals are kept: they are for people."""


class SweepLimits(NamedTuple):
    """`schedule/sweep.py`: which steps run together, block of rows by block of rows."""

    block_bytes: int
    """What the rows of a block may touch: a quarter of the second-level cache."""
    each_block_bytes: int
    """The same for products of a batch: half of that cache. Each block reads the small matrices whole, so
    blocks are larger."""
    shared_bytes: int
    """Bytes of rows that more than one part touches, from which a sweep pays."""
    thin_bytes: int
    """Bytes of the small matrix of a product: it stays in the second-level cache beside a block of rows."""
    partial_bytes: int
    """Bytes of partial sums of all tasks."""
    min_rows: int = 256
    """Rows from which blocks are worth their loops."""
    whole_rows: int = 16
    """Rows of a block are a multiple of this, if they are that many: whole vectors."""
    whole_sums: tuple[tuple[int, int], ...] = ((128, 64), (512, 256), (2048, 1024))
    """(rows that fit, multiple): from so many rows a block is a multiple of more, whole blocks of the sums
    over them (`loops/sums.py`)."""
    min_block: int = 4
    """Rows of a block, however wide: sums over rows are taken up and put down once a block."""
    tasks: int = 32
    """Parts of a sweep that threads can claim, each with partial sums of its own."""
    min_batch: int = 4
    """Elements of a batch: each is a task."""
    min_each: int = 128
    """Rows of each element of a batch: smaller matrices lie in the caches together, and are multiplied back
    to back by code for their shape.
    """
    min_each_block: int = 8
    """Rows of a block of an element of a batch."""
    product_cost: int = 50
    """What a product counts for among the costs of kernels: it is a call."""


class RecomputeLimits(NamedTuple):
    """`schedule/recompute.py`: which values go through memory, which are computed again.

    The weights have units of 12 ps, see `Rates`.
    """

    far_bytes: int
    """What a core may touch between a store and a load for the value to be in a cache still: half of the last
    one."""
    least_bytes: int
    """A value of less, the second-level cache, is of no account where others leave the caches."""
    far: int
    """Weight of a byte that comes from memory."""
    near: int
    """Weight of a byte that comes from a cache."""
    operation: int
    """Weight of an addition on 8 bytes."""
    store: int = 2
    """How often a stored byte moves: its line is fetched before it is written."""
    many_sites: int = 16
    """Sites that need a value (kernels, phases), from which it is left as it is."""
    many_values: int = 5_000
    """Values to decide about, from which all stay as they are: the time of a minimum cut grows faster than
    their number."""


class ContractionLimits(NamedTuple):
    """`schedule/rewrite/contractions.py`: which matrix products get a matrix kernel."""

    small: int = 400
    """Multiply-adds up to which a fused loop is as good as the call of a matrix kernel, and compiled sooner.
    """
    small_in_batch: int = 20
    """The same for one of many products: they run back to back in one call."""
    many: int = 8
    """How many products are many."""
    outer: int = 256
    """Rows and columns from which a product of very few terms is like an outer product of vectors."""
    long: int = 4096
    """Elements of a matrix from which its product with a vector may be a matrix kernel."""


class UnstackLimits(NamedTuple):
    """`schedule/rewrite/unstack.py`: which short axes become values of their own."""

    short_axis: int = 4
    """Length of the longest axis that is taken apart."""
    points: int = 256
    """Elements along the other axes from which it pays: one instruction for each component must run often."""
    components: int = 64
    """Components of one value: they live in registers together, and each is code of its own."""


class AlignLimits(NamedTuple):
    """`schedule/rewrite/align.py`: which sums are turned to share a sweep."""

    rows: int = 32
    """Rows from which it pays."""


class ScheduleLimits(NamedTuple):
    """`pipeline.schedule`: which of several schedules is taken."""

    small_arena: int
    """Bytes of intermediate values up to which the order of steps does not matter: the first-level cache."""
    worth: int = 16
    """Part of a schedule's cost that computing again must save: less is within the error of the reckoning."""
    many_steps: int = 200
    """Steps above which a second schedule would cost more time than it can save."""


class Rates(NamedTuple):
    """Picoseconds, for the weights of `RecomputeLimits`.

    Measured on one core of the machine of the benchmarks: 8 bytes stored and loaded again take up to 1.7 ns
    through memory, 0.2 to 0.3 ns through a cache; an exponential (cost 20) takes 0.9 ns, a tangent (30) 2.0,
    a quotient (6) 0.27, a sum 0.01 to 0.05.
    """

    unit: int = 12
    """What a weight of 1 stands for."""
    byte_from_memory: int = 60
    byte_from_cache: int = 12
    addition: int = 48
    """Of 8 bytes, as a twentieth of an exponential."""


class Limits(NamedTuple):
    """Every threshold, by stage."""

    vectors: VectorLimits
    fusion: FusionLimits
    sweeps: SweepLimits
    recompute: RecomputeLimits
    contractions: ContractionLimits
    unstack: UnstackLimits
    align: AlignLimits
    schedule: ScheduleLimits

    @classmethod
    def of(cls, here: Machine) -> Limits:
        """The limits for a machine."""
        first, second, last = sensible_caches(here)
        rates = Rates()
        return cls(
            vectors=VectorLimits(vector_bytes=here.vector_bytes),
            fusion=FusionLimits(),
            sweeps=SweepLimits(
                block_bytes=second // 4,
                each_block_bytes=second // 2,
                shared_bytes=second // 8,
                thin_bytes=second // 8,
                partial_bytes=second // 4,
            ),
            recompute=RecomputeLimits(
                far_bytes=last // 2,
                least_bytes=second,
                far=rates.byte_from_memory // rates.unit,
                near=rates.byte_from_cache // rates.unit,
                operation=rates.addition // rates.unit,
            ),
            contractions=ContractionLimits(),
            unstack=UnstackLimits(),
            align=AlignLimits(),
            schedule=ScheduleLimits(small_arena=first),
        )

    def changed(self, **sections: Mapping[str, Any]) -> Limits:
        """A record with other numbers in some sections: ``changed(vectors={"min_lanes": 8})``."""
        return self._replace(
            **{name: getattr(self, name)._replace(**values) for name, values in sections.items()}
        )


def sensible_caches(here: Machine) -> tuple[int, int, int]:
    """The three cache sizes as thresholds may rely on them.

    Virtual machines report caches of 0 bytes, or a last level smaller than the second: the former get the
    default, and no level is smaller than the one before it.
    """
    first, second, last = (
        size if size > 0 else usual for size, usual in zip(here.caches, CACHES, strict=True)
    )
    second = max(first, second)
    return first, second, max(second, last)


@cache
def host_limits() -> Limits:
    """The limits for the machine that code is made for."""
    return Limits.of(machine())
