"""The type of one value: a dtype and a static shape, written ``f64[3,4]``; and that of several values.

A *tape* is a list of values that a loop of unknown length wrote, each of one type. It is one word, so that
there are arrays of tapes: ``tape(f64[3])[5]`` are five. The dtype of tapes is a NumPy dtype of one field with
an object, and the name of the field is the type of the values. So types of tapes are compared, stacked and
hashed like all others.

Invariant: dtypes are NumPy's in native byte order, or those of tapes; shapes are tuples of non-negative ints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphjit.errors import IRError

SHORT = {
    "bool": "bool",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "float32": "f32",
    "float64": "f64",
}
DTYPES = {short: np.dtype(name) for name, short in SHORT.items()}
BOOL, I64, F32, F64 = DTYPES["bool"], DTYPES["i64"], DTYPES["f32"], DTYPES["f64"]

_OWN = {dtype: dtype for dtype in DTYPES.values()}


def own(dtype: np.dtype) -> np.dtype:
    """The dtype of that name that graphs hold. NumPy has two that are int64, and so equal; their scalars are
    of different classes.
    """
    return _OWN.get(dtype, dtype)


TYPE_TEXT = r"(?:tape\()*\w+\[[\d,\s]*\](?:\)\[[\d,\s]*\])*"
"""What the text of a type looks like, as a regular expression."""

_TYPE = re.compile(r"(\w+|tape\(.*\))\[([\d,\s]*)\]")


def short(dtype: np.dtype) -> str:
    """Short name of a dtype: ``f64`` for float64."""
    return f"tape({dtype.names[0]})" if dtype.names else SHORT[dtype.name]


def without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without its axes of length 1."""
    return tuple(n for n in shape if n != 1)


class Type(NamedTuple):
    """The type of one value."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous array."""
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> Type:
        """The same dtype in another shape."""
        return Type(self.dtype, shape)

    def with_dtype(self, dtype: np.dtype) -> Type:
        """The same shape with another dtype."""
        return Type(dtype, self.shape)

    @property
    def record(self) -> Type | None:
        """What one step writes on a tape of this type; None: it is no tape."""
        return parse_type(self.dtype.names[0]) if self.dtype.names else None

    @property
    def has_derivative(self) -> bool:
        """Whether its values can change a little: floats, and tapes of floats."""
        record = self.record
        return self.dtype.kind == "f" if record is None else record.has_derivative

    def __str__(self) -> str:
        return f"{short(self.dtype)}[{','.join(map(str, self.shape))}]"


def tape_of(record: Type) -> Type:
    """The type of a tape whose steps each write a value of type ``record``."""
    return Type(np.dtype([(str(record), object)]), ())


class Bundle(NamedTuple):
    """The type of a node with several results, written ``(f64[3], i64[])``. Only the op ``item`` reads it."""

    types: tuple[Type, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.types))})"


def parse_bundle(text: str) -> Bundle:
    """Inverse of ``str(Bundle)``."""
    inner = text.strip()
    if not (inner.startswith("(") and inner.endswith(")")):
        raise IRError(f"not a type: {text!r}; several types are written (f64[3], i64[])")
    parts = re.findall(TYPE_TEXT, inner)
    return Bundle(tuple(parse_type(part) for part in parts))


def parse_type(text: str) -> Type:
    """Inverse of ``str(Type)``: ``f64[3,4]``, ``f64[]``."""
    match = _TYPE.fullmatch(text.strip())
    is_tape = match is not None and match[1].startswith("tape(")
    if match is None or not (is_tape or match[1] in DTYPES):
        raise IRError(f"not a type: {text!r}; write for example f64[256,784], f32[8] or i64[]")
    dtype = tape_of(parse_type(match[1][len("tape(") : -1])).dtype if is_tape else DTYPES[match[1]]
    return Type(dtype, tuple(int(part) for part in match[2].split(",") if part.strip()))
