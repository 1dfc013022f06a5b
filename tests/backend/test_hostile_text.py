"""Names of functions, arguments and files are text of users: they end no comment, no literal and no line of
ours.
"""

from __future__ import annotations

import json
import linecache
import re
from types import SimpleNamespace
from typing import Any

import llvmlite.binding
import numpy as np
import pytest

import graphjit
from graphjit import pipeline
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.writing.text import Module, c_string
from graphjit.backend.numba.emit import print_program
from graphjit.ir.export import to_dot, to_json
from graphjit.ir.names import one_line
from graphjit.ir.node import Graph, Location, Node
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.schedule.printer import print_program as print_schedule

HOSTILE = {
    "newline": "h\ndefine i64 @evil() {\n ret i64 42\n}\n;",
    "global": "h'\n@planted = global i64 1311768467463790320\n;",
    "carriage return": "h\rimport os",
    "quotes": "h'\"'''\"\"\"",
    "backslash": "h\\",
    "backslash and quote": "h\\'",
    "zero": "h\0evil",
    "form feed": "h\x0c\x0b\x1c\x1d\x1e\x85evil",
    "separators": "h\u2028evil\u2029",
    "lone surrogate": "h\ud800",
    "other letters": "größe_Ω",
    "emoji": "🙂",
    "hash": "h # %0",
    "braces": "{h}{0}%s",
    "lambda": "<lambda>",
    "word of ours": "return",
    "digits": "1e5",
    "spaces": "  ",
    "empty": "",
    "long": "x" * 300_000,
}


class Shouting(str):
    """A string that is printed as another one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n@evil"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "\n@evil"


def base(x, i):
    return np.sum(np.sin(x[i]) * x) + np.max(x)


def named(name: str, file: str | None = None) -> Any:
    """A function of that name, whose code says that it stands in that file."""

    def f(x, i):
        return np.sum(np.sin(x[i]) * x) + np.max(x)

    f.__name__ = name
    f.__qualname__ = name
    if file is not None:
        f.__code__ = f.__code__.replace(co_filename=file, co_name=name, co_qualname=name)
    return f


ARGUMENTS = np.arange(1.0, 4.0), np.array([0, 2, 1])


@pytest.fixture
def compiled(monkeypatch):
    """The LLVM text of what is compiled."""
    texts: list[str] = []
    parsed = jit._parsed
    monkeypatch.setattr(jit, "_parsed", lambda text, machine: (texts.append(text), parsed(text, machine))[1])
    monkeypatch.setattr("graphjit.compilation._executables", {})
    return texts


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_and_files_do_not_reach_llvm(compiled, name):
    want = base(*ARGUMENTS)
    plain: list[str] | None = None
    for f in (named("f"), named(name), named("f", name), named(name, name)):
        compiled.clear()
        graphjit.compilation._executables.clear()
        assert graphjit.jit(f)(*ARGUMENTS) == pytest.approx(want, rel=1e-14)
        texts = [text.partition("\n") for text in compiled if "ModuleID" in text]
        assert texts, "nothing was compiled"
        assert all(
            first.startswith("; ModuleID = '") and first.isprintable() and len(first) < 250
            for first, _, _ in texts
        )
        bodies = [re.sub(r"inttoptr \(i64 \d+ to ptr\)", "address", rest) for _, _, rest in texts]
        plain = plain or bodies
        assert bodies == plain, "a name changes the code"


def leaves(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("transform", [graphjit.jit, graphjit.grad, graphjit.value_and_grad])
def test_they_change_no_result(name, transform):
    for backend in ("llvm", "numba"):
        f = graphjit.jit(transform(named(name, name)), backend=backend)
        want = transform(base)(*ARGUMENTS)
        for _ in range(2):
            for value, expected in zip(leaves(f(*ARGUMENTS)), leaves(want), strict=True):
                np.testing.assert_allclose(value, expected, rtol=1e-14)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_errors_stay_in_one_line(name):
    f = graphjit.jit(named(name, name))
    with pytest.raises(IndexError) as raised:
        f(np.arange(1.0, 4.0), np.array([0, 9, 1]))
    message = str(raised.value)
    assert message.isprintable()
    assert f"(at {one_line(name)}:" in message


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_of_arguments(name):
    @graphjit.jit
    def f(**given):
        return given[name] * 2 + given["y"]

    for _ in range(2):
        assert f(**{name: 3.0, "y": 1.0}) == 7.0
        assert f(y=1.0, **{name: 4.0}) == 9.0

    @graphjit.grad
    def g(tree):
        return np.sum(tree[name] ** 2)

    np.testing.assert_array_equal(g({name: np.arange(3.0)})[name], 2 * np.arange(3.0))


def test_names_that_are_no_strings_or_print_otherwise(compiled):
    class Called:
        def __call__(self, x):
            return x * 3

    for name in (Shouting("h"), 5, None, b"x\n", SimpleNamespace()):
        called: Any = Called()
        called.__name__ = name
        assert graphjit.jit(called)(2.0) == 6.0
        assert "\n@evil" not in "".join(compiled)
    f = named("f")
    f.__name__ = Shouting("shouting")
    assert type(graphjit.jit(f).dispatcher.name) is str
    assert graphjit.jit(f).dispatcher.name == "shouting"


def traced(name: str, source: str, origin: str = "") -> Graph:
    """A graph whose nodes say that they come from that line of that file."""
    graph = graphjit.jit(base).dispatcher.staged(*ARGUMENTS).graph
    made: dict[Node, Node] = {}
    for node in (*graph.inputs, *(n for n in graph.nodes() if n not in graph.inputs)):
        attrs = {"name": source} if node.op.name == "input" else node.attrs
        made[node] = Node(
            node.op, tuple(made[a] for a in node.args), attrs, node.type, Location(source, 1, source), origin
        )
    return Graph(name, [made[n] for n in graph.inputs], [made[n] for n in graph.outputs])


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_the_printed_graph_reads_back(monkeypatch, name):
    graph = traced(name, name, "vjp")
    monkeypatch.setitem(linecache.cache, name, (1, None, [f"# {name} x\n"], name))
    text = print_graph(graph)
    back = parse_graph(text)
    assert (back.name, back.key()) == (name, graph.key())
    assert [node.attrs["name"] for node in back.inputs] == [name, name]
    assert print_graph(back) == print_graph(graph, locations=False)
    assert len(text.splitlines()) == len(graph) + 2
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_exports_and_other_listings(name):
    graph = traced(name, name, "vjp")
    dot = to_dot(graph)
    assert all(line.isprintable() for line in dot.split("\n"))
    plain = to_dot(traced("f", "f", "vjp"))
    literal = re.compile(r'"(?:[^"\\\n]|\\.)*"')
    assert literal.sub("S", dot) == literal.sub("S", plain), "a name ends a literal"
    data = json.loads(to_json(graph))
    assert (data["name"], data["nodes"][0]["file"]) == (name, name)
    fusion, program = pipeline.schedule(pipeline.optimize(graph))
    kernels = pipeline.lower(program)
    assert print_program(program, kernels) == print_program(
        pipeline.schedule(pipeline.optimize(traced("f", "f")))[1], kernels
    )
    listing = print_schedule(
        program,
        fusion,
        dict.fromkeys((step.name for step in program.steps), graphjit.schedule.program.Cost()),
    )
    assert all(line.isprintable() for line in listing.split("\n"))


def test_a_module_has_one_line_for_its_name():
    for name in HOSTILE.values():
        module = Module(name)
        module.add_global("text", f"@text = constant {c_string(name.encode('utf-8', 'ignore').decode())}")
        parsed = llvmlite.binding.parse_assembly(module.render())
        assert [g.name for g in parsed.global_variables] == ["text"]
        assert list(parsed.functions) == []


def test_ops_are_words():
    with pytest.raises(graphjit.errors.IRError, match="must be words"):
        graphjit.ir.opdef.op(
            "evil\n", doc="evil", infer=lambda x: x, impl=lambda x: x,
            grad=graphjit.ir.opdef.ZeroDerivative("test"), lower=graphjit.ir.opdef.Special("evil"),
        )  # fmt: skip
