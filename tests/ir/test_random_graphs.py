"""Random graphs: every pass keeps their values, their text reads back, both derivative modes agree on them.

A failure shrinks and prints the IR of what is left; keep it as a regression test in tests/ir/test_passes.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from random_graphs import EXCLUDED, random_graph, random_inputs, rng_for
from shrinking import shrink, substitute

from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.opdef import REGISTRY, Decompose, NonDifferentiable
from graphjit.ir.parser import parse_graph
from graphjit.ir.printer import print_graph
from graphjit.ir.types import F64
from graphjit.ir.verify import verify
from graphjit.passes.decompose import decompose
from graphjit.passes.fold import fold
from graphjit.passes.join_embeds import join_embeds
from graphjit.passes.rules import ALL
from graphjit.passes.simplify import simplify, simplify_with
from graphjit.running.instruments import Compare, Verify, first_difference, rounding
from graphjit.running.runner import run
from graphjit.transforms.forward import tangents
from graphjit.transforms.reverse import cotangents, or_zeros

CHUNKS, SEEDS = 10, 8
CHAIN = (fold, simplify, decompose, join_embeds, simplify)


def seeds(chunk: int) -> range:
    return range(chunk * SEEDS, (chunk + 1) * SEEDS)


def fail_small(seed: int, graph: Graph, fails: Callable[[Graph], bool], what: str) -> None:
    """Report the smallest graph that still fails."""

    def guarded(candidate: Graph) -> bool:
        try:
            return fails(candidate)
        except Exception:  # a cut graph may leave the domain of its ops: that is another failure than ours
            return False

    small = shrink(graph, guarded) if guarded(graph) else graph
    pytest.fail(f"{what} (seed {seed})\n{print_graph(small)}")


def changed_by(step: Callable[[Graph], Graph], seed: int) -> Callable[[Graph], bool]:
    """Whether a pass changes the values of a graph."""

    def fails(graph: Graph) -> bool:
        args = random_inputs(graph, rng_for(seed))
        made = step(graph)
        verify(made)
        rtol = rounding(graph)
        pairs = zip(interpret(made, *args), interpret(graph, *args), strict=True)
        return any(first_difference(got, wanted, rtol) is not None for got, wanted in pairs)

    return fails


def chain(graph: Graph) -> Graph:
    return run(graph, CHAIN)


@pytest.mark.sample(2)
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("step", [fold, simplify, decompose, join_embeds, chain])
def test_passes_keep_values(step: Callable[[Graph], Graph], chunk: int) -> None:
    for seed in seeds(chunk):
        graph = random_graph(seed)
        fails = changed_by(step, seed)
        if fails(graph):
            fail_small(seed, graph, fails, f"{step.__name__} changes values")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_text_reads_back(chunk: int) -> None:
    for seed in seeds(chunk):
        graph = random_graph(seed)
        text = print_graph(graph)
        again = parse_graph(text)
        verify(again)
        assert again.key() == graph.key(), text
        assert print_graph(again) == text


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_simplify_reaches_its_fixed_point(chunk: int) -> None:
    for seed in seeds(chunk):
        once, _ = simplify_with(random_graph(seed), ALL)
        twice, fired = simplify_with(once, ALL)
        if any(rule.consumes and fired[rule.name] for rule in ALL):
            continue  # dead nodes are gone now, so a value may have become its last reader's own
        assert not fired, f"{dict(fired)} fired again (seed {seed})\n{print_graph(once)}"
        assert twice.key() == once.key()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_forward_and_reverse_agree(chunk: int) -> None:
    """<u, J v> = <J^T u, v> with both products built as graphs, before and after the passes."""
    for seed in seeds(chunk):
        graph = random_graph(seed, differentiable=True)
        defect = adjoint_defect(graph, seed)
        if defect is not None:
            fail_small(
                seed,
                graph,
                lambda g, seed=seed: adjoint_defect(g, seed) is not None,
                f"modes disagree: {defect}",
            )


def adjoint_defect(graph: Graph, seed: int) -> str | None:
    """What is wrong with the derivatives of ``graph``, or None."""
    rng = np.random.default_rng([seed, 2])
    args = random_inputs(graph, rng_for(seed))
    outputs = [node for node in dict.fromkeys(graph.outputs) if node.dtype.kind == "f"]
    inputs = [node for node in graph.inputs if node.dtype.kind == "f"]
    forward, v = jvp_graph(graph, inputs, outputs, rng)
    reverse, u = vjp_graph(graph, inputs, outputs, rng)
    verify(forward)
    verify(reverse)
    rtol = 100 * rounding(graph)
    for name, step in (("as built", lambda g: g), ("optimized", chain)):
        jv = interpret(step(forward), *args, *v)
        jtu = interpret(step(reverse), *args, *u)
        left = [np.sum(a.astype(F64) * b, dtype=F64) for a, b in zip(u, jv, strict=True)]
        right = [np.sum(a.astype(F64) * b, dtype=F64) for a, b in zip(v, jtu, strict=True)]
        scale = sum(
            float(np.abs(a).sum(dtype=F64)) for a in (*jv, *jtu, *u, *v)
        )  # derivatives may cancel to rounding noise
        if not np.isfinite(scale):
            return f"{name}: not finite"
        if abs(sum(left) - sum(right)) > rtol * scale:
            return f"{name}: {sum(left)} and {sum(right)}"
    return None


def jvp_graph(
    graph: Graph, inputs: list[Node], outputs: list[Node], rng: np.random.Generator
) -> tuple[Graph, list[np.ndarray]]:
    """(inputs, tangents) -> output tangents, and random tangents."""
    b = Builder()
    seeds_of = {node: b.input(node.type, f"d{node.attrs['name']}") for node in inputs}
    made = or_zeros(b, outputs, tangents(b, seeds_of, outputs))
    return Graph("jvp", [*graph.inputs, *seeds_of.values()], made), [normal(rng, node) for node in inputs]


def vjp_graph(
    graph: Graph, inputs: list[Node], outputs: list[Node], rng: np.random.Generator
) -> tuple[Graph, list[np.ndarray]]:
    """(inputs, output cotangents) -> input cotangents, and random cotangents."""
    b = Builder()
    seeds_of = {node: b.input(node.type, f"ct{i}") for i, node in enumerate(outputs)}
    made = or_zeros(b, inputs, cotangents(b, seeds_of, inputs))
    return Graph("vjp", [*graph.inputs, *seeds_of.values()], made), [normal(rng, node) for node in outputs]


def normal(rng: np.random.Generator, node: Node) -> np.ndarray:
    return np.asarray(rng.normal(size=node.shape)).astype(node.dtype)


# --------------------------------------------------------------------------------------- the generator itself


def test_generator_is_deterministic_and_tame() -> None:
    for seed in range(20):
        graph = random_graph(seed)
        assert graph.key() == random_graph(seed).key()
        verify(graph)
        for value in interpret(graph, *random_inputs(graph, rng_for(seed))):
            assert np.isfinite(value).all()


def test_generator_reaches_every_op() -> None:
    seen: Counter[str] = Counter()
    wanted = {name for name in REGISTRY if name not in EXCLUDED or name in ("input", "const")}
    for seed in range(2000):
        seen.update(node.op.name for node in random_graph(seed, 40).nodes())
        if seed > 200 and not wanted - seen.keys():
            break
    assert not wanted - seen.keys()
    assert min(seen["custom"], seen["item"]) > 100


def test_generator_keeps_to_given_ops() -> None:
    for seed in range(20):
        names = {node.op.name for node in random_graph(seed, ops=("add", "sin", "sum")).nodes()}
        assert names <= {"add", "sin", "sum", "input", "const", "broadcast_to", "reshape"}


def test_differentiable_graphs_have_a_path() -> None:
    paths = 0
    for seed in range(40):
        graph = random_graph(seed, differentiable=True)
        assert not any(
            isinstance(n.op.derivative, NonDifferentiable) for n in graph.nodes() if n.op.name != "input"
        )
        b = Builder()
        wanted = [node for node in graph.inputs if node.dtype.kind == "f"]
        found = cotangents(b, {node: b.full(1.0, node.type) for node in graph.outputs}, wanted)
        paths += any(node is not None for node in found)
    assert paths >= 20


# -------------------------------------------------------------------------------------------------- shrinking


def test_shrink_finds_the_broken_op() -> None:
    """A pass that is wrong about one op leaves a graph of little more than that op."""

    def broken(graph: Graph) -> Graph:
        wrong = {
            node: Node(REGISTRY["sin"], node.args, {}, node.type)
            for node in graph.nodes()
            if node.op.name == "exp"
        }
        return substitute(graph, wrong)

    seed = next(seed for seed in range(200) if changed_by(broken, seed)(random_graph(seed)))
    small = shrink(random_graph(seed), changed_by(broken, seed))
    assert len(small.outputs) == 1
    assert len(small) <= 5, print_graph(small)
    assert any(node.op.name == "exp" for node in small.nodes())


def test_shrink_refuses_a_graph_that_does_not_fail() -> None:
    with pytest.raises(AssertionError, match="fails"):
        shrink(random_graph(0), lambda graph: False)


# ------------------------------------------------------------------------------- instruments on random graphs


def test_whole_chain_under_instruments() -> None:
    for seed in range(CHUNKS * SEEDS, CHUNKS * SEEDS + 10):
        graph = random_graph(seed)
        out = run(graph, CHAIN, [Verify(), Compare()])
        assert not any(isinstance(node.op.lower, Decompose) for node in out.nodes())
