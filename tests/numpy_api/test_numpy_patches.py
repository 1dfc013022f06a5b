"""What tracing changes in NumPy and SciPy, and for whom: patched creators, np.random, scipy.special,
leaks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from numpy_harness import OPERANDS, check, record

from graphjit.errors import TraceError
from graphjit.trace.numpy.patches import recording
from graphjit.trace.recording.tracer import Trace

V = OPERANDS["v"]


def test_numpy_is_untouched_outside_of_traces_and_in_other_threads() -> None:
    before = {name: getattr(np, name) for name in ("zeros", "array", "copy")} | {"rand": np.random.rand}
    seen: list[Any] = []
    ready, done = threading.Event(), threading.Event()

    def other() -> None:
        ready.wait(5)
        seen.append(type(np.zeros(3)))
        seen.append(type(np.array([1, 2])))
        seen.append(np.random.rand(2).shape)
        seen.append(type(np.zeros_like(np.ones(2))))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def f(x: Any) -> Any:
        assert type(np.zeros(3)) is not np.ndarray
        ready.set()
        assert done.wait(5)
        return x

    record(f, [V])
    thread.join()
    assert seen == [np.ndarray, np.ndarray, (2,), np.ndarray]
    assert all(getattr(np, name) is function for name, function in before.items() if name != "rand")
    assert np.random.rand is before["rand"]
    assert np.zeros(3).flags.writeable


def test_patches_are_put_back_after_an_error_and_when_nested() -> None:
    original = np.zeros

    def nested() -> None:
        with recording(), recording():
            assert np.zeros is not original
            raise RuntimeError

    with pytest.raises(RuntimeError):
        nested()
    assert np.zeros is original
    with recording():
        assert type(np.zeros(2)) is np.ndarray  # no trace in this thread


def test_random_numbers_are_refused_while_tracing() -> None:
    for draw in (
        lambda n: np.random.rand(n),
        lambda n: np.random.randn(n),
        lambda n: np.random.normal(size=n),
        lambda n: np.random.permutation(n),
        lambda n: np.random.default_rng().normal(size=n),
        lambda n: np.random.seed(n),
    ):
        with pytest.raises(TraceError, match="baked"):
            record(lambda x, draw=draw: x * draw(4), [V])
    check(lambda x: x * np.random.default_rng(3).normal(size=4), V)
    np.random.seed(1)
    assert np.random.rand(2).shape == (2,)


def test_compiled_extensions_get_plain_arrays() -> None:
    """Cython code calls np.empty without a frame of its own and trusts the result: anything but an ndarray
    would crash.
    """
    rand, permutation = np.random.rand, np.random.permutation  # held from before: not refused

    def f(x: Any) -> Any:
        assert type(rand(4)) is np.ndarray
        assert type(permutation(4)) is np.ndarray
        assert type(np.random.default_rng(1).normal(size=3)) is np.ndarray
        assert type(next(map(np.zeros, [3]))) is np.ndarray
        assert type(np.zeros(3)) is not np.ndarray
        assert type(np.zeros((3, 1)).reshape(3)) is not np.ndarray
        assert type(np.array(np.zeros(2))) is not np.ndarray
        assert type(np.zeros(*[3])) is not np.ndarray
        return x

    record(f, [V])


def test_library_code_gets_plain_arrays() -> None:
    def f(x: Any) -> Any:
        return x @ scipy.linalg.circulant([1.0, 2.0, 3.0, 4.0]) + scipy.linalg.hilbert(4)[0]

    check(f, V)


_SCIPY_HOOK = """
import sys
import numpy as np
{first}
import graphjit.trace.numpy.registry
{second}
from graphjit.trace.numpy.patches import recording
from graphjit.trace.recording.tracer import Trace
from graphjit.ir.types import Type, F64
assert {loaded} == ("scipy.special" in sys.modules)
x = np.array([0.5, 1.0, -2.0])
with Trace() as t, recording():
    traced = t.input(Type(F64, (3,)), "x")
    {inside}
    y = logsumexp(traced) + softmax(traced, axis=0) + log_softmax(traced)
    assert y.shape == (3,)
    assert type(logsumexp(x)) is np.float64
import inspect, scipy.special, pickle
assert str(inspect.signature(logsumexp)) == "(a, axis=None, b=None, keepdims=False, return_sign=False)"
assert "np.exp(a)" in inspect.getsource(logsumexp)
assert pickle.loads(pickle.dumps(logsumexp)) is scipy.special.logsumexp
np.testing.assert_allclose(logsumexp(x), np.log(np.exp(x).sum()))
np.testing.assert_allclose(logsumexp(x, b=[1, 2, 3], keepdims=True), [np.log((np.exp(x) * [1, 2, 3]).sum())])
np.testing.assert_allclose(softmax(x), np.exp(x) / np.exp(x).sum())
np.testing.assert_allclose(log_softmax(x=x, axis=0), np.log(softmax(x)))
print("well")
"""
_IMPORT = "from scipy.special import logsumexp, softmax, log_softmax"


@pytest.mark.parametrize(
    ("first", "second", "inside", "loaded"),
    [(_IMPORT, "", "", True), ("", _IMPORT, "", True), ("", "", _IMPORT, False)],
    ids=["imported before", "imported after", "imported while tracing"],
)
def test_scipy_functions_imported_by_name(first: str, second: str, inside: str, loaded: bool) -> None:
    code = _SCIPY_HOOK.format(first=first, second=second, inside=inside, loaded=loaded)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "well", done.stderr


def test_tracers_do_not_survive_their_trace() -> None:
    leaked: list[Any] = []

    def f(x: Any) -> Any:
        buffer = np.zeros(4)
        buffer[0] = x[0]
        known = np.ones(2)
        leaked.extend([buffer, x, known])
        return x

    record(f, [V])
    buffer, x, known = leaked
    for bad in (lambda: buffer + 1, lambda: np.sum(x), lambda: buffer[1], lambda: x[0]):
        with pytest.raises(TraceError, match="leaked"):
            bad()
    with Trace() as trace, recording(), pytest.raises(TraceError, match="leaked"):
        trace.node(buffer)
    assert type(known + 1) is np.ndarray
    assert known.sum() == 2.0
    assert known[0] == 1.0


def test_conversions_of_traced_values_from_any_caller() -> None:
    from_numpy = np.asarray  # as ``from numpy import asarray`` binds it

    def f(x: Any, s: Any) -> Any:
        assert from_numpy(x) is x
        assert np.asarray_chkfinite is not None
        windowed = scipy.signal.detrend(x, type="constant")  # begins with np.asarray
        return (
            np.asarray(x),
            np.array(x),
            np.asarray(x * 2, dtype=float),
            np.ascontiguousarray(x),
            np.float64(s),
            np.float32(x[0]),
            windowed,
        )

    check(f, V, np.float64(2.0))

    def g(x: Any, s: Any) -> Any:
        return (
            np.array([x, x * 2]),
            np.asarray([s, 1.0]),
            np.array([[s, 1], [x[0], 0]], dtype=np.float32),
            np.array([x[0]], ndmin=2),
        )

    check(g, V, np.float64(2.0))


_FORK = """
import os, signal, threading, time, warnings
import numpy as np
import graphjit.trace.numpy.registry
from graphjit.ir.types import Type, F64
from graphjit.trace.numpy.patches import recording
from graphjit.trace.recording.tracer import Trace
warnings.simplefilter("ignore", DeprecationWarning)
original = np.zeros

def trace():
    with recording(), Trace() as t:
        y = np.zeros(3) + t.input(Type(F64, (3,)), "x")
        assert y.shape == (3,)

def all_the_time():
    while not stop:
        trace()

trace()  # NumPy's hooks are made once
stop = False
thread = threading.Thread(target=all_the_time, daemon=True)
thread.start()
for _ in range(20):
    time.sleep(0.002)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        well = np.zeros is original
        trace()
        os._exit(0 if well and np.zeros is original else 1)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, status
stop = True
thread.join()
assert np.zeros is original
print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_child_of_a_process_whose_other_thread_traces_is_clean() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORK], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "well", done.stderr


_LATE = """
import sys
import numpy as np
import graphjit
import graphjit.trace.numpy.registry
assert "numpy.random" not in sys.modules
assert not any(name == "scipy" or name.startswith("scipy.") for name in sys.modules)
from graphjit.errors import TraceError
from graphjit.trace.numpy.patches import recording
from graphjit.trace.recording.tracer import Trace
for _ in range(2):
    with recording(), Trace():
        try:
            np.random.rand(3)
        except TraceError:
            pass
        else:
            raise SystemExit("one draw was baked in")
assert np.random.rand(3).shape == (3,)
print("well")
"""


def test_numpy_random_may_be_imported_by_the_traced_function() -> None:
    """NumPy loads it on first use, and graphjit loads neither it nor SciPy."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _LATE], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "well", done.stderr
