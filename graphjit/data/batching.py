"""Mini-batches of containers of arrays.

Job: cut arrays into batches along their first axis, in a new order in each epoch. Loops over them stay the
user's.
Input: a container of arrays with equally many rows. Output: containers of the same structure.
Invariants: the order depends on the seed and the number of the epoch alone; arguments are never changed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphjit.trace.pytree import flatten, texts, unflatten


class Batches:
    """What `batches` returns: iterating over it is an epoch."""

    def __init__(self, arrays: Any, size: int, seed: int | None, drop_last: bool) -> None:
        leaves, self._spec = flatten(arrays)
        self._leaves = [None if leaf is None else np.asanyarray(leaf) for leaf in leaves]
        self._rows = _rows(self._leaves, texts(self._spec, "arrays"))
        self.size = operator.index(size)
        if self.size < 1:
            raise ValueError(f"batches: size must be at least 1, not {size}")
        if isinstance(seed, int | np.integer) and seed < 0:
            raise ValueError(f"batches: seed must not be negative, not {seed}")
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        """The number of the next epoch. Set it to go on where another run ended."""

    def __len__(self) -> int:
        whole, rest = divmod(self._rows, self.size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[Any]:
        order = (
            None if self.seed is None else np.random.default_rng([self.seed, epoch]).permutation(self._rows)
        )
        for start in range(0, len(self) * self.size, self.size):
            rows: Any = slice(start, start + self.size)
            if order is not None:
                rows = order[rows]
            yield unflatten(self._spec, [None if leaf is None else leaf[rows] for leaf in self._leaves])


def _rows(leaves: list[Any], names: list[str]) -> int:
    """How many rows all arrays have."""
    found = {}
    for leaf, name in zip(leaves, names, strict=True):
        if leaf is not None:
            if leaf.ndim == 0:
                raise ValueError(f"batches: {name} is a single number and has no rows")
            found[name] = len(leaf)
    if len(set(found.values())) != 1:
        listed = ", ".join(f"{name} has {rows}" for name, rows in found.items())
        raise ValueError(f"batches: arrays must have equally many rows, but {listed or 'there is none'}")
    return next(iter(found.values()))


def batches(arrays: Any, size: int, seed: int | None = None, drop_last: bool = False) -> Batches:
    """Cut arrays into mini-batches along their first axis, in a new order in each epoch.

    Parameters
    ----------
    arrays : pytree of ndarray
        The data: arrays with equally many rows, files mapped into memory among them.
    size : int
        Rows of a batch.
    seed : int, optional
        Where the orders come from; not negative. Without it rows stay in order.
    drop_last : bool, optional
        Leave out the last batch if it is shorter. Kept, it makes a compiled function compile once more.

    Returns
    -------
    Batches
        An iterable. Each ``for`` over it is an epoch, ``len`` is the number of batches, and its attribute
        ``epoch``, the number of the next epoch, may be set.

    Raises
    ------
    ValueError
        The arrays have not equally many rows, ``size`` is not positive, or ``seed`` is negative.

    Notes
    -----
    Without a seed a batch consists of views: nothing is copied, and writing into a batch changes the data.
    With a seed it consists of new arrays, in which its rows are gathered when the batch is asked for. To
    order whole arrays at the start of an epoch, and hand out views of those, would copy as many bytes. But it
    needs the data twice in memory, and a batch would have left the cache before the step reads it (188 MB in
    batches of 128 rows, gathered and summed: 0.12 s, ordered first 0.15 s).

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import data
    >>> x, y = np.arange(10.0), np.arange(10) % 2
    >>> loader = data.batches((x, y), 4, seed=0)
    >>> for epoch in range(2):
    ...     print([batch_x.astype(int).tolist() for batch_x, batch_y in loader])
    [[4, 6, 2, 7], [3, 5, 9, 0], [8, 1]]
    [[9, 1, 3, 8], [7, 6, 0, 4], [2, 5]]
    >>> len(loader)
    3
    """
    return Batches(arrays, size, seed, drop_last)
