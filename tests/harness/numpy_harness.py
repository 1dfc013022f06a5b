"""Trace a NumPy expression, interpret the graph, compare with NumPy itself.

Job: the one harness of the tests of the NumPy front end.
Input: an expression over the operands below, or any function and arrays. Output: nothing; asserts dtype,
shape and values.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special as sp

import graphjit.trace.numpy.registry  # noqa: F401 (fills the tables)
from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.types import Type
from graphjit.trace.numpy.patches import recording
from graphjit.trace.recording.tracer import Trace, any_tracer, assemble

_rng = np.random.default_rng(7)


def _draw(*shape: int) -> np.ndarray:
    return _rng.uniform(-2, 2, shape)


OPERANDS: dict[str, np.ndarray] = {
    "s": _draw(),  # 0-d
    "v": _draw(4),
    "w": _draw(3),
    "m": _draw(3, 4),
    "n": _draw(3, 4),
    "k": _draw(4, 5),
    "q": _draw(3, 3),
    "t": _draw(2, 3, 4),
    "u": _draw(2, 3, 4),
    "z": _draw(0, 3),
    "one": _draw(1, 3, 1),
    "p": _rng.uniform(0.2, 2, (3, 4)),
    "f": _draw(3, 4).astype(np.float32),
    "fv": _draw(4).astype(np.float32),
    "i": _rng.integers(-4, 5, (3, 4)),
    "j": np.array([2, 0, 1, 1]),
    "i8": _rng.integers(-9, 9, (3, 4)).astype(np.int8),
    "u8": _rng.integers(0, 200, (3, 4)).astype(np.uint8),
    "i32": _rng.integers(-9, 9, (3, 4)).astype(np.int32),
    "b": _rng.random((3, 4)) < 0.5,
    "c": _rng.random((3, 4)) < 0.5,
    "nan": np.array([[1.0, np.nan, -2.0, 0.5], [np.nan, np.nan, 3.0, -1.0], [0.0, 1.0, np.inf, -np.inf]]),
}
TOLERANCE = {"f8": 1e-12, "f4": 5e-6}
STATIC = {"np": np, "sp": sp, "copy": copy}


def leaves_of(result: Any) -> list[Any]:
    """The arrays of a result, in order."""
    if isinstance(result, tuple | list):
        return [leaf for item in result for leaf in leaves_of(item)]
    return [result]


def record(function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Graph, list[np.ndarray], list[Any]]:
    """Graph of ``function``, the arrays it captured, and its raw result leaves."""
    with Trace() as trace, recording():
        tracers = [trace.input(Type(a.dtype, a.shape), f"x{n}") for n, a in enumerate(arrays)]
        inputs = [tracer._node for tracer in tracers]
        leaves = leaves_of(function(*tracers))
        nodes = [trace.node(assemble(trace, leaf) if any_tracer(leaf) else leaf) for leaf in leaves]
    captured = list(trace.captured.values())
    return (
        Graph("f", [*inputs, *(node for _, node in captured)], nodes),
        [array for array, _ in captured],
        leaves,
    )


def run(function: Callable[..., Any], *arrays: Any) -> list[np.ndarray]:
    """Values of the traced function, by the interpreter."""
    arrays = tuple(np.asarray(a) for a in arrays)
    graph, captured, _ = record(function, arrays)
    return interpret(graph, *arrays, *captured)


def same(found: np.ndarray, wanted: Any, exact: bool = False) -> None:
    """Equal dtype, shape and values (within a few roundings)."""
    wanted = np.asarray(wanted)
    assert found.dtype == wanted.dtype, f"dtype {found.dtype}, NumPy has {wanted.dtype}"
    assert found.shape == wanted.shape, f"shape {found.shape}, NumPy has {wanted.shape}"
    tolerance = 0 if exact else TOLERANCE.get(wanted.dtype.str[1:], 0)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def check(function: Callable[..., Any], *arrays: Any) -> None:
    """The traced function gives what NumPy gives."""
    arrays = tuple(np.asarray(a) for a in arrays)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = leaves_of(function(*[a.copy() if a.ndim else a[()] for a in arrays]))
        found = run(function, *arrays)
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        same(got, want)


def function_of(expression: str) -> tuple[Callable[..., Any], list[str]]:
    """``"np.sum(m, axis=0)"`` -> a function of the operands that the expression names, and their names."""
    code = compile(expression, f"<{expression}>", "eval")
    names = [name for name in OPERANDS if name in code.co_names or _inside(code, name)]
    return eval(f"lambda {', '.join(names)}: {expression}", dict(STATIC)), names


def _inside(code: Any, name: str) -> bool:
    return any(
        name in const.co_names or _inside(const, name)
        for const in code.co_consts
        if hasattr(const, "co_names")
    )


def check_expression(expression: str, **replaced: np.ndarray) -> None:
    """`check` of an expression over `OPERANDS`."""
    function, names = function_of(expression)
    assert names, f"{expression}: no operand"
    check(function, *[replaced.get(name, OPERANDS[name]) for name in names])


def lines(text: str) -> list[str]:
    """The expressions of a table: one a line, blank lines and comments skipped."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
