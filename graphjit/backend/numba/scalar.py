"""The scalar vocabulary of the loop IR as Python expressions.

Job: one expression per operation, with the dtype's wrap-around where CPython, NumPy and Numba would promote.
Input: an operation, its dtypes, operand names.  Output: expression text.
Invariant: the expression has the operation's dtype, as a NumPy scalar under CPython and as a number under
``njit``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphjit.backend.numba.runtime import FUNCTIONS
from graphjit.errors import IRError
from graphjit.ir.scalars import SCALARS

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"} | {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
COMPARE = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "signbit"))
LOGICAL = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and", "fmax": "or", "fmin": "and"}
"""Arithmetic on bools."""
COMBINE = {"max": "maximum", "min": "minimum"}
UNSIGNED = {
    "floor_divide": "unsigned_divide",
    "remainder": "unsigned_remainder",
    "fmod": "unsigned_remainder",
}


def numpy_name(dtype: np.dtype) -> str:
    """The name of a dtype in NumPy; tapes are numbers here."""
    return "int64" if dtype.names else dtype.name


def literal(value: np.generic) -> str:
    """A number of its dtype."""
    name = value.dtype.name
    if value.dtype.kind == "b":
        return str(bool(value))
    if value.dtype.kind != "f":
        return f"np.{name}({int(value)})"
    number = float(value)
    if np.isfinite(number):
        return f"np.{name}({number!r})"
    return f"np.{name}({'np.nan' if number != number else 'np.inf' if number > 0 else '-np.inf'})"


def expression(op: str, dtype: np.dtype, operand: np.dtype, args: Sequence[str]) -> str:
    """``op`` on operands of dtype ``operand`` (the last one's) giving ``dtype``."""
    if op == "copy":
        return args[0]
    if op == "select":
        return f"{args[1]} if {args[0]} else {args[2]}"
    if op == "convert":
        return _convert(dtype, operand, args[0])
    if operand.kind == "b" and op in LOGICAL:
        op = LOGICAL[op]
    text = _floating(op, args) if operand.kind == "f" else _integer(op, operand, args)
    return text if op in COMPARE or operand.kind == "b" else _typed(text, op, dtype)


def combine(name: str, dtype: np.dtype, x: str, y: str) -> str:
    """One step of an accumulation."""
    return expression(COMBINE.get(name, name), dtype, dtype, (x, y))


def failing(op: str, dtype: np.dtype, args: Sequence[str]) -> str:
    """The condition under which a checked integer operation reports an error; empty when it cannot fail."""
    if op == "pow":
        return f"{args[1]} < 0" if dtype.kind == "i" else ""
    return f"{args[1]} == 0"


def functions_of(op: str, operand: np.dtype) -> tuple[str, ...]:
    """Runtime functions that an operation calls."""
    if operand.kind == "f":
        return (op,) if SCALARS[op].numba == "runtime" else ()
    name = UNSIGNED.get(op, op) if operand.kind == "u" else op
    name = {"shl": "shift_left", "shr": "shift_right", "pow": "int_power"}.get(name, name)
    return (name,) if name in FUNCTIONS else ()


def _typed(text: str, op: str, dtype: np.dtype) -> str:
    """Numba computes narrow integers in 64 bits and the special functions in double precision."""
    plain = (dtype.kind == "f" and SCALARS[op].numba != "runtime") or dtype == np.int64
    return text if plain else f"np.{numpy_name(dtype)}({text})"


def _convert(dtype: np.dtype, source: np.dtype, x: str) -> str:
    if dtype == source:
        return x
    if dtype.kind == "b":
        return f"{x} != 0"
    if source.kind == "f" and dtype.kind in "iu" and dtype.itemsize < 8:
        return f"np.{numpy_name(dtype)}(np.int64({x}))"
    return f"np.{numpy_name(dtype)}({x})"


def _floating(op: str, args: Sequence[str]) -> str:
    if op in INFIX:
        return f"{args[0]} {INFIX[op]} {args[1]}"
    if op == "neg":
        return f"-{args[0]}"
    if op == "abs":
        return f"np.abs({args[0]})"
    if op == "pow":
        return f"{args[0]} ** {args[1]}"  # np.power takes roots of -inf by another route and gives NaN
    if SCALARS[op].numba == "ufunc":
        return f"np.{op}({', '.join(args)})"
    if SCALARS[op].numba == "runtime":
        return f"{op}({', '.join(args)})"
    raise IRError(f"no floating-point operation {op}")


def _integer(op: str, dtype: np.dtype, args: Sequence[str]) -> str:
    if op in INFIX and op != "div":
        return f"{args[0]} {INFIX[op]} {args[1]}"
    if op == "not":
        return f"not {args[0]}" if dtype.kind == "b" else f"~{args[0]}"
    if op == "neg":
        return f"-{args[0]}"
    if op == "abs":
        return f"np.abs({args[0]})" if dtype.kind == "i" else args[0]
    if op in ("maximum", "minimum", "fmax", "fmin"):
        return f"{args[0]} if {args[0]} {'>' if op in ('maximum', 'fmax') else '<'} {args[1]} else {args[1]}"
    if op in ("floor", "ceil", "trunc", "rint"):
        return args[0]
    if op in ("shl", "shr"):
        return f"{'shift_left' if op == 'shl' else 'shift_right'}({', '.join(args)}, {8 * dtype.itemsize})"
    if op in ("floor_divide", "remainder", "fmod"):
        return f"{UNSIGNED[op] if dtype.kind == 'u' else op}({', '.join(args)})"
    if op == "pow":
        return f"int_power(np.int64({args[0]}), np.int64({args[1]}))"
    raise IRError(f"no integer operation {op} on {dtype}")
