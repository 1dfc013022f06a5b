"""The benchmarks themselves: checking, timing, records, and `graphjit bench` does what it says."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import command, limits, memory, results, suite
from benchmarks.__main__ import app as benchmarks_app
from benchmarks.agreement import disagreement
from benchmarks.contest import contest, limited
from benchmarks.native import Recycled
from benchmarks.peers import PEERS, available
from benchmarks.peers.base import Prepared
from benchmarks.reporting import compare, page, plot, targets
from benchmarks.timing import Contestant, race
from benchmarks.workload import Workload
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads import suite as workloads
from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.cli import bench
from graphjit.cli.main import app
from graphjit.machine import machine

ROOT = Path(__file__).parents[2]
OURS = available(["graphjit"])[0]["graphjit"]


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(benchmarks_app, list(arguments))
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


# ---------------------------------------------------------------------------------------- checking and timing


def test_agreement() -> None:
    one = {"a": np.array([1.0, 2.0])}
    assert disagreement(one, {"a": np.array([1.0, 2.0 + 1e-12])}, 1e-10) == ""
    assert "differs from graphjit by 5.0e-01" in disagreement(one, {"a": np.array([2.0, 2.0])}, 1e-10)
    assert "differ in shape or dtype" in disagreement(one, {"a": np.array([1.0, 2.0], np.float32)}, 1e-10)
    assert "nan" in disagreement({"a": np.array([np.nan, 2.0])}, one, 1e-10)
    assert "nan" in disagreement((np.array(np.nan), np.array(1.0)), (np.array(1.0), np.array(1.0)), 1e-10)


class Fake:
    """A peer that gives what it is told."""

    derivative = True

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        self.name, self._fn = name, fn

    def prepare(self, workload: Workload, arguments: tuple[Any, ...]) -> Prepared:
        return Prepared(self._fn, arguments)

    def convert(self, array: np.ndarray) -> Any:
        return array


def test_a_peer_that_fails_or_lies_is_named_and_the_others_are_timed() -> None:
    def broken(x: Any) -> Any:
        raise RuntimeError("out of\nluck")

    def unwritten(x: Any) -> Any:
        raise LookupError("not written")

    peers = {
        "graphjit": OURS,
        "right": Fake("right", lambda x: 2.0 * x),
        "wrong": Fake("wrong", lambda x: 4.0 * x),
        "broken": Fake("broken", broken),
        "unwritten": Fake("unwritten", unwritten),
    }
    outcome = contest(WORKLOADS["vector8"], "float64", peers, 0.02)
    assert set(outcome.samples) == {"graphjit", "right"}
    assert outcome.refused == {
        "wrong": "differs from graphjit by 5.0e-01",
        "broken": "RuntimeError: out of luck",
    }
    assert outcome.absent == {"unwritten": "not written"}
    assert outcome.moved_bytes == 128
    assert set(
        contest(WORKLOADS["vector8"], "float64", peers | {"graphjit": peers["broken"]}, 0.02).refused
    ) == {"graphjit"}


def test_a_peer_that_takes_forever_is_stopped() -> None:
    @limited(0.05)
    def endless() -> None:
        while True:
            pass

    with pytest.raises(TimeoutError, match=r"not done after 0\.05 s"):
        endless()


def test_slow_contestants_run_in_fewer_rounds() -> None:
    fast = Contestant("fast", lambda: None, (), lambda result: None)
    slow = Contestant("slow", lambda: time.sleep(0.01), (), lambda result: None)
    samples = race([fast, slow], 0.1)
    assert len(samples["fast"].seconds) == 7
    assert len(samples["slow"].seconds) == 4
    assert samples["slow"].median > 0.009


def test_reused_outputs() -> None:
    empty, like = Recycled(), np.zeros(3)
    first = [empty(like), empty(like)]
    empty.begin()
    assert [empty(like) is array for array in first] == [True, True]
    assert first[0] is not first[1]


def test_limits_of_the_machine() -> None:
    found = limits.measure((1, 2), 2, triad_bytes=1 << 20)
    assert found.best_bandwidth() > 1e8
    assert found.best_arithmetic("float64") > 1e8
    assert found.best_arithmetic("float32") > found.best_arithmetic("float64")
    assert found.seconds(1e9, 1.0, "float64") == pytest.approx(1e9 / found.best_bandwidth())


def test_triad_and_multiply_add_compute() -> None:
    module = NativeModule(limits.triad_text() + limits.fma_text("float64"))
    try:
        a, b, c = np.zeros(64), np.arange(64.0), np.ones(64)
        pointers = [array.ctypes.data for array in (a, b, c)]
        ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_size_t)(module.address("triad"))(
            *pointers, 64
        )
        assert a.tolist() == (b + 3.0).tolist()
        out = np.full(machine().vector_bytes // 8, 0.5)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(module.address("fma_float64"))(
            out.ctypes.data, 2
        )
        # Two rounds from 1/2: 3/4, 7/8; the sum of all chains is stored on top of the start.
        assert out.tolist() == [0.5 + limits.ACCUMULATORS * 0.875] * out.size
    finally:
        module.close()


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="the high-water mark can be reset on Linux only")
def test_peak_memory_is_that_of_one_call() -> None:
    # In a process of its own: what earlier tests left in this one would be freed, or taken, by the call.
    found = memory.in_fresh_process("numpy", WORKLOADS["rosenbrock_1e6"], "float64")
    # Forward in NumPy: several temporaries of eight megabytes, freed in between.
    assert 8e6 < found["call"] < 80e6
    assert found["kept"] < 8e6


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def record_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bench") / "run.json"
    text = run("--quick", "--filter", "vector8", "--peers", "graphjit,numpy", "--json", str(target))
    assert "vector8" in text
    assert "limits of this machine: triad on 1" in text
    assert "targets met" in text
    return target


@pytest.mark.slow
def test_json_holds_raw_samples_machine_and_versions(record_file: Path) -> None:
    data = json.loads(record_file.read_text())
    (row,) = data["rows"]
    assert set(row["samples"]) == {"graphjit", "numpy"}
    assert len(row["samples"]["graphjit"]) >= 7
    assert len(row["first_calls"]["graphjit"]) == 1
    assert row["refused"] == {}
    assert data["machine"]["versions"]["numpy"] == np.__version__
    assert data["limits"]["arithmetic"]["float64"]["1"] > 0.0
    record = results.load(record_file)
    assert record.rows[0].median() == pytest.approx(np.median(row["samples"]["graphjit"]))
    assert 0.0 < (record.rows[0].fraction(record.limits) or 0.0) < 100.0


def test_compare(record_file: Path, tmp_path: Path) -> None:
    record = results.load(record_file)
    old = tmp_path / "old.json"
    row = record.rows[0]
    replace(
        record,
        rows=[
            replace(
                row, samples={peer: [s / 100.0 for s in seconds] for peer, seconds in row.samples.items()}
            )
        ],
    ).save(old)
    text = run(
        "--quick", "--filter", "vector8", "--peers", "graphjit", "--no-first-call", "--compare", str(old)
    )
    assert "new over old" in text
    assert "slower" in text
    assert "1 rows in both" in text
    (change,) = compare.changes(results.load(old), record)
    assert change.ratio == pytest.approx(100.0)
    assert change.others == pytest.approx(100.0)
    (same,) = compare.changes(record, record)
    assert same.verdict == ""
    assert "--compare:" in run("--filter", "vector8", "--compare", str(tmp_path / "nosuch.json"), code=2)
    old.write_text("{}")
    assert "is no record of a benchmark run" in run("--filter", "vector8", "--compare", str(old), code=2)


def test_list() -> None:
    text = run("--list")
    for workload in workloads("full"):
        assert workload.name in text
    for peer in PEERS:
        assert peer in text
    quick = run("--list", "--quick", "--dtype", "float32")
    assert "mlp_784_128_10" in quick
    assert "float64" not in quick
    assert "lu_100" not in text
    assert "lu_100" in run("--list", "--filter", "lu_100")


def test_mistakes_are_one_line() -> None:
    for arguments, message in (
        (("--filter", "nosuch"), "no workload has 'nosuch' in its name"),
        (("--peers", "nosuch"), "there is no peer 'nosuch'; there are graphjit, numpy"),
        (("--dtype", "float16"), "dtype float16"),
    ):
        text = run(*arguments, code=2)
        assert message in text
        assert text.count("\n") == 1


@pytest.mark.slow
def test_graphjit_bench_becomes_the_benchmarks_of_the_checkout(
    tmp_path: Path, record_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, from any directory, even one with another folder of that name."""
    other = tmp_path / "benchmarks"
    other.mkdir()
    (other / "__main__.py").write_text("raise SystemExit('the wrong benchmarks')")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "graphjit", "bench"]

    def started(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)

    quick = ("--quick", "--filter", "vector8", "--peers", "graphjit,numpy", "--no-first-call")
    done = started(*quick, "--compare", str(record_file), "--json", "new.json")
    assert done.returncode == 0, done.stderr
    assert "1 rows in both" in done.stdout
    assert results.load(tmp_path / "new.json").rows[0].workload == "vector8"
    told = started("--help").stdout
    assert "Usage: python -m benchmarks" in told
    assert all(option in told for option in ("--quick", "--compare", "--report", "--no-first-call"))
    wrong = started("--filter", "nosuch")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: no workload has 'nosuch' in its name")


def test_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench.graphjit, "__file__", str(tmp_path / "site" / "graphjit" / "__init__.py"))
    for arguments in (["--list"], ["--help"], ["--quick", "--peers", "jax"]):
        done = CliRunner().invoke(app, ["bench", *arguments])
        assert done.exit_code == 2
        assert "part of a source checkout" in done.stderr
    monkeypatch.chdir(ROOT)
    assert bench.checkout() == ROOT


def test_threads_run_in_a_process_of_their_own() -> None:
    options = suite.Options(quick=True, filter="vector8", peers=("graphjit",), threads=1, first_call=False)
    assert (
        " ".join(command.arguments(options))
        == "--quick --no-first-call --filter vector8 --threads 1 --peers graphjit"
    )
    assert command.main(options) == 0


# --------------------------------------------------------------------------------- what a record is judged by


def measured(name: str, moved_bytes: float = 0.0, **seconds: float) -> results.Measurement:
    """A measurement of an existing workload with made-up times."""
    workload = WORKLOADS[name]
    samples = {peer: [value] * 3 for peer, value in seconds.items()}
    place = (workload.name, workload.family, workload.size, workload.transform, "float64")
    return results.Measurement(*place, moved_bytes, workload.flops, cores=1.1, samples=samples)


def made_up(*rows: results.Measurement) -> results.Record:
    arithmetic = {dtype: {1: 1e11, 2: 2e11} for dtype in limits.BYTES}
    return results.Record(
        {"last_cache_bytes": 1 << 20}, limits.Limits({1: 1e10, 2: 2e10}, arithmetic), {}, {}, list(rows)
    )


def test_targets_name_workloads_that_exist() -> None:
    names = {workload.name for workload in workloads("full")}
    assert {*targets.FROM_256, *targets.BELOW_256, targets.JACOBIANS, targets.CHECKPOINTED} <= names
    assert targets.CHECKPOINTED.replace("_checkpoint", "") in names
    assert set(targets.TRANSFORMED) <= {workload.family for workload in workloads("full")}
    assert {
        "black_scholes_1e5",
        "black_scholes_1e7",
        "mlp_784_512_512_10",
        "scalar",
        "vector8",
        "pytree60",
    } <= names


def test_targets() -> None:
    record = made_up(
        measured("scalar", graphjit=1e-7, jax=4e-6, torch=4e-5),
        measured("vector8", graphjit=3e-7, jax=4e-6, torch=4e-5),
        measured("matmul_256", graphjit=2.0 * 256**3 / 1.6e11, torch=1.0, numpy=2.0 * 256**3 / 1.7e11),
        measured("matmul_64", graphjit=2.0 * 64**3 / 0.7e11),
        measured("pairwise_energy_512", graphjit=1e-3, jax=1e-2, native=0.9e-3),
        measured("linear_regression_2e5x100", 1e9, graphjit=0.06, jax=0.05, torch=0.2),
    )
    found = {f"{row.what} {row.target}": row for row in targets.targets(record)}
    verdicts = {what: row.met for what, row in found.items()}
    assert verdicts["call overhead, scalar vector8 <= 0.05"] is False
    assert verdicts["call overhead, scalar vector8 <= 0.15"] is True
    assert verdicts["products from 256^3 >= 0.75"] is True
    assert verdicts["products from 256^3 <= 1"] is False
    # It kept one core busy: held to the peak of one.
    assert verdicts["products below 256^3 >= 0.65"] is True
    assert verdicts["pairwise energy, small matrices <= 0.15"] is True
    assert verdicts["native references <= 1.2"] is True
    assert verdicts["any single workload <= 1.05"] is False
    assert found["any single workload <= 1.05"].beside == "worst of 5: linear_regression_2e5x100"
    assert verdicts["memory-bound workloads >= 0.8"] is True
    assert not [what for what in found if what.startswith(("first call", "Black-Scholes", "peak memory"))]
    assert [row.workload for row in targets.losers(record)] == ["linear_regression_2e5x100"]


def test_targets_of_transformations() -> None:
    plain, checkpointed = (
        measured(name, graphjit=seconds, jax=1.0)
        for name, seconds in (("deep_network_50x256", 0.1), ("deep_network_checkpoint_50x256", 0.15))
    )
    plain.arena, checkpointed.arena = 100 << 20, 20 << 20
    first = measured("hand_jacobian_544x100", graphjit=4e-4, jax=1e-3)
    first.first_calls = {"graphjit": [0.2], "jax": [1.0]}
    record = made_up(
        plain,
        checkpointed,
        first,
        measured("projection_jacobians_1e5", graphjit=3e-4, jax=5e-3, native=2e-4),
        measured("hand_tracking_544x100", graphjit=3e-4, jax=5e-4),
        measured("rosenbrock_hessian_100", graphjit=3e-6, jax=4e-5, torch=1e-3),
        measured("hvp_mlp_16_32_32_4", graphjit=3e-5, jax=1e-4),
        measured("per_example_gradients_64_64_10_128", graphjit=3e-4, jax=5e-4),
    )
    verdicts = {f"{row.what} {row.target}": row.met for row in targets.targets(record)}
    assert verdicts["small Jacobians <= 0.1"] is True
    assert verdicts["small Jacobians <= 1"] is False
    assert verdicts["hand tracking, gradient <= 0.5"] is False
    assert verdicts["hand tracking, Jacobian <= 0.5"] is True
    assert verdicts["Hessian of Rosenbrock <= 0.2"] is True
    assert verdicts["Hessian products of networks <= 0.7"] is True
    assert verdicts["gradients of each example <= 0.5"] is False
    assert verdicts["first call of these and bundle adjustment, geometric mean <= 0.25x"] is True
    assert verdicts["checkpoint, arena <= 0.25"] is True
    assert verdicts["checkpoint, time <= 1.4"] is False
    # Without the plain network beside it there is nothing to say.
    alone = targets.targets(made_up(checkpointed))
    assert not [row for row in alone if row.what.startswith("checkpoint")]


def test_memory_counts_what_a_library_keeps() -> None:
    row = measured("scalar", graphjit=1e-7, jax=4e-6)
    row.memory = {"graphjit": {"call": 0, "kept": 96 << 20}, "jax": {"call": 30 << 20, "kept": 16 << 20}}
    assert row.peak() == 96 << 20
    assert row.memory_ratio() == pytest.approx(2.0)


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record = made_up(*(measured(f"matmul_{n}", graphjit=n * 1e-8, torch=n * 1e-7) for n in (8, 16)))
    written = plot.draw(record, tmp_path / "pictures")
    assert [path.name for path in written] == ["bars_float64.png", "scaling_float64.png"]
    assert all(path.stat().st_size > 1000 for path in written)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_page_of_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    slow = measured("vector8", graphjit=2e-6, jax=1e-6, numpy=4e-6)
    slow.refused["autograd"] = "ValueError: a|b_c [d]"
    slow.first_calls = {"graphjit": [0.01], "jax": [0.04]}
    record = made_up(measured("matmul_8", graphjit=1e-6, jax=4e-6, torch=2e-6, native=1.5e-6), slow)
    record.machine.update(processor="Made Up", cores=2, busy=0.25, versions={"numpy": "1"})
    record.options.update(quick=True, peers=["jax", "torch"], filter="", json="run.json")
    record.missing["pytensor"] = "No module named 'pytensor'"
    written = page.write(record, tmp_path / "docs")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "docs/results.md",
        "docs/_static/results.svg",
    ]
    lines = written[0].read_text().splitlines()
    table = {cells(line)[0]: cells(line)[1:] for line in lines if line.startswith("|")}
    assert table["processor"] == ["Made Up"]
    assert table["options"] == ["quick yes, peers jax torch"]
    assert table["used by others when the run began"] == ["25%"]
    assert "**Others used this machine during the run: no figure below can be trusted.**" in lines
    assert table["without pytensor"] == ["No module named 'pytensor'"]
    # ratios of 1/2 to torch and 2 to jax
    assert table["best peer"] == ["2", "1", "1"]
    assert table["jax"] == ["2", "0.707", "1"]
    assert table["torch"] == ["1", "0.5", "0"]
    assert table["first call, jax"] == ["1", "0.25", "0"]
    head = [cell for cell in table["workload"] if cell]
    assert head == [
        *("what", "graphjit", "spread", "best peer", "to numpy", "to jax", "to torch", "to native"),
        *("of limit", "first call", "first call to jax"),
    ]
    row = dict(zip(head, table["matmul\\_8"], strict=True))
    assert [row[name] for name in ("graphjit", "spread", "best peer", "to torch", "to native")] == [
        *("1 us", "0%", "torch", "0.5", "0.667"),
    ]
    assert "- vector8, autograd: ValueError: a\\|b\\_c \\[d\\]" in lines
    assert "(_static/results.svg)" in written[0].read_text()
    picture = written[1].read_text()
    assert picture.startswith("<?xml")
    assert "hand-written C" in picture
    page.write(record, tmp_path / "again")
    assert (tmp_path / "again" / page.PICTURE).read_text() == picture


def test_report_of_a_saved_run(record_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "DOCS", tmp_path / "docs")
    assert "results.md" in run("--report", str(record_file))
    assert "vector8" in (tmp_path / "docs" / "results.md").read_text()
    assert "--report: " in run("--report", str(tmp_path / "nosuch.json"), code=2)
