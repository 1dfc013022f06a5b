"""`debug_nans` names the operation that made the first NaN or infinity, and nothing that is innocent."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special as sp

import graphjit
from graphjit import debug, debug_nans
from graphjit.backend.llvm.entry.callable import specialisations


def said(f, *args, **kwargs) -> str:
    """The message of a fault."""
    with debug_nans(), pytest.raises(FloatingPointError) as caught:
        f(*args, **kwargs)
    return str(caught.value)


def quiet(f, *args):
    """The result of a call that has no fault."""
    with debug_nans():
        found = f(*args)
    return found


def line_of(function, text: str) -> str:
    """``file:line`` of the line of a function that holds a text."""
    rows, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(i for i, row in enumerate(rows) if text in row)}"


X = np.array([4.0, 0.0, 1.0])


def chain(x):
    y = np.abs(x)
    z = np.sqrt(y)
    return np.sum(z * 2.0)


def logs(x):
    y = x - 1.0
    z = np.log(y)
    return np.sum(z)


# -------------------------------------------------------------------------------------- what is named


def test_operation_line_part_and_values_of_the_forward_part():
    message = said(graphjit.jit(logs), X)
    assert message.startswith("logs: a result holds a NaN. The first came from log at ")
    assert f"{line_of(logs, 'np.log')} (z = np.log(y)), in the forward part" in message
    assert message.endswith("log(-1.0) = nan in place [1] of f64[3]")


def test_the_backward_part_names_the_rule_and_how_an_infinity_became_nan():
    message = said(graphjit.grad(chain), X)
    assert "The first infinity came from div" in message
    assert f"{line_of(chain, 'np.sqrt')} (z = np.sqrt(y)), in the backward part (vjp of sqrt)" in message
    assert "= inf in place [1] of f64[3]. The first NaN came from mul" in message
    assert f"{line_of(chain, 'np.abs')} (y = np.abs(x)), in the backward part (vjp of abs)" in message
    assert message.endswith("mul(inf, 0.0) = nan in place [1] of f64[3]")


def test_forward_mode_is_named():
    message = said(lambda: graphjit.jvp(chain, (X,), (np.ones(3),)))
    assert "in the derivative (jvp of sqrt)" in message


def test_operations_that_read_more_than_one_place():
    message = said(graphjit.jit(np.sum), np.array([1e308, 1.5e308]))
    assert "came from sum" in message
    assert message.endswith("sum(f64[2] from 1e+308 to 1.5e+308) = inf")
    product = said(graphjit.jit(lambda a, b: a @ b), np.full((2, 3), 1e200), np.full((3, 2), -1e200))
    assert "contract(f64[2,3] from 1e+200 to 1e+200, f64[3,2] from -1e+200 to -1e+200) = -inf" in product


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda x: graphjit.jit(logs)(x), "forward"),
        (lambda x: graphjit.jit(logs, backend="numba")(x), "forward"),
        (lambda x: graphjit.value_and_grad(logs)(x), "forward"),
        (lambda x: graphjit.vmap(lambda x: np.log(x - 1.0))(x), "forward"),
        (lambda x: graphjit.vmap(graphjit.grad(lambda x: np.sqrt(np.abs(x))))(x), "backward"),
        (lambda x: graphjit.grad(lambda x: np.sum(graphjit.vmap(np.sqrt)(x)))(x), "backward"),
        (lambda x: graphjit.jacrev(np.sqrt)(x), "backward"),
        (lambda x: graphjit.jacfwd(np.sqrt)(x), "derivative"),
        (lambda x: graphjit.jacobian(np.sqrt)(x), "derivative"),
        (lambda x: graphjit.hessian(lambda x: np.sum(x**1.5))(x), "derivative"),
        (lambda x: graphjit.hvp(lambda x: np.sum(x**1.5), (x,), (np.ones(3),)), "derivative"),
        (lambda x: graphjit.grad(graphjit.checkpoint(chain))(x), "backward"),
        (lambda x: graphjit.vjp(np.sqrt, x)[1](np.ones(3)), "backward"),
        (lambda x: graphjit.linearize(np.sqrt, x)[1](np.ones(3)), "derivative"),
        (lambda x: graphjit.vjp(logs, x), "forward"),
        (lambda x: graphjit.linearize(logs, x), "forward"),
        (lambda x: graphjit.jit(lambda x: graphjit.vjp(np.sqrt, x)[1](np.ones(3)))(x), "backward"),
    ],
)
@pytest.mark.parametrize("disabled", [False, True])
def test_every_transformation(call, part, disabled):
    if disabled and part == "forward" and "jit(logs" in inspect.getsource(call).splitlines()[0]:
        pytest.skip("without compiling, jit calls the function itself, in NumPy")
    with graphjit.disable_jit(disabled), np.errstate(all="ignore"):
        message = said(call, X)
    assert f"in the {part}" in message
    assert "test_debug_nans.py:" in message


def test_bodies_are_looked_into():
    @graphjit.checkpoint
    def layer(x):
        y = np.log(x)
        return y * 2.0, x + 1.0

    def f(x):
        return layer(x - 1.0)

    message = said(graphjit.jit(f), X)
    assert (
        f"{line_of(layer.__wrapped__, 'np.log')} (y = np.log(x)), in the forward part (in the body of"
        in message
    )
    nested = graphjit.checkpoint(lambda x: layer(x)[0])
    assert "layer): log(-1.0) = nan" in said(graphjit.jit(lambda x: nested(x - 1.0)), X)
    np.testing.assert_array_equal(quiet(graphjit.jit(lambda x: f(x)[1]), X), X)  # the other result is fine


def test_what_went_wrong_before_a_body_is_named():
    tail = graphjit.checkpoint(lambda y: (np.exp(y), y * 2.0))
    message = said(graphjit.jit(lambda x: tail(np.log(x - 1.0))[1]), X)
    assert "came from log" in message
    assert "in the body of" not in message


def test_rules_of_the_users_own_belong_to_the_derivative():
    @graphjit.custom_vjp
    def root(x):
        return np.sqrt(x)

    def backward(x, ct):
        half = 0.5 / np.sqrt(x)
        return (ct * half,)

    root.defvjp(lambda x: (root(x), x), backward)
    message = said(graphjit.grad(lambda x: np.sum(root(x))), X)
    assert f"came from div at {line_of(backward, '0.5 /')}" in message
    assert "in the backward part (vjp of" in message
    assert "root): div(0.5, 0.0) = inf in place [1]" in message
    assert "in the derivative (jvp of" in said(graphjit.jvp, forward_rule(), (X,), (np.ones(3),))


def forward_rule():
    """A square root with a forward rule that divides by zero."""
    root = graphjit.custom_jvp(np.sqrt)

    @root.defjvp
    def rule(primals, tangents):
        (x,), (dx,) = primals, tangents
        return root(x), dx * 0.5 / np.sqrt(x)

    return root


def test_the_first_place_alone_counts():
    """Elementwise operations are judged place by place: a NaN that was given is elsewhere."""
    message = said(graphjit.jit(lambda x, y: np.log(x) + y), np.array([1.0, -1.0]), np.array([0.0, np.inf]))
    assert "log(-1.0) = nan in place [1]" in message
    assert "sub(inf, inf) = nan in place [1]" in said(graphjit.jit(lambda x: x - x), np.array([1.0, np.inf]))


# ------------------------------------------------------------------------------------- what is innocent


def softmax(scores, mask):
    scores = np.where(mask, scores, -np.inf)
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def test_infinities_that_the_program_writes_are_no_fault():
    mask = np.array([[True, False], [True, True]])
    found = quiet(graphjit.jit(softmax), np.ones((2, 2)), mask)
    np.testing.assert_allclose(found, softmax(np.ones((2, 2)), mask), rtol=1e-15)
    assert quiet(graphjit.jit(lambda x: x - np.inf), 1.0) == -np.inf
    message = said(graphjit.jit(softmax), np.ones((2, 2)), mask & False)
    assert "came from sub" in message
    assert "sub(-inf, -inf) = nan in place [0, 0]" in message


def test_what_the_arguments_hold_is_no_fault():
    given = np.array([np.nan, np.inf, 1.0])
    np.testing.assert_array_equal(quiet(graphjit.jit(lambda x: x * 2.0), given), given * 2.0)
    captured = np.array([np.nan, 1.0])
    np.testing.assert_array_equal(quiet(graphjit.jit(lambda x: captured * x), 2.0), [np.nan, 2.0])
    assert "came from log" in said(graphjit.jit(lambda x: np.log(x)), np.array([np.inf, -1.0]))


def test_what_does_not_reach_a_result_is_no_fault():
    safe = lambda x: np.sum(np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), 0.0))
    masked = lambda x: np.sum(np.where(x > 0, np.log(x), 0.0))
    for f in (safe, masked):
        quiet(graphjit.value_and_grad(f), X)
        quiet(graphjit.hessian(f), X)
        quiet(lambda x, f=f: graphjit.vjp(f, x)[1](1.0), X)
        quiet(lambda x, f=f: graphjit.linearize(f, x)[1](X), X)
    assert quiet(graphjit.jit(lambda x: 1.0 / (1.0 + np.exp(-x))), -1000.0) == 0.0


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda x: np.sum(np.tanh(x)), (X,)),
        (lambda x: sp.logsumexp(x * 1e3), (X,)),
        (lambda x: np.max(x) - np.min(x), (X,)),
        (lambda x: np.nansum(x), (np.array([np.nan, 1.0]),)),
    ],
)
def test_good_programs_give_the_same_results(f, args):
    for g in (graphjit.jit(f), graphjit.grad(f)):
        np.testing.assert_array_equal(quiet(g, *args), g(*args))


def test_integers_and_results_without_numbers():
    assert quiet(graphjit.jit(lambda x: (x // 2, None, "text")), 7) == (3, None, "text")


# ------------------------------------------------------------------------------------------ around a call


def test_arguments_keep_their_values():
    def fill(x):
        x[0] = np.log(x[0] - 5.0)

    x = np.array([4.0, 1.0])
    assert "came from log" in said(graphjit.jit(fill), x)
    np.testing.assert_array_equal(x, [4.0, 1.0])
    step = graphjit.jit(lambda x: np.log(x), donate_argnums=0)
    y = np.array([-1.0, 1.0])
    assert "log(-1.0) = nan in place [0]" in said(step, y)
    np.testing.assert_array_equal(y, [-1.0, 1.0])


def test_prints_come_before_the_error(capsys):
    def f(x):
        y = np.log(x)
        debug.print("y={}", y)
        return y

    said(graphjit.jit(f), -1.0)
    assert capsys.readouterr().out == "y=nan\n"


def test_outside_of_the_block_nothing_changes():
    f = graphjit.jit(np.log)
    assert f(0.0) == -np.inf
    assert len(specialisations(f)) == 1
    for _ in range(3):
        assert "came from log" in said(f, 0.0)
    assert len(specialisations(f)) == 1
    assert f(0.0) == -np.inf
    with debug_nans(), debug_nans(False):
        assert f(0.0) == -np.inf
        assert np.isnan(graphjit.vjp(np.sqrt, 0.0)[1](np.nan)[0])
    late = graphjit.jit(lambda x: np.log(x))
    assert "came from log" in said(late, 0.0)  # compiled inside of the block
    assert late(0.0) == -np.inf


def test_the_traceback_ends_at_the_call():
    with debug_nans(), pytest.raises(FloatingPointError) as caught:
        graphjit.jit(logs)(X)
    assert [entry.path.name for entry in caught.traceback] == ["test_debug_nans.py"]


def test_a_setting_for_a_whole_process():
    code = (
        "import graphjit, numpy as np\n"
        "f = graphjit.jit(lambda x: np.log(x))\n"
        "assert f(1.0) == 0.0 and f(2.0) > 0.0\n"
        "with graphjit.debug_nans(False):\n"
        "    f(0.0), f(0.0)\n"
        "f(-1.0)\n"
    )
    environment = os.environ | {"GRAPHJIT_DEBUG_NANS": "1"}
    root = Path(graphjit.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment
    )
    assert done.returncode == 1
    assert "FloatingPointError: <lambda>: a result holds a NaN. The first came from log at" in done.stderr
