"""`checkpoint_every`: the same values and derivatives with memory for n / k + k steps, and nothing else."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.errors import ShapeError
from graphjit.trace.pytree import flatten

RNG = np.random.default_rng(5)
W = RNG.normal(size=(4, 4)) / 3
C = RNG.normal(size=4)


def same(got: Any, want: Any, exact: bool = False) -> None:
    (a, spec), (b, other) = flatten(got), flatten(want)
    assert spec == other
    for one, two in zip(a, b, strict=True):
        assert np.asarray(one).dtype == np.asarray(two).dtype
        if exact or one is None:
            np.testing.assert_array_equal(one, two)
        else:
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-13)


def scanning(every: int | None, **options: Any) -> Callable[..., Any]:
    def f(w: Any, c: Any, xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            c = {"h": np.tanh(w @ c["h"] + x), "n": c["n"] + 1, "total": c["total"] + np.sum(x)}
            return c, (c["h"] * x, None, c["n"] > 2)

        start = {"h": c, "n": 0, "total": 0}  # a Python number that becomes a float
        return graphjit.scan(step, start, xs, checkpoint_every=every, **options)

    return f


def until(every: int | None) -> Callable[..., Any]:
    def f(w: Any, c: Any, n: Any) -> Any:
        def step(s: Any) -> Any:
            return np.tanh(w @ s[0]) + 0.1, s[1] + 1, not s[2]

        return graphjit.while_loop(lambda s: s[1] < n, step, (c, 0, False), checkpoint_every=every)

    return f


def counted(every: int | None) -> Callable[..., Any]:
    def f(w: Any, c: Any, n: Any) -> Any:
        return graphjit.fori_loop(0, n, lambda i, c: np.sin(w @ c) + 0.01 * i, c, checkpoint_every=every)

    return f


def number(f: Callable[..., Any]) -> Callable[..., Any]:
    """One number that depends on all floats that ``f`` returns."""

    def total(*args: Any) -> Any:
        leaves = [x for x in flatten(f(*args))[0] if x is not None and np.result_type(x).kind == "f"]
        return sum(np.sum(x * x) for x in leaves)

    return total


@pytest.mark.sample(4)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("unroll", [1, 2])
def test_scans(reverse: bool, unroll: int) -> None:
    for n, k in itertools.product((0, 1, 7, 12), (1, 3, 5, 12, 100)):
        xs = RNG.normal(size=(n, 4))
        plain, cut = (scanning(every, reverse=reverse, unroll=unroll) for every in (None, k))
        # Steps in one have sums in another order.
        same(graphjit.jit(cut)(W, C, xs), graphjit.jit(plain)(W, C, xs), exact=unroll == 1)
        same(cut(W, C, xs), plain(W, C, xs), exact=True)
        wanted, found = (graphjit.value_and_grad(number(f), (0, 1, 2))(W, C, xs) for f in (plain, cut))
        same(found, wanted)


@pytest.mark.parametrize("loop", [until, counted])
def test_loops_of_unknown_length(loop: Callable[..., Any]) -> None:
    slopes = {k: graphjit.value_and_grad(number(loop(k)), (0, 1)) for k in (None, 1, 3, 100)}
    for n, k in itertools.product((0, 1, 2, 3, 10), (1, 3, 100)):
        same(graphjit.jit(loop(k))(W, C, n), graphjit.jit(loop(None))(W, C, n), exact=True)
        same(loop(k)(W, C, n), loop(None)(W, C, n), exact=True)
        same(slopes[k](W, C, n), slopes[None](W, C, n))


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "jvp": lambda f: lambda w, c: graphjit.jvp(f, (w, c), (w, c)),
    "hessian": lambda f: graphjit.hessian(f, 1),
    "reverse of reverse": lambda f: graphjit.grad(lambda w, c: np.sum(graphjit.grad(f)(w, c) ** 2), (0, 1)),
    "hvp": lambda f: lambda w, c: graphjit.hvp(f, (w, c), (w, c)),
    "batch": lambda f: (
        lambda w, c: graphjit.vmap(graphjit.grad(f, (0, 1)), (None, 0))(w, np.stack([c, -c, 0 * c]))
    ),
    "vjp": lambda f: lambda w, c: graphjit.vjp(f, w, c)[1](2.0),
    "linearize": lambda f: lambda w, c: graphjit.linearize(f, w, c)[1](w, c),
    "inside": lambda f: graphjit.grad(
        lambda w, c: graphjit.scan(lambda s, x: (f(w, c * s) * 0.1, None), 1.0, np.zeros(3))[0], (0, 1)
    ),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transformations(transform: Callable[..., Any]) -> None:
    xs = RNG.normal(size=(7, 4))
    for loop, last in ((scanning, xs), (until, 7), (counted, 7)):
        plain, cut = (
            transform(partial(lambda f, last, w, c: f(w, c, last), number(loop(every)), last))
            for every in (None, 3)
        )
        same(cut(W, C), plain(W, C))


def test_elements_of_a_batch_take_their_own_number_of_steps() -> None:
    n = np.array([0, 5, 3, 1])
    plain, cut = (
        graphjit.vmap(graphjit.value_and_grad(number(until(every)), (0, 1)), (None, None, 0))
        for every in (None, 2)
    )
    same(cut(W, C, n), plain(W, C, n))


@pytest.mark.parametrize("n", [12, 13])
def test_without_derivatives_it_is_the_same_program(n: int) -> None:
    xs = RNG.normal(size=(n, 4))
    forward: tuple[Callable[..., Any], ...] = (
        lambda f: f,
        lambda f: lambda w, c, last: graphjit.jvp(lambda w, c: number(f)(w, c, last), (w, c), (w, c)),
    )
    for transform, (loop, last) in itertools.product(
        forward,
        (
            (scanning, xs),
            (lambda every: scanning(every, reverse=True), xs),
            (until, n),
            (counted, n),
            (lambda every: lambda w, c, last: counted(every)(w, c, 13), 0),
        ),
    ):
        texts = (graphjit.jit(transform(loop(k))).lower(W, C, last).as_text("program") for k in (None, 5))
        # Nodes have other numbers, and carries another order.
        plain, cut = (
            [re.sub("%.*", "", line) for line in text.splitlines() if re.match("  k|  total", line)]
            for text in texts
        )
        assert cut == plain


def nested(every: int | None) -> Callable[[Any], Any]:
    """A loop of unknown length in a choice in a scan, both cut into segments."""

    def grown(c: Any) -> Any:
        def step(t: Any) -> Any:
            return t[0] * 1.3 + 0.1, t[1] + 1

        return (
            0.3
            * graphjit.while_loop(lambda t: np.sum(t[0] ** 2) < 4, step, (c, 0), checkpoint_every=every)[0]
        )

    def step(c: Any, y: Any) -> Any:
        c = graphjit.cond(c[0] > 0.5, grown, lambda c: np.sin(c) + y, c)
        return c, np.sum(c)

    def f(x: Any) -> Any:
        last, sums = graphjit.scan(step, x, 0.1 * np.arange(5.0), checkpoint_every=every)
        return np.sum(last * last) + np.sum(sums)

    return f


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "transform", [graphjit.grad, graphjit.hessian, lambda f: graphjit.jacrev(graphjit.grad(f))]
)
def test_nested_loops(transform: Callable[..., Any]) -> None:
    xs = np.array([[0.7, -0.2, 0.4], [-0.7, 0.2, -0.4], [1.4, 0.0, 0.1]])
    wanted = np.stack([transform(nested(None))(x) for x in xs])
    np.testing.assert_allclose(graphjit.vmap(transform(nested(2)))(xs), wanted, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(transform(nested(2))(xs[0]), wanted[0], rtol=1e-10, atol=1e-13)


def chain(every: int | None, length: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        last, _ = graphjit.scan(
            lambda x, _: (np.sin(x[::-1] * 1.01) + 0.1, None), x, None, length, checkpoint_every=every
        )
        return np.sum(last)

    return graphjit.grad(f)


def test_memory_of_a_scan() -> None:
    """64 numbers a step: the carries of 100 segments and of 100 steps instead of 10 000."""
    x, each = np.linspace(0.0, 1.0, 64), 64 * 8
    assert chain(None, 10_000).lower(x).memory().arena >= 10_000 * each
    assert chain(100, 10_000).lower(x).memory().arena < 3 * 200 * each
    np.testing.assert_array_equal(chain(100, 300)(x), chain(None, 300)(x))


PEAK = """
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
"""
GROWTH = """
import sys
import numpy as np
import graphjit

size, every = int(sys.argv[1]), int(sys.argv[2]) or None

def f(x, n):
    def step(s):
        return np.sin(s[0] * 1.01) + 0.1, s[1] + 1
    return np.sum(graphjit.while_loop(lambda s: s[1] < n, step, (x, 0), checkpoint_every=every)[0])

slope = graphjit.grad(f)
x = np.linspace(0.0, 1.0, size)
slope(x, 2)
before = peak()
slope(x, int(sys.argv[3]))
print(peak() - before)
"""


def growth(code: str, *args: int) -> int:
    """KiB that the largest run adds to what a process needs."""
    command = [sys.executable, "-c", PEAK + code, *map(str, args)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.sample(2)
@pytest.mark.parametrize("size", [4, 64], ids=["in registers", "as programs"])
def test_memory_of_a_loop_of_unknown_length(size: int) -> None:
    """A record is a link and a value: all of them without segments, with segments a hundredth."""
    steps = 1_000_000 if size == 64 else 4_000_000
    record = 8 * (size + 1)
    assert growth(GROWTH, size, 0, steps // 10) > 0.9 * steps // 10 * record / 1024
    assert growth(GROWTH, size, 1000, steps) < 0.02 * steps * record / 1024


DESCENT = """
import sys
import numpy as np
import graphjit

def loss(x):
    return np.sum(graphjit.while_loop(lambda s: s[1] < 20, lambda s: (np.sin(s[0]), s[1] + 1), (x, 0))[0])

@graphjit.jit
def descend(x, n):
    return graphjit.fori_loop(0, n, lambda i, x: x - 1e-3 * graphjit.grad(loss)(x), x)

x = np.linspace(0.0, 1.0, int(sys.argv[1]))
descend(x, 2)
before = peak()
descend(x, int(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.parametrize("size", [4, 64])
def test_tapes_of_a_step_are_given_back_without_segments_too(size: int) -> None:
    assert growth(DESCENT, size, 20_000) < 0.05 * 20_000 * 20 * 8 * (size + 1) / 1024


def test_effects_happen_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    def step(x: Any, i: Any) -> Any:
        graphjit.debug.print("step {}", i)
        return 0.5 * x + i, None

    @graphjit.grad
    def slope(x: Any) -> Any:
        return graphjit.scan(step, x, np.arange(5), checkpoint_every=2)[0]

    slope(1.0)
    assert capfd.readouterr().out == "".join(f"step {i}\n" for i in range(5))


def test_nans_are_found_in_their_step() -> None:
    def f(x: Any) -> Any:
        return graphjit.scan(lambda x, y: (np.log(x) + y, None), x, np.ones(6), checkpoint_every=2)[0]

    with (
        graphjit.debug_nans(),
        pytest.raises(FloatingPointError, match=r"log at .* \(in step 0 of .*\(in step 1 of"),
    ):
        graphjit.jit(f)(np.exp(-1.0))


def test_errors_of_a_step_stay() -> None:
    def f(x: Any, n: Any) -> Any:
        return graphjit.fori_loop(0, n, lambda i, s: s * x[i], 1.0, checkpoint_every=4)

    slope = graphjit.grad(f)
    np.testing.assert_allclose(slope(np.array([2.0, 3.0]), 2), [3.0, 2.0])
    for function in (slope, graphjit.jit(f)):
        with pytest.raises(IndexError):
            function(np.ones(9), 10)
    with pytest.raises(ShapeError, match="turns val from"):
        graphjit.jit(lambda x: graphjit.fori_loop(0, 8, lambda i, x: x[1:], x, checkpoint_every=2))(C)


@pytest.mark.parametrize("every", [0, -1, 2.0, True, "all"])
def test_other_numbers_are_refused(every: Any) -> None:
    calls: dict[str, Callable[..., Any]] = {
        "scan": lambda **options: graphjit.scan(lambda c, x: (c, x), 0.0, np.ones(3), **options),
        "fori_loop": lambda **options: graphjit.fori_loop(0, 3, lambda i, x: x, 0.0, **options),
        "while_loop": lambda **options: graphjit.while_loop(lambda x: x < 0, lambda x: x, 0.0, **options),
    }
    for name, call in calls.items():
        for run in (call, graphjit.jit(lambda call=call: call(checkpoint_every=every))):
            with pytest.raises(ValueError, match=f"{name}: checkpoint_every is a positive number of steps"):
                run(checkpoint_every=every) if run is call else run()
