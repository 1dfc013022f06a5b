"""Loops and conditions as Python: what `graphjit.scan` and its kin mean outside of a compiled function.

Job: the reference that the nodes of a trace are compared with; also where nothing is compiled.
Input: Python functions, NumPy's arrays and numbers (or traced values that know what they are). Output: what
Python computes.
Invariant: what a trace refuses is refused here too, as soon as a step shows it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.trace.marks import name_of
from graphjit.trace.pytree import flatten, unflatten
from graphjit.trace.recording.tracer import Scalar, is_python_number, is_weak
from graphjit.trace.stage import classify, run_eagerly
from graphjit.trace.transformed.carries import agreement, kind_of_leaf, leaves_of, refuse_structure
from graphjit.trace.transformed.checked import one_number, pair, stackable, truth
from graphjit.trace.transformed.control_bodies import returned_at

Function = Callable[..., Any]


def scan(f: Function, init: Any, xs: Any, length: int, reverse: bool) -> tuple[Any, Any]:
    """`graphjit.scan` of at least one step."""
    leaves, spec = flatten(xs)
    carry, rows = init, []
    for t in reversed(range(length)) if reverse else range(length):
        result = f(carry, unflatten(spec, [None if leaf is None else leaf[t] for leaf in leaves]))
        after, y = pair(result, f, "scan")
        carry = _handed(carry, after, f, "scan", "carry")
        rows.append(y)
    return carry, _stacked(rows[::-1] if reverse else rows, f, "scan")


def without_steps(call: Function, *args: Any) -> Any:
    """``call(*args)`` on traced values: results of a loop without steps, whose shapes only a trace knows."""
    leaves, spec = flatten(args)
    names = [f"value {i}" for i in range(len(leaves))]

    def run(values: list[Any]) -> Any:
        return call(*unflatten(spec, values))

    return run_eagerly(leaves, [classify(leaf) for leaf in leaves], run, names, "scan", whole=False)


def fori_loop(lower: Any, upper: Any, body: Function, init: Any) -> Any:
    """`graphjit.fori_loop`."""
    bounds = (
        one_number(bound, "fori_loop", name, "iu") for bound, name in ((lower, "lower"), (upper, "upper"))
    )
    val = init
    for i in range(*map(operator.index, bounds)):
        val = _handed(val, body(i, val), body, "fori_loop", "val")
    return val


def while_loop(test: Function, body: Function, init: Any) -> Any:
    """`graphjit.while_loop`."""
    val = init
    while truth(test(val), test, "while_loop"):
        val = _handed(val, body(val), body, "while_loop", "val")
    return val


def cond(pred: Any, true: Function, false: Function, operands: Sequence[Any]) -> Any:
    """`graphjit.cond`."""
    return (true if one_number(pred, "cond", "pred") else false)(*operands)


def switch(index: Any, branches: Sequence[Function], operands: Sequence[Any]) -> Any:
    """`graphjit.switch`."""
    number = operator.index(one_number(index, "switch", "index", "iu"))
    return branches[min(max(number, 0), len(branches) - 1)](*operands)


def map_each(f: Function, xs: Any, length: int) -> Any:
    """`graphjit.map` over at least one element."""
    leaves, spec = flatten(xs)
    rows = [f(unflatten(spec, [None if leaf is None else leaf[t] for leaf in leaves])) for t in range(length)]
    return _stacked(rows, f, "map")


def _handed(before: Any, after: Any, function: Function, what: str, name: str) -> Any:
    """What a step returned, where a Python number beside an array's dtype has that dtype."""
    given, made = leaves_of(before), leaves_of(after)
    kinds = [kind_of_leaf(given.leaves[i]) for i in given.numbers]
    agreed = agreement(what, name, function, given, kinds, made)
    found = []
    for i, kind in zip(made.numbers, agreed, strict=True):
        leaf = made.leaves[i]
        if is_weak(leaf) and not kind.weak:
            leaf = Scalar(leaf._trace, leaf._trace.narrow(leaf._node, kind.type.dtype))
        elif is_python_number(leaf) and not kind.weak:
            leaf = kind.type.dtype.type(leaf)
        found.append(leaf)
    return made.filled(found)


def _stacked(rows: Sequence[Any], f: Function, what: str) -> Any:
    """What the steps returned, stacked leaf by leaf."""
    first, *others = (stackable(row, f, what) for row in rows)
    for other in others:
        rule = f"each step returns the same structure (at {returned_at(f)})"
        refuse_structure(f"{what}: {name_of(f)} returns", "y", first.spec, other.spec, rule, "and then")
    found: list[Any] = []
    for i in range(len(first.leaves)):
        column = [row.leaves[i] for row in (first, *others)]
        found.append(None if column[0] is None else np.stack(column))
    return unflatten(first.spec, found)
