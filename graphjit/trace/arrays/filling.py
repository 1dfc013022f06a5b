"""NumPy's functions that write into an array they are given: np.copyto, np.putmask, np.fill_diagonal, x.fill.

Job: NumPy's checks of dtype and shape, then an assignment to the whole or to a part.
Input: a traced array, what is written.  Output: none; the array has changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.trace.arrays.assignment import write_mask
from graphjit.trace.arrays.buffers import writable_storage
from graphjit.trace.arrays.items import setitem
from graphjit.trace.arrays.layout import model
from graphjit.trace.numpy.arguments import as_bool, node_of, tracing, unchecked
from graphjit.trace.numpy.methods import method
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Array, Tracer, implements


@method("fill")
def fill(x: Tracer, value: Any) -> None:
    """x.fill."""
    setitem(x, ..., value)


def _same_elements(a: Any, b: Any) -> bool:
    """Whether two arrays are the same elements in the same order."""
    if not (isinstance(a, Array) and isinstance(b, Array)) or a.dtype != b.dtype:
        return False
    first, second = model(a), model(b)
    return (first.ctypes.data, first.shape, first.strides) == (
        second.ctypes.data,
        second.shape,
        second.strides,
    )


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """np.copyto; of an array to itself it does nothing, not even ask whether it may be written."""
    if isinstance(dst, Tracer) and not isinstance(dst, Array):
        raise TypeError(
            f"copyto() argument 1 must be a numpy.ndarray, not {dst._class.__name__} (at {user_location()})"
        )
    if dst is src or _same_elements(dst, src):
        return
    value = src if isinstance(src, Tracer) else np.asarray(src)
    weak = type(src) is int and dst.dtype.kind in "iuf"
    if not weak and not np.can_cast(value.dtype, dst.dtype, casting):
        raise TypeError(
            f"Cannot cast array data from {value.dtype!r} to {dst.dtype!r} according to the rule '{casting}'"
        )
    src = unchecked(src)
    setitem(dst, ..., src if where is True else np.where(where, src, dst))


@implements(np.putmask)
def putmask(a: Any, mask: Any, values: Any) -> None:
    """np.putmask with values of one element or of a's shape."""
    if isinstance(values, Array | np.ndarray) and not np.can_cast(values.dtype, a.dtype):
        raise TypeError(
            f"Cannot cast array data from {values.dtype!r} to {a.dtype!r} according to the rule 'safe' (at {user_location()})"
        )
    if np.ndim(values) and np.size(values) > 1:
        setitem(a, ..., np.where(mask, values, a))
    else:
        trace = tracing()
        storage = writable_storage(a)
        storage.replace(
            write_mask(
                trace,
                storage.node(),
                as_bool(trace, node_of(trace, mask)),
                np.reshape(values, ()) if np.ndim(values) else values,
            )
        )


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """np.fill_diagonal."""
    if a.ndim < 2:
        raise ValueError("array must be at least 2-d")
    if a.ndim > 2 and len(set(a.shape)) != 1:
        raise ValueError("All dimensions of input must be of equal length")
    columns = a.shape[1]
    step = columns + 1 if a.ndim == 2 else 1 + sum(columns**power for power in range(1, a.ndim))
    end = columns * columns if a.ndim == 2 and not wrap else None
    a.flat[slice(None, end, step)] = val
