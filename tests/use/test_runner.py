"""The one runner of all passes: what is verified, dumped, compared, and that a planted fault is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled_harness import traced as traced_function
from typer.testing import CliRunner

import graphjit
from graphjit import pipeline
from graphjit.cli.main import app
from graphjit.errors import IRError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.ir.parser import parse_graph
from graphjit.limits import host_limits
from graphjit.loops.ir import Const, For, Let, LoopKernel, Statement
from graphjit.running.instruments import Compare, Dump, StopAfter, Time, Verify
from graphjit.running.runner import Runner, Stop
from graphjit.schedule import constraints, sweep
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.program import Program, Sweep, kernels_of

ROOT = Path(__file__).parents[2]
X = np.linspace(0.1, 1.0, 12).reshape(3, 4)


def traced() -> Graph:
    def loss(x: np.ndarray) -> np.ndarray:
        return np.sum(np.tanh(x * 2.0) ** 2) + np.sum(x @ x.T)

    return traced_function(graphjit.value_and_grad(loss), X)


def test_every_pass_of_every_stage_is_seen() -> None:
    timer, texts = Time(), dict[str, str]()
    made = pipeline.compile_graph(
        traced(), runner=Runner([timer, Verify(), Compare(), Dump(texts.__setitem__)])
    )
    names = [row[1] for row in timer.rows]
    for wanted in ("simplify", "fuse", "plan", "lower", *(step.__name__ for step in pipeline.LOOP_PASSES)):
        assert wanted in names
    assert [row[0] for row in timer.rows] == list(range(1, len(names) + 1))
    assert "vectorize" in timer.report()
    assert parse_graph(texts["02-simplify.txt"]).outputs
    assert any(name.endswith("plan.txt") for name in texts)
    assert any(name.endswith("vectorize.txt") and "simd" in text for name, text in texts.items())
    same = pipeline.compile_graph(traced(), runner=Runner())
    assert same.module.render() == made.module.render()


def wrong_graph(graph: Graph) -> Graph:
    b = Builder()
    return Graph(graph.name, graph.inputs, [b.mul(graph.outputs[0], 1.5), *graph.outputs[1:]])


def wrong_loops(kernel: LoopKernel) -> LoopKernel:
    """Every constant of the kernel becomes another."""

    def changed(statement: Statement) -> Statement:
        if isinstance(statement, For):
            return replace(statement, body=tuple(map(changed, statement.body)))
        if (
            isinstance(statement, Let)
            and isinstance(statement.value, Const)
            and statement.ref.dtype.kind == "f"
        ):
            return Let(
                statement.ref, Const(np.asarray(statement.value.value + 0.25, statement.ref.dtype)[()])
            )
        return statement

    return kernel.with_body(tuple(map(changed, kernel.body)))


def test_a_planted_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled() -> None:
        pipeline.compile_graph(traced(), runner=Runner([Compare()]))

    compiled()
    passes = pipeline.GRAPH_PASSES
    monkeypatch.setattr(pipeline, "GRAPH_PASSES", (*passes[:4], wrong_graph, *passes[4:]))
    with pytest.raises(IRError, match=r"pass 4 \(wrong_graph\)|pass 5 \(wrong_graph\)"):
        compiled()
    monkeypatch.setattr(pipeline, "GRAPH_PASSES", passes)
    monkeypatch.setattr(
        pipeline, "LOOP_PASSES", (*pipeline.LOOP_PASSES[:2], wrong_loops, *pipeline.LOOP_PASSES[2:])
    )
    with pytest.raises(IRError, match=r"pass \d+ \(wrong_loops\) changed output"):
        compiled()


# -------------------------------------------------------------------------------- faults of schedule passes


def scheduled(function: Callable[..., Any], *args: np.ndarray, **sections: Any) -> None:
    """Schedule ``function``, comparing after each pass."""
    limits = host_limits().changed(**sections)
    runner = Runner([Compare()])
    graph = pipeline.optimize(traced_function(function, *args), runner, limits)
    pipeline.schedule(graph, range(len(args)), runner, limits)


def chain(x: np.ndarray) -> Any:
    """Three kernels, one after another: each needs a sum of the one before."""
    y = np.tanh(x)
    y = np.exp(y / np.sum(y))
    return y / np.sum(y) + x[::-1]


def layers(x: np.ndarray, w: np.ndarray) -> Any:
    """One sweep: what lies between the products stays in a block of rows."""
    return np.tanh(np.tanh(x @ w) @ w) @ w


SWEPT: dict[str, Any] = {"sweeps": {"min_rows": 2, "shared_bytes": 0}, "contractions": {"small": 0}}
ROWS = (np.ones((16, 3)), np.ones((3, 3)))


def planted(monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[[Any], Any]) -> None:
    """The pass ``name`` of the schedule makes what ``fault`` makes of its outcome."""
    original = getattr(pipeline, name)
    monkeypatch.setattr(pipeline, name, lambda *args, **options: fault(original(*args, **options)))


def swapped(fusion: Fusion) -> Fusion:
    """The first two steps in the other order."""
    fusion.steps[:2] = fusion.steps[1::-1]
    fusion.loads[:2] = fusion.loads[1::-1]
    fusion.position = {node: 1 - i if i < 2 else i for node, i in fusion.position.items()}
    return fusion


def reversed_parts(fusion: Fusion) -> Fusion:
    """The parts of sweeps in the other order."""
    for step in fusion.steps:
        if isinstance(step, Sweep):
            step.parts.reverse()
    return fusion


def earlier_phase(fusion: Fusion) -> Fusion:
    """What follows from a reduction is computed beside it."""
    for step in fusion.steps:
        for kernel in kernels_of(step):
            for member in kernel.members:
                member.phase = 0
    return fusion


def test_compare_runs_correct_schedules() -> None:
    scheduled(chain, X[0])
    scheduled(layers, *ROWS, **SWEPT)
    scheduled(lambda x: x / np.sum(x, axis=1, keepdims=True), X)


def test_a_kernel_order_swapped_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "fuse", swapped)
    with pytest.raises(
        IRError, match=r"after pass \d+ \(fuse\): step 0 reads .* before all of it is written"
    ):
        scheduled(chain, X[0])


def test_a_phase_too_early_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "fuse", earlier_phase)
    with pytest.raises(IRError, match=r"\(fuse\): step 0 computes .* before .*sum.*, which it reads"):
        scheduled(lambda x: x / np.sum(x, axis=1, keepdims=True), X)


def test_a_read_at_another_point_of_the_loops_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    everything_fits = tuple(
        constraint
        for constraint in constraints.CONSTRAINTS
        if constraint is not constraints.reads_are_at_the_same_point
    )
    monkeypatch.setattr(constraints, "CONSTRAINTS", everything_fits)
    with pytest.raises(IRError, match=r"\(fuse\): step 0 computes .* from other points of its own loops"):
        scheduled(lambda x: np.tanh(x)[::-1] * np.tanh(x), np.linspace(0, 1, 50), fusion={"inline_shared": 0})


def test_a_decision_about_a_result_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "decide", lambda graph, fusion, limits: {graph.outputs[0]: False})
    with pytest.raises(IRError, match=r"after pass \d+ \(decide\): .* must be stored"):
        scheduled(chain, X[0])


def test_a_read_before_its_write_in_a_sweep_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "join_sweeps", reversed_parts)
    with pytest.raises(IRError, match=r"\(join_sweeps\): step 0 reads .* before all of it is written"):
        scheduled(layers, *ROWS, **SWEPT)


def test_a_sum_read_in_its_own_sweep_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_rows(fusion: Fusion) -> Fusion:
        for step in fusion.steps:
            if isinstance(step, Sweep):
                step.row_by_row.clear()
        return fusion

    planted(monkeypatch, "join_sweeps", without_rows)
    with pytest.raises(IRError, match=r"\(join_sweeps\): .* complete after the sweep only"):
        scheduled(layers, *ROWS, **SWEPT)


def test_a_read_of_other_rows_in_a_sweep_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_in_row", lambda *_: True)
    with pytest.raises(
        IRError, match=r"\(join_sweeps\): step 0 computes .* from other rows of its own sweep"
    ):
        scheduled(
            lambda x, w: np.tanh(x @ w)[::-1] * 2.0, np.linspace(0, 1, 48).reshape(16, 3), ROWS[1], **SWEPT
        )


def moved_to_zero(program: Program) -> Program:
    """All values at the beginning of the arena."""
    for node, buffer in program.buffers.items():
        if buffer.kind == "arena":
            program.buffers[node] = replace(buffer, slot=0)
    return program


def test_live_values_that_share_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "plan", moved_to_zero)
    with pytest.raises(IRError, match=r"after pass \d+ \(plan\): .*(over it|to the same memory|still reads)"):
        scheduled(chain, X[0])


def test_a_value_without_storage_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(program: Program) -> Program:
        program.buffers = {node: buffer for node, buffer in program.buffers.items() if buffer.kind != "arena"}
        return program

    planted(monkeypatch, "plan", forgetful)
    with pytest.raises(IRError, match=r"\(plan\): k\d reads .* before all of it is written"):
        scheduled(chain, X[0])


def test_a_result_over_an_argument_that_is_still_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(program: Program) -> Program:
        program.in_place = {0: 0}
        return program

    planted(monkeypatch, "plan", greedy)
    with pytest.raises(IRError, match=r"\(plan\): k\d writes .* over .*, which it still reads"):
        scheduled(lambda x: x[::-1] + 1.0, X[0])
    scheduled(lambda x: x + 1.0, X[0])  # this one may


def test_an_arena_that_is_too_small_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "plan", lambda program: replace(program, arena=8))
    with pytest.raises(IRError, match=r"\(plan\): .* lies outside of the arena"):
        scheduled(chain, X[0])


def test_an_ill_formed_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kernel: LoopKernel) -> LoopKernel:
        return kernel.with_body(kernel.body[1:]) if len(kernel.body) > 1 else kernel

    monkeypatch.setattr(pipeline, "LOOP_PASSES", (broken, *pipeline.LOOP_PASSES))
    with pytest.raises(IRError, match=r"after pass \d+ \(broken\)"):
        pipeline.compile_graph(traced(), runner=Runner([Verify()]))


def test_passes_can_be_stopped() -> None:
    timer = Time()
    with pytest.raises(Stop):
        pipeline.compile_graph(traced(), runner=Runner([timer, StopAfter(3)]))
    assert len(timer.rows) == 3


def test_the_command_line_watches_passes(tmp_path: Path) -> None:
    target = f"{ROOT / 'examples' / 'follow.py'}:loss"
    found = CliRunner().invoke(
        app,
        [
            "inspect",
            target,
            "--grad",
            "--verify-each",
            "--compare-each",
            "--dump-passes",
            str(tmp_path / "d"),
        ],
    )
    assert found.exit_code == 0, found.output
    assert "graph" in found.output
    assert "00-input.txt" in sorted(path.name for path in (tmp_path / "d").iterdir())


def test_a_running_program_dumps_what_it_compiles(tmp_path: Path) -> None:
    script = "import numpy as np, graphjit\ngraphjit.grad(lambda x: np.sum(x**2))(np.ones(3))\ngraphjit.jit(np.tanh)(np.ones(3))"
    environment = os.environ | {"GRAPHJIT_DUMP": str(tmp_path / "dump")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=ROOT)
    folders = sorted((tmp_path / "dump").iterdir())
    assert [folder.name[:5] for folder in folders] == ["0001-", "0002-"]
    assert all((folder / "00-input.txt").is_file() for folder in folders)
