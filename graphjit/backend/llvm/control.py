"""Print loops and choices: the driver runs the programs inside, with other pointers each time.

Job: blocks, counters, and the pointers that move: an element of each array, the two places of each carry.
Input: a `Control` of a program, pointers to its arguments and results. Output: code in the driver.
Invariants: nothing is copied but a result that a loop of unknown length left in its other place; a loop that
takes long looks for signals.

A carry has two places. Step t reads one and writes the other, and the first reads the initial value where it
lies. Three pointers follow each other: what is read, what is written, what will be written next. A carry that
stays has one place, to which its initial value is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

from graphjit.backend.llvm.tapes import LINK, Tapes, give_back, mark, record_bytes
from graphjit.backend.llvm.writing.text import Function, Phi
from graphjit.ir.types import Type
from graphjit.schedule.loops.control import Scratch, scratch, tapes_end_in
from graphjit.schedule.program import Control, Program


class Driver(Protocol):
    """The function that runs a program (`graphjit.backend.llvm.program.Driver`)."""

    fn: Function
    status: str

    @property
    def tapes(self) -> Tapes:
        """The memory of tapes."""

    def run(self, program: Program, inputs: Sequence[str], outputs: Sequence[str], arena: str) -> None:
        """Run a program inside a loop or a choice, on these arguments and results."""

    def look_within(self, step: Control, counter: str) -> None:
        """A look for signals between the steps of a loop, after so many as take a while."""


class ControlEmitter:
    """Prints one step of control flow into a driver.

    ``args`` and ``results`` are pointers to the arguments of the node and to its results, ``memory`` to the
    scratch memory of the step.
    """

    def __init__(
        self, driver: Driver, step: Control, args: Sequence[str], results: Sequence[str], memory: str
    ) -> None:
        self.driver = driver
        self.fn: Function = driver.fn
        self.step = step
        self.node = step.node
        self.layout: Scratch = scratch(step)
        self.carried: int = step.node.attrs.get("carried", 0)  # type: ignore[assignment]
        self.args = args
        self.results = results
        self.memory = memory
        self.written = Written(self)

    def emit(self) -> None:
        """Print it."""
        {"scan": self.scan, "while": self.while_, "unwind": self.unwind, "cond": self.cond}[
            self.node.op.name
        ]()

    def run(self, role: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Run a program inside. Tapes that it writes and does not hand on are given back."""
        program = self.step.inner[role]
        lends = tapes_end_in(program.graph)
        free = mark(self.fn, self.driver.tapes.state) if lends else ""
        self.driver.run(program, inputs, outputs, self.at(self.layout.arena))
        if lends:
            give_back(self.fn, self.driver.tapes.state, free)

    def at(self, offset: int) -> str:
        """A place in the scratch memory."""
        return self.fn.op(f"getelementptr i8, ptr {self.memory}, i64 {offset}") if offset else self.memory

    # ------------------------------------------------------------------------------------------------- loops

    def scan(self) -> None:
        """A loop whose length is known."""
        sliced: Any = self.node.attrs["sliced"]
        length: Any = self.node.attrs["length"]
        first = len(self.args) - sliced
        carries = Carries(self, self.args[first - self.carried : first])
        if length == 0:
            carries.deliver()
            return
        fn = self.fn
        # The last step writes the home of a carry.
        carries.begin(swapped=length % 2 == 0)
        head, done = fn.label("scan"), fn.label("done")
        counter = self.head(head, carries)
        place = counter.name
        if self.node.attrs["reverse"]:
            place = fn.op(f"sub i64 {length - 1}, {place}")
        self.driver.look_within(self.step, counter.name)
        slices = [
            self.element(self.args[first + i], self.node.args[first + i].type, place) for i in range(sliced)
        ]
        stacked = [
            self.element(self.results[k], self.node.parts[k], place, k)
            for k in range(self.carried, len(self.results))
        ]
        constants = self.args[: first - self.carried]
        self.run("body", [*constants, *carries.read, *slices], [*carries.written, *stacked])
        following = fn.op(f"add i64 {counter.name}, 1")
        counter.add(following, fn.current)
        carries.turn()
        fn.do(f"br i1 {fn.op(f'icmp slt i64 {following}, {length}')}, label %{head}, label %{done}")
        fn.start(done)

    def while_(self) -> None:
        """A loop that a test ends."""
        fn = self.fn
        first = len(self.args) - self.carried
        constants = self.args[:first]
        carries = Carries(self, self.args[first:])
        carries.begin(swapped=False)
        head, body, done = fn.label("while"), fn.label("body"), fn.label("done")
        counter = self.head(head, carries)
        self.driver.look_within(self.step, counter.name)
        flag = self.at(self.layout.flag)
        self.run("test", [*constants, *carries.read], [flag])
        holds = fn.op(f"icmp ne i8 {fn.op(f'load i8, ptr {flag}')}, 0")
        fn.do(f"br i1 {holds}, label %{body}, label %{done}")
        fn.start(body)
        values = self.written.push()
        self.run("body", [*constants, *carries.read], [*carries.written, *values])
        self.go_on(head, done, counter, carries)
        fn.start(done)
        carries.deliver()
        self.written.deliver()

    def unwind(self) -> None:
        """A loop over tapes, the last record first."""
        fn = self.fn
        tapes: Any = self.node.attrs["tapes"]
        first = len(self.args) - tapes
        carries = Carries(self, self.args[first - self.carried : first])
        carries.begin(swapped=False)
        starts = [fn.op(f"load ptr, ptr {arg}") for arg in self.args[first:]]
        head, body, done = fn.label("unwind"), fn.label("body"), fn.label("done")
        before = fn.current
        counter = self.head(head, carries)
        read = [fn.phi("ptr") for _ in starts]
        for phi, start in zip(read, starts, strict=True):
            phi.add(start, before)
        self.driver.look_within(self.step, counter.name)
        none = fn.op(f"icmp eq ptr {read[0].name}, null")
        fn.do(f"br i1 {none}, label %{done}, label %{body}")
        fn.start(body)
        values = [fn.op(f"getelementptr i8, ptr {phi.name}, i64 {LINK}") for phi in read]
        constants = self.args[: first - self.carried]
        pieces = self.written.push()
        self.run("body", [*constants, *carries.read, *values], [*carries.written, *pieces])
        following = [fn.op(f"load ptr, ptr {phi.name}") for phi in read]
        for phi, one in zip(read, following, strict=True):
            phi.add(one, fn.current)
        self.go_on(head, done, counter, carries)
        fn.start(done)
        carries.deliver()
        self.written.deliver()

    def go_on(self, head: str, done: str, counter: Phi, carries: Carries) -> None:
        """The end of a step of a loop of unknown length. One in which something failed ends: who knows
        whether it would with what stands in for the values.
        """
        fn = self.fn
        counter.add(fn.op(f"add i64 {counter.name}, 1"), fn.current)
        carries.turn()
        self.written.turn()
        if not any(program.errors for program in self.step.inner.values()):
            fn.do(f"br label %{head}")
            return
        code = fn.op(f"load i64, ptr {self.driver.status}")
        fn.do(f"br i1 {fn.op(f'icmp eq i64 {code}, 0')}, label %{head}, label %{done}")

    def head(self, label: str, carries: Carries) -> Phi:
        """Begin the block of a step; the number of the step."""
        fn = self.fn
        before = fn.current
        fn.do(f"br label %{label}")
        fn.start(label)
        counter = fn.phi("i64")
        counter.add("0", before)
        carries.enter(before)
        self.written.enter(before)
        return counter

    def element(self, base: str, type: Type, place: str, result: int | None = None) -> str:
        """Where an element of an array along its first axis lies. A result that nobody reads has room for one
        element, where each is written over the last.
        """
        if result is not None and self.step.results[result] is None:
            return base
        nbytes = type.nbytes // max(type.shape[0], 1)
        offset = self.fn.op(f"mul i64 {place}, {nbytes}")
        return self.fn.op(f"getelementptr i8, ptr {base}, i64 {offset}")

    # ----------------------------------------------------------------------------------------------- choices

    def cond(self) -> None:
        """One of several programs."""
        fn = self.fn
        labels = fn.branches(fn.op(f"load i64, ptr {self.args[0]}"), len(self.step.inner))
        done = fn.label("done")
        for role, label in zip(self.step.inner, labels, strict=True):
            fn.start(label)
            self.run(role, self.args[1:], self.results)
            fn.do(f"br label %{done}")
        fn.start(done)


class Written:
    """The tapes that a loop writes: for each the address of its last record."""

    def __init__(self, around: ControlEmitter) -> None:
        self.driver = around.driver
        self.fn = around.fn
        parts = list(zip(around.node.parts, around.results, strict=True))[around.carried :]
        records = [(part.record, place) for part, place in parts]
        looping = around.node.op.name in ("while", "unwind")
        self.places = [place for record, place in records if looping]
        self.sizes = [record_bytes(r.dtype, r.size) for r, _ in records if looping and r is not None]
        self.phis: list[Phi] = []
        self.records: list[str] = []

    def enter(self, before: str) -> None:
        """At the head of the loop, which is entered from block ``before``."""
        self.phis = [self.fn.phi("ptr") for _ in self.sizes]
        for phi in self.phis:
            phi.add("null", before)

    def push(self) -> list[str]:
        """Records for the values of a step; where the values go."""
        fn = self.fn
        if not self.sizes:
            return []
        piece = self.driver.tapes.push(sum(self.sizes))
        offsets = accumulate(self.sizes[:-1], initial=0)
        self.records = [fn.op(f"getelementptr i8, ptr {piece}, i64 {offset}") for offset in offsets]
        for record, phi in zip(self.records, self.phis, strict=True):
            fn.do(f"store ptr {phi.name}, ptr {record}")
        return [fn.op(f"getelementptr i8, ptr {record}, i64 {LINK}") for record in self.records]

    def turn(self) -> None:
        """At the end of a step."""
        for phi, record in zip(self.phis, self.records, strict=True):
            phi.add(record, self.fn.current)

    def deliver(self) -> None:
        """After the loop: the tapes are results."""
        for phi, place in zip(self.phis, self.places, strict=True):
            self.fn.do(f"store ptr {phi.name}, ptr {place}")


class Carries:
    """The pointers of the carries of a loop: for each what a step reads and writes, and what the next one
    writes.
    """

    def __init__(self, around: ControlEmitter, start: Sequence[str]) -> None:
        self.fn = around.fn
        self.start = start
        self.homes = around.results[: len(start)]
        self.staying = around.step.staying
        self.spares = [around.at(offset) for offset in around.layout.spares]
        self.sizes = [type.nbytes for type in around.node.parts[: len(start)]]
        self.firsts: list[tuple[str, str, str]] = []
        self.phis: list[tuple[Phi, Phi, Phi]] = []

    def begin(self, swapped: bool) -> None:
        """Where the first step reads and writes; ``swapped``: it writes the spare place. Carries that stay
        are at home from the beginning.
        """
        for k, (start, home, spare) in enumerate(zip(self.start, self.homes, self.spares, strict=True)):
            if k in self.staying:
                self.copy(home, start, self.sizes[k])
                self.firsts.append((home, home, home))
            else:
                self.firsts.append((start, spare, home) if swapped else (start, home, spare))

    def enter(self, before: str) -> None:
        """At the head of the loop, which is entered from block ``before``."""
        for firsts in self.firsts:
            phis = (self.fn.phi("ptr"), self.fn.phi("ptr"), self.fn.phi("ptr"))
            for phi, first in zip(phis, firsts, strict=True):
                phi.add(first, before)
            self.phis.append(phis)

    @property
    def read(self) -> list[str]:
        """Where the step reads."""
        return [phis[0].name for phis in self.phis]

    @property
    def written(self) -> list[str]:
        """Where the step writes."""
        return [phis[1].name for phis in self.phis]

    def turn(self) -> None:
        """At the end of a step: what was written is read by the next."""
        for read, written, following in self.phis:
            read.add(written.name, self.fn.current)
            written.add(following.name, self.fn.current)
            following.add(written.name, self.fn.current)

    def deliver(self) -> None:
        """After the loop: copy what did not end at home."""
        for place, home, nbytes in zip(self.read or self.start, self.homes, self.sizes, strict=True):
            self.copy(home, place, nbytes)

    def copy(self, home: str, place: str, nbytes: int) -> None:
        """Copy a carry home, unless it is there."""
        if place == home:
            return
        fn = self.fn
        fn.module.declare("llvm.memcpy.p0.p0.i64", "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        away, there = fn.label("away"), fn.label("there")
        fn.do(f"br i1 {fn.op(f'icmp eq ptr {place}, {home}')}, label %{there}, label %{away}")
        fn.start(away)
        fn.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {home}, ptr {place}, i64 {nbytes}, i1 false)")
        fn.do(f"br label %{there}")
        fn.start(there)
