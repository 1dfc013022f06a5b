"""Loops and conditions inside a trace: `scan`, `fori_loop`, `while_loop`, `cond`, `switch` as nodes.

Job: record the user's functions as bodies, check what they return, put one node around them.
Input: the active trace, functions, values. Output: the results, traced.
Invariants: a body that is wrong is refused here, before anything is compiled, with both types and the user's
line. What a body reads from outside and does not change is computed once; what can raise stays where the
program would have computed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np

from graphjit.errors import ShapeError, UnsupportedError
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.types import BOOL, I64
from graphjit.ops.failing import may_fail
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import texts
from graphjit.trace.recording.concrete import Values
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Array, Number, Scalar, Trace, Tracer, kind_of
from graphjit.trace.transformed.bodies import Leaves
from graphjit.trace.transformed.carries import (
    Carry,
    Kind,
    Name,
    converted,
    joined,
    kind_of_leaf,
    leaves_of,
    refuse_structure,
    shown,
)
from graphjit.trace.transformed.checked import one_number, pair, stackable, steps_in_one, truth
from graphjit.trace.transformed.control_bodies import (
    Recorded,
    enclosed,
    nodes_of,
    placeholders_for,
    recording,
    returned_at,
    stands_for,
)
from graphjit.trace.transformed.segments import while_nodes
from graphjit.trace.transformed.told_inside import tell_branch, tell_steps, values_inside
from graphjit.trace.transformed.unrolled import scan_nodes
from graphjit.transforms.control.loops import Loop, Parts
from graphjit.transforms.control.walks import walked

Function = Callable[..., Any]

# ----------------------------------------------------------------------------------------------------- scan


def scan(
    trace: Trace,
    f: Function,
    init: Any,
    xs: Any,
    length: int,
    reverse: bool,
    unroll: int,
    what: str = "scan",
    name: Name = "carry",
    elements: type[Tracer] = Tracer,
    opened: bool = False,
    every: int | None = None,
) -> tuple[Any, Any]:
    """``(carry, ys)``: ``f(carry, x)`` once for each of ``length`` elements. ``what`` and ``name`` are for
    messages; ``elements`` is what the body gets of an array of numbers; ``opened``: it may write into arrays
    from outside; ``every`` as in `scan_nodes`.
    """
    f = trace.user(f)
    carry = Carry(trace, init, what, name)
    stacked = leaves_of(xs)
    arrays = stacked.nodes(trace)
    elements_of = [node.type.with_shape(node.shape[1:]) for node in arrays]
    handed: list[Node] | None = None
    while handed is None:
        given = placeholders_for(trace, carry.types, "carry"), placeholders_for(trace, elements_of, "x")
        state = carry.tree(given[0])
        element = stacked.filled([elements(trace, node) for node in given[1]])
        quiet = nullcontext() if length else trace.builder.told.silence()
        with quiet, recording(trace, what, f, [*given[0], *given[1]], opened=opened) as body:
            after, y = pair(f(state, element), f, what)
            handed = carry.after(f, after)
            ys = stackable(y, f, what)
            made = nodes_of(trace, ys, body.name)
    body.outputs = [*handed, *made]
    if not length:
        zeros = [trace.builder.full(0, node.type.with_shape((0, *node.shape))) for node in made]
        return carry.tree(carry.nodes), ys.filled([Tracer(trace, node) for node in zeros])
    inside = values_inside(body)
    body.outputs += inside
    (graph,), outside, _ = enclosed(trace, [body])
    loop = Loop.of_scan(graph, Parts(outside, carry.nodes, arrays), length, reverse)
    loop, results = walked(trace.builder, loop, [_numbers(x) for x in arrays], lambda x: _varies(trace, x))
    graph = Graph(loop.name, loop.inputs.all, loop.outputs)
    found = results(scan_nodes(trace, graph, loop.args, length, reverse, unroll, every))
    count, more = len(handed), len(handed) + len(made)
    tell_steps(trace, body, dict(zip(inside, found[more:], strict=True)), length, reverse)
    return carry.tree(found[:count]), ys.filled([Tracer(trace, node) for node in found[count:more]])


def _numbers(array: Node) -> np.ndarray | None:
    """Integers that are known while the function is traced."""
    return Values().of(array) if array.dtype == I64 and len(array.shape) == 1 else None


def _varies(trace: Trace, node: Node) -> bool:
    """Whether a value is another one in each step of a loop around: its elements are read where it lies."""
    return trace.within is not None and any(each in trace.stand_ins for each in reachable([node]))


# ---------------------------------------------------------------------------------------------------- while


def while_loop(
    trace: Trace,
    test: Function,
    step: Function,
    init: Any,
    what: str = "while_loop",
    name: Name = "val",
    opened: bool = False,
    every: int | None = None,
) -> Any:
    """The values for which ``test`` is False first, where ``step`` makes the next ones. ``every`` as in
    `scan_nodes`.
    """
    test, step = trace.user(test), trace.user(step)
    carry = Carry(trace, init, what, name)
    handed: list[Node] | None = None
    while handed is None:
        placeholders = placeholders_for(trace, carry.types, "carry")
        given = carry.tree(placeholders)
        with recording(trace, what, step, placeholders, True, opened) as body:
            handed = carry.after(step, step(given))
    body.outputs = handed
    body.kept = [node for node in body.made if may_fail(node)]
    placeholders = placeholders_for(trace, carry.types, "carry")
    given = carry.tree(placeholders)
    with recording(trace, what, test, placeholders, False, opened) as condition:
        condition.outputs = [trace.node(truth(test(given), test, what))]
    for part in (condition, body):
        _refuse_effects(part, what)
    (tested, stepped), outside, _ = enclosed(trace, [condition, body])
    return carry.tree(while_nodes(trace, tested, stepped, outside, carry.nodes, every))


def _refuse_effects(body: Recorded, what: str) -> None:
    if body.effects:
        raise UnsupportedError(
            f"{what}: {body.name} calls debug.print or debug.callback at {body.effects[0].key[0]}: how many steps there will be is not "  # type: ignore[index]
            "known, so their values cannot be kept. Print what the loop returns, or use scan or fori_loop with fixed bounds; inside "
            "graphjit.disable_jit() it happens"
        )


NUMBERED = 1 << 24
"""Steps up to which a loop goes along an array of their numbers; a longer one counts."""


def fori_loop(
    trace: Trace, lower: Any, upper: Any, body: Function, init: Any, unroll: Any, every: int | None
) -> Any:
    """``body(i, val)`` for the integers i from ``lower`` to before ``upper``.

    Raises:
        ValueError: there is something to unroll, and the bounds are known only at run time.
    """
    body = trace.user(body)
    bounds = [
        trace.convert(trace.node(one_number(bound, "fori_loop", name, "iu")), I64)
        for bound, name in ((lower, "lower"), (upper, "upper"))
    ]
    if all(node.is_const for node in bounds):
        first, last = map(_known, bounds)
        if unroll is not None or last - first <= NUMBERED:
            count = max(last - first, 0)
            return _counted(trace, first, count, body, init, 1 if unroll is None else unroll, every)
    if unroll is not None:
        raise ValueError(
            f"fori_loop: unroll needs bounds that are known while the function is traced (at {user_location()})"
        )
    begin, end = (Number(trace, node) for node in bounds)

    def step(state: Any) -> Any:
        i, val = state
        return i + 1, body(i, val)

    def test(state: Any) -> Any:
        return state[0] < end

    stands_for(step, body)
    stands_for(test, body)
    return while_loop(trace, test, step, (begin, init), "fori_loop", ("i", "val"), every=every)[1]


def _known(node: Node) -> int:
    """The value of a node that depends on constants alone."""
    value = Values().of(node)
    assert value is not None
    return int(value)


def _counted(
    trace: Trace, first: int, count: int, body: Function, init: Any, unroll: Any, every: int | None
) -> Any:
    """A loop of ``count`` steps over the integers from ``first`` on."""
    numbers = trace.emit("iota", dtype=I64, shape=(count,), axis=0)
    if first:
        numbers = trace.emit("add", numbers, trace.builder.full(first, numbers.type))

    def step(val: Any, i: Any) -> Any:
        return body(i, val), None

    stands_for(step, body)
    steps = steps_in_one(unroll, count, "fori_loop")
    xs = Tracer(trace, numbers)
    return scan(trace, step, init, xs, count, False, steps, "fori_loop", "val", Number, every=every)[0]


# -------------------------------------------------------------------------------------------------- branches


def cond(trace: Trace, pred: Any, true: Function, false: Function, operands: Sequence[Any]) -> Any:
    """The result of ``true(*operands)`` where ``pred`` holds, else of ``false(*operands)``."""
    node = trace.node(one_number(pred, "cond", "pred"))
    known = node.is_const
    if node.dtype != BOOL:
        node = trace.emit("ne", node, trace.builder.const(0, node.dtype))
    return _one_of(trace, trace.convert(node, I64), known, (false, true), operands, "cond")


def switch(trace: Trace, index: Any, branches: Sequence[Function], operands: Sequence[Any]) -> Any:
    """The result of ``branches[index](*operands)``."""
    node = trace.node(one_number(index, "switch", "index", "iu"))
    known = node.is_const
    if node.dtype == np.uint64:  # the largest would become negative
        node = trace.emit("minimum", node, trace.builder.const(len(branches) - 1, node.dtype))
    return _one_of(trace, trace.convert(node, I64), known, branches, operands, "switch")


def _one_of(
    trace: Trace, which: Node, known: bool, branches: Sequence[Function], operands: Sequence[Any], what: str
) -> Any:
    """The result of one of ``branches``; ``known``: ``which`` depends on constants alone."""
    branches = [trace.user(branch) for branch in branches]
    recorded, results, nodes = [], [], []
    for branch in branches:
        with recording(trace, what, branch, apart=True) as body:
            result = leaves_of(branch(*operands))
            nodes.append(nodes_of(trace, result, body.name))
        body.kept = [node for node in body.made if not node.is_const]
        recorded.append(body)
        results.append(result)
    kinds = _agreed(branches, results, what)
    classes = [
        max((kind_of(result.leaves[result.numbers[i]]) for result in results), key=_ORDER.index)
        for i in range(len(kinds))
    ]
    for body, values in zip(recorded, nodes, strict=True):
        body.outputs = [converted(trace, x, kind.type.dtype) for x, kind in zip(values, kinds, strict=True)]
        body.kept += [node for node in set(body.outputs) - set(values) if may_fail(node)]
    if known:
        number = min(max(_known(which), 0), len(branches) - 1)
        chosen = recorded[number]
        for node in reversed(chosen.made):
            trace.builder.adopt(node)
        for effect in chosen.effects:
            trace.builder.told.tell(effect)
        outputs = chosen.outputs
    else:
        outputs = cond_node(trace, which, recorded)
    return results[0].filled([kind(trace, node) for kind, node in zip(classes, outputs, strict=False)])


_ORDER: list[type[Tracer]] = [Number, Scalar, Array]
"""Kinds of traced values, those first that others make to their own."""


def cond_node(trace: Trace, which: Node, recorded: Sequence[Recorded]) -> list[Node]:
    """The results of a node with these branches; what they tell is told."""
    count = len(recorded[0].outputs)
    told = [values_inside(body) for body in recorded]
    for k, body in enumerate(recorded):
        for j, values in enumerate(told):
            body.outputs += values if j == k else [trace.builder.full(0, node.type) for node in values]
    graphs, outside, _ = enclosed(trace, recorded)
    if not recorded[0].outputs:
        found: list[Node] = []
    else:
        node = trace.emit("cond", which, *outside, branches=tuple(map(Body, graphs)))
        found = [trace.emit("item", node, index=k) for k in range(len(node.parts))]
    tell_branch(trace, which, recorded, dict(zip(chain(*told), found[count:], strict=True)))
    return found[:count]


def _agreed(branches: Sequence[Function], results: Sequence[Leaves], what: str) -> list[Kind]:
    """The kinds of the results of all branches.

    Raises:
        ShapeError: structure, shape or dtype differ.
    """
    first, kinds = results[0], [kind_of_leaf(results[0].leaves[i]) for i in results[0].numbers]
    rule = "branches return the same structure, shapes and dtypes"
    for branch, result in zip(branches[1:], results[1:], strict=True):
        pair = [f"{name_of(f)} (returned at {returned_at(f)})" for f in (branches[0], branch)]
        refuse_structure(f"{what}: {' and '.join(pair)} have", "result", first.spec, result.spec, rule, "and")
        now = iter(kinds)
        kinds = []
        for i, (a, b) in enumerate(zip(first.leaves, result.leaves, strict=True)):
            numbers = i in first.numbers, i in result.numbers
            if not any(numbers) and (a is b or a == b):
                continue
            agreed = joined(next(now), kind_of_leaf(b)) if all(numbers) else None
            if agreed is None:
                path = texts(first.spec, "result")[i]
                raise ShapeError(
                    f"{what}: {path} is {shown(a)} from {pair[0]} and {shown(b)} from {pair[1]}: {rule}"
                )
            kinds.append(agreed)
    return kinds
