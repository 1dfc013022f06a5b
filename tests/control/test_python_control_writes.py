"""Arrays, attributes and containers that plain Python control flow changes: as in Python, or an error."""

from __future__ import annotations

import collections
import io
import itertools
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def view_from_outside(x, n):
    a = np.zeros(4)
    tail, alias = a[1:], a
    if x > 0:
        tail[0] = x
        alias[3] += 1
    i = 0
    while i < n:
        a[i] += x
        i += 1
    return a, tail


def one_way_only(x, n):
    a = np.ones((2, 2))
    row, turned = a[1], a.T
    if x > n:
        row *= x
    return a, turned, row


def both_ways(x, n):
    buffers = [np.zeros(3), np.ones(2)]
    named = {"a": buffers[1]}
    holder = Holder(buffer=buffers[0])
    for i in range(n):
        if x > i:
            holder.buffer[i % 3] += x
        else:
            named["a"][0] *= 2.0
    return buffers[0], buffers[1], named["a"]


def nested_writes(x, n):
    a = np.zeros((3, 3))
    row, column = a[1], a[:, 2]
    i = 0
    while i < n:
        if x > i:
            row += x
            for j in range(i):
                column[j % 3] -= 1
        else:
            a[i % 3, 0] = i
        i += 1
    return a, row, column


def made_inside(x, n):
    s = 0.0
    for i in range(n):
        t = np.zeros(2)
        t[0] = x * i
        if t[0] > 2:
            t[1] = 1.0
        s += t.sum()
    return s, x


def bound_to_others(x, n):
    u, v = np.arange(6.0) * x, np.zeros(6)
    for _ in range(n):
        v[1:-1] = 0.5 * (u[2:] + u[:-2])
        u, v = v, u
    return u, v


def attributes(x, n):
    holder = Holder(total=0.0, k=0, items={"n": 0}, pair=[x, 1])
    while holder.k < n:
        holder.total += x * holder.k
        holder.k += 1
        if holder.total > 3:
            holder.items["n"] += 1
            holder.pair[1] = holder.total
    return holder.total, holder.items["n"], holder.pair[1] * 1.0


def made_in_a_way(x, n):
    if x > n:
        values = [x]
        values.append(2 * x)
        own = Holder()
        own.sum = sum(values)
        y = own.sum
    else:
        y = x
    return y, x


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "function",
    [
        view_from_outside,
        one_way_only,
        both_ways,
        nested_writes,
        made_inside,
        bound_to_others,
        attributes,
        made_in_a_way,
    ],
)
def test_writes_are_those_of_python(function: Callable[..., Any]) -> None:
    compiled = graphjit.jit(function)
    for x, n in [(2.5, 3), (-1.0, 3), (1.5, 0), (0.5, 4)]:
        for got, want in zip(compiled(x, n), function(x, n), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-14)


@pytest.mark.parametrize(
    "function", [view_from_outside, both_ways, nested_writes, attributes, bound_to_others]
)
def test_gradients_through_writes(function: Callable[..., Any]) -> None:
    def total(x):
        return sum(np.sum(part**2) for part in function(x, 3))

    slope = (total(1.3 + 1e-6) - total(1.3 - 1e-6)) / 2e-6
    assert graphjit.grad(total)(1.3) == pytest.approx(slope, rel=1e-6)


def test_an_argument_that_one_way_writes() -> None:
    @graphjit.jit
    def function(a, c):
        if c > 0:
            a[0] = 5.0
        return a.sum()

    a = np.ones(3)
    assert function(a, -1.0) == 3.0
    assert a.tolist() == [1.0, 1.0, 1.0]
    assert function(a, 1.0) == 7.0
    assert a.tolist() == [5.0, 1.0, 1.0]


def test_objects_are_as_they_were_after_an_error() -> None:
    def function(x, out):
        if x > 0:
            out.append(1.0)
        return x

    out = [2.0]
    with pytest.raises(graphjit.TraceError, match=r"if: the list that is changed at .*gets or loses items"):
        graphjit.jit(lambda x: function(x, out))(1.0)
    assert out == [2.0]


def appended(x):
    out = []
    for i in range(x):
        out.append(i * 2.0)
    return out


def new_key(x):
    found = {}
    if x > 0:
        found["k"] = x
    return x


class Slotted:
    __slots__ = ("found",)


SHARED = types.SimpleNamespace(found=[1.0])


def inside_of_others(x):
    slotted = Slotted()
    slotted.found = {"k": []}
    if x > 0:
        slotted.found["k"].append(x)
    return x


def in_a_global(x):
    if x > 0:
        SHARED.found.append(x)
    return x


def maybe_alias(x):
    a = np.ones(2) * x
    b = a if x > 0 else 2 * a
    b[0] = 7.0
    return a


def written_base_of_alias(x):
    a = np.ones(2) * x
    if x > 0:
        b = a[1:]
    else:
        b = np.zeros(1)
    a[1] = 3.0
    return b


def aliasing_carries(n):
    a = np.zeros(3)
    b = a[:]
    for i in range(n):
        a[i] += 1.0
        a, b = b, a
    return a


def swapped_argument(u, n):
    v = np.zeros_like(u)
    for _ in range(n):
        v[:] = 2 * u
        u, v = v, u
    return u


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (appended, (3,), r"for: the list that is changed at .*:\d+ gets or loses items"),
        (new_key, (1.0,), r"if: the dict that is changed at .*:\d+ gets or loses items"),
        (inside_of_others, (1.0,), r"if: the list that is changed at .*:\d+ gets or loses items"),
        (in_a_global, (1.0,), r"if: the list that is changed at .*:\d+ gets or loses items"),
        (maybe_alias, (1.0,), "the value may be this array or not, which the conditional expression at"),
        (written_base_of_alias, (1.0,), "b may be this array or not, which the if at"),
        (aliasing_carries, (2,), "views of one array"),
        (swapped_argument, (np.ones(3), 2), r"writes into the array that u was before it.*u = u.copy\(\)"),
    ],
)
def test_what_cannot_be_made_right_is_refused(
    function: Callable[..., Any], args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(graphjit.TraceError, match=message):
        graphjit.jit(function)(*args)


def test_the_functional_interface_keeps_its_error() -> None:
    def function(x):
        a = np.zeros(3)

        def step(i, s):
            a[0] = s
            return s + 1 if s > 2 else s

        return graphjit.fori_loop(0, 3, step, x)

    with pytest.raises(graphjit.TraceError, match=r"writes at .* into an array that was made outside of it"):
        graphjit.jit(function)(1.0)


def test_both_ways_may_give_an_object_the_same_structure() -> None:
    def function(x):
        holder, found, out = Holder(), {}, []
        if x > 0:
            holder.value = x
            found["k"] = 1.0
            out.append(x)
        else:
            holder.value = -x
            found["k"] = 2.0
            out.append(0.0)
        return holder.value, found["k"], out[0]

    for x in (3.0, -3.0):
        assert graphjit.jit(function)(x) == function(x)


def created(x):
    made = [
        np.array([3.0, 1.0, 2.0]),
        np.arange(3.0),
        np.asarray([1.0, 2.0, 3.0]),
        np.full(3, 2.0),
        np.zeros(3),
        np.copy(np.ones(3)),
        np.eye(3)[0],
    ]
    made += [np.zeros_like(made[0]), np.ones_like(made[0]), made[0].copy(), np.linspace(0.0, 1.0, 3)]
    if x > 0:
        for a in made:
            a[0] = x
    return np.stack(made)


def by_functions(x):
    a, b, c = np.zeros(3), np.ones((3, 3)), np.arange(3.0)
    if x > 0:
        np.add(a, 1.0, out=a)
        a[1:].fill(3.0)
        a.flat[0] = x
        np.copyto(c, 5.0)
        np.fill_diagonal(b, 0.0)
        np.add.at(c, [0, 0], 1.0)
        c[c > 5] -= 1
        np.cumsum(np.ones(3), out=a)
    return a.sum() + np.sum(b * c), c


@pytest.mark.parametrize("function", [created, by_functions])
def test_all_arrays_and_ways_to_write(function: Callable[..., Any]) -> None:
    """Also where all values are known while the function is traced."""
    compiled = graphjit.jit(function)
    for x in (2.0, -2.0):
        for got, want in zip(compiled(x), function(x), strict=True):
            np.testing.assert_array_equal(got, want)


def test_sorting_in_place_stays_refused() -> None:
    def function(x):
        a = np.array([3.0, 1.0, 2.0])
        if x > 0:
            a.sort()
        return a

    with pytest.raises(graphjit.UnsupportedError, match="sorting is not compiled"):
        graphjit.jit(function)(1.0)


# --------------------------------------------------------------------- what says another thing each time


class Hooked:
    """Keeps its number where only its methods find it."""

    def __init__(self, number):
        self.numbers = [number]
        self.rows = {"a": [number]}

    def __getitem__(self, i):
        return self.numbers[i] + self.rows["a"][i]

    def __setitem__(self, i, number):
        self.numbers[i] = number
        self.rows["a"][i] = number * 3

    def __iadd__(self, number):
        self.numbers[0] += number
        return self

    def __enter__(self):
        self.numbers[0] += 1.0
        return self

    def __exit__(self, *error):
        return False

    @property
    def number(self):
        return self.numbers[0]

    @number.setter
    def number(self, number):
        self.numbers[0] = number


def item_set(x, p):
    p[0] = -p[0] + x


def property_set(x, p):
    p.number = -p.number + x


def added(x, p):
    p += x


def entered(x, p):
    with p:
        p[0] = p[0] * x


@pytest.mark.parametrize("change", [item_set, property_set, added, entered], ids=lambda f: f.__name__)
@pytest.mark.parametrize("x", [1.5, -0.5])
def test_methods_that_statements_call(change: Callable[..., Any], x: float) -> None:
    def in_branch(x):
        p = Hooked(1.0)
        if x > 0:
            change(x, p)
        return x * p[0]

    def in_loop(x):
        p = Hooked(1.0)
        while abs(x) < 20:
            change(2.0, p)
            x = x * 2
        return x * p[0]

    def long(x):
        p, s = Hooked(1.0), x
        for _ in range(1500):
            change(0.5, p)
            s = np.sin(s) * (p[0] % 3 + 2) * 0.1 + 1
        return s

    for function in (in_branch, in_loop, long):
        np.testing.assert_allclose(
            graphjit.jit(function)(x), function(x), rtol=1e-13, err_msg=function.__name__
        )


def test_counters_are_put_back() -> None:
    def f(x):
        found = collections.Counter(a=1)
        if x > 0:
            found["a"] += 4
        return x * found["a"]

    assert (graphjit.jit(f)(2.0), graphjit.jit(f)(-2.0)) == (10.0, -2.0)


def draws(x):
    rng = np.random.default_rng(0)
    while x < 5:
        x += rng.normal() ** 2
    return x


def draws_of_python(x):
    rng = random.Random(0)
    if x > 0:
        x += rng.gauss(0.0, 1.0)
    return x + rng.random()


def draws_of_a_module(x):
    while x < 5:
        x += random.random()
    return x


def draws_in_the_test(x):
    rng = random.Random(0)
    while x < rng.random() * 100:
        x += 1
    return x


def takes_the_next(x):
    numbers = iter([1.0, 2.0, 3.0, 4.0])
    while x < 5:
        x += next(numbers)
    return x


def counts_on(x):
    numbers = itertools.count()
    if x > 0:
        next(numbers)
    return x * next(numbers)


def goes_through(x):
    numbers = iter([1.0, 2.0])
    if x > 0:
        for number in numbers:
            x = x + number
    return x + sum(numbers)


def writes_a_text(x):
    text = io.StringIO()
    if x > 0:
        text.write("abc")
    return x + text.tell()


@pytest.mark.parametrize(
    "function",
    [
        draws, draws_of_python, draws_of_a_module, draws_in_the_test, takes_the_next, counts_on, goes_through,
        writes_a_text,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_what_values_ask_for_an_unknown_number_of_times_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(graphjit.TraceError, match="says another thing each time"):
        graphjit.jit(function)(1.0)


def test_what_is_made_inside_may_say_what_it_wants() -> None:
    def f(x):
        rng = np.random.default_rng(3)
        for _ in range(3):
            x = x + rng.normal()
        if x > 0:
            numbers = iter([2.0, 3.0])
            x = x * next(numbers) * next(numbers)
        return x

    assert graphjit.jit(f)(5.0) == f(5.0)
    assert graphjit.jit(f)(-50.0) == f(-50.0)


def test_which_list_is_written_must_not_depend_on_values() -> None:
    def late(x):
        a = [1.0, 2.0]
        b = a
        if x > 0:
            b = [5.0, 6.0]
        b[0] = 7.0
        return x * a[0]

    def first(x):
        a, b = {"n": 1.0}, {"n": 2.0}
        c = a if x > 0 else b
        a["n"] = 3.0
        return x * c["n"]

    for function in (late, first):
        with pytest.raises(graphjit.TraceError, match="neither can be changed afterwards"):
            graphjit.jit(function)(1.0)

    def fresh(x, given):
        if x > 0:
            kept = [x, 1.0]
        else:
            kept = list(given)
        kept[0] = kept[0] + 1.0
        given[1] = x
        if x > 5:
            return given
        given[0] = 0.0
        return [kept[0] + given[0], kept[1] + given[1]]

    for x in (7.0, 2.0, -2.0):
        assert graphjit.jit(lambda x: fresh(x, [3.0, 4.0]))(x) == fresh(x, [3.0, 4.0])


def test_lists_that_a_variable_may_name_are_read_freely() -> None:
    def f(x):
        a, b = [1.0, 2.0], [3.0, 4.0]
        numbers = a if x > 0 else b
        total = x
        for number in numbers:
            total = total + number * numbers[0]
        return total + len(numbers)

    assert (graphjit.jit(f)(1.5), graphjit.jit(f)(-1.5)) == (f(1.5), f(-1.5))


class Doubling:
    def __init__(self):
        self.number = 1.0

    def __iter__(self):
        return self

    def __next__(self):
        self.number *= 2.0
        return self.number


def test_iterators_of_the_user_are_objects() -> None:
    def f(x):
        numbers = Doubling()
        if x > 0:
            x = x * next(numbers)
        while x < 50:
            x = x + next(numbers)
        return x * next(numbers), numbers.number

    def nested(x):
        pairs = [(0, Hooked(1.0))]
        for _ in range(1500):
            pairs[0][1].number = -pairs[0][1].number
            x = np.sin(x) * (pairs[0][1][0] + 2) * 0.1 + 1
        return x

    for x in (1.5, -1.5):
        assert graphjit.jit(f)(x) == f(x)
        np.testing.assert_allclose(graphjit.jit(nested)(x), nested(x), rtol=1e-13)
