"""Records of many elements, one a lane: read and written as blocks that are transposed in registers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled_harness import Make, compiled, kernels, run, run_function

from graphjit import limits
from graphjit.interpret import interpret
from graphjit.ir.types import BOOL, F32, F64, I64
from graphjit.loops.ir import For, walk
from graphjit.pipeline import compile_graph

ONCE = limits.host_limits().changed(vectors={"long_body": 1})
"""No loop body is written twice: the last iterations run under masks."""


def columns(make: Make, x, which):
    n = x.shape[0]
    return [
        make.b.reshape(make.b.slice(x, starts=(0, c), limits=(n, c + 1), steps=(1, 1)), shape=(n,))
        for c in which
    ]


def mixed(n: int, k: int, dtype: np.dtype, seed: int):
    """A graph that reads some elements of each record of ``k`` in any order, and writes records of others."""
    rng = np.random.default_rng(seed)
    make = Make()
    x = make.input(n, k, dtype=dtype)
    read = [int(c) for c in rng.permutation(k)[: rng.integers(max(1, k // 2), k + 1)]]
    parts = columns(make, x, read)
    combine = make.b.emit
    values = [combine("add" if dtype != BOOL else "xor", p, parts[-1 - i]) for i, p in enumerate(parts)]
    made = [values[int(i)] for i in rng.integers(0, len(values), k)]
    joined = make.b.concatenate(*(make.b.reshape(v, shape=(n, 1)) for v in made), axis=1)
    return make.graph(joined)


@pytest.mark.sample(5)
@pytest.mark.parametrize("dtype", [F64, F32, I64, np.dtype(np.int8), BOOL])
@pytest.mark.parametrize("given", [None, ONCE], ids=["apart", "masked"])
def test_records_of_every_length(dtype, given):
    for k in (2, 3, 4, 5, 6, 7, 8, 9, 11, 15, 16, 17, 31, 33):
        for n in (1, 7, 8, 33, 256):
            graph = mixed(n, k, dtype, 100 * k + n)
            x = np.random.default_rng(k).integers(0, 100, (n, k)).astype(dtype)
            (found,), (wanted,) = run(graph, [x], given), interpret(graph, x)
            np.testing.assert_array_equal(found, wanted, err_msg=f"{n} records of {k}")


@pytest.mark.parametrize("n", [63, 64])
def test_nothing_outside_is_written(n):
    """Results lie in the middle of a larger array, at an odd place."""
    graph = mixed(n, 9, F64, 3)
    x = np.random.default_rng(0).normal(size=(n, 9))
    code = compile_graph(graph, limits=ONCE)
    from graphjit.backend.executable import Executable

    memory = np.full(9 * n + 50, 7.0)
    target = memory[21 : 21 + 9 * n].reshape(n, 9)
    Executable(code.program, code.module, code.nanoseconds).run([x], {0: target})
    np.testing.assert_array_equal(target, interpret(graph, x)[0])
    assert set(memory[:21]) == set(memory[21 + 9 * n :]) == {7.0}


def test_blocks_take_one_load_a_lane():
    """36 elements a lane: 4 blocks of eight and one of four, of 8 loads each, instead of 288 loads."""
    wide = limits.host_limits()
    if wide.vectors.vector_bytes != 64:
        pytest.skip("counts are those of 64-byte vectors")
    make = Make()
    parts = columns(make, make.input(64, 36), range(36))
    total = parts[0]
    for part in parts[1:]:
        total = make.b.add(make.b.mul(total, part), make.b.mul(part, part))
    text = compile_graph(make.graph(total)).module.render()
    assert len(re.findall(r"= load <[48] x double>", text)) == 5 * 8
    assert not re.findall(r"= load double", text)


def test_long_bodies_are_written_once():
    """A batch that does not fill whole vectors makes no second copy of a long body."""

    def lines(n: int) -> int:
        return compiled(np.linalg.inv, np.ones((n, 5, 5))).module.render().count("\n")

    assert lines(1001) < 1.25 * lines(1000)


def test_a_store_between_keeps_accesses_where_they_are():
    """What is read after a write to the same buffer is read there."""
    from graphjit.backend.llvm.kernels.blocks import read_in_blocks, written_in_blocks
    from graphjit.ir.affine import Affine
    from graphjit.ir.buffers import Buffer
    from graphjit.loops.ir import Axis, Let, Load, Ref, Store

    axis = Axis("i0")
    buffer, other = Buffer("a", F64, 80, "arena", 0), Buffer("b", F64, 80, "arena", 1)

    def at(k):
        return Affine(k, {axis: 10})

    loads = [Let(Ref(k, F64), Load(buffer, at(k))) for k in range(4)]
    assert len(read_in_blocks(loads, axis, 8, 4)) == 4
    assert not read_in_blocks([*loads[:2], Store(buffer, at(7), Ref(0, F64)), *loads[2:]], axis, 8, 4)
    assert len(read_in_blocks([*loads[:2], Store(other, at(7), Ref(0, F64)), *loads[2:]], axis, 8, 4)) == 4
    stores = [Store(buffer, at(k), Ref(9, F64)) for k in range(4)]
    assert len(written_in_blocks(stores, axis, 8, 4)) == 4
    assert not written_in_blocks([*stores[:2], loads[3], *stores[2:]], axis, 8, 4)
    assert not written_in_blocks([*stores, *stores], axis, 8, 4)
    assert len(written_in_blocks(stores, axis, 8, 10)) == 0


def test_far_records_are_fetched_ahead():
    """Where an iteration has hundreds of operations, the next records are asked for before them."""
    small = limits.host_limits().changed(traffic={"far_bytes": 1 << 12})
    a = np.random.default_rng(0).normal(size=(400, 6, 6))

    def fetched(given) -> int:
        made = compiled(np.linalg.inv, a, limits=given)
        loops = [s for kernel in made.kernels.values() for s in walk(kernel.body) if isinstance(s, For)]
        return sum(len(loop.fetch) for loop in loops)

    assert fetched(small) == 36
    assert fetched(limits.host_limits()) == 0
    np.testing.assert_allclose(run_function(np.linalg.inv, a, limits=small)[0], np.linalg.inv(a), rtol=1e-8)
    light = kernels(mixed(4000, 9, F64, 1), small)
    assert not any(s.fetch for kernel in light for s in walk(kernel.body) if isinstance(s, For))
