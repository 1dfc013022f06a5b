"""What a first call compiles: how many modules, of which code, at which level.  Counted, not timed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import pipeline
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.objects import link as link_module
from graphjit.backend.llvm.objects.link import SHORT_DRIVERS, link
from graphjit.backend.llvm.objects.symbols import provide
from graphjit.backend.llvm.products.packed import panel_widths
from graphjit.backend.llvm.products.tile import Tile
from graphjit.backend.llvm.writing.text import Module

FRESH = """
import json
import numpy as np
import graphjit
from graphjit.backend.llvm.objects import jit

graphjit.grad(lambda x: np.sum(x * x))(np.ones(3))
begin = jit.NativeModule.__init__
made = []

def note(self, text, opt=2, below=None, library=False):
    made.append((text.split("'")[1], opt))
    begin(self, text, opt, below, library)

jit.NativeModule.__init__ = note
{call}
print(json.dumps(made))
"""


def compiled(call: str) -> list[tuple[str, int]]:
    """Modules that a call compiles in a fresh process, with their levels; programs are called by their
    function's name.
    """
    done = subprocess.run(
        [sys.executable, "-c", FRESH.replace("{call}", call)], capture_output=True, text=True, check=True
    )
    return [(name, level) for name, level in json.loads(done.stdout)]


def module_of(function: Callable[..., Any], *args: Any) -> tuple[Module, int]:
    found = pipeline.compile_graph(graphjit.jit(function).dispatcher.staged(*args).graph)
    return found.module, found.nanoseconds


def test_rare_paths_of_one_program_are_one_module_at_the_lowest_level() -> None:
    made = compiled("def f(x): return np.sin(x) * np.cos(x) + np.tan(x)\ngraphjit.jit(f)(0.5)")
    assert made == [("gj_math", 0), ("f", 1)]


def test_a_large_product_needs_one_module_of_parts() -> None:
    made = compiled("def f(x): return x @ x\ngraphjit.jit(f)(np.ones((200, 200)))")
    assert made == [("gemm_room", 0), ("gemm_parts", 2), ("threads", 0), ("gemm_f64", 0), ("f", 0)]


def test_what_is_there_is_not_compiled_again() -> None:
    """Multiples of 48 need the same tiles whatever the width of vectors."""
    made = compiled(
        "def f(x): return x @ x\ngraphjit.jit(f)(np.ones((240, 240)))\ndel made[:]\ngraphjit.jit(f)(np.ones((480, 480)))"
    )
    assert made == [("f", 0)]


def test_both_kinds_of_product_in_one_program() -> None:
    made = compiled(
        "def f(x, y): return x @ x, y @ y\ngraphjit.jit(f)(np.ones((200, 200)), np.ones((200, 200), np.float32))"
    )
    assert sorted(name for name, _ in made) == [
        "f",
        "gemm_f32",
        "gemm_f64",
        "gemm_parts",
        "gemm_room",
        "threads",
    ]


def many(x: np.ndarray) -> np.ndarray:
    for i in range(40):
        x = np.cumsum(np.flip(x, i % 2), axis=(i + 1) % 2)
    return x


@pytest.mark.parametrize("nanoseconds", [100, 100_000])
def test_long_drivers_are_compiled_apart(nanoseconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = module_of(many, np.ones((5, 7)))
    assert "program" in module.drivers()
    assert "program" not in module.kernels()
    assert module.render_only(module.drivers(), {}).count("\n") > SHORT_DRIVERS
    made: list[tuple[str, int]] = []
    begin = jit.NativeModule.__init__

    def note(self: jit.NativeModule, text: str, opt: int = 2, below: jit.NativeModule | None = None) -> None:
        made.append((text, opt))
        begin(self, text, opt, below)

    monkeypatch.setattr(jit.NativeModule, "__init__", note)
    provide(module)
    native = link(module, nanoseconds)
    native.close()
    (kernels, level), (drivers, low) = made
    assert (level, low) == (1 if nanoseconds < 1000 else 2, 0)
    assert "@program" not in kernels
    assert "define void @k" not in drivers


def test_values_of_a_program_in_two_modules() -> None:
    x = np.random.default_rng(0).standard_normal((5, 7))
    np.testing.assert_allclose(graphjit.jit(many)(x), many(x), rtol=1e-12)


def test_a_program_that_adds_partial_sums_stays_with_its_drivers() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 10_000)), rng.standard_normal((10_000, 40))
    module, nanoseconds = module_of(lambda x, y: x @ y, a, b)
    assert "program" in module.kernels()
    assert module.drivers()
    provide(module)
    link(module, nanoseconds).close()
    np.testing.assert_allclose(graphjit.jit(lambda x, y: x @ y)(a, b), a @ b, rtol=1e-10, atol=1e-10)


def test_pointers_are_loaded_once() -> None:
    module, _ = module_of(many, np.ones((5, 7)))
    assert module.render_only(["program"], {}).count("getelementptr ptr, ptr %inputs") == 1


def test_filling_with_zeros_is_a_call() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        return np.zeros((20, 30)) * 1.0 + np.zeros(30)

    def loss(x: np.ndarray, w: np.ndarray) -> Any:
        y = np.tanh(x * w)
        return np.sum(y * y)

    module, _ = module_of(graphjit.grad(loss, 1), np.ones((2000, 100)), np.ones(100))
    text = module.render()
    assert text.count("call void @llvm.memset") >= 1
    assert "store <8 x double> splat (double 0x0000000000000000)" not in text
    np.testing.assert_array_equal(graphjit.jit(f)(np.ones(3)), f(np.ones(3)))


def test_a_repeated_scalar_is_spread_once() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        m = np.max(x, axis=1, keepdims=True)
        return (x - m) * (x + m) / m

    module, _ = module_of(f, np.ones((4, 64)))
    assert module.render().count("zeroinitializer") <= 1


WIDTHS = """
from graphjit.backend.llvm.products import parts
def f(x, y): return x @ y
def tiles(): return sorted(name for name in parts._modules if name.startswith("gj_tile_f64"))
seen = []
for n in (256, 200, 72, 1100, 90):
    x, y = np.random.default_rng(n).standard_normal((2, 300, 300))[0], np.random.default_rng(n).standard_normal((300, n))
    for right in (y, np.ascontiguousarray(y.T)):
        g = graphjit.jit(f if right is y else lambda x, y: x @ y.T)
        np.testing.assert_allclose(g(x, right), x @ y, rtol=1e-10, atol=1e-10)
    seen.append(len(tiles()))
assert seen == sorted(seen) and seen[0] < seen[-1], seen
"""


def test_a_product_compiles_the_tiles_that_its_columns_need() -> None:
    compiled(WIDTHS)


def test_widths_are_those_of_the_native_code() -> None:
    tile = Tile("f64", 6, 4, 8, True)
    for n in range(1, 3000, 7):
        found = set()
        for start in range(0, n, 1024):
            vectors = -(-min(1024, n - start) // 8)
            panels = -(-vectors // 4)
            found |= {vectors // panels + (i < vectors % panels) for i in range(panels)}
        assert panel_widths(tile, n) == found


def test_long_programs_are_compiled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several kernels call one function of the module; an interruption is heard between two parts, and the
    next call compiles all.
    """

    def heavy(x: np.ndarray) -> np.ndarray:
        for i in range(1, 40):
            x = np.concatenate([np.cumsum(np.sin(np.flip(x[:i])) + np.arctan(x[:i])) / 7, x[i:]])
        return x

    monkeypatch.setattr(link_module, "LONG_MODULE", 600)
    lengths: list[int] = []
    begin = jit.NativeModule.__init__

    def note(
        self: jit.NativeModule,
        text: str,
        opt: int = 2,
        below: jit.NativeModule | None = None,
        library: bool = False,
    ) -> None:
        lengths.append(text.count("\n"))
        if len(lengths) == 3:
            raise KeyboardInterrupt
        begin(self, text, opt, below, library)

    monkeypatch.setattr(jit.NativeModule, "__init__", note)
    x = np.random.default_rng(0).standard_normal(50)
    compiled = graphjit.jit(heavy, reroll=False)
    with pytest.raises(KeyboardInterrupt):
        compiled(x)
    np.testing.assert_allclose(compiled(x), heavy(x), rtol=1e-9, atol=1e-9)
    assert len(lengths) > 6
