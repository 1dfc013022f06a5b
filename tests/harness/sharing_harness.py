"""Does an expression share memory as in NumPy? One program, run on ndarrays and on traced values, must see
the same.

Job: the programs of the matrix test of views, copies and writes.
Input: an expression over the operands of `numpy_harness`, how the operands lie in memory, and what is
written. Output: what the program saw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy_harness import OPERANDS, function_of, leaves_of, record, same
from op_matrix import jvp_graph, vjp_graph

from graphjit.interpret import interpret
from graphjit.ir.node import Graph


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


def program(
    expression: str, layout: str, action: str, seen: list[Any]
) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """The program and its arguments; it appends what it saw of classes, sharing and memory order to
    ``seen``.
    """
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
        seen.append(
            (
                "strides",
                [
                    [step for step, n in zip(y.strides, y.shape, strict=True) if n > 1] if y.size else []
                    for y in results
                ],
            )
        )
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


# -------------------------------------------------------------------------------------------------- gradients


def _scaled(operands: list[Any], results: list[Any]) -> None:
    """Writes through which derivatives flow: results first, then a part of each operand, from another part of
    it.
    """
    for y in results:
        y *= 2
    for x in operands:
        if x.ndim and x.size:
            x[0] = x[-1] * 3
            x += x.sum() / 8


def gradient_compare(expression: str, layout: str) -> int:
    """Both modes agree with each other and with differences of NumPy's program; the number of derivatives
    compared.

    The writes are linear, so that for expressions that only move elements differences are exact.
    """
    function, names = function_of(expression)
    arrays = [OPERANDS[name] for name in names]
    lay = LAYOUTS[layout]

    def program(*arguments: Any) -> list[Any]:
        operands = [lay(x) if x.ndim else x.copy() for x in arguments]
        found = leaves_of(function(*operands))
        _scaled(
            [x for x in operands if x.ndim and x.dtype.kind == "f"],
            [y for y in found if isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.flags.writeable],
        )
        return [*operands, *found]

    rng = np.random.default_rng(len(expression))
    moving = [i for i, x in enumerate(arrays) if x.dtype == np.float64]
    direction = [rng.normal(size=arrays[i].shape) for i in moving]

    def at(step: float) -> list[Any]:
        moved = [x.copy() for x in arrays]
        for i, d in zip(moving, direction, strict=True):
            moved[i] = np.asarray(moved[i] + step * d)
        return [np.asarray(y, float) for y in program(*moved) if np.asarray(y).dtype.kind == "f"]

    if not moving:
        return 0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph, captured, _ = record(program, arrays)
        kept = [node for node in graph.outputs if node.dtype.kind == "f"]
        graph = Graph("f", graph.inputs, kept)
        wanted = [(high - low) / 2e-5 for high, low in zip(at(1e-5), at(-1e-5), strict=True)]
        floats = [x for x in (*arrays, *captured) if x.dtype.kind == "f"]
        tangents = [np.zeros_like(x) for x in floats]
        places = [i for i, x in enumerate(floats) if x.dtype == np.float64][: len(moving)]
        for i, d in zip(places, direction, strict=True):
            tangents[i] = d
        forward = interpret(jvp_graph(graph), *arrays, *captured, *tangents)
        weights = [rng.normal(size=node.shape).astype(node.dtype) for node in kept]
        back = interpret(vjp_graph(graph), *arrays, *captured, *weights)
    for got, want in zip(forward, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6, err_msg=expression)
    along = sum(float(np.sum(w * t)) for w, t in zip(weights, forward, strict=True))
    against = sum(float(np.sum(b * t)) for b, t in zip(back, tangents, strict=True))
    np.testing.assert_allclose(along, against, rtol=1e-9, atol=1e-9, err_msg=expression)
    return len(wanted)
