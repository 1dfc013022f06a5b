"""Jacobians of a Python function inside a trace: which mode, and blocks in the user's containers.

Input: the active trace, a function, its arguments. Output: for each leaf of the result a tree like the
arguments, with blocks of shape ``result.shape + argument.shape``.
Invariant: what the result does not depend on has a block of zeros.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from graphjit import config
from graphjit.ir.node import Graph, Node, reachable
from graphjit.ir.types import Type
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import unflatten
from graphjit.trace.recording.tracer import Trace, Tracer
from graphjit.trace.transformed.placeholders import (
    Auxiliary,
    Placeholders,
    output_nodes,
    unchanging,
    with_aux,
)
from graphjit.transforms import jacobian as blocks

Mode = Literal["jacfwd", "jacrev", "jacobian"]


def jacobian(
    trace: Trace,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: Sequence[int],
    single: bool,
    has_aux: bool,
    mode: Mode,
    chunk_size: int | None,
) -> tuple[Any, Any]:
    """``(tree, aux)``: in the tree of the result stands, for each leaf, a tree like the argument if there is
    a ``single`` one, else a tuple of one tree for each of ``argnums``.
    """
    names = [f"argument {i}" for i in argnums]
    placeholders = Placeholders(trace, [args[i] for i in argnums], names, mode)
    new_args = list(args)
    for i, value in zip(argnums, placeholders.values, strict=True):
        new_args[i] = value
    result, aux = with_aux(unchanging(function, new_args, kwargs), has_aux, mode)
    found, spec = output_nodes(trace, result, mode)
    auxiliary = Auxiliary(trace, aux)
    rolled = placeholders.rolled([*found, *auxiliary.nodes])
    outs, others = rolled[: len(found)], rolled[len(found) :]
    derive = blocks.forward if _forward(function, mode, placeholders.inputs, outs) else blocks.reverse
    b = trace.builder
    rows = derive(b, placeholders.inputs, outs, chunk_size or _directions_that_fit)
    flat = [
        _zeros(b, out, x, derive is blocks.forward) if block is None else block
        for out, row in zip(outs, rows, strict=True)
        for x, block in zip(placeholders.inputs, row, strict=True)
    ]
    resolved = [Tracer(trace, node) for node in placeholders.resolve([*flat, *others])]
    width = len(placeholders.inputs)
    trees = [tuple(placeholders.trees(resolved[k * width : (k + 1) * width])) for k in range(len(outs))]
    if single:
        trees = [tree for (tree,) in trees]
    return unflatten(spec, trees), auxiliary.tree(resolved[len(flat) :])


MOST_BYTES = 1 << 31
"""Memory for temporary values above which directions are computed in several parts."""


def _directions_that_fit(derivatives: Sequence[Node], direction: Node) -> int:
    """How many directions are computed at a time, so that temporary values fit into `MOST_BYTES`.

    A look at the sizes of all values is enough where they fit anyway. Else the program for one direction is
    planned: each direction needs its arena once more.
    """
    late = {direction}
    for node in sorted(reachable(derivatives), key=lambda node: node.serial):
        if any(arg in late for arg in node.args):
            late.add(node)
    count = direction.type.size
    if count * sum(part.nbytes for node in late for part in node.parts) <= MOST_BYTES:
        return count
    from graphjit import pipeline  # large Jacobians are rare, and compile in any case

    inputs = [node for node in reachable(derivatives) if node.op.name == "input"]
    graph = pipeline.optimize(Graph("direction", inputs, derivatives))
    _, program = pipeline.schedule(graph)
    return max(MOST_BYTES // max(program.arena, 1), 1)


def _forward(function: Callable[..., Any], mode: Mode, inputs: Sequence[Node], outs: Sequence[Node]) -> bool:
    """Whether forward mode is taken: it costs about one evaluation for each number that goes in, reverse mode
    about two for each that comes out.
    """
    if mode != "jacobian":
        return mode == "jacfwd"
    given, made = (sum(node.type.size for node in nodes) for nodes in (inputs, outs))
    chosen = given <= 2 * made
    if "jacobian" in config.log_topics:
        name = "forward" if chosen else "reverse"
        print(
            f"graphjit: jacobian of {name_of(function)}: {name} mode, {given} numbers go in and {made} come out "
            f"(cost about {given} evaluations forward, {2 * made} in reverse)",
            file=sys.stderr,
        )
    return chosen


def _zeros(b: Any, out: Node, x: Node, forward: bool) -> Node:
    """The block of a result that does not depend on an argument."""
    dtype = out.dtype if forward and out.dtype.kind == "f" else x.dtype
    zeros: Node = b.full(0.0, Type(dtype, (*out.shape, *x.shape)))
    return zeros
