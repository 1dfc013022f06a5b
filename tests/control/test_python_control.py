"""Plain Python control flow on traced values: the values of Python, gradients, batches.

Each function runs as it is on plain numbers, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit

Case = tuple[Callable[..., Any], tuple[Any, ...]]
CASES: list[Case] = []


def on(*calls: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Decorator: compare with Python for these arguments."""

    def add(function: Any) -> Any:
        CASES.extend((function, args) for args in calls)
        return function

    return add


# -------------------------------------------------------------------------------------------------- numerics


@on((2.0,), (9.0,))
def newton(a):
    x, steps = a, 0
    while abs(x * x - a) > 1e-12 * a:
        x = 0.5 * (x + a / x)
        steps += 1
    return x, steps


@on((0.0, 2.0))
def bisection(low, high):
    def f(x):
        return x**3 - 2.0

    while high - low > 1e-10:
        middle = (low + high) / 2
        if f(low) * f(middle) <= 0:
            high = middle
        else:
            low = middle
    return (low + high) / 2


@on((1.0, 1.0), (0.5, 2.0))
def adaptive(y, t_end):
    t, h, rejected = 0.0, 0.1, 0
    while t < t_end:
        h = min(h, t_end - t)
        k1 = -y * y
        k2 = -((y + h * k1) ** 2)
        if abs(k1 - k2) * h > 1e-3:
            h *= 0.5
            rejected += 1
            continue
        t += h
        y = y + h * (k1 + k2) / 2
        h *= 1.5
    return y, rejected


@on((np.array([1.0, 1.0, 2.0, 2.0, 2.0, 3.0]),), (np.array([1.0, 2.0, 2.0, 3.0, 3.0, 3.0]),))
def run_lengths(xs):
    values, counts, n = np.zeros_like(xs), np.zeros(len(xs)), 0
    for i in range(len(xs)):
        if i > 0 and xs[i] == values[n - 1]:
            counts[n - 1] += 1
        else:
            values[n] = xs[i]
            counts[n] = 1
            n += 1
    return values, counts, n


@on((0.5,), (-1.0,), (3.0,), (9.0,))
def limiter(r):
    return max(0.0, min(1.0, r), min(r / 2, 2.0))


@on((0.0, 3.0))
def golden(a, b):
    ratio = (5**0.5 - 1) / 2
    c, d = b - ratio * (b - a), a + ratio * (b - a)
    while abs(b - a) > 1e-8:
        if (c - 1.3) ** 2 < (d - 1.3) ** 2:
            b = d
        else:
            a = c
        c, d = b - ratio * (b - a), a + ratio * (b - a)
    return (a + b) / 2


@on((27,), (1,), (7,))
def collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@on((-1.0,), (0.5,), (1.5,), (1.7,), (4.0,))
def pieces(x):
    if x < 0:
        return 0.0
    elif 0 <= x < 1:
        return x
    elif x < 2 and not x == 1.5:  # noqa: SIM201
        return 2 - x
    return 0.0


# --------------------------------------------------------------------------------------------- leaving a loop


@on((3.0, 5), (100.0, 5), (3.0, 0))
def early_return(x, n):
    for i in range(n):
        for j in range(n):
            if i * j > x:
                return i * 10.0 + j
    return -1.0


@on((3.0,), (-1.0,))
def return_from_endless(x):
    while True:
        x = x * 2
        if x > 50:
            return x
        if x < -50:
            return -x


@on((5, 2.2), (5, 20.0), (0, 1.0))
def while_else(n, x):
    i = 0
    while i < n:
        if x - i < 0.5:
            result = 10.0 * i
            break
        i += 1
    else:
        result = -1.0
    return result


@on((1.5, np.arange(4.0)), (10.0, np.arange(4.0)))
def for_else(x, xs):
    for i in range(4):
        if xs[i] > x:
            found = i
            break
    else:
        found = -1
    return found


@on((7, 5), (3, 3))
def break_of_both(n, m):
    count = 0
    for i in range(n):
        for j in range(m):
            if i * j > 6:
                break
            count += 1
        else:
            count += 100
            continue
        if i > 4:
            break
    return count


@on((5,), (12,))
def continue_and_break(n):
    s = 0
    for i in range(n):
        if i % 3 == 0:
            continue
        if i > 7:
            break
        s += i
    else:
        s = -s
    return s


@on((3.0,), (100.0,))
def endless(x):
    while True:
        y = x * x
        if y > 100:
            break
        x = x * 2
    return y


# ----------------------------------------------------------------------------------------------------- loops


@on((1, 8, 2.0), (8, 1, 1.0), (3, 3, 1.0))
def steps_of_range(n, m, x):
    s = 0.0
    for i in range(n, m, 2):
        s += i * x
    for i in range(m, n, -3):
        s -= i
    return s


@on((4,), (0,))
def last_of_range(n):
    i = -1
    for i in range(n):  # noqa: B007
        pass
    return i


@on((1.5, np.array([1.0, 2.0, 3.0])), (9.0, np.array([1.0, 2.0, 3.0])))
def enumerated(x, xs):
    for i, v in enumerate(xs):
        if v > x:
            return i
    return -1


@on((3.0, np.arange(4.0)), (100.0, np.arange(4.0)))
def zipped(x, a):
    s = 0.0
    for u, v in zip(a, 2 * a, strict=True):
        if u * v > x:
            break
        s += u
    return s


@on((2.0, np.array([1.0, 2.0, -1.0, 5.0])), (2.0, np.array([1.0, 2.0, 1.0, 5.0])))
def elements(x, xs):
    s = 0
    for v in xs:
        if v < 0:
            break
        s = s + v * x
    return s


@on((1, 100.0), (1, 0.5))
def traced_later(n, x):
    i = 0
    while i < 3 or x > 1.0:
        x = x / 2 + 0.1
        i += 1
    return x, i


@on((1.0, 6))
def nested(x, n):
    i = 0
    while i < n:
        j = 0
        while j < i:
            x = x + 0.5 * j
            j += 1
        i += 1
    return x


# ----------------------------------------------------------------------------------------------- expressions


@on((0.5, 1, np.arange(3.0)), (0.5, 7, np.arange(3.0)), (-1.0, 0, np.arange(3.0) - 5))
def operators(x, i, xs):
    if i < len(xs) and xs[i] > x:  # beyond the end nothing is read
        return 1
    if not (x > 0) or i == 2:
        return 2
    return 3


@on((3.7,), (-3.7,), (0.2,))
def integers(x):
    k = int(x)
    return k * 2 if bool(k) else -1


@on((np.array([1.0, 3.0]),), (np.array([-1.0, 3.0]),), (np.array([1.0, 1.0]),))
def quantified(x):
    if any(v > 2 for v in x) and all(x > 0):
        return 1.0
    if any([v < 0 for v in x]):  # noqa: C419
        return 2.0
    return 3.0


@on((2.0, 0), (3.0, 4))
def checked(x, n):
    assert x > 0, "positive"
    if n > 10:
        raise ValueError("too big")
    return x * n


def helper(x):
    if x > 1:
        return x**2
    return x


class Layer:
    def __init__(self, slope):
        self.__slope = slope

    def leaky(self, x):
        return x if x > 0 else self.__slope * x

    def __call__(self, x):
        if x > 5:
            return self.leaky(x - 5)
        return super().__hash__() * 0 + self.leaky(x)


@on((3.0,), (0.5,), (-2.0,))
def calls(x):
    layer = Layer(0.1)
    double = lambda y: 2 * y if y > 1 else y
    return helper(x) + layer(2 * x) + layer.leaky(-x) + double(x)


@on((1.0,), (-1.0,))
def containers_under_not(x):
    pair, found, done = (x, x * 2), {"steps": 0}, x < 0
    while not done:
        pair, found = (pair[0] + 1, pair[1]), {"steps": found["steps"] + 1}
        done = pair[0] > 3
    return pair, found["steps"]


@on((1.0,))
def containers_for_ever(x):
    state = (x, [0.0])
    while True:
        state = (state[0] * 2, [state[1][0] + 1])
        if state[0] > 10:
            break
    return state


@on(*((np.arange(float(n)), steps) for n in (1, 4, 5, 16, 40) for steps in (0, 1, min(n, 3))))
def arrays_returned_on_the_way(x, n):
    for i in range(n):
        if x[i] > 0:
            return x * 2
    return x * 3


@on(*((np.arange(float(n)), np.ones(n), 2) for n in (2, 5, 17)))
def choice_in_a_loop_in_a_branch(a, b, n):
    b = b.copy()
    if a[1] > 0:
        total = np.sum(b)
        for i in range(n):
            b[i] = np.sum(a) if total > 1.0 else -0.3
    return b


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("function", "args"), CASES, ids=[f"{f.__name__}-{i}" for i, (f, _) in enumerate(CASES)]
)
def test_values_are_those_of_python(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    want, found = function(*args), graphjit.jit(function)(*args)
    for a, b in zip(
        want if isinstance(want, tuple) else (want,),
        found if isinstance(found, tuple) else (found,),
        strict=True,
    ):
        np.testing.assert_allclose(b, a, rtol=1e-13)
        assert np.asarray(b).dtype == np.asarray(a).dtype


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda a: newton(a)[0], (2.0,)),
        (lambda y: adaptive(y, 1.0)[0], (1.0,)),
        (limiter, (0.6,)),
        (pieces, (1.7,)),
        (lambda x: nested(x, 5) ** 2, (1.0,)),
        (calls, (3.0,)),
        (lambda x: elements(x, np.array([1.0, 2.0, -1.0])), (2.0,)),
        (endless, (3.0,)),
        (return_from_endless, (3.0,)),
    ],
)
def test_gradients(function: Callable[..., Any], args: tuple[float]) -> None:
    (x,), h = args, 1e-6
    slope = (function(x + h) - function(x - h)) / (2 * h)
    assert graphjit.grad(function)(x) == pytest.approx(slope, rel=1e-6)
    value, tangent = graphjit.jvp(function, (x,), (1.0,))
    assert value == pytest.approx(function(x), rel=1e-13)
    assert tangent == pytest.approx(slope, rel=1e-6)
    assert graphjit.value_and_grad(function)(x) == pytest.approx((function(x), slope), rel=1e-6)


def test_batches_have_trip_counts_of_their_own() -> None:
    n = np.array([27, 1, 7])
    assert graphjit.vmap(collatz)(n).tolist() == [111, 0, 16]
    y = np.array([1.0, 2.0, 3.0])
    found = graphjit.vmap(graphjit.grad(lambda y: adaptive(y, 1.0)[0]))(y)
    each = [graphjit.grad(lambda y: adaptive(y, 1.0)[0])(v) for v in y]
    np.testing.assert_allclose(found, each, rtol=1e-13)


def test_jacobians_and_second_derivatives() -> None:
    def both(x):
        return np.array([helper(x[0]), helper(x[1])])

    for jacobian in (graphjit.jacfwd, graphjit.jacrev, graphjit.jacobian):
        assert jacobian(both)(np.array([0.5, 3.0])).tolist() == [[1.0, 0.0], [0.0, 6.0]]
    assert graphjit.hessian(helper)(3.0) == 2.0


def test_bodies_of_scan_and_cond_and_inner_transformations() -> None:
    def step(carry, x):
        if x > 0:
            carry = carry + x
        return carry, carry

    last, _ = graphjit.jit(lambda xs: graphjit.scan(step, 0.0, xs))(np.array([1.0, -2.0, 3.0]))
    assert last == 4.0
    assert graphjit.jit(lambda x: graphjit.cond(x > 0, helper, lambda x: x, x))(3.0) == 9.0
    assert graphjit.jit(lambda x: graphjit.grad(helper)(x) if x > 0 else 0.0)(3.0) == 6.0
    assert graphjit.jit(lambda x: graphjit.jit(helper)(x))(3.0) == 9.0
    assert graphjit.jit(lambda xs: graphjit.map(helper, xs))(np.array([0.5, 2.0])).tolist() == [0.5, 4.0]
    assert graphjit.grad(graphjit.checkpoint(helper))(3.0) == 6.0


def test_numbers_of_python_take_the_shape_and_dtype_of_the_other_way() -> None:
    @graphjit.jit
    def chosen(c, x):
        y = 0
        if c:
            y = x
        return y

    @graphjit.jit
    def summed(n, x):
        s = 0
        for _ in range(n):
            s = s + x
        return s

    x = np.ones(3, np.float32)
    assert chosen(1, x).dtype == chosen(0, x).dtype == np.float32
    assert chosen(0, x).tolist() == [0.0, 0.0, 0.0]
    assert summed(4, x).tolist() == [4.0, 4.0, 4.0]


def test_what_python_decides_stays_python() -> None:
    """In a converted function too: loops over known ranges are written out, lists grow."""

    @graphjit.jit
    def function(x):
        rows = []
        for i in range(3):
            if i % 2 == 0:
                rows.append(x * i)
        if x > 0:
            x = -x
        return x, rows

    x, rows = function(2.0)
    assert (x, rows) == (-2.0, [0.0, 4.0])


def test_decorated_functions_and_wrappers() -> None:
    import functools

    def twice(function):
        @functools.wraps(function)
        def call(x):
            return function(x) if x > 0 else 2 * function(x)

        return call

    @twice
    def absolute(x):
        return x if x > 0 else -x

    compiled = graphjit.jit(absolute)
    assert (compiled(3.0), compiled(-3.0)) == (3.0, 6.0)
    assert graphjit.jit(functools.partial(early_return, n=5))(3.0) == 14.0


def test_two_lambdas_on_a_line() -> None:
    one, other = (lambda x: x if x > 0 else -x), (lambda x: 2 * x if x > 0 else x)
    assert (graphjit.jit(one)(-3.0), graphjit.jit(other)(-3.0)) == (3.0, -3.0)


def test_rules_and_solvers_of_the_user() -> None:
    @graphjit.custom_jvp
    def log(x):
        return np.log(x) if x > 0 else 0.0

    @log.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return log(x), (dx / x if x > 0 else 0 * dx)

    assert (graphjit.grad(log)(2.0), graphjit.grad(log)(-2.0)) == (0.5, 0.0)

    @graphjit.custom_vjp
    def root(x):
        return np.sqrt(x)

    root.defvjp(lambda x: (root(x), x), lambda x, ct: ((ct if x > 1 else 2 * ct),))
    assert (graphjit.grad(root)(4.0), graphjit.grad(root)(0.25)) == (1.0, 2.0)

    def solve(f, x):
        while abs(f(x)) > 1e-12:
            x = x - f(x) / graphjit.grad(f)(x)
        return x

    def cube_root(a):
        return graphjit.custom_root(lambda x: x**3 - a, 1.5, solve, lambda g, y: y / g(1.0))

    assert graphjit.jit(cube_root)(8.0) == pytest.approx(2.0)
    assert graphjit.grad(cube_root)(8.0) == pytest.approx(1 / 12)


def test_methods_that_are_compiled_and_other_back_ends() -> None:
    class Model:
        def __init__(self):
            self.w = np.ones(2)

        @graphjit.jit
        def __call__(self, x):
            if np.sum(x * self.w) > 1:
                return x * self.w
            return x

    model = Model()
    assert model(np.ones(2)).tolist() == [1.0, 1.0]
    model.w[0] = 5.0
    assert model(np.ones(2)).tolist() == [5.0, 1.0]
    assert graphjit.grad(lambda x: model(x).sum())(np.ones(2)).tolist() == [5.0, 1.0]
    assert graphjit.jit(early_return, backend="numba")(3.0, 5) == 14.0
    with graphjit.disable_jit():
        assert graphjit.grad(helper)(3.0) == 6.0
    (slope,) = graphjit.vjp(helper, 3.0)[1](1.0)
    assert slope == graphjit.linearize(helper, 3.0)[1](1.0) == 6.0


def test_printing_in_a_branch(capsys: pytest.CaptureFixture[str]) -> None:
    @graphjit.jit
    def function(x):
        if x > 0:
            graphjit.debug.print("positive: {}", x)
        return x

    function(-1.0)
    function(2.0)
    assert capsys.readouterr().out == "positive: 2.0\n"


def test_messages_of_errors_name_what_they_would_show() -> None:
    def root(x: Any) -> Any:
        assert x > 0, f"bad {x:.3f} beside {3:d}"
        if x > 100:
            raise ValueError(f"large: {x * 2!r}")
        return np.sqrt(x)

    compiled = graphjit.jit(root)
    assert compiled(4.0) == 2.0
    with pytest.raises(AssertionError, match=r"^bad \{x\} beside 3"):
        compiled(-1.0)
    with pytest.raises(ValueError, match=r"^large: \{x \* 2\}"):
        compiled(200.0)
