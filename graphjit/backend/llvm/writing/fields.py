"""Structs that native code and Python both know: names of fields, their types and offsets.

Apart from `native.py`, which writes code, since importing graphjit needs no more.
"""

from __future__ import annotations

from collections.abc import Mapping

WORD = 8

Fields = Mapping[str, tuple[str, int]]
"""The fields of a struct: name -> (type, offset in bytes)."""

GLOBAL = "global"
"""Stands for the signature of an external symbol that is no function."""


def words(text: str) -> Fields:
    """Fields of eight bytes each, written as in C: ``words("i64 code, ptr place")``."""
    pairs = [field.split() for field in text.split(",")]
    return {name: (type, WORD * i) for i, (type, name) in enumerate(pairs)}
