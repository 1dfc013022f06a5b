"""Rules on directions: sums over values that are zero but at one place are that place.

A Jacobian multiplies with ``select(diagonal, v, 0)``, one direction for each ``i``. Its sum over ``j`` is
``v`` at ``i``, and its product with a matrix is the matrix, scaled. So the Jacobian of ``w @ x`` is ``w``.
Only Jacobians make the op ``diagonal``: in a program of the user's, zero times infinity stays NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ops.contraction import free_axes
from graphjit.ops.masking import masked, without_axes
from graphjit.passes.rules.contraction import ORDER
from graphjit.passes.rules.rule import Rule


class Diagonal(NamedTuple):
    """A value that is zero unless its indices along two axes are equal."""

    first: int
    second: int
    value: Node


def _diagonal(node: Node) -> Diagonal | None:
    """``select(diagonal, v, 0)`` taken apart."""
    mask = masked(node)
    if mask is None or not mask.taken:
        return None
    axes = _equal_axes(mask.condition)
    return None if axes is None else Diagonal(*axes, mask.value)


def _equal_axes(condition: Node) -> tuple[int, int] | None:
    """The two axes along which a condition compares the index."""
    if condition.op.name == "broadcast_to":
        (inner,) = condition.args
        axes = _equal_axes(inner)
        lead = len(condition.shape) - len(inner.shape)
        if axes is None or any(inner.shape[a] != condition.shape[lead + a] for a in axes):
            return None
        return axes[0] + lead, axes[1] + lead
    if condition.op.name != "diagonal":
        return None
    shape, first, second, offset = condition.attrs.values()
    return (first, second) if not offset and shape[first] == shape[second] else None  # type: ignore


def _sum_one_hot(b: Builder, node: Node) -> Node | None:
    axes: Any = node.attrs["axes"]
    found = _diagonal(node.args[0])
    if found is None or len(axes) != 1 or axes[0] not in (found.first, found.second):
        return None
    (summed,) = axes
    kept = found.first if summed == found.second else found.second
    value = without_axes(b, found.value, (kept,))
    if value is None:
        return None
    # What was summed over takes the place of the axis that was kept.
    order = [a for a in range(len(node.args[0].shape)) if a != kept]
    wanted = [summed if a == kept else a for a in range(len(node.args[0].shape)) if a != summed]
    return b.transpose(value, perm=tuple(order.index(a) for a in wanted))


def _contract_one_hot(b: Builder, node: Node) -> Node | None:
    for side in (1, 0):
        found = _diagonal(node.args[side])
        if found is None:
            continue
        for free, summed in ((found.first, found.second), (found.second, found.first)):
            made = _scaled(b, node, side, found.value, free, summed)
            if made is not None:
                return made
    return None


def _scaled(b: Builder, node: Node, side: int, value: Node, free: int, summed: int) -> Node | None:
    """The contraction without the sum over ``summed``: the axis pairs the arguments as a batch does."""
    attrs: Any = node.attrs
    contract, batch = [list(axes) for axes in attrs["contract"]], [list(axes) for axes in attrs["batch"]]
    if summed not in contract[side] or free in contract[side] or free in batch[side]:
        return None
    narrow = without_axes(b, value, (free,))
    if narrow is None:
        return None
    free_x, free_y = (
        free_axes(len(arg.shape), tuple(contract[i]), tuple(batch[i])) for i, arg in enumerate(node.args)
    )
    lead = len(batch[0])
    at = contract[side].index(summed)
    other = contract[1 - side].pop(at)
    contract[side].pop(at)
    batch[side].append(summed)
    batch[1 - side].append(other)
    # The diagonal's operand has lost the axis ``free``.
    contract[side] = [a - (a > free) for a in contract[side]]
    batch[side] = [a - (a > free) for a in batch[side]]
    args = [narrow if i == side else arg for i, arg in enumerate(node.args)]
    made = b.contract(*args, contract=_tuples(contract), batch=_tuples(batch))
    # Its axes: the batch, the new pair, what is free. The pair goes where ``free`` was.
    position = (free_x if side == 0 else free_y).index(free) + (0 if side == 0 else len(free_x))
    rest = list(range(lead + 1, len(made.shape)))
    return b.transpose(made, perm=(*range(lead), *rest[:position], lead, *rest[position:]))


def _tuples(axes: list[list[int]]) -> Any:
    return tuple(tuple(part) for part in axes)


ZEROS = "zeros of the direction are left out, also where the other factor is infinite"
RULES = (
    Rule(
        "sum_one_hot",
        ("sum",),
        _sum_one_hot,
        "sum(select(diagonal, v, 0)) over j -> v at i, where v does not vary along i.",
        bound="a zero keeps its sign where 0.0 + -0.0 gave 0.0",
    ),
    Rule(
        "contract_one_hot",
        ("contract",),
        _contract_one_hot,
        "contract(x, select(diagonal, v, 0)) over j -> x * v with j in the place of i: no sum is left.",
        bound=f"{ORDER}; {ZEROS}",
    ),
)
