"""Does an expression share memory as in NumPy?  One program, run on ndarrays and on traced values, must see the same.

Job: the programs of the matrix test of views, copies and writes.
Input: an expression over the operands of `numpy_harness`, how the operands lie in memory, and what is written.  Output: what the program saw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy_harness import OPERANDS, function_of, leaves_of, record, same

from graphjit.interpret import interpret


def _swapped(x: Any) -> Any:
    return np.array(x.T, order="C").T


def _strided(x: Any) -> Any:
    wide = np.repeat(x, 2, -1)
    return wide[..., ::2]


def _reversed(x: Any) -> Any:
    return (x[::-1] * 1)[::-1] if x.dtype.kind != "b" else (x[::-1] | x[::-1])[::-1]


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda x: x.copy(),
    "columns": _swapped,
    "strided": _strided,
    "reversed": _reversed,
}


def _sevens(x: Any) -> Any:
    return x.dtype.type(7)


def write_base(operands: list[Any], results: list[Any]) -> None:
    """Later writes to the operands show in views and in nothing else."""
    for x in operands:
        x[...] = _sevens(x)


def write_part(operands: list[Any], results: list[Any]) -> None:
    """The same for one row."""
    for x in operands:
        if x.ndim and x.size:
            x[-1] = _sevens(x)


def write_result(operands: list[Any], results: list[Any]) -> None:
    """Views are written through."""
    for y in results:
        y[...] = _sevens(y)


def write_view_of_view(operands: list[Any], results: list[Any]) -> None:
    """A view of the result reaches the operand as well."""
    for y in results:
        if y.ndim:
            z = y[::-1].T[..., :1]
            z[...] = _sevens(y)


def augmented(operands: list[Any], results: list[Any]) -> None:
    """In-place operators keep the object."""
    for y in results:
        before = y
        if y.dtype.kind == "b":
            y |= True
        else:
            y += y.dtype.type(1)
        assert before is y


ACTIONS: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "base": write_base,
    "part": write_part,
    "result": write_result,
    "view of view": write_view_of_view,
    "augmented": augmented,
}


def program(expression: str, layout: str, action: str, seen: list[Any]) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """The program and its arguments; it appends what it saw of classes, sharing and memory order to ``seen``."""
    function, names = function_of(expression)
    lay, act = LAYOUTS[layout], ACTIONS[action]

    def run(*arguments: Any) -> Any:
        operands = [lay(x) if x.ndim else x.copy() for x in arguments]
        found = leaves_of(function(*operands))
        arrays = [x for x in operands if isinstance(x, np.ndarray) and x.ndim]
        results = [y for y in found if isinstance(y, np.ndarray)]
        seen.append(("classes", [y.__class__.__name__ for y in found]))
        seen.append(("same object", [[y is x for x in arrays] for y in results]))
        seen.append(("shares", [[bool(np.shares_memory(y, x)) for x in arrays] for y in results]))
        seen.append(("strides", [[step for step, n in zip(y.strides, y.shape, strict=True) if n > 1] if y.size else [] for y in results]))
        seen.append(("writeable", [bool(y.flags.writeable) for y in results]))
        act(arrays, [y for y in results if y.flags.writeable])
        return [*operands, *found]

    return run, [OPERANDS[name] for name in names]


def compare(expression: str, layout: str, action: str) -> None:
    """NumPy and the traced function see the same.

    Raises:
        AssertionError: they do not.
    """
    wanted_seen: list[Any] = []
    found_seen: list[Any] = []
    plain, arrays = program(expression, layout, action, wanted_seen)
    traced, _ = program(expression, layout, action, found_seen)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = leaves_of(plain(*[a.copy() for a in arrays]))
        graph, captured, _ = record(traced, arrays)
        found = interpret(graph, *arrays, *captured)
    for got, want in zip(found_seen, wanted_seen, strict=True):
        assert got == want, f"traced {got}, NumPy {want}"
    for got, want in zip(found, wanted, strict=True):
        same(got, want)
