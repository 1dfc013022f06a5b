"""Captured containers, context variables and values of threads: native code compares them, whatever was done to them between two calls."""

from __future__ import annotations

import collections
import contextvars
import random
import threading
import types

import graphjit
from graphjit.backend.signature import ForeignGuard
from graphjit.trace.outside.guards import find_guards


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
