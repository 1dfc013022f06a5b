"""Batching rules that many ops share: an op over a batch of arguments, as nodes.

A rule is ``(b, node, args, batched) -> Node``. ``args[i]`` has one more axis than ``node.args[i]``, in front,
where ``batched[i]``; at least one has. The result has the axis in front of ``node``'s.

Example: the rule of ``sum`` over axis 0 sums over axis 1. Where ``x * w`` multiplies a batch of ``x`` by one
``w``, ``w`` is repeated along the batch, which costs nothing: loops read it where it lies.

Input: the builder, a node, new arguments. Output: the node over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Node = Any
"""A node of a graph (`ir.node.Node`), which is defined on top of this."""

BatchRule = Callable[[Any, Node, Sequence[Node], Sequence[bool]], Node]


def size_between(one: Node, wide: Node) -> int:
    """The number of elements of the batch: ``wide`` is ``one`` over it.

    A batch of tapes is a tape of batches where one loop wrote them all, and else an array of tapes.
    """
    a, b = one.type, wide.type
    while a.shape == b.shape:
        a, b = a.record, b.record
    return int(b.shape[0])


def size_of(args: Sequence[Node], batched: Sequence[bool]) -> int:
    """The number of elements of the batch."""
    return next(int(arg.shape[0]) for arg, has_axis in zip(args, batched, strict=True) if has_axis)


def all_batched(b: Any, args: Sequence[Node], batched: Sequence[bool]) -> list[Node]:
    """The arguments, each with the axis of the batch: those that do not vary are repeated."""
    size = size_of(args, batched)
    return [
        arg if has_axis else b.broadcast_to(arg, shape=(size, *arg.shape))
        for arg, has_axis in zip(args, batched, strict=True)
    ]


def same_op(b: Any, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """The op itself on arguments of one more axis; ``axes`` and ``axis`` among its attributes move by one.

    This is the rule of elementwise ops, of reductions and of running values.
    """
    attrs = dict(node.attrs)
    if "axes" in attrs:
        attrs["axes"] = tuple(axis + 1 for axis in attrs["axes"])
    if "axis" in attrs:
        attrs["axis"] += 1
    return b.emit(node.op, *all_batched(b, args, batched), **attrs)


def to_front(b: Any, x: Node, axis: int) -> Node:
    """``x`` with one of its axes moved to the front."""
    moved: Node = b.transpose(x, perm=(axis, *(a for a in range(len(x.shape)) if a != axis)))
    return moved


def from_front(b: Any, x: Node, axis: int) -> Node:
    """``x`` with its first axis moved to ``axis``."""
    rest = list(range(1, len(x.shape)))
    moved: Node = b.transpose(x, perm=(*rest[:axis], 0, *rest[axis:]))
    return moved
