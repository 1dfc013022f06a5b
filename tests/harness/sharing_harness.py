"""Does an expression share memory as in NumPy? One program, run on ndarrays and on traced values, must see
the same.

Job: the programs of the matrix test of views, copies and writes.
Input: an expression over the operands of `numpy_harness`, how the operands lie in memory, and what is
written. Output: what the program saw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
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
    act = ACTIONS[action]

    def run(*arguments: Any) -> Any:
        operands = laid_out(arguments, layout)
        found = leaves_of(function(*operands))
        arrays = [x for x in operands if isinstance(x, np.ndarray) and x.ndim]
        results = [y for y in found if isinstance(y, np.ndarray)]
        seen.append(("classes", [y.__class__.__name__ for y in found]))
        seen.append(("same object", [[y is x for x in arrays] for y in results]))
        seen.append(("shares", [[bool(np.shares_memory(y, x)) for x in arrays] for y in results]))
        seen.append(("strides", [_strides(y) for y in results]))
        seen.append(("writeable", [bool(y.flags.writeable) for y in results]))
        act(arrays, [y for y in results if y.flags.writeable])
        return [*operands, *found]

    return run, [OPERANDS[name] for name in names]


def laid_out(arguments: Sequence[Any], layout: str) -> list[Any]:
    """Copies of the arguments, arrays in memory as ``layout`` says."""
    return [LAYOUTS[layout](x) if x.ndim else x.copy() for x in arguments]


def _strides(y: np.ndarray) -> list[int]:
    """Those that tell how the elements lie."""
    return [step for step, n in zip(y.strides, y.shape, strict=True) if n > 1] if y.size else []


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

    def program(*arguments: Any) -> list[Any]:
        operands = laid_out(arguments, layout)
        found = leaves_of(function(*operands))
        written = [y for y in found if isinstance(y, np.ndarray) and y.flags.writeable]
        _scaled([x for x in floating(operands) if x.ndim], floating(written))
        return [*operands, *found]

    rng = np.random.default_rng(len(expression))
    direction = {i: rng.normal(size=x.shape) for i, x in enumerate(arrays) if x.dtype == np.float64}
    if not direction:
        return 0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _differences(program, arrays, direction)
        graph, captured, _ = record(program, arrays)
        kept = floating(graph.outputs)
        graph = Graph("f", graph.inputs, kept)
        tangents = _tangents(floating([*arrays, *captured]), list(direction.values()))
        forward = interpret(jvp_graph(graph), *arrays, *captured, *tangents)
        weights = [rng.normal(size=node.shape).astype(node.dtype) for node in kept]
        back = interpret(vjp_graph(graph), *arrays, *captured, *weights)
    for got, want in zip(forward, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6, err_msg=expression)
    np.testing.assert_allclose(
        _inner(weights, forward), _inner(back, tangents), rtol=1e-9, atol=1e-9, err_msg=expression
    )
    return len(wanted)


def floating(values: Sequence[Any]) -> list[Any]:
    """Those of a floating-point dtype."""
    return [value for value in values if value.dtype.kind == "f"]


def _differences(
    program: Callable[..., list[Any]], arrays: Sequence[np.ndarray], direction: dict[int, np.ndarray]
) -> list[Any]:
    """Central differences of the floating-point results along ``direction``, by position of the argument."""

    def at(step: float) -> list[Any]:
        moved = [
            np.asarray(x + step * direction[i]) if i in direction else x.copy() for i, x in enumerate(arrays)
        ]
        return [np.asarray(y, float) for y in program(*moved) if np.asarray(y).dtype.kind == "f"]

    return [(high - low) / 2e-5 for high, low in zip(at(1e-5), at(-1e-5), strict=True)]


def _tangents(inputs: Sequence[np.ndarray], direction: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``direction`` for the float64 inputs, in order, and zeros for the others."""
    tangents = [np.zeros_like(x) for x in inputs]
    moving = [i for i, x in enumerate(inputs) if x.dtype == np.float64]
    for i, along in zip(moving, direction, strict=False):
        tangents[i] = along
    return tangents


def _inner(left: Sequence[Any], right: Sequence[Any]) -> float:
    return sum(float(np.sum(x * y)) for x, y in zip(left, right, strict=True))
