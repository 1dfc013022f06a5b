"""What one tab of the page shows: boxes, boxes inside boxes, and edges between them.

Job: be the one form that graphs and programs have in common.
Invariants: an item's number is its place in the list; its parent comes before it, and so does what it reads,
but for members of groups, which `graphjit.view.groups` makes last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphjit.ir.node import Location

FORWARD, BACKWARD, TANGENT, MIXED = "", "backward", "tangent", "mixed"
"""Which part of a computation an item belongs to."""

TOP = -1
"""The parent of what lies in no box."""


@dataclass(eq=False)
class Item:
    """A box: an operation, a step, an argument, a result, or several of them.

    Attributes:
        label: the name of the operation, or of the step.
        kind: what the page draws it as, such as ``scalar``, ``view``, ``kernel``, ``loop``.
        number: as the printed stage has it: 4 for ``%4``.
        type: of the result.
        text: what else there is to say, such as attributes.
        loc: the line of the user's that it comes from.
        origin: which rule made it.
        phase: the part of the computation.
        parent: the box in which it lies.
        args: the items that it reads.
        answers: of an item on the way back, the items of the way there whose derivative it belongs to.
        facts: rows of a table: what a step reads, writes, moves.
        nanoseconds: what it takes by estimate, all runs together.
        hidden: whether it is drawn nowhere; who reads it shows its ``text`` instead.
    """

    label: str
    kind: str
    number: int = -1
    type: str = ""
    text: str = ""
    loc: Location | None = None
    origin: str = ""
    phase: str = FORWARD
    parent: int = TOP
    args: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    nanoseconds: float = 0.0
    hidden: bool = False


@dataclass(frozen=True)
class Edge:
    """One value on its way between two items of a program."""

    source: int
    target: int
    label: str
    why: str = ""
    """Why the two are apart."""


@dataclass(eq=False)
class Board:
    """One tab: items and edges. What items read (``args``) is an edge too."""

    key: str
    title: str
    note: str
    items: list[Item] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def add(self, item: Item) -> int:
        """Append an item; returns its number."""
        self.items.append(item)
        return len(self.items) - 1

    def children(self) -> dict[int, list[int]]:
        """The drawn items in each box, in order."""
        found: dict[int, list[int]] = {}
        for number, item in enumerate(self.items):
            if not item.hidden:
                found.setdefault(item.parent, []).append(number)
        return found

    def drawn_edges(self) -> list[Edge]:
        """All edges between drawn items."""
        return self.edges + [
            Edge(arg, number, self.items[arg].type)
            for number, item in enumerate(self.items)
            if not item.hidden
            for arg in dict.fromkeys(item.args)
            if not self.items[arg].hidden
        ]
