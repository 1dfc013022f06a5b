"""The native entry point: what it accepts, what it refuses, what it returns, and that it keeps no more than it should."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import inspect
import random
import resource
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from graphjit.backend.llvm import callable as native
from graphjit.backend.llvm.cpython import layout
from graphjit.backend.llvm.entry import Specialisation
from graphjit.backend.llvm.jit import NativeModule
from graphjit.backend.signature import (
    DTYPES,
    MISSING,
    ArrayIn,
    ArrayOut,
    CellGuard,
    Dict,
    EntrySpec,
    GlobalGuard,
    HiddenArray,
    List,
    ScalarIn,
    ScalarOut,
    StaticIn,
    StaticOut,
    Tuple,
    leaves,
)

F64, I64 = np.dtype("float64"), np.dtype("int64")
ALL = sorted(DTYPES, key=lambda dtype: dtype.name)

_COPY = """
define i64 @copy{count}x{size}(ptr %inputs, ptr %outputs) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %done = icmp eq i64 %i, {count}
  br i1 %done, label %end, label %body
body:
  %from.at = getelementptr ptr, ptr %inputs, i64 %i
  %to.at = getelementptr ptr, ptr %outputs, i64 %i
  %from = load ptr, ptr %from.at
  %to = load ptr, ptr %to.at
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 {size}, i1 false)
  %next = add i64 %i, 1
  br label %loop
end:
  ret i64 0
}}
"""
_FIXED = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i32 @usleep(i32)
define i64 @nothing(ptr %inputs, ptr %outputs) {
  ret i64 0
}
define i64 @status(ptr %inputs, ptr %outputs) {
  %from = load ptr, ptr %inputs
  %status = load i64, ptr %from
  ret i64 %status
}
define i64 @sleep_copy(ptr %inputs, ptr %outputs) {
  %slept = call i32 @usleep(i32 2000)
  %from = load ptr, ptr %inputs
  %to = load ptr, ptr %outputs
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 64, i1 false)
  ret i64 0
}
"""


@functools.cache
def program(count: int = 0, size: int = 0, name: str = "") -> tuple[int, NativeModule]:
    """A program that copies ``size`` bytes from each of ``count`` inputs to the output of the same number, or a fixed one."""
    if name:
        return (fixed := _fixed()).address(name), fixed
    module = NativeModule("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n" + _COPY.format(count=count, size=size))
    return module.address(f"copy{count}x{size}"), module


@functools.cache
def _fixed() -> NativeModule:
    return NativeModule(_FIXED)


class MissError(Exception):
    """No specialisation matched."""


def missed(*args, **kwargs):
    assert sys.exc_info() == (None, None, None)
    raise MissError


def specialise(inputs, outputs, code=None, *, keywords=(), hidden=(), guards=(), on_error=RuntimeError, wrap=None, release_gil=False):
    positional = len(inputs) - len(keywords)
    spec = EntrySpec(positional, tuple(keywords), tuple(inputs), tuple(hidden), tuple(guards), outputs, on_error, wrap, release_gil)
    return Specialisation(spec, *(code or program(name="nothing")))


def function(*args, **options):
    fn = native.NativeFunction(missed)
    native.install(fn, specialise(*args, **options))
    return fn


def misses(fn, *args, **kwargs) -> bool:
    """Whether the call reaches the fallback, which must happen with nothing raised or lost on the way."""
    before = [sys.getrefcount(arg) for arg in args]
    matched = False
    with contextlib.suppress(MissError):
        fn(*args, **kwargs)
        matched = True
    assert before == [sys.getrefcount(arg) for arg in args]
    return not matched


def accepts(leaf, value, **options) -> bool:
    return not misses(function([leaf], StaticOut(None), **options), value)


# --- leaves ---


@pytest.mark.parametrize("shape", [(), (0,), (8,), (3, 5), (2, 0, 4), (1, 1, 2, 3, 1)], ids=str)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_arrays_of_every_dtype_and_shape(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    fn = function([ArrayIn(dtype, shape)], ArrayOut(dtype, shape, 0), program(1, array.nbytes))
    result = fn(array)
    assert type(result) is np.ndarray
    assert result is not array
    assert result.dtype == dtype
    assert result.shape == shape
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert result.flags.owndata
    np.testing.assert_array_equal(result, array)
    for other in ALL:
        assert misses(fn, array.astype(other)) == (other != dtype)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_numpy_scalars_of_every_dtype(dtype):
    fn = function([ScalarIn(dtype, python=False)], ScalarOut(dtype, 0), program(1, dtype.itemsize))
    edges = [False, True] if dtype.kind == "b" else [0, 1, *_limits(dtype)]
    for value in edges:
        result = fn(dtype.type(value))
        assert type(result) is dtype.type
        assert result == dtype.type(value)
    for other in ALL:
        assert misses(fn, other.type(1)) == (other != dtype)
    for wrong in (1.0, 1, True, np.ones((), dtype), None, "1"):
        assert misses(fn, wrong)


def _limits(dtype):
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return [info.min, info.max]


def test_python_float_is_not_a_numpy_float():
    fn = function([ScalarIn(F64, python=True)], ScalarOut(F64, 0), program(1, 8))
    for value in (1.5, -0.0, float("inf"), 5e-324):
        assert fn(value) == value
        assert type(fn(value)) is np.float64
    assert np.isnan(fn(float("nan")))
    assert np.signbit(fn(-0.0))

    class Derived(float):
        pass

    for wrong in (np.float64(1.5), np.float32(1.5), 1, True, Derived(1.5), np.ones(()), 1j, "1.5"):
        assert misses(fn, wrong)


def test_python_int_is_exact_and_in_range():
    fn = function([ScalarIn(I64, python=True)], ScalarOut(I64, 0), program(1, 8))
    for value in (0, 1, -1, -5, 2**30, 2**60, 2**63 - 1, -(2**63)):
        assert fn(value) == value
        assert type(fn(value)) is np.int64
    for wrong in (2**63, -(2**63) - 1, 10**40, True, False, 1.0, np.int64(1), np.ones((), int)):
        assert misses(fn, wrong)


def test_c_types_of_the_same_size_are_one_dtype():
    twin = np.dtype("q") if np.dtype("q").num != I64.num else np.dtype("l")
    array = np.arange(8).astype(twin)
    assert array.dtype.num != I64.num
    np.testing.assert_array_equal(function([ArrayIn(I64, (8,))], ArrayOut(I64, (8,), 0), program(1, 64))(array), array)
    assert accepts(ScalarIn(I64, python=False), twin.type(7)) or twin.itemsize != 8


def test_arrays_that_do_not_match():
    fn = function([ArrayIn(F64, (4, 4))], ArrayOut(F64, (4, 4), 0), program(1, 128))
    good = np.arange(16.0).reshape(4, 4)
    assert not misses(fn, good)
    read_only = good.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(fn(read_only), good)
    np.testing.assert_array_equal(fn(np.arange(32.0).reshape(8, 4)[2:6]), np.arange(8.0, 24.0).reshape(4, 4))
    assert not misses(fn, np.array(good, dtype=np.dtype("f8", metadata={"unit": "m"})))

    class Sub(np.ndarray):
        pass

    shifted = np.zeros(129, np.uint8)[1:].view(F64).reshape(4, 4)
    assert not shifted.flags.aligned
    wrong = {
        "fortran": np.asfortranarray(good),
        "transposed": good.T,
        "strided": np.zeros((4, 8))[:, ::2],
        "reversed": good[::-1],
        "broadcast": np.broadcast_to(np.zeros(4), (4, 4)),
        "flat": np.zeros(16),
        "one more axis": np.zeros((4, 4, 1)),
        "one less row": np.zeros((3, 4)),
        "empty": np.zeros((0, 4)),
        "0-d": np.zeros(()),
        "float32": np.zeros((4, 4), np.float32),
        "int": np.zeros((4, 4), int),
        "complex": np.zeros((4, 4), complex),
        "object": np.full((4, 4), None),
        "text": np.full((4, 4), "x"),
        "time": np.zeros((4, 4), "m8[s]"),
        "swapped": good.astype(F64.newbyteorder("S")),
        "misaligned": shifted,
        "subclass": good.view(Sub),
        "matrix": np.ma.masked_array(good),
        "record": np.zeros((4, 4), [("a", "f8")]),
        "scalar": np.float64(1),
        "float": 1.0,
        "list": good.tolist(),
        "none": None,
    }
    accepted = [name for name, value in wrong.items() if not misses(fn, value)]
    assert accepted == []


def test_arrays_changed_in_place_are_checked_anew():
    fn = function([ArrayIn(F64, (4,))], StaticOut("native"))
    array = np.zeros(4)
    assert fn(array) == "native"
    array.resize(2, refcheck=False)
    assert misses(fn, array)


@pytest.mark.parametrize(
    ("static", "equal", "different"),
    [
        ("ab", "".join(["a", "b"]), ["abc", b"ab", 1, None]),
        (10**20, int("1" + "0" * 20), [10**20 + 1, 1e20, "10"]),
        (1, 1, [True, 1.0, np.int64(1), 2]),
        (True, True, [1, False, np.True_]),
        (None, None, [0, False]),
        (0.0, float("0"), [-0.0, 0, False]),
        (2j, complex("2j"), [-0.0 + 2j, 3j, 2.0]),
        (b"xy", bytes([120, 121]), [b"xz", "xy"]),
        ((1, ("a", None)), (1, ("".join(["a"]), None)), [(1, ("b", None)), (True, ("a", None)), (1,), [1, ("a", None)]]),
        (len, len, [max]),
    ],
    ids=str,
)
def test_static_values(static, equal, different):
    fn = function([StaticIn(static)], StaticOut(static))
    assert fn(static) is static
    assert fn(equal) is static
    assert [value for value in different if not misses(fn, value)] == []


def test_static_comparison_runs_no_foreign_code():
    class Loud:
        def __eq__(self, other):
            raise AssertionError("compared")

        __hash__ = None

    loud = Loud()
    assert accepts(StaticIn(loud), loud)
    assert misses(function([StaticIn(loud)], StaticOut(None)), Loud())
    assert misses(function([StaticIn((1, loud))], StaticOut(None)), (1, Loud()))
    nested = functools.reduce(lambda inner, _: (inner,), range(100_000), 1)
    same = functools.reduce(lambda inner, _: (inner,), range(100_000), 1)
    assert misses(function([StaticIn(nested)], StaticOut(None)), same)


# --- the shape of the call ---


def test_positional_and_keyword_arguments():
    x, y, z = (np.full(2, v) for v in (1.0, 2.0, 3.0))
    leaf = ArrayIn(F64, (2,))
    out = Tuple(tuple(ArrayOut(F64, (2,), i) for i in range(3)))
    fn = function([leaf] * 3, out, program(3, 16), keywords=("beta", "gamma"))
    assert [r[0] for r in fn(x, beta=y, gamma=z)] == [1, 2, 3]
    assert [r[0] for r in fn(x, **{"".join(["be", "ta"]): y, "".join(["gam", "ma"]): z})] == [1, 2, 3]
    for args, kwargs in [
        ((x,), {"gamma": z, "beta": y}),
        ((x, y, z), {}),
        ((x, y), {"gamma": z}),
        ((x,), {"beta": y}),
        ((x,), {"beta": y, "delta": z}),
        ((x,), {"beta": y, "gamma": z, "more": z}),
        ((), {"alpha": x, "beta": y, "gamma": z}),
        ((), {}),
    ]:
        assert misses(fn, *args, **kwargs)
    plain = function([leaf], StaticOut("native"))
    assert plain(x) == plain(*[x]) == plain(x, **{}) == functools.partial(plain, x)() == "native"
    assert misses(plain, x=x)
    assert misses(plain)
    nothing = function([], StaticOut("none"))
    assert nothing() == "none"
    assert misses(nothing, x)


def test_fallback_sees_the_call_unchanged():
    fn = native.NativeFunction(lambda *args, **kwargs: (args, kwargs))
    assert fn(1, 2, k=3) == ((1, 2), {"k": 3})
    native.install(fn, specialise([StaticIn("x")], StaticOut("native")))
    assert fn("x") == "native"
    assert fn(1, k="v") == ((1,), {"k": "v"})
    assert native.fallback(fn)(5) == ((5,), {})


# --- hidden inputs and guards ---


def test_hidden_arrays_are_read_by_reference():
    weights = np.arange(8.0)
    fn = function([], ArrayOut(F64, (8,), 0), program(1, 64), hidden=[HiddenArray(weights, F64, (8,))])
    np.testing.assert_array_equal(fn(), weights)
    weights *= 2
    np.testing.assert_array_equal(fn(), 2 * np.arange(8.0))
    weights.shape = (2, 4)
    assert misses(fn)
    weights.shape = (8,)
    assert not misses(fn)
    weights.dtype = np.int64
    assert misses(fn)


def test_input_slots_follow_the_leaves_then_the_hidden_arrays():
    leaf = ScalarIn(F64, python=True)
    tree = Tuple((leaf, Dict(("a", "b"), (List((leaf, StaticIn("s"), leaf)), leaf))))
    out = List(tuple(ScalarOut(F64, i) for i in range(7)))
    fn = function(
        [tree, leaf, leaf], out, program(7, 8), keywords=("k",), hidden=[HiddenArray(np.array([7.0]), F64, (1,))]
    )  # fmt: skip
    assert fn((1.0, {"a": [2.0, "s", 3.0], "b": 4.0}), 5.0, k=6.0) == [1, 2, 3, 4, 5, 6, 7]


def test_guards():
    value, other = object(), object()

    def capture():
        return value

    namespace = {"name": value}
    cell = capture.__closure__[0]
    fn = function([], StaticOut("native"), guards=[CellGuard(cell, value), GlobalGuard(namespace, "name", value)])
    kept = value
    assert fn() == "native"
    value = other
    assert misses(fn)
    del value
    assert misses(fn)
    value = kept
    assert fn() == "native"
    namespace["name"] = other
    assert misses(fn)
    del namespace["name"]
    assert misses(fn)
    absent = function([], StaticOut("native"), guards=[GlobalGuard(namespace, "name", MISSING)])
    assert absent() == "native"
    namespace["name"] = None
    assert misses(absent)


# --- trees ---


def test_containers_must_be_exact():
    x = np.ones(2)
    leaf = ArrayIn(F64, (2,))

    class SubTuple(tuple):
        pass

    class SubList(list):
        pass

    class SubDict(dict):
        pass

    for tree, good, wrong in [
        (Tuple((leaf, leaf)), (x, x), [[x, x], (x,), (x, x, x), SubTuple((x, x)), {}, x, (x, None)]),
        (List((leaf, leaf)), [x, x], [(x, x), [x], [x, x, x], SubList([x, x]), None]),
        (
            Dict(("a", "b"), (leaf, leaf)),
            {"a": x, "b": x},
            [{"b": x, "a": x}, {"a": x}, {"a": x, "b": x, "c": x}, {"a": x, "c": x}, SubDict(a=x, b=x), {"a": x, 1: x}, [x, x]],
        ),
        (Dict((0, ("k", 1)), (leaf, leaf)), {0: x, ("k", 1): x}, [{0.0: x, ("k", 1): x}, {False: x, ("k", 1): x}]),
        (Tuple(()), (), [(x,), [], {}]),
        (List(()), [], [[x], ()]),
        (Dict((), ()), {}, [{"a": x}, []]),
    ]:
        fn = function([tree], StaticOut("native"))
        assert fn(good) == "native"
        assert [value for value in wrong if not misses(fn, value)] == []
    keys = function([Dict(("alpha",), (leaf,))], StaticOut("native"))
    assert keys({"".join(["al", "pha"]): x}) == "native"


def test_random_trees_round_trip():
    rng = random.Random(7)
    for _ in range(40):
        value, counter = _random_value(rng, 4), iter(range(10_000))
        tree_in, tree_out = _trees(value, counter)
        count = sum(1 for leaf in leaves(tree_in) if not isinstance(leaf, StaticIn))
        fn = function([tree_in], tree_out, program(count, 8), release_gil=rng.random() < 0.5)
        assert _same(fn(value), value)
        assert misses(fn, (value,))


def _random_value(rng, depth):
    kind = rng.choice("lltdafs" if depth else "afs")
    items = [_random_value(rng, depth - 1) for _ in range(rng.randrange(4))] if kind in "ltd" else []
    match kind:
        case "l":
            return items
        case "t":
            return tuple(items)
        case "d":
            return dict(zip(rng.sample("abcdefg", len(items)), items, strict=True))
        case "a":
            return np.array([rng.random()])
        case "f":
            return np.float64(rng.random())
        case _:
            return rng.choice(["static", None, True])


def _trees(value, counter):
    if isinstance(value, tuple | list | dict):
        pairs = [_trees(item, counter) for item in (value.values() if isinstance(value, dict) else value)]
        parts = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        if isinstance(value, dict):
            return tuple(Dict(tuple(value), part) for part in parts)
        return tuple((Tuple if isinstance(value, tuple) else List)(part) for part in parts)
    if isinstance(value, np.ndarray):
        return ArrayIn(F64, (1,)), ArrayOut(F64, (1,), next(counter))
    if isinstance(value, np.float64):
        return ScalarIn(F64, python=False), ScalarOut(F64, next(counter))
    return StaticIn(value), StaticOut(value)


def _same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.all(a == b))


def test_many_leaves_and_deep_trees():
    # 5 000 leaves make a frame that lies on the heap instead of the stack.
    for count in (64, 5_000):
        leaf_in, leaf_out = (ArrayIn(F64, (1,)),) * count, tuple(ArrayOut(F64, (1,), i) for i in range(count))
        values = [np.array([float(i)]) for i in range(count)]
        fn = function([List(leaf_in)], Tuple(leaf_out), program(count, 8), release_gil=True)
        assert [r[0] for r in fn(values)] == list(range(count))
        values[-1] = None
        assert misses(fn, values)
        before = sys.getrefcount(values[0])
        failing = function([List(leaf_in)], StaticOut(None), program(name="status"), on_error=ValueError, release_gil=True)
        values[-1] = values[0].view()
        values[0].view(I64)[0] = 1
        with pytest.raises(ValueError, match="1"):
            failing(values)
        del values[-1]
        assert sys.getrefcount(values[0]) == before
    tree_in, tree_out, value = ArrayIn(F64, (1,)), ArrayOut(F64, (1,), 0), np.array([3.0])
    for _ in range(3_000):
        tree_in, tree_out, value = List((tree_in,)), Tuple((tree_out,)), [value]
    result = function([tree_in], tree_out, program(1, 8))(value)
    depth = 0
    while isinstance(result, tuple):
        (result,), depth = result, depth + 1
    assert (result[0], depth) == (3.0, 3_000)


def test_wrap_receives_the_flat_leaves():
    tree = Dict(("b", "a"), (List((ScalarOut(F64, 1), StaticOut("s"))), ScalarOut(F64, 0)))
    inputs = [ScalarIn(F64, python=True)] * 2
    fn = function(inputs, tree, program(2, 8), wrap=lambda flat: ("wrapped", flat))
    assert fn(1.0, 2.0) == ("wrapped", (2.0, "s", 1.0))
    broken = function(inputs, tree, program(2, 8), wrap=lambda flat: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        broken(1.0, 2.0)


def test_results_are_fresh():
    array = np.arange(8.0)
    fn = function([ArrayIn(F64, (8,))], Dict(("a",), (ArrayOut(F64, (8,), 0),)), program(1, 64))
    first, second = fn(array), fn(array)
    assert first is not second
    assert not np.shares_memory(first["a"], second["a"])
    assert not np.shares_memory(first["a"], array)
    first["more"] = 1
    assert list(fn(array)) == ["a"]


# --- errors ---


def test_status_raises_what_on_error_returns():
    fn = function([ScalarIn(I64, python=True)], StaticOut("fine"), program(name="status"), on_error=lambda s: OverflowError(f"status {s}"))
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


# --- specifications that are refused ---


def test_inconsistent_specifications_are_refused():
    with pytest.raises(ValueError, match="1 inputs for 2 positional"):
        EntrySpec(2, (), (StaticIn(1),), (), (), StaticOut(None), RuntimeError)
    for sources in ([0, 0], [1], [0, 2]):
        with pytest.raises(ValueError, match="exactly one leaf"):
            EntrySpec(0, (), (), (), (), Tuple(tuple(ScalarOut(F64, s) for s in sources)), RuntimeError)
    for dtype in (np.dtype(complex), np.dtype("float16"), F64.newbyteorder("S"), np.dtype(object)):
        with pytest.raises(ValueError, match="not a dtype"):
            ArrayIn(dtype, ())
    with pytest.raises(ValueError, match="Python scalar"):
        ScalarIn(np.dtype("float32"), python=True)
    with pytest.raises(ValueError, match="2 keys"):
        Dict(("a", "b"), (StaticIn(1),))


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
    assert f"{kind.__module__}.{kind.__qualname__}" == "graphjit.backend.llvm.callable.NativeFunction"
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
        native.install(fn, specialise([StaticIn(fn)], StaticOut(token), guards=guards, wrap=lambda leaves: (fn, leaves)))
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


def _memory() -> int:
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize()


def test_no_leak_over_many_calls():
    x, text, static = np.arange(8.0), "".join(["te", "xt"]), object()
    leaf = ArrayIn(F64, (8,))
    dtypes = [np.dtype("bool"), I64, F64]
    inputs = [
        leaf,
        Dict(("p", "q"), (List((leaf, ScalarIn(F64, python=True))), Tuple((StaticIn(text), ScalarIn(I64, python=True))))),
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
    poison = np.array([3], I64).view(F64).repeat(8)
    call = (x, {"p": [x, 1.5], "q": (text, 10**6)}, np.True_)
    unmatched = (x, {"p": [x, 1.5], "q": (text, 1.0)}, np.True_)
    watched = [x, text, static, None, True, False, np.True_, np.False_, 0, F64, I64, np.ndarray, dict, guard.namespace, poison]
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
    assert _memory() - memory < 1_000_000


def test_no_leak_of_specialisations():
    fn = native.NativeFunction(missed)
    array = np.zeros(4)

    def rounds(count):
        for i in range(count):
            tree = Dict(("a", i), (ArrayIn(F64, (4,)), StaticIn(f"value {i}")))
            native.install(fn, specialise([tree], List((StaticOut(i), StaticOut(array))), hidden=[HiddenArray(array, F64, (4,))]), limit=2)
            assert fn({"a": array, i: f"value {i}"})[0] == i
        native.clear(fn)

    rounds(200)
    references, memory = sys.getrefcount(array), _memory()
    rounds(2_000)
    assert sys.getrefcount(array) == references
    assert _memory() - memory < 1_000_000


# --- threads ---


def test_threads_call_while_another_installs_and_clears():
    leaf = ArrayIn(F64, (8,))
    inputs = [List((leaf, leaf))]
    stop, failures, native_calls = threading.Event(), [], [0]

    def slow(pair):
        return pair[0].copy()

    fn = native.NativeFunction(slow)

    def work(number):
        try:
            while not stop.is_set():
                pair = [np.full(8, float(number)), np.zeros(8)]
                result = fn(pair)
                if not (result == number).all():
                    failures.append(result)
        except BaseException as error:
            failures.append(error)
            raise

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        for release in (True, False):
            code = program(name="sleep_copy") if release else program(1, 64)
            native.install(fn, specialise(inputs, ArrayOut(F64, (8,), 0), code, release_gil=release), limit=2)
        native_calls[0] += 1
        native.clear(fn)
        time.sleep(0.0005)
    stop.set()
    for worker in workers:
        worker.join()
    assert failures == []
    assert native_calls[0] > 10


def test_a_running_call_keeps_its_code_and_its_arguments():
    module = NativeModule(_FIXED.replace("i32 2000", "i32 50000"))
    died = weakref.ref(module)
    specialisation = specialise(
        [List((ArrayIn(F64, (8,)),))], ArrayOut(F64, (8,), 0), (module.address("sleep_copy"), module), release_gil=True
    )
    fn = native.NativeFunction(missed)
    native.install(fn, specialisation)
    del module, specialisation
    arguments, results = [np.arange(8.0)], []
    argument = weakref.ref(arguments[0])
    worker = threading.Thread(target=lambda: results.append(fn(arguments)))
    worker.start()
    time.sleep(0.02)
    arguments.clear()
    native.clear(fn)
    assert worker.is_alive()
    assert argument() is not None
    assert died() is not None
    worker.join()
    assert argument() is None
    assert died() is None
    np.testing.assert_array_equal(results[0], np.arange(8.0))


def test_the_gil_is_released_only_when_asked():
    def parallel(release):
        fn = function([ArrayIn(F64, (8,))], ArrayOut(F64, (8,), 0), program(name="sleep_copy"), release_gil=release)
        inside, most, count = [0], [0], 8

        def call():
            for _ in range(count):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                fn(np.arange(8.0))
                inside[0] -= 1

        threads = [threading.Thread(target=call) for _ in range(4)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    # 32 sleeps of 2 ms: one after the other without release (a lower bound that load cannot break).
    assert parallel(release=False) >= 0.064
    assert min(parallel(release=True) for _ in range(3)) < 0.064


# --- facts ---


def test_layout_is_verified():
    at = layout()
    array = np.zeros((3, 4))
    assert ctypes.c_void_p.from_address(id(array) + at.array_data).value == array.ctypes.data
    assert layout() is at
