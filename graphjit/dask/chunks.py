"""``map_blocks``: a compiled function on every chunk of dask arrays.

Job: find out by tracing, without running anything, which dtype and shape the function gives for each chunk.
Input: a function of NumPy arrays, dask arrays. Output: a dask array that knows its dtype, shape and chunks.
Invariant: a chunk has the dtype and shape that the array promises: nothing else was traced.

Example: chunks of shape ``(4, 3)`` under ``lambda x: x[:, :2]`` are chunks of shape ``(4, 2)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.api.compiled import jit
from graphjit.api.options import Positions, positions, require_callable
from graphjit.dask import worker
from graphjit.dask.library import is_array, library, pickled
from graphjit.errors import DerivativeError, ShapeError
from graphjit.trace.marks import dispatcher_of, name_of

Chunks = tuple[tuple[int, ...], ...]


def map_blocks(
    fun: Callable[..., Any],
    *args: Any,
    drop_axis: Positions = (),
    new_axis: Positions = (),
    **kwargs: Any,
) -> Any:
    """Run a compiled function on every chunk of dask arrays, as `dask.array.map_blocks` does.

    The function is traced, not run, to learn the dtype and the shape of its results: the array that comes
    back knows dtype, shape and chunks. It is computed when dask is asked to. Each worker compiles the
    function once for each shape of chunks.

    Parameters
    ----------
    fun : callable
        A function of NumPy arrays that returns an array: plain, which is compiled, or already compiled, such
        as the result of `vmap` or `grad`.
    *args
        Dask arrays, whose chunks are aligned and broadcast, and other values, which are passed whole.
    drop_axis : int or sequence of int, optional
        Axes that the result does not have. Chunks along them are joined before the function sees them.
    new_axis : int or sequence of int, optional
        Axes of the result that the arrays do not have.
    **kwargs
        Keyword arguments of the function, passed whole.

    Returns
    -------
    dask.array.Array
        The results of all chunks.

    Raises
    ------
    ImportError
        dask is not installed.
    TypeError
        No argument is a dask array, or the function returns something else than an array.
    ShapeError
        The result has other axes than the arrays, `drop_axis` and `new_axis` say, or an array does not know
        the sizes of its chunks.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import graphjit
    >>> x = da.ones((6, 3), chunks=(4, 3), dtype=np.float32)
    >>> y = graphjit.dask.map_blocks(lambda x: np.tanh(x[:, :2]), x)
    >>> y.chunks, y.dtype
    (((4, 2), (2,)), dtype('float32'))
    >>> y.compute().shape
    (6, 2)
    """
    require_callable(fun, "dask.map_blocks")
    arrays = library("dask.array")
    function: Any = fun if dispatcher_of(fun) is not None else jit(fun)
    ready = _aligned(args, name_of(fun))
    grid = _Grid(function, ready, kwargs, positions(drop_axis), positions(new_axis))
    dtype, chunks = grid.chunks()
    return arrays.map_blocks(
        functools.partial(worker.chunk, pickled(function), kwargs),
        *ready,
        dtype=dtype,
        chunks=chunks,
        meta=np.empty((0,) * len(chunks), dtype),
        drop_axis=list(grid.dropped),
        new_axis=list(grid.added) or None,
        token=name_of(fun).replace("<lambda>", "lambda"),
    )


def _aligned(args: Sequence[Any], name: str) -> list[Any]:
    """The arguments, dask arrays with chunks that end where those of the others do.

    Raises:
        TypeError: none is a dask array.
        ShapeError: the sizes of chunks are not known.
    """
    given = [arg for arg in args if is_array(arg)]
    if not given:
        raise TypeError(f"dask.map_blocks of {name} was called without a dask array")
    for array in given:
        if any(np.isnan(size) for size in array.shape):
            raise ShapeError(
                f"dask.map_blocks of {name}: the sizes of chunks of {array.name} are not known: call "
                "compute_chunk_sizes() on it before"
            )
    pairs = [part for array in given for part in (array, tuple(range(array.ndim))[::-1])]
    _, unified = library("dask.array").unify_chunks(*pairs)
    ready = iter(unified)
    return [next(ready) if is_array(arg) else arg for arg in args]


class _Grid:
    """The chunks of the arrays, and what the function gives for each."""

    def __init__(
        self,
        function: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        dropped: Sequence[int],
        added: Sequence[int],
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.name = name_of(function)
        self.ndim = max(arg.ndim for arg in args if is_array(arg))
        for axis in dropped:
            if not -self.ndim <= axis < self.ndim:
                raise ShapeError(f"drop_axis={axis}, but the arrays have {self.ndim} axes")
        self.dropped = sorted({axis % self.ndim for axis in dropped})
        kept = self.ndim - len(self.dropped) + len(added)
        for axis in added:
            if not 0 <= axis < kept:
                raise ShapeError(f"new_axis={axis}, but the result has {kept} axes")
        self.added = sorted(set(added))
        self.known: dict[tuple[tuple[int, ...], ...], tuple[np.dtype[Any], tuple[int, ...]]] = {}

    def chunks(self) -> tuple[np.dtype[Any], Chunks]:
        """Dtype and chunks of the result.

        Raises:
            ShapeError: the result has other axes, or chunks that do not fit together.
        """
        first = dict.fromkeys(range(self.ndim), 0)
        dtype, shape = self._result(first)
        sources: list[int | None] = [axis for axis in range(self.ndim) if axis not in self.dropped]
        for new in self.added:
            sources.insert(new, None)
        if len(shape) != len(sources):
            raise ShapeError(
                f"dask.map_blocks of {self.name}: the arrays have {self.ndim} axes and the result {len(shape)}; "
                f"say with drop_axis and new_axis which of them differ"
            )
        found = []
        for out, axis in enumerate(sources):
            count = 1 if axis is None else self._count(axis)
            sizes = []
            for i in range(count):
                kind, there = self._result(first if axis is None else first | {axis: i})
                if kind != dtype or there[:out] + there[out + 1 :] != shape[:out] + shape[out + 1 :]:
                    raise ShapeError(
                        f"dask.map_blocks of {self.name}: one chunk gives {dtype}{list(shape)} and another one "
                        f"{kind}{list(there)}, which do not make one array"
                    )
                sizes.append(there[out])
            found.append(tuple(sizes))
        return dtype, tuple(found)

    def _count(self, axis: int) -> int:
        """How many chunks the arrays have along an axis."""
        return max(
            arg.numblocks[axis - self.ndim]
            for arg in self.args
            if is_array(arg) and arg.ndim >= self.ndim - axis
        )

    def _result(self, where: dict[int, int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """What the function gives for the chunks at a place, traced once for equal shapes."""
        shapes = tuple(self._chunk(arg, where) for arg in self.args if is_array(arg))
        if shapes not in self.known:
            ready = iter(shapes)
            args = [_empty(next(ready), arg.dtype) if is_array(arg) else arg for arg in self.args]
            self.known[shapes] = _traced(self.function, args, self.kwargs)
        return self.known[shapes]

    def _chunk(self, array: Any, where: dict[int, int]) -> tuple[int, ...]:
        """The shape of a chunk; along dropped axes all chunks are one."""
        shape = []
        for i, sizes in enumerate(array.chunks):
            axis = i + self.ndim - array.ndim
            if axis in self.dropped:
                shape.append(sum(sizes))
            else:
                shape.append(sizes[where[axis]] if len(sizes) > 1 else sizes[0])
        return tuple(shape)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of any size without memory, laid out like the chunk it stands for."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _traced(
    function: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype and shape of the result of a call, which is traced only.

    Raises:
        TypeError: the result is no array.
        DerivativeError: the function writes into its arguments.
    """
    results = function.dispatcher.staged(*args, **kwargs).results
    if results.written:
        raise DerivativeError(
            f"dask.map_blocks of {name_of(function)}: the function changes its argument in place, and dask keeps "
            "chunks for others: work on a copy"
        )
    if len(results.leaves) != 1 or results.leaves[0][0] != "value" or results.spec.num_nodes != 1:
        raise TypeError(
            f"dask.map_blocks of {name_of(function)}: the function must return one array, not {results.spec}"
        )
    number = results.leaves[0][1]
    node = results.nodes[number]
    shape = list(node.shape)
    for axis, size in zip(results.orders.get(number, ()), node.shape):  # computed in the order of its memory
        shape[axis] = size
    return node.dtype, tuple(shape)
