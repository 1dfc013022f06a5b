"""Effects in other words: what a function told about stand-ins, said about what took their place.

Input: a builder, the number of its effects before the function ran. Output: none; the builder's effects.
Invariant: order stays. An effect that speaks of a stand-in for which nothing is put (a tangent that reverse
mode never computes) has no value, and is left out by who delivers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.effects import Effect, Level
from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.transforms.batch import batch
from graphjit.transforms.substitute import substitute


def retold(b: Builder, start: int, mapping: Mapping[Node, Node]) -> None:
    """Effects from number ``start`` on, with every key of ``mapping`` replaced by its value."""
    for effect in b.told.take(start):
        b.told.tell(effect.at(substitute(b, effect.nodes, mapping)))


def told_for_each(
    b: Builder, effects: Sequence[Effect], varying: Mapping[Node, Node], size: int, others: bool = True
) -> None:
    """Tell effects over a batch, as in `batch.batch`: those that vary happen once for each element, the
    ``others`` (if they are to happen) once.
    """
    for effect in effects:
        wide = batch(b, effect.nodes, varying)
        if any(node is not None for node in wide):
            level = Level(size, tuple(node is not None for node in wide))
            found = [one if node is None else node for one, node in zip(effect.nodes, wide, strict=True)]
            b.told.tell(effect.at(found, level))
        elif others:
            b.told.tell(effect)
