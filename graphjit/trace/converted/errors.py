"""``raise`` and ``assert`` under a condition on a traced value: the error is raised after each run whose
values ask for it.

Input: the user's exception. Output: an effect of the trace (`trace.effects`).
Invariant: a ``raise`` that Python decides is Python's.
"""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from graphjit.errors import TraceError
from graphjit.trace.effects import tell
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.location import user_location

LOOPS = ("while", "for")


class Raising(BaseException):
    """Control flow of this package: the way that is being recorded raises an error."""

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error() if isinstance(error, type) else error
        self.line = user_location()

    def tell(self) -> None:
        """Let each run that takes this way raise the error."""
        error = self.error

        def raises() -> NoReturn:
            raise copy.copy(error)

        tell(raises, f"raise {self.line}", (), {}, own=False)


def raised(error: Any) -> Any:
    """What ``raise error`` raises where the statement stands.

    Raises:
        TraceError: it stands in a loop whose number of steps is not known.
    """
    trace = active_trace()
    here = None if trace is None else trace.within
    if here is None or not here.open:
        return error
    while here is not None:
        if here.what in LOOPS:
            raise TraceError(
                f"an error is raised at {user_location()} under a condition that is only known when the compiled code runs, in a loop whose number of "
                "steps is not known either: it cannot be raised. Keep what is wrong in a variable, and raise the error after the loop"
            )
        here = here.outer
    return Raising(error)
