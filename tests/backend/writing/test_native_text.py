"""Native functions written with `Source` and `Body` compute what the same C would."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.backend.llvm.writing.fields import GLOBAL, words
from graphjit.backend.llvm.writing.native import Body, Source, Value

EXTERNALS = {"llvm.umin.i64": "i64 (i64, i64)", "gj_nowhere": GLOBAL}
STRUCTS = {"pair": words("i64 first, i64 second")}


def compiled(write: Callable[[Body, Value], None], level: int) -> Callable[[int], int]:
    """The function ``i64 (i64)`` whose body ``write`` writes."""
    source = Source("test", EXTERNALS, STRUCTS)
    with source.function("tested", "i64", n="i64") as (w, n):
        write(w, n)
    module = NativeModule(source.render(), opt=level)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(module.address("tested"))
    return lambda n: (module, call(n))[1]


def collatz(w: Body, n: Value) -> None:
    steps, x = w.variable("steps", "i64", 0), w.variable("x", "i64", n)
    with w.forever():
        w.break_if(x <= 1)
        with w.if_((x & 1) == 0):
            x.set(x >> 1)
        with w.else_():
            x.set(x * 3 + 1)
        steps.set(steps + 1)
    w.ret(steps)


def collatz_expected(n: int) -> int:
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def kinds(w: Body, n: Value) -> None:
    """A switch in a loop whose cases continue, break, fall out and leave for a label."""
    total, failed = w.variable("total", "i64", 0), w.label("failed")
    with w.loop(0, n) as i:
        with w.switch(i & 7) as case:
            with case(1):
                w.continue_()
            with case(2):
                total.set(total + 10)
            with case(3):
                w.goto_if(total > 1000, failed)
            with case(4), w.if_(i > 50):
                w.break_()
            with case(None):
                total.set(total + i)
        total.set(total + 1)
    w.ret(total)
    w.place(failed)
    w.ret(w.constant(0, "i64") - total)


def kinds_expected(n: int) -> int:
    total = 0
    for i in range(n):
        match i & 7:
            case 1:
                continue
            case 2:
                total += 10
            case 3:
                if total > 1000:
                    return -total
            case 4:
                if i > 50:
                    break
            case _:
                total += i
        total += 1
    return total


def memory(w: Body, n: Value) -> None:
    pair, items = w.local("i64", 2).to("pair"), w.local("i64", 5)
    pair["first"] = n
    pair["second"] = pair["first"] * 2
    with w.loop(0, 5) as i:
        items[i] = pair["second"] + i
    with w.loop(5, 0, -1):  # no iteration: the loop counts up
        items[0] = 0
    least = w.call("llvm.umin.i64", items[4], 7)
    w.ret(w.choose(least < 7, items[3], least) + items[0])


def memory_expected(n: int) -> int:
    return (2 * n + 3 if 2 * n + 4 < 7 else 7) + 2 * n


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(
    ("write", "expected"), [(collatz, collatz_expected), (kinds, kinds_expected), (memory, memory_expected)]
)
def test_control_flow_and_memory(
    write: Callable[[Body, Value], None], expected: Callable[[int], int], level: int
) -> None:
    call = compiled(write, level)
    assert [call(n) for n in range(80)] == [expected(n) for n in range(80)]


def test_the_text_has_phis_only_where_values_differ() -> None:
    source = Source("test", {}, {})
    with source.function("tested", "i64", n="i64") as (w, n):
        constant, changed = w.variable("constant", "i64", n), w.variable("changed", "i64", 0)
        with w.loop(0, n):
            changed.set(changed + constant)
        w.ret(changed)
    text = source.render()
    assert text.count(" phi ") == 2  # the counter and `changed`
    assert "alloca" not in text


def unset(w: Body, n: Value) -> None:
    w.ret(w.variable("x", "i64"))


def wrong_type(w: Body, n: Value) -> None:
    w.ret(n.to("i32"))


def unreachable(w: Body, n: Value) -> None:
    w.ret(n)
    w.ret(n)


def endless(w: Body, n: Value) -> None:
    assert n.type == "i64"


def split_else(w: Body, n: Value) -> None:
    with w.if_(n == 0):
        w.ret(n)
    w.do("; between")
    with w.else_():
        w.ret(n)


def assigned_between(w: Body, n: Value) -> None:
    x = w.variable("x", "i64", 1)
    with w.if_(n == 0):
        x.set(2)
    x.set(7)
    with w.else_():
        pass
    w.ret(x)


def backwards(w: Body, n: Value) -> None:
    again = w.label("again")
    w.place(again)
    w.goto_if(n == 0, again)
    w.ret(n)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (unset, "has no value yet"),
        (wrong_type, "this is i32, not i64"),
        (unreachable, "no way leads to"),
        (endless, "without a return"),
        (split_else, "between `if_` and `else_`"),
        (assigned_between, "assigned between `if_` and `else_`"),
        (backwards, "a jump backwards"),
    ],
)
def test_faults_are_found_while_the_text_is_written(
    write: Callable[[Body, Value], None], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        compiled(write, 0)


def test_what_stands_outside_is_declared_when_it_is_used() -> None:
    source = Source("test", EXTERNALS, STRUCTS)
    with source.function("a", "i1", p="ptr") as (w, p):
        w.ret(p == w.symbol("gj_nowhere"))
    assert "@gj_nowhere = external global i8" in source.render()
    assert "umin" not in source.render()
