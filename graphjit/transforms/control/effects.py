"""Effects of derivative rules inside of loops: a rule of the user's that prints, in the body of a `scan`.

What it tells in each step is stacked by a loop of its own, and told afterwards once for each step.

Input: a builder, the number of its effects before the rules ran, the loop whose body they were asked about.
Output: none; the builder's effects. Invariant: none is lost, none is told twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphjit.effects import Level
from graphjit.errors import UnsupportedError
from graphjit.ir.builder import Builder
from graphjit.transforms.control.loops import Loop, run


def told_by_steps(
    b: Builder, start: int, loop: Loop, prepared: Callable[[Loop], Loop] = lambda loop: loop
) -> None:
    """Tell effects from number ``start`` on, which speak of nodes of the body, for all steps of ``loop``.

    ``prepared`` gives a loop what it reads from elsewhere.
    """
    effects = b.told.take(start)
    if effects and loop.op != "scan":
        refuse_effects(f"a {loop.op} loop")
    for effect in effects:
        made = list(effect.nodes)
        stacks = run(b, prepared(replace(loop, made=made)), ()).made
        if loop.reverse:
            stacks = [b.flip(stack, axes=(0,)) for stack in stacks]
        b.told.tell(effect.at(stacks, Level(loop.length, tuple(True for _ in made))))


def refuse_effects(where: str) -> None:
    """The error for effects at a place where nobody knows how often they happen."""
    raise UnsupportedError(
        f"a derivative rule tells something (it prints, or calls a function of yours) inside {where}, "
        "where nobody knows how often that happens; take it out of the rule, or use a scan"
    )
