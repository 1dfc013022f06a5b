"""What plain Python control flow cannot do says so: the user's line, the reason, the way out. And what it
leaves alone.
"""

from __future__ import annotations

import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphjit

HERE = Path(__file__).name


def line_of(function: Callable[..., Any], text: str) -> int:
    """The line of the first statement of a function that begins with this text."""
    code = function.__code__
    lines = Path(code.co_filename).read_text().splitlines()
    return next(
        i + 1 for i in range(code.co_firstlineno - 1, len(lines)) if lines[i].strip().startswith(text)
    )


COUNT = 0.0


def writes_global(x):
    global COUNT
    if x > 0:
        COUNT = 1.0
    return x


def writes_nonlocal(x):
    k = 0

    def count():
        nonlocal k
        k += 1

    if x > 0:
        count()
    return x


def tries(x):
    try:
        if x > 0:
            x = -x
    except ValueError:
        x = 0.0
    return x


def generates(x):
    def parts():
        if x > 0:
            yield x

    return sum(parts())


def walrus(x):
    if (y := 2 * x) > 0:
        return y
    return x


def swallows(x):
    from contextlib import suppress

    with suppress(ValueError):
        if x > 0:
            x = -x
    return x


def matches(x):
    match x > 0:
        case True:
            return x
    return -x if x > 0 else x


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (writes_global, r"it writes the global variable COUNT \(line \d+\)"),
        (writes_nonlocal, r"it writes the nonlocal variable k \(line \d+\)"),
        (tries, r"there is control flow inside of try \(line \d+\)"),
        (generates, r"it holds a generator or a coroutine"),
        (walrus, r"it assigns inside of an expression with :="),
        (swallows, r"inside of a with that swallows errors"),
        (matches, "it uses match"),
        (eval("lambda x: x if x > 0 else -x"), "its source cannot be read"),
        (lambda x: sorted([x, 1.0])[0], "not by a keyword"),
        (lambda x: eval("x if x > 0 else -x"), r"it calls eval\(\)"),
    ],
)
def test_what_is_not_converted_says_why(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(graphjit.TraceError, match=r"needs the value of a traced.*not converted: .*" + reason):
        graphjit.jit(function)(1.0)


def undefined(x):
    if x > 0:
        y = 1.0
    return y


def undefined_after_loop(x, n=3):
    while x > n:
        if x > 5:
            y = x
        x = x - 1
    return y


def structure(x):
    if x > 0:
        y = (x, x)
    else:
        y = x
    return y


def shapes(x):
    a = np.ones(3) * x
    if x > 0:
        a = a[1:]
    return a


def only_one_returns(x):
    if x > 0:
        return x


def recursive(n):
    return 1 if n <= 1 else n * recursive(n - 1)


def shrinking(x):
    a = np.ones(3) * x
    while np.sum(a) > 1:
        a = a[1:]
    return a


def raising_in_loop(x):
    while x < 10:
        if x == 5:
            raise ValueError("five")
        x = x + 1
    return x


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (undefined, graphjit.TraceError, r"y has a value after the if at .*:{if} only where its test holds"),
        (
            undefined_after_loop,
            graphjit.TraceError,
            "y has a value after the if at .* only where its test holds",
        ),
        (
            structure,
            graphjit.TraceError,
            "it is a container of 2 parts where the test holds and a Python float",
        ),
        (shapes, graphjit.TraceError, r"it is f64\[2\] where the test holds and f64\[3\] where not"),
        (only_one_returns, graphjit.TraceError, "only_one_returns returns a value only where a test holds"),
        (recursive, graphjit.TraceError, "recursive calls itself at .* Write it as a loop"),
        (shrinking, graphjit.ShapeError, r"while: shrinking turns a from f64\[3\] into f64\[2\]"),
        (raising_in_loop, graphjit.TraceError, "raise the error after the loop"),
    ],
)
def test_what_has_no_meaning_is_refused(
    function: Callable[..., Any], error: type[Exception], message: str
) -> None:
    message = message.replace("{if}", str(line_of(function, "if")))
    with pytest.raises(error, match=message):
        graphjit.jit(function)(7.0)


def test_a_variable_of_one_way_may_go_unread() -> None:
    def function(x):
        if x > 0:
            t = 2 * x
            y = t
        else:
            y = x
        return y

    assert graphjit.jit(function)(1.0) == 2.0


def test_several_elements_have_no_truth_value() -> None:
    with pytest.raises(ValueError, match=r"truth value of an array .* ambiguous \(at .*np.where"):
        graphjit.jit(lambda x: x if x > 0 else -x)(np.ones(3))


def test_errors_that_the_values_ask_for() -> None:
    @graphjit.jit
    def root(x):
        assert x >= 0, "negative"
        if x > 100:
            raise OverflowError("too large")
        return np.sqrt(x)

    assert root(4.0) == 2.0
    with pytest.raises(AssertionError, match="negative"):
        root(-1.0)
    with pytest.raises(OverflowError, match="too large"):
        root(101.0)


# -------------------------------------------------------------------------------------- the user's own code


def broken(x):
    if x > 0:
        y = np.ones(3) @ np.ones((2, 2))
        return y + x
    return x


def test_tracebacks_show_the_users_lines() -> None:
    with pytest.raises(ValueError, match="matmul") as caught:
        graphjit.jit(broken)(1.0)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [(Path(f.filename).name, f.name) for f in frames[1:]] == [(HERE, "broken")] * 2
    assert [f.lineno for f in frames[1:]] == [line_of(broken, "if"), line_of(broken, "y =")]


def test_nodes_have_the_users_lines() -> None:
    graph = graphjit.make_graph(undefined_lines)(1.0)
    found = {node.loc.line for node in graph.nodes() if node.loc is not None}
    assert found <= {line_of(undefined_lines, "if"), line_of(undefined_lines, "return")}
    assert all(node.loc.file.endswith(HERE) for node in graph.nodes() if node.loc is not None)


def undefined_lines(x):
    if x > 0:
        x = x * 3
    return x + 1


FACTOR = 2.0


def reads_global(x):
    return FACTOR * x if x > 0 else x


def test_globals_and_cells_are_read_from_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = np.ones(2)
    offset = 1.0

    def reads_cells(x):
        if x > 0:
            return captured * x + offset
        return captured

    by_global, by_cell = graphjit.jit(reads_global), graphjit.jit(reads_cells)
    assert by_global(3.0) == 6.0
    assert by_cell(3.0).tolist() == [4.0, 4.0]
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 5.0)
    captured[0] = 7.0
    offset = 2.0
    assert by_global(3.0) == 15.0
    assert by_cell(3.0).tolist() == [23.0, 5.0]


def test_it_can_be_forbidden() -> None:
    def function(x):
        return x * x if x > 0 else x

    for make in (graphjit.jit, graphjit.grad, graphjit.value_and_grad, graphjit.vmap, graphjit.jacobian):
        x = np.ones(2) if make is graphjit.vmap else 2.0
        make(function)(x)
        with pytest.raises(graphjit.TraceError, match="needs the value of a traced") as caught:
            make(function, python_control_flow=False)(x)
        assert "converted" not in str(caught.value)
    with pytest.raises(graphjit.TraceError, match="needs the value"):
        graphjit.grad(graphjit.jit(function, python_control_flow=False))(2.0)


PROGRAM = """
import sys
import graphjit

def chosen(x):
    return x * x if x > 0 else x

assert graphjit.grad(lambda x: x * x)(2.0) == 4.0
assert "malt" not in sys.modules and "graphjit.trace.converted" not in sys.modules
{rest}
"""


def run(rest: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(rest=rest))
    return subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_what_traces_costs_nothing_and_the_log_says_what_is_converted(tmp_path: Path) -> None:
    program = "assert graphjit.grad(chosen)(2.0) == 4.0\nassert graphjit.jit(chosen)(3) == 9"
    ran = run(program, tmp_path, GRAPHJIT_LOG="control")
    assert ran.returncode == 0, ran.stderr
    first, second, third = ran.stderr.splitlines()
    assert third.startswith("graphjit: control: chosen is traced again")  # the conversion was kept
    assert first.startswith("graphjit: control: chosen is traced again: the truth value")
    assert second.startswith("graphjit: control: chosen (")
    assert second.endswith("program.py:5) is converted")


def test_the_environment_forbids_it(tmp_path: Path) -> None:
    ran = run("graphjit.jit(chosen)(2.0)", tmp_path, GRAPHJIT_PYTHON_CONTROL_FLOW="0")
    assert "TraceError: the truth value" in ran.stderr


class Settings:
    factor = 1.0


def writes_class(x):
    if x > 0:
        Settings.factor = 2.0
    return x * Settings.factor


def test_what_cannot_be_put_back_is_refused() -> None:
    with pytest.raises(graphjit.TraceError, match=r"Settings is changed at .*cannot be put back"):
        graphjit.jit(writes_class)(1.0)


class Sign:
    def __init__(self, x):
        if x > 0:
            self.value = 1.0
        else:
            self.value = -1.0

    def __neg__(self):
        return Sign(-self.value) if self.value > 0 else self


def test_constructors_are_converted_and_operators_are_not() -> None:
    compiled = graphjit.jit(lambda x: Sign(x).value)
    assert (compiled(3.0), compiled(-3.0)) == (1.0, -1.0)
    with pytest.raises(
        graphjit.TraceError, match="a method that an operator, a built-in function or a library"
    ):
        graphjit.jit(lambda x: (-Sign(x)).value)(3.0)


def test_large_libraries_that_a_function_names_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the code names of a module is looked at, in modules inside of it too; so it stays cheap to
    ask whether a list was there before.
    """
    from graphjit.trace.converted import containers

    library, part = types.ModuleType("some_library"), types.ModuleType("some_library.part")
    library.part, part.kept, part.others = part, [[1.0]], [[] for _ in range(1000)]  # type: ignore[attr-defined]
    monkeypatch.setattr(containers, "MOST", 200)
    space = {"library": library, "np": np, "graphjit": graphjit, "pytest": pytest}
    source = "def f(): return library.part.kept, np.sum, graphjit.jit, pytest.raises"
    exec(source, space)
    assert containers.reaches(space["f"], [part.kept[0]]) == {id(part.kept[0])}  # type: ignore[arg-type]
    assert not containers.reaches(space["f"], [part.others[0]])  # type: ignore[arg-type]
