"""Signal handlers and finalizers that run while a function is traced are no part of the trace: they get plain
values.
"""

from __future__ import annotations

import signal
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
