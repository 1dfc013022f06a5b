"""Arguments and results as users have them: containers of any class, constants in trees, arrays that are not
quite ndarrays.
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse

import graphjit
from graphjit.backend.llvm.entry.callable import specialisations
from graphjit.errors import DerivativeError, TraceError, UnsupportedError

X = np.array([1.0, 2.0, 3.0])


@dataclasses.dataclass
class Model:
    w: Any
    b: Any
    kind: str = dataclasses.field(default="tanh", metadata={"static": True})
    steps: int = dataclasses.field(default=2, metadata={"static": True})

    def __call__(self, x: Any) -> Any:
        for _ in range(self.steps):
            x = np.tanh(x * self.w) if self.kind == "tanh" else x * self.w
        return x + self.b


def test_a_plain_dataclass_with_static_fields() -> None:
    def loss(model: Model, x: Any) -> Any:
        return np.sum(model(x))

    model = Model(X, 0.5, kind="linear", steps=3)
    value, gradient = graphjit.value_and_grad(loss)(model, X)
    assert value == np.sum(X * X**3 + 0.5)
    assert type(gradient) is Model
    assert (gradient.kind, gradient.steps) == ("linear", 3)
    np.testing.assert_allclose(gradient.w, 3 * X**3)
    assert gradient.b == 3.0
    compiled = graphjit.jit(loss)
    assert compiled(Model(X, 0.5, kind="tanh"), X) == loss(Model(X, 0.5), X)
    assert compiled(Model(X, 0.5, kind="linear"), X) == loss(Model(X, 0.5, "linear"), X)
    back = graphjit.jit(lambda model: dataclasses.replace(model, b=model.b + 1))(model)
    assert (type(back), back.kind, back.b) == (Model, "linear", 1.5)


def test_fields_that_init_does_not_take_frozen_slots_and_inheritance() -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Base:
        a: Any
        total: Any = dataclasses.field(init=False, default=0.0)

    @dataclasses.dataclass(frozen=True, slots=True)
    class Derived(Base):
        c: Any = None

    given = Derived(X)
    object.__setattr__(given, "total", 7.0)
    back = graphjit.jit(lambda d: Derived(d.a * d.total))(given)
    assert type(back) is Derived
    np.testing.assert_array_equal(back.a, X * 7)
    assert back.c is None
    gradient = graphjit.grad(lambda d: np.sum(d.a) * d.total)(given)
    assert (gradient.total, gradient.c) == (6.0, None)


def test_a_static_field_must_be_hashable() -> None:
    @dataclasses.dataclass
    class Listed:
        a: Any
        names: Any = dataclasses.field(metadata={"static": True})

    with pytest.raises(
        TraceError, match=r"the field 'names' of Listed is static, so it must be hashable, not list"
    ):
        graphjit.jit(lambda p: p.a)(Listed(1.0, ["x"]))


def test_register_dataclass_with_data_and_meta_fields() -> None:
    @dataclasses.dataclass
    class Point:
        x: Any
        scale: int

    assert graphjit.register_dataclass(Point, data_fields=["x"], meta_fields=["scale"]) is Point
    back = graphjit.jit(lambda p: Point(p.x * len(range(p.scale)), p.scale))(Point(2.0, 3))
    assert (back.x, back.scale) == (6.0, 3)
    with pytest.raises(ValueError, match=r"must name each of its fields \('x', 'scale'\) once"):
        graphjit.register_dataclass(Point, data_fields=["x"], meta_fields=[])
    with pytest.raises(TypeError, match="takes a dataclass"):
        graphjit.register_dataclass(int)
    graphjit.register_dataclass(Point)
    with pytest.raises(TraceError, match=r"needs the value of a traced i64"):
        graphjit.jit(lambda p: p.x * len(range(p.scale)), python_control_flow=False)(Point(2.0, 3))


class Attributes(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Linked(dict):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__ = self


class Awkward(dict):
    """Its constructor takes something else."""

    def __init__(self, name: str, *, size: int) -> None:
        super().__init__()
        self[name] = size


@pytest.mark.parametrize("kind", [Attributes, Linked])
def test_attribute_dictionaries_keep_their_class(kind: type) -> None:
    given = kind(w=X, lr=0.5)
    gradient = graphjit.grad(lambda p: np.sum(p.w**2) * p.lr)(given)
    assert type(gradient) is kind
    assert list(gradient) == ["w", "lr"]
    np.testing.assert_array_equal(gradient.w, X)
    assert gradient.lr == 14.0
    back = graphjit.jit(lambda p: kind(w=p["w"] + p.lr))(given)
    np.testing.assert_array_equal(back.w, X + 0.5)
    captured = graphjit.jit(lambda x: x * given.lr)
    assert captured(2.0) == 1.0


def test_dicts_whose_constructor_takes_something_else() -> None:
    given = Awkward("n", size=3)
    given["x"] = X
    back = graphjit.jit(lambda p: p)(given)
    assert type(back) is Awkward
    assert back["n"] == 3
    np.testing.assert_array_equal(back["x"], X)


def test_the_standard_containers() -> None:
    class Pair(NamedTuple):
        a: Any
        b: Any

    given = {
        "ordered": collections.OrderedDict(z=X, a=1.0),
        "default": collections.defaultdict(list, k=2.0),
        "pair": Pair(X, [3.0]),
        "deque": collections.deque([4.0]),
    }
    back = graphjit.jit(lambda p: p)(given)
    assert [type(value) for value in back.values()] == [type(value) for value in given.values()]
    assert list(back["ordered"]) == ["z", "a"]
    assert back["default"]["new"] == []
    assert back["pair"].b == [3.0]
    gradient = graphjit.grad(lambda p: np.sum(p["pair"].a) * p["ordered"]["a"])(given)
    assert gradient["ordered"]["a"] == 6.0
    assert gradient["deque"] == collections.deque([0.0])


def test_a_default_dictionary_of_an_own_class() -> None:
    class Mine(collections.defaultdict):
        pass

    back = graphjit.jit(lambda p: p)(Mine(list, a=1.0))
    assert type(back) is Mine
    assert back["new"] == []


def test_constants_in_a_differentiated_tree_are_left_alone() -> None:
    params = {"w": X, "bias": None, "kind": "relu", "more": [None, 2.0]}

    def loss(p: Any) -> Any:
        assert p["bias"] is None
        assert p["kind"] == "relu"
        return np.sum(p["w"] ** 2) * p["more"][1]

    value, gradient = graphjit.value_and_grad(loss)(params)
    assert value == 28.0
    assert (gradient["bias"], gradient["kind"], gradient["more"]) == (None, "relu", [None, 14.0])
    np.testing.assert_array_equal(gradient["w"], 4 * X)

    out, tangent = graphjit.jvp(
        loss, (params,), ({"w": X, "bias": None, "kind": "relu", "more": [None, 0.0]},)
    )
    assert (out, tangent) == (28.0, 56.0)
    with pytest.raises(DerivativeError, match=r"the tangent of None, which is no number, must be None"):
        graphjit.jvp(loss, (params,), ({"w": X, "bias": 1.0, "kind": "relu", "more": [None, 0.0]},))

    out, pullback = graphjit.vjp(loss, params)
    (back,) = pullback(1.0)
    assert (back["bias"], back["kind"], back["more"]) == (None, "relu", [None, 14.0])
    np.testing.assert_array_equal(back["w"], 4 * X)

    nested = graphjit.jit(lambda p: graphjit.grad(loss)(p))(params)
    assert (nested["bias"], nested["kind"]) == (None, "relu")
    np.testing.assert_array_equal(nested["w"], 4 * X)


def test_an_argument_without_any_array_has_no_gradient() -> None:
    for argument in (None, "text", [None]):
        with pytest.raises(DerivativeError, match="which is not an array"):
            graphjit.grad(lambda p: 1.0)(argument)


@pytest.mark.parametrize("number", [3, True, np.int64(3), np.array([1, 2]), np.True_])
def test_integers_and_bools_have_no_gradient(number: Any) -> None:
    calls = (
        lambda: graphjit.grad(lambda x: x**2.0)(number),
        lambda: graphjit.value_and_grad(lambda p: np.sum(p["n"] * 2.0))({"w": X, "n": number}),
        lambda: graphjit.jvp(lambda x: x * 2.0, (number,), (1.0,)),
        lambda: graphjit.vjp(lambda x: x * 2.0, number),
        lambda: graphjit.jit(lambda n: graphjit.grad(lambda x: x**2.0)(n))(number),
    )
    for call in calls:
        with pytest.raises(
            DerivativeError, match=r"only floating point has a derivative \(at .*test_trees\.py:\d+\)"
        ):
            call()


def test_what_a_python_integer_should_be_instead() -> None:
    with pytest.raises(
        DerivativeError,
        match=r"argument 0, part \['steps'\]: it is a Python int .*; pass 3\.0 instead of 3, or float\(x\)",
    ):
        graphjit.grad(lambda s: np.sum(s["w"] ** 2) * s["steps"])({"w": X, "steps": 7})
    assert graphjit.grad(lambda s, n: np.sum(s**2) * n)(2.0, 7) == 28.0  # not asked for: an ordinary number


def test_memory_maps_are_read_like_any_array() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mapped = np.memmap(Path(folder) / "numbers", dtype="f8", mode="w+", shape=(3,))
        mapped[:] = X
        double = graphjit.jit(lambda a: a * 2)
        for _ in range(2):
            found = double(mapped)
            assert type(found) is np.ndarray
            np.testing.assert_array_equal(found, 2 * X)
        np.testing.assert_array_equal(double(X), 2 * X)
        captured = graphjit.jit(lambda x: np.sum(x * mapped))
        assert captured(1.0) == 6.0
        mapped[0] = 11.0
        assert captured(1.0) == 16.0
        assert double(mapped)[0] == 22.0
        np.testing.assert_array_equal(graphjit.grad(lambda a: np.sum(a**2))(mapped), 2 * np.asarray(mapped))
        captured = mapped = None  # the folder goes


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            scipy.sparse.csr_matrix(np.eye(2)),
            r"scipy\.sparse.*pass x\.toarray\(\) where it is small, else its arrays",
        ),
        (scipy.sparse.coo_array(np.eye(2)), r"x\.data, x\.row, x\.col"),
        (np.ma.ones(3), r"MaskedArray.*x\.filled\(value\)"),
        (np.eye(2).view(np.matrix), r"numpy\.matrix.*np\.asarray\(x\)"),
    ],
)
def test_what_is_nearly_an_array_says_what_to_pass(value: Any, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        graphjit.jit(lambda x: x)(value)


class Hostile:
    """Answers nothing."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")


class Agreeable:
    """Has everything."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, x: Any) -> Any:
        return x * 3.0


class Endless:
    def __getattr__(self, name: str) -> Any:
        return getattr(self, name + "_")


class Secretive:
    def __getattribute__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest.mark.parametrize("kind", [Hostile, Agreeable, Endless, Secretive])
def test_our_marks_are_never_looked_up_through_the_users_code(kind: type) -> None:
    thing = kind()
    assert graphjit.jit(lambda x, other: x * 2.0)(1.5, thing) == 3.0
    assert graphjit.jit(lambda x: x * 2.0 if thing is not None else x)(1.5) == 3.0
    assert graphjit.jit(lambda x: (x, thing))(1.5)[1] is thing
    assert graphjit.jit(lambda x, other: x * 2.0, static_argnums=1)(1.5, thing) == 3.0


def test_a_callable_with_hostile_attributes() -> None:
    assert graphjit.jit(Agreeable())(2.0) == 6.0
    assert graphjit.grad(Agreeable())(2.0) == 3.0


def test_inputs_are_named_as_users_write_them() -> None:
    def f(params: Any, model: Model, *rest: Any, scale: Any = 1.0) -> Any:
        return np.sum(params["w"][0]) * model.b + rest[0] * scale

    graph = graphjit.jit(f).dispatcher.staged({"w": [X]}, Model(X, 0.5), 2.0, 3.0, scale=4.0).graph
    assert [node.attrs["name"] for node in graph.inputs] == [
        "params['w'][0]",
        "model.w",
        "model.b",
        "rest[0]",
        "rest[1]",
        "scale",
    ]
    point = SimpleNamespace(f=f)
    assert point.f is f
    graph = graphjit.grad(lambda x, y: x * y).dispatcher.staged(1.0, 2.0).graph
    assert [node.attrs["name"] for node in graph.inputs] == ["x", "y"]


def test_dict_order_is_the_callers_in_every_kind_of_call():
    f = graphjit.jit(lambda p, x: (x * p["w"] + 0 * p["b"], list(p)))
    for keys in ("wba", "bwa", "awb", "abw"):
        p = {k: np.full(3, float(ord(k))) for k in keys}
        for _ in range(3):  # the first call goes through Python, the others through the native entry
            value, names = f(p, np.ones(3))
            assert value.tolist() == [ord("w")] * 3
            assert names == list(keys)
    gradient = graphjit.grad(lambda p: np.sum(p["z"] * 2 + p["a"]))
    for _ in range(3):
        found = gradient({"z": np.ones(2), "a": np.ones(2)})
        assert list(found) == ["z", "a"]
        assert found["z"].tolist() == [2, 2]


def test_named_tuples_have_a_native_entry_and_may_be_registered() -> None:
    class Point(NamedTuple):
        x: Any
        name: Any

    f = graphjit.jit(lambda p, q: p.x * 2.0 + q.x)
    for _ in range(3):
        assert f(Point(X, "a"), Point(X, None)).tolist() == [3.0, 6.0, 9.0]
    assert len(specialisations(f)) == 1
    assert f(Point(X, "b"), Point(X, None)).tolist() == [3.0, 6.0, 9.0]  # a static value is compared
    graphjit.register_pytree_node(Point, lambda p: ((p.x,), p.name), lambda name, parts: Point(*parts, name))
    g = graphjit.jit(lambda p: Point(p.x + 1.0, p.name * 2))
    for _ in range(3):
        assert g(Point(1.0, "ab")) == Point(2.0, "abab")
