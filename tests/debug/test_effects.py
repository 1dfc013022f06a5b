"""`debug.print` and `debug.callback`: each value once, in order, under every transformation."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest

import graphjit
from graphjit import debug
from graphjit.backend.llvm.entry.callable import specialisations


def printed(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def noisy(x):
    """``sin(x)**2``, which tells the sine."""
    y = np.sin(x)
    debug.print("y={y:.4f} x={}", x, y=y)
    return y * y


def lines(*xs) -> list[str]:
    return [f"y={np.sin(x):.4f} x={float(x)}" for x in xs]


# ------------------------------------------------------------------------------------------ one program


def test_each_call_prints(capsys):
    f = graphjit.jit(noisy)
    for x in (0.5, 0.25, 0.5):
        assert f(x) == pytest.approx(np.sin(x) ** 2)
    assert printed(capsys) == lines(0.5, 0.25, 0.5)


def test_without_a_trace_it_prints_at_once(capsys):
    assert noisy(0.5) == np.sin(0.5) ** 2
    debug.print("{} {}", [1, 2], "text")
    assert printed(capsys) == [*lines(0.5), "[1, 2] text"]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: graphjit.jit(noisy)(x),
        lambda x: graphjit.jit(noisy, backend="numba")(x),
        lambda x: graphjit.grad(noisy)(x),
        lambda x: graphjit.value_and_grad(noisy)(x),
        lambda x: graphjit.grad(graphjit.grad(noisy))(x),
        lambda x: graphjit.jvp(noisy, (x,), (1.0,)),
        lambda x: graphjit.jvp(graphjit.grad(noisy), (x,), (1.0,)),
        lambda x: graphjit.hvp(noisy, (x,), (1.0,)),
        lambda x: graphjit.vjp(noisy, x)[1](1.0),
        lambda x: graphjit.linearize(noisy, x)[1](1.0),
        lambda x: graphjit.jacfwd(noisy)(x),
        lambda x: graphjit.jacrev(noisy)(x),
        lambda x: graphjit.hessian(noisy)(x),
        lambda x: graphjit.grad(graphjit.checkpoint(noisy))(x),
        lambda x: graphjit.grad(graphjit.jit(graphjit.checkpoint(graphjit.checkpoint(noisy))))(x),
        lambda x: graphjit.jit(lambda x: graphjit.vjp(noisy, x)[1](1.0))(x),
        lambda x: graphjit.jit(lambda x: graphjit.linearize(noisy, x)[1](1.0))(x),
        lambda x: graphjit.jit(lambda x: graphjit.jvp(graphjit.grad(noisy), (x,), (x,)))(x),
        lambda x: graphjit.grad(lambda p: noisy(p["x"]))({"x": x}),
        lambda x: graphjit.grad(lambda x: (noisy(x), {"x": x}), has_aux=True)(x),
        lambda x: graphjit.jit(noisy).lower(x).compile()(x),
    ],
)
@pytest.mark.parametrize("disabled", [False, True])
def test_a_value_is_printed_once(call, disabled, capsys):
    with graphjit.disable_jit(disabled):
        call(0.5)
    assert printed(capsys) == lines(0.5)


def test_values_are_those_of_their_place_in_the_program(capsys):
    def f(x):
        buffer = np.zeros(2)
        debug.print("{}", buffer)
        buffer[0] = x
        debug.print("{}", buffer)
        buffer += 1.0
        debug.print("{}", buffer)
        return buffer

    graphjit.jit(f)(3.0)
    compiled = printed(capsys)
    f(3.0)
    assert compiled == printed(capsys) == ["[0. 0.]", "[3. 0.]", "[4. 1.]"]


def test_values_are_numpys(capsys):
    got = []

    def f(number, scalar, array, flat):
        debug.callback(
            lambda *values, **named: got.append((values, named)), number, scalar, array, flat, k=array.T
        )
        debug.callback(got.append, {"a": [number, None, "text", 7], "b": (array > 0,)})
        return number

    args = (2.0, np.float32(1.5), np.arange(6.0).reshape(2, 3), np.array(3))
    graphjit.jit(f)(*args)
    (values, named), tree = got
    assert [type(v) for v in values] == [float, np.float32, np.ndarray, np.ndarray]
    assert values[3].shape == ()
    np.testing.assert_array_equal(named["k"], args[2].T)
    assert tree["a"] == [2.0, None, "text", 7]
    np.testing.assert_array_equal(tree["b"][0], args[2] > 0)


def test_arrays_from_outside_are_shown_as_they_are_at_the_call(capsys):
    table = np.array([1.0, 2.0])

    def f(x):
        debug.print("{} {}", table, table * x)
        return x

    compiled = graphjit.jit(f)
    compiled(2.0)
    table[0] = 5.0
    compiled(2.0)
    assert printed(capsys) == ["[1. 2.] [2. 4.]", "[5. 2.] [10.  4.]"]


def test_prints_come_before_the_result_and_before_arguments_are_written():
    seen = []

    def f(x):
        debug.callback(seen.append, x)
        x[0] = 7.0
        debug.callback(lambda new: seen.append((new, kept.copy())), x)
        return x

    kept = np.zeros(2)
    assert graphjit.jit(f)(kept) is kept
    np.testing.assert_array_equal(seen[0], [0.0, 0.0])
    np.testing.assert_array_equal(seen[1][0], [7.0, 0.0])
    np.testing.assert_array_equal(seen[1][1], [0.0, 0.0])
    np.testing.assert_array_equal(kept, [7.0, 0.0])


# ----------------------------------------------------------------------------------------------- batches


def test_a_batch_prints_each_element_in_order(capsys):
    xs = np.array([0.1, 0.2, 0.3])
    graphjit.vmap(noisy)(xs)
    assert printed(capsys) == lines(*xs)
    graphjit.vmap(graphjit.grad(noisy))(xs)
    assert printed(capsys) == lines(*xs)
    graphjit.grad(lambda xs: np.sum(graphjit.vmap(noisy)(xs)))(xs)
    assert printed(capsys) == lines(*xs)
    graphjit.hessian(lambda xs: np.sum(graphjit.vmap(graphjit.checkpoint(noisy))(xs)))(xs)
    assert printed(capsys) == lines(*xs)


def test_statements_come_one_after_the_other(capsys):
    def f(x, y):
        debug.print("first {}", x)
        debug.print("fixed {}", y)
        debug.print("second {} {}", x * 2.0, y)
        return x * y

    graphjit.vmap(f, in_axes=(0, None))(np.array([1.0, 2.0]), 3.0)
    assert printed(capsys) == [
        "first 1.0",
        "first 2.0",
        "fixed 3.0",
        "second 2.0 3.0",
        "second 4.0 3.0",
    ]


@pytest.mark.parametrize("outer_first", [True, False])
def test_batches_of_batches(capsys, outer_first):
    def f(x, y):
        debug.print("{} {} {}", x, y, x + y)
        return x + y

    xs, ys = np.array([1.0, 2.0]), np.array([10.0, 20.0, 30.0])
    if outer_first:
        inner = graphjit.vmap(f, in_axes=(None, 0))
        graphjit.vmap(inner, in_axes=(0, None))(xs, ys)
        expected = [f"{x} {y} {x + y}" for x in xs for y in ys]
    else:
        inner = graphjit.vmap(f, in_axes=(0, None))
        graphjit.vmap(inner, in_axes=(None, 0))(xs, ys)
        expected = [f"{x} {y} {x + y}" for y in ys for x in xs]
    assert printed(capsys) == expected


def test_elements_keep_their_class():
    got = []

    def f(x, row):
        debug.callback(lambda *values: got.append(values), x, row)
        return x

    graphjit.vmap(f, in_axes=(0, 1))(np.arange(2.0), np.arange(6.0).reshape(3, 2))
    assert [type(v) for v in got[0]] == [np.float64, np.ndarray]
    np.testing.assert_array_equal(got[1][1], [1.0, 3.0, 5.0])


def test_a_batch_without_elements_prints_nothing(capsys):
    graphjit.vmap(noisy)(np.zeros(0))
    with graphjit.disable_jit():
        graphjit.vmap(graphjit.grad(noisy))(np.zeros(0))
    assert printed(capsys) == []


def test_without_compiling_a_batch_prints_element_by_element(capsys):
    with graphjit.disable_jit():
        graphjit.vmap(noisy)(np.array([0.1, 0.2]))
    assert printed(capsys) == lines(0.1, 0.2)


# ------------------------------------------------------------------------------------- rules and bodies


@graphjit.custom_vjp
def guarded(x):
    debug.print("value {}", x)
    return np.sin(x)


def forward(x):
    debug.print("forward {}", x)
    return guarded(x), x


def backward(x, ct):
    debug.print("backward {} {}", x, ct)
    return (ct * np.cos(x),)


guarded.defvjp(forward, backward)


@graphjit.custom_jvp
def ruled(x):
    debug.print("value {}", x)
    return np.sin(x)


@ruled.defjvp
def rule(primals, tangents):
    (x,), (dx,) = primals, tangents
    debug.print("rule {}", x)
    debug.print("tangent {}", dx)
    return ruled(x), np.cos(x) * dx


WHOLE = ["value 0.5", "forward 0.5", "backward 0.5 2.0"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: graphjit.jit(guarded)(x), WHOLE[:1]),
        (lambda x: graphjit.grad(lambda x: 2.0 * guarded(x))(x), WHOLE),
        (lambda x: graphjit.grad(graphjit.checkpoint(lambda x: 2.0 * guarded(x)))(x), WHOLE),
        (lambda x: graphjit.jit(lambda x: graphjit.vjp(guarded, x)[1](2.0))(x), WHOLE),
        (lambda x: graphjit.jvp(guarded, (x,), (1.0,)), WHOLE[:2]),
        (lambda x: graphjit.jit(ruled)(x), ["value 0.5"]),
        (lambda x: graphjit.jvp(ruled, (x,), (3.0,)), ["value 0.5", "rule 0.5", "tangent 3.0"]),
        (lambda x: graphjit.grad(ruled)(x), ["value 0.5", "rule 0.5"]),
        (lambda x: graphjit.grad(graphjit.checkpoint(ruled))(x), ["value 0.5", "rule 0.5"]),
    ],
)
@pytest.mark.parametrize("disabled", [False, True])
def test_rules_print_what_is_their_own(call, expected, disabled, capsys):
    """The function prints once though its rule calls it again; a tangent has no value in reverse mode."""
    with graphjit.disable_jit(disabled):
        call(0.5)
    assert printed(capsys) == expected


def test_rules_over_batches(capsys):
    xs = np.array([0.25, 0.5])
    expected = [
        "value 0.25",
        "value 0.5",
        "forward 0.25",
        "forward 0.5",
        "backward 0.25 1.0",
        "backward 0.5 1.0",
    ]
    graphjit.vmap(graphjit.grad(guarded))(xs)
    assert printed(capsys) == expected
    graphjit.grad(lambda xs: np.sum(graphjit.vmap(guarded)(xs)))(xs)
    assert printed(capsys) == expected


def test_rules_of_a_jacobian_print_each_direction(capsys):
    for many in (2, 40):  # written out, and as a batch
        x = np.zeros(many)
        graphjit.jacfwd(ruled)(x)
        assert capsys.readouterr().out.count("tangent [") == many
        graphjit.jacfwd(ruled, chunk_size=1)(x[:2])
        assert len([line for line in printed(capsys) if line.startswith("tangent")]) == 2


def test_each_pullback_prints(capsys):
    _, pullback = graphjit.vjp(guarded, 0.5)
    assert printed(capsys) == ["value 0.5"]
    for ct in (2.0, 3.0):
        pullback(ct)
        assert printed(capsys) == ["forward 0.5", f"backward 0.5 {ct}"]
    np.testing.assert_allclose(graphjit.jit(lambda ct: pullback(ct)[0] * 2.0)(4.0), 8.0 * np.cos(0.5))
    assert printed(capsys) == ["forward 0.5", "backward 0.5 4.0"]
    with graphjit.disable_jit():
        pullback(5.0)
    assert printed(capsys) == ["forward 0.5", "backward 0.5 5.0"]


def test_each_pushforward_prints(capsys):
    _, pushforward = graphjit.linearize(ruled, 0.5)
    assert printed(capsys) == ["value 0.5"]
    pushforward(2.0)
    assert printed(capsys) == ["rule 0.5", "tangent 2.0"]


def test_a_rule_may_print_the_same_twice(capsys):
    twice = graphjit.custom_vjp(lambda x: x * 2.0)

    def back(residuals, ct):
        for _ in range(2):
            debug.print("again")
        for name in ("a", "b"):
            debug.print("{} {}", name, ct)
        return (2.0 * ct,)

    twice.defvjp(lambda x: (x * 2.0, None), back)
    graphjit.grad(twice)(1.0)
    assert printed(capsys) == ["again", "again", "a 1.0", "b 1.0"]


def test_a_body_that_reads_from_outside(capsys):
    def f(x, w):
        scaled = x * w

        @graphjit.checkpoint
        def layer(x):
            debug.print("{} {}", x + scaled, w)
            return guarded(x + scaled)

        return layer(x)

    graphjit.grad(f)(1.0, 2.0)
    assert printed(capsys) == ["3.0 2.0", "value 3.0", "forward 3.0", "backward 3.0 1.0"]


def test_a_printed_body_is_computed_once():
    def layer(x):
        y = np.exp(np.sin(x))
        debug.callback(id, y)
        return y * y

    graph = graphjit.jit(graphjit.checkpoint(layer)).lower(np.ones(3)).optimized
    assert sum(node.op.name == "exp" for node in graph.nodes()) == 1


def test_solvers_print_their_steps(capsys):
    def solution(p):
        def f(x):
            debug.print("at {:.2f}", x)
            return x * x - p

        def newton(f, x):
            for _ in range(2):
                x = x - f(x) / (2.0 * x)
            return x

        return graphjit.custom_root(f, 3.0, newton, tangent_solve=lambda g, y: y / g(1.0))

    slope = graphjit.grad(solution)(4.0)
    assert slope == pytest.approx(0.25, abs=1e-2)
    assert printed(capsys) == ["at 3.00", "at 2.17"]


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("transform", [lambda f: f, graphjit.grad], ids=["jit", "grad"])
def test_prints_before_an_error_still_come(transform, capsys):
    def f(x, i):
        debug.print("before {}", x)
        y = x[i]
        debug.print("after {}", y)
        return y

    with pytest.raises(IndexError, match="out of bounds"):
        graphjit.jit(transform(f))(np.arange(3.0), 5)
    assert printed(capsys) == ["before [0. 1. 2.]"]


def test_an_exception_of_a_callback_goes_to_the_caller():
    def refuse(y):
        if y > 1.0:
            raise RuntimeError(f"too large: {y}")

    def f(x):
        y = np.sum(x) * 2.0
        debug.callback(refuse, y)
        x[0] = -1.0
        return y

    compiled = graphjit.jit(f)
    x = np.array([0.25])
    assert compiled(x) == 0.5
    x = np.array([3.0])
    with pytest.raises(RuntimeError, match=r"too large: 6\.0"):
        compiled(x)
    np.testing.assert_array_equal(x, [3.0])


def test_texts_that_do_not_fit():
    def tried(*args, **kwargs):
        return graphjit.jit(lambda x: debug.print(*args, **kwargs) or x)(1.0)

    with pytest.raises(ValueError, match="no place for value 1, z="):
        tried("{} {y}", 1, 2, y=3, z=4)
    with pytest.raises(IndexError):
        tried("{} {}", 1)
    with pytest.raises(KeyError):
        tried("{x}", 1)
    with pytest.raises(ValueError, match=r"Single '\{' encountered"):
        tried("{", 1)
    with pytest.raises(TypeError, match=r"debug\.print takes a text"):
        tried(3.0)
    with pytest.raises(TypeError, match="callback takes a function"):
        graphjit.jit(lambda x: debug.callback(3, x) or x)(1.0)
    with pytest.raises(graphjit.TraceError, match=r"graphjit\.debug\.print\('x = \{\}', x\)"):
        graphjit.jit(lambda x: debug.print(f"{x}") or x)(1.0)


def test_texts_with_attributes_items_and_nested_places(capsys):
    graphjit.jit(lambda x: debug.print("{0.shape} {0[1]} {y:{w}.{p}f} {{}}", x, y=x[0], w=8, p=2) or x)(
        np.ones(2)
    )
    assert printed(capsys) == ["(2,) 1.0     1.00 {}"]


def test_a_function_that_failed_leaves_nothing_behind(capsys):
    def failing(x):
        debug.print("inside {}", x)
        raise ValueError

    def f(x):
        try:
            graphjit.vmap(failing)(x)
        except ValueError:
            debug.print("caught {}", np.sum(x))
        return x

    graphjit.jit(f)(np.ones(2))
    assert printed(capsys) == ["caught 2.0"]


# ------------------------------------------------------------------------------------ speed and retraces


def test_code_without_effects_takes_the_native_way():
    plain, noisy_ = graphjit.jit(np.sin), graphjit.jit(noisy)
    plain(1.0)
    assert len(specialisations(plain)) == 1
    noisy_(1.0)
    assert len(specialisations(noisy_)) == 0


counter = 0


def test_what_callbacks_change_does_not_trace_again():
    traces = []
    state, seen = {"n": 0}, []

    def count(v):
        state["n"] += 1

    def count_global(v):
        global counter
        counter += 1

    class Logger:
        scale = 2.0

        def __init__(self):
            self.values = []
            self.last = None

        def record(self, v):
            self.values.append(v)
            self.last = v

        def __call__(self, v):
            self.last = v

        def step(self, x):
            traces.append("step")
            debug.callback(self.record, x)
            return x * self.scale

    logger = Logger()

    def f(x):
        traces.append("f")
        debug.callback(seen.append, x)
        debug.callback(count, x)
        debug.callback(count_global, x)
        debug.callback(lambda v: state.update(last=v), x)
        debug.callback(functools.partial(logger.record), x)
        debug.callback(logger, x)
        return x

    compiled, method = graphjit.jit(f), graphjit.jit(logger.step)
    before = counter
    for i in range(4):
        compiled(float(i))
        assert method(float(i)) == 2.0 * i
    assert traces == ["f", "step"]
    assert seen == [0.0, 1.0, 2.0, 3.0]
    assert state == {"n": 4, "last": 3.0}
    assert counter == before + 4
    Logger.scale = 5.0  # what the function itself reads is watched as ever
    assert method(1.0) == 5.0
    assert traces == ["f", "step", "step"]


def test_a_callback_that_is_also_part_of_the_function_is_watched():
    state = {"scale": 2.0}

    def scaled(x):
        return x * state["scale"]

    def f(x):
        debug.callback(scaled, x)
        return scaled(x)

    compiled = graphjit.jit(f)
    assert compiled(1.0) == 2.0
    state["scale"] = 5.0
    assert compiled(1.0) == 5.0


def test_callbacks_may_call_compiled_functions():
    double, got = graphjit.jit(lambda x: 2.0 * x), []
    f = graphjit.jit(lambda x: debug.callback(lambda v: got.append(double(v)), x) or x)
    for i in range(3):
        f(float(i))
    with graphjit.disable_jit():
        graphjit.grad(f)(3.0)
    assert got == [0.0, 2.0, 4.0, 6.0]


def test_other_threads_print_at_once():
    """A thread that runs while a function is traced is no part of it."""
    got = []

    def f(x):
        thread = threading.Thread(target=lambda: debug.callback(got.append, "now"))
        thread.start()
        thread.join()
        debug.callback(got.append, "later")
        return x

    graphjit.make_graph(f)(1.0)
    assert got == ["now"]
