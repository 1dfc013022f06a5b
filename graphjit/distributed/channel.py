"""What the processes of an MPI communicator tell each other, with an end to waiting.

Input: buffers. Output: buffers of other ranks.
Invariants: nothing blocks: every wait looks at the clock, and Ctrl-C ends it. Messages cannot be mistaken for
those of the user: they go over a duplicate of the communicator, made once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

ROWS, HEADER, PAYLOAD = 1, 2, 3
"""Tags."""

SPIN, LONGEST_NAP = 2e-4, 1e-3
"""Seconds of looking without pause, and the longest pause after that: a rank that computes on the same core
gets its time.
"""

_abandoned: list[Any] = []
"""Buffers of messages that nobody came for: MPI may still write into them."""


def mpi() -> Any:
    """mpi4py's MPI, loaded on first use.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"graphjit.distributed needs mpi4py and an MPI library ({error}): pip install 'graphjit[mpi]'"
        ) from error
    return MPI


class Channel:
    """A communicator of our own, and for how long to wait."""

    def __init__(self, comm: Any, timeout: float | None) -> None:
        self.comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.timeout = timeout

    def wait(self, requests: Sequence[Any], what: str, *buffers: Any) -> None:
        """Until all requests are done.

        Raises:
            TimeoutError: that took longer than ``timeout`` seconds.
        """
        requests = list(requests)
        begin = time.monotonic()
        nap = 0.0
        while not mpi().Request.Testall(requests):
            waited = time.monotonic() - begin
            if self.timeout is not None and waited > self.timeout:
                _abandoned.append((requests, buffers))
                _broken.add(self.comm.handle)
                raise TimeoutError(
                    f"rank {self.rank} of {self.size} waited {self.timeout:g} s for {what}: a process died, "
                    "made fewer calls, or needs more than timeout= seconds. The processes no longer agree, so "
                    "this communicator is of no more use: end the program (mpiexec ... python -m mpi4py "
                    "SCRIPT ends all of its processes then) and begin again from a checkpoint"
                )
            if waited > SPIN:
                nap = min(LONGEST_NAP, 2 * nap or 2e-5)
                time.sleep(nap)

    def table(self, row: Sequence[int]) -> np.ndarray:
        """A row of integers of every rank."""
        mine = np.array(row, np.int64)
        all_rows = np.empty((self.size, len(mine)), np.int64)
        self.wait([self.comm.Iallgather(mine, all_rows)], "all ranks to begin the call", mine, all_rows)
        return all_rows

    def texts(self, text: str) -> list[str]:
        """A text of every rank."""
        data = text.encode()
        longest = int(self.table([len(data)]).max())
        mine = np.zeros(longest + 1, np.uint8)
        mine[: len(data)] = np.frombuffer(data, np.uint8)
        everyone = np.empty((self.size, longest + 1), np.uint8)
        self.wait([self.comm.Iallgather(mine, everyone)], "all ranks to report", mine, everyone)
        return [row.tobytes().rstrip(b"\0").decode() for row in everyone]

    def send(self, array: np.ndarray, to: int, tag: int) -> Any:
        """A request that is done when ``array``, which must stay until then, was sent."""
        return self.comm.Isend([as_bytes(array), mpi().BYTE], dest=to, tag=tag)

    def receive(self, array: np.ndarray, source: int, tag: int, what: str) -> None:
        """Fill ``array`` with what ``source`` sent."""
        request = self.comm.Irecv([as_bytes(array), mpi().BYTE], source=source, tag=tag)
        self.wait([request], f"{what} of rank {source}", array)

    def broadcast(self, array: np.ndarray, root: int) -> None:
        """Fill ``array`` with that of ``root``."""
        request = self.comm.Ibcast([as_bytes(array), mpi().BYTE], root=root)
        self.wait([request], f"the result of rank {root}", array)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8)


_broken: set[int] = set()
"""Communicators on which a wait ran out."""

_key: list[int] = []
"""Under what a communicator keeps its duplicate: one number, once it is known."""


def channel(comm: Any, timeout: float | None) -> Channel:
    """The channel of a communicator, `COMM_WORLD` if it is None. The first call is one of all its processes.

    Raises:
        TypeError: it is no communicator.
        RuntimeError: a wait on it ran out before.
    """
    library = mpi()
    comm = library.COMM_WORLD if comm is None else comm
    if not isinstance(comm, library.Intracomm):
        raise TypeError(f"comm must be a communicator of mpi4py, not {type(comm).__name__}")
    if not _key:
        _key.append(library.Comm.Create_keyval(delete_fn=_freed))
    own = comm.Get_attr(_key[0])
    if (comm if own is None else own).handle in _broken:
        raise RuntimeError(
            "an earlier call on this communicator ran out of time: begin again from a checkpoint"
        )
    if own is None:
        own, request = comm.Idup()
        Channel(comm, timeout).wait([request], "all ranks to make their first call", own)
        comm.Set_attr(_key[0], own)
    return Channel(own, timeout)


def _freed(_comm: Any, _key: int, own: Any) -> None:
    """The user freed a communicator: its duplicate goes with it."""
    if not mpi().Is_finalized():
        _broken.discard(own.handle)
        own.Free()
