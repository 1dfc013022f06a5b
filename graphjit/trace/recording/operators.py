"""The operator methods of traced values: ``x + y``, ``-x``, ``x += y``.

Job: take what Python hands to an operator to the trace; give back what no operator of an array takes.
Input: a traced value, the other operand. Output: a traced value, or NotImplemented.
Invariant: an operation of Python numbers alone gives a Python number again.

Operators are what most functions are made of, so operands are told apart by their types alone: to ask a
traced value whether it is an instance of something that it is not leads to its ``__class__`` each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.trace.arrays.layout import Laid
from graphjit.trace.recording.answers import Unanswered, foreign
from graphjit.trace.recording.promotion import PYTHON_KINDS, is_python_number
from graphjit.trace.recording.tables import METHODS

Operator = Callable[[Any, Any], Any]


def binary(ufunc: np.ufunc, reflected: bool = False) -> Operator:
    """An operator method."""

    def method(self: Any, other: Any) -> Any:
        kind = type(other)
        weak = kind in PYTHON_KINDS
        if not weak:
            if issubclass(kind, Unanswered):
                weak = kind._weak
            elif not isinstance(other, int | float | np.ndarray | np.generic | list | tuple):
                return foreign(self, ufunc, other)
            elif self._weak and isinstance(other, list | tuple):
                return _repeated(self, ufunc)
            else:
                weak = is_python_number(other)
        result = self._trace.ufunc(ufunc, other, self) if reflected else self._trace.ufunc(ufunc, self, other)
        return _as_number(self, result) if weak and self._weak else result

    return method


def unary(ufunc: np.ufunc) -> Callable[[Any], Any]:
    """An operator method of one argument."""

    def method(self: Any) -> Any:
        result = self._trace.ufunc(ufunc, self)
        return _as_number(self, result) if self._weak else result

    return method


def in_place(ufunc: np.ufunc) -> Operator:
    """``x += y`` and kin."""

    def method(self: Any, other: Any) -> Any:
        return METHODS["__in_place__"](self, ufunc, other)

    return method


def power(self: Any, other: Any) -> Any:
    """``self ** other``: NumPy squares an array where the exponent is the Python number 2, and the square of
    bools is int8.
    """
    squares = type(other) is int and other == 2 and issubclass(type(self), Laid)
    return (
        self._trace.ufunc(np.square, self)
        if squares and self._node.dtype.kind == "b"
        else _raise(self, other)
    )


_raise = binary(np.power)


def _repeated(number: Any, ufunc: np.ufunc) -> Any:
    """``[0] * n``: Python repeats the sequence, for which it needs the value of ``n``."""
    if ufunc is np.multiply and number._node.dtype.kind in "iub":
        number.__index__()
    return NotImplemented


def _as_number(operand: Any, result: Any) -> Any:
    """A result of Python numbers, which is one again as the operand is."""
    kind = type(operand)
    return result if type(result) is kind else kind(result._trace, result._node)
