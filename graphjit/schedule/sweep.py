"""Steps that go over the same rows, run block by block while the block is in cache.

Job: of neighbouring kernels whose spaces share a long leading axis, and of products of tall matrices with small ones between them, make one step,
a sweep: all of them run on some rows, then on the next.  Sums down the columns of a tall matrix are one even alone.
Input: a fusion.  Output: the fusion with sweeps for such kernels.
Invariants: what a kernel reads of a value made in the same sweep lies in the same row; sums over the rows are complete only after the sweep,
so nothing inside it reads them; which rows make a block depends on shapes only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce
from graphjit.schedule.access import Address, space, storage
from graphjit.schedule.fuse import KERNEL_LIMIT, Fusion
from graphjit.schedule.program import Kernel, Product, Step, Sweep

MIN_ROWS = 256
"""Rows from which blocks are worth their loops."""
BLOCK_BYTES = 262_144
"""What the rows of a block may touch: half of a second-level cache that is small today."""
SHARED_BYTES = 131_072
"""Bytes of rows that more than one kernel touches from which a sweep pays."""
ROUND = 16
"""Rows of a block are a multiple of this, if they are that many: whole vectors."""
FEW = 4
"""Rows of a block at the least, of whatever width: sums over rows are taken up and put down once a block."""
TASKS = 32
"""Parts of a sweep that threads can claim, each with partial sums of its own."""
PARTIAL_BYTES = 262_144
"""Bytes of partial sums at most."""
THIN_BYTES = 131_072
"""Bytes of the small matrix of a product at most: it stays in the second-level cache beside a block of rows."""
PRODUCT_COST = 50
"""What a product counts for among the costs of kernels: it is a call."""


def join_sweeps(fusion: Fusion) -> Fusion:
    """``fusion`` with runs of kernels over the same rows as sweeps."""
    steps: list[Step] = []
    loads: list[set[Node]] = []
    moved: dict[int, int] = {}
    run = _Run(fusion)
    for i in range(len(fusion.steps) + 1):
        step = fusion.steps[i] if i < len(fusion.steps) else None
        if isinstance(step, Kernel | Product) and run.takes(step):
            run.add(i, step)
            continue
        for numbers, made in run.close():
            for number in numbers:
                moved[number] = len(steps)
            steps.append(made)
            loads.append(set().union(*(fusion.loads[number] for number in numbers)))
        if isinstance(step, Kernel | Product) and run.takes(step):
            run.add(i, step)
        elif step is not None:
            moved[i] = len(steps)
            steps.append(step)
            loads.append(fusion.loads[i])
    if not any(isinstance(step, Sweep) for step in steps):
        return fusion
    position = {node: moved[i] for node, i in fusion.position.items()}
    refusals = {(moved[i], node): why for (i, node), why in fusion.refusals.items()}
    return Fusion(steps, fusion.stored, position, fusion.reads, loads, fusion.places, refusals)


class _Run:
    """Kernels and products that may become one sweep."""

    def __init__(self, fusion: Fusion) -> None:
        self.fusion = fusion
        self.start()

    def start(self) -> None:
        self.numbers: list[int] = []
        self.rows = 0
        self.parts: list[Kernel | Product] = []
        self.made: dict[Node, bool] = {}  # values of the run -> whether they have rows
        self.touched: dict[Node, int] = {}  # bytes of a row of each value that is read or written row by row
        self.touches: dict[Node, int] = {}  # how many parts touch it
        self.sums = 0  # bytes of all sums over rows
        self.cost = 0

    def takes(self, part: Kernel | Product) -> bool:
        """Whether ``part`` can run block by block after the parts of the run."""
        rows = _rows(part)
        if rows < MIN_ROWS or (self.parts and (rows != self.rows or self.cost + _cost(part) > KERNEL_LIMIT)):
            return False
        if TASKS // 4 * (self.sums + _sum_bytes(part)) > PARTIAL_BYTES:
            return False
        return self.takes_product(part) if isinstance(part, Product) else self.takes_kernel(part)

    def takes_product(self, product: Product) -> bool:
        """Whether what a product reads is there, row by row, and what all rows need is made by nobody here."""
        x, y = (storage(arg) for arg in product.node.args)
        if self.fusion.places.get(product.node) or self.owns(x) or self.owns(y):
            return False
        return self.made.get(x, True) and (self.made.get(y, True) if sums_over_rows(product) else y not in self.made)

    def takes_kernel(self, kernel: Kernel) -> bool:
        """Whether what a kernel reads of values made in the run lies in the row that it computes."""
        if not all(kernel.space):
            return False
        if kernel.scan is not None and kernel.scan[0] == 0:  # a running value goes from block to block
            return False
        over_rows = kernel.axes is not None and 0 in kernel.axes
        if over_rows and any(member.phase for member in kernel.members):
            return False
        for member in kernel.members:
            for dep, address in self.fusion.reads[member.node]:
                rows = self.made.get(dep, dep.op.name != "concatenate" or not self.owns(dep))
                if dep in self.made or not rows:
                    if not rows or (member.outer and over_rows) or not _in_row(dep, address, member.node, kernel, member.outer):
                        return False
        return True

    def owns(self, owner: Node) -> bool:
        """Whether pieces of a concatenation are written in the run."""
        return any(place.owner is owner for node in self.made for place in self.fusion.places.get(node, ()))

    def add(self, number: int, part: Kernel | Product) -> None:
        rows = self.rows = _rows(part)
        here: dict[Node, int] = {}

        def note(node: Node, deps: list[Node], column: bool) -> None:
            self.made[node] = not column
            values = deps if column else [*deps, node]
            here.update((dep, dep.type.nbytes // rows) for dep in values if dep.shape and dep.shape[0] == rows)

        if isinstance(part, Product):
            note(part.node, [storage(arg) for arg in part.node.args], sums_over_rows(part))
        else:
            over_rows = part.axes is not None and 0 in part.axes
            for member in part.members:
                deps = [dep for dep, _ in self.fusion.reads[member.node]]
                note(member.node, deps, over_rows and (member.outer or isinstance(member.node.op.lower, Reduce)))
        self.touched.update(here)
        for node in here:
            self.touches[node] = self.touches.get(node, 0) + 1
        self.numbers.append(number)
        self.parts.append(part)
        self.sums += _sum_bytes(part)
        self.cost += _cost(part)

    def close(self) -> list[tuple[list[int], Step]]:
        """The steps that the run becomes: one sweep, or its parts as they were."""
        numbers, parts, rows = self.numbers, self.parts, self.rows
        shared = sum(self.touched[node] for node, times in self.touches.items() if times > 1)
        row = sum(self.touched.values())
        sums, row_by_row = self.sums, {node for node, has_rows in self.made.items() if has_rows}
        self.start()
        if len(parts) == 1:
            shared = row if _gains_alone(parts[0]) else 0
        if not parts or shared * rows < SHARED_BYTES:
            return [([number], part) for number, part in zip(numbers, parts, strict=True)]
        fitting = max(BLOCK_BYTES // max(row, 1), FEW)
        block = min(fitting // ROUND * ROUND or 1 << fitting.bit_length() - 1, rows)
        tasks = min(TASKS, max(PARTIAL_BYTES // max(sums, 1), 1))
        return [(numbers, Sweep(parts, rows, block, tasks, row_by_row))]


def _gains_alone(part: Kernel | Product) -> bool:
    """Whether one kernel is better run block by block: sums down several columns then have blocks of rows that threads can claim."""
    return isinstance(part, Kernel) and part.axes is not None and 0 in part.axes and len(part.axes) < len(part.space)


def sums_over_rows(product: Product) -> bool:
    """Whether a product in a sweep adds up products of columns of its operands; else its result has a row for each of theirs."""
    x = storage(product.node.args[0])
    return not (product.m == x.shape[0] and product.node.shape[0] == product.m and product.lhs[0] == math.prod(x.shape[1:]))


def _rows(part: Kernel | Product) -> int:
    """The rows over which a step could run block by block; 0 where it cannot."""
    if isinstance(part, Kernel):
        return part.space[0] if part.space else 0
    x, y = (storage(arg) for arg in part.node.args)
    if part.batch != 1 or part.n == 1 or part.m == 1 or not x.shape or not part.node.shape:
        return 0
    rows = x.shape[0]
    if sums_over_rows(part):
        fits = rows == part.k and part.lhs[1] == math.prod(x.shape[1:]) and y.shape[:1] == (rows,) and part.rhs == (math.prod(y.shape[1:]), 1)
    else:
        fits = part.k * part.n * y.dtype.itemsize <= THIN_BYTES
    return rows if fits else 0


def _cost(part: Kernel | Product) -> int:
    return part.cost if isinstance(part, Kernel) else PRODUCT_COST


def _sum_bytes(part: Kernel | Product) -> int:
    if isinstance(part, Product):
        return part.node.type.nbytes if sums_over_rows(part) else 0
    if part.axes is None or 0 not in part.axes:
        return 0
    return sum(member.node.type.nbytes for member in part.members if isinstance(member.node.op.lower, Reduce))


def _in_row(dep: Node, address: Address | None, node: Node, kernel: Kernel, outer: bool) -> bool:
    """Whether what is read of ``dep`` lies in the row that is being computed."""
    if address is None or not dep.shape or dep.shape[0] != kernel.space[0]:
        return False
    stride = math.prod(dep.shape[1:])
    extents: Mapping[int, int] = dict(enumerate(node.shape if outer else space(node)))
    if address[0] != stride:
        return False
    low = high = address.offset
    for axis, factor in address.terms.items():
        if axis != 0:
            last = factor * (extents[axis] - 1)
            low, high = low + min(0, last), high + max(0, last)
    return low >= 0 and high < stride
