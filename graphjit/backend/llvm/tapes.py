"""Memory for tapes: what loops of unknown length write down for the way back.

Job: lend pieces of memory that stay where they are until the program ends, or until the step of a loop ends
whose tapes nobody reads after it. They lie in blocks, each twice as large as the one before; the last is kept
for the next step or call.
Input and output: functions of a module, and the code in the driver that calls them.
Invariants: a piece is a multiple of 8 bytes; where there is no memory the answer is null, and everything that
was written stays.

A tape is the address of its last record: the address of the record before, and a value behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphjit.backend.llvm.writing.text import Function, Module

KEPT = "tape"
"""The global that holds the block that is kept between calls."""
FIRST = 1 << 16
"""Bytes of the first block."""
HEADER = 64
"""Bytes in front of a block's pieces: the block before it, and its size."""
LINK = 8
"""Bytes in front of a value on a tape: the record before it."""
_STATE = "{ ptr, ptr, ptr }"

_PUSH = f"""; A piece of memory; the state is what is free in the newest block, its end, and the block.
define internal ptr @gj_tape_push(ptr %state, i64 %bytes) nounwind {{
entry:
  %top = load ptr, ptr %state
  %end.at = getelementptr {_STATE}, ptr %state, i32 0, i32 1
  %end = load ptr, ptr %end.at
  %next = getelementptr i8, ptr %top, i64 %bytes
  %fits = icmp ule ptr %next, %end
  br i1 %fits, label %take, label %grow
take:
  store ptr %next, ptr %state
  ret ptr %top
grow:
  %block.at = getelementptr {_STATE}, ptr %state, i32 0, i32 2
  %block = load ptr, ptr %block.at
  %first = icmp eq ptr %block, null
  br i1 %first, label %kept, label %more
more:
  %size.at = getelementptr i64, ptr %block, i64 1
  %size = load i64, ptr %size.at
  %twice = shl i64 %size, 1
  br label %kept
kept:
  %wanted = phi i64 [ {FIRST}, %grow ], [ %twice, %more ]
  %least = add i64 %bytes, {HEADER}
  %large = icmp ugt i64 %least, %wanted
  %room = select i1 %large, i64 %least, i64 %wanted
  %old = atomicrmw xchg ptr @{KEPT}, ptr null seq_cst
  %none = icmp eq ptr %old, null
  br i1 %none, label %fresh, label %look
look:
  %old.size.at = getelementptr i64, ptr %old, i64 1
  %old.size = load i64, ptr %old.size.at
  %enough = icmp uge i64 %old.size, %room
  br i1 %enough, label %use, label %small
small:
  call void @free(ptr %old)
  br label %fresh
fresh:
  %made = call ptr @malloc(i64 %room)
  %full = icmp eq ptr %made, null
  br i1 %full, label %fail, label %use
use:
  %new = phi ptr [ %old, %look ], [ %made, %fresh ]
  %has = phi i64 [ %old.size, %look ], [ %room, %fresh ]
  store ptr %block, ptr %new
  %has.at = getelementptr i64, ptr %new, i64 1
  store i64 %has, ptr %has.at
  store ptr %new, ptr %block.at
  %stop = getelementptr i8, ptr %new, i64 %has
  store ptr %stop, ptr %end.at
  %piece = getelementptr i8, ptr %new, i64 {HEADER}
  %rest = getelementptr i8, ptr %piece, i64 %bytes
  store ptr %rest, ptr %state
  ret ptr %piece
fail:
  ret ptr null
}}"""

_BACK = f"""; Give back what was lent since %top was free. The newest block, the largest, is kept.
define internal void @gj_tape_back(ptr %state, ptr %top) nounwind {{
entry:
  %block.at = getelementptr {_STATE}, ptr %state, i32 0, i32 2
  %newest = load ptr, ptr %block.at
  br label %look
look:
  %block = phi ptr [ %newest, %entry ], [ %before, %keep ], [ %before, %release ]
  %none = icmp eq ptr %block, null
  br i1 %none, label %empty, label %range
range:
  %size.at = getelementptr i64, ptr %block, i64 1
  %size = load i64, ptr %size.at
  %stop = getelementptr i8, ptr %block, i64 %size
  %behind = icmp ugt ptr %top, %block
  %within = icmp ule ptr %top, %stop
  %here = and i1 %behind, %within
  br i1 %here, label %found, label %leave
leave:
  %before = load ptr, ptr %block
  %largest = icmp eq ptr %block, %newest
  br i1 %largest, label %keep, label %release
keep:
  %old = atomicrmw xchg ptr @{KEPT}, ptr %block seq_cst
  call void @free(ptr %old)
  br label %look
release:
  call void @free(ptr %block)
  br label %look
empty:
  store {_STATE} zeroinitializer, ptr %state
  ret void
found:
  %end.at = getelementptr {_STATE}, ptr %state, i32 0, i32 1
  store ptr %top, ptr %state
  store ptr %stop, ptr %end.at
  store ptr %block, ptr %block.at
  ret void
}}"""


_LEND = "gj_tape_push"
"""The function that lends a piece of memory."""
_GIVE_BACK = "gj_tape_back"


def record_bytes(dtype: np.dtype, count: int) -> int:
    """Bytes of a record of so many numbers."""
    return LINK + -(-count * dtype.itemsize // 8) * 8


class Tapes:
    """The memory of the tapes of a program, in its driver."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.full = fn.label("full")
        """The block to go to where there is no memory."""
        module: Module = fn.module
        module.add_global(KEPT, f"@{KEPT} = global ptr null")
        module.declare("malloc", "declare ptr @malloc(i64)")
        module.declare("free", "declare void @free(ptr)")
        module.ensure(_LEND, lambda _: _PUSH, driver=True)
        module.ensure(_GIVE_BACK, lambda _: _BACK, driver=True)
        self.state = fn.alloca(_STATE)
        fn.do(f"store {_STATE} zeroinitializer, ptr {self.state}")

    def push(self, nbytes: int) -> str:
        """A piece of memory."""
        return lend(self.fn, self.state, nbytes, lambda: self.fn.do(f"br label %{self.full}"))

    def end(self, status: str) -> None:
        """Give the memory back; what is kept for the next call too, where this one was cut short."""
        fn = self.fn
        give_back(fn, self.state, "null")
        ended, done = fn.label("ended"), fn.label("done")
        short = fn.op(f"icmp slt i64 {fn.op(f'load i64, ptr {status}')}, 0")
        fn.do(f"br i1 {short}, label %{ended}, label %{done}")
        fn.start(ended)
        fn.do(f"call void @free(ptr {fn.op(f'atomicrmw xchg ptr @{KEPT}, ptr null seq_cst')})")
        fn.do(f"br label %{done}")
        fn.start(done)


def lend(fn: Function, state: str, nbytes: int, full: Callable[[], None]) -> str:
    """A piece of memory; ``full`` prints what is done where there is none, and leaves.

    What fits into the newest block is taken here: a call in each step would move all that the steps hand on
    through memory.
    """
    top = fn.op(f"load ptr, ptr {state}")
    end = fn.op(f"load ptr, ptr {fn.op(f'getelementptr {_STATE}, ptr {state}, i32 0, i32 1')}")
    following = fn.op(f"getelementptr i8, ptr {top}, i64 {nbytes}")
    take, grow, none, there = (fn.label(name) for name in ("take", "grow", "none", "there"))
    fn.do(f"br i1 {fn.op(f'icmp ule ptr {following}, {end}')}, label %{take}, label %{grow}")
    fn.start(grow)
    made = fn.op(f"call ptr @{_LEND}(ptr {state}, i64 {nbytes})")
    fn.do(f"br i1 {fn.op(f'icmp eq ptr {made}, null')}, label %{none}, label %{there}")
    fn.start(none)
    full()
    fn.start(take)
    fn.do(f"store ptr {following}, ptr {state}")
    fn.do(f"br label %{there}")
    fn.start(there)
    piece = fn.phi("ptr")
    piece.add(top, take)
    piece.add(made, grow)
    return piece.name


def mark(fn: Function, state: str) -> str:
    """What is free now, for `give_back`."""
    return fn.op(f"load ptr, ptr {state}")


def give_back(fn: Function, state: str, free: str) -> None:
    """Give back what was lent since ``free`` was the `mark`."""
    fn.do(f"call void @{_GIVE_BACK}(ptr {state}, ptr {free})")
