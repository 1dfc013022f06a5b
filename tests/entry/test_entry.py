"""What the native entry point accepts, what it refuses, and what it returns."""

from __future__ import annotations

import collections
import ctypes
import functools
import random
import sys

import numpy as np
import pytest
from entry_harness import F64, I64, function, misses, program, specialise

from graphjit.backend.llvm.entry import callable as native
from graphjit.backend.llvm.entry.cpython import layout
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

ALL = sorted(DTYPES, key=lambda dtype: dtype.name)


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
    np.testing.assert_array_equal(
        function([ArrayIn(I64, (8,))], ArrayOut(I64, (8,), 0), program(1, 64))(array), array
    )
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
        (2j, complex("2j"), [complex(-0.0, 2), 3j, 2.0]),
        (b"xy", bytes([120, 121]), [b"xz", "xy"]),
        (
            (1, ("a", None)),
            (1, ("".join(["a"]), None)),
            [(1, ("b", None)), (True, ("a", None)), (1,), [1, ("a", None)]],
        ),
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
    weights.resize((2, 4), refcheck=False)
    assert misses(fn)
    weights.resize(8, refcheck=False)
    np.testing.assert_array_equal(fn(), 2 * np.arange(8.0))
    weights.resize(4, refcheck=False)
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
    fn = function(
        [], StaticOut("native"), guards=[CellGuard(cell, value), GlobalGuard(namespace, "name", value)]
    )
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


Pair = collections.namedtuple("Pair", "a b")
Other = collections.namedtuple("Other", "a b")
Nothing = collections.namedtuple("Nothing", "")


def test_containers_must_be_exact():
    x = np.ones(2)
    leaf = ArrayIn(F64, (2,))

    class SubTuple(tuple):
        pass

    class SubList(list):
        pass

    class SubPair(Pair):
        pass

    class SubDict(dict):
        pass

    for tree, good, wrong in [
        (Tuple((leaf, leaf)), (x, x), [[x, x], (x,), (x, x, x), SubTuple((x, x)), {}, x, (x, None)]),
        (List((leaf, leaf)), [x, x], [(x, x), [x], [x, x, x], SubList([x, x]), None]),
        (
            Dict(("a", "b"), (leaf, leaf)),
            {"a": x, "b": x},
            [
                {"b": x, "a": x},
                {"a": x},
                {"a": x, "b": x, "c": x},
                {"a": x, "c": x},
                SubDict(a=x, b=x),
                {"a": x, 1: x},
                [x, x],
            ],
        ),
        (
            Dict((0, ("k", 1)), (leaf, leaf)),
            {0: x, ("k", 1): x},
            [{0.0: x, ("k", 1): x}, {False: x, ("k", 1): x}],
        ),
        (Tuple(()), (), [(x,), [], {}, Nothing()]),
        (
            Tuple((leaf, leaf), Pair),
            Pair(x, x),
            [(x, x), [x, x], Other(x, x), SubPair(x, x), Pair(x, None), SubTuple((x, x))],
        ),
        (Tuple((), Nothing), Nothing(), [(), []]),
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
        failing = function(
            [List(leaf_in)], StaticOut(None), program(name="status"), on_error=ValueError, release_gil=True
        )
        values[-1] = values[0].view()
        values[0].view(I64)[0] = 1
        with pytest.raises(ValueError, match="1"):
            failing(values)
        del values[-1]
        after = sys.getrefcount(values[0])
        assert after == before
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


# --- facts ---


def test_layout_is_verified():
    at = layout()
    array = np.zeros((3, 4))
    assert ctypes.c_void_p.from_address(id(array) + at.array_data).value == array.ctypes.data
    assert layout() is at
