"""Ops of control flow: ``scan``, ``while``, ``cond``, and ``unwind``, the way back through a ``while``.

Each has graphs inside and several results, which `item` takes apart. What a body reads from outside and what
does not change comes first among the arguments (*constants*), then what each step hands to the next
(*carries*).

``scan`` runs its body ``length`` times. Step t reads element t of the arrays that come last among the
arguments, and what it computes besides the carries is stacked along a new first axis. With ``reverse`` step
``length - 1`` comes first. ``while`` runs its body as long as the graph ``test`` says so. ``cond`` runs one
of its branches.

A ``while`` keeps what its body computes besides the carries on *tapes*, one for each of those ``taped``
values, since nobody knows beforehand how many there will be. A tape is one word: in the interpreter a linked
list, the last step first, in compiled code the address of the last value, beside which lies that of the one
before. So tapes can be stacked and handed on like numbers, and read more than once.

``unwind`` runs its body once for each value on its tapes, the last one first. It reads ``tapes`` of them at
the same time; they come from one loop, so they are equally long. What its body computes besides the carries
goes to tapes too, in the order in which it is computed. Who unwinds these sees the steps in their first
order again. So ``while`` is a ``scan`` of unknown length, ``unwind`` is one with ``reverse``, and a tape is
an array that can be read backwards only.

Derivatives and batches are in `graphjit.transforms.control`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.interpret import interpret
from graphjit.ir.node import Body, Graph
from graphjit.ir.opdef import ByRule, OverBody, Special, op
from graphjit.ir.types import BOOL, I64, Bundle, Type, tape_of

SMALL = 16
"""Elements that a value may have to be in registers while a loop runs (`graphjit.schedule.loops.registers`).
Larger arrays lie in memory, and are better changed element by element.
"""


def _takes(what: str, graph: Graph, types: Sequence[Type]) -> None:
    """Refuse a body that takes other arguments than these."""
    wanted = [node.type for node in graph.inputs]
    if list(types) != wanted:
        raise ShapeError(f"the {what} {graph.name} takes {_listed(wanted)}, not {_listed(types)}")


def _gives(what: str, graph: Graph, carries: Sequence[Type]) -> list[Type]:
    """What a body computes besides the carries; refuses one that changes their types."""
    made = [node.type for node in graph.outputs]
    if made[: len(carries)] != list(carries):
        raise ShapeError(
            f"the {what} {graph.name} turns carries of types {_listed(carries)} into {_listed(made)}"
        )
    return made[len(carries) :]


def _listed(types: Sequence[Any]) -> str:
    return f"({', '.join(map(str, types))})"


def _infer_scan(*types: Any, body: Body, carried: int, sliced: int, length: int, reverse: bool) -> Any:
    first = len(types) - sliced
    for type in types[first:]:
        if type.shape[:1] != (length,):
            raise ShapeError(f"{type} has no {length} elements along its first axis")
    slices = [type.with_shape(type.shape[1:]) for type in types[first:]]
    _takes("body", body.graph, [*types[:first], *slices])
    carries = types[first - carried : first]
    stacked = _gives("body", body.graph, carries)
    return Bundle((*carries, *(type.with_shape((length, *type.shape)) for type in stacked)))


def _scan(
    *args: np.ndarray, body: Body, carried: int, sliced: int, length: int, reverse: bool
) -> tuple[np.ndarray, ...]:
    first = len(args) - sliced
    constants, carries, arrays = args[: first - carried], list(args[first - carried : first]), args[first:]
    stacked = [np.zeros((length, *node.shape), node.dtype) for node in body.graph.outputs[carried:]]
    for t in reversed(range(length)) if reverse else range(length):
        made = interpret(body.graph, *constants, *carries, *(array[t, ...] for array in arrays))
        carries = made[:carried]
        for array, value in zip(stacked, made[carried:], strict=True):
            array[t] = value
    return (*carries, *stacked)


op(
    "scan",
    doc="Run a graph once for each element of arrays, handing carries on; stack what it computes besides.",
    arity=None,
    attrs=("body", "carried", "sliced", "length", "reverse"),
    infer=_infer_scan,
    impl=_scan,
    grad=ByRule(),
    lower=Special("scan"),
    batch=OverBody(),
)


def _infer_while(*types: Any, test: Body, body: Body, carried: int, taped: int) -> Any:
    _takes("test", test.graph, types)
    if [node.type for node in test.graph.outputs] != [Type(BOOL, ())]:
        raise ShapeError(
            f"the test {test.graph.name} gives {_listed([x.type for x in test.graph.outputs])}, not one bool"
        )
    _takes("body", body.graph, types)
    carries = types[len(types) - carried :]
    if len(_gives("body", body.graph, carries)) != taped:
        raise ShapeError(f"the body {body.graph.name} does not compute {taped} values for the tape")
    return Bundle((*carries, *(tape_of(node.type) for node in body.graph.outputs[carried:])))


def _while(*args: np.ndarray, test: Body, body: Body, carried: int, taped: int) -> tuple[np.ndarray, ...]:
    constants, carries = args[: len(args) - carried], list(args[len(args) - carried :])
    tapes: list[Any] = [None] * taped
    while interpret(test.graph, *constants, *carries)[0]:
        made = interpret(body.graph, *constants, *carries)
        carries = made[:carried]
        tapes = list(zip(made[carried:], tapes, strict=True))
    return (*carries, *words(body, tapes))


def words(body: Body, tapes: Sequence[Any]) -> list[np.ndarray]:
    """Tapes as values of a node: each array holds one."""
    types = [tape_of(node.type) for node in body.graph.outputs[len(body.graph.outputs) - len(tapes) :]]
    words = [np.empty((), type.dtype) for type in types]
    for word, tape in zip(words, tapes, strict=True):
        word[()] = (tape,)
    return words


op(
    "while",
    doc="Run a graph on carries as long as another one says so; the last `taped` results go to tapes.",
    arity=None,
    attrs=("test", "body", "carried", "taped"),
    infer=_infer_while,
    impl=_while,
    grad=ByRule(),
    lower=Special("while"),
    batch=OverBody(),
)


def _infer_unwind(*types: Any, body: Body, carried: int, tapes: int) -> Any:
    first = len(types) - tapes
    read = [type.record for type in types[first:] if type.record is not None and not type.shape]
    if not tapes or len(read) != tapes:
        raise ShapeError(f"the last {tapes} arguments of unwind are not tapes: {_listed(types)}")
    _takes("body", body.graph, [*types[:first], *read])
    carries = types[first - carried : first]
    return Bundle((*carries, *map(tape_of, _gives("body", body.graph, carries))))


def _unwind(*args: np.ndarray, body: Body, carried: int, tapes: int) -> tuple[np.ndarray, ...]:
    first = len(args) - tapes
    constants, carries = args[: first - carried], list(args[first - carried : first])
    read: list[Any] = [tape[()][0] for tape in args[first:]]
    written: list[Any] = [None] * (len(body.graph.outputs) - carried)
    while any(read):
        values, read = [tape[0] for tape in read], [tape[1] for tape in read]
        made = interpret(body.graph, *constants, *carries, *values)
        carries = made[:carried]
        written = list(zip(made[carried:], written, strict=True))
    return (*carries, *words(body, written))


op(
    "unwind",
    doc="Run a graph on carries and each value on tapes, the last one first; write what it computes besides.",
    arity=None,
    attrs=("body", "carried", "tapes"),
    infer=_infer_unwind,
    impl=_unwind,
    grad=ByRule(),
    lower=Special("unwind"),
    batch=OverBody(),
)


def _infer_cond(which: Any, *types: Any, branches: tuple[Body, ...]) -> Any:
    if which != Type(I64, ()):
        raise ShapeError(f"the number of a branch is an i64[], not {which}")
    if not branches:
        raise ShapeError("there are no branches")
    for branch in branches:
        _takes("branch", branch.graph, types)
    made = [[node.type for node in branch.graph.outputs] for branch in branches]
    if any(types != made[0] for types in made):
        raise ShapeError(f"the branches give {' and '.join(map(_listed, made))}")
    return Bundle(tuple(made[0]))


def _cond(which: np.ndarray, *args: np.ndarray, branches: tuple[Body, ...]) -> tuple[np.ndarray, ...]:
    number = min(max(int(which), 0), len(branches) - 1)
    return tuple(interpret(branches[number].graph, *args))


op(
    "cond",
    doc="Run one of several graphs: that whose number the first argument is, or the nearest.",
    arity=None,
    attrs=("branches",),
    infer=_infer_cond,
    impl=_cond,
    grad=ByRule(),
    lower=Special("cond"),
    batch=OverBody(),
)
