"""Thresholds: from where on a decision of the compiler goes the other way.

Job: hold the numbers by which scheduling, loop passes and products decide, by the stage that reads them.
Input: the record of the machine, for the numbers that follow from cache sizes and vector width.
Output: `host_limits()`, the record for this machine, which `pipeline` passes down to every stage.
Invariant: nothing changes a record; a test that wants other numbers makes one and passes it:

    one_kernel = host_limits().changed(fusion={"tiny": 0})
    compile_graph(graph, limits=one_kernel)

What follows from the instruction set or the caches is computed in `Limits.of`; all other numbers stand beside
their explanation.  Levels of code generation (`backend/llvm/objects/link.py`), waits of threads
(`threads/waiting.py`) and numbers of the entry stay beside their code, which no compilation passes limits to;
so does what an algorithm needs to be right (a table's size, the length of a series).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from graphjit.machine import CACHES, Machine, machine


class Section:
    """A group of numbers: annotated class attributes; an instance may be given others.

    Neither a dataclass nor a named tuple: making fifteen of those takes 5 ms of every first call.
    """

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(name for name in cls.__annotations__ if name != "_fields")

    def __init__(self, **values: Any) -> None:
        """Fields without a default must be given.

        Raises:
            TypeError: a field that does not exist, or one that is missing.
        """
        unknown = values.keys() - set(self._fields)
        missing = [name for name in self._fields if name not in values and not hasattr(type(self), name)]
        if unknown or missing:
            raise TypeError(f"{type(self).__name__}: unknown {sorted(unknown)}, missing {missing}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: pass a changed record")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        listed = (f"{name}={value!r}" for name, value in zip(self._fields, self._values(), strict=True))
        return f"{type(self).__name__}({', '.join(listed)})"

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def _replace(self, **values: Any) -> Self:
        """The same with other values."""
        return type(self)(**{**dict(zip(self._fields, self._values(), strict=True)), **values})


WEIGHT_PS = 12
"""Picoseconds that a weight of 1 in `RecomputeLimits` stands for."""


class VectorLimits(Section):
    """`loops/passes/vectorize.py`: which loop of a nest runs in SIMD lanes, and how far it is unrolled."""

    vector_bytes: int
    """Bytes of a vector register."""
    min_lanes: int = 4
    """Iterations from which lanes are worth their set-up."""
    step: float = 1.0
    """Cycles to count and to jump."""
    horizontal: float = 8.0
    """Cycles to combine the lanes of an accumulator."""
    gathered: float = 1.5
    """Cycles for each element of a vector whose elements lie apart."""
    function: int = 10
    """Statements that an elementary function counts for in the size of a loop body."""
    unroll_4: int = 8
    """Statements of a body up to which four vectors are computed side by side ..."""
    unroll_2: int = 20
    """... and two."""
    steps: int = 16
    """Iterations that each unrolled copy must have."""
    long_body: int = 200
    """Statements of a body that is too long to be written a second time, for the iterations that do not fill
    whole vectors."""
    chained: int = 3
    """Elementary functions, each waiting for the one before it, that make a chain: one vector at a time then
    leaves the processor idle."""
    chained_unroll: int = 4
    """Vectors that such a chain computes side by side (ten `tanh` of 1e5 elements: 1.77 to 0.80 ms)."""
    latency: float = 4.0
    """Cycles that an addition takes until its result is there ..."""
    units: float = 2.0
    """... and units of work that are done in a cycle meanwhile."""
    idle: float = 1.25
    """How much longer a step waits than it works where further vectors are computed beside it."""
    sums_registers: int = 8
    """Sums that are kept in registers at a time while they grow, in lanes each (a recurrent network of 32
    units, there and back, 1 000 steps: one vector at a time 1.10 ms, eight, and turned matrices, 0.66)."""
    sums_code: int = 400
    """Statements that a body with such sums is written out to, for all vectors."""
    steps_code: int = 1000
    """Statements that steps are written out to, for all vectors (RK4 of 10 000 systems of two numbers, 200
    steps: one vector at a time 11.0 ms, two 6.6, four 4.5)."""


class SeamLimits(Section):
    """`loops/passes/seams.py`: which loops are cut where a condition on their variable changes."""

    stretch: int = 16
    """Iterations between two seams from which they are a loop of their own."""
    statements: int = 1000
    """Statements of all these loops together: code generation takes time for each."""


class ThreadLimits(Section):
    """`loops/passes/parallel.py` and `scans.py`: which loops are cut into blocks that threads claim."""

    grain_ns: int = 8_000
    """Estimated work of a block."""
    worth_ns: int = 12_000
    """Estimated work from which a loop is cut at all: waking a thread takes some microseconds."""
    max_blocks: int = 256
    """Blocks of a loop at the most."""
    sum_block: int = 4_096
    """Elements of one partial sum at the least."""
    scan_row: int = 1 << 17
    """Elements from which a running sum along one row is cut: what joins them is computed twice."""
    scan_block: int = 16_384
    """Elements of a running sum that one task takes at the least."""
    scan_piece: int = 4_096
    """Bytes after which a running sum of floating-point numbers starts anew from what stands before it: that
    bounds its errors."""


class SumLimits(Section):
    """`loops/passes/sums.py` and the lowering of sweeps: how long a chain of additions may be.

    A chain loses about as many units in the last place as it has links.
    """

    chain: int = 32
    """Additions that follow one another in a block. With half as many, as in NumPy's blocks, errors were half
    as large, and what a block costs besides was felt."""
    long: int = 64
    """Additions that follow one another in one loop at the most; shorter sums are not cut."""
    chain_in_lanes: int = 64
    """The same inside a loop in lanes, where the total of a block costs as much as seven of its terms ..."""
    long_in_lanes: int = 128
    """... and NumPy, too, adds row after row there."""
    wide: int = 64
    """Columns from which sums down them are taken row by row: going down, each step lands on another page."""


class ScatterLimits(Section):
    """`loops/lowering/assemblies.py`: which scatters several tasks share, each owner of some rows."""

    row_bytes: int = 512
    """Bytes of an update from which two tasks share a scatter; four times as many, twice as many tasks."""
    least_bytes: int = 1 << 17
    """Bytes of all updates from which they are shared ..."""
    most_bytes: int = 1 << 22
    """... and from which they are not: one thread that reads them in order is as fast as memory is."""
    max_tasks: int = 16
    """Tasks at the most: each reads all positions."""


class TrafficLimits(Section):
    """`loops/passes/stream.py` and `prefetch.py`: what goes past the caches, and what is fetched ahead."""

    last_cache: int
    """Most of the last-level cache: of what is larger, or written beside as much, little is found again."""
    streamed_bytes: int
    """Bytes from which a result is written past the caches then."""
    far_bytes: int
    """Buffers from this size come from memory, or from a cache that is shared: the second-level cache."""
    ahead_bytes: int
    """What is fetched ahead at the most: it waits in the second-level cache beside what is in use."""
    long_body: int = 200
    """Statements of a loop body from which what its lanes read next is fetched one iteration ahead."""
    idle: float = 1 / 8
    """Part of the longest pass over a row that the others must take together: memory hardly idles else."""


class CodeLimits(Section):
    """`loops/passes/calls.py`, `loops/passes/write_out.py`: where code is kept short, because its generation
    would take longer than it saves. An inlined elementary function takes a millisecond to generate."""

    calls: int = 16
    """Elementary functions in a loop body up to which all are inlined; of more, each is a call."""
    calls_short: int = 2
    """The same for a body that runs for few elements."""
    short: int = 256
    """Elements up to which that holds."""
    straight_line: int = 200
    """Statements of a kernel without loops up to which its code is optimised."""
    written_out: int = 400
    """Statements up to which a kernel that runs in the steps of a loop has no loops of its own."""
    joined: int = 1_000
    """Statements of such kernels up to which neighbours are one."""


class ProductLimits(Section):
    """`backend/llvm/products/`: which code computes a matrix product C = A B, and how it is cut into
    blocks (`plan.py`; `packed.py` for the product of any shape)."""

    cache_bytes: int
    """Size from which the matrices of a batch come from memory: the second-level cache."""
    in_place_bytes: int
    """Size of B up to which many rows of A read it where it lies: it stays in the second-level cache, far
    from filling it.  Beat packing by 5 to 10 percent at 64 to 160 squared."""
    far_bytes: int
    """Size from which B comes from memory, or from a cache so far away that it is the same."""
    group_bytes: int
    """Bytes of packed B that one block of rows passes over and over: half a second-level cache."""
    vectors_per_ns: int
    """Multiply-adds of vectors that a core does in a nanosecond."""
    bytes_per_ns: int
    """What memory delivers."""
    few_tiles: int = 3
    """Register tiles of rows up to which B is read where it lies, whatever its size: too few to repay
    packing."""
    panel_tiles: int = 32
    """Tiles of rows up to which each block packs its own panels of B, one at a time (1000 x 32 transposed
    times 1000 x 128: 27 to 37 GF/s): of more, all blocks share one packed copy ..."""
    few_panels: int = 16
    """... and panels up to which it does so although much of A is read again for each."""
    tiny_bytes: int = 16 << 10
    """Size of B up to which the product of any shape reads it where it lies."""
    packed_bytes: int = 32 << 10
    """Size of B up to which a product of known shape packs it at once, when its rows are not contiguous."""
    packed_on_stack: int = 4 << 10
    """Bytes of packed B on the stack at the most; more are borrowed (`workspace.py`)."""
    k_block: int = 256
    """Terms per block of k, about: a panel of B then stays in the second-level cache, and a sum is made
    of short chains."""
    segment: int = 2048
    """Terms of k per segment at the least, where a small C gives too few blocks and k is cut instead."""
    max_segments: int = 16
    """Segments at the most."""
    partial_bytes: int = 64 << 10
    """Bytes that the sums of segments may take; not more than a piece of workspace."""
    written_axis: int = 8
    """Rows and terms up to which products of one vector of columns are written out term by term: to set
    up a register tile takes longer than such a product."""
    written_batch: int = 32
    """Products of a batch from which that is done: fewer do not repay 3 ms of compilation."""
    written_rows: int = 16
    """Multiply-adds of vectors up to which every row of such a product is written out; beyond that one
    row is, in a loop, which compiles sooner."""
    block_ns: int = 5_000
    """Estimated work of a block at the least ..."""
    small_blocks: int = 4
    """... but up to so many blocks may be as small as what awake workers are asked for
    (`threads/waiting.py`): they halve a product of a few microseconds."""
    max_blocks: int = 64
    """Blocks at the most: enough for the threads of one machine to share evenly."""
    block_tiles: int = 4
    """Register tiles of rows per block of the product of any shape at the least, where there are enough."""
    run_blocks: int = 16
    """Blocks of a product in runs (`runs.py`) at the most: each packs the panels of B that it reads."""
    few_blocks: int = 8
    """Blocks below which the product of any shape cuts columns further, where it has few rows."""


class StreamLimits(Section):
    """`backend/llvm/products/plan.py`: when a few rows of A read B row by row (`streamed.py`).

    Down the columns each step of a large B lands on another page (8 by 2048 by 2048: twice NumPy's time, row
    by row 0.6 of it)."""

    rows: int = 24
    """Rows of A up to which they do, where B comes from memory."""
    wide: int = 32
    """Vectors in a row of B from which it is worth it."""
    chunk: int = 128
    """Vectors of a row of C at a time, at the most: they stay in the first-level cache."""
    sums: int = 512
    """Vectors of all rows of C at a time, at the most: they lie on the stack."""
    panels: int = 4
    """Pieces into which several rows are cut at the least, for threads to share."""
    segments: int = 4
    """Segments of k of one row, at the most: long rows are worth more than a short sum of segments costs."""


class TileLimits(Section):
    """`backend/llvm/products/choose_tiles.py` and `plan.py`: estimated cycles, by which tilings are
    compared with each other, and register tiles with dot products."""

    latency: int = 4
    """Cycles that a fused multiply-add takes; one can begin in each."""
    fetch: int = 2
    """Cycles to fetch a vector of B from the second-level cache."""
    hidden: float = 0.05
    """Part of the time of loads that shows although multiply-adds outlast them."""
    call: int = 20
    """Cycles to call a tile and to begin and end it, without its loads and stores."""
    another_kind: float = 0.03
    """Part of the time that one more kind of tile must save to be worth compiling."""
    ahead: int = 16
    """Terms of k before they are needed at which A is fetched: its columns may lie a page apart, where no
    processor sees what comes next (1.2 to 0.7 ms; changed no other time)."""
    add_lanes: int = 5
    """Cycles to add the lanes of a dot product."""
    copy: int = 5
    """Cycles to copy an element of B that does not lie next to the one before."""
    narrow: float = 0.55
    """Cycles per element of A in a register tile with one vector of columns: each is spread over a vector
    of its own."""


class FusionLimits(Section):
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
    kernel_cost: int = 6000
    """Cost of one kernel: registers and time of compilation."""
    kernel_values: int = 192
    """Values that one kernel reads and writes: code generation is superlinear in their number."""
    kernel_members: int = 1000
    """Values that several others in a kernel read, which may stay in registers."""
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


class SweepLimits(Section):
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
    over them (`loops/passes/sums.py`)."""
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


class RecomputeLimits(Section):
    """`schedule/recompute.py`: which values go through memory, which are computed again.

    The weights have units of `WEIGHT_PS`, and follow from the rates of the machine.
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


class ContractionLimits(Section):
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


class UnstackLimits(Section):
    """`schedule/rewrite/unstack.py`: which short axes become values of their own."""

    short_axis: int = 4
    """Length of the longest axis that is taken apart."""
    points: int = 256
    """Elements along the other axes from which it pays: one instruction for each component must run often."""
    components: int = 64
    """Components of one value: they live in registers together, and each is code of its own."""


class AlignLimits(Section):
    """`schedule/rewrite/align.py`: which sums are turned to share a sweep."""

    rows: int = 32
    """Rows from which it pays."""


class ScheduleLimits(Section):
    """`pipeline.schedule`: which of several schedules is taken."""

    small_arena: int
    """Bytes of intermediate values up to which the order of steps does not matter: the first-level cache."""
    worth: int = 16
    """Part of a schedule's cost that computing again must save: less is within the error of the reckoning."""
    many_steps: int = 200
    """Steps above which a second schedule would cost more time than it can save."""


class Limits(Section):
    """Every threshold, by stage."""

    vectors: VectorLimits
    seams: SeamLimits
    threads: ThreadLimits
    sums: SumLimits
    scatters: ScatterLimits
    traffic: TrafficLimits
    code: CodeLimits
    products: ProductLimits
    streams: StreamLimits
    tiles: TileLimits
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
        rates = here.rates
        return cls(
            vectors=VectorLimits(vector_bytes=here.vector_bytes),
            seams=SeamLimits(),
            threads=ThreadLimits(),
            sums=SumLimits(),
            scatters=ScatterLimits(),
            traffic=TrafficLimits(
                last_cache=last // 4 * 3, streamed_bytes=last // 4, far_bytes=second, ahead_bytes=second // 4
            ),
            code=CodeLimits(),
            products=ProductLimits(
                cache_bytes=second,
                in_place_bytes=second // 8,
                far_bytes=4 * second,
                group_bytes=second // 2,
                vectors_per_ns=rates.multiply_adds,
                bytes_per_ns=1000 // rates.byte_from_memory,
            ),
            streams=StreamLimits(),
            tiles=TileLimits(),
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
                far=rates.byte_from_memory // WEIGHT_PS,
                near=rates.byte_from_cache // WEIGHT_PS,
                operation=rates.addition // WEIGHT_PS,
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
    """The three cache sizes as thresholds may rely on them, for one core.

    Virtual machines may report none, next to nothing, or a last level smaller than the second: what makes no
    sense gets the default, and no level is smaller than the one before it.  A second level of many megabytes
    is shared by cores.
    """
    first, second, last = here.caches
    first = first if first > 0 else CACHES[0]
    second = max(first, min(second, 4 << 20) if second >= 64 << 10 else CACHES[1])
    return first, second, max(second, last if last > 0 else CACHES[2])


@cache
def host_limits() -> Limits:
    """The limits for the machine that code is made for."""
    return Limits.of(machine())
