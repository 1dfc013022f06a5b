"""What a signal handler raises while a function is traced, compiled or run comes out, and the state stays
good.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import graphjit
from graphjit import compilation, pipeline
from graphjit.backend.llvm.entry import interrupts

PROGRAM = """
import os, signal, sys, threading, time
import numpy as np
import graphjit
from graphjit import progress
from graphjit.backend.llvm.entry import callable as entry
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.threads import pool

progress.PATIENCE = 1e9  # on a busy machine compilations take seconds, and would say so
backend, delay = sys.argv[1], float(sys.argv[2])
sin, where = np.sin, np.where

class Stop(BaseException):
    pass

def stop(number, frame):
    raise Stop

signal.signal(signal.SIGALRM, stop)
pool.configure(2)
x = np.linspace(0.0, 1.0, 40)
graphjit.jit(lambda x: x + 1.0)(x)  # the library is there: what is interrupted is the user's function

def loss(x, c):
    for k in range(30):
        x = np.sin(x * c + k) @ np.ones((40, 40)) * 0.01 + x[::-1] / (1.0 + x * x)
    return np.sum(x)

count = 0
for i in range(25):
    f = graphjit.value_and_grad(lambda x, i=i: loss(x, 1.0 + 0.01 * i))
    if backend == "numba":
        f = graphjit.jit(f, backend="numba")
    signal.setitimer(signal.ITIMER_REAL, delay * (i + 1))
    try:
        f(x)
    except Stop:
        count += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    value, gradient = f(x) if i % 8 == 0 else (None, None)  # compiled anew, or what was made is used
    if value is not None:
        assert abs(value - loss(x, 1.0 + 0.01 * i)) < 1e-9 * abs(value), (i, value)
        step = np.zeros(40); step[3] = 1e-6
        slope = (loss(x + step, 1.0 + 0.01 * i) - loss(x - step, 1.0 + 0.01 * i)) / 2e-6
        assert abs(gradient[3] - slope) < 1e-5 * (1 + abs(slope)), (i, gradient[3], slope)
    assert entry._library().tracing.value == 0, "calls would go the slow way for ever"
    assert isinstance(np.sin(x), np.ndarray)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert not blocked, blocked
free = []
other = threading.Thread(target=lambda: free.append(graphjit.jit(lambda x: x * 5.0)(x)))
other.start(); other.join(20)
assert free and (free[0] == x * 5.0).all(), "a lock is still held"
print(count)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.parametrize(("backend", "delay"), [("llvm", 0.004), ("llvm", 0.0007)])
def test_the_state_after_an_interrupted_first_call(backend, delay):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend, str(delay)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "an exception was lost"
    assert int(done.stdout) >= 5, "hardly anything was interrupted"


LONG = """
import signal, sys, threading, time
import numpy as np
import graphjit

def f(a):
    for _ in range(40):
        a = np.tanh(a @ a) * 1.01
    return a

a = np.random.default_rng(0).normal(size=(400, 400)) / 30
g = graphjit.jit(f)
want = g(a)

class Stop(BaseException):
    pass

def stop(number, frame):
    raise Stop("mine")

def interrupted(call, delay):
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        for _ in range(200):
            call()
    except Stop as raised:
        assert str(raised) == "mine" and raised.__traceback__ is not None
    else:
        raise AssertionError("nothing was raised")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

strided = np.repeat(a, 2, axis=1)[:, ::2]
for x in (a, strided):  # the native entry, the slow path
    for delay in (0.06, 0.11, 0.13):
        interrupted(lambda: g(x), delay)
        np.testing.assert_array_equal(g(a), want)

begin = time.process_time()
g(a)
alone = time.process_time() - begin
rows = [a] * 10
many = graphjit.jit(lambda *rows: [f(row) for row in rows])
many(*rows)
begin = time.process_time()
interrupted(lambda: many(*rows), 0.1)
assert time.process_time() - begin < 8 * alone, "it ran to its end"

seen = []
signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.1)
np.testing.assert_array_equal(many(*rows)[7], want)  # a handler that returns changes nothing
assert seen == [signal.SIGALRM]

found = []
other = threading.Thread(target=lambda: found.append(g(a)))
other.start(); other.join()
np.testing.assert_array_equal(found[0], want)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_code_is_shared_once_all_that_it_needs_is_noted(monkeypatch):
    """What comes between two lines of `compilation.executable` leaves nothing half done that others find."""
    x = np.linspace(0.1, 1.0, 7)
    monkeypatch.setattr(compilation, "Failures", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        graphjit.jit(lambda x: np.sin(x) / 0.8642)(x)
    monkeypatch.undo()
    np.testing.assert_allclose(graphjit.jit(lambda x: np.sin(x) / 0.8642)(x), np.sin(x) / 0.8642)
    assert caught.tb is not None  # whose frames hold the code of the first one


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_long_call_ends_between_two_steps():
    done = subprocess.run(
        [sys.executable, "-c", LONG], env=dict(os.environ), capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_short_programs_never_look():
    def f(a):
        for _ in range(8):
            a = np.tanh(a @ a)
        return a

    def text(n: int) -> str:
        return pipeline.compile_graph(
            graphjit.jit(f).dispatcher.staged(np.zeros((n, n))).graph
        ).module.render()

    assert interrupts.SYMBOL not in text(64)
    assert f"call i64 @{interrupts.SYMBOL}" in text(1500)


LOOPS = """
import signal, sys, time
import numpy as np
import graphjit

def step(h, i):
    return np.tanh(h * 0.9 + 0.1)

def known(h):
    return graphjit.scan(lambda h, _: (step(h, 0), None), h, None, length=3_000_000)[0]

def unknown(h, n):
    return graphjit.fori_loop(0, n, lambda i, h: step(h, i), h)

def own(end):
    return graphjit.while_loop(lambda x: x < end, lambda x: x + 1.0, 0.0)

class Stop(BaseException):
    pass

raised = []

def stop(number, frame):
    raised.append(time.perf_counter())
    raise Stop

signal.signal(signal.SIGALRM, stop)

def ends_soon(call):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        call()
    except Stop:
        return time.perf_counter() - raised[-1]
    raise AssertionError("it ran to its end")

late = []
for size in (200, 3000):  # these take seconds to minutes
    h = np.linspace(0.0, 1.0, size)
    g = graphjit.jit(graphjit.vmap(unknown, in_axes=(0, None)))
    want = g(h, 10)
    f = graphjit.jit(graphjit.vmap(known)).lower(h).compile()
    late += [ends_soon(lambda: g(h, 2**40 // size)), ends_soon(lambda: f(h))]
    np.testing.assert_array_equal(g(h, 10), want)
while_ = graphjit.jit(graphjit.vmap(own))
while_(np.ones(4))
late.append(ends_soon(lambda: while_(np.full(10**6, 1e5))))
late.append(ends_soon(lambda: while_(np.full(3, 1e15))))
for at in range(0, 20_000, 1_999):  # one never ends, on whichever thread it is
    ends = np.full(20_000, 2e3)
    ends[at] = 1e18
    late.append(ends_soon(lambda: while_(ends)))
assert max(late) < 2, late
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_loops_over_batches_end_soon():
    done = subprocess.run(
        [sys.executable, "-c", LOOPS], env=dict(os.environ), capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
