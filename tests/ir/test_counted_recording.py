"""What recording costs, counted: functions called for an operation, questions about classes, nodes made for
an element. And what the shortcuts behind these figures must not change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.trace.recording import tracer
from graphjit.trace.recording.recorder import Recorder

Function = Callable[..., Any]
ARRAY, ROWS = np.linspace(0.5, 1, 6), np.linspace(1, 2, 6000).reshape(1000, 6)


def repeating(body: str, before: str = "pass") -> Callable[[int], Function]:
    """Functions that run ``body``, a statement about x, y, s and i, for each i below n."""

    def made(n: int) -> Function:
        lines = [
            "def f(x, y):",
            "    s = 1.0",
            f"    {before}",
            f"    for i in range({n}):",
            f"        {body}",
        ]
        scope: dict[str, Any] = {"np": np}
        exec(compile("\n".join([*lines, "    return x, s"]), f"<{body}>", "exec"), scope)
        return scope["f"]  # type: ignore[no-any-return]

    return made


def traced(function: Function, *args: Any) -> Any:
    return graphjit.jit(function, reroll=False).dispatcher.staged(*args)


def calls_of(function: Function, *args: Any) -> int:
    """Python functions called while ``function`` is traced."""
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        traced(function, *args)
    finally:
        sys.setprofile(before)
    return counted


OPERATIONS = [
    ("x = x * y", ARRAY, 35),
    ("x = x + 1.5", ARRAY, 30),
    ("x = 1.5 - x", 2.0, 30),
    ("x = -x", ARRAY, 20),
    ("x = np.tanh(x)", ARRAY, 33),
    ("x = np.maximum(x, 0.0)", np.float64(2.0), 33),
    ("x[i % 6] = s", ARRAY, 22),
    ("s = x[i % 6]", ARRAY, 16),
    ("s = y[i, i % 6]", ROWS, 48),
    ("s = y[i]", ROWS, 78),
    ("s = y[i, :3]", ROWS, 86),
    ("x[i, i % 6] += s", ROWS, 155),
]


@pytest.mark.parametrize(("body", "value", "limit"), OPERATIONS, ids=[body for body, _, _ in OPERATIONS])
def test_an_operation_calls_few_functions_however_long_the_trace(body: str, value: Any, limit: int) -> None:
    made = repeating(body, "x = x * 1.25" if body.startswith("x[") else "pass")
    traced(made(3), value, value)  # loads and caches what a first trace does
    counted = [calls_of(made(n), value, value) for n in (100, 200, 900, 1000)]
    first, last = (counted[1] - counted[0]) / 100, (counted[3] - counted[2]) / 100
    assert first <= limit
    assert last <= first + 1


@pytest.mark.parametrize(("body", "value"), [(body, value) for body, value, _ in OPERATIONS])
def test_no_operation_asks_whose_question_it_answers(
    body: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``isinstance(x, C)`` of a traced x that is no C looks at the frame that asks."""
    asked = 0
    original = tracer.asked_by_user

    def counted() -> bool:
        nonlocal asked
        asked += 1
        return original()

    monkeypatch.setattr(tracer, "asked_by_user", counted)
    made, found = repeating(body, "x = x * 1.25" if body.startswith("x[") else "pass"), []
    for n in (50, 100):
        asked = 0
        traced(made(n), value, value)
        found.append(asked)
    assert found[0] == found[1]


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the ops that recordings are asked for."""
    names: list[str] = []
    original = Recorder.emit

    def emit(self: Recorder, op: str, *args: Any, **attrs: Any) -> Any:
        names.append(op)
        return original(self, op, *args, **attrs)

    monkeypatch.setattr(Recorder, "emit", emit)
    return names


def test_what_was_written_is_read_back_without_a_node(emitted: list[str]) -> None:
    def f(x: Any, v: Any) -> Any:
        x = x.copy()
        for i in range(4):
            x[i, 2] = v
        emitted.clear()
        read = [x[i, 2] for i in range(4)] + [x[-4, 2], x[1][2]]
        assert emitted == []
        read += [x[::-1][3, 2], x[:, 2:][0, 0], x[2:, 1:][1][1]]
        row = x[1]
        emitted.clear()
        read += [row[2], x[3, 2]]
        row[1] = v
        read += [x[1, 1], row[1]]
        assert emitted == []
        total = x.sum()  # joins what was written
        emitted.clear()
        read += [x[0, 2], row[1]]
        assert emitted == []
        return total, read

    total, read = graphjit.jit(f)(np.zeros((4, 4)), 3.0)
    assert total == 15.0
    assert read == [3.0] * len(read)


def test_items_of_a_value_are_made_once(emitted: list[str]) -> None:
    def f(x: Any) -> Any:
        first = [x[i, j] for i in range(3) for j in range(3)]
        emitted.clear()
        again = [x[i, j - 3] for i in range(3) for j in range(3)]
        assert emitted == []
        return sum(first) - sum(again)

    assert graphjit.jit(f)(np.arange(9.0).reshape(3, 3)) == 0.0


def test_parts_of_an_array_filled_by_elements_need_no_whole(emitted: list[str]) -> None:
    """A factorization row by row reads ``L[i, :j]`` after each write: that must not join all of L each
    time.
    """

    def factor(a: Any) -> Any:
        n = a.shape[0]
        low = np.zeros((n, n))
        for i in range(n):
            for j in range(i + 1):
                rest = a[i, j] - low[i, :j] @ low[j, :j]
                low[i, j] = np.sqrt(rest) if i == j else rest / low[j, j]
        return low

    made = []
    for n in (8, 16):
        emitted.clear()
        a = np.cos(np.arange(n * n)).reshape(n, n)
        a = a @ a.T + n * np.eye(n)
        np.testing.assert_allclose(graphjit.jit(factor)(a), np.linalg.cholesky(a), rtol=1e-12)
        made.append(len(emitted))
    assert made[1] < 8.5 * made[0]  # as many as multiplications; with whole arrays 16 times


def test_a_part_read_many_times_is_joined_once(emitted: list[str]) -> None:
    def windows(v: Any) -> Any:
        out = np.zeros(40)
        for i in range(40):
            out[i] = v * i
        emitted.clear()
        return np.stack([out[i : i + 10] for i in range(30)])

    wanted = np.stack([np.arange(i, i + 10.0) for i in range(30)])
    assert np.array_equal(graphjit.jit(windows)(1.0), wanted)
    assert emitted.count("concatenate") <= 6


def test_long_parts_between_writes_cost_as_much_as_short_ones(emitted: list[str]) -> None:
    def solve(low: Any, b: Any) -> Any:
        x = np.zeros(len(b))
        for i in range(len(b)):
            x[i] = (b[i] - low[i, :i] @ x[:i]) / low[i, i]
        return x

    made = []
    for n in (60, 120):
        emitted.clear()
        traced(solve, np.eye(n), np.ones(n))
        made.append(len(emitted))
    assert made[1] < 2.2 * made[0]


def test_parts_between_writes() -> None:
    """Steps, flips, rows and columns of an array of which some elements were written."""

    def f(x: Any, v: Any) -> list[Any]:
        a = x.copy()
        read = []
        for i, j in [(0, 0), (2, 1), (2, 2), (-1, 3), (1, -1), (3, 0), (0, 2), (3, 4), (3, 1), (2, 4)]:
            a[i, j] = v * (i + 2 * j)
            read += [a[i] * 1, a[:, j] * 1, a[::2, ::-2] * 1, a[1:3, 1:4] * 1, a[-1, ::-1] * 1, a[2:, 0] * 1]
            read += [a[0:0] * 1, a[..., 1] * 1, a[None, 2, 1:4] * 1]
        a[2] = a[3] * v
        a[2, 1] += v
        view = a[::-1, 1:]
        view[0, 0] = v
        view[1][2] -= v
        a[:, 2][1] = 7.0
        read += [a[3, 1], a[2, 3], a[1, 2], view[-1], a * 1]
        return read

    x = np.arange(20.0).reshape(4, 5)
    for ours, wanted in zip(graphjit.jit(f)(x, 1.5), f(x, 1.5), strict=True):
        assert np.array_equal(ours, wanted)


def test_constants_of_equal_python_numbers_stay_apart() -> None:
    def f(x: Any) -> list[Any]:
        return [x + 0.0, x + -0.0, x * 1, x * 1.0, x * True, np.maximum(x, 0), np.copysign(x, -0.0), x + 0.0]

    x = np.array([-0.0, 2.0])
    for ours, wanted in zip(graphjit.jit(f)(x), f(x), strict=True):
        assert np.array_equal(ours, wanted)
        assert np.array_equal(np.signbit(ours), np.signbit(wanted))
    for ours, wanted in zip(graphjit.jit(f)(np.array([1, 2])), f(np.array([1, 2])), strict=True):
        assert ours.dtype == wanted.dtype


def test_numbers_of_classes_without_a_hash() -> None:
    class Steps(int):
        __hash__ = None  # type: ignore[assignment]

    assert graphjit.jit(lambda x: x * Steps(3) + Steps(3))(np.float32(2.0)) == 9.0


def test_an_item_out_of_range_names_the_line() -> None:
    def f(x: Any) -> Any:
        return x[1, 3]

    with pytest.raises(
        IndexError, match=r"index 3 is out of bounds for axis 1 with size 3 .*test_counted_recording"
    ):
        graphjit.jit(f)(np.zeros((3, 3)))


def test_equal_functions_in_two_files_keep_their_lines() -> None:
    text = "def f(x):\n    return x * 2.0\n"
    found = []
    for file in ("one.py", "two.py"):
        scope: dict[str, Any] = {}
        exec(compile(text, file, "exec"), scope)
        nodes = traced(scope["f"], 1.0).graph.nodes()
        found += [str(node.loc) for node in nodes if node.op.name == "mul"]
    assert found == ["one.py:2", "two.py:2"]
