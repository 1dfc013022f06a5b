"""Which step computes which nodes, what it reads, and what each node and each line takes.

Job: share the estimates of steps among what they compute, so that "which line of mine costs most" has an
answer.
Input: a program with its loops. Output: nodes and values by step; nanoseconds by node.
Invariants: what is inlined counts in every step that computes it; the shares of a step's nodes sum up to what
`graphjit.loops.cost` says of the step. How they are shared is by the table of `graphjit.ir.scalars`: the
operations of a node, the elements that it loads and stores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphjit.ir.node import Node, bodies
from graphjit.ir.opdef import Reduce, Scan
from graphjit.ir.scalars import MEMORY, SERIAL
from graphjit.loops.cost import costs, trips
from graphjit.loops.ir import LoopKernel
from graphjit.schedule.access import SHARES, operands, space, storage
from graphjit.schedule.program import Assembly, Control, Cost, Kernel, Product, Program, Step, Sweep
from graphjit.schedule.roots import own_cost

Part = Kernel | Product | Assembly | Control
"""What computes without further parts."""


@dataclass
class Work:
    """What one part of a step does.

    Attributes:
        computes: what it stores or keeps, and what it computes on the way, in order.
        reads: the stored values that it reads and did not make, and who of ``computes`` reads each.
    """

    computes: list[Node] = field(default_factory=list)
    reads: dict[Node, list[Node]] = field(default_factory=dict)


def parts_of(step: Step) -> Sequence[Part]:
    """The parts of a sweep, or the step itself."""
    return step.parts if isinstance(step, Sweep) else (step,)


def work_of(program: Program, part: Part) -> Work:
    """Follow what is computed where it is read, from what a part stores down to what lies in memory."""
    own = set(part.nodes)
    roots = [part.node] if isinstance(part, Control) else part.nodes
    found = Work()
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for arg in operands(node):
            if storage(arg) in program.buffers and storage(arg) not in own:
                found.reads.setdefault(storage(arg), []).append(node)
            elif arg.op.name != "item" or arg in own:
                stack.append(arg)
    found.computes = sorted(seen | own, key=lambda node: node.serial)
    return found


def merged(works: Iterable[Work]) -> Work:
    """What several parts of one step do together: what one makes and another reads is no read."""
    computes: dict[Node, None] = {}
    reads: dict[Node, list[Node]] = {}
    for work in works:
        computes |= dict.fromkeys(work.computes)
        for value, readers in work.reads.items():
            reads.setdefault(value, []).extend(readers)
    return Work(list(computes), {value: readers for value, readers in reads.items() if value not in computes})


def step_work(program: Program, step: Step) -> Work:
    """What a step does."""
    return merged(work_of(program, part) for part in parts_of(step))


# ---------------------------------------------------------------------------------------------------- shares


def nanoseconds(program: Program, kernels: Mapping[str, LoopKernel]) -> int:
    """What all steps of a program take in one run."""
    return sum(costs(program, kernels).values(), Cost()).nanoseconds


def node_costs(program: Program, kernels: Mapping[str, LoopKernel]) -> dict[Node, float]:
    """Estimated nanoseconds of every node in one run, those in bodies of loops over all steps."""
    found: dict[Node, float] = {}
    _share_program(found, program, kernels, None)
    return found


def _share_program(
    found: dict[Node, float], program: Program, kernels: Mapping[str, LoopKernel], total: float | None
) -> None:
    """Share ``total`` nanoseconds among the steps of a program; None: what its steps take."""
    each = costs(program, kernels)
    whole = sum(each.values(), Cost()).nanoseconds
    factor = 1.0 if total is None else total / whole if whole else 0.0
    for step in program.steps:
        _share_step(found, program, step, kernels, each[step.name].nanoseconds * factor)


def _share_step(
    found: dict[Node, float], program: Program, step: Step, kernels: Mapping[str, LoopKernel], total: float
) -> None:
    if isinstance(step, Control) and step.inner:
        each = {role: nanoseconds(inner, kernels) for role, inner in step.inner.items()}
        whole = sum(each.values())
        for role, inner in step.inner.items():
            _share_program(found, inner, kernels, total * each[role] / whole if whole else 0.0)
        if not whole:
            _add(found, [(step.node, 1.0)], total)
        return
    if isinstance(step, Control):
        _add(found, list(_body_weights(step.node, 1.0)) or [(step.node, 1.0)], total)
        return
    weights = []
    for work in (work_of(program, part) for part in parts_of(step)):
        loads = Counter(reader for readers in work.reads.values() for reader in readers)
        weights += [(node, weight(node, loads[node])) for node in work.computes if not node.is_const]
    _add(found, weights, total)


def _add(found: dict[Node, float], weights: list[tuple[Node, float]], total: float) -> None:
    """Share a number by weights."""
    whole = sum(weight for _, weight in weights)
    for node, weight in weights:
        share = weight / whole if whole else 1 / len(weights)
        found[node] = found.get(node, 0.0) + total * share


def weight(node: Node, loads: int = 0) -> float:
    """Operations and loads of a node, in additions in lanes."""
    if node.op.name == "contract":
        return 2.0 * node.type.size * _summed(node)
    elements = math.prod(space(node)) if not node.is_bundle else 1
    operations = own_cost(node) + isinstance(node.op.lower, Reduce | Scan)
    return float(elements * (operations + MEMORY / SERIAL * loads))


def _summed(node: Node) -> int:
    """Terms of each sum of a contraction."""
    pairs: tuple[tuple[int, ...], tuple[int, ...]] = node.attrs["contract"]  # type: ignore[assignment]
    return math.prod(node.args[0].shape[axis] for axis in pairs[0])


def _body_weights(node: Node, times: float) -> Iterator[tuple[Node, float]]:
    """The weights of what runs in registers inside a loop or a choice."""
    for body in bodies(node):
        for inner in body.graph.nodes():
            steps = times * runs_of(node)
            if bodies(inner):
                yield from _body_weights(inner, steps)
            elif inner.op.name not in ("input", "const", "item", *SHARES):
                yield inner, weight(inner) * steps


def runs_of(node: Node) -> int:
    """How often the bodies of a node run: as `graphjit.loops.cost.trips` takes it."""
    return 1 if node.op.name == "cond" else trips(Control(node, [], {}))
