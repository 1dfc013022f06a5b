"""Print steps that hand values on, branches, and tapes: the parts of a kernel that is a loop in registers.

Input: statements of a kernel. Output: LLVM text in its function.
Invariant: what is handed on is a phi, for each vector where it differs from lane to lane; a loop that takes
long, or may never end, looks for signals now and then.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from graphjit.backend.llvm.entry.interrupts import INTERRUPTED, SYMBOL
from graphjit.backend.llvm.kernels.memory import Traffic
from graphjit.backend.llvm.kernels.registers import OUT_OF_MEMORY, Scope, Value
from graphjit.backend.llvm.kernels.scalar import kind, stored, vector
from graphjit.backend.llvm.tapes import LINK, give_back, lend, mark, record_bytes
from graphjit.backend.llvm.writing.text import Phi
from graphjit.ir.buffers import TAPES
from graphjit.ir.scalars import is_function
from graphjit.loops import ir
from graphjit.loops.estimate import USUAL_TRIPS, estimate
from graphjit.loops.ir import Check, Choose, Let, Peek, Push, Ref, Repeat, Statement

LOOK_EVERY = 1 << 14
"""Steps of a loop between two looks at the clock at most; a power of two."""
LOOK_LOOPS = 1 << 8
"""Loops one after the other between two looks at the clock; a power of two."""
LOOK_NS = 10_000_000
"""Estimated time of the steps between two looks."""
LOOK_FROM_NS = 10_000
"""Estimated time of a loop of known length from which it looks before it begins."""
MOST_INLINED = 8
"""Elementary functions in a loop up to which they are inlined, once for each vector: more would make its code
long."""


LOOK_FOR_OTHERS = "gj_look_for_others"
_LOOK_FOR_OTHERS = f"""; The first word of a context of tasks is the address of their status.
define internal void @{LOOK_FOR_OTHERS}(ptr %context, ptr %next) nounwind {{
entry:
  %raised = call i64 @{SYMBOL}(ptr %next)
  %none = icmp eq i64 %raised, 0
  br i1 %none, label %done, label %tell
tell:
  %status = load ptr, ptr %context
  store atomic i64 {INTERRUPTED}, ptr %status monotonic, align 8
  br label %done
done:
  ret void
}}"""


class Steps(Traffic):
    """What `KernelEmitter` knows of steps and branches."""

    def body(self, statements: Sequence[Statement]) -> None:
        """Print statements in order."""
        raise NotImplementedError

    def repeat(self, loop: Repeat) -> None:
        """Print steps that hand values on: a phi for each value and vector."""
        fn = self.fn
        head, body, done = fn.label("steps"), fn.label("step"), fn.label("done")
        starts = [self.every(carried.start, carried.ref) for carried in loop.carried]
        ends: list[tuple[list[list[str]], str]] = []
        nanoseconds = estimate(loop)
        every = look_every(loop, nanoseconds)
        if loop.holds is None and nanoseconds >= LOOK_FROM_NS:
            ends.append((starts, self.look(done)))
        goes_on = "true" if loop.holds is None else self.look_between()
        before = fn.current
        fn.do(f"br label %{head}")
        fn.start(head)
        counter = fn.phi("i64")
        counter.add("0", before)
        phis = [self.handed(c.ref, start, before) for c, start in zip(loop.carried, starts, strict=True)]
        self.bound[loop.axis] = counter.name
        self.scopes.append(Scope())
        vectors = 1 if self.lanes is None else self.lanes.unroll
        calls, self.scalars.calls = self.scalars.calls, _functions(loop) * vectors > MOST_INLINED
        awaited, self.scalars.awaited = self.scalars.awaited, True
        if loop.holds is not None:
            with fn.now_and_then(counter.name, every):
                self.look(done)
            self.body(loop.test)
            holds = fn.op(f"and i1 {goes_on}, {self.scalar(loop.holds)}")
            fn.do(f"br i1 {holds}, label %{body}, label %{done}")
            fn.start(body)
        self.prepare(loop.body)
        self.exits.append(done)
        self.lent(loop)
        self.exits.pop()
        self.scalars.calls, self.scalars.awaited = calls, awaited
        following = fn.op(f"add i64 {counter.name}, 1")
        lefts = [self.every(carried.after, carried.ref) for carried in loop.carried]
        if loop.holds is None and loop.extent > every:
            with fn.now_and_then(counter.name, every):
                ends.append((lefts, self.look(done)))
        counter.add(following, fn.current)
        for parts, left in zip(phis, lefts, strict=True):
            for phi, part in zip(parts, left, strict=True):
                phi.add(part, fn.current)
        ends.append((lefts, fn.current))
        fn.do(f"br i1 {self.is_more(loop, following)}, label %{head}, label %{done}")
        fn.start(done)
        if loop.holds is None:
            self.ended(loop, ends)
        self.scopes.pop()
        del self.bound[loop.axis]

    def is_more(self, loop: Repeat, following: str) -> str:
        """Whether another step may follow; a loop of unknown length ends where something failed: with what
        stands in for the values it might not.
        """
        if loop.holds is None:
            return self.fn.op(f"icmp slt i64 {following}, {loop.extent}")
        failing = any(map(can_fail, ir.walk((loop,))))
        code = self.fn.op(f"load i64, ptr {self.status}") if failing else "0"
        return self.fn.op(f"icmp eq i64 {code}, 0")

    def lent(self, loop: Repeat) -> None:
        """Print the body; tapes that loops inside wrote are given back before it writes on tapes itself."""
        if not loop.lends:
            self.body(loop.body)
            return
        own = len(loop.body) - isinstance(loop.body[-1], Push)
        free = mark(self.fn, self.bases[TAPES])
        self.body(loop.body[:own])
        give_back(self.fn, self.bases[TAPES], free)
        self.body(loop.body[own:])

    def alike(self, ref: Ref) -> bool:
        """Whether a value is one number: the same in all lanes."""
        return self.lanes is None or ref not in self.lanes.varying

    def every(self, ref: Ref, into: Ref) -> list[str]:
        """What becomes of ``into`` where it is ``ref``: its vectors, or its one number."""
        return [self.scalar(ref)] if self.alike(into) else self.vectors(ref)

    def phi(self, ref: Ref) -> Phi:
        """A phi for a value, or for one of its vectors."""
        return self.fn.phi(vector(kind(ref.dtype), 1 if self.alike(ref) else self.lanes.count))  # type: ignore[union-attr]

    def handed(self, ref: Ref, start: Sequence[str], before: str) -> list[Phi]:
        """Phis for a value that steps hand on."""
        phis = [self.phi(ref) for _ in start]
        for phi, part in zip(phis, start, strict=True):
            phi.add(part, before)
        self.values[ref] = Value([phi.name for phi in phis], ref.dtype, self.alike(ref))
        return phis

    def look_between(self) -> str:
        """Look for signals between loops of unknown length, one after the other. Whether they go on."""
        if not self.bound:
            return "true"
        fn, counter = self.fn, next(reversed(self.bound.values()))
        on = fn.label("begin")
        if self.lanes is not None:
            self.look(on)
        elif not counter.isdigit():
            with fn.now_and_then(counter, LOOK_LOOPS):
                self.look(on)
        fn.do(f"br label %{on}")
        fn.start(on)
        return fn.op(f"xor i1 {self.is_interrupted()}, true")

    def ended(self, loop: Repeat, ends: Sequence[tuple[list[list[str]], str]]) -> None:
        """What a loop of known length leaves, by the block in which it ended."""
        for i, carried in enumerate(loop.carried):
            parts = ends[-1][0][i]
            if len(ends) > 1:
                phis = [self.phi(carried.ref) for _ in parts]
                for left, block in ends:
                    for phi, part in zip(phis, left[i], strict=True):
                        phi.add(part, block)
                parts = [phi.name for phi in phis]
            self.values[carried.ref] = Value(parts, carried.ref.dtype, self.alike(carried.ref))

    def look(self, done: str) -> str:
        """Look for signals, if it is time; go to ``done`` when a handler raised, here or in another task. The
        block from which that goes.
        """
        fn = self.fn
        self.module.declare(SYMBOL, f"declare i64 @{SYMBOL}(ptr)")
        raised = fn.op(f"icmp ne i64 {fn.op(f'call i64 @{SYMBOL}(ptr {fn.zeroed_slot()})')}, 0")
        elsewhere = self.is_interrupted()
        ended, on = fn.label("ended"), fn.label("on")
        fn.do(f"br i1 {fn.op(f'or i1 {raised}, {elsewhere}')}, label %{ended}, label %{on}")
        fn.start(ended)
        fn.do(f"store i64 {INTERRUPTED}, ptr {self.status}")
        fn.do(f"br label %{done}")
        fn.start(on)
        return ended

    def look_for_others(self) -> str:
        """The function by which a caller looks for signals while it waits for tasks on other threads: they
        see its status. (Python's handlers run in the main thread only.)
        """
        self.module.declare(SYMBOL, f"declare i64 @{SYMBOL}(ptr)")
        self.module.ensure(LOOK_FOR_OTHERS, lambda _: _LOOK_FOR_OTHERS)
        return LOOK_FOR_OTHERS

    def is_interrupted(self) -> str:
        """Whether a signal handler raised before, in this task or in another."""
        status = self.fn.op("load atomic i64, ptr %status monotonic, align 8")
        return self.fn.op(f"icmp eq i64 {status}, {INTERRUPTED}")

    def push(self, statement: Push) -> None:
        """Write on tapes; where there is no memory the loop ends."""
        fn = self.fn
        sizes = [record_bytes(w.values[0].dtype, len(w.values)) for w in statement.writes]

        def full() -> None:
            fn.do(f"store i64 {OUT_OF_MEMORY}, ptr {self.status}")
            fn.do(f"br label %{self.exits[-1]}")

        piece = lend(fn, self.bases[statement.memory], sum(sizes), full)
        for write, offset in zip(statement.writes, itertools.accumulate(sizes[:-1], initial=0), strict=True):
            record = fn.op(f"getelementptr i8, ptr {piece}, i64 {offset}")
            fn.do(f"store i64 {self.scalar(write.before)}, ptr {record}")
            for at, ref in enumerate(write.values):
                of, value = stored(ref.dtype), self.scalar(ref)
                if of != kind(ref.dtype):
                    value = fn.op(f"zext {kind(ref.dtype)} {value} to {of}")
                place = fn.op(f"getelementptr i8, ptr {record}, i64 {LINK + at * ref.dtype.itemsize}")
                fn.do(f"store {of} {value}, ptr {place}")
            self.values[write.ref] = Value([fn.op(f"ptrtoint ptr {record} to i64")], write.ref.dtype, True)

    def peek(self, value: Peek, dtype: np.dtype) -> Value:
        """Read from a tape."""
        fn = self.fn
        record = fn.op(f"inttoptr i64 {self.scalar(value.tape)} to ptr")
        if value.at < 0:
            return Value([fn.op(f"load i64, ptr {record}")], dtype, True)
        place = fn.op(f"getelementptr i8, ptr {record}, i64 {LINK + value.at * dtype.itemsize}")
        of = stored(dtype)
        found = fn.op(f"load {of}, ptr {place}")
        if of != kind(dtype):
            found = fn.op(f"trunc {of} {found} to {kind(dtype)}")
        return Value([found], dtype, True)

    def choose(self, statement: Choose) -> None:
        """Print branches, of which one runs: a phi for each value that they leave."""
        fn = self.fn
        labels = fn.branches(self.scalar(statement.which), len(statement.branches))
        done = fn.label("done")
        ends: list[tuple[list[list[str]], str]] = []
        for number, (branch, label) in enumerate(zip(statement.branches, labels, strict=True)):
            fn.start(label)
            self.scopes.append(Scope())
            self.prepare(branch)
            self.body(branch)
            left = [self.every(values[number], ref) for ref, values in statement.results]
            self.scopes.pop()
            ends.append((left, fn.current))
            fn.do(f"br label %{done}")
        fn.start(done)
        for i, (ref, _) in enumerate(statement.results):
            phis = [self.phi(ref) for _ in ends[0][0][i]]
            for left, block in ends:
                for phi, part in zip(phis, left[i], strict=True):
                    phi.add(part, block)
            self.values[ref] = Value([phi.name for phi in phis], ref.dtype, self.alike(ref))


def look_every(loop: Repeat, nanoseconds: int) -> int:
    """Steps between two looks at the clock, a power of two, of a loop that is estimated to take so long."""
    steps = USUAL_TRIPS if loop.holds is not None else loop.extent
    wanted = LOOK_NS * steps // max(1, nanoseconds)
    return 1 << max(0, min(wanted, LOOK_EVERY).bit_length() - 1)


def can_fail(statement: Statement) -> bool:
    """Whether a statement can report an error."""
    return isinstance(statement, Check) or (
        isinstance(statement, Let) and isinstance(statement.value, ir.Scalar) and statement.value.check > 0
    )


def _functions(loop: Repeat) -> int:
    """Elementary functions in a loop."""
    lets = (s for s in ir.walk((loop,)) if isinstance(s, Let) and isinstance(s.value, ir.Scalar))
    return sum(is_function(let.value.op) for let in lets)  # type: ignore[union-attr]
