"""Type rules that many ops share: argument types and attributes in, type of the result out.

Invariant: the IR never promotes or broadcasts by itself; tracing inserts ``convert`` and ``broadcast_to``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphjit.errors import ShapeError
from graphjit.ir.types import BOOL, Type

Infer = Callable[..., Type]


def _same(types: tuple[Type, ...]) -> Type:
    first = types[0]
    for other in types[1:]:
        if other is not first and other != first:
            raise ShapeError(f"elementwise arguments differ: {', '.join(map(str, types))}")
    return first


def _checked(kinds: str, what: str) -> Infer:
    def infer(*types: Type) -> Type:
        result = _same(types)
        if result.dtype.kind not in kinds:
            raise ShapeError(f"{what} arguments expected, not {result.dtype.name}")
        return result

    return infer


elementwise = _checked("fiub", "numeric")
numeric = _checked("fiu", "numeric (not bool)")
floating = _checked("f", "floating point")
integers = _checked("iu", "integer")
integral = _checked("iub", "integer or bool")
boolean = _checked("b", "bool")


def predicate(*types: Type) -> Type:
    """Elementwise with a bool result."""
    return _same(types).with_dtype(BOOL)


def reduced(type: Type, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without ``axes`` (which must be sorted, unique and in range)."""
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < type.ndim for a in axes):
        raise ShapeError(f"axes {axes} do not fit {type}")
    return tuple(n for i, n in enumerate(type.shape) if i not in axes)


def reduction(kinds: str = "fiub", dtype: np.dtype | None = None, nonempty: str = "") -> Infer:
    """A reduction over ``axes``; ``nonempty`` names an operation that has no identity."""

    def infer(x: Type, *, axes: tuple[int, ...]) -> Type:
        if x.dtype.kind not in kinds:
            raise ShapeError(f"a reduction of {x.dtype.name} is not defined here")
        if nonempty and any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"zero-size array to reduction operation {nonempty} which has no identity")
        return Type(dtype or x.dtype, reduced(x, axes))

    return infer
