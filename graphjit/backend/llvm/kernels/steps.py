"""Print steps that hand values on, branches, and tapes: the parts of a kernel that is a loop in registers.

Input: statements of a kernel. Output: LLVM text in its function.
Invariant: what is handed on is a phi, for each vector where it differs from lane to lane; a loop that may
never end looks for signals now and then.
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
from graphjit.loops.ir import Check, Choose, Let, Peek, Push, Ref, Repeat, Statement

LOOK_EVERY = 1 << 20
"""Steps of a loop of unknown length between two looks for signals; a power of two."""
MOST_INLINED = 8
"""Elementary functions in a loop up to which they are inlined, once for each vector: more would make its code
long."""


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
            self.look(counter.name, done)
            self.body(loop.test)
            fn.do(f"br i1 {self.scalar(loop.holds)}, label %{body}, label %{done}")
            fn.start(body)
        self.prepare(loop.body)
        self.exits.append(done)
        self.lent(loop)
        self.exits.pop()
        self.scalars.calls, self.scalars.awaited = calls, awaited
        following = fn.op(f"add i64 {counter.name}, 1")
        counter.add(following, fn.current)
        lefts = [self.every(carried.after, carried.ref) for carried in loop.carried]
        for parts, left in zip(phis, lefts, strict=True):
            for phi, part in zip(parts, left, strict=True):
                phi.add(part, fn.current)
        if loop.holds is not None:
            # Where something failed the loop ends: with what stands in for the values it might not.
            failing = any(map(can_fail, ir.walk((loop,))))
            code = fn.op(f"load i64, ptr {self.status}") if failing else "0"
            fn.do(f"br i1 {fn.op(f'icmp eq i64 {code}, 0')}, label %{head}, label %{done}")
        else:
            more = fn.op(f"icmp slt i64 {following}, {loop.extent}")
            fn.do(f"br i1 {more}, label %{head}, label %{done}")
            for carried, left in zip(loop.carried, lefts, strict=True):
                self.values[carried.ref] = Value(left, carried.ref.dtype, self.alike(carried.ref))
        fn.start(done)
        self.scopes.pop()
        del self.bound[loop.axis]

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

    def look(self, counter: str, done: str) -> None:
        """Now and then, in a loop that may never end, look for signals; end it when a handler raised."""
        fn = self.fn
        self.module.declare(SYMBOL, f"declare i64 @{SYMBOL}(ptr)")
        with fn.now_and_then(counter, LOOK_EVERY):
            slot = fn.shared_slot("{ i64 }")
            fn.do(f"store i64 1, ptr {slot}")  # a time long ago: look now
            raised = fn.op(f"icmp ne i64 {fn.op(f'call i64 @{SYMBOL}(ptr {slot})')}, 0")
            ended, on = fn.label("ended"), fn.label("on")
            fn.do(f"br i1 {raised}, label %{ended}, label %{on}")
            fn.start(ended)
            fn.do(f"store i64 {INTERRUPTED}, ptr {self.status}")
            fn.do(f"br label %{done}")
            fn.start(on)

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


def can_fail(statement: Statement) -> bool:
    """Whether a statement can report an error."""
    return isinstance(statement, Check) or (
        isinstance(statement, Let) and isinstance(statement.value, ir.Scalar) and statement.value.check > 0
    )


def _functions(loop: Repeat) -> int:
    """Elementary functions in a loop."""
    lets = (s for s in ir.walk((loop,)) if isinstance(s, Let) and isinstance(s.value, ir.Scalar))
    return sum(is_function(let.value.op) for let in lets)  # type: ignore[union-attr]
