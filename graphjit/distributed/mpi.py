"""``value_and_grad`` over the processes of an MPI communicator.

Job: every process brings rows of its own; blocks are cut from the rows of all, in the order of ranks. The
owner of a block, who has its first row, computes it. The results of blocks are summed in the tree of
`blocks.fold`: where a join needs a value of a higher rank, that rank sends it. The owner of the first block
tells the sum to all.
Input: the same call in every process, each with its rows. Output: the same result in every process.
Invariants: an error in one process is raised in all of them; nobody waits for longer than ``timeout``.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import numpy as np

from graphjit.api.options import Positions
from graphjit.distributed.blocks import bounds, check_blocks, fold, require_rows
from graphjit.distributed.call import Call, Task
from graphjit.distributed.channel import HEADER, PAYLOAD, ROWS, Channel, channel, mpi
from graphjit.distributed.flat import UNLIKE, Flat, summed
from graphjit.distributed.progress import Progress, Show
from graphjit.errors import ShapeError


def value_and_grad(
    fun: Callable[..., Any] | None = None,
    argnums: Positions | None = None,
    has_aux: bool = False,
    *,
    comm: Any = None,
    blocks: int = 8,
    in_axes: Sequence[Any] | None = None,
    reduction: str = "mean",
    timeout: float | None = 600.0,
    progress: Show = True,
) -> Any:
    """Make a function that returns a value and its gradient over the rows of all processes of a communicator.

    Every process calls it at the same time, with the same parameters and with its own rows. All get the same
    result, whose bits do not depend on how many processes there are or how the rows lie on them, if the
    machines have equal features. A process may have no rows: arrays of shape ``(0, ...)``.

    Parameters
    ----------
    fun : callable, optional
        The function, written with NumPy, as for `graphjit.value_and_grad`. With ``reduction="mean"`` it
        returns a mean over its rows, to which terms may be added that do not depend on rows, such as
        penalties. With ``reduction="sum"`` it returns a sum over its rows, and nothing else is added. Without
        `fun` the result is a decorator.
    argnums : int or sequence of int, optional
        Positions of the arguments to differentiate, as in `graphjit.value_and_grad`.
    has_aux : bool, optional
        Whether the function returns a pair, of which only the first is differentiated. The other part is
        averaged or summed over blocks in the same way, so its shapes must not depend on the number of rows.
    comm : mpi4py.MPI.Intracomm, optional
        The communicator; ``COMM_WORLD`` without it.
    blocks : int, optional
        Into how many blocks all rows are cut. More processes than that have nothing to do. Other numbers of
        blocks give other bits.
    in_axes : sequence of 0 or None, optional
        For each positional argument whether it is cut along its first axis (0) or passed whole (None); an
        entry may be a tree, as in `graphjit.vmap`. Without it the arguments that are not differentiated are
        cut. Keyword arguments are passed whole.
    reduction : {"mean", "sum"}, optional
        With ``"mean"`` the result of a block counts by its share of the rows, with ``"sum"`` all are added.
    timeout : float or None, optional
        For how many seconds a process waits for another one; None means forever.
    progress : bool or callable, optional
        Whether the first process tells on stderr how far a call is that takes more than two seconds. A
        function is called with the number of blocks that are done and that of all.

    Returns
    -------
    callable
        A function of the same arguments that returns what that of `graphjit.value_and_grad` returns.

    Raises
    ------
    ImportError
        mpi4py is not installed.
    ShapeError
        At a call, in all processes: the processes call with different functions, options, structures, dtypes
        or shapes, there are no rows at all, or what blocks return differs in shape.
    TypeError
        At a call: what is to be cut is no array of numbers.
    RuntimeError
        At a call: another process raised an error, which the message repeats.
    TimeoutError
        At a call: a process died or did not make the call.

    Notes
    -----
    Rows are sent between processes only where a block lies on several of them; `rows` says which rows to load
    so that none does.

    Examples
    --------
    >>> import numpy as np
    >>> from graphjit import distributed
    >>> def loss(w, x, y):
    ...     return np.mean((x @ w - y) ** 2)
    >>> own = distributed.rows(2)  # all of them, in a program of one process
    >>> x, y = np.eye(2)[own], np.array([1.0, 2.0])[own]
    >>> distributed.value_and_grad(loss)(np.zeros(2), x, y)
    (np.float64(2.5), array([-1., -2.]))
    """
    if fun is None:
        return functools.partial(
            value_and_grad,
            argnums=argnums,
            has_aux=has_aux,
            comm=comm,
            blocks=blocks,
            in_axes=in_axes,
            reduction=reduction,
            timeout=timeout,
            progress=progress,
        )
    mpi()
    task = Task.checked("distributed.value_and_grad", fun, argnums, has_aux, in_axes, blocks, reduction)
    program = task.program()

    @functools.wraps(fun, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        return _Gradient(task, program, channel(comm, timeout), progress).run(args, kwargs)

    return run


def rows(total: int, comm: Any = None, blocks: int = 8) -> slice:
    """Tell which rows this process should load, so that each block lies on one process.

    Parameters
    ----------
    total : int
        The number of rows of all data.
    comm : mpi4py.MPI.Intracomm, optional
        The communicator; ``COMM_WORLD`` without it.
    blocks : int, optional
        The number of blocks, as in `value_and_grad`.

    Returns
    -------
    slice
        First and last row; it is empty where there are more processes than blocks.

    Raises
    ------
    ImportError
        mpi4py is not installed.

    Examples
    --------
    >>> from graphjit import distributed
    >>> distributed.rows(1000)  # in a program of one process
    slice(0, 1000, None)
    """
    comm = mpi().COMM_WORLD if comm is None else comm
    cuts = bounds(total, check_blocks(blocks))
    shares = bounds(len(cuts), comm.Get_size())
    rank = comm.Get_rank()
    if rank >= len(shares):
        return slice(total, total)
    first, last = shares[rank]
    return slice(cuts[first][0], cuts[last - 1][1])


class Failure:
    """Stands for a sum that there is not, because a rank raised an error."""

    def __init__(self, rank: int) -> None:
        self.rank = rank


@dataclass(frozen=True)
class Part:
    """A node of the tree: the rank that has its value, the blocks below it, and the value on that rank."""

    owner: int
    blocks: int
    value: Flat | Failure | None


class _Gradient:
    """One call on one rank."""

    def __init__(self, task: Task, program: Any, link: Channel, show: Show) -> None:
        self.task, self.program, self.link = task, program, link
        self.show = show if link.rank == 0 else False
        self.error: Exception | None = None
        self.sample: Flat | None = None
        self.sent: list[tuple[Any, Any]] = []

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result, or the error of any rank."""
        self.call = self._agree(args, kwargs)
        self.cuts = bounds(int(self.starts[-1]), self.task.blocks)
        self.owners = [self._rank_of(start) for start, _ in self.cuts]
        self._send_rows()
        with Progress(self.task.name, len(self.cuts), self.show) as self.progress:
            root = fold(len(self.cuts), self._leaf, self._join)
        self.link.wait([request for request, _ in self.sent], "other ranks to take their messages", self.sent)
        return self._tell_all(root)

    # -------------------------------------------------------------------------------------- the same call

    def _agree(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Take the arguments apart, and compare with all ranks.

        Raises:
            ShapeError: the calls differ, or there are no rows.
        """
        call = None
        lines: list[str] = []
        try:
            call = Call.of(self.task, args, kwargs)
            lines = call.description()
        except Exception as error:
            self.error = error
        digest = int.from_bytes(blake2b("\n".join(lines).encode(), digest_size=7).digest(), "big")
        table = self.link.table([self.error is not None, digest, call.rows if call else 0])
        if table[:, 0].any():
            self._raise_together(int(np.argmax(table[:, 0])))
        if (table[:, 1] != digest).any():  # where two ranks differ, every rank differs from one of them
            _raise_difference(self.link.texts("\n".join(lines)))
        self.starts = np.concatenate([[0], np.cumsum(table[:, 2])])
        require_rows(int(self.starts[-1]), f"distributed gradient of {self.task.name}")
        return cast(Call, call)

    def _raise_together(self, failed: int) -> None:
        """Raise the error of this rank, or one that repeats that of rank ``failed``."""
        text = "" if self.error is None else f"{type(self.error).__name__}: {self.error}"
        texts = self.link.texts(text)
        if self.error is not None:
            raise self.error
        raise RuntimeError(f"rank {failed} raised {texts[failed]}")

    # ---------------------------------------------------------------------------- rows that lie elsewhere

    def _rank_of(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _pieces(self, block: int) -> list[tuple[int, int, int]]:
        """The ranks that have rows of a block, with the first and last of these rows."""
        start, stop = self.cuts[block]
        return [
            (rank, max(start, int(self.starts[rank])), min(stop, int(self.starts[rank + 1])))
            for rank in range(self.owners[block], self._rank_of(stop - 1) + 1)
            if self.starts[rank + 1] > self.starts[rank]
        ]

    def _own(self, leaf: Any, start: int, stop: int) -> np.ndarray:
        """Rows that this rank has, counted over all ranks."""
        first = int(self.starts[self.link.rank])
        return np.ascontiguousarray(leaf[start - first : stop - first])

    def _send_rows(self) -> None:
        """Rows at the end or the beginning of this rank's that belong to the block of a lower rank."""
        for block, owner in enumerate(self.owners):
            for rank, start, stop in self._pieces(block):
                if rank == self.link.rank != owner:
                    for i in self.call.cut:
                        self._send(self._own(self.call.leaves[i], start, stop), owner, ROWS)

    def _send(self, array: np.ndarray, to: int, tag: int) -> None:
        self.sent.append((self.link.send(array, to, tag), array))

    def _rows(self, block: int) -> list[Any]:
        """The rows of a block of this rank, those of others received."""
        start, stop = self.cuts[block]
        pieces = self._pieces(block)
        leaves = [self.call.leaves[i] for i in self.call.cut]
        if len(pieces) == 1:
            return [self._own(leaf, start, stop) for leaf in leaves]
        parts = [np.empty((stop - start, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        for rank, first, last in pieces:
            for part, leaf in zip(parts, leaves, strict=True):
                place = part[first - start : last - start]
                if rank == self.link.rank:
                    place[...] = self._own(leaf, first, last)
                else:
                    self.link.receive(place, rank, ROWS, f"rows {first} to {last}")
        return parts

    # ------------------------------------------------------------------------------------------- the tree

    def _leaf(self, block: int) -> Part:
        """A block: computed, if it is of this rank."""
        owner = self.owners[block]
        if owner != self.link.rank:
            return Part(owner, 1, None)
        start, stop = self.cuts[block]
        parts = self._rows(block)
        weight = self.task.weight(stop - start, int(self.starts[-1]))
        value = self._tried(lambda: self.call.block(self.program, parts, weight), 1)
        return Part(owner, 1, value)

    def _join(self, left: Part, right: Part) -> Part:
        """The sum of two nodes, on the rank of the left one."""
        me, blocks = self.link.rank, left.blocks + right.blocks
        if left.owner != me:
            if right.owner == me:
                self._send_value(cast("Flat | Failure", right.value), left.owner)
            return Part(left.owner, blocks, None)
        mine, other = cast("Flat | Failure", left.value), right.value
        if right.owner != me:
            other = self._receive_value(mine, right)
        received = right.blocks if right.owner != me else 0
        if isinstance(mine, Failure) or isinstance(other, Failure):
            return Part(me, blocks, mine if isinstance(mine, Failure) else other)
        return Part(me, blocks, self._tried(lambda: summed(mine, cast(Flat, other), in_place=True), received))

    def _tried(self, step: Callable[[], Flat], done: int) -> Flat | Failure:
        """The value of a step, after which so many more blocks are done. After an error the rank goes on to
        exchange messages, but computes no more.
        """
        if self.error is None:
            try:
                value = self.sample = step()
                self.progress.advance(done)
                return value
            except Exception as error:
                self.error = error
        return Failure(self.link.rank)

    def _send_value(self, value: Flat | Failure, to: int) -> None:
        if isinstance(value, Failure):
            self._send(np.array([value.rank + 1, 0, 0], np.int64), to, HEADER)
        else:
            self._send(np.array([0, value.layout.nbytes, value.layout.checksum], np.int64), to, HEADER)
            self._send(value.data, to, PAYLOAD)

    def _receive_value(self, mine: Flat | Failure, part: Part) -> Flat | Failure:
        """What another rank sends. Another layout than ours is an error of this rank."""
        header = np.empty(3, np.int64)
        self.link.receive(header, part.owner, HEADER, f"the sum of {part.blocks} blocks")
        failed, nbytes, checksum = header.tolist()
        if failed:
            return Failure(failed - 1)
        data = np.empty(nbytes, np.uint8)
        self.link.receive(data, part.owner, PAYLOAD, f"the sum of {part.blocks} blocks")
        if isinstance(mine, Failure):
            return mine
        if checksum != mine.layout.checksum:
            self.error = self.error or ShapeError(UNLIKE)
            return Failure(self.link.rank)
        return Flat(data, mine.layout, mine.containers)

    # ----------------------------------------------------------------------------------------- the result

    def _tell_all(self, root: Part) -> Any:
        """The result of the first node, on all ranks. Who has computed no block does not know its containers:
        if there are such ranks, they are sent too.
        """
        link = self.link
        strangers = len(set(self.owners)) < link.size
        message = np.empty(0, np.uint8)
        header = np.zeros(2, np.int64)
        if root.owner == link.rank:
            if isinstance(root.value, Failure):
                header[0] = root.value.rank + 1
            else:
                flat = cast(Flat, root.value)
                message = np.frombuffer(pickle.dumps(flat), np.uint8).copy() if strangers else flat.data
            header[1] = len(message)
        link.broadcast(header, root.owner)
        if header[0]:
            self._raise_together(int(header[0]) - 1)
        if root.owner != link.rank:
            message = np.empty(int(header[1]), np.uint8)
        link.broadcast(message, root.owner)
        if strangers:
            return pickle.loads(message.tobytes()).tree()
        assert self.sample is not None, "a rank with a block has computed it"
        return Flat(message, self.sample.layout, self.sample.containers).tree()


def _raise_difference(texts: list[str]) -> None:
    """Raises: ShapeError: always; it names the first rank that called in another way, and what differs."""
    for rank, text in enumerate(texts):
        if text != texts[0]:
            here, there = texts[0].split("\n"), text.split("\n")
            width = max(len(here), len(there))
            here, there = (lines + ["nothing more"] * (width - len(lines)) for lines in (here, there))
            first = next(i for i in range(width) if here[i] != there[i])
            raise ShapeError(
                f"all ranks must make the same call, but rank 0 called with {here[first]} and rank {rank} with "
                f"{there[first]}"
            )
