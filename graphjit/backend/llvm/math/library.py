"""Code compiled once per process and called from every module: rare paths and long functions.

Job: define such routines (the reduction of huge arguments of ``sin``, all of ``lgamma``), compile them when
first needed, declare them in the modules that call them.
Input: routine bodies in terms of `Vector`.  Output: calls; `provide`, which makes the routines that a module
declares known before it is linked.
Invariant: a routine's symbol names everything that its code depends on (routine, element, lanes, kind of
processor), and its native code lives as long as the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphjit.backend.llvm.math.function import FUNCTIONS, Body
from graphjit.backend.llvm.objects.jit import NativeModule, add_symbol
from graphjit.backend.llvm.writing.text import Function, Module
from graphjit.backend.llvm.writing.vector import SUFFIX, Vector

ATTRIBUTES = 'nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"'
PREFIX = "gj_math"


@dataclass(frozen=True)
class Routine:
    """A body and its number of arguments; calling it appends a call."""

    name: str
    arity: int
    body: Body
    opt: int = 2

    def __call__(self, v: Vector, *args: str) -> str:
        return call(v, self.name, args)


ROUTINES: dict[str, Routine] = {}
_compiled: dict[str, NativeModule] = {}
_lock = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A fork waits for a routine that another thread is compiling: a lock held by it would stay taken in the
    # child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def routine(name: str, arity: int, opt: int = 2) -> Callable[[Body], Routine]:
    """Make a body ``(v, *args) -> name`` a routine of the library; ``opt`` as in `NativeModule`."""

    def register(body: Body) -> Routine:
        ROUTINES[name] = Routine(name, arity, body, opt)
        return ROUTINES[name]

    return register


def call(v: Vector, name: str, args: Sequence[str]) -> str:
    """A call of the compiled routine, or elementary function, ``name``; `provide` makes it known before the
    module is linked.
    """
    symbol = f"{PREFIX}.{name}.{SUFFIX[v.element]}.{v.lanes}.{'avx512' if v.avx512 else 'any'}"
    v.fn.module.declare(symbol, f"declare {v.of} @{symbol}({', '.join([v.of] * len(args))})")
    return v.fn.op(f"call {v.of} @{symbol}({', '.join(f'{v.of} {a}' for a in args)})")


def is_routine(symbol: str) -> bool:
    """Whether ``symbol`` names code of this library."""
    return symbol.startswith(PREFIX + ".")


def provide(*symbols: str) -> None:
    """Compile the routines that ``symbols`` name, where that has not happened yet, so that modules may refer
    to them: one module for each level of code generation.

    What is compiled at a low level calls nothing of a higher one, so low levels come first.
    """
    with _lock:
        levels: dict[int, Module] = {}
        places: dict[str, int] = {}
        missing = [symbol for symbol in dict.fromkeys(symbols) if symbol not in _compiled]
        for symbol in missing:  # grows on the way
            name = symbol.split(".")[1]
            opt = places[symbol] = ROUTINES[name].opt if name in ROUTINES else 2
            module = levels.setdefault(opt, Module(PREFIX))
            _define(module, symbol)
            missing += [
                other
                for other in module.declared_names
                if is_routine(other) and other not in _compiled and other not in missing
            ]
        for opt in sorted(levels):
            native = NativeModule(levels[opt].render(), opt, library=True)
            for symbol in missing:
                if places[symbol] == opt:
                    add_symbol(symbol, native.address(symbol))
                    _compiled[symbol] = native


def _define(module: Module, symbol: str) -> None:
    _, name, suffix, lanes, processor = symbol.split(".")
    entry = ROUTINES.get(name) or FUNCTIONS[name]
    element = {short: long for long, short in SUFFIX.items()}[suffix]
    of = Vector(Function(module, "", "void", []), element, int(lanes)).of
    names = [f"%a{i}" for i in range(entry.arity)]
    fn = Function(module, symbol, of, [(of, n) for n in names], ATTRIBUTES)
    v = Vector(fn, element, int(lanes), processor == "avx512")
    fn.do(f"ret {of} {entry.body(v, *names)}")
    module.add_function(fn)


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
