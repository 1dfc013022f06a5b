"""Arrays from outside: what a function computes from them is fresh at each call, and to everybody else they
are the arrays that they are.
"""

from __future__ import annotations

import copy
import gc
import math
import operator
import os
import pickle
import threading
import weakref

import numpy as np
import pytest

import graphjit
from graphjit.backend.signature import ContentGuard
from graphjit.errors import GraphjitError, TraceError
from graphjit.trace.outside import captured_class

EXPRESSIONS = """
x * W ** 2
x * np.sum(W ** 2)
x * W.sum()
x * W[0]
x * W[:1]
x * W[-1:]
x * float(W.sum())
x if W[0] > 3 else 2 * x
x * W.tolist()[0]
x * W.item(0)
x * np.sort(W)
x * W.max()
x * max(W)
x * sum(W)
x * math.sqrt(W[0])
x * np.asarray(W)
x * np.sum(np.asarray(W) ** 2)
x * np.sum(np.ascontiguousarray(W) ** 2)
x * np.sum(np.asanyarray(W) ** 2)
x * np.sum(np.require(W) ** 2)
x * np.array(W)
x * np.array([W, W])
x * np.stack([W, W])
x * np.concatenate([W, W])
x * np.unique(W)
x * np.linalg.norm(W)
x * np.ones(int(W[0]))
x * sum(w for w in W)
x * np.median(W)
x * (W @ W)
x * W.T
x * copy.copy(W)
x * copy.deepcopy(W)
x * pickle.loads(pickle.dumps(W))
x * (W == 1)
x * (1 in W)
x * list(W)[0]
x * [*W][0]
x * next(iter(W))
x * W.astype(int)
x * -W
x * abs(W)
x * W.copy()
x * np.argsort(-W)
x * W.argsort()
x * np.array_equal(W, [1, 2, 3])
x * np.allclose(W, [1, 2, 3])
x * np.any(W > 4)
x if np.any(W > 4) else 3 * x
x * round(W[0])
x * int(W[0])
x * W.mean(axis=0)
x * np.var(W)
x * np.einsum("i,i->", W, W)
x * np.fft.fft(W).real
x * W.view(np.int64)
x * np.frombuffer(W.tobytes())
x * memoryview(W)[0]
x * W.data[0]
x * np.interp(1.5, [0, 1, 2], W)
x * np.histogram(W, 3)[0]
x * np.diff(W)
x * np.where(W > 3, 1.0, 2.0)
x * W.flat[0]
x * W.reshape(3, 1)
x * W.nonzero()[0]
x * np.percentile(W, 30)
x * np.vectorize(lambda v: v * 2)(W)
x * np.apply_along_axis(lambda v: v * 2, 0, W)
x * bytes(W)[7]
x * float(f"{W[0]:.1f}")
x * float(f"{W[0]}")
x * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0][int(W[0])]
x * {1.0: 2.0, 5.0: 3.0}[float(W[0])]
x * {1.0: 2.0, 5.0: 3.0}[W[0]]
x * {1.0: 2.0, 5.0: 3.0}.get(W[0], 7.0)
x * (1 + 3.0 * (W[0] in {1.0, 2.0}))
x * (1 + 3.0 * (W[0] in [1.0, 2.0]))
x * [1.0, 2.0, 5.0].count(W[0])
x * W[W > 1]
x * W[[0, 1]]
x * np.frexp(W)[0]
x * np.linspace(0, W[0], 3)
x * np.arange(W[0])
x * np.full(3, W[0])
x * np.add(W, 1, out=np.empty(3))
x * np.polyval(W, 2.0)
x * operator.mul(W, W)
x * getattr(W, "sum")()
x * asarray(W).sum()
""".strip().splitlines()  # fmt: skip

INDICES = """
x[:I[0]]
x[I[0]:]
x[I]
x[I[0]]
x[:3][I > 1]
np.compress(I > 1, x[:3])
np.reshape(x, (I[0] - 1, -1))
x.reshape(I[0], -1)
np.roll(x, I[0])
np.repeat(x[:3], I)
np.take(x, I)
np.sum(x) * len(range(I[0]))
""".strip().splitlines()


def user_function(expression, **names):
    """A function of a user's module with one expression."""
    namespace = {
        "np": np,
        "math": math,
        "copy": copy,
        "pickle": pickle,
        "operator": operator,
        "asarray": np.asarray,
        "__name__": "users",
        **names,
    }
    exec(f"def function(x):\n    return {expression}\n", namespace)
    return namespace["function"]


def agree(compiled, function, x):
    expected = function(x)
    for _ in range(2):
        found = compiled(x)
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_values_and_gradients_follow_the_contents(expression):
    w = np.arange(1.0, 4.0)
    function = user_function(expression, W=w)
    compiled = graphjit.jit(function)
    slope = graphjit.grad(
        user_function(
            f"np.sum({expression.replace(' if', ') if') if ' if ' in expression else expression + ')'}", W=w
        )
    )
    agree(compiled, function, 2.0)
    slope(2.0)
    w[0] = 5.0
    agree(compiled, function, 2.0)
    # linear in x: the gradient is the sum of the value at 1
    np.testing.assert_allclose(slope(2.0), np.sum(function(1.0)), rtol=1e-14)


@pytest.mark.parametrize("expression", INDICES)
def test_indices_and_shapes_follow_the_contents(expression):
    indices = np.array([3, 0, 1])
    function = user_function(expression, I=indices)
    compiled = graphjit.jit(function)
    x = np.arange(6.0)
    agree(compiled, function, x)
    indices[0] = 2
    agree(compiled, function, x)


@pytest.mark.parametrize(
    "expression",
    ["x * W.shape[0]", "x * len(W)", "x * W.size", "x * W.nbytes", "x * np.shape(W)[0]", "x * W"],
)
def test_shapes_that_change_in_place_are_followed(expression):
    w = np.arange(3.0)
    function = user_function(expression, W=w)
    compiled = graphjit.jit(function)
    agree(compiled, function, 2.0)
    w.resize(5, refcheck=False)
    agree(compiled, function, 2.0)


def test_what_is_recorded_needs_no_guard_of_its_contents():
    w = np.arange(1.0, 4.0)
    recorded = graphjit.jit(user_function("np.sum(x * W ** 2) + W[0] + W.mean()", W=w))
    taken = graphjit.jit(user_function("x * float(W.sum())", W=w))
    for compiled, count in ((recorded, 0), (taken, 1)):
        compiled(2.0)
        (entry,) = compiled.dispatcher.known.values()
        assert sum(isinstance(guard, ContentGuard) for guard in entry[0].staged.guards) == count


def test_a_change_back_finds_the_earlier_trace():
    w = np.array([1.0])
    told = []

    def function(x):
        told.append(1)
        return x * float(w[0])

    compiled = graphjit.jit(function)
    for value in (1.0, 2.0, 1.0, 2.0, 1.0):
        w[0] = value
        assert compiled(3.0) == 3 * value
    assert len(told) == 2


def test_other_shapes_and_dtypes_of_the_contents():
    for w in (
        np.array(3.0),
        np.zeros((0, 2)),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6)[::2],
        np.array([True, False]),
        np.float32([1, 2]),
    ):
        function = user_function("x * W.tolist().__repr__().__len__() + x * np.sum(W)", W=w)
        compiled = graphjit.jit(function)
        agree(compiled, function, 2.0)
        if w.size:
            w[...] = 123
        agree(compiled, function, 2.0)


def test_large_contents_are_refused_with_the_way_out():
    w = np.ones(10_000)
    with pytest.raises(
        TraceError,
        match=r"float\(\).*users?.*|float\(\).*float64\[10000\].*80000 bytes.*argument.*flags\.writeable = False",
    ):
        graphjit.jit(user_function("x * float(W.sum())", W=w))(2.0)
    assert type(w) is np.ndarray
    w.flags.writeable = False
    assert graphjit.jit(user_function("x * float(W.sum())", W=w))(2.0) == 20_000.0


def test_library_code_gets_plain_arrays():
    linalg = pytest.importorskip("scipy.linalg")
    interpolate = pytest.importorskip("scipy.interpolate")
    a, b = np.eye(3), np.ones(3)
    function = user_function(
        "x * linalg.solve(A, b) + Spline(b)(1.5)",
        A=a,
        b=b,
        linalg=linalg,
        Spline=lambda b: interpolate.CubicSpline(range(3), b),
    )
    compiled = graphjit.jit(function)
    agree(compiled, function, 2.0)
    a[0, 0], b[1] = 4.0, 3.0
    agree(compiled, function, 2.0)


WRITES = """
W[0] = 1.0
W[0] = x
W[0] += x
W += 1
W *= x
W[:1][0] = x
W.T[0] = 1.0
V = W.reshape(3, 1); V += x
W.fill(0)
W.sort()
W.put(0, 1)
W.flat[0] = x
np.copyto(W, 1.0)
np.put(W, 0, 1.0)
np.add(W, 1, out=W)
np.add(x, 1, out=W)
np.add.at(W, [0], 1)
np.add.at(W, [0], x)
np.fill_diagonal(M, 0)
np.putmask(W, [True, False, False], 1.0)
A = np.asarray(W); A += 1
W.real = 0
""".strip().splitlines()


@pytest.mark.parametrize("statement", WRITES)
@pytest.mark.parametrize("transform", [graphjit.jit, graphjit.grad])
def test_writes_are_refused(statement, transform):
    w, m = np.array([3.0, 1.0, 2.0]), np.ones((2, 2))
    namespace = {"np": np, "W": w, "M": m, "__name__": "users"}
    exec(f"def function(x):\n    global W\n    {statement}\n    return x * 2\n", namespace)
    with pytest.raises(
        TraceError, match=r"array from outside.* at <string>:3.*(?s:.*)pass it as an argument"
    ):
        transform(namespace["function"])(2.0)
    assert w.tolist() == [3.0, 1.0, 2.0]
    assert m.tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    "statement",
    [
        "V = W[:2]; V.sort()",
        "V = W[:2]; np.put(V, 0, 1.0)",
        "np.sum(np.ones((2, 3)), axis=0, out=W)",
        "W.sum(out=W[0, ...])",
    ],
)
def test_writes_that_are_not_compiled_at_all(statement):
    w = np.array([3.0, 1.0, 2.0])
    namespace = {"np": np, "W": w, "__name__": "users"}
    exec(f"def function(x):\n    {statement}\n    return x * 2\n", namespace)
    with pytest.raises(GraphjitError, match=r"<string>:2"):
        graphjit.jit(namespace["function"])(2.0)
    assert w.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("made", ["np.ndarray((3,))", "np.tile([1.0, 2.0], 2)", "np.ndarray((2, 3))"])
def test_writes_into_arrays_that_numpy_made_unseen_say_what_to_do(made):
    function = user_function("0")
    exec(f"def function(x):\n    z = {made}\n    z[0] = x\n    return z\n", function.__globals__)
    for x in (3.0, np.ones(3)):
        with pytest.raises(TraceError, match=r"array .* at <string>:3.*np\.zeros"):
            graphjit.jit(function.__globals__["function"])(x)


def test_copies_of_captured_arrays_may_be_written():
    w = np.arange(3.0)

    def function(x):
        total = 0.0
        for made in (w.copy(), np.array(w), w + 0, +w, w.astype(float), copy.copy(w)):
            made[0] = x
            made += 1
            total = total + np.sum(made * x)
        return total

    compiled = graphjit.jit(function)
    agree(compiled, function, 2.0)
    w[1] = 7.0
    agree(compiled, function, 2.0)


def test_identity_and_classes_stay():
    w = np.arange(3.0)
    table = {id(w): 2.0}
    seen = weakref.ref(w)

    def function(x):
        assert seen() is w
        assert isinstance(w, np.ndarray)
        assert w.__class__ is np.ndarray
        assert type(w) == np.ndarray  # noqa: E721
        assert (repr(w), str(w), w.shape, len(w)) == ("array([0., 1., 2.])", "[0. 1. 2.]", (3,), 3)
        return x * table[id(w)] * w

    assert graphjit.jit(function)(1.0).tolist() == [0.0, 2.0, 4.0]
    assert type(w) is np.ndarray


def test_code_that_compares_classes_sees_ndarrays():
    w = np.arange(3.0)

    def function(x):
        assert type(w) is np.ndarray
        return x * np.sum(w**2)

    compiled = graphjit.jit(function)
    agree(compiled, function, 2.0)
    w[0] = 4.0
    agree(compiled, function, 2.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_fork_gets_plain_arrays_back():
    w = np.arange(3.0)
    inside, done = threading.Event(), threading.Event()

    def function(x):
        inside.set()
        assert done.wait(30)
        return x * w

    thread = threading.Thread(target=lambda: graphjit.jit(function)(1.0))
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if not child:
        os._exit(0 if type(w) is np.ndarray and not captured_class._lent else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert type(w) is np.ndarray


def test_arrays_are_given_back_after_an_error():
    w = np.arange(3.0)

    def function(x):
        assert type(w) is captured_class.Captured
        raise KeyError(w[0])

    with pytest.raises(KeyError):
        graphjit.jit(function)(1.0)
    assert type(w) is np.ndarray
    assert not captured_class._lent


def test_other_threads_see_plain_arrays():
    w = np.arange(3.0)
    grid = np.arange(6.0).reshape(2, 3)
    inside, done = threading.Event(), threading.Event()
    found = {}

    def function(x):
        inside.set()
        assert done.wait(30)
        return np.sum(x * w) + np.sum(grid)

    def other():
        assert inside.wait(30)
        try:
            assert type(w) is captured_class.Captured
            for name, make in {
                "sum": lambda: w.sum(),
                "operator": lambda: w * 2,
                "compare": lambda: w == 1,
                "index": lambda: grid[0],
                "item": lambda: w[1],
                "view": lambda: grid.T,
                "reshape": lambda: grid.reshape(3, 2),
                "copy": lambda: w.copy(),
                "deepcopy": lambda: copy.deepcopy(w),
                "pickle": lambda: pickle.loads(pickle.dumps(w)),
                "stack": lambda: np.concatenate([w, w]),
                "asarray": lambda: np.array(w, subok=True),
                "ufunc": lambda: np.add.outer(w, w),
                "float": lambda: float(w[2]),
                "list": lambda: w.tolist(),
                "compiled": lambda: doubled(w),
                "mean": lambda: np.mean(grid, axis=0),
                "sort": lambda: np.sort(-w),
            }.items():
                found[name] = make()
            found["base"] = grid[0].base is grid
            w[0] = 7.0
            operator.iadd(w, 1)
            np.multiply(w, 2, out=w)
            gc.collect()
        except BaseException as error:  # the test's thread reports it
            found["error"] = error
        finally:
            done.set()

    doubled = graphjit.jit(lambda x: x * 2)
    doubled(w)
    thread = threading.Thread(target=other)
    thread.start()
    value = graphjit.jit(function)(1.0)
    thread.join()
    assert "error" not in found, found["error"]
    v, g = np.arange(3.0), np.arange(6.0).reshape(2, 3)
    expected = {
        "sum": v.sum(), "operator": v * 2, "compare": v == 1, "index": g[0], "item": v[1], "view": g.T, "reshape": g.reshape(3, 2), "copy": v,
        "deepcopy": v, "pickle": v, "stack": np.concatenate([v, v]), "asarray": v, "ufunc": np.add.outer(v, v), "float": 2.0,
        "list": [0.0, 1.0, 2.0], "compiled": v * 2, "mean": np.mean(g, axis=0), "sort": np.sort(-v),
    }  # fmt: skip
    for name, value_expected in expected.items():
        assert type(found[name]) is type(value_expected), name
        assert np.array_equal(found[name], value_expected), name
    assert found["base"] is True
    assert w.tolist() == [16.0, 4.0, 6.0]
    assert value == 26.0 + 15.0


def test_two_threads_trace_with_the_same_array():
    w = np.arange(3.0)
    barrier = threading.Barrier(2, timeout=30)
    results = [None, None]

    def run(i):
        def function(x):
            barrier.wait()
            result = x * np.sum(w**2) * (i + 1)
            barrier.wait()
            return result

        results[i] = graphjit.jit(function)
        results[i](1.0)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert type(w) is np.ndarray
    assert not captured_class._lent
    w[0] = 2.0
    barrier.reset()
    assert [compiled(1.0) for compiled in results] == [9.0, 18.0]


def test_a_leaked_value_says_where_it_came_from():
    class Model:
        def forward(self, x):
            self.last = x * 2
            return self.last.sum()

    model = Model()
    x = np.ones(3)
    assert graphjit.jit(model.forward)(x) == 6.0
    assert "traced" in repr(model.last)
    for use in (
        lambda: model.last + 1,
        lambda: 1 + model.last,
        lambda: np.sin(model.last),
        lambda: np.sum(model.last),
        lambda: model.last.sum(),
        lambda: model.last[0],
        lambda: float(model.last[0]),
        lambda: bool(model.last),
        lambda: np.asarray(model.last),
        lambda: model.last.T,
        lambda: model.last.tolist(),
        lambda: graphjit.jit(lambda y: y + model.last)(x),
    ):
        with pytest.raises(
            GraphjitError,
            match=r"attribute of Model 'last'.*made at .*test_captured_arrays\.py:\d+ in .*forward",
        ):
            use()


def test_state_that_a_trace_leaves_behind_is_an_error_when_it_is_read_again():
    class Cell:
        def __init__(self):
            self.h = np.zeros(2)

        def step(self, x):
            self.h = np.tanh(self.h + x)
            return self.h.sum()

    cell = Cell()
    step = graphjit.jit(cell.step)
    step(np.ones(2))
    with pytest.raises(TraceError, match=r"attribute of Cell 'h'"):
        step(np.ones(2))
