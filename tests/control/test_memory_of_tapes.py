"""Where tapes end: with the call, and where there is no memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import graphjit

SCRIPT = """
import resource, signal, sys
import numpy as np
import graphjit

def kilobytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024

def plain(x, n):
    def step(s):
        return np.sin(s[0] * 1.01) + 0.1, s[1] + 1
    return np.sum(graphjit.while_loop(lambda s: s[1] < n, step, (x, 0))[0])

def nested(x, n):
    def inner(t):
        return np.cos(t[0]) * 1.1, t[1] + 1
    def step(s):
        return graphjit.while_loop(lambda t: t[1] < 3, inner, (s[0], 0))[0], s[1] + 1
    return np.sum(graphjit.while_loop(lambda s: s[1] < n, step, (x, 0))[0])

def failing(x, n):
    def step(s):
        return np.sin(s[0] * x[20_000 - s[1]]), s[1] + 1
    return np.sum(graphjit.while_loop(lambda s: s[1] < n, step, (x, 0))[0])

def stopped(slope, x, n, error):
    try:
        slope(x, n)
    except error:
        return
    raise AssertionError(f"no {error.__name__}")
"""

NO_MEMORY = """
slope, x = graphjit.grad({name}), np.linspace(0.0, 1.0, {size})
wanted = slope(x, 5)
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (512 << 20), resource.RLIM_INFINITY))
before = kilobytes()
for _ in range(3):
    stopped(slope, x, 10**9, MemoryError)
assert kilobytes() - before < 64 << 10, kilobytes() - before  # malloc keeps small blocks
assert np.array_equal(slope(x, 5), wanted)
"""

FAILS = """
slope, x = graphjit.grad(failing), np.linspace(0.0, 1.0, {size})
slope(x, 0)
stopped(slope, x, 1000, IndexError)
before = kilobytes()
for _ in range(1000):
    stopped(slope, x, 1000, IndexError)
assert kilobytes() - before < 1024, kilobytes() - before
"""

INTERRUPTED = """
slope, x = graphjit.grad(plain), np.linspace(0.0, 1.0, {size})
slope(x, 5)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
before = kilobytes()
for _ in range(10):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    stopped(slope, x, 10**9, KeyboardInterrupt)
assert kilobytes() - before < 64 << 10, kilobytes() - before  # malloc keeps small blocks
"""

UNREAD = """
x = np.linspace(0.0, 1.0, {size})
def f(x):
    return plain(x, 2000)
for k in range(200):
    graphjit.vjp(f, x)
    graphjit.linearize(f, x)
    if k == 10:
        before = kilobytes()
assert kilobytes() - before < 1024, kilobytes() - before
"""


def script(code: str) -> None:
    """Run it in a process of its own, which has to end well."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT + code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.sample(4)
@pytest.mark.parametrize("size", [4, 64], ids=["in registers", "as programs"])
@pytest.mark.parametrize("name", ["plain", "nested"])
def test_a_tape_that_cannot_grow_is_a_memory_error(name: str, size: int) -> None:
    """Nothing is kept after it, and the function goes on to work."""
    script(NO_MEMORY.format(name=name, size=size))


@pytest.mark.slow
@pytest.mark.sample(3)
@pytest.mark.parametrize("size", [4, 64], ids=["in registers", "as programs"])
@pytest.mark.parametrize("code", [FAILS, INTERRUPTED, UNREAD], ids=["fails", "interrupted", "unread"])
def test_calls_that_end_early_keep_nothing(code: str, size: int) -> None:
    script(code.format(size=size))


def looping(x: Any) -> Any:
    return graphjit.while_loop(lambda s: s[1] < 7, lambda s: (np.sin(s[0]) * x, s[1] + 1), (x, 0))[0]


def test_halves_do_not_hand_tapes_on() -> None:
    """The loop runs again in the second half, as often as that is called."""
    x = np.linspace(0.1, 1.0, 5)
    out, back = graphjit.vjp(looping, x)
    np.testing.assert_allclose(out, looping(x), rtol=1e-14)
    wanted = graphjit.jacfwd(looping)(x)
    for ct in (np.ones(5), x):
        np.testing.assert_allclose(back(ct)[0], ct @ wanted, rtol=1e-13)
    slope = graphjit.grad(lambda x: np.sum(looping(x)))
    _, push = graphjit.linearize(slope, x)
    np.testing.assert_allclose(push(x), graphjit.jacfwd(slope)(x) @ x, rtol=1e-12)
