"""Reverse mode through loops: a loop in the other direction, whose carries are cotangents.

The body of the way back is reverse mode through one step. What it needs of the way there is chosen by
`residuals`: it is stacked (of a `while` and of an `unwind`: put on tapes) by a second way there, which
computes nothing else. Of constants of the loop the steps' cotangents are added up in carries of their own.

The way back through a `scan` is a `scan` in the other direction. That through a `while` or an `unwind` is an
`unwind`, and if nothing has to be read from tapes, a `while` that counts down.

Input: a loop, cotangents of its results. Output: cotangents of its arguments, None for zero.
Invariant: what has no cotangent in any step is not carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.transforms.control.effects import told_by_steps
from graphjit.transforms.control.loops import Loop, Parts, Values, opened, run
from graphjit.transforms.control.residuals import saved
from graphjit.transforms.reverse import active_nodes, cotangents, or_zeros, summed
from graphjit.transforms.tapes import plus, zeros_like


@dataclass(frozen=True)
class StepBack:
    """Reverse mode through one step, in terms of the step's inputs and of cotangents.

    ``carried`` are the numbers of carries with cotangents, ``given`` the inputs for these: of the carry after
    the step, of what it stacked (None: no cotangent). ``pulled`` are the cotangents of the step's inputs.
    """

    carried: list[int]
    given: list[Node]
    of_made: Values
    pulled: Parts

    @property
    def summands(self) -> dict[int, Node]:
        """Cotangents of constants, by their numbers: they are added up over the steps."""
        return _there(self.pulled.constants)

    @property
    def stacked(self) -> dict[int, Node]:
        """Cotangents of slices, by their numbers: they are stacked."""
        return _there(self.pulled.slices)


def _there(values: Sequence[Node | None]) -> dict[int, Node]:
    return {i: x for i, x in enumerate(values) if x is not None}


def loop_vjp(b: Builder, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]) -> Values:
    """Cotangents of the arguments of a loop."""
    loop, start = opened(b, node), len(b.told)
    results = [b.item(node, index=k) for k in range(len(node.parts))]
    back = _step_back(b, loop, start, _active(loop, loop.split(wanted)), given)
    b.like(node, origin=f"vjp of {node.op.name}")
    way = _way_back(b, loop, results, back, given)
    found = run(b, saved(b, loop, results, way))
    told_by_steps(b, start, way, lambda way: saved(b, loop, results, way))
    count = len(back.carried)
    of_constants = {i: found.carries[count + k] for k, i in enumerate(back.summands)}
    of_carries = {i: found.carries[k] for k, i in enumerate(back.carried)}
    of_slices = dict(zip(back.stacked, found.made, strict=True))
    return [
        *(of_constants.get(i) for i in range(len(loop.inputs.constants))),
        *(of_carries.get(i) for i in range(len(loop.inputs.carries))),
        *(of_slices.get(i) for i in range(len(loop.inputs.slices))),
    ]


def _way_back(
    b: Builder, loop: Loop, results: Sequence[Node], back: StepBack, given: Sequence[Node | None]
) -> Loop:
    """The loop whose steps are ``back``. It carries cotangents, then sums of them."""
    summands, made = back.summands, given[len(loop.after) :]
    sums = [b.input(ct.type, "sum") for ct in summands.values()]
    initial, pulled = (
        or_zeros(b, [ones[i] for i in back.carried], [values[i] for i in back.carried])
        for ones, values in ((results, given), (loop.inputs.carries, back.pulled.carries))
    )
    return Loop(
        op="scan" if loop.op == "scan" else "unwind",
        args=Parts(
            [],
            [*initial, *(zeros_like(b, loop.args.constants[i]) for i in summands)],
            [ct for x, ct in zip(back.of_made, made, strict=True) if x is not None],
        ),
        inputs=Parts([], [*back.given, *sums], [x for x in back.of_made if x is not None]),
        after=[*pulled, *(plus(b, s, ct) for s, ct in zip(sums, summands.values(), strict=True))],
        made=list(back.stacked.values()),
        test=None,
        length=loop.length,
        reverse=not loop.reverse,
        name=f"back_{loop.name}",
    )


def _active(loop: Loop, wanted: Parts) -> list[Node]:
    """The inputs of the body through which cotangents reach what is ``wanted``."""
    flags = [flag and x.type.has_derivative for x, flag in zip(loop.inputs.all, wanted.all, strict=True)]
    first = len(loop.inputs.constants)
    while True:
        active = [x for x, flag in zip(loop.inputs.all, flags, strict=True) if flag]
        reached = set(active_nodes(loop.after, active))
        new = [first + i for i, y in enumerate(loop.after) if y in reached and not flags[first + i]]
        if not new:
            return active
        for i in new:
            flags[i] = True


def _step_back(
    b: Builder, loop: Loop, start: int, active: list[Node], given: Sequence[Node | None]
) -> StepBack:
    """Reverse mode through one step. Which carries have cotangents is found by trying, as in forward mode."""
    count, reached = len(loop.after), set(active_nodes(loop.roots, active))
    of_made: Values = [
        b.input(x.type, "ct") if ct is not None and x in reached else None
        for x, ct in zip(loop.made, given[count:], strict=True)
    ]
    of_carries: Values = [
        b.input(x.type, "ct") if ct is not None and x in active else None
        for x, ct in zip(loop.inputs.carries, given, strict=False)
    ]
    while True:
        b.told.take(start)
        seeds = summed(b, [*loop.after, *loop.made], [*of_carries, *of_made])
        found = dict(zip(active, cotangents(b, seeds, active), strict=True))
        pulled = loop.split([found.get(x) for x in loop.inputs.all])
        new = [i for i, ct in enumerate(pulled.carries) if ct is not None and of_carries[i] is None]
        if not new:
            break
        for i in new:
            of_carries[i] = b.input(loop.inputs.carries[i].type, "ct")
    carried = [i for i, ct in enumerate(of_carries) if ct is not None]
    return StepBack(carried, [ct for ct in of_carries if ct is not None], of_made, pulled)
