"""Gradients over dask: the bits of MPI and of one process, for any workers, chunks and deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import HUNG
from processes.model import arguments, digest, loss, total

import graphjit
from graphjit.dask import worker

dask = pytest.importorskip("dask", reason="the dask extra brings it")
pytest.importorskip("mpi4py", reason="bits are compared with those of the mpi extra")
distributed = pytest.importorskip("distributed", reason="the dask extra brings it")
da = pytest.importorskip("dask.array", reason="the dask extra brings it")

ROWS = 203


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """What dask never answers is an error after a long time, where the test waits. Nothing has to be quick:
    workers that begin on a busy machine are waited for as long.
    """

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"no answer in {HUNG} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HUNG)
    with dask.config.set({"distributed.comm.timeouts.connect": HUNG}):
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def expected() -> str:
    """The digest of one process."""
    made = graphjit.distributed.value_and_grad(loss, has_aux=True)
    return digest(made(*arguments(ROWS)))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers in threads of this process."""
    with distributed.Client(processes=False, n_workers=2, dashboard_address=":0") as made:
        yield made


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Any]]:
    """Makes a cluster of processes."""
    monkeypatch.setenv("GRAPHJIT_VERIFY", "0")  # workers read it; verification is for compilations here
    monkeypatch.setenv("GRAPHJIT_NUM_THREADS", "1")
    made: list[Any] = []

    def cluster(workers: int) -> Any:
        made.append(distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0"))
        made.append(distributed.Client(made[-1]))
        return made[-1]

    yield cluster
    for thing in reversed(made):
        thing.close()


def programs() -> list[int]:
    """On a worker: for how many signatures each program was compiled."""
    return [len(value[1].dispatcher.known) for value in worker._loaded.values()]


def data(rows: int, chunks: tuple[int, int] = (17, 50)) -> tuple[Any, Any, Any]:
    params, x, y = arguments(rows)
    return params, da.from_array(x, chunks=(chunks[0], -1)), da.from_array(y, chunks=chunks[1])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_bits(
    workers: int, expected: str, start: Callable[[int], Any]
) -> None:
    client = start(workers)
    made = graphjit.dask.value_and_grad(loss, client, has_aux=True)
    assert digest(made(*data(ROWS))) == expected
    assert digest(made(*data(ROWS, (203, 203)))) == expected


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(expected: str, start: Callable[[int], Any]) -> None:
    client = start(2)
    victims = list(client.run(os.getpid).values())[:1]
    params, x, y = data(ROWS)

    def kills(done: int, blocks: int) -> None:
        if done == 3 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    made = graphjit.dask.value_and_grad(loss, client, has_aux=True, progress=kills)
    held = x.persist()
    assert digest(made(params, held, y)) == expected
    assert not victims
    assert digest(made(params, held, y)) == expected
    assert digest(made(params, x, y)) == expected
    for compiled in client.run(programs).values():
        assert compiled in ([], [1], [2])  # two shapes of blocks, however often it was called


def test_chunks_partitions_and_arrays_give_the_same_bits(expected: str, client: Any) -> None:
    made = graphjit.dask.value_and_grad(loss, client, has_aux=True)
    params, x, y = arguments(ROWS)
    partitions = [dask.delayed(np.array)(x[i : i + 30]) for i in range(0, ROWS, 30)]
    columns_first = da.from_array(np.asfortranarray(x), chunks=(40, 2))
    for rows in (x, partitions, tuple(partitions), columns_first):
        for targets in (y, da.from_array(y, chunks=ROWS)):
            assert digest(made(params, rows, targets)) == expected


def test_sums_keywords_and_values_passed_whole(client: Any) -> None:
    params, x, y = data(ROWS)
    options: dict[str, Any] = {"reduction": "sum", "blocks": 5}
    ours = graphjit.dask.value_and_grad(total, client, in_axes=(None, 0, 0, None), **options)(
        params, x, y, 2.0
    )
    theirs = graphjit.dask.value_and_grad(total, client, **options)(params, x, y, power=2.0)
    single = graphjit.distributed.value_and_grad(total, **options)(*arguments(ROWS), power=2.0)
    assert digest(ours) == digest(theirs) == digest(single)


def test_fewer_rows_than_blocks(client: Any) -> None:
    made = graphjit.dask.value_and_grad(loss, client, has_aux=True)
    single = graphjit.distributed.value_and_grad(loss, has_aux=True)
    assert digest(made(*data(3))) == digest(single(*arguments(3)))


def test_decorated_and_with_the_last_client(client: Any) -> None:
    assert client is distributed.default_client()

    @graphjit.dask.value_and_grad(argnums=(0, 1), blocks=2)
    def fit(a: Any, b: Any, x: Any) -> Any:
        return np.mean(a * x + b)

    value, (da_, db) = fit(2.0, 1.0, da.arange(4.0, chunks=3))
    assert (fit.__name__, value, da_, db) == ("fit", 4.0, 1.5, 1.0)


def test_what_a_function_reads_from_outside_is_never_stale(client: Any) -> None:
    factor, shift = 2.0, np.zeros(2)

    def scaled(w: Any, x: Any) -> Any:
        return factor * np.mean(x @ (w + shift))

    def compiled() -> int:
        return len(set(worker._loaded) - known)

    known = set(worker._loaded)
    made = graphjit.dask.value_and_grad(scaled, client)
    given = np.ones(2), da.ones((4, 2), chunks=2)
    assert [made(*given)[0], made(*given)[0], compiled()] == [4.0, 4.0, 1]
    factor = 3.0
    assert [made(*given)[0], made(*given)[0], compiled()] == [6.0, 6.0, 2]
    shift[0] = 1.0
    assert [made(*given)[0], made(*given)[0], compiled()] == [9.0, 9.0, 3]


def test_progress_counts_blocks(client: Any) -> None:
    seen: list[tuple[int, int]] = []
    made = graphjit.dask.value_and_grad(
        loss, client, has_aux=True, blocks=3, progress=lambda done, blocks: seen.append((done, blocks))
    )
    made(*data(ROWS))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_tasks_are_tried_again(expected: str, client: Any, tmp_path: Path) -> None:
    mark = tmp_path / "failed before"

    def loads(x: Any) -> Any:
        if not mark.exists():
            mark.touch()
            raise OSError("the disk is away")
        return x

    params, x, y = data(ROWS)
    made = graphjit.dask.value_and_grad
    assert (
        digest(made(loss, client, has_aux=True, retries=1)(params, x.map_blocks(loads, meta=x._meta), y))
        == expected
    )
    mark.unlink()
    with pytest.raises(OSError, match="the disk is away"):
        made(loss, client, has_aux=True)(params, x.map_blocks(loads, meta=x._meta), y)


def wrong(client: Any, x: Any = None, y: Any = None, params: Any = None, fun: Any = loss) -> Any:
    others = data(20)
    given = [other if own is None else own for own, other in zip((params, x, y), others)]
    return graphjit.dask.value_and_grad(fun, client, has_aux=True)(*given)


def test_errors(client: Any) -> None:
    unknown = da.ones(20, chunks=5)
    unknown = unknown[unknown > 0]
    _, x, y = data(20)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"x": x[:0], "y": y[:0]}, graphjit.ShapeError, "no rows at all"),
        ({"y": y[1:]}, graphjit.ShapeError, r"args\[1\] has 20 rows and args\[2\] has 19"),
        ({"y": unknown}, graphjit.ShapeError, "compute_chunk_sizes"),
        ({"y": [1.0] * 20}, TypeError, "is of type float"),
        ({"y": [dask.delayed(list)(range(20))]}, TypeError, "a delayed partition gave list"),
        (
            {"y": [dask.delayed(np.ones)(10), dask.delayed(np.ones)((10, 1))]},
            graphjit.ShapeError,
            "different",
        ),
        ({"params": {"w": x}}, TypeError, r"args\[0\]\['w'\] is a dask array that every block needs whole"),
        ({"fun": lambda p, x, y: (np.mean(x), x[:, 0])}, graphjit.ShapeError, "number of rows"),
        ({"fun": lambda p, x, y: (x, 0.0)}, graphjit.DerivativeError, "."),
    ]
    for options, error, text in cases:
        with pytest.raises(error, match=text):
            wrong(client, **options)


@pytest.mark.parametrize("missing", ["dask.array", "distributed"])
def test_without_dask_the_error_names_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'graphjit\[dask\]'"):
        graphjit.dask.value_and_grad(loss)


def test_importing_the_module_loads_no_dask() -> None:
    code = "import sys, graphjit.dask; sys.exit('dask' in sys.modules or 'distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
