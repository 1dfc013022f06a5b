"""What the way back through a loop needs of the way there, and how it gets it.

A step back needs values of its step. Which of them are stacked on the way there, and which are computed again
from those, is a minimum cut: stacking a value costs its bytes, computing it again costs its operation. Free
are constants, what depends on constants alone (computed once, outside), the slices of a `scan`, and what the
loop stacks already.

Of a carry one stack serves for two values: what a step makes of it is what the next step begins with.

Example: a step ``h = tanh(w @ h + x)`` needs both values of ``h``, before and after, and nothing else. Where
the loop's results hold all ``h``, nothing is stacked besides.

Input: a loop, and its way back in terms of the inputs of the loop's body. Output: the way back in terms of
its own inputs.
Invariants: products, loops and dear functions are never computed again; nothing is computed outside of a loop
that may run no step, if it can fail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node, reachable
from graphjit.ir.opdef import Decompose, Reduce, Scalar, Scan, View
from graphjit.ir.scalars import MEMORY
from graphjit.ir.types import I64, Type
from graphjit.mincut import Network
from graphjit.ops.control import SMALL
from graphjit.ops.failing import may_fail
from graphjit.transforms.control.loops import Loop, Parts, depending, elements, run
from graphjit.transforms.substitute import substitute
from graphjit.transforms.tapes import record_of

COPIES = frozenset({"concatenate", "embed", "gather", "item", "select", "iota", "diagonal"})
"""Ops with a lowering of their own that do little more than move elements."""


def saved(b: Builder, loop: Loop, results: Sequence[Node], way: Loop) -> Loop:
    """``way`` with the values that it needs of the steps of ``loop`` among its arguments.

    ``results`` are those of the loop. ``way`` reads nodes of its body.
    """
    way = _simpler(b, loop, way)
    known = known_of(way.roots, way.inputs.all)
    plan = _Plan.of(loop, results, known)
    border = border_of(known, plan.there | plan.fixed)
    constants = [node for node in border if node in plan.fixed]
    actual = dict(zip(loop.inputs.constants, loop.args.constants, strict=True)) | plan.unchanged
    stacks = _stacks(b, loop, results, plan, [node for node in border if node not in plan.fixed])
    new = {node: b.input(node.type, "saved") for node in (*border, *(x for x in stacks if x not in border))}
    way = replace(
        way,
        args=way.args.joined(Parts(substitute(b, constants, actual), [], list(stacks.values()))),
        inputs=way.inputs.joined(Parts([new[x] for x in constants], [], [new[x] for x in stacks])),
    )
    following = [i for i in plan.shifted if loop.after[i] in border and loop.after[i] not in stacks]
    way = replace(
        way,
        args=way.args.joined(Parts([], [results[i] for i in following], [])),
        inputs=way.inputs.joined(Parts([], [new[loop.after[i]] for i in following], [])),
        after=[*way.after, *(loop.inputs.carries[i] for i in following)],
    )
    way = way.with_roots(substitute(b, way.roots, new))
    return _counted(b, loop, results, way) if way.op == "unwind" and not way.args.slices else way


ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "const", "broadcast_to", "reshape"})
"""Ops that a derivative may be taken apart into before others are taken: theirs are exact everywhere."""


def _simpler(b: Builder, loop: Loop, way: Loop) -> Loop:
    """``way`` with slopes that are a little arithmetic on what the step computes anyway written out.

    The slope of ``t = tanh(z)`` is ``1 - t * t``: so it needs ``t``, which is often there, and not ``z``.
    """
    steps = set(reachable(loop.roots))
    known = reachable(known_of(way.roots, way.inputs.all), steps)
    new: dict[Node, Node] = {}
    for node in sorted(known, key=lambda node: node.serial):
        if isinstance(node.op.lower, Decompose) and all(arg in steps for arg in node.args):
            parts = node.op.lower.expand(b.like(node), node, *node.args)
            if all(part.op.name in ARITHMETIC for part in reachable([parts], steps)):
                new[node] = parts
    return way.with_roots(substitute(b, way.roots, new))


def known_of(roots: Sequence[Node], directions: Sequence[Node]) -> list[Node]:
    """What a way back reads that does not depend on the cotangents, ``directions``."""
    bound = depending(roots, directions)
    read = dict.fromkeys(roots)
    for node in sorted(bound, key=lambda node: node.serial):
        read |= dict.fromkeys(node.args)
    return [node for node in read if node not in bound]


def border_of(known: Sequence[Node], there: Collection[Node]) -> list[Node]:
    """Those of the values ``there`` from which ``known`` can be computed."""
    found, seen = dict[Node, None](), set[Node]()
    stack = list(reversed(known))
    while stack:
        node = stack.pop()
        if node in there:
            found[node] = None
        elif node not in seen:
            seen.add(node)
            stack.extend(node.args)
    return list(found)


@dataclass
class _Plan:
    """What is there on the way back.

    ``fixed`` are values that are the same in all steps, ``stacked`` those that the loop's results hold,
    ``kept`` those that a second way there stacks. ``before`` and ``shifted`` are numbers of carries whose
    value before (after) the step comes from the stack of the other.
    """

    loop: Loop
    fixed: set[Node]
    varying: set[Node]
    unchanged: dict[Node, Node]
    stacked: dict[Node, Node]
    kept: set[Node] = field(default_factory=set)
    before: set[int] = field(default_factory=set)
    shifted: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, loop: Loop, results: Sequence[Node], known: Sequence[Node]) -> _Plan:
        """The cheapest plan."""
        carries, count = loop.inputs.carries, len(loop.after)
        unchanged = {
            x: arg for x, y, arg in zip(carries, loop.after, loop.args.carries, strict=True) if x is y
        }
        moving = [x for x in (*carries, *loop.inputs.slices) if x not in unchanged]
        stacked = {x: results[count + k] for k, x in enumerate(loop.made) if x not in loop.inputs.all}
        if loop.op == "scan":
            stacked |= dict(zip(loop.inputs.slices, loop.args.slices, strict=True))
        roots = [*known, *loop.roots]
        varying = depending(roots, moving)
        still = [*loop.inputs.constants, *unchanged]
        certain = loop.op == "scan" and loop.length > 0
        fixed = _fixed(depending(roots, still) - varying, still, certain)
        # What may fail stays in the steps, and may be stacked like what varies.
        varying |= {node for node in depending(roots, still) - fixed if may_fail(node)}
        plan = cls(loop, fixed, varying, unchanged, stacked)
        plan._choose([node for node in known if node in varying])
        return plan

    @property
    def there(self) -> set[Node]:
        """The varying values that need not be computed."""
        loop = self.loop
        return {
            *self.stacked,
            *self.kept,
            *(loop.inputs.carries[i] for i in self.before),
            *(loop.after[i] for i in self.shifted),
        }

    def _choose(self, needed: Sequence[Node]) -> None:
        """Cut, and cut again as long as a stack turns out to serve for another value too."""
        loop = self.loop
        pairs = [
            (i, x, y)
            for i, (x, y) in enumerate(zip(loop.inputs.carries, loop.after, strict=True))
            if x in self.varying and y in self.varying and y not in loop.inputs.all
        ]
        while True:
            kept = cut(needed, self.varying, self.there)
            has = self.there
            for i, x, y in pairs:
                after = y in kept or y in has
                if loop.op == "scan" and after and x not in has:
                    self.before.add(i)
                    self.kept |= {y} - has
                elif (x in kept or x in has) and y not in has:
                    self.shifted.add(i)
                    self.kept |= {x} - has
            if self.there == has:
                self.kept |= kept
                return


def _fixed(nodes: Collection[Node], still: Sequence[Node], certain: bool) -> set[Node]:
    """Those of ``nodes``, which depend on ``still`` alone, that are computed outside of the loop: not views,
    which cost nothing inside, and not what can fail unless it is ``certain`` that the loop runs a step.
    """
    found, failing = set(still), set[Node]()
    for node in sorted(nodes, key=lambda node: node.serial):
        if not certain and node not in found and (may_fail(node) or any(arg in failing for arg in node.args)):
            failing.add(node)
        elif not isinstance(node.op.lower, View) and not node.is_bundle:
            found.add(node)
    return found


def cut(needed: Sequence[Node], varying: Collection[Node], there: Collection[Node]) -> set[Node]:
    """The cheapest values to be stacked, so that ``needed`` can be computed from these, from what is
    ``there`` and from what does not vary.

    Each has two vertices: it is stacked where the cut lies between them.
    """
    below = [node for node in reachable([x for x in needed if x not in there], there) if node in varying]
    source, sink = 0, 1
    vertex = {node: 2 + 2 * k for k, node in enumerate(sorted(below, key=lambda node: node.serial))}
    network = Network(2 + 2 * len(vertex))
    for node, number in vertex.items():
        again = _again(node)
        if again:
            network.edge(source, number, again)
        elif again is None:
            network.edge(source, number, None)
        network.edge(number, number + 1, None if node.is_bundle else 2 * MEMORY * node.type.nbytes)
        for arg in dict.fromkeys(node.args):
            if arg in vertex:
                network.edge(vertex[arg] + 1, number, None)
    for node in dict.fromkeys(needed):
        if node in vertex:
            network.edge(vertex[node] + 1, sink, None)
    side = network.cut(source, sink)
    return {node for node, number in vertex.items() if side[number] and not side[number + 1]}


def _again(node: Node) -> int | None:
    """What computing a value again costs, in the units of `scalars` and bytes of float64; None: never."""
    lower = node.op.lower
    if isinstance(lower, View) or node.op.name == "item":
        return 0
    if not node.args or node.is_bundle:
        return None
    if node.op.name == "gather" and node.type.size == 1 and node.args[0].type.size > SMALL:
        return None  # reading it again would keep the whole array, which a loop around this one may change
    moved = max(node.type.nbytes, *(arg.type.nbytes for arg in node.args))
    if isinstance(lower, Scalar):
        return lower.cost * moved
    if isinstance(lower, Reduce | Scan):
        return moved
    if isinstance(lower, Decompose):
        return _of_parts(node, lower)
    return MEMORY * node.type.nbytes if node.op.name in COPIES else None


def _of_parts(node: Node, lower: Decompose) -> int | None:
    """The cost of a composite op: of all that it consists of."""
    b = Builder()
    args = [b.input(arg.type, "x") for arg in node.args]
    copy = b.emit(node.op, *args, **node.attrs)
    costs = [_again(part) for part in reachable([lower.expand(b, copy, *args)], args) if part.args]
    return None if None in costs else sum(cost or 0 for cost in costs)


# ---------------------------------------------------------------------------------------------- the way there


def _stacks(
    b: Builder, loop: Loop, results: Sequence[Node], plan: _Plan, border: Iterable[Node]
) -> dict[Node, Node]:
    """For each varying value of ``border`` its array or tape over the steps. Missing are values after a step
    that come from the step behind it, on tapes.
    """
    first = {loop.inputs.carries[i]: i for i in plan.before}
    second = {loop.after[i]: i for i in plan.shifted}
    border = list(border)
    bases = [
        loop.after[first[x]] if x in first else loop.inputs.carries[second[x]] if x in second else x
        for x in border
    ]
    kept = [x for x in dict.fromkeys(bases) if x not in plan.stacked]
    made = run(b, replace(loop, made=kept), ()).made
    arrays = dict(zip(kept, made, strict=True)) | plan.stacked
    stacks: dict[Node, Node] = {}
    for x, base in zip(border, bases, strict=True):
        array = arrays[base]
        if x in first:
            stacks[x] = _shifted(b, array, loop.args.carries[first[x]], front=not loop.reverse)
        elif x not in second:
            stacks[x] = array
        elif loop.op == "scan":
            stacks[x] = _shifted(b, array, results[second[x]], front=loop.reverse)
        elif base not in border:
            stacks[base] = array
    return stacks


def _shifted(b: Builder, array: Node, end: Node, front: bool) -> Node:
    """``array`` moved by one along its first axis, with ``end`` in the place that becomes free: in ``front``
    or at the end.
    """
    size, rest = array.shape[0], array.shape[1:]
    if size == 0:
        return array
    start = 0 if front else 1
    inner = elements(b, array, start, start + size - 1)
    row = b.reshape(end, shape=(1, *rest))
    return b.concatenate(*((row, inner) if front else (inner, row)), axis=0)


def _counted(b: Builder, loop: Loop, results: Sequence[Node], way: Loop) -> Loop:
    """A way back that reads nothing from tapes: one that goes as often as the loop."""
    if loop.op == "unwind" or loop.made:
        tape = loop.args.slices[0] if loop.op == "unwind" else results[len(loop.after)]
        value = b.input(record_of(tape), "step")
        return replace(
            way, args=way.args.joined(Parts([], [], [tape])), inputs=way.inputs.joined(Parts([], [], [value]))
        )
    one, count, left = b.const(1, I64), b.input(Type(I64, ()), "steps"), b.input(Type(I64, ()), "left")
    counting = replace(
        loop,
        args=loop.args.joined(Parts([], [b.const(0, I64)], [])),
        inputs=loop.inputs.joined(Parts([], [count], [])),
        after=[*loop.after, b.add(count, one)],
        made=[],
    )
    steps = run(b, counting, [len(loop.after)]).carries[len(loop.after)]
    return replace(
        way,
        op="while",
        args=way.args.joined(Parts([], [steps], [])),
        inputs=way.inputs.joined(Parts([], [left], [])),
        after=[*way.after, b.sub(left, one)],
        test=b.gt(left, b.const(0, I64)),
    )
