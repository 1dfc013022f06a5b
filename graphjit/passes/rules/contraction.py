"""Rules on contractions: a transpose beside one becomes part of its choice of axes, which costs nothing."""

from __future__ import annotations

from typing import Any

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ops.contraction import free_axes
from graphjit.passes.rules.rule import Rule

ORDER = "the order of summation is the lowering's choice: at most k * u * sum |x||y| for k products"


def _operand_transpose(b: Builder, node: Node) -> Node | None:
    attrs: Any = node.attrs
    args = list(node.args)
    contract, batch = list(attrs["contract"]), list(attrs["batch"])
    changed = False
    for i, arg in enumerate(args):
        if arg.op.name != "transpose":
            continue
        perm: Any = arg.attrs["perm"]
        free = [perm[a] for a in free_axes(len(arg.shape), contract[i], batch[i])]
        if free != sorted(free):
            continue  # the result's axes would come out in another order
        args[i] = arg.args[0]
        contract[i] = tuple(perm[a] for a in contract[i])
        batch[i] = tuple(perm[a] for a in batch[i])
        changed = True
    return b.contract(*args, contract=tuple(contract), batch=tuple(batch)) if changed else None


def _result_transpose(b: Builder, node: Node) -> Node | None:
    inner = node.args[0]
    if inner.op.name != "contract":
        return None
    x, y = inner.args
    attrs: Any = inner.attrs
    perm: Any = node.attrs["perm"]
    (cx, cy), (bx, by) = attrs["contract"], attrs["batch"]
    lead = len(bx)
    middle = len(x.shape) - len(cx)
    head, tail = perm[:lead], perm[lead:]
    if any(p >= lead for p in head):
        return None
    batch = tuple(bx[p] for p in head), tuple(by[p] for p in head)
    left, right = tuple(range(lead, middle)), tuple(range(middle, len(perm)))
    if tail == left + right:
        return b.contract(x, y, contract=(cx, cy), batch=batch)
    if tail == right + left:
        return b.contract(y, x, contract=(cy, cx), batch=batch[::-1])
    return None


RULES = (
    Rule(
        "contract_transpose",
        ("contract",),
        _operand_transpose,
        "contract(transpose(x), y) -> contract(x, y) with x's own axis numbers, where the free axes keep their order.",
        bound=ORDER,
    ),
    Rule(
        "transpose_contract",
        ("transpose",),
        _result_transpose,
        "transpose(contract(x, y)) -> contract(y, x) when it swaps the free axes of x and y, or permutes batch axes.",
        bound=ORDER,
        consumes=("contract",),
    ),
)
