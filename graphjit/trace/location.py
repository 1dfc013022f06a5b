"""Where in the user's code are we?

Job: the innermost frame that belongs neither to graphjit nor to NumPy or SciPy.
Output: a `Location`, cached per code position so that a traced operation pays well below a microsecond for it.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType

import numpy as np

from graphjit import errors
from graphjit.ir.node import Location

_NUMPY = os.path.dirname(os.path.abspath(np.__file__))
_OWN = tuple(
    place + os.sep
    for place in (os.path.dirname(os.path.abspath(errors.__file__)), _NUMPY, os.path.join(os.path.dirname(_NUMPY), "scipy"))
)
_skipped: dict[str, bool] = {}
"""By file."""
_known: dict[tuple[str, CodeType, int], Location] = {}
"""By file too: code objects of equal functions in two files are equal."""
_LIMIT = 100_000


def in_library(frame: FrameType) -> bool:
    """Whether a frame belongs to NumPy, SciPy or this package, not to the user."""
    file = frame.f_code.co_filename
    skip = _skipped.get(file)
    if skip is None:
        if len(_skipped) > _LIMIT:
            _skipped.clear()
        skip = _skipped[file] = file.startswith((*_OWN, "<__array_function__"))
    return skip


def user_location() -> Location | None:
    """The user's line that led here, or None when there is none on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if not in_library(frame):
            code = frame.f_code
            file = code.co_filename
            key = (file, code, frame.f_lasti)
            found = _known.get(key)
            if found is None:
                if len(_known) > _LIMIT:
                    _known.clear()
                found = _known[key] = Location(file, frame.f_lineno or 0, code.co_qualname)
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None
