"""Nodes of a `scan`, with several steps in one (``unroll``) or cut into segments (``checkpoint_every``).

Input: the graph of one step, the arguments. Output: the results, one by one.
Invariant: the steps are those of the plain loop, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.trace.recording.tracer import Trace
from graphjit.trace.transformed.segments import checkpointed, stand_ins
from graphjit.transforms.control.loops import Parts, elements

Steps = Callable[[Parts, int], list[Node]]
"""The results of so many steps on these arguments."""


def scan_nodes(
    trace: Trace, step: Graph, args: Parts, length: int, reverse: bool, unroll: int, every: int | None
) -> list[Node]:
    """The carries after all steps, then what the steps computed besides, stacked. With ``every``, reverse
    mode keeps the carries before each segment of so many steps, and runs the segment again.
    """

    def straight(args: Parts, count: int) -> list[Node]:
        return _straight(trace.builder, step, args, count, reverse)

    def steps(args: Parts, count: int) -> list[Node]:
        if unroll == 1:
            return _loop(trace, step, args, count, reverse)
        if count <= unroll:
            return straight(args, count)
        return _in_blocks(trace, step.name, args, count, reverse, unroll, straight)

    def segment(args: Parts, count: int) -> list[Node]:
        return checkpointed(trace, step.name, args, lambda inputs: steps(inputs, count))

    if every is None or length <= every:
        return steps(args, length)
    # A little shorter, if then no steps are left over, whose code would be written once more.
    every = next((size for size in range(every, every // 2, -1) if length % size == 0), every)
    return _in_blocks(trace, step.name, args, length, reverse, every, segment)


def _loop(trace: Trace, step: Graph, args: Parts, length: int, reverse: bool) -> list[Node]:
    node = trace.emit(
        "scan",
        *args.all,
        body=Body(step),
        carried=len(args.carries),
        sliced=len(args.slices),
        length=length,
        reverse=reverse,
    )
    return [trace.emit("item", node, index=k) for k in range(len(node.parts))]


def _in_blocks(
    trace: Trace, name: str, args: Parts, length: int, reverse: bool, size: int, make: Steps
) -> list[Node]:
    """A loop whose steps are blocks of ``size`` steps as ``make`` makes them. Steps that are left over come
    last: at the end, or in reverse at the beginning.
    """
    b, carried = trace.builder, len(args.carries)
    count, rest = divmod(length, size)
    start, border = (rest, rest) if reverse else (0, length - rest)
    blocks = []
    for array in args.slices:
        part = elements(b, array, start, start + count * size)
        blocks.append(trace.emit("reshape", part, shape=(count, size, *array.shape[1:])))
    parts = [elements(b, array, 0, size) for array in args.slices]
    inputs = stand_ins(trace, args._replace(slices=parts))
    with b.apart():
        block = Graph(name, inputs.all, make(inputs, size))
    found = _loop(trace, block, args._replace(slices=blocks), count, reverse)
    carries, stacked = found[:carried], found[carried:]
    stacked = [trace.emit("reshape", node, shape=(count * size, *node.shape[2:])) for node in stacked]
    if not rest:
        return [*carries, *stacked]
    left = slice(0, border) if reverse else slice(border, length)
    others = [elements(b, array, left.start, left.stop) for array in args.slices]
    found = make(Parts(args.constants, carries, others), rest)
    pairs = zip(stacked, found[carried:], strict=True)
    joined = [trace.emit("concatenate", *((b, a) if reverse else (a, b)), axis=0) for a, b in pairs]
    return [*found[:carried], *joined]


def _straight(b: Builder, step: Graph, args: Parts, length: int, reverse: bool) -> list[Node]:
    """The steps one after the other, without a loop."""
    count, carried, rows = len(args.carries), tuple(args.carries), dict[int, Sequence[Node]]()
    for t in reversed(range(length)) if reverse else range(length):
        slices = [b.reshape(elements(b, array, t, t + 1), shape=array.shape[1:]) for array in args.slices]
        made = b.inline(step, (*args.constants, *carried, *slices))
        carried, rows[t] = made[:count], made[count:]
    columns = zip(*(rows[t] for t in range(length)), strict=True)
    stacked = [
        b.concatenate(*(b.reshape(node, shape=(1, *node.shape)) for node in column), axis=0)
        for column in columns
    ]
    return [*carried, *stacked]
