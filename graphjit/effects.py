"""Effects: what a program tells the outside while it runs, besides its results.

An `Effect` is a call of Python with the values of some nodes. A builder collects the effects of what it
records, in the order of the program (`Builder.told`). They are no nodes: nothing depends on them, and passes
never see them. Who runs the graph makes the nodes further outputs, and calls each effect with their values.

Invariant: what a derivative rule tells again, since it computes again what was computed, is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

Node = Any
"""`graphjit.ir.node.Node`, which nothing here looks into."""


@dataclass(frozen=True)
class Level:
    """A batch over which an effect happens once for each element."""

    size: int
    varying: tuple[bool, ...]
    """Which of the effect's values have an axis of the batch in front; the others are the same for all."""


@dataclass(frozen=True)
class Effect:
    """A call of Python with values of nodes."""

    call: Callable[[Sequence[Any]], None]
    """It takes one array for each node."""
    key: Hashable
    """What it is: the same of two calls that do the same at the same line."""
    nodes: tuple[Node, ...]
    levels: tuple[Level, ...] = ()
    """Batches around it, the outermost first."""
    since: int | None = None
    """Set for what a derivative rule tells: how many effects had been told when the rule began."""
    done: bool = False
    """It happened already, while it was recorded."""

    def at(self, nodes: Sequence[Node], *levels: Level) -> Effect:
        """The effect with other nodes, and batches around it."""
        return replace(self, nodes=tuple(nodes), levels=(*levels, *self.levels))

    def happen(self, values: Sequence[Any]) -> None:
        """Make the calls, for arrays of these values."""
        _calls(self.call, values, self.levels)


def _calls(call: Callable[[Sequence[Any]], None], values: Sequence[Any], levels: tuple[Level, ...]) -> None:
    """One call for each element of the batches, row by row."""
    if not levels:
        call(values)
        return
    level, *rest = levels
    for i in range(level.size):
        # With an Ellipsis even one element of a vector is an array.
        one = [v[i, ...] if flag else v for v, flag in zip(values, level.varying, strict=True)]
        _calls(call, one, tuple(rest))


class Effects:
    """Those of one builder."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        """In the order of the program."""
        self.functions: list[Any] = []
        """Functions of the user's that are called."""
        self.since: int | None = None
        """While a derivative rule of the user's runs: `Effect.since` of what it tells."""
        self.quiet = False
        """While a function is recorded that is no part of the program: nothing new is to be told."""
        self._told: dict[Hashable, int] = {}
        """When each was told first."""
        self._count = 0

    def __len__(self) -> int:
        return len(self.effects)

    def tell(self, effect: Effect) -> None:
        """Add an effect, unless a rule tells again what was told before it began."""
        if effect.since is None or self._told.get(_row(effect), self._count) >= effect.since:
            self.note(effect)
            self.effects.append(effect)

    def note(self, effect: Effect) -> None:
        """Remember that an effect was told, in these words too."""
        self._told.setdefault(_row(effect), self._count)
        self._count += 1

    def take(self, start: int) -> list[Effect]:
        """Remove those from number ``start`` on, to tell them in other words."""
        taken = self.effects[start:]
        del self.effects[start:]
        return taken

    @contextmanager
    def rule(self) -> Iterator[None]:
        """Around a derivative rule of the user's, which may compute again what was computed."""
        before, self.since = self.since, self._count
        try:
            yield
        finally:
            self.since = before

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Around a function that is recorded, but is no part of the program."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before


def _row(effect: Effect) -> Hashable:
    return effect.key, effect.nodes, effect.levels
