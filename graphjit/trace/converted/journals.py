"""What a body of converted code changes besides variables: arrays, attributes, items of containers.

Job: let each way of a choice begin with everything as it was before; tell which arrays were written.
Input: the active trace. Output: journals.
Invariant: after a body was recorded, everything is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphjit.ir.node import Node
from graphjit.trace.arrays.buffers import Stored, from_storage, storage_of, stored
from graphjit.trace.arrays.storage import Owned
from graphjit.trace.converted.values import held
from graphjit.trace.pytree import flatten
from graphjit.trace.recording.recorder import Journal, Within
from graphjit.trace.recording.tracer import Array, Outside, Trace


@contextmanager
def journal(trace: Trace) -> Iterator[Journal]:
    """Keep what is changed meanwhile."""
    notes: Journal = {}
    trace.journals.append(notes)
    try:
        yield notes
    finally:
        # By identity: an inner journal may be equal, as empty ones are.
        trace.journals[:] = [each for each in trace.journals if each is not notes]


def undo(notes: Journal) -> None:
    """Make everything again what it was."""
    for _, restore in reversed(notes.values()):
        restore()
    notes.clear()


def written(notes: Journal, here: Within | None) -> list[Owned]:
    """The arrays from outside of the body ``here`` that were written."""
    around = outside(here)
    return [thing for thing, _ in notes.values() if isinstance(thing, Owned) and thing.within in around]


def array_of(storage: Owned) -> Stored:
    """A traced array with this storage."""
    return from_storage(storage)


def become(trace: Trace, storage: Owned, node: Node) -> None:
    """Write a new value of the whole array."""
    storage.note(trace)
    storage.become_traced(trace)
    storage.replace(node)


def owner(array: Array) -> Owned:
    """The storage of an array, or of the array that it is a view of."""
    storage: Any = storage_of(stored(array))
    while not isinstance(storage, Owned):
        storage = storage_of(stored(storage.base))
    return storage


def owners(variable: Any) -> list[Owned]:
    """Those of all arrays in what a variable holds, if it holds something."""
    return [
        owner(leaf)
        for leaf in flatten(held(variable))[0]
        if isinstance(leaf, Array) and not isinstance(leaf, Outside)
    ]


def outside(here: Within | None) -> list[Within | None]:
    """The bodies around a body."""
    found: list[Within | None] = []
    while here is not None:
        here = here.outer
        found.append(here)
    return found
