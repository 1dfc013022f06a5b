"""Nothing is compiled inside disable_jit: functions run as NumPy, derivatives on values that print and
branch.
"""

from __future__ import annotations

import io
import os
import pdb
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.errors import TraceError

X = np.array([1.0, 2.0, 3.0])


def test_jit_calls_the_function_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def f(x: Any, n: Any) -> Any:
        seen.append((type(x), type(n)))
        return x * len(range(n))

    compiled = graphjit.jit(f, static_argnums=1)
    assert compiled(X, 2).tolist() == [2.0, 4.0, 6.0]  # native code is installed
    seen.clear()
    monkeypatch.setattr(
        "graphjit.compilation.executable", lambda *args: pytest.fail("something was compiled")
    )
    with graphjit.disable_jit():
        for _ in range(2):
            assert compiled(X, 2).tolist() == [2.0, 4.0, 6.0]
        assert graphjit.jit(lambda x: x if x > 1 else -x)(0.5) == -0.5
    assert seen == [(np.ndarray, int)] * 2
    assert compiled(X, 2).tolist() == [2.0, 4.0, 6.0]
    assert len(seen) == 2


def steps(x: Any, n: Any = 3) -> Any:
    y = np.sin(x) * x
    if y[0] > 0.5:
        y = y * 2
    z = np.zeros(3)
    z[0] = y[1]
    z[1:] = y[:2]
    for i in range(int(n)):
        z = z + i * x
    return np.sum(z)


def test_derivatives_branch_and_print_on_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def straight(x: Any) -> Any:
        y = np.sin(x) * x * 2
        return y[1] + y[0] + y[1] + np.sum(3 * x)

    value, gradient = graphjit.value_and_grad(straight)(X)
    _, tangent = graphjit.jvp(straight, (X,), (X,))
    monkeypatch.setattr(
        "graphjit.compilation.executable", lambda *args: pytest.fail("something was compiled")
    )
    with graphjit.disable_jit():
        found, slope = graphjit.value_and_grad(steps)(X)
        np.testing.assert_allclose(found, value, rtol=1e-14)
        np.testing.assert_allclose(slope, gradient, rtol=1e-14)
        assert (type(found), type(slope)) == (np.float64, np.ndarray)
        np.testing.assert_allclose(graphjit.jvp(steps, (X,), (X,))[1], tangent, rtol=1e-14)
        out, pullback = graphjit.vjp(steps, X)
        assert out == found
        np.testing.assert_allclose(pullback(2.0)[0], 2 * gradient, rtol=1e-14)
        assert graphjit.grad(graphjit.grad(lambda x: x**3 if x > 0 else x))(2.0) == 12.0
        assert graphjit.jit(graphjit.grad(graphjit.jit(lambda x: x**3)))(2.0) == 12.0

        def talkative(x: Any) -> Any:
            y = x * 2
            print(y, repr(y), f"{y[0]:.3f} {y[1]}", y[2], 4.0 in y, int(y[0]))
            return np.sum(y)

        capsys.readouterr()
        graphjit.grad(talkative)(X)
    assert capsys.readouterr().out == "[2. 4. 6.] array([2., 4., 6.]) 2.000 4.0 6.0 True 2\n"


def test_everything_else_of_derivatives_is_as_compiled() -> None:
    params = {"w": X, "b": None}
    with graphjit.disable_jit():
        (value, aux), gradient = graphjit.value_and_grad(
            lambda p, y: (np.sum(p["w"] * y), (p["w"] * 2, "text")), has_aux=True
        )(params, 3.0)
        assert (value, aux[1], gradient["b"]) == (18.0, "text", None)
        np.testing.assert_array_equal(aux[0], 2 * X)
        np.testing.assert_array_equal(gradient["w"], [3, 3, 3])
        with pytest.raises(graphjit.DerivativeError, match="one floating-point number"):
            graphjit.grad(lambda x: x)(X)
        with pytest.raises(graphjit.DerivativeError, match="it is a Python int"):
            graphjit.grad(lambda x: x * 2.0)(3)


def test_results_are_nobody_elses_memory_and_captured_arrays_are_read_when_used() -> None:
    w = np.ones(3)

    def f(x: Any) -> Any:
        first = np.sum(x * w)
        w[0] += 1.0
        return first + np.sum(x * w)

    with graphjit.disable_jit():
        value, gradient = graphjit.value_and_grad(f)(X)
        assert value == 6.0 + 7.0
        assert gradient.tolist() == [3.0, 2.0, 2.0]
        given = X.copy()
        out, _ = graphjit.vjp(lambda x: x, given)
        out[0] = 9.0
        assert given[0] == 1.0


def test_errors_come_at_the_line_that_computes() -> None:
    def late(x: Any, i: Any) -> Any:
        x = x[i]
        raise AssertionError(f"never reached: {x}")

    with graphjit.disable_jit(), pytest.raises(IndexError, match="out of bounds") as caught:
        graphjit.grad(late)(X, 7)
    assert caught.traceback[-1].name == "late"


def test_it_nests_and_ends() -> None:
    def branch(x: Any) -> Any:
        return x if x > 0 else -x

    def refused() -> bool:
        try:
            graphjit.grad(branch, python_control_flow=False)(1.0)
        except TraceError:
            return True
        return False

    assert refused()
    with graphjit.disable_jit():
        assert not refused()
        with graphjit.disable_jit(False):
            assert refused()
        assert not refused()
        others: list[bool] = []
        thread = threading.Thread(target=lambda: others.append(refused()))
        thread.start()
        thread.join()
        assert others == [True]
    assert refused()
    with pytest.raises(ValueError, match="mine"), graphjit.disable_jit():
        raise ValueError("mine")
    assert refused()

    @graphjit.disable_jit()
    def decorated() -> bool:
        return refused()

    assert not decorated()


def test_a_debugger_stops_with_numbers() -> None:
    out = io.StringIO()
    debugger = pdb.Pdb(
        stdin=io.StringIO("p y\np y[1] > 3\ncontinue\n"), stdout=out, nosigint=True, readrc=False
    )

    def stops(x: Any) -> Any:
        y = x * 2
        debugger.set_trace()
        return np.sum(y)

    try:
        with graphjit.disable_jit():
            gradient = graphjit.grad(stops)(X)
    finally:
        sys.settrace(None)
    assert gradient.tolist() == [2.0, 2.0, 2.0]
    assert "array([2., 4., 6.])\n(Pdb) True\n" in out.getvalue().replace("np.True_", "True")


def test_the_environment_variable_does_it_for_the_process() -> None:
    code = (
        "import numpy as np, graphjit, sys\n"
        "f = lambda x: x * 2 if x > 1 else x\n"
        "print(graphjit.jit(f)(3.0), graphjit.grad(f)(3.0), graphjit.jvp(f, (3.0,), (1.0,)))\n"
        "assert 'graphjit.pipeline' not in sys.modules\n"
        "with graphjit.disable_jit(False):\n"
        "    g = graphjit.jit(lambda x: x + 1); g(1.0); g(1.0)\n"
        "assert 'graphjit.pipeline' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"GRAPHJIT_DISABLE_JIT": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6.0 2.0 (np.float64(6.0), np.float64(2.0))\n"


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_have_the_same_derivatives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    functions = [
        np.sin,
        np.tanh,
        np.exp,
        lambda y: y * y,
        lambda y: y[::-1],
        lambda y: np.cumsum(y),
        lambda y: y / (1 + y * y),
        lambda y: np.where(y > 0, y, 2 * y),
    ]
    chosen = [functions[i] for i in rng.integers(0, len(functions), 5)]

    def program(x: Any) -> Any:
        for function in chosen:
            x = function(np.tanh(x))
        return np.mean(x)

    x = rng.normal(size=5)
    compiled = graphjit.value_and_grad(program)(x)
    with graphjit.disable_jit():
        plain = graphjit.value_and_grad(program)(x)
    np.testing.assert_allclose(plain[0], compiled[0], rtol=1e-13)
    np.testing.assert_allclose(plain[1], compiled[1], rtol=1e-12, atol=1e-15)
