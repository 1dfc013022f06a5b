"""Fit a model to more data than a worker of a cluster has memory for, and go on after accidents.

Input: files of measurements, each with a yes or no drawn from a known model: 600 MB for workers of 500 MB.
Output: the fit by L-BFGS (SciPy) and by AdamW (graphjit.optim), and what became of the accidents: a worker is
killed within a gradient, twice, and the program ends half way and is begun again from its checkpoint files.
AdamW must reach the parameters of a run without accidents, bit for bit.

Gradients come from `graphjit.dask.value_and_grad`: plain NumPy code, compiled once on each worker, blocks of
rows summed in a fixed order.

    pip install '.[examples,dask]' && python examples/beyond_one_machine.py
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from scipy.optimize import OptimizeResult, minimize
from tqdm import tqdm

import graphjit
from graphjit import optim

WORKERS = 2


@dataclass(frozen=True)
class Size:
    """How much is fitted: files, their rows, measurements a row, steps of AdamW; a worker's memory."""

    files: int = 24
    rows: int = 50_000
    features: int = 127
    steps: int = 36
    blocks: int = 24
    memory: str = "500MB"


def loss(params: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Any:
    """Mean logistic loss, and the share of rows on the wrong side."""
    logits = x @ params["w"] + params["b"]
    mistakes = np.mean(np.where(logits > 0, 1.0 - y, y))
    return np.mean(np.logaddexp(0.0, logits) - y * logits), mistakes


# ----------------------------------------------------------------------------------------------- the data


def write_file(path: Path, number: int, size: Size) -> None:
    """One file; the last column is the answer."""
    truth = np.random.default_rng(0).normal(size=size.features) / np.sqrt(size.features)
    rng = np.random.default_rng(number + 1)
    x = rng.normal(size=(size.rows, size.features)).astype(np.float32)
    yes = rng.random(size.rows) < 1.0 / (1.0 + np.exp(-4.0 * (x @ truth) - 0.5))
    np.save(path, np.column_stack([x, yes.astype(np.float32)]))


def data(folder: Path, size: Size) -> tuple[Any, Any]:
    """All files as one dask array, taken apart into measurements and answers; nothing is read yet."""
    load = dask.delayed(np.load, pure=True)
    shape = (size.rows, size.features + 1)
    files = [da.from_delayed(load(folder / f"{i}.npy"), shape, np.float32) for i in range(size.files)]
    table = da.concatenate(files)
    return table[:, :-1], table[:, -1]


@contextmanager
def cluster(size: Size) -> Iterator[Client]:
    """Workers whose memory is bounded; on a real cluster this is `Client("tcp://scheduler:8786")`."""
    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            memory_limit=size.memory,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,  # workers that are killed are reported by those that miss them
        ) as local,
        Client(local) as client,
    ):
        client.run(graphjit.set_num_threads, max(1, (os.cpu_count() or 1) // WORKERS))
        yield client


class Accident:
    """Told of each block that is done, it kills a worker when the time has come."""

    def __init__(self, client: Client, block: int) -> None:
        self.victim = next(iter(client.run(os.getpid).values()))
        self.left = block
        self.happened = False

    def __call__(self, done: int, blocks: int) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(self.victim, signal.SIGKILL)
            self.happened = True


# -------------------------------------------------------------------------------------------- checkpoints


def save(path: Path, state: Any) -> None:
    """Write a checkpoint, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(pickle.dumps(state))
    os.replace(fresh, path)


def saved(path: Path, otherwise: Any) -> Any:
    """The checkpoint, if there is one."""
    return pickle.loads(path.read_bytes()) if path.exists() else otherwise


# ---------------------------------------------------------------------------------------- the two methods


def start(size: Size) -> dict[str, np.ndarray]:
    return {"w": np.zeros(size.features), "b": np.zeros(())}


def lbfgs(
    client: Client, size: Size, folder: Path, iterations: int, progress: Any, checkpoint: Path
) -> OptimizeResult:
    """L-BFGS over all rows, from the checkpoint on if there is one."""
    x, y = data(folder, size)
    gradient = graphjit.dask.value_and_grad(loss, client, has_aux=True, blocks=size.blocks, progress=progress)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        (found, _), slope = gradient({"w": flat[:-1], "b": flat[-1]}, x, y)
        return float(found), np.append(slope["w"], slope["b"])

    def each(intermediate_result: OptimizeResult) -> None:
        save(checkpoint, intermediate_result.x)

    first = saved(checkpoint, np.zeros(size.features + 1))
    options = {"maxiter": iterations, "gtol": 1e-6}
    return minimize(value, first, jac=True, method="L-BFGS-B", callback=each, options=options)


def adamw(
    client: Client, size: Size, folder: Path, progress: Any, checkpoint: Path, until: int, bar: str | None
) -> dict[str, np.ndarray]:
    """AdamW over batches of a sixth of the rows, from the checkpoint on if there is one."""
    x, y = data(folder, size)
    gradient = graphjit.dask.value_and_grad(loss, client, has_aux=True, blocks=4, progress=progress)
    method = optim.adamw(0.05, weight_decay=1e-3)
    params = start(size)
    done, params, state = saved(checkpoint, (0, params, method.init(params)))
    batch = len(x) // 6
    steps = tqdm(range(done, until), initial=done, total=size.steps, desc=bar, disable=bar is None)
    for step in steps:
        first = step % 6 * batch
        (value, mistakes), slope = gradient(params, x[first : first + batch], y[first : first + batch])
        updates, state = method.update(slope, state, params)
        params = optim.apply_updates(params, updates)
        save(checkpoint, (step + 1, params, state))
        steps.set_postfix(loss=f"{value:.4f}", wrong=f"{mistakes:.1%}")
    return params


def fit_both(size: Size, folder: Path, quiet: bool) -> dict[str, Any]:
    """Both methods, with the accidents, and AdamW once more without."""
    found: dict[str, Any] = {}
    show = not quiet
    bars: Callable[[str], str | None] = lambda name: None if quiet else name
    half = size.steps // 2
    with cluster(size) as client:
        begin = time.perf_counter()
        accident = Accident(client, size.blocks * 5 // 2)  # within the third gradient
        lbfgs(client, size, folder, 4, accident, folder / "lbfgs")
        found["killed"] = accident.happened
        adamw(client, size, folder, show, folder / "adamw", half, bars("AdamW"))
        found["first_seconds"] = time.perf_counter() - begin
    # Here the program has ended. Another one goes on, on a new cluster.
    with cluster(size) as client:
        result = lbfgs(client, size, folder, 40, show, folder / "lbfgs")
        killed_again = Accident(client, 10)
        params = adamw(client, size, folder, killed_again, folder / "adamw", size.steps, bars("resumed"))
        calm = adamw(client, size, folder, show, folder / "calm", size.steps, bars("undisturbed"))
        check = graphjit.dask.value_and_grad(loss, client, has_aux=True, blocks=size.blocks, progress=show)
        (value, mistakes), _ = check(params, *data(folder, size))
        (_, best), _ = check({"w": result.x[:-1], "b": result.x[-1]}, *data(folder, size))
    found |= {
        "killed_again": killed_again.happened,
        "same_bits": all(np.array_equal(params[name], calm[name]) for name in calm),
        "lbfgs_loss": float(result.fun),
        "lbfgs_mistakes": float(best),
        "gradient": float(np.max(np.abs(result.jac))),
        "adamw_loss": float(value),
        "adamw_mistakes": float(mistakes),
    }
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little data, which would fit in memory")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    size = Size(files=6, rows=1000, features=15, steps=12, blocks=6) if options.quick else Size()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in tqdm(range(size.files), desc="files", disable=options.no_progress):
            write_file(folder / f"{i}.npy", i, size)
        total = sum(path.stat().st_size for path in folder.glob("*.npy"))
        found = {"bytes": total, **fit_both(size, folder, options.no_progress)}
    print(f"data           {total / 1e6:.0f} MB in {size.files} files, {WORKERS} workers of {size.memory}")
    print(
        f"L-BFGS         loss {found['lbfgs_loss']:.5f}, {found['lbfgs_mistakes']:.2%} wrong, "
        f"largest slope {found['gradient']:.1e}"
    )
    print(f"AdamW          loss {found['adamw_loss']:.5f}, {found['adamw_mistakes']:.2%} wrong")
    print(f"workers killed {found['killed'] + found['killed_again']}, each within a gradient")
    same = "the same bits as" if found["same_bits"] else "NOT the same as"
    print(f"resumed        AdamW gives {same} a run without accidents")
    return found


if __name__ == "__main__":
    main()
