"""What people read when a body or a branch is wrong: both types, the leaf, their own line. Before anything is
compiled, and without compiling in the same words.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import numpy as np
import pytest
from control_harness import run

import graphjit
from graphjit.errors import ShapeError, TraceError

X = np.arange(1.0, 4.0)


def line_of(function: Any, text: str) -> str:
    """``file:line`` of the line of a function that holds a text."""
    rows, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(i for i, row in enumerate(rows) if text in row)}"


def refused(f: Any, *args: Any, kind: type[Exception] = ShapeError, plain: bool = True) -> str:
    """The message of an error that a traced function raises, and Python too unless ``plain`` is False."""
    with pytest.raises(kind) as caught:
        run(f, *args)
    if plain:
        with pytest.raises(kind) as again:
            f(*args)
        assert re.sub(r"\(returned at .*?\)", "", str(again.value)) == re.sub(
            r"\(returned at .*?\)", "", str(caught.value)
        )
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ carries


def test_a_carry_of_another_shape():
    def step(carry, x):
        new = {"h": carry["h"][:2], "n": carry["n"] + 1}
        return new, x

    said = refused(lambda x: graphjit.scan(step, {"h": x, "n": 0}, x), X)
    assert (
        "scan: test_a_carry_of_another_shape.<locals>.step turns carry['h'] from f64[3] into f64[2]" in said
    )
    assert f"(returned at {line_of(step, 'return new')})" in said


def test_a_carry_of_another_dtype():
    def body(i, val):
        return val[0].astype(np.float32), val[1]

    counted = lambda x, n: graphjit.fori_loop(0, 3, body, (x, 1))
    for f in (counted, lambda x, n: graphjit.fori_loop(0, n, body, (x, 1))):  # a scan, and a while
        said = refused(f, X, 3)
        assert (
            "fori_loop: test_a_carry_of_another_dtype.<locals>.body turns val[0] from f64[3] into f32[3]"
            in said
        )
        assert f"(returned at {line_of(body, 'return')})" in said


def test_a_carry_of_another_structure():
    said = refused(lambda x: graphjit.while_loop(lambda v: v[0] < 3.0, lambda v: [*v, 1], [x[0]]), X)
    assert "turns val = [*] into [*, *] (only the second has val[1]): what a step hands to the next" in said
    said = refused(lambda x: graphjit.while_loop(lambda v: v[0] < 3.0, lambda v: (v[0] + 1,), [x[0]]), X)
    assert "turns val = [*] into (*,): " in said


def test_what_promotion_does_not_allow():
    said = refused(lambda x: graphjit.scan(lambda c, x: (0.5, None), np.int64(1), x), X)
    assert "turns carry from i64[] into a Python float" in said
    said = refused(lambda x: graphjit.scan(lambda c, x: (None, None), 0.0, x), X)
    assert "turns carry from a Python float into None" in said
    said = refused(lambda x: graphjit.scan(lambda c, x: ({"a": "c"}, None), {"a": "b"}, x), X)
    assert "turns carry['a'] from 'b' into 'c'" in said


def test_a_body_with_several_returns():
    def body(v, flag=True):
        if flag:
            return v, v
        return v

    said = refused(lambda x: graphjit.while_loop(lambda v: v < 3.0, functools.partial(body), x[0]), X)
    first = line_of(body, "return v, v")
    assert f"(returned at {first} or {int(first.rpartition(':')[2]) + 1})" in said


# ----------------------------------------------------------------------------------- what is given


def test_steps_and_lengths():
    scan = graphjit.scan
    assert "<lambda> returns f64[] (at " in refused(lambda x: scan(lambda c, x: x, 0.0, x), X)
    assert "not a pair" in refused(lambda x: scan(lambda c, x: x, 0.0, x), X)
    assert "y[1] = 'a'" in refused(lambda x: scan(lambda c, x: (c, (x, "a")), 0.0, x), X)
    said = refused(lambda x: scan(lambda c, x: (c, x), 0.0, {"a": x, "b": x[1:]}), X)
    assert "lengths differ: xs['a'] has 3 elements, xs['b'] has 2 elements" in said
    assert "length is 4, xs has 3 elements" in refused(lambda x: scan(lambda c, x: (c, x), 0.0, x, 4), X)
    assert "length is not given" in refused(lambda x: scan(lambda c, x: (c, x), x), X)
    assert "xs is f64[] (at " in refused(lambda x: graphjit.map(np.sin, x[0]), X)
    for wrong in (0, -1, 1.5):
        unrolled = functools.partial(scan, lambda c, x: (c, x), 0, unroll=wrong)
        assert "unroll" in refused(lambda x, f=unrolled: f(x), X, kind=ValueError)
    for wrong in (-1, 1.5, True):
        counted = functools.partial(scan, lambda c, x: (c, x), 0, length=wrong)
        assert "length" in refused(lambda x, f=counted: f(None), X, kind=TypeError)


def test_tests_bounds_and_choices():
    loop = graphjit.while_loop
    assert "returns f64[] (at " in refused(lambda x: loop(lambda v: v, lambda v: v, x[0]), X)
    said = refused(lambda x: loop(lambda v: v > 0, lambda v: v, x), X)
    assert f"returns bool[3] (at {line_of(test_tests_bounds_and_choices, 'v > 0')}), not one bool" in said
    assert "upper is f64[] (at " in refused(lambda x: graphjit.fori_loop(0, x[0], lambda i, v: v, x), X)
    assert "lower is bool[3]" in refused(lambda x: graphjit.fori_loop(x > 0, 1, lambda i, v: v, x), X)
    assert "pred is bool[3] (at " in refused(lambda x: graphjit.cond(x > 0, np.sin, np.cos, x), X)
    assert "pred is None" in refused(lambda x: graphjit.cond(None, np.sin, np.cos, x), X)
    assert "index is f64[] (at " in refused(lambda x: graphjit.switch(x[0], [np.sin, np.cos], x), X)
    assert "no branches" in refused(lambda x: graphjit.switch(0, [], x), X, kind=ValueError)
    for name in ("scan", "map"):
        with pytest.raises(TypeError, match=f"{name} takes a function, not int"):
            getattr(graphjit, name)(1, X)


def test_branches_that_differ():
    def one(x):
        return {"a": x, "b": 1.0}

    def other(x):
        return {"a": x[:2], "b": 1.0}

    def choose(p, x, *branches):
        return graphjit.switch(p, branches, x)

    said = refused(lambda p, x: choose(p, x, one, one, other), 0, X, plain=False)
    assert "switch: result['a'] is f64[3] from test_branches_that_differ.<locals>.one (returned at " in said
    assert (
        f"f64[2] from test_branches_that_differ.<locals>.other (returned at {line_of(other, 'return')})"
        in said
    )
    said = refused(lambda p, x: choose(p, x, one, lambda x: {"a": x}), 0, X, plain=False)
    assert "have result = {'a': *, 'b': *} and {'a': *} (only the first has result['b'])" in said
    said = refused(lambda p, x: choose(p, x, lambda x: 1.5, lambda x: 2 * p), np.int64(0), X, plain=False)
    assert "result is a Python float from" in said
    refused(lambda x: graphjit.cond(True, lambda: x, lambda: x[0]), X, plain=False)  # whatever is known


# --------------------------------------------------------------------------------------- writes and leaks

WRITES = {
    "an array of the function": lambda x, y, view, c: y.__setitem__(0, 1.0),
    "a view of it": lambda x, y, view, c: view.__setitem__(0, 1.0),
    "a view of a view": lambda x, y, view, c: view[1:].__setitem__(0, 1.0),
    "an argument of the function": lambda x, y, view, c: x.__setitem__(slice(None), 1.0),
    "in place": lambda x, y, view, c: y.__iadd__(c[0]),
    "known values": lambda x, y, view, c: KNOWN[-1].__setitem__(0, 1.0),
    "known values in place": lambda x, y, view, c: KNOWN[-1].__imul__(2.0),
    "out": lambda x, y, view, c: np.add(x, c, out=y),
    "an argument of the body": lambda x, y, view, c: c.__setitem__(0, 1.0),
    "a function": lambda x, y, view, c: np.copyto(y, c),
}
KNOWN: list[Any] = []


@pytest.mark.parametrize("loop", ["scan", "while", "cond", "inner"])
@pytest.mark.parametrize("what", WRITES)
def test_writes_into_arrays_from_outside(what, loop):
    def f(x):
        y = x * 2.0
        view = y[1:]
        KNOWN.append(np.zeros(3))

        def body(c):
            WRITES[what](x, y, view, c)
            return c

        def step(c, none):
            return (graphjit.cond(x[0] > 0, body, body, c) if loop == "inner" else body(c)), None

        if loop == "while":
            return graphjit.while_loop(lambda c: c[0] < 0.0, body, x + 1.0)
        if loop == "cond":
            return graphjit.cond(x[0] > 0, body, body, x)
        return graphjit.scan(step, x + 1.0, length=2)

    said = refused(f, X, kind=TraceError, plain=False)
    name = {"scan": "scan", "while": "while_loop"}.get(loop, "cond")
    assert re.search(
        rf"{name}: test_writes\w+.<locals>.f.<locals>.\w+ writes at {__file__}:\d+ into an array that", said
    )
    assert "x = x.copy()" in said


def test_known_values_are_read_only_for_numpy_too():
    def f(x):
        table = np.zeros(3)

        def step(c, x):
            table.fill(1.0)
            return c, x

        return graphjit.scan(step, 0.0, x)

    with pytest.raises(ValueError, match="read-only"):
        run(f, X)


def test_arrays_may_be_written_before_and_after():
    def f(x):
        y, z = x * 2.0, np.zeros(3)
        z[0] = 1.0
        total = graphjit.scan(lambda c, e: (c + e * z[0] + y[0], None), 0.0, x)[0]
        y[0], z[1] = total, 2.0
        return y, z

    for a, b in zip(run(f, X), f(X), strict=True):
        assert a.tolist() == b.tolist()


def test_a_value_that_leaves_its_body():
    def f(x):
        kept = []

        def step(c, e):
            kept.append(c * e)
            return c + e, None

        graphjit.scan(step, 0.0, x)
        return kept[0] + 1.0

    said = refused(f, X, kind=TraceError, plain=False)
    assert "scan: a value that test_a_value_that_leaves_its_body.<locals>.f.<locals>.step made at " in said
    assert f"step made at {line_of(f, 'kept.append')} is used outside of it" in said


# ----------------------------------------------------------------------------------- Python on traced values


def test_python_points_to_the_functions():
    with pytest.raises(TraceError, match=r"graphjit\.cond .* graphjit\.while_loop"):
        graphjit.jit(lambda x: 1 if x > 0 else 2, python_control_flow=False)(3.0)
    with pytest.raises(TraceError, match=r"graphjit\.fori_loop"):
        graphjit.jit(lambda n: list(range(n)), python_control_flow=False)(3)


def test_tracebacks_end_in_the_body():
    def body(i, v):
        return v + np.zeros(i)

    with pytest.raises(TraceError) as caught:
        run(lambda x: graphjit.fori_loop(0, 3, body, x), X)
    assert caught.traceback[-1].frame.code.name == "body"
