"""From a call to a graph: which leaves of its arguments are dynamic, static or refused, and the one run of
the function on traced values.

Job: classify the leaves, run the function once inside a trace, collect the arrays that it captured from
outside and the guards on what it looked up.
Input: function, arguments. Output: `Staged` (graph, results, captured arrays, guards).
Invariants: what an argument may be is decided in `classify` alone; a function that draws random numbers, or
returns a traced value of another call, is refused.

Example: of a call ``f(np.ones(3), 2, "tanh")`` the array and the number become inputs of the graph,
``"tanh"`` is static: another string means another trace.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphjit.backend.llvm.entry.callable import calls_fall_back
from graphjit.backend.signature import Guard
from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import F64, I64, Type
from graphjit.trace import nonfinite
from graphjit.trace.arrays.layout import canonical_strides, standing_for
from graphjit.trace.effects import Told, codes_called, tellable
from graphjit.trace.marks import declares
from graphjit.trace.numpy import registry as _registry  # noqa: F401  (fills the tables of NumPy functions)
from graphjit.trace.numpy.patches import recording
from graphjit.trace.outside.captured_class import is_array, lent
from graphjit.trace.outside.captured_methods import watch, watch_all
from graphjit.trace.outside.check_guards import SMALL, guard_text, holds
from graphjit.trace.outside.find_guards import find_guards
from graphjit.trace.outside.untraced_code import plain_handlers
from graphjit.trace.recording.concrete import Values
from graphjit.trace.recording.recorder import LongTrace, as_it_is
from graphjit.trace.recording.tracer import Trace, Tracer, check_dtype
from graphjit.trace.results import Results, results_of
from graphjit.trace.rolling import rolled
from graphjit.trace.statics import Exact

LONG = 4_000
"""Nodes of a trace from which on its loops are looked at, to record them as a whole."""


class Leaf(NamedTuple):
    """How one leaf of the arguments takes part: ``kind`` is array, scalar (NumPy), number (Python) or
    static.
    """

    kind: str
    type: Type | None
    value: Any = None
    """Of a static leaf itself (`Exact`); of an array that is not row-major its strides
    (`layout.canonical_strides`).
    """


def classify(leaf: Any) -> Leaf:
    """The part a leaf plays in a signature.

    Raises:
        UnsupportedError: masked arrays, pandas objects, other array subclasses, unsupported dtypes.
        TraceError: an unhashable static argument.
    """
    kind = type(leaf)
    if is_array(leaf) or kind is np.memmap:
        check_dtype(leaf.dtype if leaf.dtype.isnative else leaf.dtype.newbyteorder("="))
        return Leaf(
            "array",
            Type(leaf.dtype.newbyteorder("="), leaf.shape),
            None if leaf.flags.c_contiguous else canonical_strides(leaf),
        )
    if kind is float:
        return Leaf("number", Type(F64, ()))
    if kind is int:
        if not -(2**63) <= leaf < 2**63:
            raise OverflowError(f"the Python int {leaf} does not fit into int64")
        return Leaf("number", Type(I64, ()))
    if isinstance(leaf, np.generic):
        check_dtype(leaf.dtype)
        return Leaf("scalar", Type(leaf.dtype, ()))
    name = f"{kind.__module__}.{kind.__name__}"
    if kind.__module__.startswith("scipy.sparse"):
        raise UnsupportedError(
            f"an argument of type {name} is not compiled: pass x.toarray() where it is small, else its arrays (x.data with x.indices and x.indptr, "
            "or of x.tocoo() x.data, x.row, x.col), and write the product with np.add.at or a sum over gathered rows"
        )
    if issubclass(kind, np.ndarray) or declares(leaf, "__array__", "__array_interface__"):
        raise UnsupportedError(
            f"an argument of type {name} is not compiled: pass a plain ndarray, for example {_plain_array(kind)}"
        )
    if declares(leaf, "__next__"):
        raise TraceError(
            f"an argument of type {kind.__name__} can be read only once, so its values would be compiled in; pass a list, a tuple or an array"
        )
    try:
        static = Exact(leaf)
    except TypeError:
        raise TraceError(
            f"an argument of type {kind.__name__} is neither an array, a number, a registered container nor hashable; "
            "register its class with graphjit.register_pytree_node or pass its arrays"
        ) from None
    return Leaf("static", None, static)


def _plain_array(kind: type) -> str:
    """The expression that makes an ndarray of an instance of this class, for messages."""
    if issubclass(kind, np.ma.MaskedArray):
        return "x.filled(value), or x.data and x.mask as two arguments"
    return (
        "x.to_numpy()"
        if kind.__module__.partition(".")[0] in ("pandas", "polars", "xarray")
        else "np.asarray(x)"
    )


@dataclass
class Staged:
    """A traced call."""

    graph: Graph
    results: Results
    captured: list[np.ndarray]
    guards: tuple[Guard, ...]
    told: Told
    """What happens after each run; its values are the last outputs of the graph."""

    def holds(self) -> bool:
        """Whether what the function looked up while it was traced is still the same."""
        return self.changed() is None

    def changed(self) -> str | None:
        """What was changed since, for people; None when nothing was."""
        nodes = self.graph.inputs[len(self.graph.inputs) - len(self.captured) :]
        for array, node in zip(self.captured, nodes, strict=True):
            if array.shape != node.shape or array.dtype != node.dtype:
                return f"a captured array of type {node.type} has become {array.dtype}{list(array.shape)}"
        return next((f"{guard_text(guard)} was changed" for guard in self.guards if not holds(guard)), None)


def stage(
    function: Callable[..., Any],
    name: str,
    leaves: Sequence[Leaf],
    call: Callable[[list[Any]], Any],
    static: Sequence[Any] = (),
    names: Sequence[str] = (),
    derivative: bool = False,
    rolls: bool = True,
    converts: bool = True,
) -> Staged:
    """Trace ``call(traced leaves)``; ``function`` is the user's function and ``static`` its static arguments,
    for guards; ``names`` are the leaves' for people; ``rolls`` is whether its loops are rolled up again.
    ``converts``: if Python's control flow needs a traced value, it is traced once more with all functions
    converted (`trace.converted`); so it is if the trace becomes long, to record loops as a whole.
    """

    def once(
        user: Callable[[Any], Any] | None = None, patience: float = math.inf, whole: Any = None
    ) -> Staged:
        return _staged(
            function, name, leaves, call, static, names, derivative, rolls, user, (patience, whole)
        )

    def as_it_is(patience: float) -> Staged:
        try:
            return once(None, patience)
        except TraceError as error:
            if not converts or not getattr(error, "decides", False):
                raise
            from graphjit.trace.retry import traced_again  # not needed before

            return traced_again(error, name, lambda user: once(user, patience))

    if not (converts and rolls):
        return as_it_is(math.inf)
    try:
        return as_it_is(LONG)
    except LongTrace:
        from graphjit.trace.retry import traced_whole  # not needed before

        found = traced_whole(name, function, lambda user, whole: once(user, LONG, whole))
        return as_it_is(math.inf) if found is None else found


@contextmanager
def unconverted(trace: Trace) -> Iterator[None]:
    """Convert no function meanwhile: what needs it is an error."""
    user, trace.user = trace.user, as_it_is
    try:
        yield
    except TraceError as error:
        error.decides = False  # type: ignore[attr-defined]
        raise
    finally:
        trace.user = user


def _staged(
    function: Callable[..., Any],
    name: str,
    leaves: Sequence[Leaf],
    call: Callable[[list[Any]], Any],
    static: Sequence[Any],
    names: Sequence[str],
    derivative: bool,
    rolls: bool,
    user: Callable[[Any], Any] | None = None,
    loops: tuple[float, Any] = (math.inf, None),
) -> Staged:
    """`stage`, once; ``user`` gives what is called in place of a function of the user's. ``loops``: how many
    nodes are a long trace; what is known of loops that are recorded as a whole.
    """
    reach = find_guards(function, [*static, *_statics(leaves)])
    before = _states(reach.generators)
    with (
        plain_handlers(),
        recording(),
        calls_fall_back(),
        Trace() as trace,
        lent([] if reach.exact else reach.arrays, not reach.exact) as trace.lend,
    ):
        trace.user = user or trace.user
        if reach.opaque or reach.exact:
            watch_all(trace, reach.arrays)
        inputs, values = _inputs(trace, leaves, names)
        arguments = [(tracer, tracer._node) for tracer in trace.arguments]
        trace.rolls = rolls
        patience, trace.whole = loops
        trace.patience = inputs[-1].serial + patience if inputs else math.inf
        trace.fresh = derivative  # the derivative is the whole function: nothing else can hold its arguments
        result = call(values)
        if _states(reach.generators) != before:
            raise TraceError(
                f"{name} draws from a random generator while it is traced: the numbers would be baked into the compiled code and come back "
                "at every call. Draw outside and pass the numbers as an argument."
            )
        results = results_of(trace, result, arguments, derivative)
        held = [node for _, node in trace.captured.values()]
        told = Told.of(tellable(trace.builder.told.effects, [*inputs, *held]))
        nodes = rolled(trace, [*results.nodes, *told.nodes])
        if len(nodes) > 0 and (foreign := _foreign(nodes, inputs, trace)):
            raise _out_of_place(trace, nodes, foreign)
    _name_leaks(reach.stores)
    captured, hidden, constants = _captured(trace, nodes, set(map(id, reach.arrays)))
    graph = Graph(name, [*inputs, *hidden], nodes)
    if constants:
        graph = _with_constants(trace, graph, constants)
    called = codes_called(trace.builder.told.functions, graph)
    if called:  # what they read and change is their own affair
        reach = find_guards(function, [*static, *_statics(leaves)], called)
    return Staged(graph, results, captured, (*reach.guards, *trace.contents.values()), told)


def _inputs(trace: Trace, leaves: Sequence[Leaf], names: Sequence[str]) -> tuple[list[Node], list[Any]]:
    """An input for each dynamic leaf, and what the function gets for each leaf: a tracer, or a static value
    itself.
    """
    inputs: list[Node] = []
    values: list[Any] = []
    for i, leaf in enumerate(leaves):
        if leaf.type is None:
            values.append(leaf.value.value)
            continue
        tracer = trace.input(leaf.type, names[i] if names else f"x{i}", leaf.kind)
        if leaf.value is not None:
            tracer._model = standing_for(leaf.type.shape, leaf.value)  # type: ignore[arg-type]
        inputs.append(tracer._node)
        values.append(tracer)
    return inputs, values


def _captured(
    trace: Trace, nodes: Sequence[Node], watched: set[int]
) -> tuple[list[np.ndarray], list[Node], dict[Node, Node]]:
    """The arrays that the function captured and their inputs; and the inputs of those that nobody else holds,
    with the constants that take their place.

    ``watched``: ids of the arrays that were seen before the trace.
    """
    arrays: list[np.ndarray] = []
    inputs: list[Node] = []
    constants: dict[Node, Node] = {}
    reached = set(Graph("", (), nodes).nodes()) if trace.contents else set()
    for key in list(trace.captured):
        array, node = trace.captured.pop(key)
        if key in trace.contents and node not in reached:
            continue  # only its present values were used, and they are guarded
        # Two references: this name and getrefcount's argument.  Nobody else can write to it: a constant.
        if array.base is None and sys.getrefcount(array) == 2:
            constants[node] = trace.builder.const(array, array.dtype)
        else:
            if id(array) not in watched and array.nbytes <= SMALL:
                watch(trace, array)  # met during the trace only: what was read before is not known
            arrays.append(array)
            inputs.append(node)
    return arrays, inputs, constants


def _with_constants(trace: Trace, graph: Graph, constants: dict[Node, Node]) -> Graph:
    """``graph`` with constants in place of these inputs."""
    used = [node for node in graph.nodes() if node in constants]
    whole = Graph(graph.name, [*graph.inputs, *used], graph.outputs)
    actual = (*graph.inputs, *[constants[node] for node in used])
    return Graph(graph.name, graph.inputs, trace.builder.inline(whole, actual))


def _name_leaks(stores: Iterable[tuple[str, dict[Any, Any]]]) -> None:
    """Note where the function left traced values (a global, an attribute): using one raises an error that
    names the place.
    """
    for what, namespace in stores:
        for name, value in list(namespace.items()):
            if issubclass(type(value), Tracer):
                with suppress(TraceError):  # values that are known belong to no trace
                    value._trace.leaks[id(value)] = f"{what} {name!r}"


def run_eagerly(
    leaves: Sequence[Any],
    kinds: Sequence[Leaf],
    call: Callable[[list[Any]], Any],
    names: Sequence[str],
    name: str,
    whole: bool,
) -> Any:
    """The result of ``call`` on traced leaves that know their values: computed while it is recorded, nothing
    compiled. ``name`` is the function's, ``names`` are the leaves'; ``whole`` is whether all results are the
    user's.
    """
    values = Values()
    with recording(), calls_fall_back(), Trace(values) as trace:
        traced: list[Any] = []
        for leaf, kind, text in zip(leaves, kinds, names, strict=True):
            if kind.type is None:
                traced.append(leaf)
            else:
                tracer = trace.input(kind.type, text, kind.kind)
                values.arrays[tracer._node] = np.asarray(leaf, kind.type.dtype)
                traced.append(tracer)
        arguments = [(tracer, tracer._node) for tracer in trace.arguments]
        trace.fresh = True
        results = results_of(trace, call(traced), arguments, derivative=True)
        outputs = [np.array(values.of(node)) for node in results.nodes]
        told = Told.of(tellable(trace.builder.told.effects, [node for _, node in arguments]))
        told_values = [np.array(values.of(node)) for node in told.nodes]
    told.happen(told_values)
    if whole and nonfinite.watched():
        inputs = [node for _, node in arguments]
        arrays = [np.asarray(values.arrays[node]) for node in inputs]
        nonfinite.check(arrays, outputs, name, lambda: (Graph(name, inputs, results.nodes), arrays))
    return results.deliver(outputs, traced)


def _statics(leaves: Sequence[Leaf]) -> list[Any]:
    """Arguments that are compiled in."""
    return [leaf.value.value for leaf in leaves if leaf.type is None]


def _states(generators: Iterable[Any]) -> list[bytes]:
    """The states of random generators, which change with every draw."""
    return [
        pickle.dumps(
            generator.bit_generator.state if hasattr(generator, "bit_generator") else generator.get_state()
        )
        for generator in generators
    ]


def _out_of_place(trace: Trace, nodes: Sequence[Node], foreign: Node) -> TraceError:
    """The error for a result that depends on what has no value in this call."""
    body = trace.stand_ins.get(foreign)
    if body is None:
        return TraceError(f"a traced value of another call leaked into the result: {foreign!r}")
    reads = (node.loc for node in Graph("", (), nodes).nodes() if foreign in node.args)
    where = next((f" at {loc}" for loc in reads if loc is not None), "")
    return TraceError(
        f"{body.what}: a value that {body.name} made{where} is used outside of it, where it has none: there is one for each step. Return it from "
        f"{body.name} instead"
    )


def _foreign(nodes: list[Node], inputs: list[Node], trace: Trace) -> Node | None:
    known = set(inputs) | {node for _, node in trace.captured.values()}
    for node in Graph("", (), nodes).nodes():
        if node.op.name == "input" and node not in known:
            return node
    return None
