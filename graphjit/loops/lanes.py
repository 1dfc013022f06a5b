"""Which values differ from one iteration of a loop to the next.

Job: lanes of a vector compute what differs; the rest is computed once for all of them, and may decide how
many steps they take together and which branch.
Input: a loop. Output: refs.
Invariant: what is not found is the same in all iterations, as long as elements of memory are.
"""

from __future__ import annotations

from graphjit.loops.ir import (
    Accumulate,
    Address,
    Axis,
    Choose,
    For,
    Index,
    Let,
    Load,
    Push,
    Ref,
    Repeat,
    Scalar,
    Statement,
    running,
)


def varying(loop: For) -> set[Ref]:
    """Refs that differ from lane to lane of ``loop``."""
    found = _Varying(loop.axis, set(running(loop)))
    found.block(loop.body)
    return found.refs


class _Varying:
    """Refs that were found to differ along an axis."""

    def __init__(self, axis: Axis, refs: set[Ref]) -> None:
        self.axis = axis
        self.refs = refs

    def block(self, body: tuple[Statement, ...]) -> None:
        """Follow statements in order."""
        for statement in body:
            if isinstance(statement, Let):
                if self.differs(statement):
                    self.refs.add(statement.ref)
            elif isinstance(statement, Accumulate):
                if statement.value in self.refs:
                    self.refs.add(statement.ref)
            elif isinstance(statement, For):
                self.block(statement.body)
            elif isinstance(statement, Repeat):
                self.repeat(statement)
            elif isinstance(statement, Choose):
                self.choose(statement)
            elif isinstance(statement, Push):
                self.refs.update(write.ref for write in statement.writes)

    def differs(self, let: Let) -> bool:
        """Whether an expression does."""
        value = let.value
        if isinstance(value, Load):
            return self.moves(value.address) or not self.refs.isdisjoint(value.refs)
        if isinstance(value, Scalar):
            return not self.refs.isdisjoint(value.args)
        return isinstance(value, Index) and self.moves(value.value)

    def moves(self, address: Address) -> bool:
        """Whether an address depends on the axis."""
        return bool(address[self.axis])

    def repeat(self, loop: Repeat) -> None:
        """What steps hand on differs if it does at the beginning, or once a step has been taken."""
        self.refs.update(c.ref for c in loop.carried if c.start in self.refs)
        while True:
            self.block(loop.test)
            self.block(loop.body)
            new = {c.ref for c in loop.carried if c.after in self.refs} - self.refs
            if not new:
                return
            self.refs |= new

    def choose(self, statement: Choose) -> None:
        """What branches leave differs if one leaves what does, or if the branch does."""
        for branch in statement.branches:
            self.block(branch)
        for ref, values in statement.results:
            if statement.which in self.refs or not self.refs.isdisjoint(values):
                self.refs.add(ref)
