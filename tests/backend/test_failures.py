"""What compiled code reports names the line of the function that was called, also when equal graphs share the
code.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import compilation

X, OUT, ZERO, EMPTY = np.arange(1.0, 5.0), np.array([1, 9]), np.array([1, 0, 2]), np.zeros((0,))
COUNTS = np.array([7, 8, 9])

CASES: dict[str, tuple[str, tuple[Any, ...], type[Exception]]] = {
    "index": ("return x[i] * 2", (X, OUT), IndexError),
    "index of nothing": ("return x[i] * 2", (EMPTY, OUT), IndexError),
    "write": ("y = x + 1; y[i] = 0; return y", (X, OUT), IndexError),
    "floor_divide": ("return x // i", (COUNTS, ZERO), ZeroDivisionError),
    "remainder": ("return x % i", (COUNTS, ZERO), ZeroDivisionError),
    "fmod": ("return np.fmod(x, i)", (COUNTS, ZERO), ZeroDivisionError),
    "pow": ("return x ** i", (COUNTS, -ZERO), ValueError),
}
DIFFERENTIATED = {
    "index": ("return np.sum(x[i] ** 3)", (X, OUT), IndexError),
    "write": ("y = x * x; y[i] = 0.0; return np.sum(y)", (X, OUT), IndexError),
    "remainder": ("return np.sum(x ** 2) * np.sum(7 % i)", (X, ZERO), ZeroDivisionError),
}


def defined(body: str, file: str, line: int) -> Any:
    """A function whose body stands at that line of that file."""
    space: dict[str, Any] = {"np": np}
    exec(compile("\n" * (line - 2) + f"def f(x, i):\n    {body}\n", file, "exec"), space)
    return space["f"]


def place(call: Any, arguments: tuple[Any, ...], kind: type[Exception]) -> str:
    with pytest.raises(kind) as raised:
        call(*arguments)
    found = re.search(r"\(at (.*)\)$", str(raised.value))
    assert found is not None, str(raised.value)
    return found[1]


def check(transform: Any, body: str, arguments: tuple[Any, ...], kind: type[Exception]) -> None:
    functions = {
        where: transform(defined(body, *where))
        for where in (("one.py", 10), ("one.py", 20), ("other.py", 10))
    }
    before = len(compilation._executables)
    for _ in range(2):  # the slow path, then the native entry
        for (file, line), f in functions.items():
            assert place(f, arguments, kind) == f"{file}:{line}"
            strided = tuple(np.repeat(array, 2)[::2] for array in arguments)  # never the native entry
            assert place(f, strided, kind) == f"{file}:{line}"
    assert len(compilation._executables) <= before + 1, "equal graphs share their code"


@pytest.mark.parametrize("backend", ["llvm", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_errors_name_the_line_of_the_function_that_was_called(name, backend):
    check(lambda f: graphjit.jit(f, backend=backend), *CASES[name])


@pytest.mark.parametrize("backend", ["llvm", "numba"])
@pytest.mark.parametrize("name", DIFFERENTIATED)
@pytest.mark.parametrize("transform", [graphjit.grad, graphjit.value_and_grad])
def test_derivatives_name_it_too(name, transform, backend):
    check(lambda f: graphjit.jit(transform(f), backend=backend), *DIFFERENTIATED[name])
    check(transform, *DIFFERENTIATED[name])


def test_a_number_that_does_not_fit():
    for line in (5, 9):
        f = graphjit.jit(defined("return x + i", "fit.py", line))
        for _ in range(2):
            assert place(f, (np.zeros(2, np.int8), 1000), OverflowError) == f"fit.py:{line}"


def test_both_halves_of_a_vjp_name_the_line_of_their_own_function():
    for line in (7, 8):
        f = defined("return np.sum(x[i] ** 3)", "pullback.py", line)
        with pytest.raises(IndexError, match=rf"\(at pullback\.py:{line}\)$"):
            graphjit.vjp(lambda x, f=f: f(x, OUT), X)


def test_what_failed_at_one_line_may_lie_at_two_elsewhere():
    one = graphjit.jit(defined("return x[i] + x[i + 1]", "one_line.py", 5))
    two = graphjit.jit(defined("y = x[i]\n    return y + x[i + 1]", "two_lines.py", 5))
    again = graphjit.jit(defined("y = x[i]\n    return y + x[i + 1]", "two_lines.py", 15))
    for _ in range(2):
        for i, lines in ((np.array([9]), (5, 5, 15)), (np.array([3]), (5, 6, 16))):
            found = [place(f, (X, i), IndexError) for f in (one, two, again)]
            assert found == [
                f"one_line.py:{lines[0]}",
                f"two_lines.py:{lines[1]}",
                f"two_lines.py:{lines[2]}",
            ]


def test_lines_of_other_operations_do_not_matter():
    """Only where a node can fail must graphs break into lines alike to share code."""
    before = set(map(id, kept := list(compilation._executables.values())))
    functions = [
        graphjit.jit(defined(body, "plain.py", 5))
        for body in ("return np.tan(x) * i + 0.12345", "y = np.tan(x)\n    y = y * i\n    return y + 0.12345")
    ]
    for f in functions:
        f(X, 2.0)
    assert len([code for code in compilation._executables.values() if id(code) not in before]) == 1
    assert kept is not None  # alive until here, so that no number of theirs is given to another
