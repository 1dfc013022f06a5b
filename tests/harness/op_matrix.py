"""Samples and derivative checks for every op, driven by the registry.

Job: turn each op's declaration into concrete arguments, one-op graphs, derived graphs, and numerical
references.
Input: an op.  Output: ``samples_for``, ``special_samples_for``, ``op_graph``, ``jvp_graph``, ``vjp_graph``,
``batch_graph``, ``check_derivative``.
Invariants: everything is seeded by the op's name; nothing here knows an op by name but the sets below, each
with its reason.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import OpDef
from graphjit.ir.types import DTYPES, Type
from graphjit.ops.samples import SHAPES, Cases, Uniform
from graphjit.transforms.batch import batch, repeated
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents, or_zeros, summed

Sample = tuple[str, list[np.ndarray], dict[str, Hashable]]

NO_SAMPLES = {
    "input": "made by Builder.input, has no value of its own",
    "const": "made by Builder.const, has no arguments",
    **dict.fromkeys(
        ("scan", "while", "unwind", "cond"),
        "has graphs inside and several results: tests/control/test_ops_of_control.py",
    ),
    "item": "takes a result of a node that has several: tests/transforms/test_bodies.py",
}
NOT_ANALYTIC = {
    "abs",
    "sign",
    "custom",
    "logabsdet",
    "det_sign",
    "cholesky",
}
"""Accept complex numbers but are other functions of them, or check types: differences, not a complex step."""


def rng_for(op: OpDef) -> np.random.Generator:
    """The op's own random numbers."""
    return np.random.default_rng(zlib.crc32(op.name.encode()))


def draw_array(
    rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...], low: float, high: float
) -> np.ndarray:
    """Random values of ``dtype`` in [low, high]."""
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        start = 0 if dtype.kind == "u" else int(np.ceil(low))
        return np.asarray(rng.integers(start, int(np.floor(high)) + 1, size=shape)).astype(dtype)
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype)


def samples_for(op: OpDef) -> Iterator[Sample]:
    """(dtype name, arrays, attributes) for every dtype and shape group of the declaration."""
    rng = rng_for(op)
    if isinstance(op.samples, Uniform):
        for name in op.samples.dtypes:
            for shape in SHAPES:
                yield (
                    name,
                    [draw_array(rng, DTYPES[name], shape, *bounds) for bounds in op.samples.ranges],
                    {},
                )
    elif isinstance(op.samples, Cases):
        for name in op.samples.dtypes:
            dtype = DTYPES[name]

            def draw(*shape: int, dtype: np.dtype = dtype) -> np.ndarray:
                return draw_array(rng, dtype, shape, -3, 3)

            for arrays, attrs in op.samples.make(rng, draw):
                yield name, [np.asarray(array) for array in arrays], attrs


def special_samples_for(op: OpDef) -> Iterator[Sample]:
    """The declared special values: every combination for elementwise ops, scattered into the arguments of
    others.
    """
    rng = rng_for(op)
    for name in ("f64", "f32"):
        if not op.special or name not in getattr(op.samples, "dtypes", ()):
            continue
        with np.errstate(over="ignore"):
            values = np.array(op.special).astype(DTYPES[name])
        if op.arity is not None and not op.attrs and all(a.dtype == DTYPES[name] for a in _first(op, name)):
            combined = np.array(list(itertools.product(values, repeat=op.arity)), dtype=DTYPES[name])
            yield name, [combined[:, i].copy() for i in range(op.arity)], {}
            continue
        for dtype, arrays, attrs in samples_for(op):
            if dtype == name and max((a.size for a in arrays), default=0) <= 16:
                yield name, [_sprinkled(rng, a, values) for a in arrays], attrs


def _first(op: OpDef, name: str) -> list[np.ndarray]:
    return next(arrays for dtype, arrays, _ in samples_for(op) if dtype == name)


def _sprinkled(rng: np.random.Generator, array: np.ndarray, values: np.ndarray) -> np.ndarray:
    if array.dtype != values.dtype:
        return array
    return np.where(rng.random(array.shape) < 0.4, rng.choice(values, array.shape), array).astype(array.dtype)


# ----------------------------------------------------------------------------------------------------- graphs


def op_graph(op: OpDef, arrays: list[np.ndarray], attrs: dict[str, Hashable]) -> Graph:
    """A graph of this one op."""
    b = Builder()
    inputs = [b.input(Type(a.dtype, a.shape), f"x{i}") for i, a in enumerate(arrays)]
    return Graph(op.name, inputs, [b.emit(op, *inputs, **attrs)])


def floating(nodes: tuple[Node, ...]) -> list[Node]:
    """The nodes that can have derivatives."""
    return [node for node in nodes if node.dtype.kind == "f"]


def _open(graph: Graph) -> tuple[Builder, list[Node], list[Node]]:
    """The body of ``graph`` on fresh inputs in a fresh builder."""
    b = Builder()
    inputs = [b.input(node.type, str(node.attrs["name"])) for node in graph.inputs]
    return b, inputs, list(b.inline(graph, tuple(inputs)))


def jvp_graph(graph: Graph, only: int | None = None) -> Graph:
    """inputs + tangents of floating inputs (or of one of them) -> tangents of floating outputs (zeros where
    there are none).
    """
    b, inputs, outputs = _open(graph)
    active = floating(tuple(inputs))
    if only is not None:
        active = active[only : only + 1]
    seeds = {node: b.input(node.type, f"d{i}") for i, node in enumerate(active)}
    wanted = floating(tuple(outputs))
    found = or_zeros(b, wanted, tangents(b, seeds, wanted))
    return Graph(f"jvp of {graph.name}", [*inputs, *seeds.values()], found)


def vjp_graph(graph: Graph) -> Graph:
    """inputs + cotangents of floating outputs -> cotangents of floating inputs (zeros where there are
    none).
    """
    b, inputs, outputs = _open(graph)
    wanted = floating(tuple(outputs))
    given = [b.input(node.type, f"c{i}") for i, node in enumerate(wanted)]
    active = floating(tuple(inputs))
    found = or_zeros(b, active, cotangents(b, summed(b, wanted, given), active))
    return Graph(f"vjp of {graph.name}", [*inputs, *given], found)


# ---------------------------------------------------------------------------------------------------- batches


def batch_graph(graph: Graph, varies: Sequence[bool], size: int) -> Graph:
    """``graph`` over a batch of ``size`` in the inputs that vary: one more axis in front of those, and of
    each output.
    """
    b, inputs, outputs = _open(graph)
    given = [
        b.input(node.type.with_shape((size, *node.shape)), f"batch{i}") if flag else node
        for i, (node, flag) in enumerate(zip(inputs, varies, strict=True))
    ]
    varying = {node: wide for node, wide in zip(inputs, given, strict=True) if node is not wide}
    found = batch(b, outputs, varying)
    return Graph(
        f"batch of {graph.name}",
        given,
        [
            repeated(b, node, size) if wide is None else wide
            for node, wide in zip(outputs, found, strict=True)
        ],
    )


SCALED = {"cholesky"}
"""Ops whose arguments are more than their elements: their batches are multiples, not other orders."""


def stacked(array: np.ndarray, size: int, name: str = "") -> np.ndarray:
    """A batch of arrays with the elements of this one, each in another order (or as `SCALED` says)."""
    if name in SCALED:
        rows = [array * array.dtype.type(i + 1) for i in range(size)]
    else:
        rows = [np.roll(array.reshape(-1), i).reshape(array.shape) for i in range(size)]
    return np.stack(rows) if rows else np.empty((0, *array.shape), array.dtype)


def choices(count: int) -> list[tuple[bool, ...]]:
    """Every choice of arguments that vary, but that of none."""
    return [flags for flags in itertools.product((False, True), repeat=count) if any(flags)]


def stack_of_calls(
    graph: Graph, inputs: Sequence[np.ndarray], varies: Sequence[bool], size: int
) -> list[np.ndarray]:
    """What a batch should give: one call for each element."""
    calls = [
        interpret(graph, *[x[i] if flag else x for x, flag in zip(inputs, varies, strict=True)])
        for i in range(size)
    ]
    return [np.stack(values) for values in zip(*calls, strict=True)]


# ------------------------------------------------------------------------------------------------- references


def evaluate(graph: Graph, inputs: list[Any]) -> list[Any]:
    """`interpret` without its type checks, so that complex numbers may flow."""
    values: dict[Node, Any] = dict(zip(graph.inputs, inputs, strict=True))
    with np.errstate(all="ignore"):
        for node in graph.nodes():
            if node not in values:
                values[node] = node.op.impl(*[values[arg] for arg in node.args], **node.attrs)
    return [values[node] for node in graph.outputs]


def directional(graph: Graph, inputs: list[np.ndarray], direction: list[np.ndarray]) -> list[np.ndarray]:
    """Derivative of the floating outputs along ``direction`` (of the floating inputs): complex step, or
    differences.

    Complex step: Squire & Trapp 1998.  Differences: the five-point rule (Abramowitz & Stegun 25.3.6).
    """
    single = any(node.dtype == np.float32 for node in graph.nodes())

    def moved(t: complex) -> list[Any]:
        rest = iter(direction)
        return [x + t * next(rest) if x.dtype.kind == "f" else x for x in inputs]

    if not single and not any(node.op.name in NOT_ANALYTIC for node in graph.nodes()):
        try:
            found = evaluate(graph, moved(1e-30j))
        except (TypeError, ValueError, np.exceptions.ComplexWarning):
            pass  # an op on the way has no complex version
        else:
            return [
                np.imag(y) / 1e-30
                for node, y in zip(graph.outputs, found, strict=True)
                if node.dtype.kind == "f"
            ]
    h = 1e-2 if single else 1e-4
    ahead2, ahead, behind, behind2 = (
        [
            y
            for node, y in zip(graph.outputs, evaluate(graph, moved(t)), strict=True)
            if node.dtype.kind == "f"
        ]
        for t in (2 * h, h, -h, -2 * h)
    )
    return [
        (8 * (np.float64(p) - m) - (np.float64(pp) - mm)) / (12 * h)
        for pp, p, m, mm in zip(ahead2, ahead, behind, behind2, strict=True)
    ]


def random_like(rng: np.random.Generator, nodes: list[Node]) -> list[np.ndarray]:
    """A random direction in the space of ``nodes``."""
    return [np.asarray(rng.uniform(-1, 1, node.shape)).astype(node.dtype) for node in nodes]


def inner(xs: list[np.ndarray], ys: list[np.ndarray]) -> tuple[float, float]:
    """Inner product in float64, and the sum of the magnitudes that went in."""
    terms = [np.asarray(x, np.float64) * np.asarray(y, np.float64) for x, y in zip(xs, ys, strict=True)]
    return sum(float(t.sum()) for t in terms), sum(float(np.abs(t).sum()) for t in terms)


def check_derivative(graph: Graph, inputs: list[np.ndarray], rng: np.random.Generator) -> int:
    """Forward and reverse mode of ``graph`` at ``inputs``: numbers (float64) and adjoint identity. Returns
    the number of checks.
    """
    forward, backward = jvp_graph(graph), vjp_graph(graph)
    single = any(node.dtype == np.float32 for node in graph.nodes())
    double = any(node.dtype == np.float64 for node in graph.nodes())
    v = random_like(rng, floating(graph.inputs))
    u = random_like(rng, floating(graph.outputs))
    jv = interpret(forward, *inputs, *v)
    ju = interpret(backward, *inputs, *u)
    left, size = inner(u, jv)
    right, other = inner(ju, v)
    tolerance = 2e-5 if single else 1e-12
    assert abs(left - right) <= tolerance * (size + other) + 1e-300, (
        graph.name,
        "adjoint identity",
        left,
        right,
    )
    checks = 2
    if double:
        for got, want in zip(jv, directional(graph, inputs, v), strict=True):
            scale = 1.0 + float(np.max(np.abs(want), initial=0.0))
            bound = 1e-3 if single else 1e-7
            np.testing.assert_allclose(got, want, rtol=bound, atol=bound * scale, err_msg=graph.name)
            checks += 1
    return checks


def jacobians(graph: Graph, inputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The whole Jacobian by forward and by reverse mode, one basis vector at a time."""
    forward, backward = jvp_graph(graph), vjp_graph(graph)
    columns = [
        np.concatenate([np.ravel(y) for y in interpret(forward, *inputs, *v)])
        for v in _basis(floating(graph.inputs))
    ]
    rows = [
        np.concatenate([np.ravel(x) for x in interpret(backward, *inputs, *u)])
        for u in _basis(floating(graph.outputs))
    ]
    n, m = len(columns), len(rows)
    return np.array(columns).reshape(n, m).T, np.array(rows).reshape(m, n)


def _basis(nodes: list[Node]) -> Iterator[list[np.ndarray]]:
    for k, node in enumerate(nodes):
        for i in range(node.type.size):
            vectors = [np.zeros(other.shape, other.dtype) for other in nodes]
            vectors[k].reshape(-1)[i] = 1
            yield vectors
