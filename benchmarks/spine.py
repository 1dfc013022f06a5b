"""The figures by which graphjit's spine is judged, in one table: `python -m benchmarks.spine`.

Input: options (`--help`). Output: the table, with `--json FILE` raw samples too; the exit status is 1 when a
target is missed or a measurement fails. Invariant: a library is timed only after its value and gradient
agreed with graphjit's, and every ratio compares figures of one run. Each section stands for some rows of the
table and can be run alone (`--filter`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import graphjit
from benchmarks import contest as contests
from benchmarks import first_call
from benchmarks.contest import SEED
from benchmarks.peers import Peer, available
from benchmarks.reporting.report import Row, duration, machine, print_table, write_json
from benchmarks.timing import Contestant, Samples
from benchmarks.workload import Namespace
from benchmarks.workloads import WORKLOADS, suite

ROOT = Path(__file__).resolve().parents[1]
OP_MATRIX_TESTS = (
    "tests/ir/test_ops.py",
    "tests/derivatives/test_derivatives.py",
    "tests/backend/test_backend.py",
    "tests/backend/test_numba_backend.py",
)
PEERS = ("graphjit", "numpy", "autograd", "jax", "torch", "native")
TOLERANCE = 1e-10


@dataclass
class Session:
    """What a section needs to know: the peers that are there, how long to measure, where to say what
    happens.
    """

    peers: dict[str, Peer]
    quick: bool
    console: Console
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def budget(self) -> float:
        return 0.5 if self.quick else 4.0

    def processes(self, full: int) -> int:
        return 1 if self.quick else full


def contest(
    session: Session, name: str, dtype: str, names: tuple[str, ...], extra: tuple[Contestant, ...] = ()
):
    """Samples of graphjit and of those of the peers `names` that agree with it, and why the others were
    refused.
    """
    peers = {peer: session.peers[peer] for peer in ("graphjit", *names) if peer in session.peers}
    outcome = contests.contest(WORKLOADS[name], dtype, peers, session.budget, extra)
    if "graphjit" in outcome.refused:
        raise RuntimeError(outcome.refused["graphjit"])
    return outcome.samples, outcome.refused | outcome.absent


def compared(
    what: str,
    samples: dict[str, Samples],
    refused: dict[str, str],
    against: tuple[str, ...],
    limit: float | None,
) -> Row:
    """Our median over the best of `against`, held to `limit`."""
    ours = samples["graphjit"]
    rivals = {name: samples[name] for name in against if name in samples}
    others = [f"{name} {duration(s.median)}" for name, s in samples.items() if name != "graphjit"]
    others += [f"{name}: {reason}" for name, reason in refused.items()]
    row = Row(
        what,
        duration(ours.median),
        ", ".join(others),
        noise=" ".join(f"{s.spread:.0%}" for s in samples.values()),
        raw={name: s.seconds for name, s in samples.items()} | {"refused": refused},
    )
    if limit is not None:
        row.target = f"<= {limit:g}x {' or '.join(against)}"
    if rivals:
        best = min(rivals, key=lambda name: rivals[name].median)
        ratio = ours.median / rivals[best].median
        row.ratio = f"{ratio:.3g}x {best}"
        # A peer that disagrees is not a peer that was beaten.
        row.met = None if limit is None else ratio <= limit and not set(refused) & set(against)
    return row


def call_overhead(session: Session) -> Iterator[Row]:
    vector = WORKLOADS["vector8"].inputs(SEED, "float64")[0]
    scaled = Contestant("x * 2.0", None, (vector,), lambda result: None, "a0 * 2.0")
    samples, refused = contest(session, "vector8", "float64", ("jax", "torch", "autograd"), (scaled,))
    yield compared("call, gradient of an 8-vector", samples, refused, ("x * 2.0",), 1.0)
    yield compared("call, gradient of an 8-vector", samples, refused, ("jax",), 0.1)
    samples, refused = contest(session, "pytree6", "float64", ("jax", "torch", "autograd"))
    yield compared("call, dict of lists of 6 arrays", samples, refused, ("jax",), 0.25)


def first_calls(session: Session) -> Iterator[Row]:
    ratios = []
    for name in ("mlp_784_128_10", "mlp_16_32_32_4", "mlp_2_3_1", "black_scholes_1e3", "log_sum_exp_512x200"):
        seconds: dict[str, list[float]] = {}
        results: dict[str, dict[str, Any]] = {}
        with tempfile.TemporaryDirectory() as library:
            turns = [
                peer
                for _ in range(session.processes(5))
                for peer in ("graphjit", "jax")
                if peer in session.peers
            ]
            first_call.in_fresh_process(
                "graphjit", WORKLOADS[name], "float64", library
            )  # compiles graphjit's own library
            for peer in turns:
                results[peer] = first_call.in_fresh_process(peer, WORKLOADS[name], "float64", library)
                seconds.setdefault(peer, []).append(results[peer]["first"])
        refused = {}
        if "jax" in results and not first_call.same(results["graphjit"], results["jax"], TOLERANCE):
            refused["jax"] = "differs from graphjit"
        row = compared(
            f"first call, {name}",
            {peer: Samples(times) for peer, times in seconds.items()},
            refused,
            ("jax",),
            None,
        )
        if "jax" in seconds:
            ratios.append(statistics.median(seconds["graphjit"]) / statistics.median(seconds["jax"]))
        yield row
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        yield Row("first call, geometric mean", "", "", f"{mean:.3g}x jax", "<= 0.5x jax", mean <= 0.5)


def kernels(session: Session) -> Iterator[Row]:
    everyone = ("jax", "torch", "autograd", "native")
    samples, refused = contest(session, "black_scholes_1e6", "float64", everyone)
    yield compared("Black-Scholes + 5 gradients, 1e6 rows", samples, refused, ("jax",), 0.3)
    for dtype in WORKLOADS["mlp_784_128_10"].dtypes:
        samples, refused = contest(session, "mlp_784_128_10", dtype, ("jax", "torch", "autograd"))
        yield compared(f"MLP 784-128-10, batch 256, {dtype}", samples, refused, ("jax", "torch"), 1.1)


def beside_native(session: Session) -> Iterator[Row]:
    """No target yet: how far each workload is from hand-written C."""
    if "native" not in session.peers:
        return
    for workload in suite("spine"):
        if workload.native and workload.family != "black_scholes":
            samples, refused = contest(session, workload.name, "float64", ("jax", "native"))
            yield compared(f"beside C: {workload.name}", samples, refused, ("native",), None)


def python_loop(session: Session) -> Iterator[Row]:
    short, long = (
        ("python_loop_1e3", "python_loop_1e4") if session.quick else ("python_loop_1e4", "python_loop_1e5")
    )
    seconds = {}
    for name in (short, long):
        runs = [
            first_call.in_fresh_process("graphjit", WORKLOADS[name], "float64")["first"]
            for _ in range(session.processes(3))
        ]
        seconds[name] = Samples(runs)
    growth = seconds[long].median / seconds[short].median
    yield Row(
        f"Python loop, {long[-3:]} operations: trace to gradient",
        duration(seconds[long].median),
        f"{short[-3:]} operations {duration(seconds[short].median)}",
        f"{growth:.3g}x for 10x",
        "<= 12x, <= 60 s",
        growth <= 12.0 and seconds[long].median <= 60.0,
        " ".join(f"{s.spread:.0%}" for s in seconds.values()),
        {name: s.seconds for name, s in seconds.items()},
    )


def eliminated(a: Any) -> Any:
    """Gaussian elimination, element by element."""
    a, n = a.copy(), len(a)
    for k in range(n):
        for i in range(k + 1, n):
            factor = a[i, k] / a[k, k]
            for j in range(k, n):
                a[i, j] = a[i, j] - factor * a[k, j]
    return a


def recording(session: Session) -> Iterator[Row]:
    """The recording alone: how much longer a function takes when it is recorded than when NumPy computes it.
    One thread does all of it, so what other processes do is not counted.
    """
    loop, size = WORKLOADS["python_loop_1e4"], 24
    steps: Any = loop.make(Namespace(np, None))
    matrix = np.eye(size) + 1.0
    cases = (
        (
            "Python loop, 1e4 operations: recording",
            steps,
            tuple(map(np.float64, loop.inputs(SEED, "float64"))),
        ),
        (f"elimination of {size} by {size} elements: recording", eliminated, (matrix,)),
    )
    for what, function, args in cases:
        ours, numpy = Samples(), Samples()
        for _ in range(1 + session.processes(7)):
            for samples, run in ((numpy, function), (ours, graphjit.jit(function).dispatcher.staged)):
                begin = time.process_time()
                run(*args)
                samples.seconds.append(time.process_time() - begin)
        yield Row(
            what,
            duration(min(ours.seconds)),
            f"numpy {duration(min(numpy.seconds))}",
            f"{min(ours.seconds) / min(numpy.seconds):.3g}x numpy",
            noise=f"{ours.spread:.0%} {numpy.spread:.0%}",
            raw={"graphjit": ours.seconds, "numpy": numpy.seconds},
        )


def digits(session: Session) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "digits.json"
        command = [sys.executable, "examples/digits.py", "--no-progress", "--json", str(target)]
        # A script finds its own folder, not this tree: in a checkout graphjit need not be installed.
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        if child.returncode:
            raise RuntimeError(child.stderr.strip().splitlines()[-1])
        result = json.loads(target.read_text())
    accuracy, difference = result["test_accuracy"], result["gradient_difference"]
    yield Row("digits: test accuracy", f"{accuracy:.2%}", "", "", "> 96 %", accuracy > 0.96, raw=result)
    yield Row(
        "digits: gradient against backpropagation by hand",
        f"{difference:.1e}",
        "",
        "",
        "<= 1e-10",
        difference <= 1e-10,
    )
    yield Row(
        "digits: time per epoch",
        duration(result["epoch_seconds"]["graphjit"]),
        f"NumPy by hand {duration(result['epoch_seconds']['numpy'])}",
        f"{result['epoch_seconds']['graphjit'] / result['epoch_seconds']['numpy']:.3g}x numpy",
    )


def import_time(session: Session) -> Iterator[Row]:
    program = (
        "import time; a = time.perf_counter(); import numpy; b = time.perf_counter(); import graphjit; "
        "c = time.perf_counter(); print(b - a, c - b)"
    )
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        # Bytecode is cached as it is for an installed package; the first import, which writes it, is not
        # counted.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
            "PYTHONPYCACHEPREFIX": folder
        }
        for _ in range(1 + session.processes(15)):
            child = subprocess.run(
                [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, env=env
            )
            runs.append([float(part) for part in child.stdout.split()])
    del runs[0]
    base, added = (Samples(list(column)) for column in zip(*runs, strict=True))
    yield Row(
        "import graphjit, over import numpy",
        duration(added.median),
        f"import numpy {duration(base.median)}",
        "",
        "<= 60 ms",
        added.median <= 0.060,
        f"{added.spread:.0%}",
        {"numpy": base.seconds, "graphjit": added.seconds},
    )


def op_matrix(session: Session) -> Iterator[Row]:
    """Runs the op matrix test and counts its checks; every skip must carry a reason."""
    absent = [name for name in OP_MATRIX_TESTS if not (ROOT / name).exists()]
    if absent:
        session.missing["op matrix"] = f"{', '.join(absent)}: not in this tree"
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "matrix.xml"
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        begin = time.perf_counter()
        subprocess.run([*pytest, *OP_MATRIX_TESTS, f"--junitxml={report}"], cwd=ROOT, capture_output=True)
        seconds = time.perf_counter() - begin
        cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skips = [skip for case in cases if (skip := case.find("skipped")) is not None]
    reasons = Counter(skip.get("message") or "" for skip in skips)
    yield Row(
        "op matrix: checks",
        f"{len(cases) - failed - len(skips)} passed",
        f"{failed} failed, {len(skips)} skipped for {len(reasons)} reasons, {duration(seconds)}",
        "",
        "none fails, no skip without reason",
        bool(cases) and not failed and "" not in reasons,
        raw={"checks": len(cases), "failed": failed, "skipped": dict(reasons)},
    )


SECTIONS: dict[str, Callable[[Session], Iterator[Row]]] = {
    "overhead": call_overhead,
    "first-call": first_calls,
    "kernels": kernels,
    "native": beside_native,
    "loop": python_loop,
    "recording": recording,
    "digits": digits,
    "import": import_time,
    "op-matrix": op_matrix,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.spine", description="graphjit's spine in figures."
    )
    parser.add_argument(
        "--filter", default="", help=f"sections whose name contains this: {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="short runs: to see that it works, not what it costs"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and raw samples")
    options = parser.parse_args(arguments)
    # Into a file or pipe the table needs a width of its own.
    console = Console() if sys.stdout.isatty() else Console(width=180)
    peers, missing = available(PEERS)
    if "graphjit" not in peers:
        console.print(f"graphjit cannot be imported: {missing['graphjit']}")
        return 1
    # Before anything runs here: what is busy now is others.
    facts = machine()
    session = Session(peers, options.quick, console, missing)
    rows: list[Row] = []
    for name, section in SECTIONS.items():
        if options.filter not in name:
            continue
        with console.status(f"measuring: {name}"):
            try:
                rows.extend(section(session))
            except Exception as error:
                # One broken section must not hide the figures of the others; it counts as missed.
                message = f"{type(error).__name__}: {error}".splitlines()[0]
                rows.append(Row(f"{name}: measurement failed", message, met=False))
    print_table("graphjit, the spine", rows, missing, facts, console)
    if options.json:
        write_json(options.json, rows, missing, facts)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
