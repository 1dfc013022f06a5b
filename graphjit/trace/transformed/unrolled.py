"""Nodes of a `scan`, with several steps in one where the user asks for it (``unroll``).

Input: the graph of one step, the arguments. Output: the results, one by one.
Invariant: the steps are those of the loop without ``unroll``, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.trace.recording.tracer import Trace


def scan_nodes(
    trace: Trace,
    step: Graph,
    constants: Sequence[Node],
    carries: Sequence[Node],
    arrays: Sequence[Node],
    length: int,
    reverse: bool,
    unroll: int,
) -> list[Node]:
    """The carries after all steps, then what the steps computed besides, stacked."""
    if unroll == 1:
        return _loop(trace, step, constants, carries, arrays, length, reverse)
    count, rest = divmod(length, unroll)
    if length <= unroll:
        return _straight(trace.builder, step, constants, carries, arrays, length, reverse)
    # The steps that are left over come last: at the end, or in reverse at the beginning.
    start, border = (rest, rest) if reverse else (0, length - rest)
    blocks = []
    for array in arrays:
        part = _part(trace.builder, array, start, start + count * unroll)
        blocks.append(trace.emit("reshape", part, shape=(count, unroll, *array.shape[1:])))
    block = _block(trace.builder, step, len(constants), len(carries), unroll, reverse)
    found = _loop(trace, block, constants, carries, blocks, count, reverse)
    carried, stacked = found[: len(carries)], found[len(carries) :]
    stacked = [trace.emit("reshape", node, shape=(count * unroll, *node.shape[2:])) for node in stacked]
    if not rest:
        return [*carried, *stacked]
    left = slice(0, border) if reverse else slice(border, length)
    others = [_part(trace.builder, array, left.start, left.stop) for array in arrays]
    found = _straight(trace.builder, step, constants, carried, others, rest, reverse)
    pairs = zip(stacked, found[len(carries) :], strict=True)
    joined = [trace.emit("concatenate", *((b, a) if reverse else (a, b)), axis=0) for a, b in pairs]
    return [*found[: len(carries)], *joined]


def _loop(
    trace: Trace,
    step: Graph,
    constants: Sequence[Node],
    carries: Sequence[Node],
    arrays: Sequence[Node],
    length: int,
    reverse: bool,
) -> list[Node]:
    node = trace.emit(
        "scan",
        *constants,
        *carries,
        *arrays,
        body=Body(step),
        carried=len(carries),
        sliced=len(arrays),
        length=length,
        reverse=reverse,
    )
    return [trace.emit("item", node, index=k) for k in range(len(node.parts))]


def _block(b: Builder, step: Graph, constants: int, carried: int, count: int, reverse: bool) -> Graph:
    """A graph of ``count`` steps: of each array it gets as many elements."""
    first = constants + carried
    inputs = [b.input(node.type, str(node.attrs["name"])) for node in step.inputs[:first]]
    inputs += [
        b.input(node.type.with_shape((count, *node.shape)), str(node.attrs["name"]))
        for node in step.inputs[first:]
    ]
    made = _straight(b, step, inputs[:constants], inputs[constants:first], inputs[first:], count, reverse)
    return Graph(step.name, inputs, made)


def _straight(
    b: Builder,
    step: Graph,
    constants: Sequence[Node],
    carries: Sequence[Node],
    arrays: Sequence[Node],
    length: int,
    reverse: bool,
) -> list[Node]:
    """The steps one after the other, without a loop."""
    carried, rows = tuple(carries), dict[int, Sequence[Node]]()
    for t in reversed(range(length)) if reverse else range(length):
        elements = [b.reshape(_part(b, array, t, t + 1), shape=array.shape[1:]) for array in arrays]
        made = b.inline(step, (*constants, *carried, *elements))
        carried, rows[t] = made[: len(carries)], made[len(carries) :]
    columns = zip(*(rows[t] for t in range(length)), strict=True)
    stacked = [
        b.concatenate(*(b.reshape(node, shape=(1, *node.shape)) for node in column), axis=0)
        for column in columns
    ]
    return [*carried, *stacked]


def _part(b: Builder, array: Node, start: int, stop: int) -> Node:
    """Elements from ``start`` to before ``stop`` along the first axis."""
    others = [0] * (len(array.shape) - 1)
    return b.slice(
        array, starts=(start, *others), limits=(stop, *array.shape[1:]), steps=(1,) * len(array.shape)
    )
