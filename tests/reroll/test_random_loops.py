"""Random loop programs: rolled up or not, the interpreter gives the same bits.

Each program is Python source: a loop over some steps, or two loops one in the other, whose statements combine
carried values, elements of arrays, numbers that depend on the step and values from outside, now and then with
a step that differs, and with values kept in a list or written into an array.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit.interpret import interpret
from graphjit.ir.node import with_bodies
from graphjit.ir.verify import verify

STEPS = 48
SEEDS = 80
CARRIED = ("a", "b", "c")


class Source:
    """A random program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines = ["def f(x, y, w, a, b, c):", "    kept, out = [], np.zeros(200)", "    k = np.cos(w)"]
        self.loop(1, "t")
        if self.random.random() < 0.4:
            self.loop(1, "t")
        last = "np.stack(kept[::2]).sum() if kept else 0.0"
        self.lines.append(f"    return a, b, c, out, {last}, kept[-1] if kept else a")

    def loop(self, depth: int, t: str) -> None:
        steps = STEPS if depth == 1 else self.random.choice([3, 18])
        ranges = [
            f"range({steps})",
            f"range(1, {steps})",
            f"range({steps - 1}, -1, -1)",
            f"range(0, {steps}, 2)",
        ]
        indent = "    " * depth
        self.lines.append(f"{indent}for {t} in {self.random.choice(ranges[: 3 if depth > 1 else 4])}:")
        for _ in range(self.random.randint(2, 5)):
            self.lines.append(indent + "    " + self.statement(t))
        if depth == 1 and self.random.random() < 0.3:
            self.loop(2, "s")
        chance = self.random.random()
        if chance < 0.25:
            self.lines.append(f"{indent}    kept.append({self.value(t)} * c)")
        elif chance < 0.5:
            self.lines.append(f"{indent}    out[{t}] = np.sum({self.value(t)})")
        elif chance < 0.6:
            first, second = self.random.sample(CARRIED, 2)
            self.lines.append(f"{indent}    {first}, {second} = {second}, {first}")

    def statement(self, t: str) -> str:
        name = self.random.choice(CARRIED)
        value = f"{self.operation(t)} + 0.2 * {self.random.choice(CARRIED)}"
        if self.random.random() < 0.08:
            return f"{name} = {value} if {t} != {self.random.randint(0, STEPS - 1)} else np.sin({name})"
        return f"{name} = {value}"

    def operation(self, t: str) -> str:
        first, second = self.value(t), self.value(t)
        forms = [
            f"np.tanh({first} + {second})",
            f"np.sin({first} * {second})",
            f"0.5 * {first} - 0.3 * {second}",
            f"np.where({first} > {second}, {first}, 0.5 * {second})",
            f"np.maximum({first}, {second}) - 0.1",
            f"np.tanh(w @ ({first} + b))",
        ]
        return self.random.choice(forms)

    def value(self, t: str) -> str:
        values = [
            *CARRIED,
            f"x[{t}]",
            f"x[{t} + 1]",
            f"x[2 * {t}]",
            f"y[:, {t}]",
            f"x[{t}, 1]",
            f"({t} * 0.25)",
            "k[0]",
            "w[1]",
            f"np.cos(x[{t}])",
            f"x[{t}, ::-1]",
            f"(out[{t} - 1] if {t} else 0.5)",
            "(kept[-1] if kept else a)",
        ]
        return self.random.choice(values)


def program(seed: int) -> tuple[str, Any]:
    text = "\n".join(Source(seed).lines)
    scope: dict[str, Any] = {"np": np}
    exec(compile(text, f"<program {seed}>", "exec"), scope)
    return text, scope["f"]


def arguments(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in [(120, 4), (4, 120), (4, 4), (4,), (4,), (4,)]]


@cache
def rolled_up(seed: int) -> Any:
    """What is recorded of a program, with loops."""
    return graphjit.jit(program(seed)[1]).dispatcher.staged(*arguments(seed))


@pytest.mark.sample(32)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_same_bits(seed: int) -> None:
    text, f = program(seed)
    args = arguments(seed)
    values = []
    for staged in (graphjit.jit(f, reroll=False).dispatcher.staged(*args), rolled_up(seed)):
        verify(staged.graph)
        values.append(interpret(staged.graph, *args, *staged.captured))
    for before, after in zip(*values, strict=True):
        np.testing.assert_array_equal(before, after, err_msg=text)


@pytest.mark.slow
def test_most_programs_are_rolled_up() -> None:
    loops = [any(node.op.name == "scan" for node in with_bodies(rolled_up(seed).graph)) for seed in range(20)]
    assert sum(loops) >= 15
