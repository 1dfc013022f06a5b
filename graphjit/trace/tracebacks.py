"""Which frames of a traceback the user sees when an exception leaves a public function.

Job: take out graphjit's frames, so that the traceback ends in the user's code.
Input: `hides_frames` around every public function. Output: the same exception object with a shorter
traceback.
Invariants: type, message, notes and chain of the exception stay; frames of the user stay in their order,
around and inside the traced function; ``GRAPHJIT_TRACEBACK=full`` shows everything, and so do defects of
graphjit, which somebody will want to report.

A library that the user called keeps its frames when it raised by itself. Where it led back into graphjit
(NumPy calls our methods), the traceback ends at the user's call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import CodeType, TracebackType
from typing import TypeVar, cast

from graphjit import config
from graphjit.errors import GraphjitError, IRError
from graphjit.trace.recording.location import LIBRARIES, PACKAGE, PLUMBING

Function = TypeVar("Function", bound=Callable[..., object])


def hides_frames(function: Function) -> Function:
    """Decorator: exceptions leave ``function`` without frames of graphjit, that of ``function`` included."""

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            if not config.full_traceback:
                for part in _chain(error):
                    part.__traceback__ = shortened(part)
            # A bare raise takes the traceback as it stands now and adds no entry for this frame.
            raise

    return cast(Function, call)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes and contexts, and the members of groups."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        part = pending.pop()
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            yield part
            pending += (part.__cause__, part.__context__)
            if isinstance(part, BaseExceptionGroup):
                pending += part.exceptions


def shortened(error: BaseException) -> TracebackType | None:
    """The traceback of ``error`` without graphjit's frames."""
    entries: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    writers = [_writer(one.tb_frame.f_code) for one in entries]
    if "graphjit" not in writers or (writers[-1] == "graphjit" and _defect(error)):
        return error.__traceback__
    end = max((i + 1 for i, writer in enumerate(writers) if writer == "user"), default=0)
    if "graphjit" not in writers[end:]:
        end = len(writers)
    result: TracebackType | None = None
    for i in reversed(range(end)):
        inside = (
            i > 0
            and writers[i] == "plumbing"
            and writers[i - 1] in ("graphjit", "plumbing")
            and "graphjit" in writers[:i]
        )
        if writers[i] != "graphjit" and not inside:
            one = entries[i]
            line = -1 if one.tb_lineno is None else one.tb_lineno  # an instruction that belongs to no line
            result = TracebackType(result, one.tb_frame, one.tb_lasti, line)
    return result


def _defect(error: BaseException) -> bool:
    """Whether graphjit's own code raises such an exception only when it is wrong."""
    if isinstance(error, GraphjitError | RecursionError):
        return isinstance(error, IRError)
    return isinstance(error, AssertionError | NameError | KeyError | RuntimeError)


def _writer(code: CodeType) -> str:
    """Who wrote this code: "graphjit", "plumbing", "library" or "user"."""
    file = code.co_filename
    if file.startswith(PACKAGE):
        return "graphjit"
    if file.startswith(PLUMBING):
        return "plumbing"
    return "library" if file.startswith((*LIBRARIES, "<__array_function__")) else "user"
