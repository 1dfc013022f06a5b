"""What loops and conditions are given: lengths, numbers, truth values. Traced and plain values alike.

Input: values as users write them. Output: the same, known to fit; errors that name the user's line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.types import BOOL, Type
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import texts
from graphjit.trace.recording.location import user_location
from graphjit.trace.transformed.bodies import Leaves, is_number
from graphjit.trace.transformed.carries import kind_of_leaf, leaves_of, shown
from graphjit.trace.transformed.control_bodies import returned_at


def one_number(value: Any, what: str, name: str, kinds: str = "biuf") -> Any:
    """A value that is one number, of a dtype of these kinds.

    Raises:
        ShapeError: it is not.
    """
    if is_number(value) or isinstance(value, bool):
        type = kind_of_leaf(value).type
        if not type.shape and type.dtype.kind in kinds:
            return value
    wanted = "one number" if "f" in kinds else "one integer"
    raise ShapeError(f"{what}: {name} is {shown(value)} (at {user_location()}), not {wanted}")


def truth(answer: Any, test: Callable[..., Any], what: str) -> Any:
    """What the test of a loop returned.

    Raises:
        ShapeError: it is not one bool.
    """
    if (is_number(answer) or isinstance(answer, bool)) and kind_of_leaf(answer).type == Type(BOOL, ()):
        return answer
    raise ShapeError(
        f"{what}: the test {name_of(test)} returns {shown(answer)} (at {returned_at(test)}), not one bool: compare, or use np.all or np.any"
    )


def length_of(xs: Any, length: int | None, what: str) -> int:
    """The number of elements along the first axes of ``xs``; None among its leaves has none.

    Raises:
        ShapeError: there is nothing that says it, a leaf has no axes, or two disagree.
    """
    leaves = leaves_of(xs)
    sizes: dict[str, int] = {}
    if length is not None:
        if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 0:
            raise TypeError(f"{what}: length is a number of steps, not {length!r} (at {user_location()})")
        sizes["length"] = int(length)
    for i, (leaf, path) in enumerate(zip(leaves.leaves, texts(leaves.spec, "xs"), strict=True)):
        if i in leaves.numbers and np.ndim(leaf):
            sizes[path] = np.shape(leaf)[0]
        elif leaf is not None:
            raise ShapeError(
                f"{what}: {path} is {shown(leaf)} (at {user_location()}), which has no axis to go along"
            )
    if not sizes:
        raise ShapeError(f"{what}: xs holds no array and length is not given (at {user_location()})")
    if len(set(sizes.values())) > 1:
        said = ", ".join(
            f"{name} is {size}" if name == "length" else f"{name} has {size} elements"
            for name, size in sizes.items()
        )
        raise ShapeError(f"{what}: lengths differ: {said} (at {user_location()})")
    return next(iter(sizes.values()))


def steps_in_one(unroll: Any, length: int, what: str, name: str = "unroll") -> int:
    """How many steps ``unroll``, the argument of this ``name``, puts into one.

    Raises:
        ValueError: it is no positive number.
    """
    if isinstance(unroll, bool):
        return max(length, 1) if unroll else 1
    if not isinstance(unroll, int | np.integer) or unroll < 1:
        raise ValueError(
            f"{what}: {name} is a positive number of steps or a bool, not {unroll!r} (at {user_location()})"
        )
    return int(unroll)


def steps_kept(every: Any, what: str) -> int | None:
    """Of how many steps ``checkpoint_every`` keeps one; None: of all.

    Raises:
        ValueError: it is no positive number.
    """
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
        raise ValueError(
            f"{what}: checkpoint_every is a positive number of steps or None, not {every!r} (at {user_location()})"
        )
    return int(every)


def pair(result: Any, f: Callable[..., Any], what: str) -> tuple[Any, Any]:
    """What a step of a scan returned.

    Raises:
        ShapeError: it is no pair.
    """
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise ShapeError(
        f"{what}: {name_of(f)} returns {shown(result)} (at {returned_at(f)}), not a pair: what the next step gets, and what is stacked"
    )


def stackable(y: Any, f: Callable[..., Any], what: str) -> Leaves:
    """What each step returns to be stacked: arrays, numbers, None.

    Raises:
        ShapeError: there is something else.
    """
    leaves = leaves_of(y)
    for i, leaf in enumerate(leaves.leaves):
        if i not in leaves.numbers and leaf is not None:
            raise ShapeError(
                f"{what}: {name_of(f)} returns {texts(leaves.spec, 'y')[i]} = {leaf!r} (at {returned_at(f)}), which is no array: it cannot be "
                "stacked"
            )
    return leaves
