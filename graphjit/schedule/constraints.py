"""Whether a value may be computed by a kernel that is already there, and if not, why.

Job: hold the constraints of fusion as one ordered list, `CONSTRAINTS`.  Each is a function with the name of
what must hold; it returns the reason, in words for the user, when that does not hold.  For example
`loops_agree` returns "iteration spaces differ: (8, 3) and (8,)".
Input: a `Trial`: a kernel, and a root that looks for one.  Output: the `Member` that the root becomes, or the
first reason why it does not.
Invariant: constraints look only; a later one may rely on what the earlier ones made sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from graphjit.ir.affine import Affine, linear, own_index
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce, Scan
from graphjit.limits import FusionLimits
from graphjit.schedule.access import Read, space
from graphjit.schedule.program import Kernel, Member, Step


def reduced_axes(node: Node) -> tuple[int, ...] | None:
    """The axes over which a node reduces its argument; None if it is no reduction."""
    return node.attrs["axes"] if isinstance(node.op.lower, Reduce) else None  # type: ignore[return-value]


def running_axis(node: Node) -> tuple[int, bool] | None:
    """The axis of a running sum and the like, and whether it runs from the end; None for other nodes."""
    return (node.attrs["axis"], node.attrs["reverse"]) if isinstance(node.op.lower, Scan) else None  # type: ignore[return-value]


@dataclass(eq=False)
class Root:
    """A value to be stored, with what decides where it may be computed."""

    node: Node
    reads: list[Read]
    """The stored values that it reads, with addresses."""
    loads: set[Node]
    """The same without addresses."""
    cost: int
    """Of one element, inlined expressions included."""
    owners: set[Node]
    """The concatenations that it is a piece of."""
    is_kept: bool
    """Whether it is stored in any case, rather than for its readers alone."""
    after: set[Node] = field(default_factory=set)
    """Stored values that must be there first, though it does not read them (`recompute`)."""

    def __post_init__(self) -> None:
        self.space = space(self.node)
        self.axes = reduced_axes(self.node)
        self.scan = running_axis(self.node)


class Trial:
    """A root beside a kernel that it might join; ``loads`` are the values that the kernel reads so far."""

    def __init__(self, kernel: Kernel, root: Root, loads: set[Node], limits: FusionLimits) -> None:
        self.kernel = kernel
        self.root = root
        self.loads = loads
        self.limits = limits
        self.same_space = root.space == kernel.space

    @cached_property
    def by_row(self) -> bool:
        """Whether the root has one value for each row of a kernel that reduces its rows."""
        kernel, root = self.kernel, self.root
        return (
            not self.same_space
            and kernel.axes is not None
            and root.axes is None
            and root.scan is None
            and root.node.shape == self.rows
        )

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Extents of the kernel's axes that are not reduced."""
        return tuple(self.kernel.space[i] for i in self.kernel.outer)

    @cached_property
    def kept_axes(self) -> tuple[int, ...]:
        """The axes that are not reduced when both are one kernel."""
        if self.kernel.axes is not None or self.root.axes is None:
            return self.kernel.outer
        return tuple(i for i in range(len(self.root.space)) if i not in self.root.axes)

    @cached_property
    def inner_reads(self) -> list[tuple[Member, Affine[int] | None]]:
        """What the root reads of values that the kernel computes, with addresses."""
        members = self.kernel.by_node
        return [(members[value], address) for value, address in self.root.reads if value in members]

    @cached_property
    def phase(self) -> int:
        """The phase in which the root could be computed: after the reductions whose results it reads."""
        after_reductions = 0 if self.by_row else 1
        return max(
            (member.phase + (after_reductions if member.is_row else 0) for member, _ in self.inner_reads),
            default=0,
        )

    def point(self, member: Member) -> Affine[int] | None:
        """The address at which the root must read a member's value; None if there is no such point."""
        value = member.node
        if not member.is_row:
            return None if self.by_row else linear(value.shape, own_index(value.shape))
        if self.by_row:
            return linear(value.shape, own_index(self.root.node.shape))
        index = own_index(self.kernel.space)
        return linear(value.shape, [index[axis] for axis in self.kept_axes])


# ---------------------------------------------------------------------------------------------- constraints

Constraint = Callable[[Trial], str]
"""Returns the reason why a root may not join a kernel; empty if it may, as far as this constraint goes."""


def reductions_agree(trial: Trial) -> str:
    """Reductions of one kernel reduce the same axes."""
    ours, theirs = trial.kernel.axes, trial.root.axes
    if trial.same_space and ours is not None and theirs is not None and ours != theirs:
        return f"they reduce over different axes: {ours} and {theirs}"
    return ""


def loops_agree(trial: Trial) -> str:
    """The root has the kernel's elements, or a value for each of its rows."""
    if not trial.same_space and not trial.by_row:
        return f"iteration spaces differ: {trial.kernel.space} and {trial.root.space}"
    return ""


def running_values_agree(trial: Trial) -> str:
    """Running values of one kernel run along the same axis, in the same direction."""
    ours, theirs = trial.kernel.scan, trial.root.scan
    if trial.same_space and ours is not None and theirs is not None and ours != theirs:
        return f"they have running values along different axes or directions: {ours} and {theirs}"
    return ""


def innermost_loop_is_free(trial: Trial) -> str:
    """A running value and a reduction in one kernel share the innermost loop."""
    scan = trial.kernel.scan or trial.root.scan
    axes = trial.kernel.axes if trial.kernel.axes is not None else trial.root.axes
    if trial.same_space and scan is not None and axes is not None and scan[0] not in axes:
        return f"a running value along axis {scan[0]} needs the innermost loop, the reduction {axes} too"
    return ""


def long_running_values_are_light(trial: Trial) -> str:
    """One long row runs on one thread: what is heavy stays outside, where blocks can run side by side."""
    scan = trial.kernel.scan or trial.root.scan
    if (
        trial.same_space
        and scan is not None
        and math.prod(trial.root.space) == trial.root.space[scan[0]] > trial.limits.tiny
        and trial.kernel.cost + trial.root.cost > trial.limits.serial_cost
    ):
        return "the running value would keep what is heavy from running in parallel"
    return ""


def cost_is_bounded(trial: Trial) -> str:
    """A kernel does not grow without end."""
    if trial.kernel.cost + trial.root.cost > trial.limits.kernel_cost:
        return f"the kernel would cost more than {trial.limits.kernel_cost} (register pressure, compile time)"
    return ""


def values_are_bounded(trial: Trial) -> str:
    """A kernel does not read and write very many values."""
    kernel = trial.kernel
    read = len(kernel.inputs) + sum(value not in kernel.by_node for value in trial.root.loads)
    if kernel.kept + read > trial.limits.kernel_values:
        return f"the kernel would read and write more than {trial.limits.kernel_values} values (compile time)"
    if len(kernel.members) >= trial.limits.kernel_members:
        return f"the kernel would compute more than {trial.limits.kernel_members} values (compile time)"
    return ""


def reads_are_at_the_same_point(trial: Trial) -> str:
    """What the root reads of the kernel's values, it reads where the loops just computed it."""
    for member, address in trial.inner_reads:
        expected = trial.point(member)
        if address is None or address != expected:
            return f"{member.node.op.name} is read at another point of the loops ({address!r} instead of {expected!r})"
    return ""


def whole_reductions_are_complete(trial: Trial) -> str:
    """Without rows, the result of a reduction is there only after all loops."""
    if trial.phase > 0 and not trial.by_row and not trial.kept_axes:
        return "it needs a whole reduction to be complete first"
    return ""


def rows_are_related(trial: Trial) -> str:
    """A value for each row follows from a value of the kernel."""
    if trial.by_row and not trial.inner_reads:
        return "it shares nothing with the kernel"
    return ""


def rows_hide_heavy_values(trial: Trial) -> str:
    """A heavy value for each row runs once at a time, which only the loop over a long row hides."""
    if not trial.by_row or trial.root.cost < trial.limits.heavy_row:
        return ""
    count = math.prod(trial.rows)
    if count >= trial.limits.many_rows and math.prod(trial.kernel.space) <= trial.limits.short_row * count:
        return "rows are so short that it is faster in lanes, as a kernel of its own"
    return ""


def data_is_shared(trial: Trial) -> str:
    """Large loops are joined only where that saves going over memory: what is read, or a concatenation whose
    pieces lie among each other.
    """
    if (
        math.prod(trial.kernel.space) > trial.limits.tiny
        and trial.root.loads.isdisjoint(trial.loads)
        and trial.root.owners.isdisjoint(trial.kernel.owners)
        and not trial.inner_reads
    ):
        return "it shares no data with the kernel"
    return ""


CONSTRAINTS: tuple[Constraint, ...] = (
    reductions_agree,
    loops_agree,
    running_values_agree,
    innermost_loop_is_free,
    long_running_values_are_light,
    cost_is_bounded,
    values_are_bounded,
    reads_are_at_the_same_point,
    whole_reductions_are_complete,
    rows_are_related,
    rows_hide_heavy_values,
    data_is_shared,
)


def joined(step: Step, root: Root, loads: set[Node], limits: FusionLimits) -> Member | str:
    """What ``root`` becomes in ``step``, whose reads so far are ``loads``; or why it does not join it."""
    if not isinstance(step, Kernel):
        return f"{step.nodes[0].op.name} runs as a call or loop nest of its own"
    trial = Trial(step, root, loads, limits)
    for constraint in CONSTRAINTS:
        reason = constraint(trial)
        if reason:
            return reason
    return Member(root.node, trial.phase, trial.by_row)
