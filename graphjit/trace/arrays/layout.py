"""In which order the elements of a traced array would lie in memory, which decides what is a view and what a
copy.

Job: answer what NumPy decides by memory: views, ``order="K"`` and ``"A"``, strides, flags, shared memory.
Input: a traced array. Output: its *model*, an ndarray of bools with the strides that the array has in NumPy;
views have views as models.
Invariant: nothing is ever read from a model or written to it; memory that is never touched costs nothing.

Whether NumPy makes a view or a copy depends on shape and strides alone, not on the elements. The model has
both, so NumPy itself can be asked: what it does with the model it would do with the array. The order of new
results is asked for too: the function runs once on *small twins* of its operands, which have the same order
of axes and at most four elements along each.

Example: ``shares(np.reshape(model, -1), model)`` tells whether ``reshape`` returns a view.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any

import numpy as np

SHORTEST = 4
"""Elements of a small twin along one axis: shorter axes keep their length, for functions that mean something
by it (np.cross).
"""


class Laid:
    """Base of everything traced that lies in memory."""

    __slots__ = ()

    def _layout(self: Any) -> np.ndarray:
        """The model; kept, so that views of one array have models that share memory."""
        if self._model is None:
            self._model = np.empty(self.shape, bool)
        return self._model  # type: ignore[no-any-return]

    def _plain(self: Any) -> bool:
        """Whether it is known without a model that the array is new and row-major."""
        return self._model is None


def model(value: Laid) -> np.ndarray:
    """The model of a traced array; the values themselves while they are known."""
    return value._layout()


def shares(result: Any, source: np.ndarray) -> bool:
    """Whether an array that NumPy made of ``source`` lies in its memory (arrays without elements too)."""
    owner = source
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    while result is not None:
        if result is owner or result is source:
            return True
        result = getattr(result, "base", None)
    return False


# ----------------------------------------------------------------------------------------------------- orders


def model_of_new(shape: Sequence[int], order: Sequence[int]) -> np.ndarray | None:
    """A model of a new array whose axes lie in memory in this order, the slowest first; None where that is
    row-major.
    """
    longer = [axis for axis in order if shape[axis] != 1]
    if longer == sorted(longer):
        return None
    made = np.empty([shape[axis] for axis in order], bool).transpose(np.argsort(order).tolist())
    return None if made.flags.c_contiguous else made


def axes_in_memory(array: np.ndarray) -> tuple[int, ...]:
    """Axes from the slowest to the fastest, as ``order="K"`` reads them: repeated axes (stride 0) stay
    between their neighbours.
    """

    def slower(a: int, b: int) -> int:
        first, second = abs(array.strides[a]), abs(array.strides[b])
        return a - b if first == second or not first or not second else second - first

    return tuple(sorted(range(array.ndim), key=cmp_to_key(slower)))


def row_major(value: Any) -> bool:
    """Whether an operand lies row by row, as in C; numbers do, a list does if each item does."""
    kind = type(value)  # not the class that a traced value shows, which costs more than all the rest
    if issubclass(kind, Laid):
        return value._plain() or row_major(model(value))
    if issubclass(kind, list | tuple):
        return all(map(row_major, value))
    if not issubclass(kind, np.ndarray):
        return True
    # NumPy calls every array without elements contiguous, but reductions of one follow its strides.
    return value.flags.c_contiguous and (value.size > 0 or axes_in_memory(value) == tuple(range(value.ndim)))


def model_of_copy(source: np.ndarray, order: str | None) -> np.ndarray | None:
    """The model of a copy in order C, F, A (F if the source is F alone) or K (as the source lies); None:
    row-major.
    """
    made = np.empty_like(source, dtype=bool, order=order or "K", subok=False)  # type: ignore[call-overload]
    return None if made.flags.c_contiguous else made


def in_memory_of(result: Any, source: Any, order: str | None) -> Any:
    """Give a copy of ``source`` the memory order that was asked for."""
    lies = (
        model(source)
        if isinstance(source, Laid)
        else source
        if isinstance(source, np.ndarray)
        else np.empty(result.shape, bool)
    )
    result._model = model_of_copy(lies, order)
    return result


def canonical_strides(array: np.ndarray) -> tuple[int, ...]:
    """Strides in elements that decide the same questions as the array's own: order of axes, signs, gaps, axes
    that lie as one.

    Arrays with the same canonical strides need one trace: a column of any matrix is (2,).
    """
    order = axes_in_memory(array)[::-1]
    strides = [stride // array.itemsize for stride in array.strides]
    canonical = [0] * array.ndim
    reach, real = 1, 1  # elements that the faster axes cover: in the new strides and in the array's
    for axis in order:
        step, size = strides[axis], array.shape[axis]
        if step == 0 or size == 1:
            continue
        if abs(step) < real:  # elements overlap: nothing can be told apart but by the strides themselves
            return tuple(strides)
        canonical[axis] = (reach if abs(step) == real else reach + 1) * (1 if step > 0 else -1)
        reach, real = abs(canonical[axis]) * size, abs(step) * size
    return tuple(canonical)


def standing_for(shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A model with these strides in elements."""
    low = sum(min(0, step * (size - 1)) for step, size in zip(strides, shape, strict=True))
    high = sum(max(0, step * (size - 1)) for step, size in zip(strides, shape, strict=True))
    memory = np.empty(high - low + 1, bool)
    return np.lib.stride_tricks.as_strided(memory[-low:], shape, strides)


# ------------------------------------------------------------------------------------------------ small twins


REORDERING = frozenset({np.einsum, np.delete, np.linspace, np.gradient, np.cross, np.linalg.cross})
"""Functions whose results need not be row-major although all their arguments are."""

OTHERS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.linalg.solve: np.matmul,
    np.linalg.inv: lambda a: np.matmul(a, a),
    np.linalg.cholesky: lambda a, /, *, upper=False: np.matmul(a, a),
}
"""Functions that refuse matrices of ones, and others with results in the same order."""


def in_order(
    result: Any,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    always: bool = False,
) -> Any:
    """Give the new arrays in ``result`` the memory order that ``function(*args, **kwargs)`` gives them in
    NumPy.
    """
    if not issubclass(type(result), Laid | tuple | list):
        return result
    if (
        not always
        and all(map(row_major, args))
        and (not kwargs or row_major(list(kwargs.values())))
        and function not in REORDERING
    ):
        return result
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = OTHERS.get(function, function)(
                *_twin(args), **{name: _twin(value) for name, value in (kwargs or {}).items()}
            )
    except Exception:
        # What fails on arrays of other sizes reads or makes shapes: such results are row-major.
        return result
    _follow(result, small)
    return result


def _follow(result: Any, small: Any) -> None:
    if isinstance(result, list | tuple) and isinstance(small, list | tuple) and len(result) == len(small):
        for item, twin in zip(result, small, strict=True):
            _follow(item, twin)
    elif isinstance(result, Laid) and isinstance(small, np.ndarray):
        _lay(result, small)


def _lay(result: Any, small: np.ndarray) -> None:
    if result._plain() and small.ndim == len(result.shape):
        result._model = model_of_new(result.shape, axes_in_memory(small))


def _twin(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_twin, value)) if type(value) is tuple else list(map(_twin, value))
    if isinstance(value, Laid):
        return _shrunk(model(value), value.dtype)  # type: ignore[attr-defined]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _shrunk(value, value.dtype)
    stands_for = getattr(type(value), "twin", None)
    return value if stands_for is None else stands_for(value)


def _shrunk(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A small array with the same order of axes, filled with ones; with zeros where it holds integers, which
    are valid positions in every array.
    """
    repeated = tuple(0 if step == 0 else slice(None) for step in array.strides)
    if 0 in repeated:
        rest = _shrunk(array[repeated], dtype)
        spread = rest[tuple(None if index == 0 else slice(None) for index in repeated)]
        sizes = [min(n, SHORTEST) for n in array.shape]
        return np.broadcast_to(spread, sizes)
    order = axes_in_memory(array)
    if (
        not array.size
    ):  # new arrays without elements have no strides to tell from: a part of one that has some
        filled = [slice(0 if n == 0 else None) for n in array.shape]
        return _shrunk(
            np.empty([max(n, 1) for n in array.transpose(order).shape], bool).transpose(
                np.argsort(order).tolist()
            ),
            dtype,
        )[*filled]
    sizes = [min(array.shape[axis], SHORTEST) for axis in order]
    if array.ndim and not array.transpose(order).flags.c_contiguous:  # with gaps
        made = np.empty([*sizes[:-1], 2 * sizes[-1]], dtype)[..., ::2]
    else:
        made = np.empty(sizes, dtype)
    made.fill(dtype.kind not in "iu")
    return made.transpose(np.argsort(order).tolist())
