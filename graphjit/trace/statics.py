"""When two static values are the same: by type and value, part by part.

``==`` takes 2, 2.0 and True for the same, and 0.0 and -0.0 too; a program that was compiled for one is wrong
for the other.
Input: a static argument, the structure of a tree. Output: `Exact`, a hashable value that equals only its
like; `exact_keys`, which tells keys of dicts apart in the same way.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

_PLAIN = frozenset({str, int})


class Exact:
    """A hashable value that equals only values of the same type, part by part."""

    __slots__ = ("form", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.form = exact_form(value)
        hash(self.form)

    def __eq__(self, other: object) -> bool:
        return type(other) is Exact and bool(self.form == other.form)

    def __hash__(self) -> int:
        return hash(self.form)


def exact_form(value: Any) -> Any:
    """What is equal for values of the same type and parts.

    Example: ``exact_form((1, 2.0))`` differs from ``exact_form((True, 2))``.
    """
    kind = type(value)
    # Texts and bytes tell 0.0 from -0.0, and NaN is NaN; the classes' own, since those of a user may leave
    # digits out.
    if issubclass(kind, float):
        return kind, float.__repr__(value)
    if issubclass(kind, complex):
        return kind, complex.__repr__(value)
    if issubclass(kind, np.inexact):
        return kind, value.tobytes()
    if kind is range:
        return kind, value.start, value.stop, value.step
    if issubclass(kind, tuple):
        return kind, tuple(map(exact_form, tuple.__iter__(value)))
    if issubclass(kind, frozenset):
        return kind, frozenset(map(exact_form, frozenset.__iter__(value)))
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is not None and parameters.eq and parameters.frozen:
        form = (
            kind,
            tuple(
                exact_form(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare
            ),
        )
        try:
            hash(form)
        except TypeError:  # a hash of its own over fields that have none
            return kind, value
        return form
    return kind, value


def exact_keys(spec: Any) -> Any:
    """All dict keys of a structure with their types, which optree's comparison of structures leaves out; None
    where all are strings and integers.
    """
    paths = spec.paths()
    if _PLAIN.issuperset(type(key) for path in paths for key in path):
        return None
    return tuple(exact_form(tuple(path)) for path in paths)
