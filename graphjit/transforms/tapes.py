"""Arithmetic of tangents, cotangents and batches that may be tapes.

A tape has no addition and no zero of its own: what is done to each value on it is a loop over it. A tape that
`unwind` wrote has the order turned around, so where order matters there is a second loop that turns it back.

Input: nodes. Output: nodes; of arrays the plain operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.types import BOOL, I64, Type
from graphjit.transforms.batch import repeated


def zeros_like(b: Builder, node: Node) -> Node:
    """Zeros of the type of ``node``; of a tape one with as many of them."""
    if node.type.record is None:
        return b.full(0, node.type)
    return each(b, [], [node], lambda x: zeros_like(b, x))


def blank(b: Builder, type: Type) -> Node:
    """A value that nobody reads: zeros, a tape with nothing on it."""
    record = type.record
    if record is None:
        return b.full(0, type)
    never = Body(Graph("never", [], [b.const(False, BOOL)]))
    body = Body(Graph("blank", [], [blank(b, record)]))
    tape = b.item(b.emit("while", test=never, body=body, carried=0, taped=1), index=0)
    return b.broadcast_to(tape, shape=type.shape) if type.shape else tape


def plus(b: Builder, x: Node, y: Node) -> Node:
    """The sum; of two tapes value by value."""
    return b.add(x, y) if x.type.record is None else each(b, [], [x, y], lambda p, q: plus(b, p, q))


def each(b: Builder, constants: Sequence[Node], tapes: Sequence[Node], make: Callable[..., Node]) -> Node:
    """What ``make(*constants, *values)`` gives for the values on tapes, or for tapes in arrays, in their
    order.
    """
    first = [b.input(node.type, "same") for node in constants]
    shape = tapes[0].shape
    if shape:
        values = [b.input(node.type.with_shape(shape[1:]), "tape") for node in tapes]
        body = Body(Graph("each", [*first, *values], [make(*first, *values)]))
        attrs = {"carried": 0, "sliced": len(tapes), "length": shape[0], "reverse": False}
        return b.item(b.emit("scan", *constants, *tapes, body=body, **attrs), index=0)
    values = [b.input(record_of(node), "value") for node in tapes]
    turned = _unwound(b, [*constants, *tapes], [*first, *values], make(*first, *values), len(tapes))
    value = b.input(record_of(turned), "value")
    return _unwound(b, [turned], [value], value, 1)


def _unwound(b: Builder, args: Sequence[Node], inputs: Sequence[Node], made: Node, tapes: int) -> Node:
    body = Body(Graph("each", inputs, [made]))
    return b.item(b.emit("unwind", *args, body=body, carried=0, tapes=tapes), index=0)


def record_of(tape: Node) -> Type:
    """What one step wrote on a tape."""
    record = tape.type.record
    assert record is not None
    return record


def as_stack(b: Builder, one: Node, wide: Node, size: int) -> Node:
    """``one`` over a batch with its axis in front, also of tapes: of a tape of batches an array of tapes.

    ``wide`` is ``one`` over the batch, or a value of the type of ``one`` that does not vary.
    """
    if wide.type == one.type:
        return repeated(b, wide, size)
    if wide.shape != one.shape:
        return wide
    number = b.input(Type(I64, ()), "i")
    tape = b.input(wide.type, "tape")
    body = Body(Graph("element", [tape, number], [_element(b, tape, one.type, number)]))
    numbers = b.iota(dtype=I64, shape=(size,), axis=0)
    attrs = {"carried": 0, "sliced": 1, "length": size, "reverse": False}
    return b.item(b.emit("scan", wide, numbers, body=body, **attrs), index=0)


def _element(b: Builder, wide: Node, one: Type, number: Node) -> Node:
    """One element of a batch of values of type ``one``."""
    if wide.shape != one.shape:
        return b.gather(wide, number, axes=(0,))
    inner = one.with_shape(one.shape[1:]) if one.shape else one.record
    assert inner is not None
    return each(b, [number], [wide], lambda i, value: _element(b, value, inner, i))
