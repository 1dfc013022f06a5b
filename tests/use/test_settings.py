"""Settings that are understood or refused, what is logged, and what a long compilation says."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import graphjit
from graphjit import config, progress
from graphjit.cli.main import app

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("GRAPHJIT_")
    } | environment
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, env=env
    )


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "GRAPHJIT_LOG",
            "retrace,foo",
            "there is no topic 'foo'; the topics are retrace, grad, compile, jacobian, control, donate, reroll",
        ),
        ("GRAPHJIT_NUM_THREADS", "abc", "it must be a number of threads, 1 or more"),
        ("GRAPHJIT_NUM_THREADS", "0", "it must be a number of threads"),
        ("GRAPHJIT_NUM_THREADS", "-2", "it must be a number of threads"),
        ("GRAPHJIT_NUM_THREAD", "2", "did you mean GRAPHJIT_NUM_THREADS?"),
        ("GRAPHJIT_ZZZ", "2", "graphjit reads GRAPHJIT_LOG, GRAPHJIT_NUM_THREADS"),
        ("GRAPHJIT_TRACEBACK", "all", "it must be user or full"),
        ("GRAPHJIT_DISABLE_JIT", "please", "it is a switch: 1 or 0"),
    ],
)
def test_what_means_nothing_is_refused_by_name(name: str, text: str, says: str) -> None:
    with pytest.raises(graphjit.ConfigError, match=name) as caught:
        config.read({name: text})
    assert says in str(caught.value)


def test_what_is_understood() -> None:
    values = config.read(
        {
            "GRAPHJIT_LOG": " retrace , compile",
            "GRAPHJIT_NUM_THREADS": " 3 ",
            "OMP_NUM_THREADS": "4,2",
            "GRAPHJIT_VERIFY": "1",
        }
    )
    assert values["GRAPHJIT_LOG"] == {"retrace", "compile"}
    assert (values["GRAPHJIT_NUM_THREADS"], values["OMP_NUM_THREADS"], values["GRAPHJIT_VERIFY"]) == (
        3,
        4,
        True,
    )
    empty = config.read(
        {setting.name: "" for setting in config.SETTINGS if setting.name != "GRAPHJIT_CACHE_DIR"}
    )
    assert empty["GRAPHJIT_NUM_THREADS"] is None
    assert empty["GRAPHJIT_LOG"] == frozenset()
    assert empty["GRAPHJIT_TRACEBACK"] == "user"


def test_what_others_set_is_left_alone() -> None:
    assert config.read({"OMP_NUM_THREADS": "abc", "GRAPHJITTER": "1"})["OMP_NUM_THREADS"] is None


def test_a_wrong_setting_ends_the_import() -> None:
    done = python("import graphjit", GRAPHJIT_LOG="foo")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "GRAPHJIT_LOG='foo': there is no topic 'foo'; the topics are retrace, grad, compile, jacobian, control, donate, reroll"
    )


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output == f"graphjit {graphjit.__version__}\n"


def test_the_log_says_what_was_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config, "log_topics", frozenset({"compile"}))

    def logged(x):
        return np.sum(np.cos(x) * 1.2345)

    compiled = graphjit.jit(logged)
    compiled(np.ones(5))
    said = capsys.readouterr().err
    assert said.startswith("graphjit: compiled logged: ")
    assert " operations; 1 program steps in " in said
    compiled(np.ones(5))
    assert capsys.readouterr().err == ""


def unrolled(x, steps=40):
    for _ in range(steps):
        x = np.tanh(x * 1.01) + 0.1 * x  # the line
    return x.sum()


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.endswith(text))


def test_the_description_names_the_line_of_an_unrolled_loop() -> None:
    graph = graphjit.grad(unrolled, reroll=False).dispatcher.staged(np.ones(3)).graph
    said = progress.description(graph)
    assert said.startswith(f"unrolled: {len(graph.nodes())} operations, ")
    assert f"steps of an unrolled loop at {__file__}:{line_of('# the ' + 'line')} " in said
    assert "from about 39 steps" in said or "from about 40 steps" in said


def test_the_description_of_other_graphs_names_no_loop() -> None:
    graph = graphjit.jit(lambda x: np.sin(x) + np.cos(x)).dispatcher.staged(np.ones(3)).graph
    assert progress.description(graph) == "<lambda>: 4 operations"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def spoken(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None, patience: float = 0.0) -> str:
    """What is said about a compilation that takes 0.3 s."""
    monkeypatch.setattr(progress, "PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", stream)
    graph = graphjit.jit(unrolled).dispatcher.staged(np.ones(3)).graph
    with progress.watching(graph, progress.SMALL + 1):
        progress.step("writing loops")
        threading.Event().wait(0.3)
    return stream.getvalue() if stream is not None and not stream.closed else ""


def test_a_long_compilation_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = spoken(monkeypatch, io.StringIO())
    assert said.startswith("graphjit: compiling unrolled: ")
    assert "steps of an unrolled loop" in said
    assert said.count("\n") == 1


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    said = spoken(monkeypatch, Terminal())
    assert said.startswith("graphjit: compiling unrolled: ")
    assert "writing loops" in said


def test_short_compilations_closed_and_missing_streams_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spoken(monkeypatch, io.StringIO(), patience=60.0) == ""
    assert spoken(monkeypatch, None) == ""
    closed = io.StringIO()
    closed.close()
    assert spoken(monkeypatch, closed) == ""


def test_the_watching_thread_takes_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []
    monkeypatch.setattr(
        progress._Watch, "run", lambda self: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )
    with progress.watching(SimpleNamespace(name="f", nodes=list), progress.SMALL + 1):  # type: ignore[arg-type]
        pass
    assert signal.SIGINT in masks[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_small_graphs_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_started", lambda thread: pytest.fail("a thread was started"))
    graphjit.jit(lambda x: np.sin(x) * 3.3)(np.ones(3))


def test_rich_is_loaded_only_by_a_bar() -> None:
    code = "import sys, numpy as np, graphjit; graphjit.jit(np.sin)(np.ones(3)); assert 'rich' not in sys.modules"
    assert python(code).returncode == 0


def test_errstate_around_a_call_is_mentioned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphjit.dispatch._mentioned", set())
    reciprocal = graphjit.jit(lambda x: 1.0 / x)
    zero = np.zeros(2)
    with np.errstate(divide="ignore", over="warn"):
        assert np.isinf(reciprocal(zero)).all()
    with np.errstate(all="raise"):
        assert np.isinf(reciprocal(zero)).all()  # native code: not looked at
        with pytest.warns(
            RuntimeWarning, match=r"np\.errstate\(divide='raise', .*\) has no effect on compiled code"
        ) as caught:
            assert np.isinf(reciprocal(np.zeros(3))).all()
        assert caught[0].filename == __file__
        assert np.isinf(reciprocal(np.zeros(4))).all()


def test_errstate_is_numpys_where_nothing_is_compiled() -> None:
    for transform in (graphjit.jit, graphjit.grad):
        with graphjit.disable_jit(), np.errstate(all="raise"), pytest.raises(FloatingPointError):
            transform(lambda x: np.sum(1.0 / x))(np.zeros(2))


def test_the_warning_about_errstate_shows_the_users_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphjit.dispatch._mentioned", set())
    with np.errstate(all="raise"), pytest.warns(RuntimeWarning, match="errstate") as caught:
        graphjit.jvp(lambda x: 3.25 / x, (2.0,), (1.0,))
    assert caught[0].filename == __file__
