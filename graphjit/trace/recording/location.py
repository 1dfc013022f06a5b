"""Where in the user's code we are: the line that nodes and messages show, and what that line is doing.

Job: find the innermost frame that belongs neither to graphjit nor to NumPy or SciPy, nor to what only
passes calls on.
Output: a `Location`, cached for each position in the code, so that a traced operation pays about a
microsecond for it; whether the line calls a function, reads an item or assigns to one.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import linecache
import os
import sys
from types import CodeType, FrameType

import numpy as np

from graphjit import errors
from graphjit.ir.node import Location

PACKAGE = os.path.dirname(os.path.abspath(errors.__file__)) + os.sep
"""Folder of graphjit."""

_NUMPY = os.path.dirname(os.path.abspath(np.__file__))
LIBRARIES = (_NUMPY + os.sep, os.path.join(os.path.dirname(_NUMPY), "scipy") + os.sep)
"""Folders of NumPy and SciPy."""

PLUMBING = (
    os.path.join(os.path.dirname(_NUMPY), "optree") + os.sep,
    os.path.abspath(contextlib.__file__),
    os.path.abspath(functools.__file__),
)
"""What graphjit and users call functions through. No line of these says anything."""

_skipped: dict[str, bool] = {}
"""By file."""
_places: dict[int, tuple[CodeType, dict[int, Location]]] = {}
"""By the id of a code object, which is kept: Python computes the hash of a code object anew each time, and
those of equal functions in two files are equal. Then by position in the code.
"""
_LIMIT = 100_000


def in_library(frame: FrameType) -> bool:
    """Whether a frame belongs to this package, NumPy, SciPy or plumbing, not to the user."""
    file = frame.f_code.co_filename
    skip = _skipped.get(file)
    if skip is None:
        if len(_skipped) > _LIMIT:
            _skipped.clear()
        skip = _skipped[file] = file.startswith((PACKAGE, *LIBRARIES, *PLUMBING, "<__array_function__"))
    return skip


def user_location() -> Location | None:
    """The user's line that led here, or None when there is none on the stack."""
    skipped = _skipped.get
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        skip = skipped(code.co_filename)
        if skip is None:
            skip = in_library(frame)
        if not skip:
            place = _places.get(id(code))
            location = None if place is None else place[1].get(frame.f_lasti)
            return _new_place(frame, code) if location is None else location
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _new_place(frame: FrameType, code: CodeType) -> Location:
    """The location of a frame whose position was not seen before."""
    if len(_places) > _LIMIT:
        _places.clear()
    known = _places.setdefault(id(code), (code, {}))[1]
    start = _instruction(code, frame.f_lasti)
    location = known.get(start)
    if location is None:
        location = known[start] = Location(code.co_filename, frame.f_lineno or 0, code.co_qualname)
    known[frame.f_lasti] = location
    return location


def _instruction(code: CodeType, at: int) -> int:
    """Where an instruction begins. A frame that calls ``__getitem__`` points at the instruction at first, and
    at one of its cache entries once the interpreter has specialised it: both are one place.
    """
    instructions = code.co_code
    while at > 0 and instructions[at] == dis.opmap["CACHE"]:
        at -= 2
    return at


def user_level() -> int:
    """``stacklevel`` of a warning that the caller gives, so that it shows the user's line."""
    level, frame = 0, sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level + 1


def called_function() -> str | None:
    """Text of the function that the user's line is calling, as ``np.arange``; "a function" without source,
    None where it calls none.
    """
    executing = _user_instruction()
    if executing is None or not executing[0].opname.startswith(("CALL", "PRECALL")):
        return None
    instruction, file = executing
    where = instruction.positions
    if where is None or where.lineno is None or where.lineno != where.end_lineno:
        return "a function"
    line = linecache.getline(file, where.lineno).encode()[where.col_offset : where.end_col_offset].decode()
    name = line.partition("(")[0].strip()
    return name if name and all(part.isidentifier() for part in name.split(".")) else "a function"


def asked_by_user() -> bool:
    """Whether the caller's caller is code outside of this package."""
    name = sys._getframe(2).f_globals.get("__name__")
    return not (isinstance(name, str) and name.startswith("graphjit."))


def assigns_item() -> bool:
    """Whether the user's line is storing into an item: ``z[i] = x``."""
    executing = _user_instruction()
    return executing is not None and executing[0].opname in ("STORE_SUBSCR", "STORE_SLICE")


def subscribes() -> bool:
    """Whether the user's line is reading an item: ``x[i]``."""
    executing = _user_instruction()
    return executing is not None and executing[0].opname.startswith("BINARY_")


def _user_instruction() -> tuple[dis.Instruction, str] | None:
    """The instruction that the user's innermost frame is executing, and its file."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((PACKAGE, *LIBRARIES)):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return None
    # A frame may point at a call or at one of its inline cache entries.
    instruction = next(
        (each for each in reversed(list(dis.get_instructions(frame.f_code))) if each.offset <= frame.f_lasti),
        None,
    )
    return None if instruction is None else (instruction, frame.f_code.co_filename)
