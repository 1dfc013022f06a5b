"""One workload under several libraries: prepared, checked against graphjit, raced.

Input: a workload, a dtype, the peers. Output: samples by peer, and for each peer that was not timed the
reason.
Invariant: nothing is timed whose result differs from graphjit's, and no peer's failure ends the run.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.agreement import disagreement, leaves
from benchmarks.peers import Peer, Prepared
from benchmarks.timing import Contestant, Samples, cores_used, race
from benchmarks.workload import Pytree, Workload
from graphjit import pipeline

SEED = 1


@dataclass
class Outcome:
    """`moved_bytes` are those of all arguments and results; `cores` those that graphjit kept busy, `arena`
    what it plans for temporary values; `absent` names peers for which the workload is not written, `refused`
    those that failed or disagreed, with reasons.
    """

    samples: dict[str, Samples] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    moved_bytes: int = 0
    cores: float = 0.0
    arena: int | None = None


def contest(
    workload: Workload,
    dtype: str,
    peers: Mapping[str, Peer],
    budget: float,
    extra: Sequence[Contestant] = (),
    patience: float = 600.0,
) -> Outcome:
    """Race graphjit and all other `peers` on one workload after checking them.

    A peer may take `patience` seconds for its first call, compilation included. Without graphjit among the
    samples of the outcome there was nothing to compare with, and nothing was timed.
    """
    outcome = Outcome()
    arguments = workload.inputs(SEED, dtype)
    try:
        ours, expected = _first(peers["graphjit"], workload, arguments, patience)
    except Exception as error:
        outcome.refused["graphjit"] = reason(error)
        return outcome
    outcome.moved_bytes = sum(leaf.nbytes for leaf in leaves((arguments, expected)))
    outcome.arena = planned(ours)
    contestants = [Contestant("graphjit", ours.fn, ours.arguments, ours.wait), *extra]
    for name, peer in peers.items():
        if name == "graphjit":
            continue
        if name in workload.absent:
            outcome.absent[name] = workload.absent[name]
            continue
        try:
            prepared, result = _first(peer, workload, arguments, patience)
            wanted = (
                expected if peer.derivative else forward(peers["graphjit"], workload, arguments, expected)
            )
            difference = disagreement(wanted, result, workload.tolerance(dtype))
        except LookupError as error:
            outcome.absent[name] = reason(error)
        except Exception as error:
            outcome.refused[name] = reason(error)
        else:
            if difference:
                outcome.refused[name] = difference
            else:
                contestants.append(Contestant(name, prepared.fn, prepared.arguments, prepared.wait))
    outcome.samples = race(contestants, budget)
    outcome.cores = cores_used(contestants[0])
    return outcome


def forward(graphjit: Peer, workload: Workload, arguments: tuple[Pytree, ...], result: Pytree) -> Pytree:
    """What the function itself returns, under graphjit: from its `result`, or computed where it is not in
    there.
    """
    value = workload.forward_value(result)
    if value is not None:
        return value
    plain = replace(
        workload, transform="jit", inputs=lambda seed, dtype: workload.forward_arguments(arguments)
    )
    prepared = graphjit.prepare(plain, workload.forward_arguments(arguments))
    return prepared.fn(*prepared.arguments)


def planned(prepared: Prepared) -> int | None:
    """Bytes of temporary storage in the plan of a compiled function of graphjit's; None of anything else."""
    dispatcher = getattr(prepared.fn, "dispatcher", None)
    if dispatcher is None:
        return None
    graph = pipeline.optimize(dispatcher.staged(*prepared.arguments).graph)
    return pipeline.schedule(graph)[1].arena


def _first(peer: Peer, workload: Workload, arguments: tuple[Pytree, ...], patience: float) -> tuple[Any, Any]:
    """The prepared call and its first result."""
    with limited(patience), warnings.catch_warnings():
        # What libraries warn of while they compile is theirs to say elsewhere.
        warnings.simplefilter("ignore")
        prepared = peer.prepare(workload, arguments)
        result = prepared.fn(*prepared.arguments)
        prepared.wait(result)
    return prepared, result


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError after `seconds` in here, where signals allow it; code that never comes back to Python is
    not stopped.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def reason(error: BaseException) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())
    if isinstance(error, LookupError) and not isinstance(error, KeyError | IndexError):
        return text
    return f"{type(error).__name__}: {text}"[:200]
