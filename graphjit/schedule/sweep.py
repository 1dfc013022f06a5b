"""Steps that go over the same rows, run block by block while the block is in cache.

Job: find runs of neighbouring steps over the same long leading axis, and make one step of each, a *sweep*:
all of its parts run on some rows, then on the next. Parts are kernels, and products of a tall matrix with a
small one. In ``h = tanh(x @ w); loss = sum((h @ v - y) ** 2)`` with many rows, a block of rows goes through
both products while it is in cache. A kernel that sums down the columns of a tall matrix is a sweep even
alone: threads can claim its blocks. Where products of a batch are among the parts (attention), the rows are
those of each element of the batch.
Input: a fusion.  Output: the fusion with sweeps for such runs.
Invariants: what a part reads of a value made in the same sweep lies in the same row; sums over the rows are
complete only after the sweep, so nothing inside it reads them; which rows make a block depends on shapes
only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from graphjit.ir.affine import Affine
from graphjit.ir.node import Node
from graphjit.ir.opdef import Reduce
from graphjit.limits import Limits, SweepLimits
from graphjit.schedule.access import Address, space, storage
from graphjit.schedule.fuse import Fusion
from graphjit.schedule.program import Kernel, Member, Product, Step, Sweep

Frame = tuple[int, ...]
"""The rows that parts go over: (rows,), or (elements of a batch, rows of each)."""


def join_sweeps(fusion: Fusion, limits: Limits) -> Fusion:
    """``fusion`` with runs of steps over the same rows as sweeps."""
    steps: list[Step] = []
    loads: list[set[Node]] = []
    moved: dict[int, int] = {}  # numbers of steps before -> after

    def append(numbers: list[int], step: Step) -> None:
        moved.update(dict.fromkeys(numbers, len(steps)))
        steps.append(step)
        loads.append(set().union(*(fusion.loads[number] for number in numbers)))

    run = _Run(fusion, limits)
    for i, step in enumerate(fusion.steps):
        if not run.takes(step):
            for numbers, made in run.close():
                append(numbers, made)
            if not run.takes(step):
                append([i], step)
                continue
        assert isinstance(step, Kernel | Product)
        run.add(i, step)
    for numbers, made in run.close():
        append(numbers, made)
    if not any(isinstance(step, Sweep) for step in steps):
        return fusion
    position = {node: moved[i] for node, i in fusion.position.items()}
    refusals = {(moved[i], node): why for (i, node), why in fusion.refusals.items()}
    return Fusion(steps, fusion.stored, position, fusion.reads, loads, fusion.destinations, refusals)


class _Run:
    """Kernels and products that may become one sweep."""

    def __init__(self, fusion: Fusion, limits: Limits) -> None:
        self.fusion = fusion
        self.limits = limits.sweeps
        self.most_cost = limits.fusion.kernel_cost
        self.start()

    def start(self) -> None:
        """Without parts."""
        self.numbers: list[int] = []
        self.frame: Frame = ()
        self.parts: list[Kernel | Product] = []
        self.made: dict[Node, bool] = {}  # values of the run -> whether they have rows
        self.touched: dict[Node, int] = {}  # bytes of a row of each value that is read or written row by row
        self.touches: dict[Node, int] = {}  # how many parts touch it
        self.sums = 0  # bytes of all sums over rows
        self.cost = 0

    # ------------------------------------------------------------------------------------- what it may take

    def takes(self, step: Step) -> bool:
        """Whether ``step`` can run block by block after the parts of the run."""
        if not isinstance(step, Kernel | Product):
            return False
        frame = self.frame_of(step)
        if math.prod(frame) < self.limits.min_rows or (len(frame) > 1 and frame[-1] < self.limits.min_each):
            return False
        if self.parts and (frame != self.frame or self.cost + self.cost_of(step) > self.most_cost):
            return False
        sums = self.sums + _sum_bytes(step)
        partial = sums // frame[0] if len(frame) > 1 else self.limits.tasks // 4 * sums
        if partial > self.limits.partial_bytes:
            return False
        return self.takes_product(step) if isinstance(step, Product) else self.takes_kernel(step)

    def frame_of(self, part: Kernel | Product) -> Frame:
        """The rows of a part: as in the run, where that is possible."""
        if isinstance(part, Kernel) and part.space[: len(self.frame)] == self.frame != ():
            return self.frame
        return _frame(part, self.limits)

    def cost_of(self, part: Kernel | Product) -> int:
        """What a part counts for in the cost of a sweep."""
        return part.cost if isinstance(part, Kernel) else self.limits.product_cost

    def takes_product(self, product: Product) -> bool:
        """Whether what a product reads is there, row by row, and what all rows need is made by nobody
        here.
        """
        x, y = (storage(arg) for arg in product.node.args)
        if self.fusion.destinations.get(product.node) or self.makes_pieces_of(x) or self.makes_pieces_of(y):
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
        frame = self.frame or _frame(kernel, self.limits)
        if not all(kernel.space) or not _runs_by_blocks(kernel, len(frame)):
            return False
        over_rows = kernel.sums_over(len(frame))
        return all(
            self.reads_its_row(value, address, member, frame, over_rows)
            for member in kernel.members
            for value, address in self.fusion.reads[member.node]
        )

    def reads_its_row(
        self, value: Node, address: Address | None, member: Member, frame: Frame, over_rows: bool
    ) -> bool:
        """Whether a read is of what was there before the run, or of the row that is being computed."""
        unfinished = value.op.name == "concatenate" and self.makes_pieces_of(value)
        if value not in self.made and not unfinished:
            return True
        if unfinished or not self.made[value] or (member.outer and over_rows):
            return False
        return _in_row(value, address, member.node, frame, member.outer)

    def makes_pieces_of(self, node: Node) -> bool:
        """Whether pieces of a concatenation are made in the run."""
        destinations = self.fusion.destinations
        return any(piece.owner is node for made in self.made for piece in destinations.get(made, ()))

    # -------------------------------------------------------------------------------------- what it becomes

    def add(self, number: int, part: Kernel | Product) -> None:
        """Take a part, which is step ``number``."""
        self.frame = self.frame_of(part)
        depth, rows = len(self.frame), math.prod(self.frame)
        bytes_of_row: dict[Node, int] = {}
        for node, values, is_sum in self.computed_by(part):
            self.made[node] = not is_sum
            for value in values if is_sum else (*values, node):
                if value.shape[:depth] == self.frame:
                    bytes_of_row[value] = value.type.nbytes // rows
        self.touched.update(bytes_of_row)
        for node in bytes_of_row:
            self.touches[node] = self.touches.get(node, 0) + 1
        self.numbers.append(number)
        self.parts.append(part)
        self.sums += _sum_bytes(part)
        self.cost += self.cost_of(part)

    def computed_by(self, part: Kernel | Product) -> Iterator[tuple[Node, list[Node], bool]]:
        """(value, what it is computed from, whether it is a sum over rows) of everything a part makes."""
        if isinstance(part, Product):
            yield part.node, [storage(arg) for arg in part.node.args], sums_over_rows(part)
            return
        over_rows = part.sums_over(1)
        for member in part.members:
            is_sum = over_rows and member.is_row
            yield member.node, [value for value, _ in self.fusion.reads[member.node]], is_sum

    def close(self) -> list[tuple[list[int], Step]]:
        """The steps that the run becomes, each with the numbers of those it stands for: one sweep, or the
        parts as they were.  Afterwards the run is empty.
        """
        numbers, parts = self.numbers, self.parts
        sweep = self.sweep() if parts and self.pays() else None
        self.start()
        if sweep is not None:
            return [(numbers, sweep)]
        return [([number], part) for number, part in zip(numbers, parts, strict=True)]

    def pays(self) -> bool:
        """Whether the parts touch enough bytes in common, or one of them gains from blocks by itself."""
        if len(self.parts) == 1:
            shared = sum(self.touched.values()) if _gains_alone(self.parts[0]) else 0
        else:
            shared = sum(self.touched[node] for node, times in self.touches.items() if times > 1)
        return shared * math.prod(self.frame) >= self.limits.shared_bytes

    def sweep(self) -> Sweep | None:
        """The parts as one step; None if the elements of a batch do not divide into blocks."""
        limits, frame = self.limits, self.frame
        row = max(sum(self.touched.values()), 1)
        row_by_row = {node for node, has_rows in self.made.items() if has_rows}
        if len(frame) > 1:
            batch, rows = frame
            block = _divisor(rows, max(limits.each_block_bytes // row, 1), limits.whole_rows)
            if block < limits.min_each_block or not any(isinstance(part, Product) for part in self.parts):
                return None
            return Sweep(self.parts, rows, block, batch, row_by_row, batch)
        fitting = max(limits.block_bytes // row, limits.min_block)
        multiples = [multiple for least, multiple in limits.whole_sums if fitting >= least]
        multiple = max(multiples, default=limits.whole_rows)
        block = min(fitting // multiple * multiple or 1 << fitting.bit_length() - 1, *frame)
        tasks = min(limits.tasks, max(limits.partial_bytes // max(self.sums, 1), 1))
        return Sweep(self.parts, frame[0], block, tasks, row_by_row)


def _runs_by_blocks(kernel: Kernel, depth: int) -> bool:
    """Whether the first ``depth`` axes of a kernel can be cut into blocks of rows."""
    if kernel.scan is not None and kernel.scan[0] < depth:
        return False  # a running value goes from block to block
    return not kernel.sums_over(depth) or (depth == 1 and not any(member.phase for member in kernel.members))


def _divisor(rows: int, most: int, whole: int) -> int:
    """The largest block that divides the rows: a multiple of ``whole`` if there is such a one."""
    blocks = [block for block in range(1, min(rows, most) + 1) if rows % block == 0]
    return max(blocks, key=lambda block: (block % whole == 0, block))


def _gains_alone(part: Kernel | Product) -> bool:
    """Whether one kernel is better run block by block: sums down several columns then have blocks of rows
    that threads can claim.
    """
    return isinstance(part, Kernel) and part.sums_over(1) and bool(part.outer)


def sums_over_rows(product: Product) -> bool:
    """Whether a product in a sweep adds up over the rows, as ``x.T @ g`` does; else, as ``x @ w``, it makes a
    row of its result from each row.
    """
    x = storage(product.node.args[0])
    if product.batch > 1:
        # In attention rows, terms and columns may be equally many: what lies in rows is read in rows.
        return product.lhs[1] > product.lhs[0]
    return not (
        product.m == x.shape[0]
        and product.node.shape[0] == product.m
        and product.lhs[0] == math.prod(x.shape[1:])
    )


def _frame(part: Kernel | Product, limits: SweepLimits) -> Frame:
    """The rows over which a step could run block by block, after the elements of a batch if it has one; ()
    where it cannot.
    """
    if isinstance(part, Kernel):
        batched = len(part.space) > 1 and limits.min_batch <= part.space[0] < limits.min_rows
        return part.space[: 2 if batched else 1]
    x, _ = (storage(arg) for arg in part.node.args)
    if (
        part.n == 1
        or part.m == 1
        or part.node.op.name == "contract_windows"
        or not x.shape
        or not part.node.shape
    ):
        return ()
    return _batch_frame(part, limits) if part.batch > 1 else _product_frame(part, limits)


def _is_thin(product: Product, limits: SweepLimits) -> bool:
    """Whether the right-hand matrix is small enough to be read whole for each block of rows."""
    y = storage(product.node.args[1])
    return product.k * product.n * y.dtype.itemsize <= limits.thin_bytes


def _batch_frame(product: Product, limits: SweepLimits) -> Frame:
    """Elements of a batch, and rows of each."""
    if product.batch < limits.min_batch or product.node.shape[0] != product.batch:
        return ()
    if sums_over_rows(product):
        return (product.batch, product.k) if product.rhs[1] == 1 else ()
    by_rows = _is_thin(product, limits) and product.node.shape[1] == product.m
    return (product.batch, product.m) if by_rows else ()


def _product_frame(product: Product, limits: SweepLimits) -> Frame:
    """Rows of a product that is no batch."""
    x, y = (storage(arg) for arg in product.node.args)
    rows = x.shape[0]
    if not sums_over_rows(product):
        return (rows,) if _is_thin(product, limits) else ()
    both_lie_in_rows = (
        rows == product.k
        and product.lhs[1] == math.prod(x.shape[1:])
        and y.shape[:1] == (rows,)
        and product.rhs == (math.prod(y.shape[1:]), 1)
    )
    return (rows,) if both_lie_in_rows else ()


def _in_order(node: Node, product: Product, which: int) -> bool:
    """Whether the rows of an operand of a batched product are those of ``node``, one after the other."""
    row = math.prod(node.shape[2:])
    rows = (product.lhs[1] if sums_over_rows(product) else product.lhs[0]) if which == 0 else product.rhs[0]
    return rows == row and product.batch_strides[which] == row * node.shape[1]


def _sum_bytes(part: Kernel | Product) -> int:
    """Bytes of the sums over rows that a part makes."""
    if isinstance(part, Product):
        return part.node.type.nbytes if sums_over_rows(part) else 0
    if not part.sums_over(1):
        return 0
    return sum(member.node.type.nbytes for member in part.members if isinstance(member.node.op.lower, Reduce))


def _in_row(value: Node, address: Address | None, node: Node, frame: Frame, outer: bool) -> bool:
    """Whether what ``node`` reads of ``value`` lies in the row that is being computed."""
    depth = len(frame)
    if address is None or value.shape[:depth] != frame:
        return False
    stride = math.prod(value.shape[depth:])
    extents: Mapping[int, int] = dict(enumerate(node.shape if outer else space(node)))
    if any(address[axis] != stride * math.prod(frame[axis + 1 :]) for axis in range(depth)):
        return False
    low, high = Affine(address.offset, {a: c for a, c in address.terms.items() if a >= depth}).span(extents)
    return low >= 0 and high < stride
