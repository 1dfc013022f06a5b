"""Cut loops where a condition on the loop variable changes.

Job: reads of neighbours (a roll, padding with zeros, a concatenation) hang on conditions such as ``i < 1``,
which change once along a loop. Each long stretch between such *seams* becomes a loop of its own, in which
conditions are known: it has no tests, and no masks. Short stretches keep them.
Input and output: a loop kernel, before lanes are chosen.
Invariant: every iteration computes the same values, in the same order.

    for i0 in 0..500:                         for i0 in 0..1:
      t1 = lt i0 1                              t2 = load in0[i0 + 499]
      t2 = load in0[i0 + 499] where t1          ...
      t4 = load in0[i0 - 1] where t3          for i0 in 0..499:
      t5 = select t1 t2 t4                      t4 = load in0[i0]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphjit.ir.affine import Affine
from graphjit.ir.types import BOOL
from graphjit.limits import Limits, SeamLimits
from graphjit.loops.ir import (
    Accumulate,
    Address,
    Choose,
    Const,
    For,
    Index,
    Init,
    Let,
    Load,
    LoopKernel,
    Ref,
    Repeat,
    Scalar,
    Statement,
    defines,
    fresh_numbers,
    map_refs,
    open_accumulators,
    running,
    uses,
    walk,
)
from graphjit.loops.lowering.positions import ROW
from graphjit.loops.passes.sums import moved

Body = tuple[Statement, ...]
Stretch = tuple[int, int]
"""First iteration, and the one behind the last."""


def cut_at_seams(kernel: LoopKernel, limits: Limits) -> LoopKernel:
    """Cut loops at their seams."""
    constants = {
        s.ref: int(s.value.value)
        for s in walk(kernel.body)
        if isinstance(s, Let) and isinstance(s.value, Const) and s.ref.dtype.kind == "i"
    }
    if not constants:
        return kernel
    return kernel.with_body(_body(kernel.body, constants, fresh_numbers(kernel), limits.seams))


def _body(body: Body, constants: dict[Ref, int], numbers: Iterator[int], limits: SeamLimits) -> Body:
    made: list[Statement] = []
    for statement in body:
        if isinstance(statement, For):
            inner = _body(statement.body, constants, numbers, limits)
            made += _loop(replace(statement, body=inner), constants, numbers, limits)
        else:
            made.append(statement)
    return tuple(made)


def _loop(
    loop: For, constants: dict[Ref, int], numbers: Iterator[int], limits: SeamLimits
) -> list[Statement]:
    """``loop``, or its stretches."""
    if not _can_be_cut(loop):
        return [loop]
    tests = _tests(loop, constants)
    parts = _stretches(loop.extent, {test.seam for test in tests.values()}, limits.stretch)
    if len(parts) == 1 or len(parts) * len(walk(loop.body)) > limits.statements:
        return [loop]
    return [statement for part in parts for statement in _part(loop, part, tests, numbers)]


def _can_be_cut(loop: For) -> bool:
    """Whether a loop is a plain one whose body is short, and nobody needs every stage of a running value."""
    return (
        loop.kind == "serial"
        and loop.bound is None
        and loop.when is None
        and _iterations(loop.body) < ROW
        and not any(isinstance(s, Repeat | Choose) for s in walk(loop.body))
        and not running(loop)
    )


def _iterations(body: Body) -> int:
    """Iterations of the loops in a body, for each run of it."""
    return sum(s.extent * max(1, _iterations(s.body)) for s in body if isinstance(s, For))


class _Test:
    """A comparison of ``step * i + offset`` with a number, for iteration ``i`` of a loop."""

    def __init__(self, op: str, step: int, offset: int) -> None:
        self.op, self.step, self.offset = op, step, offset
        # The first iteration in which the answer is not that of all before.
        self.seam = -(offset // step) if step > 0 else offset // -step + 1

    def holds(self, i: int) -> bool:
        """The answer in an iteration."""
        return (self.step * i + self.offset >= 0) == (self.op == "ge")


def _tests(loop: For, constants: dict[Ref, int]) -> dict[Ref, _Test]:
    """The conditions in a loop that depend on its variable alone."""
    indices: dict[Ref, Address] = {}
    tests: dict[Ref, _Test] = {}
    for statement in loop.body:
        if not isinstance(statement, Let):
            continue
        value = statement.value
        if isinstance(value, Index) and value.value.terms.keys() == {loop.axis}:
            indices[statement.ref] = value.value
        elif isinstance(value, Scalar) and value.op in ("lt", "ge") and value.args[0] in indices:
            index, bound = indices[value.args[0]], constants.get(value.args[1])
            if bound is not None:
                tests[statement.ref] = _Test(value.op, index[loop.axis], index.offset - bound)
    return tests


def _stretches(extent: int, seams: set[int], long: int) -> list[Stretch]:
    """The iterations between seams; short stretches side by side are one."""
    found: list[Stretch] = []
    ends = [*sorted(seam for seam in seams if 0 < seam < extent), extent]
    for begin, end in zip([0, *ends], ends, strict=False):
        if found and end - begin < long and found[-1][1] - found[-1][0] < long:
            found[-1] = found[-1][0], end
        else:
            found.append((begin, end))
    return found


def _part(loop: For, part: Stretch, tests: dict[Ref, _Test], numbers: Iterator[int]) -> list[Statement]:
    """One stretch of a loop. It has accumulators of its own: some stretches run in lanes, others do not."""
    begin, end = part
    known = {
        ref: test.holds(begin) for ref, test in tests.items() if test.holds(begin) == test.holds(end - 1)
    }
    body = _without_unused(_folded(loop.body, known, {}), set())
    totals = open_accumulators(loop)
    refs = (*totals, *(ref for s in walk(body) for ref in defines(s)))
    own = {ref: Ref(next(numbers), ref.dtype) for ref in refs}
    body = tuple(map_refs(s, lambda ref: own.get(ref, ref)) for s in body)
    return [
        *(Init(own[ref], combine) for ref, combine in totals.items()),
        moved(replace(loop, body=body, extent=end - begin), Affine(begin)),
        *(Accumulate(ref, combine, own[ref]) for ref, combine in totals.items()),
    ]


def _folded(body: Body, known: dict[Ref, bool], same: dict[Ref, Ref]) -> Body:
    """Statements without what is ``known``; ``same`` are refs that are others."""
    made: list[Statement] = []
    for statement in body:
        statement = map_refs(statement, lambda ref: same.get(ref, ref))
        if isinstance(statement, For):
            statement = replace(statement, body=_folded(statement.body, known, same))
        elif isinstance(statement, Let):
            ref, value = statement.ref, statement.value
            if ref not in known and isinstance(value, Scalar):
                answer = _answer(value, known)
                if isinstance(answer, Ref):
                    same[ref] = answer
                    continue
                if answer is not None:
                    known[ref] = answer
            if ref in known:
                statement = Let(ref, Const(BOOL.type(known[ref])))
            elif isinstance(value, Load) and value.guard in known:
                loaded = replace(value, guard=None) if known[value.guard] else Const(ref.dtype.type(1))
                statement = Let(ref, loaded)
        made.append(statement)
    return tuple(made)


def _answer(value: Scalar, known: dict[Ref, bool]) -> bool | Ref | None:
    """What an operation gives whose conditions are known: an answer, or one of its arguments; None where that
    is open.
    """
    args = value.args
    if value.op == "select" and args[0] in known:
        return args[1] if known[args[0]] else args[2]
    if value.op == "not" and args[0] in known:
        return not known[args[0]]
    if value.op in ("and", "or"):
        for this, other in (args, args[::-1]):
            if this in known:
                decides = value.op == "or"
                return decides if known[this] == decides else other
    return None


def _without_unused(body: Body, needed: set[Ref]) -> Body:
    """Statements without definitions that nobody reads; ``needed`` is what those behind them read."""
    made: list[Statement] = []
    for statement in reversed(body):
        if isinstance(statement, Let) and statement.ref not in needed:
            if not (isinstance(statement.value, Scalar) and statement.value.check):
                continue
        if isinstance(statement, For):
            statement = replace(statement, body=_without_unused(statement.body, needed))
        needed.update(uses(statement))
        made.append(statement)
    return tuple(made[::-1])
