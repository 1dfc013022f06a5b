"""`make_graph` and ``f.lower``: what is shown is what runs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import graphjit
from graphjit import pipeline
from graphjit.backend.llvm.entry.callable import specialisations
from graphjit.interpret import interpret
from graphjit.ir.parser import parse_graph
from graphjit.lowered import GRAPH_STAGES, STAGES, Memory
from graphjit.schedule.program import Cost


def loss(w, x):
    return np.mean(np.tanh(x @ w) ** 2)


W, X = np.linspace(-1.0, 1.0, 3), np.arange(12.0).reshape(4, 3) / 7.0


# ------------------------------------------------------------------------------------------------- make_graph


def test_a_graph_prints_as_its_text_form_and_reads_back():
    graph = graphjit.make_graph(loss)(W, X)
    assert str(graph) == repr(graph)
    assert str(graph).startswith("graph loss\n  %0 = input name='w' : f64[3]\n")
    assert "return np.mean(np.tanh(x @ w) ** 2)" in str(graph)
    assert parse_graph(str(graph)).key() == graph.key()
    np.testing.assert_allclose(interpret(graph, W, X)[0], loss(W, X), rtol=1e-14)


@pytest.mark.parametrize(
    "transform",
    [
        graphjit.jit,
        graphjit.grad,
        graphjit.value_and_grad,
        graphjit.jacrev,
        graphjit.hessian,
        lambda f: graphjit.vmap(f, in_axes=(None, 0)),
        lambda f: graphjit.jit(graphjit.grad(graphjit.checkpoint(f))),
    ],
)
def test_graphs_of_compiled_functions(transform):
    function = transform(loss)
    given = (W, X[:, None]) if transform(loss).recipe[0].func is graphjit.vmap else (W, X)
    graph = graphjit.make_graph(function)(*given)
    expected = function(*given)
    found = interpret(graph, *given)
    for a, b in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_nothing_runs():
    def failing(x, i):
        return x[i]

    graph = graphjit.make_graph(failing)(np.ones(3), 7)
    assert "gather" in str(graph) or "take" in str(graph) or "index" in str(graph)
    with pytest.raises(IndexError):
        interpret(graph, np.ones(3), np.asarray(7))


def test_keywords_containers_and_static_arguments():
    def scaled(params, x, power=2, *, shift):
        return params["w"] * x**power + shift

    graph = graphjit.make_graph(scaled, static_argnames="power")({"w": W}, 3.0, power=3, shift=1.0)
    assert [node.attrs["name"] for node in graph.inputs] == ["params['w']", "x", "shift"]
    np.testing.assert_allclose(interpret(graph, W, 3.0, 1.0)[0], W * 27.0 + 1.0)
    static = graphjit.jit(scaled, static_argnames="power")
    assert graphjit.make_graph(static)({"w": W}, 3.0, power=3, shift=1.0).key() == graph.key()


def test_errors_are_those_of_a_call():
    with pytest.raises(graphjit.DerivativeError):
        graphjit.make_graph(graphjit.grad(lambda x: x))(W)
    with pytest.raises(TypeError, match="make_graph takes a function"):
        graphjit.make_graph(3)

    def nested(x):
        return graphjit.make_graph(np.sin)(x)

    with pytest.raises(graphjit.TraceError, match=r"make_graph of .* while another function is traced"):
        graphjit.jit(nested)(1.0)


# ------------------------------------------------------------------------------------------------------ lower


def test_stages_are_those_of_the_pipeline():
    lowered = graphjit.value_and_grad(loss).lower(W, X)
    compiled = pipeline.compile_graph(lowered.graph)
    assert lowered.optimized.key() == compiled.optimized.key()
    assert [step.name for step in lowered.program.steps] == [step.name for step in compiled.program.steps]
    assert lowered.loops.keys() == compiled.kernels.keys()
    assert lowered.as_text("llvm") == compiled.module.render()
    assert lowered.as_text("trace") == str(lowered.graph)
    assert lowered.as_text() == str(lowered.optimized)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_text(stage):
    lowered = graphjit.jit(loss).lower(W, X)
    text = lowered.as_text(stage)
    assert text
    if stage in GRAPH_STAGES:
        assert "test_lowering.py" in text
        assert "test_lowering.py" not in lowered.as_text(stage, locations=False)


def test_a_stage_that_does_not_exist():
    with pytest.raises(ValueError, match="there is no stage 'hlo'; the stages are trace, "):
        graphjit.jit(loss).lower(W, X).as_text("hlo")


def test_costs_by_step_and_in_total():
    lowered = graphjit.jit(lambda x: np.exp(x) * 2.0).lower(np.ones(1000))
    costs = lowered.cost()
    assert list(costs.steps) == [step.name for step in lowered.program.steps]
    assert costs.total == Cost(16_000, costs.total.flops, costs.total.nanoseconds)
    assert costs.total.flops == 2_000
    assert costs.total.nanoseconds > 0
    wide = graphjit.jit(lambda x: np.exp(x) * 2.0).lower(np.ones(2000)).cost().total
    assert wide.nbytes == 32_000
    text = lowered.as_text("program")
    assert f"total moves {costs.total.nbytes} B, {costs.total.flops} flops" in text


def test_memory_in_bytes():
    table = np.arange(5.0)

    def f(x, y):
        return x[:, None] * table + y

    memory = graphjit.jit(f, donate_argnums=1).lower(np.ones(4), np.ones((4, 5))).memory()
    assert memory == Memory(arguments=192, captured=40, results=160, donated=160, constants=0, arena=0)
    assert memory.total == 232
    deep = graphjit.jit(lambda a, b: np.tanh(a @ b) @ b).lower(np.ones((64, 64)), np.ones((64, 64)))
    assert deep.memory().arena == deep.program.arena >= 64 * 64 * 8


def test_compiled_for_one_signature():
    lowered = graphjit.grad(loss).lower(W, X)
    compiled = lowered.compile()
    for _ in range(3):
        np.testing.assert_array_equal(compiled(W, X), graphjit.grad(loss)(W, X))
    assert len(specialisations(compiled)) == 1
    assert repr(compiled).startswith("<graphjit.lower of loss")
    with pytest.raises(TypeError, match=r"argument x changed from array f64\[4,3\] to array f32\[4,3\]"):
        compiled(W, X.astype(np.float32))
    with pytest.raises(TypeError, match="the structure of the arguments changed"):
        compiled(W)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(compiled)
    with pytest.raises(TypeError, match=r"cannot be lowered|lower it again"):
        compiled((W, X), X)


def test_compiled_with_static_arguments_donation_and_changed_arguments():
    step = graphjit.jit(
        lambda x, by, kind: x + by if kind == "up" else x - by, static_argnums=2, donate_argnums=0
    )
    compiled = step.lower(np.ones(3), 2.0, "up").compile()
    np.testing.assert_array_equal(compiled(np.zeros(3), 5.0, "up"), np.full(3, 5.0))
    with pytest.raises(TypeError, match="static 'up' to static 'down'"):
        compiled(np.zeros(3), 5.0, "down")
    own = np.zeros(3)
    assert compiled(own, 1.0, "up") is own

    def fill(x):
        x[0] = 7.0

    filled = np.zeros(2)
    graphjit.jit(fill).lower(filled).compile()(filled)
    np.testing.assert_array_equal(filled, [7.0, 0.0])


scale = 2.0


def test_what_is_read_from_outside_is_still_watched():
    global scale
    scale = 2.0
    compiled = graphjit.jit(lambda x: x * scale).lower(1.0).compile()
    assert compiled(3.0) == 6.0
    try:
        scale = 5.0
        with pytest.raises(graphjit.TraceError, match=r"scale.* was changed; lower it again"):
            compiled(3.0)
    finally:
        scale = 2.0
    assert compiled(3.0) == 6.0


def test_a_lowered_function_inside_another_is_recorded():
    inner = graphjit.jit(loss).lower(W, X).compile()
    np.testing.assert_allclose(graphjit.grad(inner)(W, X), graphjit.grad(loss)(W, X), rtol=1e-14)


def test_lower_is_refused_inside_a_trace():
    inner = graphjit.jit(np.sin)
    with pytest.raises(graphjit.TraceError, match=r"lower of .* while another function is traced"):
        graphjit.jit(lambda x: inner.lower(x))(1.0)


def test_nothing_is_compiled_before_it_is_asked_for(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("compiled")

    function = graphjit.jit(loss)
    monkeypatch.setattr("graphjit.compilation.executable", refused)
    lowered = function.lower(W, X)
    assert repr(lowered) == f"<graphjit.Lowered loss: {len(lowered.graph)} nodes>"
    lowered.cost()
    with pytest.raises(AssertionError, match="compiled"):
        lowered.compile()
