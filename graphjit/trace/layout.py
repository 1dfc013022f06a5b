"""Where the elements of a traced array would lie in memory.

Job: answer what NumPy decides by memory: is a result a view or a copy, ``order="K"`` and ``"A"``, strides, flags, shared memory.
Input: a traced array.  Output: its *model*, an ndarray of bools with the strides that the array has in NumPy; views have views as models.
Invariant: nothing is ever read from a model or written to it (untouched memory costs nothing), so NumPy itself can be asked: what it does
with the model it would do with the array.

Example: ``np.shares_memory(np.reshape(model, -1), model)`` tells whether ``reshape`` returns a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.trace.tracer import Array, Tracer


def model(value: Array) -> np.ndarray:
    """The model of a traced array; the values themselves while they are known."""
    return value._layout()


def fresh(shape: tuple[int, ...], order: Sequence[int] | None = None) -> np.ndarray:
    """A model of a new array whose axes lie in memory in this order, the slowest first (None: row-major)."""
    if order is None:
        return np.empty(shape, bool)
    made = np.empty([shape[axis] for axis in order], bool)
    return made.transpose(np.argsort(order).tolist())


def axes_in_memory(array: np.ndarray) -> tuple[int, ...]:
    """Axes from the slowest to the fastest, as ``order="K"`` reads them."""
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def row_major(value: Any) -> bool:
    """Whether an operand is laid out as C does it (numbers are)."""
    if isinstance(value, Array):
        return value._plain() or model(value).flags.c_contiguous
    return not isinstance(value, np.ndarray) or value.flags.c_contiguous


def _model_of(value: Any) -> np.ndarray | None:
    if isinstance(value, Array):
        return model(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return np.lib.stride_tricks.as_strided(np.empty((), bool), value.shape, value.strides)
    return np.empty(np.shape(value), bool) if isinstance(value, list | tuple) else None


def like_operands(result: Any, operands: Sequence[Any], order: str = "K") -> Any:
    """Give the result of an elementwise operation the memory order that NumPy's iterator gives it."""
    if order in ("K", None) and all(map(row_major, operands)):
        return result
    if isinstance(result, tuple):
        return tuple(like_operands(item, operands, order) for item in result)
    if isinstance(result, Array):
        models = [found for found in map(_model_of, operands) if found is not None]
        result._model = elementwise(models, order)
    return result


def elementwise(models: Sequence[np.ndarray], order: str = "K") -> np.ndarray:
    """The model of what an elementwise operation on these allocates."""
    flags = [*[["readonly"]] * len(models), ["writeonly", "allocate"]]
    operands: Any = [*models, None]
    made = np.nditer(operands, ["zerosize_ok"], flags, [np.dtype(bool)] * len(operands), order, "unsafe")  # type: ignore[call-overload]
    found: np.ndarray = made.operands[-1]
    return found


def like_reduced(result: Any, operand: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
    """Give the result of a reduction the memory order that NumPy gives it."""
    if not isinstance(result, Array) or row_major(operand):
        return result
    source = _model_of(operand)
    assert source is not None
    kept = [axis for axis in axes_in_memory(source) if axis not in axes]
    if keepdims:
        kept = sorted(axes) + kept
        result._model = fresh(result.shape, kept)
    else:
        numbers = sorted(kept)
        result._model = fresh(result.shape, [numbers.index(axis) for axis in kept])
    return result


def in_memory_of(result: Any, source: Tracer, order: str | None) -> Any:
    """A copy of ``source`` in the order that was asked for: C, F, A (F if the source is F alone) or K (as the source lies)."""
    if isinstance(result, Array):
        result._model = copied(model(source), order) if isinstance(source, Array) else None
        if order == "F" and result._model is None and len(result.shape) > 1:
            result._model = np.empty(result.shape, bool, "F")
    return result


def copied(source: np.ndarray, order: str | None) -> np.ndarray | None:
    """The model of a copy; None: row-major."""
    made = np.empty_like(np.empty(0, bool), shape=source.shape, order="C") if order == "C" else np.empty_like(source, dtype=bool, order=order or "K", subok=False)  # type: ignore[call-overload]
    return None if made.flags.c_contiguous else made


def shares(found: Any, source: np.ndarray) -> bool:
    """Whether an array that NumPy made of ``source`` lies in its memory (arrays without elements too)."""
    owner = source
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    while isinstance(found, np.ndarray):
        if found is owner or found is source:
            return True
        found = found.base
    return False
