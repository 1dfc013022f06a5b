"""Signal handlers and finalizers that run while a function is traced are no part of the trace: they get plain
values.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import graphjit


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_signal_handlers_get_plain_values():
    w, x = np.arange(5.0), np.ones(5)
    doubled = graphjit.jit(lambda x: np.tanh(x) * w)
    doubled(x)
    found, errors = [], []

    def handler(number, frame):
        try:
            found.append(
                [type(v) for v in (doubled(x), np.zeros(3), w * 2, w[0], graphjit.jit(lambda x: x * w)(x))]
            )
        except Exception as error:  # reported below
            errors.append(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # anew, so that no handler interrupts another

    def function(x):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            x = x + w[0] * 0
        return np.sum(x * w)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        while len(found) < 3 and not errors:
            assert graphjit.jit(function)(x) == 10.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert signal.getsignal(signal.SIGALRM) is handler
        signal.signal(signal.SIGALRM, before)
    assert not errors
    assert all(kinds == [np.ndarray, np.ndarray, np.ndarray, np.float64, np.ndarray] for kinds in found)


BETWEEN_ANY_TWO_LINES = """
import sys
import numpy as np
import graphjit
from graphjit.backend.llvm.entry import callable as entry
from graphjit.trace.numpy import patches

functions = patches._begin, patches._end, patches._patch, patches._put, patches._after_fork
codes = {f.__code__ for f in (*functions, entry.calls_fall_back.__wrapped__, entry._library)}
met, x = [], np.ones(3)
zeros, ones = np.zeros, graphjit.jit(lambda x: np.ones(3) * x)

def compute(x):
    filled = np.zeros(3)
    filled[:] = x  # an error unless np.zeros is ours
    return filled + ones(x)

def local(frame, event, argument):
    place = frame.f_code.co_name, frame.f_lineno, event
    if met.count(place) < 2:  # the loop over all replacements has many turns
        met.append(place)
        assert graphjit.jit(compute)(x).tolist() == [2.0, 2.0, 2.0], place
    return local

graphjit.jit(compute)(x)
sys.settrace(lambda frame, event, argument: local if frame.f_code in codes else None)
assert graphjit.jit(compute)(x).tolist() == [2.0, 2.0, 2.0]
sys.settrace(None)
assert {place[0] for place in met} >= {"_begin", "_end", "_patch", "_put", "calls_fall_back"}
assert len(met) > 40, met
assert np.zeros is zeros and entry._library().tracing.value == 0
print("done")
"""


def test_handlers_may_trace_between_any_two_lines_around_a_trace():
    """Python runs one wherever the debugger can stop, inside of locks too."""
    run = subprocess.run(
        [sys.executable, "-c", BETWEEN_ANY_TWO_LINES], capture_output=True, text=True, timeout=300
    )
    assert run.stdout == "done\n", run.stderr


def test_a_handler_that_is_replaced_inside_stays():
    def old(number, frame):
        return

    def new(number, frame):
        return

    before = signal.signal(signal.SIGUSR1, old)
    try:

        def function(x):
            signal.signal(signal.SIGUSR1, new)
            return x

        graphjit.jit(function)(1.0)
        assert signal.getsignal(signal.SIGUSR1) is new
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_finalizers_get_plain_values():
    w, x = np.arange(3.0), np.ones(3)
    doubled = graphjit.jit(lambda x: x * 2)
    doubled(x)
    found = []

    class Dying:
        def __del__(self):
            found.append((doubled(x), w * 2, w[0]))

    def function(x):
        Dying()
        return x * w

    assert graphjit.jit(function)(x).tolist() == [0.0, 1.0, 2.0]
    assert [type(value) for value in found[0]] == [np.ndarray, np.ndarray, np.float64]
