"""The public transformations: values, structure, nesting, caching, errors."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import inspect
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import graphjit
from graphjit import DerivativeError, TraceError, UnsupportedError

Point = collections.namedtuple("Point", "x y")


def numeric(f, x, h=1e-6):
    x = np.asarray(x, float)
    g = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = np.zeros_like(x)
        d[i] = h
        g[i] = (f(x + d) - f(x - d)) / (2 * h)
    return g


def f(x):
    return np.sum(np.exp(x) * x)


X = np.linspace(-1.0, 1.0, 7)


def test_grad_matches_differences_as_decorator_and_call():
    decorated = graphjit.grad(f)
    np.testing.assert_allclose(decorated(X), numeric(f, X), rtol=1e-7)
    with_options = graphjit.grad(argnums=0)(f)
    np.testing.assert_array_equal(with_options(X), decorated(X))


def test_value_and_grad_and_results_are_numpy():
    value, gradient = graphjit.value_and_grad(f)(X)
    assert type(value) is np.float64
    assert type(gradient) is np.ndarray
    assert value == pytest.approx(f(X), rel=1e-14)


def test_argnums_argnames_and_keywords():
    def g(a, b, scale=2.0):
        return np.sum(a * b) * scale

    a, b = X, X + 1
    da, db = graphjit.grad(g, argnums=(0, 1))(a, b)
    np.testing.assert_allclose(da, 2 * b)
    np.testing.assert_allclose(db, 2 * a)
    np.testing.assert_allclose(graphjit.grad(g, argnums=-1)(a, b), 2 * a)
    np.testing.assert_allclose(graphjit.grad(g, argnames="b")(a, b=b), 2 * a)
    np.testing.assert_allclose(graphjit.grad(g, argnames="scale")(a, b, scale=3.0), np.sum(a * b))
    np.testing.assert_allclose(graphjit.grad(g)(a, b, scale=3.0), 3 * b)
    first, named = graphjit.grad(g, argnums=(0,), argnames=("b",))(a, b)
    np.testing.assert_allclose(first, 2 * b)
    np.testing.assert_allclose(named, 2 * a)


def test_has_aux():
    def g(x):
        return np.sum(x**2), {"mean": np.mean(x), "tag": "kept"}

    (value, aux), gradient = graphjit.value_and_grad(g, has_aux=True)(X)
    assert value == pytest.approx(np.sum(X**2))
    assert aux["tag"] == "kept"
    assert aux["mean"] == pytest.approx(np.mean(X), abs=1e-16)
    np.testing.assert_allclose(gradient, 2 * X)
    gradient, aux = graphjit.grad(g, has_aux=True)(X)
    np.testing.assert_allclose(gradient, 2 * X)


def test_pytrees_in_and_out():
    @dataclasses.dataclass
    class Params:
        w: np.ndarray
        b: float

    graphjit.register_dataclass(Params)

    def g(p):
        return np.sum(p["layers"][0].w * p["scale"][1]) + p["point"].x * p["layers"][0].b

    tree = {"layers": [Params(X, 2.0)], "scale": (1.0, 3.0), "point": Point(4.0, 5.0)}
    gradient = graphjit.grad(g)(tree)
    assert list(gradient) == list(tree)
    assert isinstance(gradient["layers"][0], Params)
    assert isinstance(gradient["point"], Point)
    np.testing.assert_allclose(gradient["layers"][0].w, np.full(7, 3.0))
    assert gradient["layers"][0].b == 4.0
    assert gradient["point"] == Point(2.0, 0.0)
    assert gradient["scale"][0] == 0.0
    assert gradient["scale"][1] == pytest.approx(np.sum(X), abs=1e-15)
    out = graphjit.jit(lambda x: Point(x * 2, [x, {"k": x + 1}]))(X)
    assert isinstance(out, Point)
    np.testing.assert_array_equal(out.y[1]["k"], X + 1)


def test_nesting_in_any_order():
    def g(x):
        return np.sin(x) * x

    d2 = graphjit.grad(graphjit.grad(g))
    assert d2(0.7) == pytest.approx(2 * np.cos(0.7) - 0.7 * np.sin(0.7))
    forward_over_reverse = graphjit.jit(lambda x: graphjit.jvp(graphjit.grad(g), (x,), (1.0,))[1])
    assert forward_over_reverse(0.7) == pytest.approx(d2(0.7))
    reverse_over_forward = graphjit.grad(lambda x: graphjit.jvp(g, (x,), (np.ones_like(x),))[1])
    assert reverse_over_forward(0.7) == pytest.approx(d2(0.7))
    d3 = graphjit.grad(graphjit.jit(d2))
    assert d3(0.7) == pytest.approx(-3 * np.sin(0.7) - 0.7 * np.cos(0.7))


def test_no_perturbation_confusion():
    assert graphjit.grad(lambda x: x * graphjit.grad(lambda y: x + y)(1.0))(1.0) == 1.0
    assert graphjit.grad(lambda x: graphjit.grad(lambda y: x * y)(x))(3.0) == 1.0
    assert graphjit.grad(lambda x: graphjit.grad(lambda y: x * y * y)(x * 2.0))(3.0) == pytest.approx(24.0)


def test_same_value_on_several_paths_is_summed():
    assert graphjit.grad(lambda x: x * x + 3.0 * x + np.exp(x))(2.0) == pytest.approx(7.0 + np.exp(2.0))


def test_jvp_and_vjp():
    def g(x, y):
        return np.exp(x) * y, np.sum(x)

    dx, dy = X + 0.5, X * 2
    out, dot = graphjit.jvp(g, (X, X), (dx, dy))
    np.testing.assert_allclose(dot[0], np.exp(X) * (X * dx + dy))
    assert dot[1] == pytest.approx(np.sum(dx))
    value, pullback = graphjit.vjp(g, X, X)
    np.testing.assert_allclose(value[0], out[0])
    gx, gy = pullback((dx, 1.0))
    np.testing.assert_allclose(gy, np.exp(X) * dx)
    np.testing.assert_allclose(gx, np.exp(X) * X * dx + 1.0)
    first = [a.copy() for a in pullback((dx, 1.0))]
    X2 = X.copy()
    value, pullback = graphjit.vjp(g, X2, X2)
    X2 += 100.0  # the pullback holds what it saved, not the caller's array
    np.testing.assert_array_equal(pullback((dx, 1.0))[0], first[0])


def test_vjp_of_linear_function_and_unused_argument():
    _out, pullback = graphjit.vjp(lambda x, y: 2.0 * x, X, X)
    gx, gy = pullback(np.ones(7))
    np.testing.assert_array_equal(gx, np.full(7, 2.0))
    np.testing.assert_array_equal(gy, np.zeros(7))


def test_vjp_has_aux_and_nested():
    _out, pullback, aux = graphjit.vjp(lambda x: (np.sum(x**3), x + 1), X, has_aux=True)
    np.testing.assert_allclose(pullback(1.0)[0], 3 * X**2)
    np.testing.assert_allclose(aux, X + 1)
    hessian_diagonal = graphjit.jit(
        lambda x: graphjit.vjp(graphjit.grad(lambda z: np.sum(z**3)), x)[1](np.ones(7))[0]
    )
    np.testing.assert_allclose(hessian_diagonal(X), 6 * X)


def test_static_arguments_defaults_and_flags():
    calls = []

    def g(x, n, mode="a", flag=True):
        calls.append((n, mode, flag))
        for _ in range(n):
            x = x * 2 if mode == "a" else x + 1
        return x if flag else -x

    c = graphjit.jit(g, static_argnums=1)
    np.testing.assert_array_equal(c(X, 3), X * 8)
    np.testing.assert_array_equal(c(X, 3), X * 8)
    assert len(calls) == 1
    np.testing.assert_array_equal(c(X, 2, mode="b"), X + 2)
    np.testing.assert_array_equal(c(X, n=2, mode="b", flag=False), -(X + 2))
    named = graphjit.jit(g, static_argnames="n")
    np.testing.assert_array_equal(named(X, 3), X * 8)
    np.testing.assert_array_equal(named(X, n=3), X * 8)
    with pytest.raises(ValueError, match="nothing"):
        graphjit.jit(g, static_argnames="nothing")
    with pytest.raises(TraceError, match="hashable"):
        c(X, [3])


def test_python_numbers_are_dynamic_and_weak():
    calls = []

    def g(x, s):
        calls.append(1)
        return x * s

    c = graphjit.jit(g)
    x32 = X.astype(np.float32)
    assert c(x32, 2.0).dtype == np.float32
    assert c(x32, 3.5).dtype == np.float32
    assert len(calls) == 1
    assert c(x32, np.float64(2.0)).dtype == np.float64
    assert c(np.arange(3), 2).dtype == np.int64
    assert type(graphjit.grad(lambda n: n * 2.0)(3.0)) is np.float64


def test_captured_arrays_are_inputs_by_reference():
    W = np.ones(3)
    c = graphjit.jit(lambda x: x * W)
    np.testing.assert_array_equal(c(2.0), [2, 2, 2])
    W *= 2
    np.testing.assert_array_equal(c(2.0), [4, 4, 4])
    table = np.arange(3.0)
    table.flags.writeable = False
    np.testing.assert_array_equal(graphjit.jit(lambda x: x * table)(2.0), [0, 2, 4])


scale = 2.0


def test_rebinding_own_cells_and_globals_retraces():
    global scale
    factor = 3.0

    def g(x):
        return x * factor * scale

    c = graphjit.jit(g)
    assert c(1.0) == 6.0
    factor = 5.0
    assert c(1.0) == 10.0
    scale = 4.0
    assert c(1.0) == 20.0
    scale = 2.0
    W = np.ones(2)

    def h(x):
        return x * W

    c = graphjit.jit(h)
    np.testing.assert_array_equal(c(1.0), [1, 1])
    W = np.full(3, 2.0)
    np.testing.assert_array_equal(c(1.0), [2, 2, 2])


def test_methods_bind():
    class Model:
        def __init__(self):
            self.w = np.arange(3.0)

        @graphjit.jit
        def __call__(self, x):
            return x * self.w

        @graphjit.value_and_grad(argnums=1)
        def loss(self, x):
            return np.sum(self.w * x**2)

    model = Model()
    np.testing.assert_array_equal(model(np.ones(3)), [0, 1, 2])
    model.w *= 2
    np.testing.assert_array_equal(model(np.ones(3)), [0, 2, 4])
    value, gradient = model.loss(np.ones(3))
    assert value == 6.0
    np.testing.assert_array_equal(gradient, [0, 4, 8])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda x: x if x > 0 else -x, "truth value"),
        (lambda x: float(x), "float"),
        (lambda x: int(x), "int"),
        (lambda x: range(x), "range"),
        (lambda x: __import__("math").sin(x), "math"),
        (lambda x: bool(x), "truth value"),
        (lambda x: x.item(), "item"),
    ],
)
def test_values_asked_while_tracing(use, words):
    with pytest.raises(TraceError, match=words) as caught:
        graphjit.jit(use, python_control_flow=False)(1.0)
    assert f"{__file__}:" in str(caught.value)
    assert (
        "np.where" in str(caught.value)
        or "static_argnums" in str(caught.value)
        or "outside" in str(caught.value)
    )


def test_asarray_of_a_traced_array():
    np.testing.assert_array_equal(graphjit.jit(lambda x: np.asarray(x) * 2)(X), X * 2)


def test_gradient_errors():
    with pytest.raises(DerivativeError, match="vjp"):
        graphjit.grad(lambda x: x * 2)(X)
    with pytest.raises(DerivativeError, match="int64"):
        graphjit.grad(lambda x: np.sum(x) * 1.0)(np.arange(3))
    with pytest.raises(DerivativeError, match="bool"):
        graphjit.grad(lambda x: np.sum(x) * 1.0)(np.ones(3, bool))
    with pytest.raises(DerivativeError, match="argnums=3"):
        graphjit.grad(f, argnums=3)(X)
    with pytest.raises(DerivativeError, match="shape"):
        graphjit.jvp(lambda x: x, (X,), (X[:2],))
    with pytest.raises(DerivativeError, match="structure"):
        graphjit.vjp(lambda x: (x, x), X)[1](X)
    with pytest.raises(TypeError, match="takes a function"):
        graphjit.grad(3)


def test_unsupported_arguments_say_what_to_pass():
    c = graphjit.jit(lambda x: x)
    with pytest.raises(UnsupportedError, match="plain ndarray"):
        c(np.ma.masked_array([1.0, 2.0], [0, 1]))
    with pytest.raises(UnsupportedError, match="complex128"):
        c(np.ones(2, complex))
    with pytest.raises(UnsupportedError, match="object"):
        c(np.array([None, 1]))
    with pytest.raises(TraceError, match="register"):
        c(bytearray(b"1"))


def test_fall_through_arrays_give_the_same_result():
    calls = []

    def g(x):
        calls.append(1)
        return x * 2.0 + 1.0

    c = graphjit.jit(g)
    base = np.arange(24.0).reshape(4, 6)
    want = base * 2 + 1
    readonly = base.copy()
    readonly.flags.writeable = False
    misaligned = np.frombuffer(b"x" + base.tobytes(), dtype="u1")[1:].view("f8").reshape(4, 6)
    swapped = base.astype(base.dtype.newbyteorder())
    wide = np.zeros((8, 12))
    wide[::2, ::2] = base
    for x in (
        base,
        np.asfortranarray(base),
        readonly,
        misaligned,
        swapped,
        wide[::2, ::2],
        base[::-1, ::-1][::-1, ::-1],
    ):
        keep = x.copy()
        np.testing.assert_array_equal(c(x), want)
        np.testing.assert_array_equal(x, keep)
    assert len(calls) == 3  # rows, columns, with gaps: memory order is part of the trace
    assert c(np.zeros((0, 3))).shape == (0, 3)
    zero = c(np.array(3.0))
    assert type(zero) is np.float64
    assert zero == 7.0


def test_results_never_alias():
    c = graphjit.jit(lambda x: (x, x, x.T, x * 1.0))
    a = np.ones((2, 2))
    outs = c(a)
    for i, out in enumerate(outs):
        assert not np.shares_memory(out, a)
        for other in outs[i + 1 :]:
            assert not np.shares_memory(out, other)


def test_one_trace_per_signature_and_bounded_specialisations():
    calls = []

    def g(x):
        calls.append(1)
        return x + 1

    c = graphjit.jit(g)
    for n in range(1, 101):
        c(np.zeros(n))
    assert len(calls) == 100
    c(np.zeros(100))
    assert len(calls) == 100
    assert len(c.dispatcher.known) <= 64


@pytest.mark.slow
def test_equal_graphs_share_code_and_code_is_freed():
    from graphjit import compilation

    first, second = graphjit.jit(lambda x: x * 3.25 + 1), graphjit.jit(lambda x: x * 3.25 + 1)
    first(X)
    gc.collect()
    before = len(compilation._executables)
    second(X)
    assert len(compilation._executables) == before
    died = weakref.ref(first.dispatcher)
    del first, second
    gc.collect()
    assert died() is None
    compilation._recent.clear()  # what equal functions made in a loop would use again
    gc.collect()
    assert len(compilation._executables) < before


def test_runtime_errors_raise_numpys_exception_with_the_users_line():
    line = inspect.currentframe().f_lineno + 1
    divide = graphjit.jit(lambda a, b: a // b)
    np.testing.assert_array_equal(divide(np.arange(3), np.arange(1, 4)), np.arange(3) // np.arange(1, 4))
    with pytest.raises(ZeroDivisionError, match=f"{__file__}:{line}"):
        divide(np.arange(3), np.arange(3))
    take = graphjit.jit(lambda x, i: x[i])
    np.testing.assert_array_equal(take(X, np.array([0, -1])), X[[0, -1]])
    with pytest.raises(IndexError, match="out of bounds"):
        take(X, np.array([0, 7]))
    with pytest.raises(IndexError, match="out of bounds"):
        take(X, np.array([0, -8]))
    with pytest.raises(ValueError, match="negative integer powers"):
        graphjit.jit(lambda a, b: a**b)(np.array([2, 2]), np.array([1, -1]))
    assert np.iinfo(np.int64).min == divide(np.array([np.iinfo(np.int64).min]), np.array([-1]))[0]


def test_threads_call_at_once():
    c = graphjit.value_and_grad(lambda w, x: np.sum(np.tanh(x * w) ** 2))
    rng = np.random.default_rng(0)
    inputs = [(rng.normal(size=n), rng.normal(size=n)) for n in (5, 9, 64, 5000)]
    want = [c(*args) for args in inputs]
    failures = []

    def work():
        for _ in range(200):
            for args, (value, gradient) in zip(inputs, want, strict=True):
                v, g = c(*args)
                if v != value or not np.array_equal(g, gradient):
                    failures.append(args[0].size)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_no_leak_over_many_calls_and_exceptions():
    import resource

    c = graphjit.value_and_grad(lambda p: np.sum(p["a"] ** 2) * p["b"][0])
    bad = graphjit.jit(lambda a, b: a // b)
    tree = {"a": np.ones(1000), "b": [2.0]}
    zero = np.zeros(4, int)

    def burst(n):
        for _ in range(n):
            c(tree)
            with contextlib.suppress(ZeroDivisionError):
                bad(zero, zero)

    burst(2000)
    gc.collect()
    counts = sys.getrefcount(tree["a"]), sys.getrefcount(zero)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    burst(50_000)
    assert (sys.getrefcount(tree["a"]), sys.getrefcount(zero)) == counts
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000


def test_random_while_tracing_is_refused():
    with pytest.raises(TraceError, match="random"):
        graphjit.jit(lambda x: x + np.random.rand())(1.0)
    np.random.rand()


def run(code, **env):
    import os

    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | env,
        timeout=120,
    )


def test_log_topics():
    code = """
import numpy as np, graphjit
f = graphjit.jit(lambda a, b: a + b)
f(np.ones(3), 1.0); f(np.ones(4), 1.0); f(np.ones(4), np.float32(1.0))
graphjit.grad(lambda x: 3.0)(1.0)
"""
    done = run(code, GRAPHJIT_LOG="retrace,grad")
    assert done.returncode == 0, done.stderr
    assert "argument a changed from array f64[3] to array f64[4]" in done.stderr
    assert "argument b changed" in done.stderr
    assert "gradient is zero" in done.stderr


def test_long_python_loop_is_linear_and_does_not_recurse():
    import time

    def build(n):
        def g(x):
            for _ in range(n):
                x = x * 1.0001 + 0.1
            return x

        return g

    took = []
    for n in (1_000, 5_000):
        start = time.process_time()  # others may be busy
        graphjit.grad(build(n))(1.0)
        took.append(time.process_time() - start)
    assert graphjit.grad(build(5_000))(1.0) == pytest.approx(1.0001**5000, rel=1e-10)
    assert took[1] < 12 * took[0]


@graphjit.value_and_grad
def module_level(x):
    return np.sum(x**2)


def plain(x):
    return np.sum(x**3)


def test_compiled_functions_pickle_and_print():
    import copy
    import pickle

    assert pickle.loads(pickle.dumps(module_level)) is module_level
    made = graphjit.grad(plain)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made))(X), made(X))
    np.testing.assert_array_equal(copy.deepcopy(made)(X), made(X))
    assert repr(made) == "<graphjit.grad of plain>"
    assert made.__wrapped__ is plain
    assert inspect.signature(made) == inspect.signature(plain)


def test_fork_while_another_thread_compiles():
    code = """
import os, sys, threading, time, warnings
import numpy as np, graphjit
warnings.simplefilter("ignore", DeprecationWarning)
f = graphjit.grad(lambda x: np.sum(np.tanh(x) ** 2))
f(np.ones(100_000))
stop = False
def compile_all_the_time():
    n = 1
    while not stop:
        n += 1
        f(np.ones(n % 500 + 1))
t = threading.Thread(target=compile_all_the_time)
t.start()
for _ in range(5):
    time.sleep(0.02)
    pid = os.fork()
    if pid == 0:
        ok = np.allclose(f(np.ones(100_000)), f(np.ones(100_000))) and f(np.ones(7777)).shape == (7777,)
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
t.join()
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_compiled_function_called_by_a_traced_one_is_recorded_not_run():
    W = np.ones(3)
    double = graphjit.jit(lambda a: a * 2.0)
    np.testing.assert_array_equal(double(W), [2, 2, 2])  # from now on it has native code for this signature
    outer = graphjit.jit(lambda x: x * double(W))
    np.testing.assert_array_equal(outer(1.0), [2, 2, 2])
    W *= 5
    np.testing.assert_array_equal(outer(1.0), [10, 10, 10])


def test_a_python_integer_that_does_not_fit_is_an_error():
    f = graphjit.jit(lambda a, k: a * k)
    small = np.ones(3, np.int8)
    for _ in range(2):
        np.testing.assert_array_equal(f(small, 100), small * 100)
        with pytest.raises(OverflowError, match=f"out of bounds for int8 .*{__file__}"):
            f(small, 300)
    with pytest.raises(OverflowError, match="uint16"):
        f(np.ones(2, np.uint16), -1)
    assert f(np.ones(2, np.uint64), 3).dtype == np.uint64
