"""Derivatives and batches of nodes that own a graph, by their rules.

- `transposed_jvp`, `transposed_vjp`: a rule for one mode from that for the other. Each is linear, and reverse
  mode of a linear function is its transpose.
- `Checkpoint`: what the way back needs is computed again. `Batched`: any rule over a batch.

Input: a node, its tangents or cotangents. Output: nodes, None for zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphjit.errors import DerivativeError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Node, reachable
from graphjit.ir.rule import Rule
from graphjit.transforms.batch import batch, repeated
from graphjit.transforms.control.unused import without_unused
from graphjit.transforms.effects import retold, told_for_each
from graphjit.transforms.forward import body_jvp
from graphjit.transforms.reverse import body_vjp, cotangents, summed
from graphjit.transforms.substitute import body_of, in_terms_of, substitute

Values = list[Node | None]


def transposed_jvp(
    b: Builder, rule: Rule, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]
) -> Values:
    """Cotangents of the arguments from a rule that pushes tangents."""
    directions: Values = [
        b.input(arg.type, "direction") if flag else None for arg, flag in zip(node.args, wanted, strict=True)
    ]
    pushed = rule.jvp(b, node, directions)
    return _transposed(b, directions, pushed, given, f"the forward rule of {rule.name}", "tangent")


def transposed_vjp(b: Builder, rule: Rule, node: Node, given: Sequence[Node | None]) -> Values:
    """Tangents of the results from a rule that pulls cotangents."""
    directions: Values = [b.input(type, "direction") if type.has_derivative else None for type in node.parts]
    pulled = rule.vjp(b, node, directions, [t is not None for t in given])
    return _transposed(b, directions, pulled, given, f"the backward rule of {rule.name}", "cotangent")


def _transposed(
    b: Builder,
    directions: Sequence[Node | None],
    made: Sequence[Node | None],
    given: Sequence[Node | None],
    what: str,
    of: str,
) -> Values:
    """For a linear function from ``directions`` to ``made``: its transpose, applied to ``given``.

    Raises:
        DerivativeError: the function is not linear.
    """
    pairs = [(m, g) for m, g in zip(made, given, strict=True) if m is not None and g is not None]
    seeds = summed(b, [m for m, _ in pairs], [g for _, g in pairs])
    found = iter(cotangents(b, seeds, [d for d in directions if d is not None]))
    values = [None if d is None else next(found) for d in directions]
    there = iter(without_unused(b, [value for value in values if value is not None]))
    values = [None if value is None else next(there) for value in values]
    unknown = {d for d in directions if d is not None}
    values = _rescheduled(b, values, unknown, next(iter(seeds.values()), None))
    if any(node in unknown for node in reachable([v for v in values if v is not None])):
        raise DerivativeError(
            f"{what} is not linear in its {of}, so the derivative in the other mode does not follow from it; "
            "declare that one too (custom_jvp serves both modes)"
        )
    return values


def _rescheduled(b: Builder, values: Values, unknown: set[Node], after: Node | None) -> Values:
    """``values`` in which `recompute` nodes wait for ``after``, where they waited for a direction: what a
    rule waits for is there when its transpose begins.
    """
    if after is None:
        return values
    late = set(unknown)
    replaced: dict[Node, Node] = {}
    roots = [value for value in values if value is not None]
    for node in sorted(reachable(roots), key=lambda node: node.serial):
        args = [replaced.get(arg, arg) for arg in node.args]
        if node.op.name == "recompute" and node.args[1] in late:
            args[1] = after
        if any(arg in late for arg in args):
            late.add(node)
        elif args != list(node.args):
            replaced[node] = b.copy(node, tuple(args))
    return [None if value is None else replaced.get(value, value) for value in values]


Policy = Callable[[Node], bool]
"""Whether a value of a region is kept for the way back."""


@dataclass(frozen=True)
class Checkpoint(Rule):
    """Differentiated like its body; reverse mode computes again what it needs of the region, but for what
    ``keeps`` says.

    The second computation starts from the arguments as `recompute` gives them: after the cotangent is there.
    So it is another computation than the first, however much they look alike.
    """

    name: str
    keeps: Policy | None = None

    def jvp(self, b: Builder, node: Node, given: Sequence[Node | None]) -> Values:
        """Through the body."""
        return body_jvp(b, node, given)

    def vjp(self, b: Builder, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]) -> Values:
        """Through the body, computed once more."""
        after = next((ct for ct in given if ct is not None), None)
        if after is None:
            return [None for _ in node.args]
        graph = body_of(node)
        first = dict(zip(graph.inputs, node.args, strict=True))
        known = {x: b.recompute(arg, after) for x, arg in first.items()}
        if self.keeps is not None:
            kept = [x for x in graph.nodes() if x not in first and x.args and self.keeps(x)]
            # What has a name is what the name was given to.
            kept += [x.args[0] for x in kept if x.op.name == "named" and x.args[0] not in first]
            values = zip(kept, substitute(b, kept, first), strict=True)
            known |= {x: b.recompute(value, after) for x, value in values}
        return body_vjp(b, node, given, wanted, known)

    def over_batch(
        self, node: Node, batched: Sequence[bool], size: int, varying: Mapping[Node, Node]
    ) -> Rule:
        """Itself: the body is the batch then."""
        return self


@dataclass(frozen=True)
class Batched(Rule):
    """A rule over a batch in some of the arguments; all results vary.

    It is the rule on one element, and that over the batch.
    """

    rule: Rule
    body: Body
    batched: tuple[bool, ...]
    size: int
    outside: tuple[tuple[Node, Node], ...] = ()
    """Values of one element that the user's rule may have kept, and their batches."""

    @classmethod
    def of(
        cls, rule: Rule, node: Node, batched: Sequence[bool], size: int, varying: Mapping[Node, Node]
    ) -> Batched:
        """The rule of ``node`` over a batch."""
        body = node.attrs["body"]
        assert isinstance(body, Body)
        return cls(rule, body, tuple(batched), size, tuple(varying.items()))

    @property
    def name(self) -> str:  # type: ignore[override]
        """The same."""
        return self.rule.name

    def _element(self, b: Builder, node: Node) -> tuple[Node, dict[Node, Node], dict[Node, Node]]:
        """The node for one element, what stands for its varying arguments, and for the others."""
        args = [b.input(x.type, "element") for x in self.body.graph.inputs]
        one = b.emit(node.op, *args, body=self.body, rule=self.rule)
        pairs = list(zip(args, node.args, self.batched, strict=True))
        varying = {x: actual for x, actual, flag in pairs if flag} | dict(self.outside)
        return one, varying, {x: actual for x, actual, flag in pairs if not flag}

    def jvp(self, b: Builder, node: Node, given: Sequence[Node | None]) -> Values:
        """The element's, over the batch."""
        start = len(b.told)
        one, varying, fixed = self._element(b, node)
        directions: Values = []
        for x, t, flag in zip(one.args, given, self.batched, strict=True):
            directions.append(None if t is None else b.input(x.type, "direction"))
            if t is not None:
                (varying if flag else fixed)[directions[-1]] = t  # type: ignore[index]
        pushed = in_terms_of(b, self.rule.jvp(b, one, directions), fixed)
        retold(b, start, fixed)
        return self._wide(b, pushed, varying, start)

    def vjp(self, b: Builder, node: Node, given: Sequence[Node | None], wanted: Sequence[bool]) -> Values:
        """The element's, over the batch; of an argument that does not vary their sum."""
        start = len(b.told)
        one, varying, fixed = self._element(b, node)
        directions: Values = []
        for type, ct in zip(one.parts, given, strict=True):
            directions.append(None if ct is None else b.input(type, "direction"))
            if ct is not None:
                varying[directions[-1]] = ct  # type: ignore[index]
        pulled = in_terms_of(b, self.rule.vjp(b, one, directions, wanted), fixed)
        retold(b, start, fixed)
        wide = self._wide(b, pulled, varying, start)
        return [
            value if value is None or flag else b.sum(value, axes=(0,))
            for value, flag in zip(wide, self.batched, strict=True)
        ]

    def _wide(
        self, b: Builder, values: Sequence[Node | None], varying: Mapping[Node, Node], start: int
    ) -> Values:
        """Values of one element over the batch, and effects from number ``start`` on."""
        told_for_each(b, b.told.take(start), varying, self.size)
        known = [value for value in values if value is not None]
        found = iter(zip(known, batch(b, known, varying), strict=True))
        made: Values = []
        for value in values:
            if value is None:
                made.append(None)
                continue
            one, wide = next(found)
            made.append(repeated(b, one, self.size) if wide is None else wide)
        return made

    def over_batch(
        self, node: Node, batched: Sequence[bool], size: int, varying: Mapping[Node, Node]
    ) -> Rule:
        """A batch of batches."""
        return Batched.of(self, node, batched, size, varying)
