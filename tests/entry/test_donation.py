"""Donated arguments: same values, memory that is used again, and every reason not to."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import gc
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest
from compiled_harness import with_gradient
from random_graphs import random_graph, random_inputs, rng_for

import graphjit
from graphjit.backend.donation import apart
from graphjit.backend.llvm.entry.callable import blocks, specialisations
from graphjit.backend.signature import ArrayIn, ArrayOut, EntrySpec, StaticIn, Tuple
from graphjit.cli.stages import Stages
from graphjit.dispatch import executable

Moments = collections.namedtuple("Moments", "m v")


@graphjit.register_dataclass
@dataclasses.dataclass
class State:
    w: np.ndarray
    b: np.ndarray


def loss(p, x, y):
    hidden = np.tanh(x @ p["w1"] + p["b1"])
    return np.mean((hidden @ p["w2"] + p["b2"] - y) ** 2)


def adam(p, m, v, batch):
    value, g = graphjit.value_and_grad(loss)(p, *batch)
    m = {k: 0.9 * m[k] + 0.1 * g[k] for k in p}
    v = {k: 0.999 * v[k] + 0.001 * g[k] ** 2 for k in p}
    p = {k: p[k] - 1e-3 * m[k] / (np.sqrt(v[k]) + 1e-8) for k in p}
    return p, m, v, value


def network(hidden=300):
    rng = np.random.default_rng(1)
    p = {
        "w1": rng.normal(size=(60, hidden)),
        "b1": np.zeros(hidden),
        "w2": rng.normal(size=(hidden, 7)),
        "b2": np.zeros(7),
    }
    zeros = {k: np.zeros_like(a) for k, a in p.items()}
    return (p, zeros, copy.deepcopy(zeros)), (rng.normal(size=(32, 60)), rng.normal(size=(32, 7)))


def leaves(state):
    return [array for tree in state for array in tree.values()]


def scale(x, y):
    return x * 2.0 + y


FIVES = (np.ones(5), np.ones(5))


def donating(function=scale, argnums=0, warm=FIVES, **options):
    """A donating function whose native entry for ``warm`` is installed."""
    compiled = graphjit.jit(function, donate_argnums=argnums, **options)
    compiled(*copy.deepcopy(warm))
    assert len(specialisations(compiled)) == (options.get("backend") != "numba")
    return compiled


# -------------------------------------------------------------------------------------------- the typical use


@pytest.mark.parametrize("hidden", [3, 300])
def test_adam_updates_its_state_in_place(hidden):
    state, batch = network(hidden)
    plain, donated = graphjit.jit(adam), graphjit.jit(adam, donate_argnums=(0, 1, 2))
    mine = copy.deepcopy(state)
    objects = leaves(mine)
    for _ in range(5):
        *state, wanted = plain(*state, batch)
        *mine, value = donated(*mine, batch)
        assert value == wanted
        for got, want in zip(leaves(mine), leaves(state), strict=True):
            np.testing.assert_array_equal(got, want)
        assert all(now is before for now, before in zip(leaves(mine), objects, strict=True))


def test_no_large_result_is_allocated():
    state, batch = network(2000)
    step = donating(adam, (0, 1, 2), (*state, batch))
    held = blocks().held
    for _ in range(3):
        *state, _ = step(*state, batch)
    assert blocks().held == held


def test_without_donation_arguments_stay():
    x = np.ones(5)
    assert graphjit.jit(scale)(x, x) is not x
    assert x.tolist() == [1.0] * 5


# ----------------------------------------------------------------------------------------- every kind of call


@pytest.mark.parametrize("backend", ["llvm", "numba"])
@pytest.mark.parametrize("shape", [(1,), (5,), (4, 3), (100_003,), (300, 301)])
def test_the_result_is_the_donated_array(backend, shape):
    step = graphjit.jit(scale, donate_argnums=0, backend=backend)
    for _ in range(3):  # first the slow way, then the native entry
        x, y = np.random.default_rng(0).normal(size=(2, *shape))
        x = x.copy()
        wanted = x * 2.0 + y
        assert step(x, y) is x
        np.testing.assert_array_equal(x, wanted)


def test_by_name_by_keyword_and_from_the_end():
    for options in (
        {"donate_argnums": 1},
        {"donate_argnames": "b"},
        {"donate_argnums": (-1,)},
        {"donate_argnames": ["b"]},
    ):
        step = graphjit.jit(lambda a, b: b - a, **options)
        for _ in range(2):
            a, b = np.ones(4), np.ones(4)
            assert step(a, b) is b
            assert a.tolist() == [1.0] * 4
    step = graphjit.jit(lambda a, *, b: b - a, donate_argnames="b")
    for _ in range(2):
        b = np.ones(4)
        assert step(np.ones(4), b=b) is b


def test_as_decorator_as_method_and_pickled():
    class Model:
        @graphjit.jit(donate_argnums=1)
        def step(self, w):
            return w + 1.0

    model, w = Model(), np.zeros(6)
    assert all(model.step(w) is w for _ in range(3))
    assert w.tolist() == [3.0] * 6
    again = pickle.loads(pickle.dumps(graphjit.jit(scale, donate_argnames="x")))
    x = np.ones(5)
    assert again(x, np.ones(5)) is x


def test_nested_containers_and_registered_classes():
    def step(state, moments, rest):
        new = State(state.w * 0.5, state.b + 1.0)
        return new, Moments(moments.m + 1, moments.v * 2), [rest[0] + rest[1]["k"], {"x": rest[1]["k"] * 3.0}]

    step = graphjit.jit(step, donate_argnums=(0, 1, 2))
    for _ in range(3):
        state, moments = State(np.ones((3, 4)), np.ones(4)), Moments(np.ones(2, np.float32), np.arange(3))
        rest = [np.ones(7), {"k": np.ones(7)}]
        new, found, (first, second) = step(state, moments, rest)
        assert new.w is state.w
        assert new.b is state.b
        assert found.m is moments.m
        assert found.v is moments.v
        assert first is rest[0]
        assert first.tolist() == [2.0] * 7
        assert second["x"].tolist() == [3.0] * 7
        assert new.w.sum() == 6.0
        assert found.v.tolist() == [0, 2, 4]


def test_other_shapes_are_traced_again():
    step = graphjit.jit(scale, donate_argnums=0)
    for n in (3, 8, 3, 40_000, 8):
        x = np.ones(n)
        assert step(x, np.ones(n)) is x
        assert x.tolist() == [3.0] * n
    x = np.ones(3)
    with pytest.raises(ValueError, match="broadcast"):
        step(x, np.ones(4))
    assert x.tolist() == [1.0] * 3


def test_gradients_take_over_donated_parameters():
    gradient = graphjit.jit(graphjit.grad(lambda w: np.sum(np.sin(w))), donate_argnums=0)
    for _ in range(2):
        w = np.linspace(0.0, 1.0, 9).copy()  # NumPy's own is a view
        wanted = np.cos(w)
        assert gradient(w) is w
        np.testing.assert_allclose(w, wanted, rtol=1e-15)


def test_inside_another_function_donation_means_nothing():
    inner = donating()
    outer = graphjit.jit(lambda x, y: (inner(x, y), x))
    for _ in range(2):
        x = np.ones(5)
        first, second = outer(x, np.ones(5))
        assert first.tolist() == [3.0] * 5
        assert second.tolist() == [1.0] * 5
        assert x.tolist() == [1.0] * 5


def test_identity_and_exchange():
    same = graphjit.jit(lambda x: x, donate_argnums=0)
    turned = graphjit.jit(lambda x, y: (y, x), donate_argnums=(0, 1))
    for _ in range(2):
        x, y = np.arange(4.0), np.arange(4.0) + 10
        assert same(x) is x
        a, b = turned(x, y)
        assert a.tolist() == [10, 11, 12, 13]
        assert b.tolist() == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------ the schedule forbids it


FORBIDDEN = {
    "reversed": lambda x, y: x[::-1] + y,
    "shifted": lambda x, y: np.concatenate([x[1:], x[:1]]) * y,
    "transposed": lambda x, y: x.reshape(8, 8).T.reshape(64) + y,
    "gathered": lambda x, y: x[np.arange(64)[::-1].copy()] * y,
    "its own sum": lambda x, y: x - np.sum(x) * y,
    "cumulative": lambda x, y: np.cumsum(x) + 0.0 * y,
    "read later": lambda x, y: (x * y, np.sum(np.cumsum(x * y)[::-1] * x)),
    "softmax": lambda x, y: np.exp(x - x.max()) / np.sum(np.exp(x - x.max())) + y,
    "product": lambda x, y: (x.reshape(8, 8) @ y.reshape(8, 8)).reshape(64),
    "large product": lambda x, y: np.tile(x, 64).reshape(64, 64) @ y + x[::-1],
    "several": lambda x, y: (x + y, x * y, x - y, y - x, x[::-1] * y),
}


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("argnums", [0, 1, (0, 1)])
def test_values_never_change(name, argnums):
    function = FORBIDDEN[name]
    plain, step = graphjit.jit(function), graphjit.jit(function, donate_argnums=argnums)
    for seed in range(3):
        x, y = np.random.default_rng(seed).normal(size=(2, 64))
        wanted = plain(x, y)
        np.testing.assert_equal(step(x.copy(), y.copy()), wanted)


@pytest.mark.sample(4)
@pytest.mark.parametrize("derive", [lambda graph: graph, with_gradient], ids=["forward", "gradient"])
@pytest.mark.parametrize("chunk", range(6))
def test_random_programs(chunk, derive):
    """Whatever the schedule allows gives the bits that separate memory gives."""
    pairs = 0
    for seed in range(2000 + chunk * 12, 2000 + chunk * 12 + 12):
        graph = derive(random_graph(seed, 22, differentiable=derive is with_gradient))
        code = executable(graph, "llvm", tuple(range(len(graph.inputs))))
        values = [np.ascontiguousarray(v) for v in random_inputs(graph, rng_for(seed))]
        wanted = code.run(values)
        given = [v.copy() for v in values]
        found = code.run(given, {out: given[k] for out, k in code.in_place.items()})
        pairs += len(code.in_place)
        for got, want in zip(found, wanted, strict=True):
            assert got.tobytes() == want.tobytes(), seed
    assert pairs >= (5 if derive is with_gradient else 0)


def mixed(seed, a, b, r, c):
    """A program drawn by ``seed``: matrices, rows and columns that read each other in every order."""
    rng = np.random.default_rng(seed)
    mats, rows, cols = [a, b], [r], [c]

    def pick(values):
        return values[rng.integers(len(values))]

    for _ in range(rng.integers(4, 14)):
        m, n, row, col = pick(mats), pick(mats), pick(rows), pick(cols)
        kind = rng.integers(10)
        if kind < 5:
            mats.append((m * 0.5 + n, m * row[:, None], m + col, np.tanh(m), m[::-1] * 0.5)[kind])
        elif kind < 8:
            rows.append(
                (
                    m.sum(axis=1) * 0.01 + row,
                    row - np.max(m, axis=1) * 0.1,
                    row * 0.5 + (m * col).mean(axis=1),
                )[kind - 5]
            )
        else:
            cols.append((m.sum(axis=0) * 0.01 - col, col * 0.9 + col.sum() * 0.001)[kind - 8])
    return mats[-1], mats[-2], rows[-1], cols[-1], pick(mats) + a, pick(rows) * r, pick(cols) + c


@pytest.mark.sample(2)
@pytest.mark.parametrize("shape", [(64, 500), (3, 4000), (500, 64), (1, 700), (700, 1), (40, 41), (2000, 17)])
def test_random_programs_over_large_arrays(shape):
    """As above where loops are vectors, unrolled, and split over threads."""
    taken = 0
    for seed in range(5):
        values = [np.random.default_rng(seed).normal(size=s) for s in (shape, shape, shape[:1], shape[1:])]
        program = functools.partial(mixed, 7 * seed + shape[0])
        wanted = graphjit.jit(program)(*values)
        given = [v.copy() for v in values]
        found = graphjit.jit(program, donate_argnums=range(4))(*given)
        taken += sum(any(got is x for x in given) for got in found)
        for got, want in zip(found, wanted, strict=True):
            assert got.tobytes() == want.tobytes(), seed
    assert taken >= 5


# --------------------------------------------------------------------------------------- the arrays forbid it


def held_back(step, x, y=None):
    """Whether the call computes normally: right values, nothing overwritten."""
    y = np.ones(5) if y is None else y
    before, wanted = x.copy(), x * 2.0 + y
    out = step(x, y)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(x, before)
    return not np.may_share_memory(out, x)


@pytest.fixture(params=["native", "slow", "numba"])
def step(request):
    """A donating function called through each way."""
    if request.param == "numba":
        yield donating(backend="numba")
    else:
        made = donating()
        yield made if request.param == "native" else made.dispatcher


def test_arrays_without_memory_of_their_own(step):
    base = np.ones(10)
    fixed = np.ones(5)
    fixed.flags.writeable = False
    assert held_back(step, base[:5])
    assert held_back(step, base[::2])
    assert held_back(step, fixed)
    assert held_back(step, np.frombuffer(bytearray(40)))
    assert held_back(step, np.broadcast_to(1.0, 5))
    assert held_back(step, np.ones(5, np.dtype("f8").newbyteorder()))
    assert base.tolist() == [1.0] * 10
    x = np.ones(5)
    assert step(x, np.ones(5)) is x


def test_the_same_memory_twice(step):
    x = np.ones(5)
    assert held_back(step, x, x)
    assert held_back(step, x, x[:])
    assert held_back(step, x, np.frombuffer(memoryview(x)))
    whole = np.ones(6)
    x = np.ones(5)
    x_too = np.lib.stride_tricks.as_strided(x, (5,), (8,))
    assert held_back(step, x, x_too)
    assert step(x, whole[1:]) is x


@pytest.mark.parametrize("way", ["native", "slow"])
def test_both_donated_and_the_same(way):
    made = donating(lambda x, y: (x + 1.0, y + 2.0), (0, 1))
    step = made if way == "native" else made.dispatcher
    x, y = np.zeros(5), np.zeros(5)
    a, b = step(x, x)
    assert (a.tolist(), b.tolist(), x.tolist()) == ([1.0] * 5, [2.0] * 5, [0.0] * 5)
    a, b = step(x, y)
    assert a is x
    assert b is y


@pytest.mark.parametrize("way", ["native", "slow"])
def test_captured_arrays_are_other_arrays(way):
    captured = np.ones(5)
    made = donating(lambda x, y: x * captured + y)
    step = made if way == "native" else made.dispatcher
    for other in (captured, captured[:]):
        out = step(other, np.ones(5))
        assert out.tolist() == [2.0] * 5
        assert captured.tolist() == [1.0] * 5
    out = step(np.ones(5), captured)
    assert captured.tolist() == [1.0] * 5
    x = np.ones(5)
    assert step(x, captured) is x


def test_arrays_that_are_not_donated_may_overlap():
    step = donating(lambda x, y, z: x + y + z, 0, (np.ones(5), np.ones(5), np.ones(5)))
    whole = np.ones(8)
    x = np.ones(5)
    assert step(x, whole[:5], whole[2:7]) is x
    assert x.tolist() == [3.0] * 5


def test_native_and_slow_way_agree_on_overlaps():
    """Arrays at random places of one block, those donated among them: the compiled sort and sweep against the
    written one.
    """
    rng = np.random.default_rng(0)
    count, size = 9, 4
    made = graphjit.jit(lambda *xs: tuple(x + i for i, x in enumerate(xs)), donate_argnums=(1, 4, 5))
    seen = collections.Counter()
    for _ in range(400):
        owners = [np.zeros(size) for _ in range(count)]
        arrays = []
        for i in range(count):
            other = owners[rng.integers(count)]
            arrays.append(other[:] if rng.random() < 0.12 and i not in (1, 4, 5) else owners[i])
        free = apart(arrays, {1, 4, 5})
        before = [a.copy() for a in arrays]
        out = made(*arrays)
        for i, (got, was) in enumerate(zip(out, before, strict=True)):
            np.testing.assert_array_equal(got, was + i)
            assert (got is arrays[i]) == (free and i in (1, 4, 5))
        seen[free] += 1
    assert min(seen[True], seen[False]) > 50


# ---------------------------------------------------------------------------------- lifetime, errors, threads


def test_references_and_memory_over_many_calls():
    x, y = np.ones(5), np.zeros(5)
    step = donating(lambda x, y: (x * 1.0 + y, {"y": y + 1.0}), (0,))
    step(x, y)
    gc.collect()
    before = sys.getrefcount(x), sys.getrefcount(y), sys.getallocatedblocks()
    for _ in range(10_000):
        out, rest = step(x, y)
        assert out is x
    assert sys.getrefcount(x) == before[0] + 1  # `out`
    del out, rest
    gc.collect()
    assert (sys.getrefcount(x), sys.getrefcount(y)) == before[:2]
    assert sys.getallocatedblocks() - before[2] < 200
    dead = weakref.ref(x)
    out = step(x, y)[0]
    del x
    assert dead() is out
    del out
    assert dead() is None


def test_a_failing_call_gives_everything_back():
    """The contents of donated arrays are lost when a call fails at run time, nothing else."""
    step = graphjit.jit(lambda x, t, i: (x * 2.0, t[i]), donate_argnums=0)
    t, i = np.arange(4.0), np.array([0, 3])
    x = np.ones(5)
    assert step(x, t, i)[0] is x
    count = sys.getrefcount(x)
    for _ in range(200):
        with pytest.raises(IndexError, match="out of bounds"):
            step(x, t, i + 9)
    assert sys.getrefcount(x) == count
    x[:] = 1.0
    assert step(x, t, i)[0] is x
    assert x.tolist() == [2.0] * 5


def test_a_result_without_memory_leaves_donated_arrays_alone():
    huge = 1 << 46
    step = graphjit.jit(lambda x: (x * 2.0, np.broadcast_to(x[0], (huge,)) + 1.0), donate_argnums=0)
    x = np.ones(5)
    for _ in range(3):
        with pytest.raises(MemoryError):
            step(x)
    assert x.tolist() == [1.0] * 5
    assert sys.getrefcount(x) == 2


def test_threads_with_arrays_of_their_own():
    n = 30_000  # long enough to release the GIL
    step = donating(lambda x, y: np.sin(x) * np.cos(x) + y, 0, (np.ones(n), np.ones(n)))
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=n), rng.normal(size=n)
        mine, wanted = x.copy(), x
        for _ in range(50):
            if step(mine, y) is not mine:
                wrong.append(seed)
            wanted = plain(wanted, y)
        if not np.array_equal(mine, wanted):
            wrong.append(seed)

    plain = graphjit.jit(lambda x, y: np.sin(x) * np.cos(x) + y)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --------------------------------------------------------------------------------------------------- mistakes


def test_mistakes():
    with pytest.raises(ValueError, match="static and donated: 0, x"):
        graphjit.jit(scale, donate_argnums=0, static_argnames="x")
    with pytest.raises(ValueError, match="donate_argnames names 'z', which is no parameter"):
        graphjit.jit(scale, donate_argnames="z")
    with pytest.raises(ValueError, match="donate_argnums names position 2"):
        graphjit.jit(scale, donate_argnums=(0, 2))
    with pytest.raises(TypeError, match="positions of arguments are integers"):
        graphjit.jit(scale, donate_argnums="x")


def test_numbers_and_static_leaves_can_be_donated_in_vain():
    step = graphjit.jit(
        lambda state: {"w": state["w"] * state["rate"], "kind": state["kind"]}, donate_argnums=0
    )
    for _ in range(2):
        w = np.ones(3)
        out = step({"kind": "sgd", "rate": 0.5, "w": w})
        assert out["w"] is w
        assert out["kind"] == "sgd"


def test_log_names_what_is_not_reused(capsys, monkeypatch):
    monkeypatch.setattr("graphjit.config.log_topics", frozenset({"donate"}))
    graphjit.jit(lambda p, x: (p["w"] + 1.0, x.sum()), donate_argnums=(0, 1))(
        {"w": np.ones(3), "u": np.ones(2)}, np.ones(4)
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "the donated argument p['u'] of type f64[2] is not reused" in lines[0]
    assert "the donated argument x of type f64[4]" in lines[1]


def test_a_specification_names_a_donor_of_the_same_type_once():
    f64, array = np.dtype("f8"), ArrayIn(np.dtype("f8"), (3,))
    fits = ArrayOut(f64, (3,), 0, donor=1)
    for inputs, outputs in (
        ((array,), fits),
        ((array, ArrayIn(f64, (4,))), fits),
        ((array, StaticIn(1)), fits),
        ((array, array), Tuple((fits, ArrayOut(f64, (3,), 1, donor=1)))),
    ):
        with pytest.raises(ValueError, match=r"input slot 1 is no argument|two results want"):
            EntrySpec(len(inputs), (), inputs, (), (), outputs, RuntimeError)
    EntrySpec(2, (), (array, array), (), (), fits, RuntimeError)


def test_inspect_shows_what_is_taken_over():
    step = graphjit.jit(scale, donate_argnums=0)
    assert "out0 : f64[5]  40 bytes  output 0, in place of in0 (donated)" in Stages(step, FIVES).text(
        "program"
    )
    assert "donated" not in Stages(scale, FIVES).text("program")


SHIFTED = [
    lambda x: (x * 2, np.pad(x[1:], (1, 0)) * 3),
    lambda x: (np.pad(x[1:], (1, 0)) * 3, x * 2),
    lambda x: (np.pad(x[1:], (1, 0)) + x, np.pad(x[:-1], (0, 1)) - x),
]


@pytest.mark.parametrize("function", SHIFTED)
def test_a_load_under_a_condition_is_not_shared(function):
    """``x`` read through a frame of zeros is another load, which stood behind the store of the first
    result.
    """
    x = np.arange(1.0, 1001)
    for donated in ((), (0,)):
        for got, want in zip(
            graphjit.jit(function, donate_argnums=donated)(x.copy()), function(x), strict=True
        ):
            np.testing.assert_array_equal(got, want)
