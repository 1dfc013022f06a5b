"""The matrix product of any shape, which packs its operands: ``gj_gemm_<kind>``.

Job: cut a product into blocks, pack what pays, run the blocks on the thread pool.  Which products come here
is decided in `plan.py`, how each is cut when it runs.
Input: shapes and strides at run time.  Output: ``gj_gemm_<kind>`` in a module, and apart from it, since it
calls the tiles, the function of a block.
Invariant: the order of summation is a function of the shape alone: k in order, except for a small C with a
long k, which is cut into segments.

Order of work: columns and k in chunks that fit the packing buffer; per chunk B is packed into panels (in
parallel); then blocks of rows by groups of panels run in parallel, each over blocks of k that keep a group of
panels in the second cache, rows of A packed on the way when they are not contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphjit.backend.llvm.products.panels import call_pack, declare_transpose
from graphjit.backend.llvm.products.tile import TILE_PARAMETERS, Tile, declare_tile
from graphjit.backend.llvm.products.vectors import arguments
from graphjit.backend.llvm.products.workspace import PIECE_BYTES, give_workspace, take_workspace
from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import Value, Writer

BUFFER_BYTES = 4 << 20
"""Bytes of the packing buffer."""
CHUNK_COLUMNS = 1024
"""Columns of B packed at once at the most.  No limit of one program: callers know from it which tiles the
product needs (`panel_widths`).
"""

CONTEXT = [
    ("i64", "m"), ("i64", "n"), ("i64", "k"),
    ("ptr", "a"), ("i64", "rsa"), ("i64", "csa"),
    ("ptr", "b"), ("i64", "rsb"), ("i64", "csb"),
    ("ptr", "c"), ("i64", "ldc"), ("i64", "accumulate"),
    ("ptr", "packed"), ("i64", "packs_a"), ("i64", "kc"), ("i64", "k_blocks"),
    ("i64", "vectors"), ("i64", "panels"), ("i64", "width"), ("i64", "wider"),
    ("i64", "row_blocks"), ("i64", "groups"),
]  # fmt: skip
"""What a block must know; ``width`` is the number of vectors of a panel, the first ``wider`` panels have one
more; ``packed`` is null when B is read in place.
"""


@dataclass(frozen=True)
class Context:
    """Names of a block function's loaded context."""

    values: dict[str, str]

    def __getattr__(self, name: str) -> str:
        return self.values[name]


def emit_gemm(module: Module, tile: Tile) -> str:
    """Add the product and everything it calls except blocks and packing; returns its name."""
    module.declare("gj_parallel_for", "declare void @gj_parallel_for(ptr, ptr, i64, i64)")
    module.declare("aligned_alloc", "declare ptr @aligned_alloc(i64, i64)")
    module.declare("free", "declare void @free(ptr)")
    module.declare("sched_yield", "declare i32 @sched_yield()")
    module.declare("memset", "declare ptr @memset(ptr, i32, i64)")
    block = block_symbol(tile)
    module.declare(block, f"declare void @{block}(ptr, i64)")
    _emit_buffer(module)
    _emit_pack_block(module, tile)
    _emit_chunk(module, tile)
    _emit_chunks(module, tile)
    _emit_segment(module, tile)
    _emit_split(module, tile)
    return _emit_entry(module, tile)


def _emit_buffer(module: Module) -> None:
    """``take`` and ``give`` the packing buffer; one is kept, surplus ones are freed; ``prepare`` makes the
    first, or returns 0.
    """
    module.add_global("scratch", "@scratch = global ptr null")
    w = Writer(module, "take", [], "ptr")
    retry = w.fn.label("retry")
    w.do(f"br label %{retry}")
    w.fn.start(retry)
    kept = w.op("atomicrmw xchg ptr @scratch, ptr null seq_cst")
    with w.exit_when(w.op(f"icmp ne ptr {kept}, null"), f"ptr {kept}"):
        pass
    fresh = w.call("aligned_alloc", ["i64 4096", f"i64 {BUFFER_BYTES}"], "ptr")
    with w.exit_when(w.op(f"icmp ne ptr {fresh}, null"), f"ptr {fresh}"):
        pass
    # No memory: some other call holds the buffer made at start-up and will give it back.
    w.call("sched_yield", [], "i32")
    w.do(f"br label %{retry}")
    w.module.add_function(w.fn)
    w = Writer(module, "prepare", [], "i64")
    first = w.call("aligned_alloc", ["i64 4096", f"i64 {BUFFER_BYTES}"], "ptr")
    with w.exit_when(w.op(f"icmp eq ptr {first}, null"), "i64 0"):
        pass
    w.call("give", [f"ptr {first}"])
    w.finish("i64 1")
    w = Writer(module, "give", [("ptr", "buffer")])
    surplus = w.op("atomicrmw xchg ptr @scratch, ptr %buffer seq_cst")
    w.call("free", [f"ptr {surplus}"])
    w.finish()


def _load_context(w: Writer) -> Context:
    values = {}
    for i, (kind, name) in enumerate(CONTEXT):
        values[name] = w.load(kind, w.at("%context", 8 * i))
    return Context(values)


def _panel(w: Writer, c: Context, panel: str) -> tuple[str, str]:
    """First vector and number of vectors of a panel."""
    first = w.add(w.mul(panel, c.width), w.min(panel, c.wider))
    return first, w.add(c.width, w.select(w.test("slt", panel, c.wider), 1, 0))


def _packed_panel(w: Writer, c: Context, tile: Tile, k0: str, kn: str, first: str) -> str:
    """Where the panel that begins at vector ``first`` lies in the packed block of k that begins at ``k0``."""
    vectors = w.add(w.mul(k0, c.vectors), w.mul(kn, first))
    return w.at(c.packed, w.mul(vectors, tile.lanes * tile.size))


def _emit_pack_block(module: Module, tile: Tile) -> None:
    """``pack_block``: pack one panel of one block of k."""
    w = Writer(module, "pack_block", [("ptr", "context"), ("i64", "block")])
    c = _load_context(w)
    k0 = w.mul(w.div("%block", c.panels), c.kc)
    kn = w.min(c.kc, w.sub(c.k, k0))
    first, width = _panel(w, c, w.rem("%block", c.panels))
    column = w.mul(first, tile.lanes)
    source = w.at(w.at(c.b, w.mul(k0, c.rsb)), w.mul(column, c.csb))
    columns = w.mul(width, tile.lanes)
    valid = w.min(columns, w.sub(c.n, column))
    target = _packed_panel(w, c, tile, k0, kn, first)
    call_pack(w, tile, [target, source, c.rsb, c.csb, kn, valid, columns])
    w.finish()


def panel_widths(tile: Tile, n: int) -> set[int]:
    """Vectors of the panels into which ``n`` columns are cut, as `_emit_chunk` does."""
    widths: set[int] = set()
    for columns in {min(n, CHUNK_COLUMNS), n % CHUNK_COLUMNS or CHUNK_COLUMNS}:
        vectors = -(-columns // tile.lanes)
        width, wider = divmod(vectors, -(-vectors // tile.vectors))
        widths |= {width, width + 1} if wider else {width}
    return widths


def declare_tiles(module: Module, tile: Tile, n: int, transposes: bool) -> None:
    """Say what a product with ``n`` columns needs besides `emit_gemm`; ``transposes``: the columns of B are
    contiguous.
    """
    for vectors in panel_widths(tile, n):
        declare_tile(module, tile, tile.rows, vectors)
    if transposes:
        declare_transpose(module, tile)


def block_symbol(tile: Tile) -> str:
    """Name of the function that computes one block with this tile."""
    return f"gj_block_{tile.family}_{tile.rows}x{tile.vectors}"


def emit_block(module: Module, tile: Tile) -> None:
    """Add the function of a block: some rows of C by some panels, over all of k.

    Its table of tiles, by vectors, holds those that programs needed so far (`declare_tiles`).
    """
    name = block_symbol(tile)
    module.add_global(f"{name}_tiles", f"@{name}_tiles = global [{tile.vectors} x ptr] zeroinitializer")
    w = _BlockWriter(module, tile, name)
    with w.loop(0, w.context.k_blocks) as k_block:
        w.begin_k_block(k_block)
        with w.loop(*w.rows, w.span) as start:
            stop = w.min(w.add(start, w.span), w.rows[1])
            a = w.rows_of_a(start, stop)
            with w.loop(start, stop, tile.rows) as row:
                w.row_of_tiles(row, start, stop, a)
    with w.when(w.packs):
        give_workspace(w, w.buffer)
    w.finish()


class _BlockWriter(Writer):
    """The function of a block under construction.

    ``span`` rows of A are packed together: whole tiles in whole vectors.
    """

    def __init__(self, module: Module, tile: Tile, name: str) -> None:
        super().__init__(module, name, [("ptr", "context"), ("i64", "block")])
        self.tile, self.name = tile, name
        self.context = c = _load_context(self)
        self.span = 3 * tile.lanes * (2 if 3 * tile.lanes % tile.rows else 1)
        longest = module.limits.products.k_block * 3 // 2
        assert self.span * longest * tile.size <= PIECE_BYTES
        group, part = self.div("%block", c.row_blocks), self.rem("%block", c.row_blocks)
        tiles = self.div(self.add(c.m, tile.rows - 1), tile.rows)
        first = self.mul(self.div(self.mul(part, tiles), c.row_blocks), tile.rows)
        last = self.mul(self.div(self.mul(self.add(part, 1), tiles), c.row_blocks), tile.rows)
        self.rows = first, self.min(last, c.m)
        self.panels = (
            self.div(self.mul(group, c.panels), c.groups),
            self.div(self.mul(self.add(group, 1), c.panels), c.groups),
        )
        self.buffer = self._take_buffer()
        self.packs = self.op(f"icmp ne ptr {self.buffer}, null")  # without memory A is read where it lies
        self.in_place = self.op(f"icmp eq ptr {c.packed}, null")
        self.row_step = self.select(self.packs, tile.size, c.rsa)
        self.column_step = self.select(self.packs, self.span * tile.size, c.csa)

    def _take_buffer(self) -> str:
        """Memory to pack A; null where A is not packed or there is none."""
        before = self.fn.current
        with self.when(self.test("ne", self.context.packs_a, 0)):
            taken, inside = take_workspace(self, 0), self.fn.current
        buffer = self.fn.phi("ptr")
        buffer.add("null", before)
        buffer.add(taken, inside)
        return buffer.name

    def begin_k_block(self, number: str) -> None:
        """The terms of one block of k, and whether they are added to what stands in C."""
        c = self.context
        self.k0 = self.mul(number, c.kc)
        self.count = self.min(c.kc, self.sub(c.k, self.k0))
        self.continues = self.either(self.test("ne", c.accumulate, 0), self.test("ne", number, 0))

    def rows_of_a(self, start: str, stop: str) -> str:
        """Where rows ``start`` to ``stop`` of A lie for this block of k: packed, or as they are."""
        c = self.context
        source = self.at(self.at(c.a, self.mul(self.k0, c.csa)), self.mul(start, c.rsa))
        with self.when(self.packs):
            rows = self.sub(stop, start)
            call_pack(self, self.tile, [self.buffer, source, c.csa, c.rsa, self.count, rows, self.span])
        return self.select(self.packs, self.buffer, source, "ptr")

    def row_of_tiles(self, row: str, start: str, stop: str, rows_of_a: str) -> None:
        """The tiles of all panels that begin at ``row``."""
        c = self.context
        m = self.min(self.tile.rows, self.sub(stop, row))
        a = self.at(rows_of_a, self.mul(self.sub(row, start), self.row_step))
        target = self.at(c.c, self.mul(row, c.ldc))
        with self.loop(*self.panels) as panel:
            self.one_tile(panel, m, a, target)

    def one_tile(self, panel: str, m: str, a: str, target: str) -> None:
        """Call the tile for ``m`` rows at ``a`` and one panel, whose function the table holds."""
        c, tile = self.context, self.tile
        first, width = _panel(self, c, panel)
        column = self.mul(first, tile.lanes * tile.size)
        unpacked = self.at(self.at(c.b, self.mul(self.k0, c.rsb)), column)
        packed = _packed_panel(self, c, tile, self.k0, self.count, first)
        b = self.select(self.in_place, unpacked, packed, "ptr")
        ldb = self.select(self.in_place, c.rsb, self.mul(width, tile.lanes * tile.size))
        n = self.sub(c.n, self.mul(self.sub(self.add(first, width), 1), tile.lanes))
        slot = self.op(f"getelementptr ptr, ptr @{self.name}_tiles, i64 {self.sub(width, 1)}")
        steps = self.row_step, self.column_step
        place = self.at(target, column)
        values = [m, n, self.count, a, *steps, b, ldb, place, c.ldc, self.continues]
        signature = ", ".join(kind for kind, _ in TILE_PARAMETERS)
        typed = ", ".join(arguments(TILE_PARAMETERS, values))
        self.do(f"call void ({signature}) {self.load('ptr', slot)}({typed})")


PRODUCT = CONTEXT[:12]


def _estimate(w: Writer, tile: Tile, tiles: str, vectors: str, k: str) -> str:
    """Nanoseconds on one core, padding included."""
    operations = w.mul(w.mul(tiles, vectors), w.mul(k, tile.rows))
    return w.div(operations, w.module.limits.products.vectors_per_ns)


def _emit_chunk(module: Module, tile: Tile) -> None:
    """``chunk``: a product whose B fits the packing buffer; strides in bytes."""
    w = Writer(module, "chunk", PRODUCT)
    context = w.fn.alloca(f"[{len(CONTEXT)} x i64]", 64)
    limits = module.limits.products
    vectors = w.ceildiv("%n", tile.lanes)
    panels = w.ceildiv(vectors, tile.vectors)
    tiles = w.ceildiv("%m", tile.rows)
    k_blocks = w.max(w.div(w.add("%k", limits.k_block // 2), limits.k_block), 1)
    kc = w.ceildiv("%k", k_blocks)
    nanoseconds = _estimate(w, tile, tiles, vectors, "%k")
    want = w.min(w.max(w.div(nanoseconds, limits.block_ns), 1), limits.max_blocks)
    panel_bytes = w.mul(kc, tile.columns * tile.size)
    groups = w.ceildiv(panels, w.max(w.div(limits.group_bytes, panel_bytes), 1))
    row_blocks = w.max(w.min(w.ceildiv(want, groups), w.div(tiles, limits.block_tiles)), 1)
    # Few rows: the columns must give the blocks.
    few = w.test("slt", w.mul(row_blocks, groups), w.min(want, limits.few_blocks))
    groups = w.select(few, w.min(panels, w.max(w.ceildiv(want, row_blocks), groups)), groups)
    contiguous = w.test("eq", "%csb", tile.size)
    low = w.test("sle", "%m", limits.few_tiles * tile.rows)
    little = w.test("sle", w.mul(w.mul("%k", "%n"), tile.size), limits.tiny_bytes)
    direct = w.both(contiguous, w.either(low, little))
    packs_a = w.op(f"zext i1 {w.both(w.test('ne', '%csa', tile.size), w.test('sgt', panels, 1))} to i64")
    values = {label: f"%{label}" for _, label in PRODUCT} | {
        "packed": "null",
        "packs_a": packs_a,
        "kc": kc,
        "k_blocks": k_blocks,
        "vectors": vectors,
        "panels": panels,
        "width": w.div(vectors, panels),
        "wider": w.rem(vectors, panels),
        "row_blocks": row_blocks,
        "groups": groups,
    }
    for i, (kind, name) in enumerate(CONTEXT):
        w.store(kind, values[name], w.at(context, 8 * i))
    blocks = w.mul(row_blocks, groups)
    with w.exit_when(direct):
        w.call(
            "gj_parallel_for",
            [f"ptr @{block_symbol(tile)}", f"ptr {context}", f"i64 {blocks}", f"i64 {nanoseconds}"],
        )
    buffer = w.call("take", [], "ptr")
    w.store("ptr", buffer, w.at(context, 8 * [name for _, name in CONTEXT].index("packed")))
    # Where blocks follow, workers woken for packing stay for them.
    moved = w.div(w.mul(w.mul("%k", "%n"), tile.size), limits.bytes_per_ns)
    moved = w.add(moved, w.select(w.test("sgt", blocks, 1), nanoseconds, 0))
    w.call(
        "gj_parallel_for",
        ["ptr @pack_block", f"ptr {context}", f"i64 {w.mul(panels, k_blocks)}", f"i64 {moved}"],
    )
    w.call(
        "gj_parallel_for",
        [f"ptr @{block_symbol(tile)}", f"ptr {context}", f"i64 {blocks}", f"i64 {nanoseconds}"],
    )
    w.call("give", [f"ptr {buffer}"])
    w.finish()


def _emit_chunks(module: Module, tile: Tile) -> None:
    """``chunks``: any product with k > 0; strides in bytes."""
    w = Writer(module, "chunks", PRODUCT)
    wide = w.min(w.mul(w.ceildiv("%n", tile.lanes), tile.lanes), CHUNK_COLUMNS)
    deep = w.div(BUFFER_BYTES // tile.size, wide)
    with w.loop(0, "%n", CHUNK_COLUMNS) as column, w.loop(0, "%k", deep) as k:
        n, kn = w.min(CHUNK_COLUMNS, w.sub("%n", column)), w.min(deep, w.sub("%k", k))
        a = w.at("%a", w.mul(k, "%csa"))
        b = w.at(w.at("%b", w.mul(k, "%rsb")), w.mul(column, "%csb"))
        c = w.at("%c", w.mul(column, tile.size))
        _call_product(
            w,
            "chunk",
            ["%m", n, kn, a, "%rsa", "%csa", b, "%rsb", "%csb", c, "%ldc", w.op(f"or i64 %accumulate, {k}")],
        )
    w.finish()


def _call_product(w: Writer, name: str, values: Sequence[Value]) -> None:
    w.call(name, arguments(PRODUCT, values))


def _emit_segment(module: Module, tile: Tile) -> None:
    """``segment``: the block of ``split``: the terms of one segment of k, summed in C or on the side."""
    slots = len(PRODUCT)
    w = Writer(module, "segment", [("ptr", "context"), ("i64", "block")])
    c = {label: w.load(kind, w.at("%context", 8 * i)) for i, (kind, label) in enumerate(PRODUCT)}
    segments, partial = (
        w.load("i64", w.at("%context", 8 * slots)),
        w.load("ptr", w.at("%context", 8 * slots + 8)),
    )
    first = w.div(w.mul("%block", c["k"]), segments)
    kn = w.sub(w.div(w.mul(w.add("%block", 1), c["k"]), segments), first)
    a, b = w.at(c["a"], w.mul(first, c["csa"])), w.at(c["b"], w.mul(first, c["rsb"]))
    row = w.mul(c["n"], tile.size)
    begins = w.test("eq", "%block", 0)
    target = w.select(begins, c["c"], w.at(partial, w.mul(w.sub("%block", 1), w.mul(c["m"], row))), "ptr")
    ldc, accumulate = w.select(begins, c["ldc"], row), w.select(begins, c["accumulate"], 0)
    _call_product(
        w,
        "chunks",
        [c["m"], c["n"], kn, a, c["rsa"], c["csa"], b, c["rsb"], c["csb"], target, ldc, accumulate],
    )
    w.finish()


def _emit_split(module: Module, tile: Tile) -> None:
    """``split``: a small C summed over segments of k in parallel.  The sums are added in the order of the
    segments.
    """
    assert module.limits.products.partial_bytes <= PIECE_BYTES
    slots = len(PRODUCT)
    w = Writer(module, "split", [*PRODUCT, ("i64", "segments")])
    context = w.fn.alloca(f"[{slots + 2} x i64]")
    partial = take_workspace(w, 1)
    for i, (kind, label) in enumerate(PRODUCT):
        w.store(kind, f"%{label}", w.at(context, 8 * i))
    w.store("i64", "%segments", w.at(context, 8 * slots))
    w.store("ptr", partial, w.at(context, 8 * slots + 8))
    nanoseconds = _estimate(w, tile, w.ceildiv("%m", tile.rows), w.ceildiv("%n", tile.lanes), "%k")
    w.call("gj_parallel_for", ["ptr @segment", f"ptr {context}", "i64 %segments", f"i64 {nanoseconds}"])
    cells = w.mul("%m", "%n")
    with w.loop(0, w.sub("%segments", 1)) as segment, w.loop(0, "%m") as row, w.loop(0, "%n") as column:
        source = w.at(
            partial, w.mul(w.add(w.mul(segment, cells), w.add(w.mul(row, "%n"), column)), tile.size)
        )
        target = w.at(w.at("%c", w.mul(row, "%ldc")), w.mul(column, tile.size))
        total = w.op(
            f"fadd {tile.element} {w.load(tile.element, target, tile.size)}, {w.load(tile.element, source, tile.size)}"
        )
        w.store(tile.element, total, target, tile.size)
    give_workspace(w, partial)
    w.finish()


def _emit_entry(module: Module, tile: Tile) -> str:
    """The public function: strides in elements, chunks, and the cases without work."""
    name = f"gj_gemm_{tile.kind}"
    labels = ["m", "n", "k", "a", "rsa", "csa", "b", "rsb", "csb", "c", "ldc", "accumulate"]
    w = Writer(module, name, [("ptr" if label in "abc" else "i64", label) for label in labels])
    with w.exit_when(w.either(w.test("sle", "%m", 0), w.test("sle", "%n", 0))):
        pass
    rsa, csa, rsb, csb, ldc = (w.mul(f"%{label}", tile.size) for label in ("rsa", "csa", "rsb", "csb", "ldc"))
    with w.exit_when(w.test("sle", "%k", 0)), w.when(w.test("eq", "%accumulate", 0)), w.loop(0, "%m") as row:
        w.call(
            "memset", [f"ptr {w.at('%c', w.mul(row, ldc))}", "i32 0", f"i64 {w.mul('%n', tile.size)}"], "ptr"
        )
    values = ["%m", "%n", "%k", "%a", rsa, csa, "%b", rsb, csb, "%c", ldc, "%accumulate"]
    # A C of more than half the workspace has blocks enough, and two segments need one partial sum.
    limits = module.limits.products
    fitting = w.div(limits.partial_bytes // tile.size, w.mul("%m", "%n"))
    segments = w.min(w.min(w.div("%k", limits.segment), fitting), limits.max_segments)
    with w.exit_when(w.test("sge", segments, 2)):
        w.call("split", [*arguments(PRODUCT, values), f"i64 {segments}"])
    _call_product(w, "chunks", values)
    w.finish()
    return name
