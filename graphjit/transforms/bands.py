"""Jacobians of functions that work element by element: along a few bands, not along every direction.

In ``y = x[1:] - x[:-1] ** 2`` each element of ``y`` depends on two elements of ``x``, at a fixed distance.
Its Jacobian is zero but for two diagonals. Such a derivative is kept as one value for each band: of the
element at ``i``, the derivative by the element of ``x`` at ``where(i)``. Each op of the function is
differentiated once for each band, on arrays of its own size, and the matrix is filled at the end, in one
kernel.

Input: an input node and output nodes. Output: blocks as in `jacobian`, or None where the function does more
than that, such as a sum.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from graphjit.ir.affine import Affine, own_index, reshape_index
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.opdef import Partials, Scalar, View
from graphjit.ir.patterns import is_zero
from graphjit.ir.types import I64, Type
from graphjit.transforms.forward import push
from graphjit.transforms.masked import lift_mask
from graphjit.transforms.reverse import active_nodes

MOST_BANDS = 9
"""Bands up to which a matrix is filled band by band."""

Where = tuple[Affine[int], ...]
"""For an element at some index: the index of the element of the input, over the axes of the former."""
Bands = dict[Where, Node]


def banded(b: Builder, x: Node, outputs: Sequence[Node]) -> list[Node | None] | None:
    """The block of each output, None where that is zero; None instead of all where they are not banded."""
    found: dict[Node, Bands] = {x: {own_index(x.shape): b.full(1.0, x.type)}}
    for node in active_nodes(outputs, [x]):
        if node not in found and any(arg in found for arg in node.args):
            bands = _pushed(b, node, found)
            if bands is None or len(bands) > MOST_BANDS:
                return None
            found[node] = bands
    return [_filled(b, x, out, found[out]) if found.get(out) else None for out in outputs]


def _pushed(b: Builder, node: Node, found: dict[Node, Bands]) -> Bands | None:
    """The bands of a node from those of its arguments."""
    bands: Bands = {}
    for position, arg in enumerate(node.args):
        for where, value in found.get(arg, {}).items():
            moved = _moved(node, position, where)
            if moved is None:
                return None
            b.like(node, origin=f"jvp of {node.op.name}")
            given = [value if i == position else None for i in range(len(node.args))]
            tangent = push(b, node, given)
            if tangent is None or is_zero(tangent):
                continue
            tangent = lift_mask(b, tangent)
            bands[moved] = lift_mask(b, b.add(bands[moved], tangent)) if moved in bands else tangent
    return bands


def _moved(node: Node, position: int, where: Where) -> Where | None:
    """Where the elements of a node read the input, given where those of an argument do."""
    if node.is_bundle:
        return None
    index: Any = own_index(node.shape)
    inner: Where | None
    name, lower = node.op.name, node.op.lower
    if isinstance(node.op.derivative, Partials) or isinstance(lower, Scalar):
        return where if node.args[position].shape == node.shape else None
    if isinstance(lower, View):
        inner = lower.index_map(node, index)
    elif name == "embed" and set(node.attrs["steps"]) <= {1}:  # type: ignore[call-overload]
        inner = tuple(i - s for i, s in zip(index, node.attrs["starts"], strict=True))  # type: ignore[call-overload]
    elif name == "concatenate":
        axis: Any = node.attrs["axis"]
        before = sum(arg.shape[axis] for arg in node.args[:position])
        inner = tuple(i - before if a == axis else i for a, i in enumerate(index))
    elif name == "reshape":
        inner = reshape_index(node.args[0].shape, node.shape, index)
    else:
        return None
    return None if inner is None else tuple(_composed(part, inner) for part in where)


def _composed(outer: Affine[int], inner: Where) -> Affine[int]:
    """``outer`` of the indices ``inner``."""
    total: Affine[int] = Affine(outer.offset)
    for axis, factor in outer.terms.items():
        total = total + inner[axis] * factor
    return total


def _filled(b: Builder, x: Node, out: Node, bands: Bands) -> Node:
    """The block: a band's value where the column is the one that the row reads, else zero."""
    shape = (*out.shape, *x.shape)
    ones = (1,) * len(x.shape)
    total: Node | None = None
    for where, value in bands.items():
        wide = b.broadcast_to(b.reshape(value, shape=(*out.shape, *ones)), shape=shape)
        hits = [
            b.eq(b.iota(dtype=I64, shape=shape, axis=len(out.shape) + a), _as_node(b, part, shape))
            for a, part in enumerate(where)
            if x.shape[a] != 1
        ]
        if hits:
            condition = functools.reduce(lambda p, q: b.emit("and", p, q), hits)
            wide = b.select(condition, wide, b.full(0.0, wide.type))
        total = wide if total is None else b.add(total, wide)
    assert total is not None
    return total


def _as_node(b: Builder, index: Affine[int], shape: tuple[int, ...]) -> Node:
    """An index as a value at each place of ``shape``."""
    type = Type(I64, shape)
    total: Node | None = None
    for axis, factor in index.terms.items():
        term = b.iota(dtype=I64, shape=shape, axis=axis)
        if factor != 1:
            term = b.mul(term, b.full(factor, type))
        total = term if total is None else b.add(total, term)
    offset = b.full(index.offset, type)
    if total is None:
        return offset
    return b.add(total, offset) if index.offset else total
