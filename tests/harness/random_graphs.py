"""Random well-typed graphs and arguments for them; `shrinking` makes those that fail smaller.

Job: cover combinations of ops that nobody writes down by hand.
Input: a seed. Output: a `Graph` whose values, on ``random_inputs(graph, rng_for(seed))``, are finite,
moderate and insensitive to rounding, so that any two correct evaluations agree closely and no comparison
hangs on a last bit.
Invariants: deterministic in the seed; nodes are made without a builder, so that local rules and interning are
under test too; every op of the registry can occur unless it is in `EXCLUDED`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any

import numpy as np
from control.random_loops import add_control
from expressions.joined import random_concatenate, random_splice
from expressions.windowed import random_fold, random_pair, random_window, random_windowed_product
from random_bodies import MAX_ELEMENTS, add_body

import graphjit.ops  # noqa: F401 (fills the registry)
from graphjit.errors import GraphjitError
from graphjit.ir.builder import Builder
from graphjit.ir.node import ConstValue, Graph, Node
from graphjit.ir.opdef import REGISTRY, NonDifferentiable, OpDef
from graphjit.ir.types import BOOL, F32, F64, I64, Type
from graphjit.running.instruments import draw_input

EXCLUDED = {
    "item": "made with the node that has several results",
    **dict.fromkeys(("custom", "scan", "while", "unwind", "cond"), "made with their bodies"),
    "named": "no op of programs: a name for the policy of a checkpoint",
    "stop_gradient": "its derivative differs from that of its value",
    "narrow": "made by tracing from a Python integer; out of range is a run-time error",
    **dict.fromkeys(("input", "const"), "made first, or on demand"),
    "copy": "inserted by the scheduler",
    **dict.fromkeys(("floor_divide", "remainder"), "a zero divisor is a run-time error"),
    **dict.fromkeys(("left_shift", "right_shift"), "negative counts have no defined value"),
    "require": "a condition that does not hold is a run-time error",
}
COMMON = tuple(
    "add sub mul div neg abs not and select convert "
    "sum max transpose reshape broadcast_to slice concatenate flip embed contract".split()
)
"""Ops that make up most of real programs and most patterns of rules: drawn more often."""

SMOOTH: dict[str, Callable[..., bool]] = {
    "cofactors": lambda a: bool((np.abs(np.linalg.det(a)) > 1e-3).all()),
}
"""Where the derivatives of an op are numbers too: those of cofactors are NaN for singular matrices."""

MAX_VALUE = 1e4
AXES = (1, 2, 3, 3, 4, 5, 8)

Attrs = dict[str, Hashable]


def rng_for(seed: int) -> np.random.Generator:
    """The generator of the arguments for which ``random_graph(seed, ...)`` is tame."""
    return np.random.default_rng([seed, 1])


def random_inputs(graph: Graph, rng: np.random.Generator) -> list[np.ndarray]:
    """Arguments for any graph: floats in (0.1, 2), small integers, bools."""
    return [draw_input(rng, node) for node in graph.inputs]


def random_graph(
    seed: int,
    size: int = 30,
    *,
    ops: Collection[str] | None = None,
    differentiable: bool = False,
    control: bool = False,
) -> Graph:
    """A graph of up to ``size`` operations, with up to eight outputs.

    Args:
        seed: the same seed gives the same graph.
        size: attempts at adding a node that succeed.
        ops: names of the ops that may occur (default: all that are not excluded).
        differentiable: only ops that reverse and forward mode accept, float inputs, a float64 output.
        control: with loops and choices.
    """
    return _Maker(seed, ops, differentiable, control=control).make(size)


class _Maker:
    """Grows a graph node by node, with the value of every node at hand."""

    def __init__(
        self,
        seed: int,
        ops: Collection[str] | None,
        differentiable: bool,
        rng: np.random.Generator | None = None,
        control: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = rng or np.random.default_rng(seed)
        self.bodies = 2 if ops is None else 0  # how deep graphs inside graphs may lie
        self.control = control
        self.differentiable = differentiable
        allowed = [
            op
            for name, op in sorted(REGISTRY.items())
            if name not in EXCLUDED and (ops is None or name in ops)
        ]
        if differentiable:
            allowed = [op for op in allowed if not isinstance(op.derivative, NonDifferentiable)]
        self.shaped = [op for op in allowed if op.name in ARGUMENTS]
        self.plain = [
            op for op in allowed if op.name not in ARGUMENTS and not op.attrs and op.arity is not None
        ]
        self.axed = [
            op for op in allowed if op.name not in ARGUMENTS and op.attrs in (("axes",), ("axis", "reverse"))
        ]
        self.common = [op for op in allowed if op.name in COMMON]
        self.nodes: list[Node] = []
        self.values: dict[Node, np.ndarray] = {}

    def make(self, size: int) -> Graph:
        inputs = self._inputs()
        made = 0
        for _ in range(30 * size):
            made += self.grow()
            if made >= size:
                break
        return Graph(f"random_{self.seed}", inputs, self._outputs(inputs))

    def _inputs(self) -> list[Node]:
        count = int(self.rng.integers(1, 5))
        values = rng_for(self.seed)
        for i in range(count):
            dtype = (
                F64
                if i == 0
                else self.pick([F64, F64, F32] if self.differentiable else [F64, F64, F32, I64, BOOL])
            )
            node = Builder().input(Type(dtype, self.shape()), f"x{i}")
            self.nodes.append(node)
            self.values[node] = draw_input(values, node)
        return list(self.nodes)

    def shape(self) -> tuple[int, ...]:
        shape = tuple(int(self.rng.choice(AXES)) for _ in range(self.rng.integers(0, 4)))
        if shape and self.rng.random() < 0.02:
            shape = (0, *shape[1:])
        return shape

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def recent(self, accept: Callable[[Node], bool] = lambda node: True) -> Node | None:
        """A node, preferably one made lately, so that patterns several ops deep appear."""
        fitting = [node for node in self.nodes if accept(node)]
        if not fitting:
            return None
        back = min(int(self.rng.geometric(0.25)), len(fitting))
        return fitting[-back]

    def grow(self) -> int:
        """Try to add one operation; 1 if it was added."""
        if self.bodies and self.rng.random() < 0.05:
            return add_body(self)
        if self.control and self.bodies and self.rng.random() < 0.15:
            return add_control(self)
        families = (self.common, self.common, self.plain, self.plain, self.shaped, self.axed)
        family = self.pick([family for family in families if family])
        op = self.pick(family)
        found = self._arguments(op)
        if found is None:
            return 0
        args, attrs = found
        return 0 if self.add(op, args, attrs) is None else 1

    def _arguments(self, op: OpDef) -> tuple[list[Node], Attrs] | None:
        if op.name in ARGUMENTS:
            return ARGUMENTS[op.name](self)
        x = self.recent()
        if x is None:
            return None
        if op.attrs:
            if not x.shape:
                return None
            if op.attrs == ("axes",):
                count = int(self.rng.integers(1, len(x.shape) + 1))
                axes = sorted(int(a) for a in self.rng.choice(len(x.shape), size=count, replace=False))
                return [x] * (op.arity or 1), {"axes": tuple(axes)}
            attrs: Attrs = {
                "axis": int(self.rng.integers(len(x.shape))),
                "reverse": bool(self.rng.random() < 0.5),
            }
            return [x] * (op.arity or 1), attrs
        args = [x]
        for _ in range((op.arity or 1) - 1):
            other = self.matching(x.type)
            if other is None:
                return None
            args.append(other)
        if self.rng.random() < 0.5:
            args.reverse()
        return args, {}

    def matching(self, type: Type) -> Node | None:
        """A node of ``type``: one that is there, one that can be broadcast or reshaped, or a constant."""
        chance = self.rng.random()
        if chance < 0.2:
            return self.constant(type)
        if chance < 0.5:
            x = self.recent(lambda node: node.dtype == type.dtype and _broadcasts(node.shape, type.shape))
            return None if x is None else self.add(REGISTRY["broadcast_to"], [x], {"shape": type.shape})
        if chance < 0.6:
            x = self.recent(lambda node: node.dtype == type.dtype and node.type.size == type.size)
            return None if x is None else self.add(REGISTRY["reshape"], [x], {"shape": type.shape})
        return self.recent(lambda node: node.type == type)

    def constant(self, type: Type) -> Node | None:
        """A spread scalar (often one that rules look for) or a small array."""
        if self.rng.random() < 0.8 or type.size > 16:
            value = self.pick([0.0, 1.0, 2.0, -1.0, 0.5, 3.0, -0.0, 0.37])
            return self.filled(value, type)
        return self.const(np.asarray(self.rng.uniform(-2, 2, type.shape)).astype(type.dtype))

    def filled(self, value: float, type: Type) -> Node | None:
        """One number in every element of ``type``; None if it is too large."""
        with np.errstate(invalid="ignore"):
            scalar = self.const(np.asarray(value).astype(type.dtype))
        if not type.shape:
            return scalar
        return self.add(REGISTRY["broadcast_to"], [scalar], {"shape": type.shape})

    def const(self, array: np.ndarray) -> Node:
        value = ConstValue(array)
        node = Node(REGISTRY["const"], (), {"value": value}, Type(array.dtype, array.shape))
        self.nodes.append(node)
        self.values[node] = value.array
        return node

    def add(self, op: OpDef, args: list[Node], attrs: Attrs) -> Node | None:
        """The new node, or None when its type, size or value does not do."""
        try:
            type = op.infer(*[arg.type for arg in args], **attrs)
        except (GraphjitError, TypeError):
            return None
        if type.size > MAX_ELEMENTS:
            return None
        value = self._value(op, args, attrs)
        if value is None:
            return None
        node = Node(op, tuple(args), {name: attrs[name] for name in op.attrs}, type)
        self.nodes.append(node)
        self.values[node] = value
        return node

    def _value(self, op: OpDef, args: list[Node], attrs: Attrs) -> np.ndarray | None:
        """The op's value unless it is wild or hangs on the last bits of its arguments."""
        values = self.all_values(op, args, attrs)
        return None if values is None else values[0]

    def all_values(self, op: OpDef, args: list[Node], attrs: Attrs) -> list[np.ndarray] | None:
        """The same for all results."""
        given = [self.values[arg] for arg in args]
        if op.name in SMOOTH and not SMOOTH[op.name](*given):
            return None
        around = zip(*map(self._moved, given), strict=True) if given else ()
        try:
            with np.errstate(all="ignore"):
                values, *others = (_results(op.impl(*x, **attrs)) for x in (given, *around))
        except (ArithmeticError, LookupError, ValueError):
            return None
        tame = all(self._tame(x, y) for other in others for x, y in zip(values, other, strict=True))
        return values if tame else None

    def _tame(self, value: np.ndarray, other: np.ndarray) -> bool:
        """Whether a value is neither wild nor other than that of slightly moved arguments."""
        if value.dtype.kind == "f":
            if not np.abs(value).max(initial=0.0) < MAX_VALUE:
                return False
            return bool((np.abs(other - value) <= 1e-4 * (0.01 + np.abs(value))).all())
        if value.dtype.kind in "iu" and np.abs(value.astype(np.int64)).max(initial=0) > MAX_VALUE:
            return False
        return np.array_equal(value, other)

    def _moved(self, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``value`` with every float off by up to a part in a million, 0.0 too, one way and the other."""
        if value.dtype.kind != "f":
            return value, value
        step = (np.abs(value) + 1e-3) * self.rng.uniform(-1e-6, 1e-6, value.shape)
        return np.asarray(value + step).astype(value.dtype), np.asarray(value - step).astype(value.dtype)

    def _outputs(self, inputs: list[Node]) -> list[Node]:
        used = {arg for node in self.nodes for arg in node.args}
        sinks = [node for node in self.nodes if node not in used and node.op.name != "const"]
        if self.differentiable:
            sinks = [node for node in self.nodes if node.dtype == F64 and node.op.name != "const"][-2:]
        count = int(self.rng.integers(1, 9))
        return sinks[-count:] or inputs[:1]


def _results(values: Any) -> list[np.ndarray]:
    """The results of an op, of which most have one."""
    return [np.asarray(x) for x in (values if isinstance(values, tuple) else (values,))]


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    lead = len(target) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, target[lead:], strict=True))


# --------------------------------------------------------------------------- arguments of ops with attributes

Found = tuple[list[Node], Attrs] | None


def _reshape(maker: _Maker) -> Found:
    x = maker.recent()
    if x is None:
        return None
    shape = list(x.shape)
    choice = maker.rng.integers(4)
    if choice == 0:
        shape = [x.type.size]
    elif choice == 1:
        shape.insert(int(maker.rng.integers(len(shape) + 1)), 1)
    elif choice == 2:
        shape = [n for n in shape if n != 1]
    else:
        order = [int(p) for p in maker.rng.permutation(len(shape))]
        shape = [shape[p] for p in order]
    return [x], {"shape": tuple(shape)}


def _transpose(maker: _Maker) -> Found:
    x = maker.recent(lambda node: len(node.shape) > 1)
    return None if x is None else ([x], {"perm": tuple(int(p) for p in maker.rng.permutation(len(x.shape)))})


def _broadcast_to(maker: _Maker) -> Found:
    x = maker.recent()
    if x is None:
        return None
    shape = [int(maker.rng.choice(AXES)) if n == 1 else n for n in x.shape]
    lead = [int(maker.rng.choice(AXES)) for _ in range(maker.rng.integers(0, 3))]
    return [x], {"shape": (*lead, *shape)}


def _slice(maker: _Maker) -> Found:
    x = maker.recent(lambda node: bool(node.shape))
    if x is None:
        return None
    starts, limits, steps = [], [], []
    for n in x.shape:
        start = int(maker.rng.integers(0, n + 1)) if maker.rng.random() < 0.3 else 0
        starts.append(start)
        limits.append(int(maker.rng.integers(start, n + 1)) if maker.rng.random() < 0.3 else n)
        steps.append(int(maker.rng.choice([1, 1, 2])))
    return [x], {"starts": tuple(starts), "limits": tuple(limits), "steps": tuple(steps)}


def _embed(maker: _Maker) -> Found:
    x = maker.recent(lambda node: bool(node.shape))
    if x is None:
        return None
    starts = tuple(int(maker.rng.integers(0, 3)) for _ in x.shape)
    steps = tuple(int(maker.rng.choice([1, 1, 2])) for _ in x.shape)
    rows = zip(x.shape, starts, steps, strict=True)
    shape = tuple(s + max(0, (n - 1) * t + 1) + int(maker.rng.integers(0, 2)) for n, s, t in rows)
    return [x], {"shape": shape, "starts": starts, "steps": steps}


def _flip(maker: _Maker) -> Found:
    x = maker.recent(lambda node: bool(node.shape))
    if x is None:
        return None
    return [x], {"axes": tuple(a for a in range(len(x.shape)) if maker.rng.random() < 0.6)}


def _contract(maker: _Maker) -> Found:
    x = maker.recent(lambda node: bool(node.shape) and node.dtype.kind in "fi")
    y = (
        None
        if x is None
        else maker.recent(lambda node: node.dtype == x.dtype and bool(set(node.shape) & set(x.shape)))
    )
    if x is None or y is None:
        return None
    pairs: list[tuple[int, int]] = []
    for i in maker.rng.permutation(len(x.shape)):
        free = [j for j, n in enumerate(y.shape) if n == x.shape[i] and all(j != q for _, q in pairs)]
        if free and (not pairs or maker.rng.random() < 0.5):
            pairs.append((int(i), int(maker.rng.choice(free))))
    lead = int(maker.rng.random() < 0.3)
    batch, contract = pairs[:lead], pairs[lead:]
    return [x, y], {"contract": _unzip(contract), "batch": _unzip(batch)}


def _correlate(maker: _Maker) -> Found:
    x = maker.recent(lambda node: len(node.shape) == 1 and node.dtype.kind in "fi")
    w = None if x is None else maker.recent(lambda node: len(node.shape) == 1 and node.dtype == x.dtype)
    if x is None or w is None:
        return None
    n, m = x.shape[0], w.shape[0]
    low, length = int(maker.rng.integers(-1, m + 1)), int(maker.rng.integers(0, n + m + 1))
    return [x, w], {"low": low, "length": length}


def _unzip(pairs: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(i for i, _ in pairs), tuple(j for _, j in pairs)


def _select(maker: _Maker) -> Found:
    x = maker.recent()
    y = None if x is None else maker.matching(x.type)
    if x is None or y is None:
        return None
    condition = maker.recent(lambda node: node.dtype == BOOL and _broadcasts(node.shape, x.shape))
    if condition is None:
        value = maker.matching(x.type)
        condition = None if value is None else maker.add(REGISTRY["lt"], [x, value], {})
    elif condition.shape != x.shape:
        condition = maker.add(REGISTRY["broadcast_to"], [condition], {"shape": x.shape})
    if condition is None:
        return None
    return [condition, x, y] if maker.rng.random() < 0.5 else [condition, y, x], {}


def _convert(maker: _Maker) -> Found:
    x = maker.recent()
    if x is None:
        return None
    targets = [F64, F32, BOOL] if x.dtype.kind == "f" else [F64, F32, I64, BOOL, np.dtype(np.int32)]
    if maker.differentiable:
        targets = [F64, F32]
    return [x], {"dtype": maker.pick(targets)}


def _iota(maker: _Maker) -> Found:
    shape = maker.shape() or (4,)
    return [], {"dtype": maker.pick([F64, I64]), "shape": shape, "axis": int(maker.rng.integers(len(shape)))}


def _diagonal(maker: _Maker) -> Found:
    shape = (*maker.shape()[:1], 3, int(maker.rng.choice([3, 4])))
    first = len(shape) - 2
    offset = int(maker.rng.integers(-1, 2))
    return [], {"shape": shape, "first": first, "second": first + 1, "offset": offset}


def _positions(maker: _Maker, shape: tuple[int, ...], axes: tuple[int, ...]) -> list[Node] | None:
    """Index nodes in range for ``axes`` of ``shape``: constants, or any integers of the graph forced into the
    range.
    """
    if any(shape[a] == 0 for a in axes):
        return None
    some = maker.recent(lambda node: node.dtype == I64 and node.type.size <= 16)
    if some is not None and maker.rng.random() < 0.5:
        nodes = []
        for a in axes:
            low = maker.filled(-shape[a], some.type)
            high = maker.filled(shape[a] - 1, some.type)
            inside = None if low is None else maker.add(REGISTRY["maximum"], [some, low], {})
            clipped = (
                None if inside is None or high is None else maker.add(REGISTRY["minimum"], [inside, high], {})
            )
            if clipped is None:
                return None
            nodes.append(clipped)
        return nodes
    block = tuple(int(maker.rng.integers(1, 5)) for _ in range(maker.rng.integers(0, 3)))
    return [maker.const(maker.rng.integers(-shape[a], shape[a], block, dtype=np.int64)) for a in axes]


def _gather(maker: _Maker) -> Found:
    x = maker.recent(lambda node: bool(node.shape))
    if x is None:
        return None
    axes = _some_axes(maker, x.shape)
    positions = _positions(maker, x.shape, axes)
    return None if positions is None else ([x, *positions], {"axes": axes})


def _scatter_add(maker: _Maker) -> Found:
    shape = maker.shape() or (3,)
    axes = _some_axes(maker, shape)
    positions = _positions(maker, shape, axes)
    if positions is None:
        return None
    rest = tuple(n for a, n in enumerate(shape) if a not in axes)
    updates = maker.matching(Type(maker.pick([F64, F32]), (*positions[0].shape, *rest)))
    return None if updates is None else ([updates, *positions], {"shape": shape, "axes": axes})


def _scatter_set(maker: _Maker) -> Found:
    x = maker.recent(lambda node: bool(node.shape))
    if x is None:
        return None
    axes = _some_axes(maker, x.shape)
    positions = _positions(maker, x.shape, axes)
    if positions is None:
        return None
    rest = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    updates = maker.matching(Type(x.dtype, (*positions[0].shape, *rest)))
    return None if updates is None else ([x, updates, *positions], {"axes": axes})


def _some_axes(maker: _Maker, shape: tuple[int, ...]) -> tuple[int, ...]:
    count = 1 if maker.rng.random() < 0.7 else len(shape)
    return tuple(sorted(int(a) for a in maker.rng.choice(len(shape), size=count, replace=False)))


def _polygamma(maker: _Maker) -> Found:
    x = maker.recent(lambda node: node.dtype.kind == "f")
    return None if x is None else ([x], {"n": int(maker.rng.integers(2, 4))})


def _rooted(maker: _Maker) -> Found:
    x = maker.recent(lambda node: node.dtype.kind == "f")
    return None if x is None else ([x], {"root": 2.0, "power": float(maker.rng.integers(1, 4))})


def _power(maker: _Maker) -> Found:
    x = maker.recent(lambda node: node.dtype.kind == "f")
    y = None if x is None else maker.matching(x.type)
    return None if x is None or y is None else ([x, y], {})


def _matrix(maker: _Maker) -> Node | None:
    """Matrices that are far from singular, the diagonal larger than the rest of a row together."""
    x = maker.recent(lambda node: node.dtype.kind == "f" and node.shape[-1:] == node.shape[-2:-1] != ())
    if x is None:
        return None
    small = maker.add(REGISTRY["arctan"], [x], {})
    factor = maker.filled(0.15, x.type)
    scaled = None if small is None or factor is None else maker.add(REGISTRY["mul"], [small, factor], {})
    eye = maker.const(np.eye(x.shape[-1], dtype=x.dtype) * 2)
    diagonal = maker.add(REGISTRY["broadcast_to"], [eye], {"shape": x.shape})
    if scaled is None or diagonal is None:
        return None
    return maker.add(REGISTRY["add"], [scaled, diagonal], {})


def _matrices(**attrs: tuple[Hashable, ...]) -> Callable[[_Maker], Found]:
    def arguments(maker: _Maker) -> Found:
        x = _matrix(maker)
        return None if x is None else ([x], {name: maker.pick(values) for name, values in attrs.items()})

    return arguments


def _system(maker: _Maker) -> Found:
    x = _matrix(maker)
    if x is None:
        return None
    shape = (*x.shape[:-1], int(maker.rng.choice(AXES)))
    y = maker.recent(lambda node: node.dtype == x.dtype and node.shape[:-1] == x.shape[:-1])
    if y is None:
        y = maker.matching(x.type.with_shape(shape))
    return None if y is None else ([x, y], {"transposed": bool(maker.rng.random() < 0.5)})


ARGUMENTS: dict[str, Callable[[_Maker], Found]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "slice": _slice,
    "embed": _embed,
    "flip": _flip,
    "concatenate": random_concatenate,
    "splice": random_splice,
    "window": random_window,
    "pair_axes": random_pair,
    "fold": random_fold,
    "contract_windows": random_windowed_product,
    "contract": _contract,
    "correlate": _correlate,
    "select": _select,
    "convert": _convert,
    "iota": _iota,
    "diagonal": _diagonal,
    "gather": _gather,
    "scatter_add": _scatter_add,
    "scatter_set": _scatter_set,
    "polygamma": _polygamma,
    "rooted": _rooted,
    "pow": _power,
    "fmod": _power,
    "solve": _system,
    "triangular_solve": _system,
    "inverse": _matrices(checked=(True, False)),
    "logabsdet": _matrices(),
    "det": _matrices(),
    "cholesky": _matrices(),
}
"""Ops whose arguments must fit each other or their attributes; pow and fmod are here to stay with floats,
logabsdet, det and cholesky to stay with regular matrices, whose determinants have a sign."""
