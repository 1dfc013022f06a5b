"""What each process of ``mpiexec -n N python -m mpi4py program.py SCENARIO FOLDER`` runs: each writes a
file of JSON into the folder.

The model and the data are those of the tests over dask too (`model`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphjit import distributed
from processes.model import arguments, digest, loss, total

ROWS = 203


def own_rows(rank: int, size: int, way: str) -> slice:
    """Which rows a rank brings: whole blocks, some that no block fits, or all of them on the last rank."""
    if way == "blocks":
        return distributed.rows(ROWS)
    if way == "last":
        return slice(0, ROWS) if rank == size - 1 else slice(0, 0)
    cuts = [0, *sorted(np.random.default_rng(size).integers(0, ROWS, size - 1).tolist()), ROWS]
    return slice(cuts[rank], cuts[rank + 1])


def bits(rank: int, size: int) -> dict[str, str]:
    """Digests of gradients: of means and sums, of any way that rows lie, of fewer rows than blocks."""
    params, x, y = arguments(ROWS)
    mean = distributed.value_and_grad(loss, has_aux=True)
    found = {}
    for way in ("blocks", "anyhow", "last"):
        own = own_rows(rank, size, way)
        found[f"mean {way}"] = digest(mean(params, x[own], y[own]))
    own = own_rows(rank, size, "anyhow")
    found["columns first"] = digest(mean(params, np.asfortranarray(x[own]), y[own]))
    summing = distributed.value_and_grad(total, reduction="sum", blocks=5, in_axes=(None, 0, 0, None))
    found["sum"] = digest(summing(params, x[own], y[own], 2.0))
    few = slice(0, 1) if rank == 0 else slice(1, 3) if rank == size - 1 else slice(0, 0)
    if size > 1:
        found["three rows"] = digest(mean(params, x[few], y[few]))
    else:
        found["three rows"] = digest(mean(params, x[:3], y[:3]))
    return found


def raised(call: Callable[[], Any]) -> str:
    """Class and text of the error of a call."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def errors(rank: int, size: int) -> dict[str, str]:
    """Errors that all ranks must raise, after each of which the ranks go on."""
    params, x, y = arguments(ROWS)
    own = distributed.rows(ROWS)
    x, y = x[own], y[own]
    make = distributed.value_and_grad

    def fails_on_last(p: Any, x: Any, y: Any) -> Any:
        if rank == size - 1:
            raise KeyError("my own")
        return loss(p, x, y)[0]

    def shows(done: int, blocks: int) -> None:
        raise ValueError("cannot show")

    found = {
        "blocks": raised(lambda: make(loss, has_aux=True, blocks=8 + rank)(params, x, y)),
        "structure": raised(lambda: make(loss, has_aux=True)(params, x, (y, y) if rank else y)),
        "dtype": raised(lambda: make(loss, has_aux=True)(params, x.astype(np.float32) if rank else x, y)),
        "no rows": raised(lambda: make(loss, has_aux=True)(params, x[:0], y[:0])),
        "no array": raised(lambda: make(loss, has_aux=True)(params, x, y.tolist() if rank else y)),
        "lengths": raised(lambda: make(loss, has_aux=True)(params, x, y[1:])),
        "own": raised(lambda: make(fails_on_last)(params, x, y)),
        "rows in aux": raised(
            lambda: make(lambda p, x, y: (loss(p, x, y)[0], x[:, 0]), has_aux=True, blocks=2)(params, x, y)
        ),
        "progress": raised(lambda: make(loss, has_aux=True, progress=shows)(params, x, y)),
    }
    return found | {"after": digest(make(loss, has_aux=True)(params, x, y))}


def frozen(rank: int, size: int) -> dict[str, str]:
    """The last rank freezes within its first block. (One that ends is noticed by mpiexec, which ends all.)

    A call before has compiled everything, so that slow machines take as long as others. The last rank waits
    for ever: it may come to the call first, and must not give up before it freezes.
    """
    params, x, y = arguments(ROWS)
    own = distributed.rows(ROWS)
    last, stops = rank == size - 1, False

    def freezes(p: Any, x: Any, y: Any) -> Any:
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        return loss(p, x, y)[0]

    distributed.value_and_grad(freezes)(params, x[own], y[own])
    stops = last
    made = distributed.value_and_grad(freezes, timeout=None if last else 1.0)
    return silent(lambda: made(params, x[own], y[own]))


def absent(rank: int, size: int) -> dict[str, str]:
    """The last rank does something else for a long time."""
    params, x, y = arguments(ROWS)
    own = distributed.rows(ROWS)
    if rank == size - 1:
        time.sleep(600)
    return silent(lambda: distributed.value_and_grad(loss, has_aux=True, timeout=1.0)(params, x[own], y[own]))


def silent(call: Callable[[], Any]) -> dict[str, str]:
    """The errors of a call and of the next one, and how long the first one took."""
    begin = time.monotonic()
    first = raised(call)
    return {"error": first, "seconds": f"{time.monotonic() - begin:.1f}", "again": raised(call)}


if __name__ == "__main__":
    from mpi4py import MPI

    rank, size = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
    found = globals()[sys.argv[1]](rank, size)
    (Path(sys.argv[2]) / f"{rank}.json").write_text(json.dumps(found))
    if sys.argv[1] in ("frozen", "absent"):  # MPI would wait for the others at the end
        MPI.COMM_WORLD.Abort(3)
