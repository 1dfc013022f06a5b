"""Calls of NumPy on every dtype, pair of dtypes and scalar: one result against NumPy's.

Job: the operands, calls and comparison of `test_dtype_pairs`.
Input: an expression over ``x`` and ``y``.  Output: what differs from NumPy, in words, or nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy_harness import STATIC, leaves_of, record, same

from graphjit.errors import TraceError, UnsupportedError
from graphjit.interpret import interpret

DTYPES = [np.dtype(c) for c in "?bBhHiIqQfd"]
SHAPES: dict[str, tuple[int, ...]] = {
    "0-d": (),
    "one": (1,),
    "none": (0,),
    "vector": (4,),
    "matrix": (3, 4),
    "square": (3, 3),
}
SCALARS = [
    -1,
    0,
    1,
    2,
    200,
    300,
    2**40,
    1.5,
    True,
    np.int8(-3),
    np.uint8(200),
    np.int64(7),
    np.uint64(3),
    np.float32(1.5),
    np.float64(0.1),
    np.True_,
]


@cache
def operand(dtype: np.dtype, shape: str, other: bool = False, small: bool = False) -> np.ndarray:
    """Values of both signs and, unless ``small``, both ends of the range; the ``other`` operand holds no
    zeros.
    """
    n = int(np.prod(SHAPES[shape]))
    if dtype.kind == "b":
        values = np.ones(n, bool) if other else np.arange(n) % 3 != 1
    elif other or small:
        values = (np.arange(n) % 3 + 1) * (
            np.where(np.arange(n) % 2, -1, 1) if dtype.kind != "u" and not small else 1
        )
    else:
        ends = [np.iinfo(dtype).min, np.iinfo(dtype).max] if dtype.kind in "iu" else [-2.5, 0.75]
        values = np.array([ends[1], 3, ends[0], 1, 0, 2, 5][:n] + [4] * max(n - 7, 0), dtype)
    found = np.asarray(values).astype(dtype).reshape(SHAPES[shape])
    found.flags.writeable = False
    return found


@cache
def _compiled(expression: str) -> Any:
    return compile(
        expression, f"<{expression}>", "exec" if "\n" in expression or "; " in expression else "eval"
    )


def call(expression: str, **names: Any) -> Any:
    """The value of an expression; of statements, that of ``x`` after them."""
    space = {**STATIC, **names}
    code = _compiled(expression)
    if "; " in expression:
        exec(code, space)
        return space["x"]
    return eval(code, space)


def difference(expression: str, *arrays: np.ndarray, scalar: Any = None) -> str | None:
    """What differs between NumPy and the interpreted graph.

    "refused" where graphjit says that it does not compile this ("half" where NumPy answers in float16),
    "divided" where an integer was divided by zero, which raises by design.
    """

    def function(*operands: Any) -> Any:
        names = dict(zip("xy", operands, strict=False))
        return call(expression, **(names if scalar is None else {**names, "k": scalar}))

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _outcome(lambda: leaves_of(function(*[a.copy() for a in arrays])))
        found = _outcome(lambda: _traced(function, arrays))
    if isinstance(found, UnsupportedError | TraceError):
        return None if isinstance(wanted, Exception) else _refusal(wanted)
    if isinstance(wanted, Exception):
        agree = isinstance(found, _public(type(wanted)))
    elif isinstance(found, ZeroDivisionError) and "integer" in str(found):
        return "divided"
    else:
        agree = not isinstance(found, Exception) and _equal(found, wanted)
    return None if agree else f"graphjit {_words(found)}, NumPy {_words(wanted)}"


def _outcome(compute: Callable[[], list[Any]]) -> list[Any] | Exception:
    """The results, or the exception instead of them."""
    try:
        return compute()
    except Exception as error:
        return error


def _refusal(wanted: list[Any]) -> str:
    """What a refusal counts as."""
    return "half" if any(np.asarray(want).dtype == np.float16 for want in wanted) else "refused"


def _equal(found: list[Any], wanted: list[Any]) -> bool:
    """Whether all results agree: dtypes and classes exactly, arrays as `same` compares them."""
    if len(found) != len(wanted):
        return False
    for got, want in zip(found, wanted, strict=True):
        try:
            if isinstance(want, type | np.dtype):
                assert got == want
            else:
                same(got, want)
        except AssertionError:
            return False
    return True


def _traced(function: Callable[..., Any], arrays: tuple[np.ndarray, ...]) -> list[Any]:
    """The results of the traced function; dtypes and classes are known at once."""
    known: list[Any] = []

    def values(*operands: Any) -> Any:
        leaves = leaves_of(function(*operands))
        known.extend(leaf for leaf in leaves if isinstance(leaf, type | np.dtype))
        return [leaf for leaf in leaves if not isinstance(leaf, type | np.dtype)]

    graph, captured, _ = record(values, arrays)
    return known or interpret(graph, *arrays, *captured)


def _public(kind: type[BaseException]) -> type[BaseException]:
    """NumPy's exception, or what it derives from where NumPy keeps the class to itself."""
    return next(base for base in kind.__mro__ if "._" not in base.__module__)


def _words(result: Any) -> str:
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {str(result)[:90]}"
    return " ".join(
        f"{np.asarray(r).dtype.name}{np.asarray(r).shape}{np.asarray(r).ravel()[:4].tolist()}" for r in result
    )
