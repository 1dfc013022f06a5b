"""Errors of layers, in the words of all others: the function, what is wrong, the user's line."""

from __future__ import annotations

from graphjit.errors import ShapeError
from graphjit.trace.recording.location import user_location


def complain(name: str, what: str) -> ShapeError:
    """The error to raise where an argument of ``name`` does not fit."""
    return ShapeError(f"nn.{name}: {what} (at {user_location()})")
