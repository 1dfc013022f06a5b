"""A matrix product as a step of a program: by code for its shape, or by the product of any shape."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from graphjit.backend.llvm.kernels.scalar import kind
from graphjit.backend.llvm.products.direct import call_direct, emit_direct
from graphjit.backend.llvm.products.packed import declare_tiles
from graphjit.backend.llvm.products.plan import Matrices, plan
from graphjit.backend.llvm.products.runs import call_runs, emit_runs, plan_runs
from graphjit.backend.llvm.products.tile import Tile, host_tile
from graphjit.backend.llvm.writing.text import Function
from graphjit.backend.llvm.writing.writer import Writer
from graphjit.schedule.program import Product


def call_product(fn: Function, step: Product, operands: Sequence[str], known: dict[Hashable, str]) -> None:
    """Compute a product, by code for its shape or by that of any shape, once for each element of a batch.

    ``operands`` are pointers to both factors and the result; ``known`` has the code that the module holds.
    """
    element = kind(step.node.dtype)
    short = "f64" if element == "double" else "f32"
    if step.in_runs:
        _in_runs(fn, step, host_tile(short), operands, known)
        return
    symbol = f"gj_gemm_{short}"
    direct = plan(
        Matrices(step.m, step.n, step.k, step.lhs, step.rhs, step.batch, step.batch_strides[:2]),
        host_tile(short),
        fn.module.limits,
    )
    if direct is not None:
        w = Writer.within(fn)
        if direct not in known:
            known[direct] = f"product_{step.name}"
            emit_direct(fn.module, known[direct], direct)
        call_direct(w, known[direct], direct, [operands[i] for i in direct.order])
        return
    declare_tiles(fn.module, host_tile(short), step.n, transposes=step.rhs[0] == 1 and step.rhs[1] != 1)
    fn.module.declare(
        symbol, f"declare void @{symbol}(i64, i64, i64, ptr, i64, i64, ptr, i64, i64, ptr, i64, i64)"
    )
    places = list(operands)
    start, head, done = fn.current, fn.label("batch"), fn.label("done")
    if step.batch > 1:
        fn.do(f"br label %{head}")
        fn.start(head)
        counter = fn.phi("i64")
        counter.add("0", start)
        for i, stride in enumerate(step.batch_strides):
            offset = fn.op(f"mul i64 {counter.name}, {stride}")
            places[i] = fn.op(f"getelementptr {element}, ptr {places[i]}, i64 {offset}")
    (rows_x, cols_x), (rows_y, cols_y) = step.lhs, step.rhs
    fn.do(
        f"call void @{symbol}(i64 {step.m}, i64 {step.n}, i64 {step.k}, ptr {places[0]}, i64 {rows_x}, i64 {cols_x}, "
        f"ptr {places[1]}, i64 {rows_y}, i64 {cols_y}, ptr {places[2]}, i64 {step.n}, i64 0)"
    )
    if step.batch > 1:
        following = fn.op(f"add i64 {counter.name}, 1")
        counter.add(following, fn.current)
        more = fn.op(f"icmp slt i64 {following}, {step.batch}")
        fn.do(f"br i1 {more}, label %{head}, label %{done}")
        fn.start(done)


def _in_runs(
    fn: Function, step: Product, tile: Tile, operands: Sequence[str], known: dict[Hashable, str]
) -> None:
    """Compute a product whose left operand lies in runs."""
    runs = plan_runs(step, tile, fn.module.limits)
    if runs not in known:
        known[runs] = f"product_{step.name}"
        emit_runs(fn.module, known[runs], runs)
    call_runs(Writer.within(fn), known[runs], runs, operands)
