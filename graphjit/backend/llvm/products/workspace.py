"""Workspace: memory that products borrow for what they pack or sum on the side.

Job: lend pieces of memory to blocks of products, because threads may have small stacks.
Input: the native calls ``gj_take_room(must) -> ptr`` and ``gj_give_room(ptr)``.  Output: `PIECE_BYTES`,
aligned to a page.
Invariants: there are never more pieces than were in use at once, and at most `SLOTS` are kept; a thread finds
the piece it gave back last, warm in its cache, where no other took it; nobody waits for a lock.  Where there
is no memory a call that must have a piece waits for one that another thread holds (one is made at start-up,
and who holds one waits for no second), any other gets null.
"""

from __future__ import annotations

from graphjit.backend.llvm.writing.text import Module
from graphjit.backend.llvm.writing.writer import Writer

PIECE_BYTES = 144 << 10
"""Bytes of a piece: enough for the rows of A, a panel of B, or the sums of segments, that one block keeps."""
SLOTS = 64
"""Pieces kept at the most; a power of two."""
STACK_SHARE = 20
"""Binary digits of an address within which threads are not told apart."""
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""Spreads addresses evenly over the slots (2**64 divided by the golden ratio)."""
TAKE, GIVE = "gj_take_room", "gj_give_room"


def take_workspace(w: Writer, must: str | int) -> str:
    """Take a piece; null only where ``must`` is 0."""
    w.module.declare(TAKE, f"declare ptr @{TAKE}(i64)")
    return w.call(TAKE, [f"i64 {must}"], "ptr")


def give_workspace(w: Writer, piece: str) -> None:
    """Give a piece back."""
    w.module.declare(GIVE, f"declare void @{GIVE}(ptr)")
    w.call(GIVE, [f"ptr {piece}"])


def emit_workspace(module: Module) -> None:
    """Add both functions, and ``prepare``, which makes the first piece or returns 0."""
    module.declare("aligned_alloc", "declare ptr @aligned_alloc(i64, i64)")
    module.declare("free", "declare void @free(ptr)")
    module.declare("sched_yield", "declare i32 @sched_yield()")
    module.add_global("rooms", f"@rooms = internal global [{SLOTS} x ptr] zeroinitializer, align 64")
    _emit_take(module)
    _emit_give(module)
    _emit_prepare(module)


def _emit_take(module: Module) -> None:
    w = Writer(module, TAKE, [("i64", "must")], "ptr")
    retry = w.fn.label("retry")
    w.do(f"br label %{retry}")
    w.fn.start(retry)
    first = _first(w)
    with w.loop(0, SLOTS) as i:
        slot = _slot(w, first, i)
        with w.when(w.op(f"icmp ne ptr {_peek(w, slot)}, null")):
            kept = w.op(f"atomicrmw xchg ptr {slot}, ptr null seq_cst")
            with w.exit_when(w.op(f"icmp ne ptr {kept}, null"), f"ptr {kept}"):
                pass
    fresh = _allocate(w)
    with w.exit_when(w.either(w.op(f"icmp ne ptr {fresh}, null"), w.test("eq", "%must", 0)), f"ptr {fresh}"):
        pass
    w.call("sched_yield", [], "i32")
    w.do(f"br label %{retry}")
    module.add_function(w.fn)


def _emit_give(module: Module) -> None:
    w = Writer(module, GIVE, [("ptr", "room")])
    first = _first(w)
    with w.loop(0, SLOTS) as i:
        slot = _slot(w, first, i)
        with w.when(w.op(f"icmp eq ptr {_peek(w, slot)}, null")):
            pair = w.op(f"cmpxchg ptr {slot}, ptr null, ptr %room seq_cst seq_cst")
            with w.exit_when(w.op(f"extractvalue {{ ptr, i1 }} {pair}, 1")):
                pass
    w.call("free", ["ptr %room"])
    w.finish()


def _emit_prepare(module: Module) -> None:
    w = Writer(module, "prepare", [], "i64")
    made = _allocate(w)
    with w.exit_when(w.op(f"icmp eq ptr {made}, null"), "i64 0"):
        pass
    w.call(GIVE, [f"ptr {made}"])
    w.finish("i64 1")


def _allocate(w: Writer) -> str:
    return w.call("aligned_alloc", ["i64 4096", f"i64 {PIECE_BYTES}"], "ptr")


def _first(w: Writer) -> str:
    """The slot where this thread begins to search: threads are told apart by their stacks."""
    here = w.op(f"ptrtoint ptr {w.fn.alloca('i64')} to i64")
    spread = w.mul(w.op(f"lshr i64 {here}, {STACK_SHARE}"), _GOLDEN)
    return w.op(f"lshr i64 {spread}, {64 - (SLOTS.bit_length() - 1)}")


def _slot(w: Writer, first: str, i: str) -> str:
    return w.at("@rooms", w.mul(w.op(f"and i64 {w.add(first, i)}, {SLOTS - 1}"), 8))


def _peek(w: Writer, slot: str) -> str:
    return w.op(f"load atomic ptr, ptr {slot} monotonic, align 8")
