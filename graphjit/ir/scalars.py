"""The scalar operations of the loop IR: what each costs, and what it is called elsewhere.

Job: be the one table that fusion, vectorisation, the split into threads, recomputation and both back ends
ask.
Output: `SCALARS`, `cost`, `is_function`, `identity`.
Invariant: an op that lowers to `opdef.Scalar(name)` names a row of this table.

A cost is in units of one addition of float64 in SIMD lanes (`machine.Rates.addition`). Types of half the size
take half of it an element, since a register holds twice as many; that is what ``bytes / 8`` stands for where
costs are added up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SERIAL = 5
"""How much longer an operation takes outside lanes: eight elements a register, but fewer dependent steps at
once."""

MEMORY = 5
"""Cost of reading or writing one element that lies in a cache."""


class ScalarOp(NamedTuple):
    """One row: the cost, and where the back ends find a function for it.

    ``symbol`` is the name in our LLVM library of elementary functions (`backend/llvm/math`); "" says that one
    or a few instructions do it. ``numba`` is "ufunc" where Numba compiles NumPy's function of the same name,
    "runtime" where `backend/numba/runtime.py` has it, "" where an expression does it.
    """

    cost: int = 1
    symbol: str = ""
    numba: str = ""


def _instructions(cost: int, names: str, numba: str = "") -> dict[str, ScalarOp]:
    return {name: ScalarOp(cost, "", numba) for name in names.split()}


def _functions(cost: int, names: str, numba: str = "ufunc") -> dict[str, ScalarOp]:
    """Elementary functions; ``name=symbol`` where our library has another name."""
    pairs = (name.partition("=") for name in names.split())
    return {name: ScalarOp(cost, symbol or name, numba) for name, _, symbol in pairs}


SCALARS: dict[str, ScalarOp] = (
    _instructions(0, "copy")
    | _instructions(1, "add sub mul neg abs eq ne lt le gt ge select convert and or xor not")
    | _instructions(1, "copysign signbit isnan floor ceil trunc rint", "ufunc")
    | _instructions(2, "shl shr")
    | _instructions(3, "maximum minimum fmax fmin", "ufunc")
    | _instructions(5, "sqrt", "ufunc")
    | _instructions(6, "div")  # dear enough that a kernel keeps what several of its passes read
    | _instructions(25, "floor_divide remainder")
    | _functions(15, "hypot")
    | _functions(20, "exp exp2")
    | _functions(22, "bell half_bell", "runtime")
    | _functions(25, "expm1 log log2 log10 log1p fmod")
    | _functions(30, "sin cos sinh cosh tanh cbrt arcsin=asin arccos=acos arctan=atan")
    | _functions(30, "erf", "runtime")
    | _functions(35, "tan arcsinh=asinh arccosh=acosh arctanh=atanh")
    | _functions(40, "arctan2=atan2")
    | _functions(40, "erfc erfcx", "runtime")
    | _functions(45, "log_expit", "runtime")
    | _functions(50, "logaddexp")
    | _functions(60, "digamma trigamma", "runtime")
    | _functions(80, "pow", "")
    | _functions(80, "lgamma", "runtime")
)
"""Every scalar operation by name."""


def cost(name: str) -> int:
    """Units that one element of an operation costs."""
    return SCALARS[name].cost


def is_function(name: str) -> bool:
    """Whether an operation is an elementary function: a long run of instructions, or a call."""
    return SCALARS[name].symbol != ""


def identity(combine: str, dtype: np.dtype, running: bool = False) -> np.generic:
    """The neutral element of a combiner; a sum of nothing is 0, but what changes no running sum is -0.0."""
    value: float | bool = {"mul": 1, "and": True}.get(combine, 0)
    if running and combine == "add" and dtype.kind == "f":
        value = -0.0
    if combine == "max":
        value = -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min
    if combine == "min":
        value = np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max
    made: np.generic = dtype.type(value)
    return made
