"""Segments of a loop for ``checkpoint_every``: steps that run again before their way back.

A loop of n steps becomes one over segments of at most k steps each, and a segment is a loop that is a
`checkpoint`. So reverse mode keeps the carries before each segment, and what the steps of one segment need:
memory for n / k + k steps. Where no derivative reads them, `passes.join_segments` makes one loop again.

Input: what makes the steps of a segment, or test and body of a loop. Output: nodes.
Invariant: the steps are those of the plain loop, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.types import I64, Type
from graphjit.trace.recording.tracer import Trace
from graphjit.trace.transformed.bodies import results_of_node
from graphjit.trace.transformed.control_bodies import placeholders_for
from graphjit.transforms.bodies import Checkpoint
from graphjit.transforms.control.loops import Parts


def checkpointed(trace: Trace, name: str, args: Parts, make: Callable[[Parts], Sequence[Node]]) -> list[Node]:
    """The results of ``make(args)``, which reverse mode computes again."""
    b = trace.builder
    inputs = stand_ins(trace, args)
    with b.apart():
        body = Body(Graph(name, inputs.all, make(inputs)))
    node = trace.emit("custom", *args.all, body=body, rule=Checkpoint(f"a segment of {name}"))
    return results_of_node(trace, node)


def stand_ins(trace: Trace, args: Parts) -> Parts:
    """Inputs for a body that takes arguments like these."""
    names = zip(args, ("outside", "carry", "x"), strict=True)
    return Parts(*(placeholders_for(trace, [node.type for node in part], name) for part, name in names))


def while_nodes(
    trace: Trace,
    test: Graph,
    step: Graph,
    constants: Sequence[Node],
    carries: Sequence[Node],
    every: int | None,
) -> list[Node]:
    """The carries for which ``test`` does not hold. With ``every`` as in `unrolled.scan_nodes`."""
    if every is None or not carries:
        return _loop(trace, test, step, constants, carries)
    inputs = stand_ins(trace, Parts(constants, carries, []))

    def segment(inputs: Parts) -> list[Node]:
        return _counted(trace, test, step, inputs, every)[: len(carries)]

    with trace.builder.apart():
        body = Graph(step.name, inputs.all, checkpointed(trace, step.name, inputs, segment))
    return _loop(trace, test, body, constants, carries)


def _counted(trace: Trace, test: Graph, step: Graph, args: Parts, most: int) -> list[Node]:
    """The loop, which ends after ``most`` steps in any case; what it hands on, then their number."""
    b = trace.builder
    inputs, (count,) = stand_ins(trace, args), placeholders_for(trace, [Type(I64, ())], "steps")
    own = [*inputs.all, count]
    (holds,) = b.inline(test, tuple(inputs.all))
    more = b.emit("and", holds, b.lt(count, b.const(most, I64)))
    after = [*b.inline(step, tuple(inputs.all)), b.add(count, b.const(1, I64))]
    return _loop(
        trace,
        Graph(test.name, own, [more]),
        Graph(step.name, own, after),
        args.constants,
        [*args.carries, b.const(0, I64)],
    )


def _loop(
    trace: Trace, test: Graph, step: Graph, constants: Sequence[Node], carries: Sequence[Node]
) -> list[Node]:
    node = trace.emit(
        "while",
        *constants,
        *carries,
        test=Body(test),
        body=Body(step),
        carried=len(carries),
        taped=0,
    )
    return [trace.emit("item", node, index=k) for k in range(len(node.parts))]
