"""What layers check of their arguments, and their errors: the function, what is wrong, the user's line."""

from __future__ import annotations

from collections.abc import Sequence

from graphjit.errors import ShapeError
from graphjit.trace.recording.location import user_location


def complain(name: str, what: str) -> ShapeError:
    """The error to raise where an argument of ``name`` does not fit."""
    return ShapeError(f"nn.{name}: {what} (at {user_location()})")


def axis_of(name: str, axis: int, ndim: int) -> int:
    """An axis, counted from the front."""
    if not -ndim <= axis < ndim:
        raise complain(name, f"there is no axis {axis} in an array of {ndim} axes")
    return axis % ndim


def axes_of(name: str, axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """One axis or several, counted from the front and in order."""
    given = axes if isinstance(axes, Sequence) else (axes,)
    return tuple(sorted(axis_of(name, axis, ndim) for axis in given))
