"""Elementary functions (``exp``, ``sin``, ``pow`` ...) as LLVM vector code.

Job: append the code of one function to a function under construction, inline or as a call.
Input: the function under construction, name, number of lanes, precision, operands.  Output: the SSA name of
the result.
Invariants: no fast-math flags; every lane gives the bits that the scalar version gives; accuracy as in
`FUNCTIONS` (measured in docs/accuracy.md); special values as in C99, Annex F.

    emit(fn, "exp", 8, "f64", ["%v1"])   # e**x of eight float64 numbers, inline

Each family of functions has a module, which registers one body for each function (`function.py`):
`exponential.py` (with ``sinh``, ``cosh``, ``tanh``), `logarithm.py` (with inverse hyperbolic functions),
`trigonometric.py`, `inverse.py` (``asin``, ``acos``, ``atan``), `power.py` (with ``cbrt``, ``hypot``),
`erf.py`, `gamma.py`, `remainder.py` (``fmod``), `rounding.py` (with ``sqrt``).  Coefficients picked by
interval stand in `tables.py` and `gamma_tables.py`.  `library.py` compiles rare paths and long functions once
per process; loops call them.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphjit.backend.llvm.math import (
    erf,
    exponential,
    gamma,
    inverse,
    logarithm,
    power,
    remainder,
    rounding,
    trigonometric,
)
from graphjit.backend.llvm.math.function import FUNCTIONS, MathFunction
from graphjit.backend.llvm.math.library import ATTRIBUTES, call, provide
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.backend.llvm.writing.vector import Vector

__all__ = ["FUNCTIONS", "MathFunction", "emit", "emit_together", "provide"]

FAMILIES = (erf, exponential, gamma, inverse, logarithm, power, remainder, rounding, trigonometric)
ELEMENTS = {"f64": "double", "f32": "float"}


def emit(fn: Function, name: str, lanes: int, kind: str, args: Sequence[str], inline: bool = True) -> str:
    """Append ``name(*args)`` to ``fn``; returns the result's SSA name.

    ``kind`` is "f64" or "f32"; ``args`` are operands of type double/float for one lane, ``<lanes x
    double/float>`` else. ``inline=False`` calls a function of the module that holds the same code, defined on
    first use.
    """
    entry = FUNCTIONS[name]
    v = Vector(fn, ELEMENTS[kind], lanes)
    if entry.out_of_line:
        return call(v, name, args)
    return entry.body(v, *args) if inline else emit_together(fn, name, lanes, kind, [[x] for x in args])[0]


def emit_together(
    fn: Function, name: str, lanes: int, kind: str, columns: Sequence[Sequence[str]]
) -> list[str]:
    """``name`` of several vectors in one call, so that their instructions overlap; ``columns``: for each
    argument the vectors.
    """
    entry, count = FUNCTIONS[name], len(columns[0])
    if entry.out_of_line:
        return [emit(fn, name, lanes, kind, args) for args in zip(*columns, strict=True)]
    of = Vector(fn, ELEMENTS[kind], lanes).of
    symbol, several = f"gj_{name}_{kind}_{lanes}{f'x{count}' if count > 1 else ''}", _several(of, count)
    fn.module.ensure(symbol, lambda module: _outlined(module, symbol, entry, lanes, kind, count))
    results = fn.op(
        f"call {several} @{symbol}({', '.join(f'{of} {x}' for column in columns for x in column)})"
    )
    return (
        [results] if count == 1 else [fn.op(f"extractvalue {several} {results}, {i}") for i in range(count)]
    )


def _several(of: str, count: int) -> str:
    return of if count == 1 else f"{{ {', '.join([of] * count)} }}"


def _outlined(module: Module, symbol: str, entry: MathFunction, lanes: int, kind: str, count: int) -> str:
    element = ELEMENTS[kind]
    of = element if lanes == 1 else f"<{lanes} x {element}>"
    several = _several(of, count)
    names = [[f"%a{i}x{u}" for u in range(count)] for i in range(entry.arity)]
    fn = Function(
        module, symbol, f"internal {several}", [(of, x) for column in names for x in column], ATTRIBUTES
    )
    values = [entry.body(Vector(fn, element, lanes), *args) for args in zip(*names, strict=True)]
    result = values[0] if count == 1 else "poison"
    if count > 1:
        for u, value in enumerate(values):
            result = fn.op(f"insertvalue {several} {result}, {of} {value}, {u}")
    fn.do(f"ret {several} {result}")
    return fn.render()
