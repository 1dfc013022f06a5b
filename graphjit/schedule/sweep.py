"""Steps that go over the same rows, run block by block while the block is in cache.

Job: of neighbouring kernels whose spaces share a long leading axis, and of products of tall matrices with
small ones between them, make one step, a sweep: all of them run on some rows, then on the next. Sums down the
columns of a tall matrix are one even alone. Where products of a batch are among them (attention), the rows
are those of each element of the batch.
Input: a fusion.  Output: the fusion with sweeps for such kernels.
Invariants: what a kernel reads of a value made in the same sweep lies in the same row; sums over the rows are
complete only after the sweep, so nothing inside it reads them; which rows make a block depends on shapes
only.
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
PIECES = {128: 64, 512: 256, 2048: 1024}
"""From so many rows they are a multiple of more: whole blocks of the sums over them (`loops/passes/sums.py`).
"""
FEW = 4
"""Rows of a block at the least, of whatever width: sums over rows are taken up and put down once a block."""
TASKS = 32
"""Parts of a sweep that threads can claim, each with partial sums of its own."""
PARTIAL_BYTES = 262_144
"""Bytes of partial sums at most."""
THIN_BYTES = 131_072
"""Bytes of the small matrix of a product at most: it stays in the second-level cache beside a block of rows.
"""
MIN_BATCH = 4
"""Elements of a batch at the least: each is a task of its own."""
MIN_EACH = 128
"""Rows of each at the least: smaller matrices lie in the caches together, and are multiplied back to back by
code for their shape.
"""
EACH_BLOCK_BYTES = 524_288
"""What the rows of a block of theirs may touch: each block reads the small matrices whole, so blocks are
larger.
"""
MIN_BLOCK = 8
"""Rows of a block of theirs at the least, and rows of an element are a multiple of a block."""
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
        self.frame: tuple[int, ...] = ()  # (rows,), or (batch, rows)
        self.parts: list[Kernel | Product] = []
        self.made: dict[Node, bool] = {}  # values of the run -> whether they have rows
        self.touched: dict[Node, int] = {}  # bytes of a row of each value that is read or written row by row
        self.touches: dict[Node, int] = {}  # how many parts touch it
        self.sums = 0  # bytes of all sums over rows
        self.cost = 0

    def takes(self, part: Kernel | Product) -> bool:
        """Whether ``part`` can run block by block after the parts of the run."""
        frame = self.frame_of(part)
        if math.prod(frame) < MIN_ROWS or (len(frame) > 1 and frame[-1] < MIN_EACH):
            return False
        if self.parts and (frame != self.frame or self.cost + _cost(part) > KERNEL_LIMIT):
            return False
        sums = self.sums + _sum_bytes(part)
        if (sums // frame[0] if len(frame) > 1 else TASKS // 4 * sums) > PARTIAL_BYTES:
            return False
        return self.takes_product(part) if isinstance(part, Product) else self.takes_kernel(part)

    def frame_of(self, part: Kernel | Product) -> tuple[int, ...]:
        """The rows of a part: as in the run, where that is possible."""
        if isinstance(part, Kernel) and part.space[: len(self.frame)] == self.frame != ():
            return self.frame
        return _frame(part)

    def takes_product(self, product: Product) -> bool:
        """Whether what a product reads is there, row by row, and what all rows need is made by nobody
        here.
        """
        x, y = (storage(arg) for arg in product.node.args)
        if self.fusion.places.get(product.node) or self.owns(x) or self.owns(y):
            return False
        if product.batch > 1 and any(
            node in self.made and not _in_order(node, product, which) for which, node in enumerate((x, y))
        ):
            return False
        return self.made.get(x, True) and (
            self.made.get(y, True) if sums_over_rows(product) else y not in self.made
        )

    def takes_kernel(self, kernel: Kernel) -> bool:
        """Whether what a kernel reads of values made in the run lies in the row that it computes."""
        if not all(kernel.space):
            return False
        frame = self.frame or _frame(kernel)
        if kernel.scan is not None and kernel.scan[0] < len(
            frame
        ):  # a running value goes from block to block
            return False
        over_rows = kernel.axes is not None and any(axis < len(frame) for axis in kernel.axes)
        if over_rows and (len(frame) > 1 or any(member.phase for member in kernel.members)):
            return False
        for member in kernel.members:
            for dep, address in self.fusion.reads[member.node]:
                rows = self.made.get(dep, dep.op.name != "concatenate" or not self.owns(dep))
                if dep in self.made or not rows:
                    if (
                        not rows
                        or (member.outer and over_rows)
                        or not _in_row(dep, address, member.node, frame, member.outer)
                    ):
                        return False
        return True

    def owns(self, owner: Node) -> bool:
        """Whether pieces of a concatenation are written in the run."""
        return any(place.owner is owner for node in self.made for place in self.fusion.places.get(node, ()))

    def add(self, number: int, part: Kernel | Product) -> None:
        self.frame = self.frame_of(part)
        depth, rows = len(self.frame), math.prod(self.frame)
        here: dict[Node, int] = {}

        def note(node: Node, deps: list[Node], column: bool) -> None:
            self.made[node] = not column
            values = deps if column else [*deps, node]
            here.update((dep, dep.type.nbytes // rows) for dep in values if dep.shape[:depth] == self.frame)

        if isinstance(part, Product):
            note(part.node, [storage(arg) for arg in part.node.args], sums_over_rows(part))
        else:
            over_rows = part.axes is not None and 0 in part.axes
            for member in part.members:
                deps = [dep for dep, _ in self.fusion.reads[member.node]]
                note(
                    member.node,
                    deps,
                    over_rows and (member.outer or isinstance(member.node.op.lower, Reduce)),
                )
        self.touched.update(here)
        for node in here:
            self.touches[node] = self.touches.get(node, 0) + 1
        self.numbers.append(number)
        self.parts.append(part)
        self.sums += _sum_bytes(part)
        self.cost += _cost(part)

    def close(self) -> list[tuple[list[int], Step]]:
        """The steps that the run becomes: one sweep, or its parts as they were."""
        numbers, parts, frame = self.numbers, self.parts, self.frame
        shared = sum(self.touched[node] for node, times in self.touches.items() if times > 1)
        row = sum(self.touched.values())
        sums, row_by_row = self.sums, {node for node, has_rows in self.made.items() if has_rows}
        self.start()
        if len(parts) == 1:
            shared = row if _gains_alone(parts[0]) else 0
        separate: list[tuple[list[int], Step]] = [
            ([number], part) for number, part in zip(numbers, parts, strict=True)
        ]
        if not parts or shared * math.prod(frame) < SHARED_BYTES:
            return separate
        if len(frame) > 1:
            batch, rows = frame
            block = _divisor(rows, max(EACH_BLOCK_BYTES // max(row, 1), 1))
            pays = block >= MIN_BLOCK and any(isinstance(part, Product) for part in parts)
            return [(numbers, Sweep(parts, rows, block, batch, row_by_row, batch))] if pays else separate
        fitting = max(BLOCK_BYTES // max(row, 1), FEW)
        whole = max((piece for least, piece in PIECES.items() if fitting >= least), default=ROUND)
        block = min(fitting // whole * whole or 1 << fitting.bit_length() - 1, *frame)
        tasks = min(TASKS, max(PARTIAL_BYTES // max(sums, 1), 1))
        return [(numbers, Sweep(parts, frame[0], block, tasks, row_by_row))]


def _divisor(rows: int, most: int) -> int:
    """The largest block that divides the rows: whole vectors if there is such a one."""
    found = [block for block in range(1, min(rows, most) + 1) if rows % block == 0]
    return max(found, key=lambda block: (block % ROUND == 0, block))


def _gains_alone(part: Kernel | Product) -> bool:
    """Whether one kernel is better run block by block: sums down several columns then have blocks of rows
    that threads can claim.
    """
    return (
        isinstance(part, Kernel)
        and part.axes is not None
        and 0 in part.axes
        and len(part.axes) < len(part.space)
    )


def sums_over_rows(product: Product) -> bool:
    """Whether a product in a sweep adds up products of columns of its operands; else its result has a row for
    each of theirs.
    """
    x = storage(product.node.args[0])
    if (
        product.batch > 1
    ):  # in attention rows, terms and columns may be equally many: what lies in rows is read in rows
        return product.lhs[1] > product.lhs[0]
    return not (
        product.m == x.shape[0]
        and product.node.shape[0] == product.m
        and product.lhs[0] == math.prod(x.shape[1:])
    )


def _frame(part: Kernel | Product) -> tuple[int, ...]:
    """The rows over which a step could run block by block, after the elements of a batch if it has one; ()
    where it cannot.
    """
    if isinstance(part, Kernel):
        batched = len(part.space) > 1 and part.space[0] >= MIN_BATCH
        return part.space[: 2 if batched and part.space[0] < MIN_ROWS else 1]
    x, y = (storage(arg) for arg in part.node.args)
    if part.n == 1 or part.m == 1 or not x.shape or not part.node.shape:
        return ()
    small = part.k * part.n * y.dtype.itemsize <= THIN_BYTES
    if part.batch > 1:
        if part.batch < MIN_BATCH or part.node.shape[0] != part.batch:
            return ()
        if sums_over_rows(part):
            return (part.batch, part.k) if part.rhs[1] == 1 else ()
        return (part.batch, part.m) if small and part.node.shape[1] == part.m else ()
    rows = x.shape[0]
    if sums_over_rows(part):
        fits = (
            rows == part.k
            and part.lhs[1] == math.prod(x.shape[1:])
            and y.shape[:1] == (rows,)
            and part.rhs == (math.prod(y.shape[1:]), 1)
        )
    else:
        fits = small
    return (rows,) if fits else ()


def _in_order(node: Node, product: Product, which: int) -> bool:
    """Whether the rows of an operand of a batched product are those of ``node``, one after the other."""
    row = math.prod(node.shape[2:])
    rows = (product.lhs[1] if sums_over_rows(product) else product.lhs[0]) if which == 0 else product.rhs[0]
    return rows == row and product.batch_strides[which] == row * node.shape[1]


def _cost(part: Kernel | Product) -> int:
    return part.cost if isinstance(part, Kernel) else PRODUCT_COST


def _sum_bytes(part: Kernel | Product) -> int:
    if isinstance(part, Product):
        return part.node.type.nbytes if sums_over_rows(part) else 0
    if part.axes is None or 0 not in part.axes:
        return 0
    return sum(member.node.type.nbytes for member in part.members if isinstance(member.node.op.lower, Reduce))


def _in_row(dep: Node, address: Address | None, node: Node, frame: tuple[int, ...], outer: bool) -> bool:
    """Whether what is read of ``dep`` lies in the row that is being computed."""
    depth = len(frame)
    if address is None or dep.shape[:depth] != frame:
        return False
    stride = math.prod(dep.shape[depth:])
    extents: Mapping[int, int] = dict(enumerate(node.shape if outer else space(node)))
    if any(address[axis] != stride * math.prod(frame[axis + 1 :]) for axis in range(depth)):
        return False
    low = high = address.offset
    for axis, factor in address.terms.items():
        if axis >= depth:
            last = factor * (extents[axis] - 1)
            low, high = low + min(0, last), high + max(0, last)
    return low >= 0 and high < stride
