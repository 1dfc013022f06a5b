"""Which dtype NumPy would compute in, and which shape a result has.

Job: NumPy's promotion (NEP 50) of ufunc arguments, where Python numbers are weak, and its broadcast shape.
Input: dtypes, and ``int`` or ``float`` for Python numbers. Output: the dtypes of the loop that NumPy would
run.

Example: float32 plus the Python number 2.0 is float32; plus a float64 scalar it is float64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from graphjit.errors import UnsupportedError
from graphjit.ir.node import Node
from graphjit.ir.types import DTYPES, SHORT, own
from graphjit.trace.recording.location import user_location


def check_dtype(dtype: np.dtype) -> None:
    """Refuse dtypes that are not compiled."""
    if dtype in _COMPILED:  # names are made anew each time
        return
    if dtype.name not in SHORT or not dtype.isnative:
        raise UnsupportedError(
            f"dtype {dtype} is not compiled (at {user_location()}); use one of {', '.join(SHORT)} in native byte order"
        )


_COMPILED = frozenset(DTYPES.values())
WEAK: dict[str, Any] = {"f": float, "i": int, "b": np.dtype(bool)}


PYTHON_KINDS: dict[type, Any] = {float: float, int: int, bool: np.dtype(bool)}
"""How Python numbers take part in promotion, by their type."""


def python_kind(value: Any) -> Any:
    """How a Python number takes part in promotion; None of everything else."""
    kind = PYTHON_KINDS.get(type(value))
    if kind is None and is_python_number(value):
        return int if isinstance(value, int) else float  # of a class of the user's
    return kind


def is_python_number(value: Any) -> bool:
    """Python bool, int, float: weak in promotion (NumPy scalars are not, though np.float64 subclasses
    float).
    """
    kind = type(value)
    return kind in PYTHON_KINDS or (issubclass(kind, int | float) and not issubclass(kind, np.generic))


@lru_cache(maxsize=4096)
def resolve(ufunc: np.ufunc, kinds: tuple[Any, ...]) -> tuple[np.dtype, ...]:
    """The dtypes of the loop that NumPy would run: arguments, then result."""
    if all(
        kind is int or kind is float for kind in kinds
    ):  # by identity: a dtype equals the Python type it comes from
        kinds = tuple(np.dtype(np.int64) if kind is int else np.dtype(np.float64) for kind in kinds)
    dtypes = ufunc.resolve_dtypes((*kinds, *([None] * ufunc.nout)))
    for dtype in dtypes:
        check_dtype(dtype)
    return tuple(map(own, dtypes))  # equal ones share this cache


@lru_cache(maxsize=4096)
def common(kinds: tuple[Any, ...]) -> np.dtype:
    """``np.result_type`` of dtypes, and of Python numbers by ``int`` or ``float``."""
    dtype = np.result_type(*[kind(0) if kind is int or kind is float else kind for kind in kinds])
    check_dtype(dtype)
    return own(dtype)


def common_shape(*nodes: Node) -> tuple[int, ...]:
    """NumPy's broadcast shape of several values.

    Raises:
        ValueError: they do not fit.
    """
    first = nodes[0].type.shape
    for node in nodes:
        if node.type.shape != first:
            break
    else:  # the usual case, for which no generator is made
        return first
    try:
        return _broadcast(tuple([node.type.shape for node in nodes]))
    except ValueError:
        shapes = " ".join(str(n.shape) for n in nodes)
        raise ValueError(
            f"operands could not be broadcast together with shapes {shapes} (at {user_location()})"
        ) from None


@lru_cache(maxsize=4096)
def _broadcast(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """NumPy's broadcast shape: asked once, since what stands in NumPy's module meanwhile looks at its
    arguments.
    """
    return np.broadcast_shapes(*shapes)
