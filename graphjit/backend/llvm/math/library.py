"""Code compiled once per process and called from every module: rare paths and long functions.

Job: define such routines, compile them when first needed, declare them in the modules that call them.
Input: routine bodies in terms of `Vector`.  Output: calls; ``provide(symbol)`` for modules that come from elsewhere (a cache).
Invariant: a routine's symbol names everything that its code depends on (routine, element, lanes, kind of processor), and its
native code lives as long as the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphjit.backend.llvm.jit import NativeModule, add_symbol
from graphjit.backend.llvm.math.function import FUNCTIONS, Body
from graphjit.backend.llvm.text import Function, Module
from graphjit.backend.llvm.vector import SUFFIX, Vector

ATTRIBUTES = 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'
PREFIX = "gj_math"


@dataclass(frozen=True)
class Routine:
    """A body and its number of arguments; calling it appends a call."""

    name: str
    arity: int
    body: Body

    def __call__(self, v: Vector, *args: str) -> str:
        return call(v, self.name, args)


ROUTINES: dict[str, Routine] = {}
_compiled: dict[str, NativeModule] = {}
_lock = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A fork waits for a routine that another thread is compiling: a lock held by it would stay taken in the child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def routine(name: str, arity: int) -> Callable[[Body], Routine]:
    """Make a body ``(v, *args) -> name`` a routine of the library."""

    def register(body: Body) -> Routine:
        ROUTINES[name] = Routine(name, arity, body)
        return ROUTINES[name]

    return register


def call(v: Vector, name: str, args: Sequence[str]) -> str:
    """A call of the compiled routine, or elementary function, ``name``."""
    symbol = f"{PREFIX}.{name}.{SUFFIX[v.element]}.{v.lanes}.{'avx512' if v.avx512 else 'any'}"
    provide(symbol)
    v.fn.module.declare(symbol, f"declare {v.of} @{symbol}({', '.join([v.of] * len(args))})")
    return v.fn.op(f"call {v.of} @{symbol}({', '.join(f'{v.of} {a}' for a in args)})")


def provide(symbol: str) -> None:
    """Compile the routine that ``symbol`` names, unless that happened already, so that modules may refer to it."""
    with _lock:
        if symbol in _compiled:
            return
        _, name, suffix, lanes, processor = symbol.split(".")
        entry = ROUTINES.get(name) or FUNCTIONS[name]
        module = Module(symbol)
        element = {short: long for long, short in SUFFIX.items()}[suffix]
        of = Vector(Function(module, "", "void", []), element, int(lanes)).of
        names = [f"%a{i}" for i in range(entry.arity)]
        fn = Function(module, symbol, of, [(of, n) for n in names], ATTRIBUTES)
        v = Vector(fn, element, int(lanes), processor == "avx512")
        fn.do(f"ret {of} {entry.body(v, *names)}")
        module.add_function(fn)
        native = NativeModule(module.render())
        add_symbol(symbol, native.address(symbol))
        _compiled[symbol] = native


def lane_by_lane(v: Vector, scalar: Callable[..., str], *args: str) -> str:
    """``scalar(one, *elements)`` in a loop over the lanes; for code that has no vector form."""
    one = v.like(v.element, 1)
    if v.lanes == 1:
        return scalar(one, *args)
    fn = v.fn
    slots = [fn.alloca(v.of, 64) for _ in args]
    for slot, x in zip(slots, args, strict=True):
        fn.do(f"store {v.of} {x}, ptr {slot}, align 64")
    before, head, after = fn.current, fn.label("lane"), fn.label("done")
    fn.do(f"br label %{head}")
    fn.start(head)
    lane = fn.phi("i64")
    lane.add("0", before)
    places = [fn.op(f"getelementptr {one.of}, ptr {slot}, i64 {lane.name}") for slot in slots]
    value = scalar(one, *(fn.op(f"load {one.of}, ptr {place}, align {one.size}") for place in places))
    fn.do(f"store {one.of} {value}, ptr {places[0]}, align {one.size}")
    following = fn.op(f"add i64 {lane.name}, 1")
    lane.add(following, fn.current)
    fn.do(f"br i1 {fn.op(f'icmp ult i64 {following}, {v.lanes}')}, label %{head}, label %{after}")
    fn.start(after)
    return fn.op(f"load {v.of}, ptr {slots[0]}, align 64")
