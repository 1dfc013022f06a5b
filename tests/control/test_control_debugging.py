"""`debug.print` and `debug_nans` in the bodies of loops and in branches."""

from __future__ import annotations

import numpy as np
import pytest
from control_harness import run

import graphjit
from graphjit import debug
from graphjit.errors import UnsupportedError

pytestmark = pytest.mark.usefixtures("both_ways")

X = np.array([4.0, 1.0, 0.0, 2.0])


def told(f, *args) -> list[str]:
    """What a traced function tells, which has to be what Python tells."""
    lines: list[str] = []
    LISTENERS.append(lines.append)
    f(*args)
    expected = lines[:]
    lines.clear()
    run(f, *args)
    LISTENERS.pop()
    assert lines == expected
    return lines


LISTENERS: list = []


def tell(fmt, *values):
    debug.callback(lambda *now: LISTENERS[-1](fmt.format(*now)), *values)


# ------------------------------------------------------------------------------------------------ effects


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("unroll", [1, 3])
def test_steps_tell_in_their_order(reverse, unroll):
    def f(x):
        def step(c, e):
            tell("in {}", e)
            c = c + e
            tell("out {} {}", c, x[0])
            return c, None

        tell("before {}", x[1])
        last = graphjit.scan(step, 0.0, x, reverse=reverse, unroll=unroll)[0]
        tell("after {}", last)
        return last

    lines = told(f, X)
    assert lines[:3] == ["before 1.0", f"in {2.0 if reverse else 4.0}", f"out {2.0 if reverse else 4.0} 4.0"]
    assert lines[-1] == "after 7.0"


def test_loops_in_loops_and_branches():
    def f(x):
        def inner(i, v):
            tell("i={} v={}", i, v)
            return v + 1.0

        def step(c, e):
            def large():
                tell("large {}", e)
                return graphjit.fori_loop(0, 2, inner, e)

            def small():
                tell("small")
                return c

            return graphjit.cond(e > 1.0, large, small), None

        return graphjit.scan(step, 0.0, x)[0]

    assert told(f, X)[:4] == ["large 4.0", "i=0 v=4.0", "i=1 v=5.0", "small"]


def test_what_is_told_without_values():
    def f(x):
        def step(c, e):
            tell("step")
            return c, None

        return graphjit.scan(step, 0.0, x)

    assert told(f, X) == ["step"] * 4
    assert told(f, X[:0]) == []


def test_a_known_branch_tells():
    def branch(text):
        def call(x):
            tell(text, x)
            return x

        return call

    assert told(lambda x: graphjit.cond(True, branch("yes {}"), branch("no {}"), x[0]), X) == ["yes 4.0"]
    assert told(lambda x: graphjit.switch(9, [branch("0 {}"), branch("1 {}")], x[1]), X) == ["1 1.0"]


def test_a_while_cannot_tell():
    def body(v):
        debug.print("v = {}", v)
        return v + 1.0

    def f(x):
        return graphjit.while_loop(lambda v: v < 3.0, body, x)

    with pytest.raises(
        UnsupportedError, match=r"while_loop: .*body calls debug.print .* at .*\.py:\d+: how many"
    ):
        run(f, 0.5)


def test_a_while_tells_without_compiling(capsys):
    def body(v):
        debug.print("v = {}", v)
        return v * 2.0

    with graphjit.disable_jit():
        assert graphjit.grad(lambda x: graphjit.while_loop(lambda v: v < 3.0, body, x))(1.0) == 4.0
    assert capsys.readouterr().out.splitlines() == ["v = 1.0", "v = 2.0"]


# ------------------------------------------------------------------------------------------------- NaNs


def fault(f, *args) -> str:
    """What `debug_nans` says of a call."""
    with graphjit.debug_nans(), pytest.raises(FloatingPointError) as caught:
        run(f, *args)
    return str(caught.value)


def test_the_step_of_a_scan_is_named():
    def step(c, e):
        ratio = 1.0 / e
        return c + ratio, np.log(e)

    said = fault(lambda x: graphjit.scan(step, 0.0, x)[0], X)
    assert "The first came from div at " in said
    assert "(ratio = 1.0 / e)" in said
    assert "(in step 2 of test_the_step_of_a_scan_is_named.<locals>.step): div(1.0, 0.0) = inf" in said
    said = fault(lambda x: np.sum(graphjit.scan(step, 0.0, x)[1]), X)
    assert "log(0.0) = -inf" in said
    said = fault(lambda x: graphjit.scan(step, 0.0, x, reverse=True)[0], np.array([0.0, 1.0, 0.0]))
    assert "in step 2 of" in said


def test_the_first_step_counts_and_not_the_first_line():
    def step(c, e):
        late = np.log(c - e)  # NaN in step 1
        early = np.sqrt(-e)  # NaN in step 2
        return c + np.where(e < 2.0, 0.0, early), late

    said = fault(lambda x: np.sum(graphjit.scan(step, 0.5, x)[1]), np.array([0.0, 1.0, 2.0]))
    assert "log(-0.5) = nan" in said
    assert "in step 1 of" in said


def test_the_step_of_a_while_is_named():
    def f(x):
        def body(v):
            return v[0] + 1.0, v[1] + np.log(2.0 - v[0])

        return graphjit.while_loop(lambda v: v[0] < 4.0, body, (x, 0.0))[1]

    said = fault(f, 0.0)
    assert "The first infinity came from log" in said
    assert "(in step 2 of " in said
    assert "log(0.0) = -inf" in said


def test_the_branch_is_named_and_loops_inside():
    def f(p, x):
        def good():
            return np.sum(x)

        def bad():
            return graphjit.fori_loop(0, 4, lambda i, v: v / x[i], 1.0)

        return graphjit.cond(p, bad, good)

    with graphjit.debug_nans():
        assert run(f, np.bool_(False), X) == 7.0
    said = fault(f, np.bool_(True), X)
    assert (
        "(in the branch test_the_branch_is_named_and_loops_inside.<locals>.f.<locals>.bad) (in step 2 of "
        in said
    )


def test_what_was_given_is_nobodys_fault():
    def f(x):
        return graphjit.scan(lambda c, e: (c + e, c), 0.0, x)

    with graphjit.debug_nans():
        run(f, np.array([1.0, np.nan]))
        run(lambda x: graphjit.scan(lambda c, e: (np.maximum(c, e), None), -np.inf, x)[1], X)
