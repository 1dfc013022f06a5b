"""Join nested loops that walk memory as one.

Input and output: a loop kernel.  Invariant: the same statements run in the same order.
"""

from __future__ import annotations

from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.loops.ir import (
    Address,
    Axis,
    Bound,
    For,
    Index,
    Let,
    Load,
    LoopKernel,
    Multiply,
    Statement,
    Store,
    addresses,
    map_blocks,
)


def collapse(kernel: LoopKernel) -> LoopKernel:
    """Merge ``for i: for j:`` into one loop wherever every address depends on ``i*extent(j) + j`` alone."""
    return kernel.with_body(tuple(_statement(s) for s in kernel.body))


def _statement(statement: Statement) -> Statement:
    if not isinstance(statement, For):
        return statement
    body = tuple(_statement(s) for s in statement.body)
    if (
        statement.kind == "serial"
        and len(body) == 1
        and isinstance(body[0], For)
        and statement.bound is None
        and body[0].bound is None
    ):
        inner = body[0]
        if (
            inner.when is None
            and inner.kind == "serial"
            and all(a[statement.axis] == inner.extent * a[inner.axis] for a in addresses(inner.body))
        ):
            axis = Axis(f"{statement.axis.name}{inner.axis.name}")
            body = tuple(rename(s, statement.axis, inner.axis, axis) for s in inner.body)
            return For(axis, statement.extent * inner.extent, body, when=statement.when)
    return replace(statement, body=body)


def rename(statement: Statement, dropped: Axis, inner: Axis, axis: Axis) -> Statement:
    """Address by ``axis`` what was addressed by ``inner`` (and, in step, by ``dropped``)."""

    def moved(address: Address) -> Address:
        terms = {a: c for a, c in address.terms.items() if a not in (dropped, inner)}
        return Affine(address.offset, {**terms, axis: address[inner]})

    return map_addresses(statement, moved)


def map_addresses(statement: Statement, change: object) -> Statement:
    """The statement with ``change`` applied to every affine expression."""
    assert callable(change)
    if isinstance(statement, Let):
        if isinstance(statement.value, Load):
            return Let(statement.ref, replace(statement.value, address=change(statement.value.address)))
        if isinstance(statement.value, Index):
            return Let(statement.ref, Index(change(statement.value.value)))
        return statement
    if isinstance(statement, Store):
        return replace(statement, address=change(statement.address))
    if isinstance(statement, Multiply):
        bound = statement.bound and Bound(change(statement.bound.start), statement.bound.stop)
        x, y, out = (
            replace(matrix, address=change(matrix.address))
            for matrix in (statement.x, statement.y, statement.out)
        )
        return replace(statement, x=x, y=y, out=out, bound=bound)
    if isinstance(statement, For):
        bound = statement.bound and Bound(change(statement.bound.start), statement.bound.stop)
        return replace(statement, body=tuple(map_addresses(s, change) for s in statement.body), bound=bound)
    return map_blocks(statement, lambda s: map_addresses(s, change))
