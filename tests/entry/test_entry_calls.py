"""The native callable as an object: errors, binding, lifetime, threads, and that it keeps no more than it
should.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import inspect
import resource
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from entry_harness import F64, FIXED, GATED, I64, MissError, function, missed, misses, program, specialise

from graphjit.backend.llvm.entry import callable as native
from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.backend.signature import (
    ArrayIn,
    ArrayOut,
    CellGuard,
    Dict,
    GlobalGuard,
    HiddenArray,
    List,
    ScalarIn,
    ScalarOut,
    StaticIn,
    StaticOut,
    Tuple,
)

# --- errors ---


def test_status_raises_what_on_error_returns():
    fn = function(
        [ScalarIn(I64, python=True)],
        StaticOut("fine"),
        program(name="status"),
        on_error=lambda s: OverflowError(f"status {s}"),
    )
    assert fn(0) == "fine"
    with pytest.raises(OverflowError, match="status -7"):
        fn(-7)


def test_on_error_may_fail_itself():
    inputs = [ScalarIn(I64, python=True)]
    with pytest.raises(TypeError, match="must return an exception"):
        function(inputs, StaticOut(None), program(name="status"), on_error=lambda status: status)(1)
    with pytest.raises(ZeroDivisionError):
        function(inputs, StaticOut(None), program(name="status"), on_error=lambda status: 1 // 0)(1)


def test_no_memory_for_a_result():
    huge = 1 << 46
    outputs = Tuple((ArrayOut(F64, (3,), 0), ArrayOut(F64, (huge,), 1), ArrayOut(F64, (3,), 2)))
    fn = function([], outputs)
    for _ in range(100):
        with pytest.raises(MemoryError):
            fn()


# --- the callable as an object ---


def test_binds_as_a_method():
    class Model:
        method = native.NativeFunction(lambda self, x: (self, x))

    model = Model()
    assert model.method(3) == (model, 3)
    bound = model.method
    assert inspect.ismethod(bound)
    assert bound(4) == (model, 4)
    assert Model.method(model, 5) == (model, 5)
    assert type(Model.method) is native.native_type()
    native.install(Model.method, specialise([StaticIn(model), StaticIn("x")], StaticOut("native")))
    assert model.method("x") == bound("x") == "native"
    Model.static = staticmethod(Model.method)
    assert model.static(1, 2) == (1, 2)


def test_attributes_methods_and_pickle_hook():
    def documented(x: int) -> int:
        """Text."""

    fn = functools.update_wrapper(native.NativeFunction(documented), documented)
    assert (fn.__name__, fn.__doc__, fn.__module__) == ("documented", "Text.", __name__)
    assert inspect.signature(fn) == inspect.signature(documented)
    fn.extra = 5
    assert fn.__dict__["extra"] == 5
    fn.__dict__ = {"other": 6}
    assert fn.other == 6
    assert not hasattr(fn, "extra")
    kind = native.native_type()
    assert callable(fn)
    assert isinstance(fn, kind)
    assert f"{kind.__module__}.{kind.__qualname__}" == "graphjit.backend.llvm.entry.callable.NativeFunction"
    saved = kind.__dict__.get("__reduce__")
    try:
        kind.__reduce__ = lambda self: (str, ("pickled",))
        assert fn.__reduce_ex__(4) == (str, ("pickled",))
    finally:
        del kind.__reduce__
        if saved is not None:
            kind.__reduce__ = saved
    for arguments, named in [((), {}), ((1, 2), {}), ((), {"fallback": 1}), ((1,), {"more": 2})]:
        with pytest.raises(TypeError, match="one argument"):
            kind(*arguments, **named)
    for use in (native.specialisations, native.clear, native.fallback, lambda f: native.install(f, None)):
        with pytest.raises(TypeError, match="expected a NativeFunction"):
            use(len)


def test_specialisations_newest_first_and_bounded():
    fn = native.NativeFunction(missed)
    made = [specialise([StaticIn(i % 3)], StaticOut(i)) for i in range(5)]
    for i, one in enumerate(made):
        dropped = native.install(fn, one, limit=3)
        assert dropped == ((made[i - 3],) if i >= 3 else ())
    assert native.specialisations(fn) == (made[4], made[3], made[2])
    assert [fn(0), fn(1), fn(2)] == [3, 4, 2]
    native.clear(fn)
    assert native.specialisations(fn) == ()
    assert misses(fn, 0)


def test_a_change_behind_ones_back_is_not_overwritten():
    fn = native.NativeFunction(missed)
    library = native._library()
    stale = library.chain(fn)
    newer = specialise([], StaticOut("newer"))
    native.install(fn, newer)
    assert library.swap(fn, stale, None) == 0
    assert native.specialisations(fn) == (newer,)


def test_dropped_specialisations_free_their_code():
    fn = native.NativeFunction(missed)
    module = NativeModule("define i64 @program(ptr %i, ptr %o) {\n  ret i64 0\n}")
    died = weakref.ref(module)
    native.install(fn, specialise([], StaticOut("native"), (module.address("program"), module)))
    del module
    assert fn() == "native"
    native.clear(fn)
    assert died() is None


def test_weak_references_and_cycles():
    gc.collect()
    fn = native.NativeFunction(missed)
    events = []
    reference = weakref.ref(fn, lambda _: events.append("died"))
    assert reference() is fn
    del fn
    assert events == ["died"]

    class Token:
        pass

    def cycle():
        holder, token = {}, Token()
        fn = native.NativeFunction(lambda: fn)
        fn.self = fn
        holder["name"] = fn
        cell = (lambda: fn).__closure__[0]
        guards = [GlobalGuard(holder, "name", fn), CellGuard(cell, fn)]
        native.install(
            fn, specialise([StaticIn(fn)], StaticOut(token), guards=guards, wrap=lambda leaves: (fn, leaves))
        )
        assert fn(fn) == (fn, (token,))
        return weakref.ref(fn), weakref.ref(token)

    died = cycle()
    assert died[0]() is not None
    gc.collect()
    assert [reference() for reference in died] == [None, None]
    assert gc.garbage == []


def test_fallback_may_call_and_change_its_function():
    def count(n):
        if n == 0:
            return 0
        native.install(fn, specialise([StaticIn(f"level {n}")], StaticOut(n)), limit=2)
        inner = fn(n - 1)
        if n % 3 == 0:
            native.clear(fn)
        return inner + 1

    fn = native.NativeFunction(count)
    assert fn(60) == 60
    endless = native.NativeFunction(lambda: endless())
    with pytest.raises(RecursionError):
        endless()


# --- nothing is lost over many calls ---


def _memory() -> tuple[int, int]:
    """Bytes of memory in use, and blocks of Python's own allocator (memory may have room left by other
    tests).
    """
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize(), sys.getallocatedblocks()


def _grown(before: tuple[int, int]) -> bool:
    """Whether more was lost since ``before`` than 100 bytes or a block in 10 of 10 000 calls."""
    now = _memory()
    return now[0] - before[0] > 1_000_000 or now[1] - before[1] > 1_000


def test_no_leak_over_many_calls():
    x, text, static = np.arange(8.0), "".join(["te", "xt"]), object()
    leaf = ArrayIn(F64, (8,))
    dtypes = [np.dtype("bool"), I64, F64]
    inputs = [
        leaf,
        Dict(
            ("p", "q"),
            (List((leaf, ScalarIn(F64, python=True))), Tuple((StaticIn(text), ScalarIn(I64, python=True)))),
        ),
        ScalarIn(np.dtype("bool"), python=False),
    ]
    outputs = Dict(
        ("arrays", "scalars", "static"),
        (
            List((ArrayOut(F64, (8,), 0), ArrayOut(F64, (), 1))),
            Tuple(tuple(ScalarOut(dtype, i + 2) for i, dtype in enumerate(dtypes))),
            List((StaticOut(static), StaticOut(None), StaticOut(True))),
        ),
    )
    hidden = [HiddenArray(x, F64, (8,))]
    guard = GlobalGuard(globals(), "native", native)
    fn = function(inputs, outputs, program(5, 1), hidden=hidden, guards=[guard], release_gil=True)
    wrapped = function([leaf], ArrayOut(F64, (8,), 0), wrap=lambda flat: flat)
    failing = function(
        [leaf, ScalarIn(I64, python=True)],
        Tuple((ArrayOut(F64, (100,), 0), StaticOut(static))),
        program(name="status"),
        on_error=ValueError,
        release_gil=True,
    )
    poison = np.array([10**6], I64).view(F64).repeat(8)
    call = (x, {"p": [x, 1.5], "q": (text, 10**6)}, np.True_)
    unmatched = (x, {"p": [x, 1.5], "q": (text, 1.0)}, np.True_)
    watched = [
        x,
        text,
        static,
        None,
        True,
        False,
        np.True_,
        np.False_,
        0,
        F64,
        I64,
        np.ndarray,
        dict,
        guard.items,
        poison,
        missed,
    ]
    watched += [native.specialisations(f)[0] for f in (fn, wrapped, failing)]

    def rounds(count):
        for _ in range(count):
            fn(*call)
            wrapped(x)
            with contextlib.suppress(MissError):
                fn(*unmatched)
            with contextlib.suppress(ValueError):
                failing(poison, 1)

    rounds(5_000)
    gc.collect()
    references, memory = [sys.getrefcount(item) for item in watched], _memory()
    rounds(25_000)
    gc.collect()
    assert [sys.getrefcount(item) for item in watched] == references
    assert not _grown(memory)


def test_no_leak_of_large_frames():
    leaf, count = ArrayIn(F64, (1,)), 2_000
    fn = function([List((leaf,) * count)], StaticOut(None), release_gil=True)
    good = [np.zeros(1)] * count
    bad = [*good[1:], None]

    def rounds(count):
        for _ in range(count):
            fn(good)
            with contextlib.suppress(MissError):
                fn(bad)

    rounds(10)
    memory = _memory()
    rounds(200)
    assert not _grown(memory)


def test_no_leak_of_functions():
    kind = native.native_type()

    def rounds(count):
        for _ in range(count):
            native.install(native.NativeFunction(missed), specialise([], StaticOut(None)))

    rounds(10)
    gc.collect()
    references = sys.getrefcount(kind), sys.getrefcount(missed)
    rounds(100)
    gc.collect()
    assert (sys.getrefcount(kind), sys.getrefcount(missed)) == references


def test_no_leak_of_specialisations():
    fn = native.NativeFunction(missed)
    array = np.zeros(4)

    def rounds(count):
        for i in range(count):
            tree = Dict(("a", i), (ArrayIn(F64, (4,)), StaticIn(f"value {i}")))
            native.install(
                fn,
                specialise(
                    [tree], List((StaticOut(i), StaticOut(array))), hidden=[HiddenArray(array, F64, (4,))]
                ),
                limit=2,
            )
            assert fn({"a": array, i: f"value {i}"})[0] == i
        native.clear(fn)

    rounds(200)
    references, memory = sys.getrefcount(array), _memory()
    rounds(2_000)
    assert sys.getrefcount(array) == references
    assert not _grown(memory)


# --- threads ---


def test_threads_call_while_another_installs_and_clears():
    inputs = [List((ArrayIn(F64, (8,)),) * 2)]
    stop, failures, calls, python_calls = threading.Event(), [], [0], [0]

    def slow(pair):
        python_calls[0] += 1
        return pair[0].copy()

    fn = native.NativeFunction(slow)

    def work(number):
        while not stop.is_set():
            result = fn([np.full(8, float(number)), np.zeros(8)])
            calls[0] += 1
            if not (result == number).all():
                failures.append(result)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    interval, end = sys.getswitchinterval(), time.monotonic() + 30
    sys.setswitchinterval(1e-5)
    try:
        for worker in workers:
            worker.start()
        rounds = 0
        while rounds < 100 or calls[0] - python_calls[0] < 100 or python_calls[0] < 100:
            for release in (True, False):
                code = program(name="sleep_copy") if release else program(1, 64)
                native.install(
                    fn, specialise(inputs, ArrayOut(F64, (8,), 0), code, release_gil=release), limit=2
                )
            native.clear(fn)
            rounds += 1
            assert time.monotonic() < end
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for worker in workers:
            worker.join()
    assert failures == []


def test_a_running_call_keeps_its_code_and_its_arguments():
    module = NativeModule(GATED)
    has_begun, go_on = (
        ctypes.CFUNCTYPE(ctypes.c_int64)(module.address(name)) for name in ("has_begun", "go_on")
    )
    died = weakref.ref(module)
    specialisation = specialise(
        [List((ArrayIn(F64, (8,)),))],
        ArrayOut(F64, (8,), 0),
        (module.address("gated_copy"), module),
        release_gil=True,
    )
    fn = native.NativeFunction(missed)
    native.install(fn, specialisation)
    del module, specialisation
    arguments, results = [np.arange(8.0)], []
    argument = weakref.ref(arguments[0])
    worker = threading.Thread(target=lambda: results.append(fn(arguments)))
    worker.start()
    while worker.is_alive() and not has_begun():
        time.sleep(0.001)
    arguments.clear()
    native.clear(fn)
    assert worker.is_alive()
    assert argument() is not None
    assert died() is not None
    go_on()
    worker.join()
    assert argument() is None
    assert died() is None
    np.testing.assert_array_equal(results[0], np.arange(8.0))


def test_the_gil_is_released_only_when_asked():
    sleeping = NativeModule(FIXED.replace("i32 2000", "i32 50000"))

    def longest_pause(release):
        """Of this thread while another one is in a program that sleeps for 50 ms."""
        code = sleeping.address("sleep_copy"), sleeping
        fn = function([ArrayIn(F64, (8,))], ArrayOut(F64, (8,), 0), code, release_gil=release)
        worker = threading.Thread(target=fn, args=(np.arange(8.0),))
        ticks = [time.perf_counter()]
        worker.start()
        while worker.is_alive():
            ticks.append(time.perf_counter())
        ticks.append(time.perf_counter())
        return max(np.diff(ticks))

    assert longest_pause(release=False) >= 0.05
    assert min(longest_pause(release=True) for _ in range(3)) < 0.05
