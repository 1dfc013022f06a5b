"""Where the first NaN or infinity came from: `debug_nans`.

Job: after a run whose results hold a NaN or an infinity that its arguments did not hold, run the traced graph
once more, node by node, and name the operation that made the first one.
Input: a graph, its arguments, its results. Output: nothing, or a FloatingPointError.
Invariants: what was given (an argument, a constant of the program such as ``-np.inf``) is nobody's fault;
only what leads to the results counts, so an infinity that ``np.where`` took out does not.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from graphjit import config
from graphjit.backend.llvm.entry.callable import calls_fall_back
from graphjit.interpret import evaluate
from graphjit.ir.names import one_line
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.opdef import Scalar
from graphjit.ir.rule import Rule
from graphjit.ir.types import Type
from graphjit.ops.control import words
from graphjit.transforms.substitute import body_of

_watched: ContextVar[bool] = ContextVar("graphjit_debug_nans", default=config.debug_nans)


def watched() -> bool:
    """Whether results are looked at in this thread."""
    return _watched.get()


@contextmanager
def debug_nans(enable: bool = True) -> Iterator[None]:
    """Look for the operation that makes a NaN or an infinity, inside a ``with`` block.

    A call whose results hold a NaN or an infinity that its arguments did not hold is an error then. It names
    the operation that made the first one, its line, whether that was in the function itself or in its
    derivative, and the values it had. Infinities that the program itself writes (``-np.inf`` in a mask) are
    no error, nor are those that do not reach the results.

    ``GRAPHJIT_DEBUG_NANS=1`` does the same for a whole process.

    Parameters
    ----------
    enable : bool, optional
        False looks at nothing inside another ``debug_nans()``.

    Yields
    ------
    None
        Inside of the block calls take the slow way: some dozen microseconds more. Outside of it nothing
        changes.

    Raises
    ------
    FloatingPointError
        At a call inside of the block. Arguments that the function changes in place keep their values.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> slope = graphjit.grad(lambda x: np.sum(np.sqrt(x)))
    >>> slope(np.array([4.0, 0.0]))
    array([0.25,  inf])
    >>> with graphjit.debug_nans():
    ...     try:
    ...         slope(np.array([4.0, 0.0]))
    ...     except FloatingPointError as error:
    ...         print(str(error).partition(" at ")[0])
    <lambda>: a result holds an infinity. The first came from div
    """
    before = _watched.set(enable)
    try:
        # Native code would be entered without asking anybody.
        with calls_fall_back() if enable else nullcontext():
            yield
    finally:
        _watched.reset(before)


def check(
    arguments: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    name: str,
    program: Callable[[], tuple[Graph, Sequence[np.ndarray]]],
) -> None:
    """Look at the results of a run. ``program`` gives the graph whose first outputs they are, and its inputs.

    Raises:
        FloatingPointError: they hold a NaN or an infinity that came up on the way.
    """
    nan = _any(np.isnan, results) and not _any(np.isnan, arguments)
    if not nan and not (_any(np.isinf, results) and not _any(np.isinf, arguments)):
        return
    graph, inputs = program()
    run = _Run(dict(zip(graph.inputs, inputs, strict=True)))
    run.through(graph)
    outputs = graph.outputs[: len(results)]
    head = f"{name}: a result holds {'a NaN' if nan else 'an infinity'}"
    account = run.account(outputs, nan)
    if account is not None:
        raise FloatingPointError(f"{head}. {account}")
    if not _any(np.isnan if nan else np.isinf, [run.arrays[node] for node in outputs]):
        raise FloatingPointError(
            f"{head}, but the same operations one by one, in NumPy, make none: a defect of graphjit, or a value at the edge of its range. "
            "The documentation has a page about finding a wrong result"
        )


def _any(test: Any, arrays: Sequence[np.ndarray]) -> bool:
    return any(bool(np.any(test(array))) for array in arrays if array.dtype.kind == "f")


@dataclass(frozen=True)
class Maker:
    """A node that made a NaN or an infinity of values that held none."""

    node: Node
    arguments: tuple[np.ndarray, ...]
    value: np.ndarray
    place: tuple[int, ...]
    """The first place where it did."""
    inside: tuple[str, ...]
    """Where it is in bodies, the outermost first: ``in step 3 of f``."""
    order: tuple[int, ...]
    """Numbers that are smaller for what runs earlier."""

    @property
    def is_nan(self) -> bool:
        """Whether it made a NaN."""
        return bool(np.isnan(self.value[self.place]))

    def text(self) -> str:
        """For people: operation, line, part of the program, values."""
        inside = "".join(f" ({text})" for text in self.inside)
        return f"{self.node.op.name}{_line(self.node)}, {_part(self.node)}{inside}: {self._equation()}"

    def _equation(self) -> str:
        """``div(1.0, 0.0) = inf in place [2] of f64[5]``."""
        alike = _elementwise(self.node, self.arguments)
        given = [_scalar(x[self.place]) if alike else _summary(x) for x in self.arguments]
        text = f"{self.node.op.name}({', '.join(given)}) = {_scalar(self.value[self.place])}"
        place = f"[{', '.join(map(str, self.place))}]"
        return f"{text} in place {place} of {self.node.type}" if self.place else text


def _first(makers: Iterable[Maker]) -> Maker | None:
    """The one that comes first in the program."""
    return min(makers, key=lambda maker: maker.order, default=None)


def _part(node: Node) -> str:
    """Which part of the program a node belongs to."""
    if node.origin.startswith("vjp"):
        return f"in the backward part ({node.origin})"
    return f"in the derivative ({node.origin})" if node.origin.startswith("jvp") else "in the forward part"


def _line(node: Node) -> str:
    """Where the user's code is, and what stands there."""
    if node.loc is None:
        return ""
    source = one_line(linecache.getline(node.loc.file, node.loc.line).strip())
    return f" at {node.loc}" + (f" ({source})" if source else "")


def _scalar(value: Any) -> str:
    return str(value.item())


def _summary(value: np.ndarray) -> str:
    """An argument of an operation that reads more than one place of it: type and range."""
    if not value.shape:
        return _scalar(value)
    kind = str(Type(value.dtype, value.shape))
    finite = value[np.isfinite(value)]
    if not finite.size or value.dtype.kind == "b":
        return kind
    return f"{kind} from {_scalar(finite.min())} to {_scalar(finite.max())}"


def _elementwise(node: Node, arguments: Sequence[np.ndarray]) -> bool:
    """Whether a result depends on the arguments at the same place alone."""
    return isinstance(node.op.lower, Scalar) and all(x.shape == node.shape for x in arguments)


class _Value(NamedTuple):
    """A value, and who made the first NaN or infinity in it."""

    array: Any
    maker: Maker | None
    nan: Maker | None
    """The same for NaNs alone."""


class _Run:
    """All values of a graph, and who made the first NaN or infinity of those that lead to each (no entry: all
    of them were given).
    """

    def __init__(
        self, given: dict[Node, np.ndarray], inside: tuple[str, ...] = (), order: tuple[int, ...] = ()
    ) -> None:
        self.arrays: dict[Node, Any] = given
        self.inside = inside
        self.order = order
        self.makers: dict[Node, Maker] = {}
        self.nans: dict[Node, Maker] = {}
        """The same for NaNs alone."""
        self.parts: dict[Node, list[_Value]] = {}
        """The results of nodes with bodies."""

    def through(self, graph: Graph) -> None:
        """Compute node by node."""
        for node in graph.nodes():
            if node in self.arrays:
                continue
            if node.op.name in _WITH_BODIES:
                self.parts[node] = _WITH_BODIES[node.op.name](
                    self, node, [self.value(arg) for arg in node.args]
                )
                if not node.is_bundle:
                    self.take(node, self.parts[node][0])
            elif node.op.name == "item":
                self.take(node, self.parts[node.args[0]][int(node.attrs["index"])])  # type: ignore[call-overload]
            else:
                with np.errstate(all="ignore"):
                    self.arrays[node] = evaluate(node, [self.arrays[arg] for arg in node.args])
                self.blame(node, node.args)

    def value(self, node: Node) -> _Value:
        """A value that is there."""
        return _Value(self.arrays.get(node), self.makers.get(node), self.nans.get(node))

    def take(self, node: Node, value: _Value) -> None:
        """A value that comes from elsewhere: an argument of a body, or a result of one."""
        self.arrays[node] = value.array
        for mine, maker in ((self.makers, value.maker), (self.nans, value.nan)):
            if maker is not None:
                mine[node] = maker

    def within(
        self, node: Node, graph: Graph, values: Sequence[_Value], where: str, step: int = 0
    ) -> list[_Value]:
        """The outputs of a body of ``node``: what is wrong with its arguments is so with the inputs."""
        inner = _Run({}, (*self.inside, where), (*self.order, node.serial, step))
        for x, value in zip(graph.inputs, values, strict=True):
            inner.take(x, value)
        inner.through(graph)
        return [inner.value(out) for out in graph.outputs]

    def blame(self, node: Node, args: tuple[Node, ...]) -> None:
        """Find out who made what is wrong with the value of ``node``, which is computed from ``args``."""
        value, given = self.arrays[node], tuple(self.arrays[arg] for arg in args)
        if value.dtype.kind != "f" or not args:
            return
        wrong = ~np.isfinite(value)
        if not wrong.any():
            return
        alike = _elementwise(node, given)
        nan_before, any_before = np.zeros(value.shape, bool), np.zeros(value.shape, bool)
        guilty = []
        for arg, array in zip(args, given, strict=True):
            if array.dtype.kind == "f":
                nan, bad = np.isnan(array), ~np.isfinite(array)
                nan_before |= nan if alike else nan.any()
                any_before |= bad if alike else bad.any()
                if (bad & wrong if alike else bad).any():
                    guilty.append(arg)
        nan = np.isnan(value)
        own = self.maker(node, given, (nan & ~nan_before) | (~nan & wrong & ~any_before))
        own_nan = self.maker(node, given, nan & ~nan_before)
        for makers, maker in ((self.makers, own), (self.nans, own_nan)):
            found = _first(makers[arg] for arg in guilty if arg in makers) or maker
            if found is not None:
                makers[node] = found

    def maker(self, node: Node, given: tuple[np.ndarray, ...], places: np.ndarray) -> Maker | None:
        """``node``, if it made something itself in one of these places."""
        if not places.any():
            return None
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(places)), places.shape))
        return Maker(node, given, self.arrays[node], place, self.inside, (*self.order, node.serial))

    def account(self, outputs: Sequence[Node], nan: bool) -> str | None:
        """Who made the first NaN (or infinity) that leads to ``outputs``, for people; None: it was given."""
        first = _first(self.makers[node] for node in outputs if node in self.makers)
        first_nan = _first(self.nans[node] for node in outputs if node in self.nans) if nan else None
        if first is None or first_nan is None:
            only = first_nan or first
            return None if only is None else f"The first came from {only.text()}"
        if first.is_nan or first.order == first_nan.order:
            return f"The first came from {first_nan.text()}"
        return f"The first infinity came from {first.text()}. The first NaN came from {first_nan.text()}"


# ---------------------------------------------------------------------------------------- nodes with bodies


def _custom(run: _Run, node: Node, values: Sequence[_Value]) -> list[_Value]:
    rule, graph = node.attrs["rule"], body_of(node)
    name = rule.name if isinstance(rule, Rule) else graph.name
    return run.within(node, graph, values, f"in the body of {name}")


def _scan(run: _Run, node: Node, values: Sequence[_Value]) -> list[_Value]:
    body, carried, sliced, length, reverse = (cast(Any, value) for value in node.attrs.values())
    graph, first = body.graph, len(values) - sliced
    constants, carries, arrays = (
        values[: first - carried],
        list(values[first - carried : first]),
        values[first:],
    )
    rows: dict[int, list[_Value]] = {}
    for t in reversed(range(length)) if reverse else range(length):
        elements = [value._replace(array=value.array[t, ...]) for value in arrays]
        made = run.within(
            node, graph, [*constants, *carries, *elements], f"in step {t} of {graph.name}", len(rows)
        )
        carries, rows[t] = made[:carried], made[carried:]
    stacked = []
    for k, out in enumerate(graph.outputs[carried:]):
        array = np.zeros((length, *out.shape), out.dtype)
        column = [row[k] for row in rows.values()]
        for t, row in rows.items():
            array[t] = row[k].array
        stacked.append(_Value(array, *(_first(x for x in found if x) for found in _makers(column))))
    return [*carries, *stacked]


def _makers(values: Sequence[_Value]) -> tuple[list[Maker | None], list[Maker | None]]:
    return [value.maker for value in values], [value.nan for value in values]


def _while(run: _Run, node: Node, values: Sequence[_Value]) -> list[_Value]:
    test, body, carried, taped = (cast(Any, value) for value in node.attrs.values())
    constants, carries = values[: len(values) - carried], list(values[len(values) - carried :])
    tapes: list[Any] = [None] * taped
    step = 0
    while run.within(node, test.graph, [*constants, *carries], "")[0].array:
        where = f"in step {step} of {body.graph.name}"
        made = run.within(node, body.graph, [*constants, *carries], where, step)
        carries, tapes, step = made[:carried], list(zip(made[carried:], tapes, strict=True)), step + 1
    return [*carries, *(_Value(word, None, None) for word in words(body, tapes))]


def _unwind(run: _Run, node: Node, values: Sequence[_Value]) -> list[_Value]:
    body, carried, count = (cast(Any, value) for value in node.attrs.values())
    graph, first = body.graph, len(values) - count
    constants, carries = values[: first - carried], list(values[first - carried : first])
    read = [value.array[()][0] for value in values[first:]]
    written: list[Any] = [None] * (len(graph.outputs) - carried)
    step = 0
    while read[0] is not None:
        kept, read = [tape[0] for tape in read], [tape[1] for tape in read]
        where = f"in step {step} from the end of {graph.name}"
        made = run.within(node, graph, [*constants, *carries, *kept], where, step)
        carries, written = made[:carried], list(zip(made[carried:], written, strict=True))
        step += 1
    return [*carries, *(_Value(word, None, None) for word in words(body, written))]


def _cond(run: _Run, node: Node, values: Sequence[_Value]) -> list[_Value]:
    branches = cast("tuple[Body, ...]", node.attrs["branches"])
    graph = branches[min(max(int(values[0].array), 0), len(branches) - 1)].graph
    return run.within(node, graph, values[1:], f"in the branch {graph.name}")


_WITH_BODIES: dict[str, Callable[[_Run, Node, Sequence[_Value]], list[_Value]]] = {
    "custom": _custom,
    "scan": _scan,
    "while": _while,
    "unwind": _unwind,
    "cond": _cond,
}
"""Ops with graphs inside, which are looked into: the results."""
