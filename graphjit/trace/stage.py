"""From a call to a graph.

Job: classify the leaves of a call's arguments, trace the function once for their types, collect what it
captured.
Input: function, arguments.  Output: `Staged` (graph, structure of the result, captured arrays, guards).
Invariants: which leaves are dynamic, static or refused stands here and nowhere else; user arrays are written
only where the function writes its arguments.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphjit.backend.llvm.entry.callable import tracing
from graphjit.backend.signature import Guard
from graphjit.errors import TraceError, UnsupportedError
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import F64, I64, Type
from graphjit.trace.arrays.layout import canonical_strides, standing_for
from graphjit.trace.marks import declares
from graphjit.trace.numpy import registry as _registry  # noqa: F401  (fills the tables of NumPy functions)
from graphjit.trace.numpy.patches import recording
from graphjit.trace.outside.captured_class import is_array, lent
from graphjit.trace.outside.captured_methods import watch, watch_all
from graphjit.trace.outside.check_guards import SMALL, guard_text, holds
from graphjit.trace.outside.find_guards import find_guards
from graphjit.trace.outside.untraced_code import plain_handlers
from graphjit.trace.recording.concrete import Values
from graphjit.trace.recording.tracer import Trace, Tracer, check_dtype
from graphjit.trace.results import Results, results_of
from graphjit.trace.statics import Exact


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
    """How people make an ndarray of something that is nearly one."""
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
) -> Staged:
    """Trace ``call(traced leaves)``; ``function`` is the user's function and ``static`` its static arguments,
    for guards; ``names`` are the leaves' for people.
    """
    found = find_guards(function, [*static, *_statics(leaves)])
    generators = found.generators
    before = _states(generators)
    with (
        plain_handlers(),
        recording(),
        tracing(),
        Trace() as trace,
        lent([] if found.exact else found.arrays, not found.exact) as trace.lend,
    ):
        if found.opaque or found.exact:
            watch_all(trace, found.arrays)
        inputs: list[Node] = []
        values: list[Any] = []
        for i, leaf in enumerate(leaves):
            if leaf.type is None:
                values.append(leaf.value.value)
            else:
                tracer = trace.input(leaf.type, names[i] if names else f"x{i}", leaf.kind)
                if leaf.value is not None:
                    tracer._model = standing_for(leaf.type.shape, leaf.value)  # type: ignore[arg-type]
                inputs.append(tracer._node)
                values.append(tracer)
        arguments = [(tracer, tracer._node) for tracer in trace.arguments]
        trace.fresh = derivative  # the derivative is the whole function: nothing else can hold its arguments
        result = call(values)
        if _states(generators) != before:
            raise TraceError(
                f"{name} draws from a random generator while it is traced: the numbers would be baked into the compiled code and come back "
                "at every call. Draw outside and pass the numbers as an argument."
            )
        results = results_of(trace, result, arguments, derivative)
        nodes = results.nodes
        if len(nodes) > 0 and (leaked := _foreign(nodes, inputs, trace)):
            raise TraceError(f"a traced value of another call leaked into the result: {leaked!r}")
    _name_leaks(found.stores)
    known = set(map(id, found.arrays))
    captured = []
    hidden = []
    constants: dict[Node, Node] = {}
    reached = set(Graph(name, (), nodes).nodes()) if trace.contents else set()
    for key in list(trace.captured):
        array, node = trace.captured.pop(key)
        if key in trace.contents and node not in reached:
            continue  # only its present values were used, and they are guarded
        # Two references: this name and getrefcount's argument.  Nobody else can write to it: a constant.
        if array.base is None and sys.getrefcount(array) == 2:
            constants[node] = trace.builder.const(array, array.dtype)
        else:
            if id(array) not in known and array.nbytes <= SMALL:
                watch(trace, array)  # met during the trace only: what was read before is not known
            captured.append(array)
            hidden.append(node)
    graph = Graph(name, [*inputs, *hidden], nodes)
    if constants:
        used = [node for node in graph.nodes() if node in constants]
        whole = Graph(name, [*graph.inputs, *used], nodes)
        outs = trace.builder.inline(whole, (*graph.inputs, *[constants[node] for node in used]))
        graph = Graph(name, graph.inputs, outs)
    return Staged(graph, results, captured, (*found.guards, *trace.contents.values()))


def _name_leaks(stores: Iterable[tuple[str, dict[Any, Any]]]) -> None:
    """Say of traced values that the function left somewhere where they are: using one raises, with this
    name.
    """
    for what, namespace in stores:
        for name, value in list(namespace.items()):
            if issubclass(type(value), Tracer):
                with suppress(TraceError):  # values that are known belong to no trace
                    value._trace.leaks[id(value)] = f"{what} {name!r}"


def run_eagerly(
    leaves: Sequence[Any], kinds: Sequence[Leaf], call: Callable[[list[Any]], Any], names: Sequence[str]
) -> Any:
    """The result of ``call`` on traced leaves that know their values: computed while it is recorded, nothing
    compiled.
    """
    values = Values()
    with recording(), tracing(), Trace(values) as trace:
        given: list[Any] = []
        for leaf, kind, name in zip(leaves, kinds, names, strict=True):
            if kind.type is None:
                given.append(leaf)
            else:
                tracer = trace.input(kind.type, name, kind.kind)
                values.known[tracer._node] = np.asarray(leaf, kind.type.dtype)
                given.append(tracer)
        arguments = [(tracer, tracer._node) for tracer in trace.arguments]
        trace.fresh = True
        results = results_of(trace, call(given), arguments, derivative=True)
        found = [np.array(values.of(node)) for node in results.nodes]
    return results.deliver(found, given)


def _statics(leaves: Sequence[Leaf]) -> list[Any]:
    """Arguments that are compiled in."""
    return [leaf.value.value for leaf in leaves if leaf.type is None]


def _states(generators: Iterable[Any]) -> list[bytes]:
    """What changes whenever a generator is drawn from."""
    return [
        pickle.dumps(
            generator.bit_generator.state if hasattr(generator, "bit_generator") else generator.get_state()
        )
        for generator in generators
    ]


def _foreign(nodes: list[Node], inputs: list[Node], trace: Trace) -> Node | None:
    known = set(inputs) | {node for _, node in trace.captured.values()}
    for node in Graph("", (), nodes).nodes():
        if node.op.name == "input" and node not in known:
            return node
    return None
