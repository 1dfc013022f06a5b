"""Loops and choices without what nobody needs.

Derivatives and batches leave much in loops that no result depends on: carries of values that only the way
back would have read, stacked results that nobody reads. This pass takes away

- results that nobody reads, and carries that no result needs,
- carries that never change: they become constants,
- constants that are known numbers: they are written into the body,
- arguments that the body does not read, or that stand there twice,
- arrays with the same number in every step: their element is a constant,
- what a body computes of constants alone: it is computed once, before the loop, if the loop runs,
- loops of no steps, and choices whose number is known.

Input and output: a graph without ``custom`` nodes.
Invariant: the same values; nothing that can raise is moved out of a choice or of a loop that may not run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node, reachable
from graphjit.ir.opdef import View
from graphjit.ir.patterns import splat
from graphjit.ops.failing import may_fail
from graphjit.passes.bodies import inside, remade
from graphjit.passes.simplify import simplify
from graphjit.transforms.control.loops import Loop, Parts, Values, opened, pruned, run
from graphjit.transforms.substitute import substitute


def tidy_loops(graph: Graph) -> Graph:
    """``graph`` with tidy loops and choices, in their bodies too."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    return remade(inside(graph, lambda body: tidy_loops(simplify(body))), _tidied)


def _tidied(b: Builder, node: Node, args: list[Node], read: Collection[int]) -> Values:
    """The values of the results of a loop or a choice that are read."""
    return (_tidy_choice if node.op.name == "cond" else _tidy_loop)(b, node, args, read)


# --------------------------------------------------------------------------------------------- what is known


def _standing(args: Sequence[Node], inputs: Sequence[Node]) -> dict[Node, Node]:
    """What may stand for inputs: the known number that they are, or the input of an equal argument."""
    first: dict[Node, Node] = {}
    found: dict[Node, Node] = {}
    for arg, x in zip(args, inputs, strict=True):
        if splat(arg) is not None:
            found[x] = arg
        elif first.setdefault(arg, x) is not x:
            found[x] = first[arg]
    return found


def _settled(b: Builder, loop: Loop) -> Loop:
    """``loop`` whose body reads known numbers instead of its arguments, and equal arguments at one place."""
    known = _standing(loop.args.constants, loop.inputs.constants)
    for array, x in zip(loop.args.slices, loop.inputs.slices, strict=True):
        if loop.op == "scan" and (number := splat(array)) is not None:
            known[x] = b.full(number, x.type)
    return loop.with_roots(substitute(b, loop.roots, known))


# ------------------------------------------------------------------------------------------------------ loops


def _tidy_loop(b: Builder, node: Node, args: list[Node], read: Collection[int]) -> Values:
    loop = opened(b, node, args)
    count = len(loop.after)
    if loop.length == 0:
        return [*loop.args.carries, *(b.full(0, part) for part in node.parts[count:])]
    values: Values = [None] * len(node.parts)
    pairs = zip(loop.inputs.carries, loop.after, strict=True)
    fixed = [k for k, (x, after) in enumerate(pairs) if x is after]
    for k in fixed:
        values[k] = loop.args.carries[k]
    moving = [k for k in range(count) if k not in fixed]
    made = [k for k in range(count, len(values)) if k in read]
    loop = replace(
        _with_constants(loop, fixed),
        after=[loop.after[k] for k in moving],
        made=[loop.made[k - count] for k in made],
    )
    loop, kept = pruned(_settled(b, loop), [i for i, k in enumerate(moving) if k in read])
    loop = _settled(b, _with_early(b, loop))
    results = run(b.like(node), loop)
    for i, value in results.carries.items():
        values[moving[kept[i]]] = value
    for k, value in zip(made, results.made, strict=True):
        values[k] = value
    return values


def _with_constants(loop: Loop, fixed: Sequence[int]) -> Loop:
    """``loop`` whose carries with these numbers are constants."""

    def sorted_out(parts: Parts) -> Parts:
        carries = [x for k, x in enumerate(parts.carries) if k not in fixed]
        return Parts([*parts.constants, *(parts.carries[k] for k in fixed)], carries, parts.slices)

    return replace(loop, args=sorted_out(loop.args), inputs=sorted_out(loop.inputs))


def _with_early(b: Builder, loop: Loop) -> Loop:
    """``loop`` where what depends on constants alone is computed before it."""
    early = _hoisted(loop.roots, {*loop.inputs.carries, *loop.inputs.slices}, loop.op == "scan")
    outside = dict(zip(loop.inputs.constants, loop.args.constants, strict=True))
    new = {node: b.input(node.type, "before") for node in early}
    return replace(
        loop,
        args=loop.args.joined(Parts(substitute(b, early, outside), [], [])),
        inputs=loop.inputs.joined(Parts(list(new.values()), [], [])),
    ).with_roots(substitute(b, loop.roots, new))


def _hoisted(roots: Sequence[Node], varying: Collection[Node], runs: bool) -> list[Node]:
    """The last nodes of a body that do not depend on ``varying`` inputs and are worth computing before the
    loop; ``runs``: the loop runs at least once.
    """
    moving = set(varying)
    order = sorted(reachable(roots), key=lambda node: node.serial)
    for node in order:
        if any(arg in moving for arg in node.args) or (node.args and not runs and may_fail(node)):
            moving.add(node)
    stack = [arg for node in order if node in moving for arg in node.args if arg not in moving]
    stack += [root for root in roots if root not in moving]
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.args and _is_worth_keeping(node):
            found[node] = None
        else:
            stack.extend(node.args)
    return sorted(found, key=lambda node: node.serial)


def _is_worth_keeping(node: Node) -> bool:
    """Whether a value is better read than computed again in each step: it takes work, and no more memory than
    what it is made of.
    """
    if isinstance(node.op.lower, View) or node.is_bundle or splat(node) is not None:
        return False
    if node.op.name in ("reshape", "item"):
        return False
    return node.type.nbytes <= max(64, *(arg.type.nbytes for arg in node.args))


# ---------------------------------------------------------------------------------------------------- choices


def _tidy_choice(b: Builder, node: Node, args: list[Node], read: Collection[int]) -> Values:
    branches: Sequence[Body] = node.attrs["branches"]  # type: ignore[assignment]
    which = splat(args[0])
    if which is not None:
        chosen = branches[min(max(int(which), 0), len(branches) - 1)]
        return list(b.inline(chosen.graph, tuple(args[1:])))
    live = sorted(read)
    first = branches[0].graph.inputs
    inputs = [b.input(x.type, str(x.attrs["name"])) for x in first]
    known = _standing(args[1:], inputs)
    inner = tuple(known.get(x, x) for x in inputs)
    outputs = [[b.inline(branch.graph, inner)[k] for k in live] for branch in branches]
    needed = set(reachable([root for roots in outputs for root in roots]))
    kept = [i for i, x in enumerate(inputs) if x in needed]
    bodies = tuple(
        Body(Graph(branch.graph.name, [inputs[i] for i in kept], roots))
        for branch, roots in zip(branches, outputs, strict=True)
    )
    made = b.like(node).emit(node.op, args[0], *(args[1 + i] for i in kept), branches=bodies)
    values: Values = [None] * len(node.parts)
    for number, k in enumerate(live):
        values[k] = b.item(made, index=number)
    return values
