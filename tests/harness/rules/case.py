"""How a rewrite rule is tested: IR before, IR after, and near misses on which the rule must not fire.

The cases themselves are in tests/harness/rule_cases_*.py. ``T`` in a text stands for each of the case's
dtypes in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOATS = ("f64", "f32")
INTS = ("i64", "u8")


@dataclass(frozen=True)
class Case:
    rule: str
    before: str
    after: str
    misses: tuple[str, ...]
    dtypes: tuple[str, ...] = FLOATS


def case(rule: str, before: str, after: str, *misses: str, dtypes: tuple[str, ...] = FLOATS) -> Case:
    return Case(rule, before, after, misses, dtypes)


def inputs(*types: str) -> str:
    """Input lines: ``%0``, ``%1`` ..."""
    return "".join(
        f"  %{i} = input name='{name}' : {type}\n" for i, (name, type) in enumerate(zip("xyz", types))
    )


def body(*lines: str) -> str:
    return "".join(f"  {line}\n" for line in lines)


X, XY, XYZ = inputs("T[6]"), inputs("T[6]", "T[6]"), inputs("T[6]", "T[6]", "T[6]")
CXY = inputs("bool[6]", "T[6]", "T[6]")
M = inputs("T[3,4]")


def spread(number: int, value: str, shape: str = "6", tail: str = "T") -> tuple[str, str]:
    """A scalar constant ``%number`` and its broadcast ``%number + 1``."""
    return (
        f"%{number} = const value={value} : {tail}[]",
        f"%{number + 1} = broadcast_to %{number} shape=({shape},) : {tail}[{shape}]",
    )
