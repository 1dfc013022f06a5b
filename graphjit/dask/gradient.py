"""``value_and_grad`` over the rows of dask arrays.

Job: make a graph of dask tasks: one for each block of rows, and the tree of sums above them. The scheduler
places them; when a worker dies, what it had is computed again.
Input: parameters in this process, data as dask arrays or delayed partitions. Output: the result, here.
Invariants: blocks and tree are those of `graphjit.distributed`, so results do not depend on workers; what
tasks need lies in the graph, so that nothing is lost with a worker.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np

from graphjit.api.options import Positions
from graphjit.dask import worker
from graphjit.dask.library import is_array, library, pickled
from graphjit.distributed.blocks import bounds, fold, require_rows
from graphjit.distributed.call import Call, Task
from graphjit.distributed.flat import Flat, summed
from graphjit.distributed.progress import Progress, Show
from graphjit.errors import ShapeError
from graphjit.trace.pytree import flatten, texts


def value_and_grad(
    fun: Callable[..., Any] | None = None,
    client: Any = None,
    argnums: Positions | None = None,
    has_aux: bool = False,
    *,
    blocks: int = 8,
    in_axes: Sequence[Any] | None = None,
    reduction: str = "mean",
    retries: int = 0,
    progress: Show = True,
) -> Any:
    """Make a function that returns a value and its gradient over the rows of dask arrays.

    Workers of a cluster compute blocks of rows and sum their results; one block at a time is in the memory of
    a thread of a worker. The bits do not depend on the number of workers, on chunks, or on workers that died
    meanwhile, if the machines have equal features; they are those of `graphjit.distributed.value_and_grad`.

    Parameters
    ----------
    fun : callable, optional
        The function, written with NumPy, as for `graphjit.value_and_grad`. With ``reduction="mean"`` it
        returns a mean over its rows, to which terms may be added that do not depend on rows, such as
        penalties. With ``reduction="sum"`` it returns a sum over its rows, and nothing else is added. It is
        pickled by cloudpickle at every call. Without `fun` the result is a decorator.
    client : distributed.Client, optional
        The cluster; without it the client that was made last.
    argnums : int or sequence of int, optional
        Positions of the arguments to differentiate, as in `graphjit.value_and_grad`.
    has_aux : bool, optional
        Whether the function returns a pair, of which only the first is differentiated. The other part is
        averaged or summed over blocks in the same way, so its shapes must not depend on the number of rows.
    blocks : int, optional
        Into how many blocks rows are cut: more than there are threads of workers, and so many that a few of
        them fit in a worker's memory. Other numbers of blocks give other bits.
    in_axes : sequence of 0 or None, optional
        For each positional argument whether it is cut along its first axis (0) or passed whole (None); an
        entry may be a tree, as in `graphjit.vmap`. Without it the arguments that are not differentiated are
        cut. Keyword arguments are passed whole.
    reduction : {"mean", "sum"}, optional
        With ``"mean"`` the result of a block counts by its share of the rows, with ``"sum"`` all are added.
    retries : int, optional
        How often a task that raised an error is tried again. Tasks of workers that died are always computed
        again.
    progress : bool or callable, optional
        Whether to tell on stderr how far a call is that takes more than two seconds. A function is called
        with the number of blocks that are done and that of all.

    Returns
    -------
    callable
        A function of the same arguments that returns what that of `graphjit.value_and_grad` returns. Data
        are dask arrays, lists of delayed partitions that are arrays, or NumPy arrays, which are sent.

    Raises
    ------
    ImportError
        dask or distributed is not installed.
    ShapeError
        At a call: arrays have different numbers of rows, or none or an unknown number.
    TypeError
        At a call: what is to be cut is no array of numbers.

    Notes
    -----
    Chunks that do not end where blocks end cost a copy. Data that are not persisted are loaded at every call.
    Parameters whose class is registered with `graphjit.register_pytree_node` need a class of a module that
    workers import.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import distributed
    >>> import graphjit
    >>> def loss(w, x, y):
    ...     return np.mean((x @ w - y) ** 2)
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     x, y = da.eye(2, chunks=1), da.from_array(np.array([1.0, 2.0]))
    ...     graphjit.dask.value_and_grad(loss, client)(np.zeros(2), x, y)
    (np.float64(2.5), array([-1., -2.]))
    """
    if fun is None:
        return functools.partial(
            value_and_grad,
            client=client,
            argnums=argnums,
            has_aux=has_aux,
            blocks=blocks,
            in_axes=in_axes,
            reduction=reduction,
            retries=retries,
            progress=progress,
        )
    library("distributed"), library("dask.array")
    task = Task.checked("dask.value_and_grad", fun, argnums, has_aux, in_axes, blocks, reduction)
    gradient = _Gradient(task, client, retries, progress)

    @functools.wraps(fun, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        return gradient.run(args, kwargs)

    return run


MOST_REMEMBERED = 8
"""Lists of partitions whose shapes are remembered."""


class _Gradient:
    """A task on a cluster, and what is known about data that it was called with before."""

    def __init__(self, task: Task, client: Any, retries: int, show: Show) -> None:
        self.task, self.client, self.retries, self.show = task, client, retries, show
        self.program = task.program()
        self.shapes: OrderedDict[Any, Any] = OrderedDict()

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call."""
        client = library("distributed").default_client() if self.client is None else self.client
        args = tuple(
            self._array(arg, i, client) if _is_partitions(arg) else arg for i, arg in enumerate(args)
        )
        _require_known(args)
        call = Call.of(self.task, args, kwargs)
        _require_here(call)
        require_rows(call.rows, f"distributed gradient of {self.task.name}")
        leaves, root = self._graph(call)
        with Progress(self.task.name, len(leaves), self.show) as progress:
            return _computed(client, leaves, root, self.retries, progress)

    def _graph(self, call: Call) -> tuple[list[Any], Any]:
        """Delayed results of blocks, and that of all."""
        delayed = library().delayed
        # No two calls share tasks, not those of other clients either: data may have changed on disk.
        serial = uuid4().hex

        def task(function: Callable[..., Any], key: str) -> Any:
            made = delayed(function, pure=False)
            return lambda *args: made(*args, dask_key_name=f"graphjit-{key}-{serial}")

        # Pickled at every call: what the function reads from outside may have changed.
        function = pickled((self.task, self.program))
        held = delayed((function, call.without_data()), name=f"graphjit-task-{serial}", traverse=False)
        cuts = bounds(call.rows, self.task.blocks)
        arrays = [call.leaves[i] for i in call.cut]
        leaves = [
            task(worker.block, f"block-{i}")(held, call.rows, [_rows(array, *cut) for array in arrays])
            for i, cut in enumerate(cuts)
        ]
        count = itertools.count()
        root = fold(len(cuts), leaves.__getitem__, lambda a, b: task(summed, f"join-{next(count)}")(a, b))
        return leaves, task(Flat.tree, "result")(root)

    # ------------------------------------------------------------------------------------------- the data

    def _array(self, partitions: Sequence[Any], position: int, client: Any) -> Any:
        """Delayed partitions as one dask array. Their shapes are asked for once.

        Raises:
            ShapeError: they do not fit together.
        """
        key = tuple(part.key for part in partitions)
        delayed, arrays = library().delayed, library("dask.array")

        def ask() -> Any:
            tasks = [delayed(worker.described, pure=False)(part) for part in partitions]
            return client.gather(client.compute(tasks, retries=self.retries))

        if key not in self.shapes:
            self.shapes[key] = ask()
            if len(self.shapes) > MOST_REMEMBERED:
                self.shapes.popitem(last=False)
        shapes = self.shapes[key]
        kinds = {(str(dtype), shape[1:]) for shape, dtype in shapes}
        if len(kinds) > 1:
            raise ShapeError(
                f"args[{position}]: the partitions have different dtypes or row shapes: {sorted(kinds)}"
            )
        parts = [
            arrays.from_delayed(part, shape, dtype)
            for part, (shape, dtype) in zip(partitions, shapes, strict=True)
        ]
        return arrays.concatenate(parts)


def _is_partitions(value: Any) -> bool:
    kind = library("dask.delayed").Delayed
    return (
        isinstance(value, tuple | list) and len(value) > 0 and all(isinstance(part, kind) for part in value)
    )


def _require_known(args: tuple[Any, ...]) -> None:
    """Raises: ShapeError: a dask array does not know how many rows it has."""
    leaves, spec = flatten(args)
    for i, leaf in enumerate(leaves):
        if is_array(leaf) and any(np.isnan(size) for size in leaf.shape):
            raise ShapeError(
                f"{texts(spec, 'args')[i]} does not know its number of rows: call compute_chunk_sizes() on it"
            )


def _require_here(call: Call) -> None:
    """Raises: TypeError: an array to be passed whole is one of dask."""
    for i, leaf in enumerate(call.leaves):
        if is_array(leaf) and i not in call.cut:
            name = call.names()[i]
            raise TypeError(f"{name} is a dask array that every block needs whole: pass {name}.compute()")


def _rows(array: Any, start: int, stop: int) -> Any:
    """Rows of an array: of a dask array delayed and in one chunk."""
    if not is_array(array):
        return np.asarray(array[start:stop])
    part = array[start:stop]
    return part.rechunk(part.shape).to_delayed().item()


def _computed(client: Any, leaves: list[Any], root: Any, retries: int, progress: Progress) -> Any:
    """The value of ``root``, computed on the cluster. Results of blocks are given back as soon as they are
    counted: the scheduler keeps them until they are summed.

    Raises:
        Exception: what a task raised, or what the user's function for progress did.
    """
    with warnings.catch_warnings():
        # Parameters lie in the graph: a worker that dies would take scattered ones with it.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        root_future, *futures = client.compute([root, *leaves], retries=retries)
    try:
        completed = library("distributed").as_completed(futures, raise_errors=False)
        futures.clear()
        for future in completed:
            if future.status != "finished":
                break
            progress.advance()
            future.release()
        return root_future.result()
    finally:
        client.cancel([root_future])
