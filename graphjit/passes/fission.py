"""What the recurrence of a loop does not need does not belong into the loop.

A step of a `scan` that multiplies a matrix with a vector reads the whole matrix for two operations an
element. Over all steps at once it is a product of two matrices, which runs at many times the speed. Three
kinds of products can be taken out of a loop:

- *early*: products of its arrays alone. ``x[t] @ w`` for all ``t`` is ``x @ w``.
- *late*: products that only further results need. ``y[t] = h[t] @ v`` is ``h @ v`` after the loop.
- *sums*: a carry that adds up products, as the gradient of a weight does. The sum of ``outer(g[t], h[t])``
  over ``t`` is ``g.T @ h``.

What such a product needs of a step is stacked, where it is not stacked anyway.

Input and output: a graph. Invariants: which products move depends on shapes only; what is stacked for them is
no more memory traffic than it saves, and no more memory than `MOST_BYTES`; sums over time may be rounded in
another order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node, reachable, users, with_bodies
from graphjit.passes.bodies import inside, remade
from graphjit.transforms.batch import batch, repeated
from graphjit.transforms.control.loops import Loop, Parts, depending, opened, run
from graphjit.transforms.substitute import substitute

STEPS = 8
"""Steps of a loop from which it is split."""
MOST_BYTES = 1 << 28
"""Bytes that may be stacked for one product, and that a value of all steps may have that moves with it."""
VIEWS = ("transpose", "reshape", "broadcast_to", "slice", "embed", "flip")
"""Linear ops of one argument: a sum over time may be taken before them."""
ORDERS = ("transpose", "reshape")
"""Ops that only say how elements lie: what they are of is stacked instead."""


def fission(graph: Graph) -> Graph:
    """``graph`` with products taken out of its loops."""
    if not any(node.is_bundle for node in graph.nodes()):
        return graph
    return remade(inside(graph, fission), _split)


def _split(b: Builder, node: Node, args: list[Node], read: Collection[int]) -> Sequence[Node] | None:
    """The results of a `scan` with enough steps, None for others and where nothing can be taken out."""
    if node.op.name != "scan" or node.attrs["length"] < STEPS:  # type: ignore[operator]
        return None
    return _Split(b, node, args).results()


def why_inside(graph: Graph) -> list[tuple[Node, Node, str]]:
    """The products that are left in the loops of a graph after `fission`: loop, product, and why."""
    found: list[tuple[Node, Node, str]] = []
    for node in with_bodies(graph):
        if node.op.name in ("scan", "while"):
            loop = opened(Builder(), node)
            carries = {x: k for k, x in enumerate(loop.inputs.carries)}
            below = sorted(reachable(loop.roots), key=lambda node: node.serial)
            products = [each for each in below if each.op.name == "contract"]
            found += [(node, each, _why_inside(loop, carries, each)) for each in products]
    return found


def _why_inside(loop: Loop, carries: Mapping[Node, int], product: Node) -> str:
    """Why one product is in its loop."""
    needed = sorted({carries[node] for node in reachable([product]) if node in carries})
    names = " and ".join(str(node.attrs["name"]) for node, k in carries.items() if k in needed)
    if needed and product in set(reachable(loop.after)):
        return f"a step hands on what depends on it, and it needs {names}, which the step before handed on"
    if loop.op == "while":
        return "how many steps there will be is not known, so nothing is computed for all of them"
    if loop.length < STEPS:
        return f"{loop.length} steps are too few to split the loop ({STEPS})"
    if product not in depending(loop.outputs, {*carries, *loop.inputs.slices}):
        return "it is the same in each step, but can fail, and the loop may make none"
    if loop.length * product.type.nbytes > MOST_BYTES:
        return f"of all steps at once it would take {loop.length * product.type.nbytes} bytes"
    return "what would be stacked for it is more memory traffic than it saves"


@dataclass
class _Sum:
    """A carry that adds something up, and what has to be stacked for its sum over time."""

    carry: int
    added: Node
    leaves: list[Node] = field(default_factory=list)
    has_product: bool = False


class _Split:
    """One loop being split."""

    def __init__(self, b: Builder, node: Node, args: Sequence[Node]) -> None:
        self.b = b
        self.node = node
        self.loop = opened(b, node, args)
        self.length = self.loop.length
        self.count = len(self.loop.after)
        self.carried = set(self.loop.inputs.carries)
        self.arrays = dict(zip(self.loop.inputs.slices, self.loop.args.slices, strict=True))
        self.constants = dict(zip(self.loop.inputs.constants, self.loop.args.constants, strict=True))
        self.all = set(reachable(self.loop.outputs))
        self.recurrent = depending(self.loop.outputs, self.carried)
        self.varying = depending(self.loop.outputs, {*self.carried, *self.arrays})
        self.stacked = dict(self.arrays)
        """What lies stacked outside of the loop, as far as it is known."""
        self.early = self._early()

    def results(self) -> list[Node] | None:
        """The results of the loop; None if it stays as it is."""
        sums = self._sums()
        moved = {one.carry for one in sums}
        kept = [k for k in range(self.count) if k not in moved]
        late = self._late([self.loop.outputs[k] for k in kept])
        if not (self.early or sums or late):
            return None
        stay = [k for k in range(self.count, len(self.loop.outputs)) if k not in late]
        extra = self._extra(sums, late, [self.loop.outputs[k] for k in stay])
        values = self._run(kept, stay, extra)
        for k in late:
            values[k] = self._outside(self.loop.outputs[k], late[k])
        for one in sums:
            start = self.loop.args.carries[one.carry]
            values[one.carry] = self.b.add(start, self._total(one.added))
        return [values[k] for k in range(len(self.loop.outputs))]

    # ---------------------------------------------------------------------------------------- what may move

    def _early(self) -> dict[Node, Node]:
        """Products of arrays alone, and their values for all steps."""
        found = [
            node
            for node in self.all
            if node.op.name == "contract"
            and node in self.varying
            and node not in self.recurrent
            and self.length * node.type.nbytes <= MOST_BYTES
            and node.type.size <= sum(arg.type.size for arg in node.args)
        ]
        found.sort(key=lambda node: node.serial)
        return {node: self._outside(node, list(self.arrays)) for node in found}

    def _sums(self) -> list[_Sum]:
        """The carries that add up products, and others whose terms are stacked with these."""
        readers = users(self.all)
        found = [one for k in range(self.count) if (one := self._sum(k, readers)) is not None]
        chosen: list[_Sum] = []
        free = {*self.arrays, *self.early, *self.loop.outputs[self.count :]}
        for one in sorted(found, key=lambda one: not one.has_product):
            new = sum(leaf.type.nbytes for leaf in one.leaves if leaf not in free)
            worth = 2 * one.added.type.nbytes if one.has_product else 0
            if new <= worth and self.length * new <= MOST_BYTES:
                chosen.append(one)
                free.update(one.leaves)
        return chosen

    def _sum(self, k: int, readers: Mapping[Node, Sequence[Node]]) -> _Sum | None:
        """A carry that a step adds something to, and does nothing else with."""
        x, after = self.loop.inputs.carries[k], self.loop.after[k]
        if after.op.name != "add" or x not in after.args or x.dtype.kind != "f":
            return None
        if len(readers.get(x, ())) != 1 or readers.get(after) or self.loop.outputs.count(after) != 1:
            return None
        (added,) = [arg for arg in after.args if arg is not x] or [x]
        one = _Sum(k, added)
        return one if added is not x and self._terms(added, one) else None

    def _terms(self, node: Node, one: _Sum) -> bool:
        """Find what the sum over time of ``node`` is made of; False if it does not vary."""
        if node not in self.varying:
            return False
        if node.op.name == "add":
            return all(self._terms(arg, one) for arg in node.args)
        if node.op.name in (*VIEWS, "neg"):
            return self._terms(node.args[0], one)
        if node.op.name == "contract" and node not in self.early:
            one.has_product = True
            one.leaves += [_origin(arg) for arg in node.args if arg in self.varying]
        else:
            one.leaves.append(node)
        return True

    def _late(self, needed: Sequence[Node]) -> dict[int, list[Node]]:
        """Further results whose products the carries do not need, with what these read of a step."""
        inner = set(reachable(needed, self.early))
        found: dict[int, list[Node]] = {}
        free = {*self.arrays, *self.early}
        for k in range(self.count, len(self.loop.outputs)):
            out = self.loop.outputs[k]
            border = {*inner, *self.early, *self.carried, *self.arrays, *self.constants}
            outer = [node for node in reachable([out], border) if node not in border]
            if not any(node.op.name == "contract" for node in outer):
                continue
            read = {arg for node in outer for arg in node.args}
            leaves = [arg for arg in read if arg in border and arg in self.varying]
            leaves.sort(key=lambda node: node.serial)
            new = sum(leaf.type.nbytes for leaf in leaves if leaf not in free)
            moved = [part.nbytes for node in outer if node in self.varying for part in node.parts]
            if new <= 2 * out.type.nbytes and self.length * max(new, *moved, 0) <= MOST_BYTES:
                found[k] = leaves
        return found

    def _extra(
        self, sums: Sequence[_Sum], late: Mapping[int, Sequence[Node]], made: Collection[Node]
    ) -> list[Node]:
        """What is stacked besides."""
        leaves = [leaf for one in sums for leaf in one.leaves]
        late_ones = {self.loop.outputs[k] for k in late}
        leaves += [leaf for row in late.values() for leaf in row]
        there = {*self.arrays, *self.early, *made, *late_ones}
        return [leaf for leaf in dict.fromkeys(leaves) if leaf not in there]

    # ---------------------------------------------------------------------------------------------- the loop

    def _run(self, kept: Sequence[int], stay: Sequence[int], extra: Sequence[Node]) -> dict[int, Node]:
        """The loop with what stays in it; the values of its results, by their old numbers."""
        loop, args, inputs = self.loop, self.loop.args, self.loop.inputs
        self.stacked.update(self.early)
        stacked = [*(loop.outputs[k] for k in stay), *extra]
        new = {node: self.b.input(node.type, "before") for node in self.early}
        split = replace(
            loop,
            args=Parts(args.constants, [args.carries[k] for k in kept], [*args.slices, *self.early.values()]),
            inputs=Parts(
                inputs.constants, [inputs.carries[k] for k in kept], [*inputs.slices, *new.values()]
            ),
            after=[loop.after[k] for k in kept],
            made=stacked,
        )
        split = split.with_roots(substitute(self.b, split.roots, new))
        results = run(self.b.like(self.node), split)
        values = {k: results.carries[i] for i, k in enumerate(kept)}
        values.update(zip(stay, results.made, strict=False))
        self.stacked.update(zip(stacked, results.made, strict=True))
        return values

    # -------------------------------------------------------------------------------------- outside of it

    def _outside(self, node: Node, leaves: Sequence[Node]) -> Node:
        """``node`` for all steps at once, from the stacks of ``leaves``."""
        b = self.b
        one = {leaf: b.input(leaf.type, "step") for leaf in leaves}
        (made,) = substitute(b, [node], {**self.constants, **one})
        (wide,) = batch(b, [made], {x: self.stacked[leaf] for leaf, x in one.items()})
        return repeated(b, made, self.length) if wide is None else wide

    def _all_steps(self, node: Node) -> Node:
        """A value of a step, for all steps, from the stack of what it is a view of."""
        origin = _origin(node)
        return self.stacked[origin] if node is origin else self._outside(node, [origin])

    def _fixed(self, node: Node) -> Node:
        """A value that does not vary."""
        return substitute(self.b, [node], self.constants)[0]

    def _total(self, node: Node) -> Node:
        """The sum of ``node`` over time."""
        b = self.b
        if node.op.name == "add":
            return b.add(*map(self._total, node.args))
        if node.op.name in (*VIEWS, "neg"):
            return b.emit(node.op, self._total(node.args[0]), **node.attrs)
        if node.op.name != "contract" or node in self.early:
            stack = self.stacked.get(node) or self._all_steps(node)
            return b.sum(stack, axes=(0,))
        x, y = node.args
        if x not in self.varying:
            total = b.sum(self._all_steps(y), axes=(0,))
            return b.emit(node.op, self._fixed(x), total, **node.attrs)
        if y not in self.varying:
            total = b.sum(self._all_steps(x), axes=(0,))
            return b.emit(node.op, total, self._fixed(y), **node.attrs)
        return _over_time(b, node, self._all_steps(x), self._all_steps(y))


def _origin(node: Node) -> Node:
    """What a node is a rearrangement of."""
    while node.op.name in ORDERS:
        node = node.args[0]
    return node


def _over_time(b: Builder, node: Node, x: Node, y: Node) -> Node:
    """The sum over time of a contraction: time, the first axis of both stacks, is contracted too."""
    contract: Any = node.attrs["contract"]
    paired: Any = node.attrs["batch"]
    (cx, cy), (bx, by) = (tuple(tuple(a + 1 for a in axes) for axes in pair) for pair in (contract, paired))
    return b.contract(x, y, contract=((0, *cx), (0, *cy)), batch=(bx, by))
