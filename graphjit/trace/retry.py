"""A second trace, of converted functions, where the first one met Python's control flow on a traced value.

Input: the error of the first trace, what traces. Output: the traced call; an error that says why a function
was not converted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

from graphjit import config
from graphjit.errors import TraceError
from graphjit.trace.converted import operators as operators  # which fills `conversion.OPERATORS`
from graphjit.trace.converted.calls import entered, reasons
from graphjit.trace.converted.loops.whole import Whole
from graphjit.trace.recording.location import LIBRARIES, PACKAGE
from graphjit.trace.recording.recorder import LongTrace

Traced = TypeVar("Traced")


def traced_again(error: TraceError, name: str, trace: Callable[[Callable[[Any], Any]], Traced]) -> Traced:
    """What ``trace`` returns, which gets what converts functions.

    Raises:
        TraceError: there is something that cannot be converted.
    """
    if "control" in config.log_topics:
        print(f"graphjit: control: {name} is traced again: {error}", file=sys.stderr)
    try:
        return trace(entered)
    except TraceError as second:
        if getattr(second, "decides", False):
            reason = _reason(second)
            raise type(second)(
                f"{second} (Python's control flow was not converted: {reason}.)"
            ).with_traceback(second.__traceback__) from None
        second.__context__ = None
        raise
    except BaseException as other:
        other.__context__ = None  # the error of the first trace has nothing to do with it
        raise


def traced_whole(
    name: str, function: Any, trace: Callable[[Callable[[Any], Any], Any], Traced]
) -> Traced | None:
    """What ``trace`` returns of ``function``, which gets what converts functions and what is known of loops
    that are recorded as a whole; None where no loop was, or something cannot be traced in this way.
    """
    whole = Whole(function)
    try:
        found = trace(entered, whole)
    except (Exception, LongTrace) as error:
        if "reroll" in config.log_topics:
            why = str(error) or "there is none at its beginning"
            print(f"graphjit: {name}: no loop is recorded as a whole: {why}", file=sys.stderr)
        return None
    return found if whole.made else None


def _reason(error: TraceError) -> str:
    """Why the code that asked for the value is not converted."""
    asking: list[CodeType] = []
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            asking.append(code)
        entry = entry.tb_next
    if not asking:
        return "its value is asked for by compiled code"
    inner = asking[-1]
    if inner.co_filename.startswith(LIBRARIES):
        return f"{inner.co_qualname} is a library's"
    for code in reversed(asking):
        if code in reasons:
            return reasons[code]
        # The reason may be that of the function around it, or of the one that evaluates a text.
        part = code is inner or inner.co_qualname.startswith(f"{code.co_qualname}.")
        if not part and not inner.co_filename.startswith("<"):
            break
    return (
        "the value is asked for by a function that is not Python's own, or not by a keyword; or by a method that an operator, a built-in function or a library "
        "called"
    )
