"""Loops over a batch: one loop over batches, or, where elements take different ways, a loop over elements.

A `scan` always becomes a scan whose body is a batch. A `while` does where its test does not vary: all
elements take the same number of steps. Else each element runs its own loop, inside a `scan` over the
elements. The same holds for an `unwind`: a tape that one loop wrote for all elements holds batches, else
there is a tape for each element.

Which carries vary is found by trying, as in forward mode.

Input: a loop, its arguments over a batch. Output: its results, and which of them vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from graphjit.ir.batching import from_front, to_front
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.types import Type
from graphjit.transforms.batch import batch_size, spread
from graphjit.transforms.control.loops import Loop, Parts, opened, run
from graphjit.transforms.tapes import as_stack

Batches = list[tuple[Node, bool]]


def loop_batch(
    b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool], varying: Mapping[Node, Node]
) -> Batches:
    """A loop over a batch in the arguments that are ``batched``."""
    loop, size = opened(b, node), batch_size(node, args)
    given = loop.split(args)
    if loop.op == "unwind" and any(tape.shape for tape in given.slices):
        return one_by_one(b, node, args, batched)
    slices = [_steps_first(b, one, x) for one, x in zip(loop.args.slices, given.slices, strict=True)]
    given = given._replace(slices=slices)
    step = _step(b, loop, given, size, varying)
    if step is None:
        return one_by_one(b, node, args, batched)
    b.like(node)
    results = run(b, _over(b, loop, given, step, size))
    stacked = step.found[len(step.flags) :]
    rows = zip(results.made, loop.made, stacked, strict=False)
    made = [(_batch_first(b, loop, x, one, wide), flag) for x, one, (wide, flag) in rows]
    return [*zip(results.carries.values(), step.flags, strict=True), *made]


class _Step(NamedTuple):
    """One step over a batch: its inputs that vary, and for each its batch; which carries vary; what the step
    computes, and whether that varies.
    """

    wide: dict[Node, Node]
    flags: list[bool]
    found: list[tuple[Node, bool]]


def _step(b: Builder, loop: Loop, given: Parts, size: int, varying: Mapping[Node, Node]) -> _Step | None:
    """The body over a batch; None if the elements take different numbers of steps."""
    types = [arg.type for arg in given.constants] + [_of_a_step(x.type) for x in given.slices]
    still = [*loop.inputs.constants, *loop.inputs.slices]
    wide = {x: b.input(type, "batch") for x, type in zip(still, types, strict=True) if x.type != type}
    carries = loop.inputs.carries
    flags = [x.type != arg.type for x, arg in zip(carries, given.carries, strict=True)]
    while True:
        new = [x for x, flag in zip(carries, flags, strict=True) if flag and x not in wide]
        wide |= {x: b.input(x.type.with_shape((size, *x.shape)), "batch") for x in new}
        found = spread(b, loop.roots, {**varying, **wide})
        if loop.test is not None and found[-1][1]:
            return None
        varies = [flag or made[1] for flag, made in zip(flags, found, strict=False)]
        if varies == flags:
            return _Step(wide, flags, found)
        flags = varies


def _over(b: Builder, loop: Loop, given: Parts, step: _Step, size: int) -> Loop:
    """The loop whose body is ``step``."""
    made = [x for x, _ in step.found]
    initial, after = (
        [as_stack(b, one, x, size) if flag else x for one, x, flag in zip(ones, xs, step.flags, strict=False)]
        for ones, xs in ((loop.args.carries, given.carries), (loop.after, made))
    )
    return replace(
        loop,
        args=given._replace(carries=initial),
        inputs=Parts(*([step.wide.get(x, x) for x in part] for part in loop.inputs)),
        after=after,
        made=made[len(after) : len(after) + len(loop.made)],
        test=None if loop.test is None else made[-1],
    )


def _steps_first(b: Builder, one: Node, wide: Node) -> Node:
    """An array of slices over a batch, with the steps along its first axis, in front of the batch."""
    return wide if wide.shape == one.shape else from_front(b, wide, 1)


def _of_a_step(type: Type) -> Type:
    """The type of a slice."""
    return type.record if type.record is not None and not type.shape else type.with_shape(type.shape[1:])


def _batch_first(b: Builder, loop: Loop, stack: Node, one: Node, wide: Node) -> Node:
    """What a loop stacked, with the batch in front. ``wide`` is ``one`` over the batch, in one step."""
    return to_front(b, stack, 1) if loop.op == "scan" and wide.shape != one.shape else stack


def one_by_one(b: Builder, node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Batches:
    """A node of control flow, run for each element of a batch."""
    size = batch_size(node, args)
    inputs = [b.input(x.type, "element") for x in node.args]
    rows = list(zip(node.args, args, inputs, batched, strict=True))
    made = b.like(node).emit(node.op, *inputs, **node.attrs)
    outputs = [b.item(made, index=k) for k in range(len(node.parts))]
    constants = [(arg, x) for _, arg, x, flag in rows if not flag]
    slices = [(as_stack(b, one, arg, size), x) for one, arg, x, flag in rows if flag]
    body = Graph(f"each_{node.op.name}", [x for _, x in (*constants, *slices)], outputs)
    over = b.emit(
        "scan",
        *(arg for arg, _ in (*constants, *slices)),
        body=Body(body),
        carried=0,
        sliced=len(slices),
        length=size,
        reverse=False,
    )
    return [(b.item(over, index=k), True) for k in range(len(outputs))]
