"""Threads with a stack of 64 KB: whatever is compiled, on them or elsewhere, runs on them; products borrow
workspace and return it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.products import parts
from graphjit.backend.llvm.products.packed import block_symbol, emit_block, emit_gemm
from graphjit.backend.llvm.products.tile import host_tile
from graphjit.backend.llvm.products.workspace import GIVE, PIECE_BYTES, SLOTS, TAKE, emit_workspace
from graphjit.backend.llvm.writing.text import Module

STACK = 64 << 10


def on_small_stack(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    before = threading.stack_size(STACK)
    try:
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return found[0]


def steps(x):
    for i in range(40):
        x = np.sin(x) * 0.9 + x * (0.1 * i)
    return np.sum(x)


def long_scalars(x):
    values = [x[i] for i in range(8)]
    for i in range(400):
        u, v = values[-1 - i % 5], values[(7 * i) % len(values)]
        values.append(u * v + 0.1 if i % 3 else u / (1 + v * v))
    return sum(values)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "packed": (graphjit.jit(lambda a: a @ a.T @ a), (normal(300, 300),)),
    "packed_float32": (graphjit.jit(lambda a: a @ a.T @ a), (normal(300, 300).astype(np.float32),)),
    "few_columns": (graphjit.jit(lambda a: (a[:60] @ a[:60].T, a.T[:5] @ a[:, :5])), (normal(9000, 60),)),
    "segments": (graphjit.jit(lambda a, b: a @ b), (normal(40, 90_000), normal(90_000, 40))),
    "many_products": (
        graphjit.jit(lambda *t: [x @ x.T @ x for x in t]),
        tuple(normal(40 + i, 60) for i in range(30)),
    ),
    "regression": (
        graphjit.value_and_grad(lambda w, x, y: np.mean((np.tanh(x @ w) - y) ** 2)),
        (normal(200), normal(5000, 200), normal(5000)),
    ),
    "steps": (graphjit.value_and_grad(steps), (normal(8),)),
    "long_scalars": (graphjit.value_and_grad(long_scalars), (normal(8) * 0.1,)),
    "tree": (graphjit.jit(lambda t: [np.sin(x) for x in t]), ([normal(5) for _ in range(60)],)),
    "strided": (graphjit.jit(lambda t: np.sin(t)), (normal(50, 50)[::2, ::3],)),
}


@pytest.mark.parametrize("name", CASES)
def test_compiles_and_runs_on_a_small_stack(name: str) -> None:
    function, args = CASES[name]
    first = on_small_stack(lambda: function(*args))
    again = on_small_stack(lambda: function(*args))
    here = function(*args)
    for got in (first, again):
        got, want = (x if isinstance(x, (list, tuple)) else [x] for x in (got, here))
        assert [np.asarray(a).tobytes() for a in got] == [np.asarray(b).tobytes() for b in want]


def test_errors_of_compilation_come_back_from_the_helper() -> None:
    def fails() -> str:
        with pytest.raises(RuntimeError, match="parsing"):
            jit.NativeModule("this is no module")
        return "raised"

    assert on_small_stack(fails) == "raised"


def workspaces(
    allocator: str = "aligned_alloc",
) -> tuple[jit.NativeModule, Callable[[int], int | None], Callable[[int], None]]:
    module = Module("workspace")
    emit_workspace(module)
    # Names of their own: those of the process stay.
    text = (
        module.render()
        .replace(TAKE, "test_take")
        .replace(GIVE, "test_give")
        .replace("aligned_alloc", allocator)
    )
    native = jit.NativeModule(text)
    take = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(native.address("test_take"))
    return native, take, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(native.address("test_give"))


def test_pieces_are_used_again() -> None:
    _native, take, give = workspaces()
    held = [take(1) for _ in range(SLOTS + 5)]
    assert len(set(held)) == len(held)
    for place in held:
        assert place is not None
        assert place % 4096 == 0
        ctypes.memset(place, 1, PIECE_BYTES)
        give(place)
    again = [take(0) for _ in range(SLOTS)]
    assert set(again) <= set(held)
    give(again[7])
    assert take(1) == again[7]


NOTHING = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(lambda *_: None)
"""Stands for an allocator without memory."""


def refuse(name: str) -> str:
    jit.add_symbol(name, ctypes.cast(NOTHING, ctypes.c_void_p).value or 0)
    return name


def test_without_memory_pieces_are_refused_or_awaited() -> None:
    native, take, give = workspaces(refuse("test_no_memory"))
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(native.address("prepare"))() == 0
    assert take(0) is None
    buffer = ctypes.create_string_buffer(8)
    place = ctypes.addressof(buffer)
    give(place)
    assert take(1) == place
    found: list[int | None] = []
    waiting = threading.Thread(target=lambda: found.append(take(1)))
    waiting.start()
    waiting.join(0.05)
    assert not found
    give(place)
    waiting.join(10)
    assert found == [place]


@pytest.mark.parametrize("kind", ["f64", "f32"])
def test_products_without_workspace_give_the_same(kind: str) -> None:
    """Rows of A are then read where they lie."""
    module = Module("refused")
    emit_gemm(module, host_tile(kind))
    emit_block(module, host_tile(kind))
    parts.ensure_product(kind)
    native = jit.NativeModule(module.render().replace(TAKE, refuse("test_no_workspace")))
    ctypes.CFUNCTYPE(ctypes.c_int64)(native.address("prepare"))()
    parts.product_address(kind)  # compiles all tiles
    block = block_symbol(host_tile(kind))
    nbytes = 8 * host_tile(kind).vectors
    ctypes.memmove(native.address(f"{block}_tiles"), parts._modules[block].address(f"{block}_tiles"), nbytes)
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    form = ctypes.CFUNCTYPE(None, *[word] * 3, pointer, word, word, pointer, word, word, pointer, word, word)
    dtype = np.float64 if kind == "f64" else np.float32
    a, b = normal(300, 200).astype(dtype), normal(300, 250).astype(dtype)
    results = []
    for address in (native.address(parts.SYMBOL[kind]), parts.product_address(kind)):
        c = np.zeros((200, 250), dtype)
        form(address)(200, 250, 300, a.ctypes.data, 1, 200, b.ctypes.data, 250, 1, c.ctypes.data, 250, 0)
        results.append(c.tobytes())
    assert results[0] == results[1]
