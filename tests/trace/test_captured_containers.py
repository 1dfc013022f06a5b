"""Captured containers, context variables and values of threads: native code compares them, whatever was done
to them between two calls.
"""

from __future__ import annotations

import collections
import collections.abc
import contextvars
import random
import threading
import types
import weakref

import numpy as np
import pytest

import graphjit
from graphjit.backend.signature import ForeignGuard
from graphjit.trace.outside.find_guards import find_guards


def test_random_changes_of_containers_are_seen():
    """Every kind of container that native code compares, changed in random ways between calls."""
    rng = random.Random(5)
    items = [1.0, 2.0]
    table = {"a": 1.0}
    ordered = collections.OrderedDict(a=1.0, b=2.0)
    queue = collections.deque([1.0], maxlen=150)
    group = {1.0, 2.0}
    variable = contextvars.ContextVar("variable", default=0.5)
    holder = types.SimpleNamespace(scale=1.0)
    many = collections.deque(float(i) for i in range(150))

    def weighted(values):
        return sum((i + 1) * value for i, value in enumerate(values))

    def plain(x):
        total = weighted(items) + weighted(table.values()) + weighted(ordered.values()) + weighted(queue)
        return x * (total + weighted(group) + weighted(many) + variable.get() + holder.scale)

    compiled = graphjit.jit(plain)
    assert not any(isinstance(guard, ForeignGuard) for guard in find_guards(plain).guards)

    def number():
        return float(rng.randrange(50))

    def position(held):
        return rng.randrange(len(held))

    changes = [
        lambda: items.append(number()),
        lambda: items.__setitem__(position(items), number()),
        lambda: items.reverse(),
        lambda: items.pop() if len(items) > 1 else None,
        lambda: table.update({rng.choice("abcdef"): number()}),
        lambda: table.pop(rng.choice("abcdef"), None),
        lambda: ordered.move_to_end(rng.choice("ab")),
        lambda: ordered.update(a=number()),
        lambda: queue.append(number()),
        lambda: queue.appendleft(number()),
        lambda: queue.rotate(3),
        lambda: queue.__setitem__(0, number()),
        lambda: many.__setitem__(position(many), number()),
        lambda: many.rotate(rng.randrange(-80, 80)),
        lambda: many.reverse(),
        lambda: group.add(number()),
        lambda: group.discard(number()),
        lambda: variable.set(number()),
        lambda: setattr(holder, "scale", number()),
        lambda: vars(holder).update(scale=number()),
        lambda: None,
    ]
    for _ in range(400):
        rng.choice(changes)()
        for _ in range(rng.randrange(1, 4)):
            assert compiled(2.0) == plain(2.0)


def test_context_variables_have_the_value_of_the_calling_context():
    variable = contextvars.ContextVar("variable", default=2.0)
    compiled = graphjit.jit(lambda x: x * variable.get())
    assert [compiled(1.0), compiled(1.0)] == [2, 2]
    context = contextvars.copy_context()
    context.run(variable.set, 5.0)
    assert [context.run(compiled, 1.0), compiled(1.0), context.run(compiled, 1.0)] == [5, 2, 5]


def test_thread_locals_are_read_by_each_thread():
    local = threading.local()
    local.scale = 2.0
    compiled = graphjit.jit(lambda x: x * local.scale)
    results = []

    def other():
        local.scale = 3.0
        results.append(compiled(1.0))

    compiled(1.0)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert [*results, compiled(1.0)] == [3, 2]


# --------------------------------------------------------- state that only Python's own or library code reads


class First:
    v = 1.0


class Second:
    v = 2.0


class Meta(type):
    scale = 1.0


class Supplying:
    def __getattr__(self, name):
        return 2.0


class Wrapped(collections.UserDict):
    pass


class Plain:
    pass


class Real(float):
    pass


def bases():
    kind = type("Kind", (First,), {})
    value = kind()
    return lambda x: x * value.v, lambda: setattr(kind, "__bases__", (Second,))


def metaclass():
    kind = Meta("Kind", (), {})
    return lambda x: x * kind.scale, lambda: setattr(Meta, "scale", Meta.scale + 1)


def class_before_metaclass():
    kind = Meta("Kind", (), {})
    return lambda x: x * kind.scale, lambda: setattr(kind, "scale", 7.0)


def default_of_a_context_variable():
    shared = {"k": 1.0}
    variable = contextvars.ContextVar("variable", default=shared)
    return lambda x: x * variable.get()["k"], lambda: variable.get().update(k=9.0)


def attribute_that_was_absent():
    value = Plain()

    def f(x):
        try:
            return x * value.scale
        except AttributeError:
            return x

    return f, lambda: setattr(value, "scale", 9.0)


def attribute_of_a_number():
    value = Real(3.0)
    value.k = 1.0
    return lambda x: x * value.k, lambda: setattr(value, "k", 9.0)


def property_over_an_attribute():
    kind = type("Kind", (), {})
    value = kind()
    value.v = 1.0
    return lambda x: x * value.v, lambda: setattr(kind, "v", property(lambda self: 9.0))


def supplied_attribute():
    value = Supplying()
    return lambda x: x * value.u, lambda: setattr(value, "u", 3.0)


def supplied_attribute_of_a_class():
    kind = type("Kind", (Supplying,), {})
    value = kind()
    return lambda x: x * value.u, lambda: setattr(kind, "u", 4.0)


def user_dict():
    held = collections.UserDict(k=1.0)
    return lambda x: x * held["k"], lambda: held.update(k=5.0)


def data_of_a_user_dict():
    held = Wrapped(k=1.0)
    return lambda x: x * held["k"], lambda: setattr(held, "data", {"k": 7.0})


def user_list():
    held = collections.UserList([1.0])
    return lambda x: x * held[0], lambda: held.__setitem__(0, 3.0)


def chain_map():
    held = collections.ChainMap({"a": 1.0})
    return lambda x: x * held["a"], lambda: held.maps.insert(0, {"a": 2.0})


def weak_values():
    held, first, second = weakref.WeakValueDictionary(), Real(1.0), Real(5.0)
    first.k, second.k = 1.0, 5.0
    held["o"] = first
    alive = [first, second]
    return lambda x: x * held["o"].k * len(alive), lambda: held.__setitem__("o", second)


def view_of_a_dict():
    held = {"a": 1.0}
    view = held.values()
    return lambda x: x * sum(view), lambda: held.update(a=4.0)


def polynomial():
    held = np.polynomial.Polynomial([1.0, 2.0])
    return lambda x: held(x), lambda: setattr(held, "coef", np.array([0.0, 7.0]))


def text_of_an_array():
    held = np.ones(3)
    return lambda x: x * len(f"{held}") + len(repr(held * 2)), lambda: held.__imul__(1.2345)


def text_of_an_item():
    held, table = np.array([2, 1]), {"w2": 3.0, "w1": 5.0}
    return lambda x: x * table["w" + str(held[0])], lambda: held.__setitem__(0, 1)


LATER = [
    bases, metaclass, class_before_metaclass, default_of_a_context_variable, attribute_that_was_absent, attribute_of_a_number,
    property_over_an_attribute, supplied_attribute, supplied_attribute_of_a_class, user_dict, data_of_a_user_dict, user_list, chain_map,
    weak_values, view_of_a_dict, polynomial, text_of_an_array, text_of_an_item,
]  # fmt: skip


@pytest.mark.parametrize("make", LATER)
def test_what_changed_later_is_seen(make):
    function, change = make()
    compiled = graphjit.jit(function)
    before = function(2.0)
    assert compiled(2.0) == compiled(2.0) == before
    change()
    assert function(2.0) != before
    assert compiled(2.0) == compiled(2.0) == function(2.0)


def test_attributes_of_abstract_containers_are_watched_where_they_are_read():
    """Only their own code reads them: a counter that it does not name makes no trace."""

    class Model(collections.abc.Sequence):
        def __init__(self):
            self.items, self.calls = [1.0, 2.0], 0

        def __getitem__(self, i):
            return self.items[i]

        def __len__(self):
            return 2

    model, traces = Model(), []

    def function(x):
        traces.append(x)
        return x * model[0]

    compiled = graphjit.jit(function)
    for calls in range(3):
        model.calls = calls
        assert compiled(2.0) == 2
    assert len(traces) == 1
    model.items[0] = 5.0
    assert compiled(2.0) == 10
