"""What people do to a compiled function: rebind, resize, loop, return odd things. Each test is a defect that
once was.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import graphjit
from graphjit import compilation, pipeline
from graphjit.backend.llvm.entry import callable as entry
from graphjit.errors import TraceError
from graphjit.trace.outside.find_guards import find_guards

X = np.arange(1.0, 5.0)
SCALE = 2.0
TABLE = {"w": np.ones(4), "k": 1.0}


def scaled(x):
    return x * SCALE


class Model:
    offset = 1.0

    def __init__(self):
        self.w = np.ones(4)
        self.rate = 1.0
        self.layers = [types.SimpleNamespace(w=np.ones(4)), types.SimpleNamespace(w=np.ones(4))]

    def inner(self, x):
        return x * self.w * self.rate + self.offset

    @property
    def doubled(self):
        return self.rate * 2

    @graphjit.jit
    def predict(self, x):
        return self.inner(x)

    @graphjit.jit
    def through(self, x):
        for layer in self.layers:
            x = x * layer.w
        return x * self.doubled


def agree(function, plain, change):
    """Compiled and plain agree before and after a change, on the slow path and on the native one."""
    for _ in range(2):
        np.testing.assert_array_equal(function(X), plain(X))
    change()
    for _ in range(2):
        np.testing.assert_array_equal(function(X), plain(X))


def test_a_global_of_a_called_function_is_followed(monkeypatch):
    agree(
        graphjit.jit(lambda x: scaled(x)),
        scaled,
        lambda: monkeypatch.setattr(sys.modules[__name__], "SCALE", 5.0),
    )


def test_a_cell_of_a_called_function_is_followed():
    k = 1.0

    def helper(x):
        return x * k

    def change():
        nonlocal k
        k = 3.0

    agree(graphjit.jit(lambda x: helper(x)), helper, change)


@pytest.mark.parametrize("key", ["w", "k"])
def test_items_of_a_captured_dict_are_followed(monkeypatch, key):
    def plain(x):
        return x * TABLE["w"] * TABLE["k"]

    agree(graphjit.jit(plain), plain, lambda: monkeypatch.setitem(TABLE, key, 7.0))


def test_a_captured_dict_that_grows_is_followed():
    parts = {"a": 1.0}

    def plain(x):
        return x * sum(parts.values())

    agree(graphjit.jit(plain), plain, lambda: parts.update(b=2.0))
    agree(graphjit.jit(plain), plain, lambda: parts.pop("a"))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.__setitem__(0, 9.0),
        lambda p: p.append(4.0),
        lambda p: p.pop(),
        lambda p: p.__setitem__(1, np.zeros(4)),
        lambda p: p.clear(),
    ],
)
def test_items_of_a_captured_list_are_followed(change):
    parts = [1.0, np.ones(4)]

    def plain(x):
        for part in parts:
            x = x * part
        return x + len(parts)

    agree(graphjit.jit(plain), plain, lambda: change(parts))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "w", np.zeros(4)),
        lambda m: setattr(m, "rate", 4.0),
        lambda m: setattr(m, "offset", 3.0),
        lambda m: m.w.__imul__(3.0),
    ],
)
def test_attributes_of_self_are_followed(change):
    model = Model()
    agree(model.predict, model.inner, lambda: change(model))
    captured = Model()
    agree(graphjit.jit(lambda x: captured.inner(x)), captured.inner, lambda: change(captured))
    bound = Model()
    agree(graphjit.jit(bound.inner), bound.inner, lambda: change(bound))
    part = Model()
    agree(graphjit.jit(functools.partial(Model.inner, part)), part.inner, lambda: change(part))


def test_class_attributes_are_followed(monkeypatch):
    model = Model()
    agree(model.predict, model.inner, lambda: monkeypatch.setattr(Model, "offset", -1.0))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.layers[1], "w", np.zeros(4)),
        lambda m: setattr(m, "rate", 3.0),
        lambda m: m.layers.pop(),
    ],
)
def test_objects_in_lists_and_properties_are_followed(change):
    model = Model()

    def plain(x):
        for layer in model.layers:
            x = x * layer.w
        return x * model.doubled

    agree(model.through, plain, lambda: change(model))


def test_a_gradient_follows_what_its_function_reads():
    model = Model()
    slope = graphjit.grad(lambda x: np.sum(model.inner(x)))
    assert slope(X).tolist() == [1.0] * 4
    model.w = np.full(4, 2.0)
    assert slope(X).tolist() == [2.0] * 4


def test_attributes_of_a_users_module_are_followed(monkeypatch):
    settings = types.ModuleType("settings_of_a_user")
    settings.k = 2.0

    def plain(x):
        return x * settings.k

    agree(graphjit.jit(plain), plain, lambda: setattr(settings, "k", 3.0))


def test_libraries_and_long_containers_need_few_guards():
    def function(x):
        return np.sum(np.sin(x)) * long[0]

    long = [1.0] * 1000
    kinds = sorted(type(guard).__name__ for guard in find_guards(function).guards)
    assert kinds == [
        "CellGuard",
        "MemoryGuard",
        "SequenceGuard",
    ]  # `long`, code and defaults of the function, all items at once
    deep = []
    deep.append(deep)
    assert find_guards(lambda x: deep).guards  # a list that holds itself


def test_a_counter_in_the_function_counts_every_call():
    calls = types.SimpleNamespace(n=0)

    @graphjit.jit
    def f(x):
        calls.n += 1
        return x * calls.n

    assert [f(1.0) for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda w: setattr(w, "shape", (2, 4)),
        lambda w: w.resize((3, 4), refcheck=False),
        lambda w: setattr(w, "dtype", "f4"),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting the (shape|dtype):DeprecationWarning")
def test_a_captured_array_may_change_its_shape_and_dtype_in_place(change):
    w = np.ones(8)
    f = graphjit.jit(lambda x: w * x)
    assert f(2).shape == (8,)
    change(w)
    for _ in range(2):
        np.testing.assert_array_equal(f(2), w * 2)
        assert f(2).dtype == (w * 2).dtype


def test_retrace_log_names_what_changed(monkeypatch, capsys):
    monkeypatch.setattr("graphjit.config.log_topics", frozenset({"retrace"}))
    model = Model()
    model.predict(X)
    model.rate = 2.0
    model.predict(X)
    assert "'rate', which was 1.0, was changed" in capsys.readouterr().err


@pytest.mark.slow
def test_equal_lambdas_in_a_loop_are_compiled_once(monkeypatch):
    compiled = []
    original = pipeline.compile_graph
    monkeypatch.setattr(pipeline, "compile_graph", lambda *args: compiled.append(1) or original(*args))
    for _ in range(5):
        graphjit.grad(lambda x: np.sum(x * x * 1.0625))(X)
        graphjit.vjp(lambda x: x * x * 1.0625, X)[1](X)
        gc.collect()
    assert len(compiled) == 3
    assert len(compilation._recent) <= compilation.RECENT


def test_iterators_as_arguments_are_refused():
    with pytest.raises(graphjit.TraceError, match="generator can be read only once"):
        graphjit.jit(lambda items: sum(items))(i for i in range(3))


class Pair:
    def __init__(self, a):
        self.a = a


@pytest.mark.parametrize("make", [lambda x: (v for v in x), lambda x: Pair(x), lambda x: Pair([x])])
def test_results_that_hide_traced_values_are_refused(make):
    with pytest.raises(graphjit.TraceError, match="the traced function returned an"):
        graphjit.jit(make)(X)


@pytest.mark.parametrize("wrong", [None, "1", 1j])
def test_cotangents_that_are_no_numbers_are_refused(wrong):
    _, pullback = graphjit.vjp(lambda x: x**3, 1.0)
    with pytest.raises(graphjit.DerivativeError, match="cotangent must be an array or a number"):
        pullback(wrong)
    with pytest.raises(graphjit.DerivativeError, match="cotangent must be an array or a number"):
        graphjit.jit(lambda x: graphjit.vjp(lambda y: y**3, x)[1](wrong))(1.0)


def test_messages_say_what_to_do():
    with pytest.raises(graphjit.UnsupportedError, match=r"x\.filled"):
        graphjit.jit(lambda x: x)(np.ma.array([1.0, 2.0], mask=[True, False]))
    with pytest.raises(
        graphjit.TraceError, match=r"formatting needs.*test_regressions_use.py:\d+.*graphjit.debug.print"
    ):
        graphjit.jit(lambda x: f"{x:.3f}")(1.0)
    with pytest.raises(graphjit.TraceError, match=r"a key of a dict or an item of a set needs the value"):
        graphjit.jit(lambda x: {x[0]})(X)
    with pytest.raises(TypeError, match="positions of arguments are integers"):
        graphjit.grad(lambda x: x, argnums="0")
    with pytest.raises(graphjit.DerivativeError, match="of a method, self is argument 0"):
        graphjit.grad(Model.inner)(Model(), X)


def test_the_native_entry_is_not_installed_when_leaves_have_another_order(monkeypatch):
    f = graphjit.jit(lambda d: d["a"] - d["b"])
    monkeypatch.setattr("graphjit.dispatch.input_tree", lambda value: entry_tree(value))
    assert f({"a": 3.0, "b": np.ones(2)}).tolist() == [2.0, 2.0]
    assert entry.specialisations(f) == ()


def entry_tree(value):
    """The description of a dict with its items in the wrong order."""
    from graphjit.backend import signature as sig

    return sig.Dict(("b", "a"), (sig.ArrayIn(np.dtype(float), (2,)), sig.ScalarIn(np.dtype(float), True)))


def test_many_elementary_functions_are_called_rather_than_inlined():
    def chain(x):
        for _ in range(60):
            x = np.sin(x) * 0.5
        return np.sum(x)

    for size in (10, 4000):
        text = pipeline.compile_graph(
            graphjit.grad(chain, reroll=False).dispatcher.staged(np.ones(size)).graph
        ).module.render()
        assert len(re.findall(r"= call .* @gj_sin_f64_", text)) >= 30
        assert text.count("\n") < 12_000


def test_many_leaves_are_split_over_kernels():
    graph = (
        graphjit.grad(lambda d: sum(v * v for v in d))
        .dispatcher.staged([float(i) for i in range(1000)])
        .graph
    )
    _, program = pipeline.schedule(pipeline.optimize(graph))
    assert max(len(step.nodes) for step in program.steps) <= 192
    assert len(program.steps) <= 20


def test_a_signal_during_code_generation_waits():
    """An exception raised inside of llvmlite would leave an LLVM object with two owners.

    In a process of its own: where other threads of the program take signals, Python runs the handler at once
    whatever this thread blocks.
    """
    code = """
import os, signal
import graphjit
from graphjit.backend.llvm.objects import jit

state, seen = [], []
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
original = jit.target_machine

def interrupted(opt):
    os.kill(os.getpid(), signal.SIGUSR1)
    state.append(list(seen))
    return original(opt)

signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
f = graphjit.jit(lambda x: x * 1.03125)
jit.target_machine = interrupted
assert f(2.0) == 2.0625
assert state and not any(state), state
assert seen, seen
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
"""
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # NumPy's own threads take signals too
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=env)
    assert done.returncode == 0, done.stderr


class _Scaled:
    scale = 1.0

    @graphjit.jit
    def forward(self, x):
        return self.scale * x


def test_an_attribute_of_an_instance_that_shadows_its_class_makes_a_new_trace():
    scaled = _Scaled()
    assert not vars(scaled)
    assert scaled.forward(2.0) == 2.0
    scaled.scale = 3.0
    assert scaled.forward(2.0) == 6.0
    del scaled.scale
    assert scaled.forward(2.0) == 2.0


class _Noisy:
    def __init__(self):
        self.rng = np.random.default_rng(1)

    def forward(self, x):
        return x + self.rng.normal(size=3)


def test_draws_from_a_captured_generator_are_refused():
    rng, old, noisy = np.random.default_rng(0), np.random.RandomState(0), _Noisy()
    x = np.ones(3)
    for f, args in (
        (lambda x: x + rng.normal(size=3), (x,)),
        (lambda x: x + old.rand(3), (x,)),
        (noisy.forward, (x,)),
        (lambda x, g: x + g.normal(size=3), (x, rng)),
    ):
        with pytest.raises(TraceError, match="random generator"):
            graphjit.jit(f)(*args)
    named = graphjit.jit(lambda x: x * 2 if rng is None else x * 3)
    np.testing.assert_array_equal(named(x), 3 * x)


def test_writing_into_a_captured_array_says_so():
    held = np.zeros(3)
    for f in (
        lambda x: np.copyto(held, x),
        lambda x: np.add.at(held, 0, x[0]),
        lambda x: np.add(x, x, out=held),
    ):
        with pytest.raises(TraceError, match="array from outside"):
            graphjit.jit(f)(np.ones(3))
