"""Graphs with loops and choices, from Python functions on nodes; and a collection of small programs of them.

Input: a builder, functions, arguments. Output: nodes. `PROGRAMS` are graphs by name, each with arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.types import BOOL, F32, F64, I64, Type

Step = Callable[..., Sequence[Node]]


def _body(b: Builder, name: str, types: Sequence[Type], make: Step) -> Body:
    inputs = [b.input(type, f"x{i}") for i, type in enumerate(types)]
    return Body(Graph(name, inputs, list(make(*inputs))))


def _items(b: Builder, node: Node) -> list[Node]:
    return [b.item(node, index=k) for k in range(len(node.parts))]


def scan(
    b: Builder,
    step: Step,
    carries: Sequence[Node],
    slices: Sequence[Node] = (),
    constants: Sequence[Node] = (),
    length: int | None = None,
    reverse: bool = False,
) -> list[Node]:
    """``step(*constants, *carries, *slices)`` gives carries, then what is stacked."""
    types = [x.type for x in (*constants, *carries)] + [x.type.with_shape(x.shape[1:]) for x in slices]
    node = b.emit(
        "scan",
        *constants,
        *carries,
        *slices,
        body=_body(b, "step", types, step),
        carried=len(carries),
        sliced=len(slices),
        length=slices[0].shape[0] if length is None else length,
        reverse=reverse,
    )
    return _items(b, node)


def while_(
    b: Builder,
    test: Callable[..., Node],
    step: Step,
    carries: Sequence[Node],
    constants: Sequence[Node] = (),
    taped: int = 0,
) -> list[Node]:
    """``step`` and ``test`` take constants and carries."""
    types = [x.type for x in (*constants, *carries)]
    node = b.emit(
        "while",
        *constants,
        *carries,
        test=_body(b, "test", types, lambda *xs: [test(*xs)]),
        body=_body(b, "step", types, step),
        carried=len(carries),
        taped=taped,
    )
    return _items(b, node)


def repeat(
    b: Builder, count: Node, step: Step, carries: Sequence[Node], constants: Sequence[Node] = ()
) -> list[Node]:
    """A ``while`` that counts to ``count``; ``step`` sees constants and carries."""
    zero, n = b.const(0, I64), len(constants)
    found = while_(
        b,
        lambda *xs: b.lt(xs[1 + n], xs[0]),
        lambda *xs: [b.add(xs[1 + n], 1), *step(*xs[1 : 1 + n], *xs[2 + n :])],
        [zero, *carries],
        [count, *constants],
    )
    return found[1:]


def unwind(
    b: Builder, step: Step, carries: Sequence[Node], tapes: Sequence[Node], constants: Sequence[Node] = ()
) -> list[Node]:
    """``step(*constants, *carries, *values)`` gives carries, then what is written."""
    types: list[Any] = [x.type for x in (*constants, *carries)] + [x.type.record for x in tapes]
    node = b.emit(
        "unwind",
        *constants,
        *carries,
        *tapes,
        body=_body(b, "back", types, step),
        carried=len(carries),
        tapes=len(tapes),
    )
    return _items(b, node)


def cond(b: Builder, which: Node, branches: Sequence[Step], args: Sequence[Node]) -> list[Node]:
    """One of ``branches`` on ``args``."""
    types = [x.type for x in args]
    bodies = tuple(_body(b, f"branch{i}", types, branch) for i, branch in enumerate(branches))
    return _items(b, b.emit("cond", which, *args, branches=bodies))


# -------------------------------------------------------------------------------------------------- programs

Program = tuple[Graph, list[np.ndarray]]
PROGRAMS: dict[str, Callable[[], Program]] = {}


def _program(*args: Any) -> Callable[[Callable[..., Sequence[Node]]], Callable[[], Program]]:
    """Register a function of a builder and inputs. An argument is a shape of floats, or an array."""

    def register(function: Callable[..., Sequence[Node]]) -> Callable[[], Program]:
        def made() -> Program:
            rng, b = np.random.default_rng(len(function.__name__)), Builder()
            arrays = [
                np.asarray(rng.uniform(0.3, 1.2, a)) if isinstance(a, tuple) else np.asarray(a) for a in args
            ]
            inputs = [b.input(Type(x.dtype, x.shape), f"x{i}") for i, x in enumerate(arrays)]
            return Graph(function.__name__, inputs, list(function(b, *inputs))), arrays

        PROGRAMS[function.__name__] = made
        return made

    return register


@_program((2, 2), (2,), (4, 2))
def recurrent(b: Builder, w: Node, h: Node, x: Node) -> Sequence[Node]:
    """A recurrent layer that stacks its states."""

    def step(w: Node, h: Node, x: Node) -> Sequence[Node]:
        after = b.tanh(b.add(b.contract(w, h, contract=((1,), (0,)), batch=((), ())), x))
        return [after, after]

    return scan(b, step, [h], [x], [w])


@_program((2,), (3, 2))
def backwards(b: Builder, h: Node, x: Node) -> Sequence[Node]:
    """A scan from the end, whose result depends on the order."""
    return scan(b, lambda h, x: [b.mul(b.sin(h), x), b.mul(h, h)], [h], [x], reverse=True)


@_program((2,), (0, 2))
def no_step(b: Builder, h: Node, x: Node) -> Sequence[Node]:
    """A scan of length zero."""
    return scan(b, lambda h, x: [b.mul(b.sin(h), x), b.mul(h, h)], [h], [x])


@_program((2,), (2,), (), (3,))
def kinds_of_carries(b: Builder, p: Node, q: Node, unused: Node, x: Node) -> Sequence[Node]:
    """Carries that are swapped, unchanged, overwritten, unused, of integers, bools and float32."""
    single = b.convert(p, dtype=F32)
    number, flag = b.const(3, I64), b.const(True, BOOL)

    def step(
        p: Node, q: Node, still: Node, gone: Node, unused: Node, s: Node, n: Node, flag: Node, x: Node
    ) -> Sequence[Node]:
        scaled = b.mul(p, b.broadcast_to(b.mul(x, b.convert(n, dtype=F64)), shape=(2,)))
        chosen = b.select(b.broadcast_to(flag, shape=(2,)), scaled, b.mul(q, still))
        return [
            *(q, chosen, still, b.full(2.0, gone.type), b.mul(unused, 0.5)),
            *(b.mul(s, b.convert(q, dtype=F32)), b.add(n, 1), b.emit("not", flag)),
            b.mul(gone, x),
        ]

    gone = b.mul(x, x)
    first = b.gather(gone, b.const(0, I64), axes=(0,))
    return scan(b, step, [p, q, b.mul(p, q), first, unused, single, number, flag], [x])


@_program((2,), (3, 2), np.array([[1, 2], [0, 1], [3, 1]]))
def some_are_not_active(b: Builder, h: Node, x: Node, y: Node) -> Sequence[Node]:
    """Constants and slices that are known numbers, or come from integers."""
    w, known = b.const([0.5, 1.5], F64), b.convert(y, dtype=F64)

    def step(w: Node, h: Node, x: Node, y: Node) -> Sequence[Node]:
        return [b.add(b.mul(w, b.exp(b.neg(h))), b.mul(x, y)), b.mul(y, y), b.mul(h, y)]

    return scan(b, step, [h], [x, known], [w])


@_program((2,), (3,), (2, 3))
def over_elements(b: Builder, w: Node, x: Node, y: Node) -> Sequence[Node]:
    """A scan without carries, and one inside of it."""

    def row(w: Node, y: Node) -> Sequence[Node]:
        total = scan(
            b,
            lambda w, s, e: [b.add(b.mul(s, e), b.mul(b.sum(w, axes=(0,)), b.cos(s)))],
            [b.sum(w, axes=(0,))],
            [y],
            [w],
        )
        return [total[0], b.mul(y, y)]

    return scan(b, row, [], [y], [w]) + scan(b, lambda e: [b.sin(e)], [], [x])


@_program((), np.int64(3))
def counted(b: Builder, x: Node, n: Node) -> Sequence[Node]:
    """A while loop with a counter."""
    return repeat(b, n, lambda x: [b.mul(b.sin(x), 1.2)], [x])


@_program((2,), np.int64(0))
def no_trip(b: Builder, x: Node, n: Node) -> Sequence[Node]:
    """A while loop that ends at once."""
    return repeat(b, n, lambda x: [b.mul(b.sin(x), 1.2)], [x])


@_program((2,), (2,), np.int64(3))
def linear_while(b: Builder, x: Node, w: Node, n: Node) -> Sequence[Node]:
    """One whose way back needs nothing of the way there but how long it was."""
    return repeat(b, n, lambda w, x: [b.add(b.mul(x, w), w)], [x], [w])


@_program((2,), ())
def until_large(b: Builder, x: Node, a: Node) -> Sequence[Node]:
    """A loop whose trips depend on its values, with a product of carry and constant."""

    def step(a: Node, x: Node, s: Node) -> Sequence[Node]:
        return [b.add(b.mul(x, b.broadcast_to(b.add(a, 0.9), shape=(2,))), b.tanh(s)), b.mul(s, x)]

    return while_(b, lambda a, x, s: b.lt(b.sum(x, axes=(0,)), b.const(9.0, F64)), step, [x, x], [a])


@_program((2,), np.int64(3))
def with_a_tape(b: Builder, x: Node, n: Node) -> Sequence[Node]:
    """A loop that keeps a tape, one that unwinds it and writes another, and one that unwinds that."""
    state = while_(
        b,
        lambda n, i, x: b.lt(i, n),
        lambda n, i, x: [b.add(i, 1), b.sin(x), b.mul(x, x), i],
        [b.const(0, I64), x],
        [n],
        taped=2,
    )
    y, values, numbers = state[1:]
    total, back = unwind(
        b,
        lambda s, v, i: [
            b.add(b.mul(s, 0.7), b.mul(v, b.cos(s))),
            b.mul(s, b.add(v, b.broadcast_to(b.convert(i, dtype=F64), shape=(2,)))),
        ],
        [y],
        [values, numbers],
    )
    (last,) = unwind(b, lambda w, s, v: [b.sub(b.mul(b.sin(s), v), w)], [total], [back], [y])
    (again,) = unwind(b, lambda s, v: [b.add(s, b.mul(v, s))], [y], [values])
    return [total, last, again]


def _choices(b: Builder) -> list[Step]:
    return [
        lambda x, y: [b.mul(x, y), b.exp(x), b.tanh(b.mul(x, y))],
        lambda x, y: [b.sin(x), y, b.sin(b.sin(b.sin(x)))],
        lambda x, y: [x, x, b.full(2.0, x.type)],
    ]


@_program((2,), (2,), np.int64(0))
def first_branch(b: Builder, x: Node, y: Node, which: Node) -> Sequence[Node]:
    """A choice."""
    return cond(b, which, _choices(b), [x, y])


@_program((2,), (2,), np.int64(1))
def second_branch(b: Builder, x: Node, y: Node, which: Node) -> Sequence[Node]:
    """A choice."""
    return cond(b, which, _choices(b), [x, y])


@_program((2,), (2,), np.int64(7))
def last_branch(b: Builder, x: Node, y: Node, which: Node) -> Sequence[Node]:
    """A choice."""
    return cond(b, which, _choices(b), [x, y])


@_program((2,), ())
def choice_in_while(b: Builder, x: Node, a: Node) -> Sequence[Node]:
    """Each step takes another branch."""

    def step(a: Node, i: Node, x: Node) -> Sequence[Node]:
        wide = b.broadcast_to(a, shape=(2,))
        (y,) = cond(
            b,
            b.remainder(i, b.const(2, I64)),
            [lambda x, a: [b.mul(b.sin(x), a)], lambda x, a: [b.add(b.mul(x, x), b.exp(a))]],
            [x, wide],
        )
        return [b.add(i, 1), y]

    return while_(b, lambda a, i, x: b.lt(i, b.const(4, I64)), step, [b.const(0, I64), x], [a])[1:]


@_program((2,), (), np.int64(1), np.int64(3))
def while_in_choice(b: Builder, x: Node, a: Node, which: Node, n: Node) -> Sequence[Node]:
    """Branches that loop, and one that does not."""

    def looped(scaled: bool) -> Step:
        def branch(x: Node, a: Node, n: Node) -> Sequence[Node]:
            wide = b.broadcast_to(a, shape=(2,))
            return repeat(
                b, n, lambda a, x: [b.mul(b.sin(x), a) if scaled else b.tanh(b.mul(x, a))], [x], [wide]
            )

        return branch

    return cond(b, which, [lambda x, a, n: [b.mul(x, x)], looped(True), looped(False)], [x, a, n])


@_program((2,), (3, 2), np.array([2, 0, 3]))
def while_in_scan(b: Builder, x: Node, y: Node, n: Node) -> Sequence[Node]:
    """Each step of a scan loops another number of times."""

    def step(h: Node, y: Node, n: Node) -> Sequence[Node]:
        (z,) = repeat(b, n, lambda y, z: [b.sin(b.mul(z, y))], [h], [y])
        return [z, b.mul(z, h)]

    return scan(b, step, [x], [y, n])


@_program((2,), (3, 2), (2, 2))
def scan_in_scan(b: Builder, x: Node, y: Node, z: Node) -> Sequence[Node]:
    """The inner loop reads all of an array in each step of the outer one."""

    def step(z: Node, h: Node, y: Node) -> Sequence[Node]:
        found = scan(b, lambda y, h, z: [b.mul(b.tanh(h), z), b.mul(b.sin(h), y)], [h], [z], [y])
        return [found[0], b.sum(found[1], axes=(0,))]

    return scan(b, step, [x], [y], [z])
