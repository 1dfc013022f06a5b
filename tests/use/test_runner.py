"""The one runner of all passes: what is verified, dumped, compared, and that a planted fault is named."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import graphjit
from graphjit import pipeline
from graphjit.cli.main import app
from graphjit.errors import IRError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph
from graphjit.ir.parser import parse_graph
from graphjit.loops.ir import Const, For, Let, LoopKernel, Statement
from graphjit.runner import Compare, Dump, Runner, Stop, StopAfter, Time, Verify

ROOT = Path(__file__).parents[2]
X = np.linspace(0.1, 1.0, 12).reshape(3, 4)


def traced() -> Graph:
    def loss(x: np.ndarray) -> np.ndarray:
        return np.sum(np.tanh(x * 2.0) ** 2) + np.sum(x @ x.T)

    graph: Graph = graphjit.value_and_grad(loss).dispatcher.staged(X).graph
    return graph


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
    assert parse_graph(texts["01-simplify.txt"]).outputs
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
