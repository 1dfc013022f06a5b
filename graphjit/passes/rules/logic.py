"""Rules on selections, comparisons, logic and conversions of dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.patterns import splat
from graphjit.passes.rules.rule import Rule

OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


def _select_not(b: Builder, node: Node) -> Node | None:
    condition, x, y = node.args
    return b.select(condition.args[0], y, x) if condition.op.name == "not" else None


def _select_select(b: Builder, node: Node) -> Node | None:
    condition, x, y = node.args
    if x.op.name == "select" and x.args[0] is condition:
        return b.select(condition, x.args[1], y)
    if y.op.name == "select" and y.args[0] is condition:
        return b.select(condition, x, y.args[2])
    return None


def _select_bool(b: Builder, node: Node) -> Node | None:
    condition, x, y = node.args
    if node.dtype.kind != "b" or splat(x) is None or splat(y) is None or splat(x) == splat(y):
        return None
    return condition if splat(x) else b.emit("not", condition)


def _not_comparison(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    opposite = OPPOSITE.get(inner.op.name)
    if opposite is None:
        return None
    if inner.op.name not in ("eq", "ne") and inner.args[0].dtype.kind == "f":
        return None  # not (x < y) is true for NaN, x >= y is false
    return b.emit(opposite, *inner.args)


def _logic_constant(b: Builder, node: Node) -> Node | None:
    if node.dtype.kind != "b":
        return None
    for x, y in (node.args, node.args[::-1]):
        value = splat(y)
        if value is not None:
            if node.op.name == "xor":
                return b.emit("not", x) if value else x
            return x if bool(value) == (node.op.name == "and") else y
    return None


def _compare_self_integer(b: Builder, node: Node) -> Node | None:
    x, y = node.args
    if x is not y or x.dtype.kind == "f":
        return None
    return b.full(node.op.name in ("eq", "le", "ge"), node.type)


def _lossless(source: np.dtype, target: np.dtype) -> bool:
    """Whether every value of ``source`` has its exact counterpart in ``target``."""
    if source == target or source.kind == "b":
        return True
    if source.kind == "f":
        return target.kind == "f" and target.itemsize >= source.itemsize
    low, high = np.iinfo(source).min, np.iinfo(source).max
    if target.kind == "f":
        return max(-int(low), int(high)) <= 1 << np.finfo(target).nmant + 1
    return target.kind in "iu" and np.iinfo(target).min <= low and high <= np.iinfo(target).max


def _convert_convert(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "convert":
        return None
    source, middle, target = inner.args[0].dtype, inner.dtype, node.dtype
    if not _lossless(source, middle):
        return None
    if target.kind in "iu" and middle.kind == "f" and not _lossless(source, target):
        return None  # out-of-range float to integer is undefined, integer to integer wraps
    return b.convert(inner.args[0], dtype=target)


def _convert_predicate(b: Builder, node: Node) -> Node | None:
    """ne(convert(c), 0) -> c for a bool c."""
    x, y = node.args
    value = splat(y)
    if x.op.name != "convert" or x.args[0].dtype.kind != "b" or value is None or value != 0:
        return None
    return x.args[0] if node.op.name == "ne" else b.emit("not", x.args[0])


_all: Any = tuple(OPPOSITE)

RULES = (
    Rule("select_not", ("select",), _select_not, "select(not c, x, y) -> select(c, y, x)."),
    Rule(
        "select_select",
        ("select",),
        _select_select,
        "select(c, select(c, x, _), y) -> select(c, x, y), and on the other side.",
    ),
    Rule(
        "select_bool",
        ("select",),
        _select_bool,
        "select(c, True, False) -> c; select(c, False, True) -> not c.",
    ),
    Rule(
        "not_comparison",
        ("not",),
        _not_comparison,
        "not (x == y) -> x != y; the ordered comparisons for integers and bools only, since NaN is unordered.",
    ),
    Rule(
        "logic_constant",
        ("and", "or", "xor"),
        _logic_constant,
        "c and True -> c, c or True -> True, c xor True -> not c ...",
    ),
    Rule(
        "compare_self",
        _all,
        _compare_self_integer,
        "x == x -> True, x < x -> False, for integers and bools (NaN != NaN).",
    ),
    Rule(
        "convert_convert",
        ("convert",),
        _convert_convert,
        "convert(convert(x, wide), t) -> convert(x, t) where the inner one loses nothing.",
    ),
    Rule(
        "convert_predicate",
        ("ne", "eq"),
        _convert_predicate,
        "convert(c) != 0 -> c for a bool c; == 0 -> not c.",
    ),
)
