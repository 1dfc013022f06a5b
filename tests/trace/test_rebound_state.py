"""State that a function reads by name is never stale: rebinding any of it makes a new trace, for values and
for gradients.

Each case makes a function of one number and a change; the compiled function must follow the change as plain
Python does.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import functools
import sys
import threading
import types

import numpy as np
import pytest

import graphjit
from graphjit.trace.outside import find_guards as guards_module
from graphjit.trace.outside.find_guards import find_guards

CASES = {}


def case(make):
    """A function ``make() -> (function, change)``."""
    CASES[make.__name__] = make
    return make


@case
def long_list():
    held = [np.ones(1) for _ in range(70)]
    return lambda x: sum(np.sum(x * p) for p in held), lambda: held.__setitem__(3, np.full(1, 100.0))


@case
def very_long_list_of_numbers():
    held = [1.0] * 20_000
    return lambda x: x * held[19_999], lambda: held.__setitem__(19_999, 5.0)


@case
def list_that_grows():
    held = [1.0, 2.0]
    return lambda x: x * sum(held), lambda: held.append(4.0)


@case
def list_subclass():
    class Items(list):
        pass

    held = Items([1.0, 2.0])
    return lambda x: x * held[1], lambda: held.__setitem__(1, 7.0)


@case
def long_dict():
    held = {f"w{i}": np.ones(1) for i in range(70)}
    return lambda x: np.sum(x * held["w0"]), lambda: held.__setitem__("w0", np.full(1, 100.0))


@case
def dict_with_odd_keys():
    held = {(1, "a"): 2.0, None: 3.0}
    return lambda x: x * held[1, "a"], lambda: held.__setitem__((1, "a"), 5.0)


@case
def dict_get_of_what_is_absent():
    held = {}
    return lambda x: x * held.get("lr", 2.0), lambda: held.__setitem__("lr", 5.0)


@case
def ordered_dict_moved():
    held = collections.OrderedDict(a=1.0, b=2.0)
    return lambda x: x * next(iter(held.values())), lambda: held.move_to_end("a")


@case
def default_dict():
    held = collections.defaultdict(lambda: 1.0, a=2.0)
    return lambda x: x * held["a"], lambda: held.__setitem__("a", 9.0)


@case
def attribute_dict():
    class AttrDict(dict):
        __getattr__ = dict.__getitem__

    held = AttrDict(lr=2.0)
    return lambda x: x * held.lr, lambda: held.__setitem__("lr", 3.0)


@case
def deque():
    held = collections.deque([1.0, 2.0])
    return lambda x: x * held[0], lambda: held.__setitem__(0, 4.0)


@case
def captured_set():
    held = {1, 2}
    return lambda x: x * (3.0 if 5 in held else 1.0), lambda: held.add(5)


@case
def byte_array():
    held = bytearray(b"\x01\x02")
    return lambda x: x * held[0], lambda: held.__setitem__(0, 9)


@case
def nested_containers():
    held = {"layers": [{"w": (np.ones(1), [2.0])}]}
    return lambda x: x * held["layers"][0]["w"][1][0], lambda: held["layers"][0]["w"][1].__setitem__(0, 8.0)


@case
def constant_getattr():
    held = types.SimpleNamespace(lr=1.0)
    return lambda x: x * getattr(held, "lr"), lambda: setattr(held, "lr", 5.0)  # noqa: B009


@case
def getattr_with_default():
    held = types.SimpleNamespace()
    return lambda x: x * getattr(held, "lr", 2.0), lambda: setattr(held, "lr", 5.0)


@case
def getattr_by_variable():
    held, names = types.SimpleNamespace(a=1.0, b=2.0), ("a", "b")
    return lambda x: x * sum(getattr(held, name) for name in names), lambda: setattr(held, "b", 5.0)


@case
def hasattr_of_an_instance():
    class Model:
        pass

    held = Model()
    return lambda x: x * (2.0 if hasattr(held, "extra") else 1.0), lambda: setattr(held, "extra", 1)


@case
def vars_of_an_object():
    held = types.SimpleNamespace(a=1.0, b=2.0)
    return lambda x: x * sum(vars(held).values()), lambda: setattr(held, "b", 5.0)


@case
def replaced_dict_of_an_object():
    class Model:
        def __init__(self):
            self.lr = 1.0

    held = Model()
    return lambda x: x * held.lr, lambda: setattr(held, "__dict__", {"lr": 6.0})


@case
def assigned_class():
    class Slow:
        lr = 1.0

    class Fast:
        lr = 3.0

    held = Slow()
    return lambda x: x * held.lr, lambda: setattr(held, "__class__", Fast)


@case
def class_attribute():
    class Model:
        lr = 1.0

    held = Model()
    return lambda x: x * held.lr, lambda: setattr(Model, "lr", 3.0)


@case
def class_attribute_shadowed():
    class Model:
        lr = 1.0

    held = Model()
    return lambda x: x * held.lr, lambda: setattr(held, "lr", 3.0)


@case
def class_attribute_between():
    class Base:
        lr = 1.0

    class Model(Base):
        pass

    held = Model()
    return lambda x: x * held.lr, lambda: setattr(Model, "lr", 3.0)


@case
def method_replaced_on_a_class():
    class Model:
        def forward(self, x):
            return x

        def __call__(self, x):
            return self.forward(x)

    return Model(), lambda: setattr(Model, "forward", lambda self, x: 5 * x)


@case
def method_replaced_on_an_object():
    class Model:
        def forward(self, x):
            return x

        def __call__(self, x):
            return self.forward(x)

    held = Model()
    return held, lambda: setattr(held, "forward", lambda x: 5 * x)


@case
def call_replaced_on_a_class():
    class Model:
        def __call__(self, x):
            return x

    held = Model()
    return lambda x: held(x), lambda: setattr(Model, "__call__", lambda self, x: 5 * x)


@case
def operator_of_a_class():
    class Model:
        k = 2.0

        def __mul__(self, x):
            return x * self.k

    held = Model()
    return lambda x: held * x, lambda: setattr(held, "k", 3.0)


@case
def property_of_an_object():
    class Model:
        rate = 1.0

        @property
        def lr(self):
            return self.rate * 2

    held = Model()
    return lambda x: x * held.lr, lambda: setattr(held, "rate", 3.0)


@case
def cached_property():
    class Model:
        rate = 1.0

        @functools.cached_property
        def lr(self):
            return self.rate * 2

    held = Model()
    return lambda x: x * held.lr, lambda: setattr(held, "lr", 7.0)


@case
def descriptor():
    class Field:
        def __get__(self, owner, kind):
            return owner.hidden

    class Model:
        lr = Field()

    held = Model()
    held.hidden = 1.0
    return lambda x: x * held.lr, lambda: setattr(held, "hidden", 3.0)


@case
def slots():
    class Model:
        __slots__ = ("lr", "other")

    held = Model()
    held.lr = 1.0
    return lambda x: x * held.lr, lambda: setattr(held, "lr", 3.0)


@case
def dataclass_field():
    @dataclasses.dataclass
    class Settings:
        lr: float = 1.0

    held = Settings()
    return lambda x: x * held.lr, lambda: setattr(held, "lr", 3.0)


@case
def fields_as_a_dict():
    @dataclasses.dataclass
    class Settings:
        lr: float = 1.0

    held = Settings()
    return lambda x: x * dataclasses.asdict(held)["lr"], lambda: setattr(held, "lr", 3.0)


@case
def module_attribute():
    settings = types.ModuleType("settings_of_somebody")
    settings.lr = 1.0
    return lambda x: x * settings.lr, lambda: setattr(settings, "lr", 3.0)


@case
def function_of_a_module():
    settings = types.ModuleType("functions_of_somebody")
    settings.scale = lambda x: x
    return lambda x: settings.scale(x), lambda: setattr(settings, "scale", lambda x: 4 * x)


@case
def module_imported_inside():
    settings = sys.modules["settings_imported_inside"] = types.ModuleType("settings_imported_inside")
    settings.lr = 1.0

    def function(x):
        from settings_imported_inside import lr

        return x * lr

    return function, lambda: setattr(settings, "lr", 3.0)


@case
def default_argument():
    def function(x, k=2.0):
        return x * k

    return lambda x: function(x), lambda: setattr(function, "__defaults__", (5.0,))


@case
def keyword_default():
    def function(x, *, k=2.0):
        return x * k

    return lambda x: function(x), lambda: function.__kwdefaults__.__setitem__("k", 5.0)


@case
def mutable_default():
    def function(x, k=[2.0]):  # noqa: B006
        return x * k[0]

    return function, lambda: function.__defaults__[0].__setitem__(0, 5.0)


@case
def code_of_a_helper():
    def helper(x):
        return x

    return lambda x: helper(x), lambda: setattr(helper, "__code__", (lambda x: 6 * x).__code__)


@case
def attribute_of_a_function():
    def helper(x):
        return x * helper.k

    helper.k = 1.0
    return helper, lambda: setattr(helper, "k", 3.0)


@case
def partial_argument():
    held = [2.0]
    return functools.partial(lambda k, x: x * k[0], held), lambda: held.__setitem__(0, 3.0)


@case
def partial_keyword():
    function = functools.partial(lambda x, k: x * k, k=2.0)
    return lambda x: function(x), lambda: function.keywords.__setitem__("k", 3.0)


@case
def name_in_a_comprehension():
    held = types.SimpleNamespace(k=1.0)
    return lambda x: sum([x * held.k for _ in range(3)]), lambda: setattr(held, "k", 2.0)


@case
def name_in_a_nested_function():
    held = types.SimpleNamespace(k=1.0)

    def function(x):
        def inner():
            return x * held.k

        return inner()

    return function, lambda: setattr(held, "k", 2.0)


@case
def rebound_cell():
    k = 1.0

    def function(x):
        return x * k

    def change():
        nonlocal k
        k = 4.0

    return function, change


@case
def context_variable():
    held = contextvars.ContextVar("held", default=1.0)
    held.set(2.0)
    return lambda x: x * held.get(), lambda: held.set(4.0)


@case
def thread_local():
    held = threading.local()
    held.k = 2.0
    return lambda x: x * held.k, lambda: setattr(held, "k", 4.0)


@case
def hostile_getattr():
    class Hostile:
        def __getattr__(self, name):
            raise AssertionError(f"looked for {name}")

    held = Hostile()
    held.k = 2.0
    return lambda x: x * held.k, lambda: setattr(held, "k", 4.0)


@case
def object_array():
    held = np.array([2.0, None], object)
    return lambda x: x * held.item(0), lambda: held.__setitem__(0, 3.0)


MODULE_K = 1.0


@case
def global_of_a_helper():
    namespace = {"__name__": "helpers_of_somebody", "k": 1.0}
    exec("def helper(x):\n    return x * k * abs(2)", namespace)
    helper = namespace["helper"]
    return lambda x: helper(x), lambda: namespace.__setitem__("abs", lambda n: 10)


@pytest.mark.parametrize("transform", [graphjit.jit, graphjit.grad], ids=["jit", "grad"])
@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_a_change_is_followed(make, transform):
    function, change = make()
    compiled = transform(function)
    before = compiled(3.0)
    if transform is graphjit.jit:
        assert before == function(3.0)
    assert compiled(3.0) == before
    change()
    after = compiled(3.0)
    assert after != before
    # A function that was compiled after the change has never seen the old state.
    assert after == transform(lambda x: function(x))(3.0)
    if transform is graphjit.jit:
        assert after == function(3.0)
    assert compiled(3.0) == after


def test_what_did_not_change_makes_no_new_trace(capfd):
    class Model:
        count = 0

        def __init__(self):
            self.w = np.ones(2)
            self.steps = 0

        def __call__(self, x):
            print("traced")
            return np.sum(x * self.w)

    model = Model()
    compiled = graphjit.jit(model)
    x = np.ones(2)
    compiled(x)
    for i in range(3):
        model.steps = i  # not read by the function
        Model.count = i  # gives the class another version, but not another method
        model.w[0] = i
        assert compiled(x) == i + 1
    assert capfd.readouterr().out == "traced\n"


def test_a_limit_that_is_reached_is_said_once(monkeypatch, capfd):
    monkeypatch.setattr(guards_module, "MOST", 50)
    guards_module._say_too_many.cache_clear()
    held = [[i] for i in range(100)]
    for _ in range(2):
        find_guards(lambda x: held)
    told = capfd.readouterr().err
    assert told.count("reaches more than 50 objects from outside") == 1
    guards_module._say_too_many.cache_clear()


class Named(collections.UserDict):
    """A library's class with a method that is called like a part of it."""

    def items(self):
        return [("w", self.data["w"])]


class Attributes:
    def __init__(self) -> None:
        self.a = 2.0

    def items(self):
        return list(vars(self).values())


def test_methods_called_items_do_not_hide_what_is_watched() -> None:
    held = Named(w=2.0)
    f = graphjit.jit(lambda x: x * held.items()[0][1])
    assert f(1.0) == 2.0
    held.data = {"w": 5.0}
    assert f(1.0) == 5.0
    other = Attributes()
    g = graphjit.jit(lambda x: x * other.items()[0])
    assert g(1.0) == 2.0
    other.a = 7.0
    assert g(1.0) == 7.0


def test_absent_attributes_under_suppress_are_watched() -> None:
    owner = Attributes()

    def f(x):
        scale = 1.0
        with contextlib.suppress(AttributeError):
            scale = owner.scale
        return x * scale

    g = graphjit.jit(f)
    assert g(2.0) == 2.0
    owner.scale = 3.0
    assert g(2.0) == 6.0
