"""Matrix products of loop kernels as loops over single elements: what they mean.

Input and output: a loop kernel. Invariant: the same values, but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.loops.ir import (
    Accumulate,
    Axis,
    For,
    Init,
    Let,
    Load,
    LoopKernel,
    Multiply,
    Ref,
    Scalar,
    Statement,
    Store,
    fresh_numbers,
    walk,
)


def as_loops(kernel: LoopKernel) -> LoopKernel:
    """The same kernel with matrix products as loops over single elements: what they mean."""
    if not any(isinstance(s, Multiply) for s in walk(kernel.body)):
        return kernel
    numbers = fresh_numbers(kernel)

    def each(statement: Statement) -> Statement:
        if isinstance(statement, For):
            return replace(statement, body=tuple(map(each, statement.body)))
        return _elements(statement, numbers) if isinstance(statement, Multiply) else statement

    return kernel.with_body(tuple(map(each, kernel.body)))


def _elements(product: Multiply, numbers: Iterator[int]) -> For:
    m, n, k = product.shape
    which = next(numbers)
    rows, columns, terms = (Axis(f"{name}{which}") for name in ("m", "n", "k"))
    i, j, t = (Affine(0, {axis: 1}) for axis in (rows, columns, terms))
    out, x, y = product.out, product.x, product.y
    total, a, b, c, old, new = (Ref(next(numbers), out.buffer.dtype) for _ in range(6))
    inner = For(
        terms,
        k,
        (
            Let(a, Load(x.buffer, x.at(i, t))),
            Let(b, Load(y.buffer, y.at(t, j))),
            Let(c, Scalar("mul", (a, b))),
            Accumulate(total, "add", c),
        ),
        bound=product.bound if product.adds else None,
    )
    place = out.at(i, j)
    last: tuple[Statement, ...] = (Store(out.buffer, place, total),)
    if product.adds:
        last = (
            Let(old, Load(out.buffer, place)),
            Let(new, Scalar("add", (old, total))),
            Store(out.buffer, place, new),
        )
    return For(
        rows,
        m,
        (For(columns, n, (Init(total, "add"), inner, *last)),),
        bound=None if product.adds else product.bound,
    )
