"""Forward mode through loops: a loop whose carries are values and their tangents.

Which carries have tangents is found by trying: those whose initial value has one, then those that a step
makes depend on them, until there are no more.

Input: a loop, tangents of its arguments. Output: tangents of its results, None for zero.
Invariant: no tangent that is zero in all steps is carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.transforms.control.effects import told_by_steps
from graphjit.transforms.control.loops import Loop, Parts, Values, opened, run
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import or_zeros


def loop_jvp(b: Builder, node: Node, given: Sequence[Node | None]) -> Values:
    """Tangents of the results of a loop."""
    loop, start = opened(b, node), len(b.told)
    pushed = loop.split(given)
    directions, found = _step(b, loop, pushed, start)
    b.like(node, origin=f"jvp of {node.op.name}")
    count = len(loop.after)
    active = [i for i, d in enumerate(directions.carries) if d is not None]
    initial, moved = (
        or_zeros(b, [ones[i] for i in active], [values[i] for i in active])
        for ones, values in ((loop.args.carries, pushed.carries), (loop.after, found))
    )
    wide = replace(
        loop,
        args=loop.args.joined(Parts(pushed.constants, initial, pushed.slices).without_none()),
        inputs=loop.inputs.joined(directions.without_none()),
        after=[*loop.after, *moved],
        made=[t for t in found[count:] if t is not None],
    )
    results = run(b, wide, range(count, count + len(active)))
    told_by_steps(b, start, wide)
    of_carries = {i: results.carries[count + k] for k, i in enumerate(active)}
    stacked = iter(results.made)
    return [
        *(of_carries.get(i) for i in range(count)),
        *(None if t is None else next(stacked) for t in found[count:]),
    ]


def _step(b: Builder, loop: Loop, pushed: Parts, start: int) -> tuple[Parts, Values]:
    """Forward mode through one step: a tangent for each input that has one, and the tangents of what a step
    computes in terms of them.
    """
    directions = Parts(
        *(
            [None if t is None else b.input(x.type, "tangent") for t, x in zip(part, inputs, strict=True)]
            for part, inputs in zip(pushed, loop.inputs, strict=True)
        )
    )
    carried: Values = list(directions.carries)
    while True:
        b.told.take(start)
        all_of_them = [*directions.constants, *carried, *directions.slices]
        seeds = {x: d for x, d in zip(loop.inputs.all, all_of_them, strict=True) if d is not None}
        found = tangents(b, seeds, [*loop.after, *loop.made])
        new = [i for i, d in enumerate(carried) if d is None and found[i] is not None]
        if not new:
            return directions._replace(carries=carried), found
        for i in new:
            carried[i] = b.input(loop.after[i].type, "tangent")
