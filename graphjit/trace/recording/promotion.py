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
from graphjit.ir.types import SHORT
from graphjit.trace.recording.location import user_location


def check_dtype(dtype: np.dtype) -> None:
    """Refuse dtypes that are not compiled."""
    if dtype.name not in SHORT or not dtype.isnative:
        raise UnsupportedError(
            f"dtype {dtype} is not compiled (at {user_location()}); use one of {', '.join(SHORT)} in native byte order"
        )


WEAK: dict[str, Any] = {"f": float, "i": int, "b": np.dtype(bool)}


def python_kind(value: Any) -> Any:
    """How a Python number takes part in promotion."""
    return np.dtype(bool) if isinstance(value, bool) else int if isinstance(value, int) else float


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
    return tuple(dtypes)


def common_shape(*nodes: Node) -> tuple[int, ...]:
    """NumPy's broadcast shape of several values.

    Raises:
        ValueError: they do not fit.
    """
    first = nodes[0].shape
    if all(n.shape == first for n in nodes):
        return first
    try:
        return np.broadcast_shapes(*[n.shape for n in nodes])
    except ValueError:
        shapes = " ".join(str(n.shape) for n in nodes)
        raise ValueError(
            f"operands could not be broadcast together with shapes {shapes} (at {user_location()})"
        ) from None
