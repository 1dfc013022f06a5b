"""Which results are written past the caches.

Job: mark the stores of results so large that nobody would find them in the caches again. The processor then
need not read each line before it is overwritten, and what is in the caches stays there.
Input and output: all loop kernels of a program: whether later steps read a result decides, too.
Invariant: a kernel that reads a buffer never streams to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from graphjit.ir.buffers import Buffer
from graphjit.ir.scalars import is_function
from graphjit.limits import Limits, TrafficLimits
from graphjit.loops import ir
from graphjit.loops.ir import For, Let, LoopKernel, Lowered, Multiply, Scalar, Statement, Store
from graphjit.schedule.access import storage
from graphjit.schedule.program import Program


def stream(lowered: Lowered, limits: Limits) -> Lowered:
    """Mark the stores of each kernel."""
    program, kernels = lowered.program, lowered.kernels
    last = _last_reads(program, kernels)
    made = dict(kernels)
    for i, step in enumerate(program.steps):
        if step.name in kernels:
            kernel = kernels[step.name]
            arguments = ir.parameters(kernel)
            kept = {buffer for buffer in arguments if last.get(buffer, i) > i}
            function = _Function(loaded(kernel.body), nbytes(arguments), kept, limits.traffic)
            made[step.name] = kernel.with_body(function.body(kernel.body))
    return Lowered(program, made)


def _last_reads(program: Program, kernels: Mapping[str, LoopKernel]) -> dict[Buffer, int]:
    """The position of the last step that reads each buffer."""
    found: dict[Buffer, int] = {}
    for i, step in enumerate(program.steps):
        read = (
            [program.buffers[storage(arg)] for arg in step.node.args]  # type: ignore[union-attr]
            if step.name not in kernels
            else loaded(kernels[step.name].body)
        )
        found.update((buffer, i) for buffer in read)
    return found


class _Function:
    """A kernel, or the body of a parallel loop, which becomes a function of its own.

    ``reads`` are buffers that it loads; ``touched`` are bytes of all buffers that it is given; ``kept`` are
    those that later steps read.
    """

    def __init__(
        self, reads: frozenset[Buffer], touched: int, kept: Collection[Buffer], limits: TrafficLimits
    ) -> None:
        self.reads = reads
        self.touched = touched
        self.kept = kept
        self.limits = limits

    def body(self, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """The statements with their stores marked."""
        return tuple(self.loop(s) if isinstance(s, For) else s for s in body)

    def loop(self, loop: For) -> For:
        """A loop with its stores marked."""
        if loop.kind == "parallel":
            shared = [buffer for buffer in ir.buffers(loop.body) if buffer.kind != "scratch"]
            inner = _Function(loaded(loop.body), nbytes(shared), self.kept, self.limits)
            return replace(loop, body=inner.body(loop.body))
        if loop.kind != "simd":
            return replace(loop, body=self.body(loop.body))
        if sum(isinstance(s, Store) for s in loop.body) != 1 or not is_light(loop):
            return loop
        return replace(loop, body=tuple(self.store(s, loop) for s in loop.body))

    def store(self, statement: Statement, loop: For) -> Statement:
        """A statement of a light loop in lanes, marked if it is its one result, a large one, which it only
        writes, element by element: heavy loops and those with several results lost by it.
        """
        if not isinstance(statement, Store) or statement.buffer in self.reads:
            return statement
        size = nbytes([statement.buffer])
        passes = size if statement.buffer in self.kept else self.touched
        row = statement.address[loop.axis] == 1 and not statement.combine and not statement.dynamic
        large = size >= self.limits.streamed_bytes and passes >= self.limits.last_cache
        return replace(statement, streamed=row and large)


def nbytes(buffers: Sequence[Buffer]) -> int:
    """Bytes of all of them."""
    return sum(buffer.nbytes for buffer in buffers)


def loaded(body: tuple[Statement, ...]) -> frozenset[Buffer]:
    """Buffers that statements read."""
    products = (s for s in ir.walk(body) if isinstance(s, Multiply))
    elements = (load.buffer for load in ir.loads(body))
    return frozenset((*elements, *(matrix.buffer for s in products for matrix in (s.x, s.y, s.out))))


def is_light(loop: For) -> bool:
    """Whether a loop in lanes has neither loops nor elementary functions in it: its memory traffic, and
    masks, are a good part of what it does.
    """
    return not any(
        isinstance(s, For) or (isinstance(s, Let) and isinstance(s.value, Scalar) and is_function(s.value.op))
        for s in loop.body
    )
