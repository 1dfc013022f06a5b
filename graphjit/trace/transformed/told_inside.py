"""Effects inside of loops and branches: `debug.print` in a body, said outside of it.

Job: the values of a body's effects become further results of its node; the effects are told of those.
Input: a recorded body, the results. Output: effects in the trace's builder.
Invariants: the effects of a `scan` happen step by step, in the order of the steps. Those of a branch happen
if it is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from graphjit.effects import Effect, Level
from graphjit.ir.node import Node
from graphjit.trace.recording.tracer import Trace
from graphjit.trace.transformed.bodies import border
from graphjit.trace.transformed.control_bodies import Recorded


def values_inside(body: Recorded) -> list[Node]:
    """The values told by a body that are computed inside of it."""
    values = body.values_told()
    _, inside = border(body.placeholders, values, body.kept)
    return [node for node in values if node in inside]


def tell_steps(
    trace: Trace, body: Recorded, stacked: Mapping[Node, Node], length: int, reverse: bool
) -> None:
    """Tell the effects of each step of a `scan`; ``stacked`` has the values of all steps."""
    if not body.effects:
        return
    values = body.values_told()
    nodes = [stacked.get(node, node) for node in values]
    if reverse:
        flipped = {node: trace.emit("flip", node, axes=(0,)) for node in stacked.values()}
        nodes = [flipped.get(node, node) for node in nodes]
    level = Level(length, tuple(node in stacked for node in values))
    numbers = [[values.index(node) for node in effect.nodes] for effect in body.effects]
    first = body.effects[0]
    key = (first.key[0], "steps", tuple(effect.key for effect in body.effects))  # type: ignore[index]
    together = partial(_happen_in_turn, body.effects, numbers)
    told = trace.builder.told
    told.tell(Effect(together, key, tuple(nodes), (level,), told.since))


def _happen_in_turn(
    effects: Sequence[Effect], numbers: Sequence[Sequence[int]], values: Sequence[Any]
) -> None:
    """The effects of one step; ``numbers`` says which of ``values`` are whose."""
    for effect, mine in zip(effects, numbers, strict=True):
        effect.happen([values[i] for i in mine])


def tell_branch(
    trace: Trace, which: Node, branches: Sequence[Recorded], results: Mapping[Node, Node]
) -> None:
    """Tell the effects of the branch that is taken; ``results`` has the values of all of them."""
    told = trace.builder.told
    for number, body in enumerate(branches):
        for effect in body.effects:
            nodes = (which, *(results.get(node, node) for node in effect.nodes))
            call = partial(_happen_if_taken, effect, number, len(branches))
            told.tell(Effect(call, (effect.key[0], "branch", number, effect.key), nodes, (), told.since))  # type: ignore[index]


def _happen_if_taken(effect: Effect, number: int, count: int, values: Sequence[Any]) -> None:
    """The effect of branch ``number`` of ``count``; the first of ``values`` says which is taken."""
    if min(max(int(values[0]), 0), count - 1) == number:
        effect.happen(values[1:])
