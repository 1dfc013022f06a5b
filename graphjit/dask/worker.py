"""What dask's workers run on a block or a chunk. A worker compiles once for each shape of them.

Input: a pickled function, arguments without data, rows of a block. Output: a flat buffer.
Invariant: nothing that a task was given is written to: dask may run it again.
"""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from graphjit.distributed.call import Call
from graphjit.distributed.flat import Flat

MOST_PROGRAMS = 32
"""Programs that a worker keeps; the one that was not used for longest goes."""

_loaded: OrderedDict[bytes, Any] = OrderedDict()
_lock = threading.Lock()


def loaded(pickled: bytes) -> Any:
    """What was pickled: the same object at each call, so that its compiled code is found again."""
    key = blake2b(pickled, digest_size=16).digest()
    with _lock:
        if key not in _loaded:
            _loaded[key] = pickle.loads(pickled)
            if len(_loaded) > MOST_PROGRAMS:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return _loaded[key]


def block(held: tuple[bytes, Any], total: int, rows: Sequence[np.ndarray]) -> Flat:
    """The weighted result for the rows of a block, of ``total`` rows that there are. ``held`` is the same for
    all blocks: the pickled task with its program, and the arguments without data.
    """
    pickled, whole = held
    task, program = loaded(pickled)
    weight = task.weight(len(rows[0]), total)
    return Call.again(task, whole).block(program, rows, weight)


def chunk(pickled: bytes, kwargs: dict[str, Any], *args: Any) -> np.ndarray:
    """A compiled function on chunks."""
    ready = [
        np.require(arg, requirements=("C", "A", "E")) if isinstance(arg, np.ndarray) else arg for arg in args
    ]
    return np.asarray(loaded(pickled)(*ready, **kwargs))


def described(part: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a partition.

    Raises:
        TypeError: it is no array.
    """
    if not isinstance(part, np.ndarray) or part.ndim == 0:
        raise TypeError(
            f"a delayed partition gave {type(part).__name__}, not an array with rows: let it return np.asarray(...)"
        )
    return part.shape, part.dtype
