"""Objects that say another thing each time and keep what comes next to themselves: random numbers, iterators.

Job: tell which they are; put back what they were after a body of converted code was recorded.
Input: an object. Output: what it would say next, as a value that can be compared; the object as it was.
Invariant: of an iterator whose place cannot be read nothing is known, so it counts as moved.
"""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphjit.trace.outside.inspection import by_user

STATEFUL = (np.random.Generator, np.random.RandomState, random.Random, io.StringIO, io.BytesIO)
SHARED = (random._inst, np.random.mtrand._rand)  # type: ignore[attr-defined]
"""What stands behind functions of modules, so that nothing in a program leads there."""
UNKNOWN = object()
"""The state of what does not tell it."""


def is_stateful(thing: Any) -> bool:
    """Whether an object says another thing each time. Iterators of the user's classes keep what comes next in
    attributes, as any object does.
    """
    kind = type(thing)
    return issubclass(kind, STATEFUL) or (issubclass(kind, Iterator) and not by_user(kind.__module__))


def state_of(thing: Any) -> Any:
    """What it would say next; `UNKNOWN` if it does not tell."""
    if isinstance(thing, np.random.Generator):
        return pickle.dumps(thing.bit_generator.state)
    if isinstance(thing, np.random.RandomState):
        return pickle.dumps(thing.get_state())
    if isinstance(thing, random.Random):
        return thing.getstate()
    if isinstance(thing, io.StringIO | io.BytesIO):
        return thing.getvalue(), thing.tell()
    if hasattr(thing, "__setstate__") and type(thing).__module__ == "builtins":
        return thing.__reduce__()[2:]
    return UNKNOWN


def put_back(thing: Any, state: Any) -> bool:
    """Let it say again what it would have said before. False: that cannot be done."""
    if isinstance(thing, np.random.Generator):
        thing.bit_generator.state = pickle.loads(state)
    elif isinstance(thing, np.random.RandomState):
        thing.set_state(pickle.loads(state))
    elif isinstance(thing, random.Random):
        thing.setstate(state)
    elif isinstance(thing, io.StringIO | io.BytesIO):
        thing.seek(0)
        thing.truncate()
        thing.write(state[0])
        thing.seek(state[1])
    elif state and state is not UNKNOWN:
        thing.__setstate__(*state)
    return state is UNKNOWN or state_of(thing) == state
