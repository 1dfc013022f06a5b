"""What a traced call returns, and which of its arguments it changes in place.

Job: decide for each leaf of a result whether it is an output of the graph, an argument that the function
changed, or a Python object that is returned as it is; after the run, give the caller NumPy's classes (an
array or a scalar) and memory order.
Input: the result of the traced function, its traced arguments. Output: `Results`, which builds the caller's
result from the graph's outputs.
Invariants: results are new arrays in NumPy's memory order; an argument that the function changed holds the
new values after the call, is itself the result where the function returned it, and keeps its old values when
the call raises.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphjit.errors import DerivativeError, GraphjitError, TraceError
from graphjit.ir.node import Location, Node
from graphjit.ir.types import Type
from graphjit.trace.arrays import layout
from graphjit.trace.arrays.buffers import Stored
from graphjit.trace.marks import attribute, declares
from graphjit.trace.pytree import TreeSpec, flatten, unflatten
from graphjit.trace.recording.tracer import Array, Trace, Tracer, any_tracer, is_number


@dataclass
class Results:
    """Structure of a result and what its leaves are.

    ``leaves`` holds one pair for each: ("value", number of the output), ("argument", number of the input) for
    an argument that the function changed and returned, or ("static", object).
    """

    spec: TreeSpec
    leaves: list[tuple[str, Any]]
    nodes: list[Node] = field(default_factory=list)
    orders: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Output -> its axes as they lie in memory, where that is not row-major; the output is computed in that
    order.
    """
    arrays: set[int] = field(default_factory=set)
    """Outputs without axes that are arrays and no NumPy scalars."""
    written: dict[int, int] = field(default_factory=dict)
    """Number of an argument that the function changed -> the output with its new values."""
    lines: dict[int, Location | None] = field(default_factory=dict)
    """Where each of them was changed."""

    def add(self, trace: Trace, item: Any) -> int:
        """A value as one more output; its number."""
        number = len(self.nodes)
        node = trace.node(item)
        if isinstance(item, Array | np.ndarray):
            if not node.shape:
                self.arrays.add(number)
            elif not layout.row_major(item):
                order = layout.axes_in_memory(layout.model(item) if isinstance(item, Array) else item)
                if layout.model_of_new(node.shape, order) is not None:
                    self.orders[number] = order
                    node = trace.emit("transpose", node, perm=order)
        self.nodes.append(node)
        return number

    def arrays_in_order(self, types: Sequence[Type]) -> dict[int, np.ndarray]:
        """New arrays for the outputs that do not lie row by row, as transposed views that do (the graph
        computes those).
        """
        arrays = {}
        for number, order in self.orders.items():
            lies = np.empty(types[number].shape, types[number].dtype).transpose(np.argsort(order))
            arrays[number] = np.ndarray(lies.shape, lies.dtype, strides=lies.strides).transpose(order)
        return arrays

    def _shown(self, number: int, array: np.ndarray) -> Any:
        if number in self.orders:
            return array.base if array.base is not None else array.transpose(np.argsort(self.orders[number]))
        return array if array.shape or number in self.arrays else array[()]

    def deliver(self, outputs: Sequence[np.ndarray], dynamic: Sequence[Any]) -> Any:
        """The result of a call with these dynamic leaves that has computed ``outputs``; arguments that the
        function changed are written.
        """
        values = [self._shown(number, array) for number, array in enumerate(outputs)]
        for argument, number in self.written.items():
            np.copyto(dynamic[argument], values[number])
        leaves = [
            values[item] if kind == "value" else dynamic[item] if kind == "argument" else item
            for kind, item in self.leaves
        ]
        return unflatten(self.spec, leaves)


def results_of(
    trace: Trace, result: Any, arguments: Sequence[tuple[Tracer, Node]], derivative: bool
) -> Results:
    """Read the result of the traced function, whose ``arguments`` were these nodes before.

    Raises:
        DerivativeError: it changed an argument, which has no meaning under a derivative.
    """
    flat, spec = flatten(result)
    results = Results(spec, [])
    changed = {
        number: x
        for number, (x, before) in enumerate(arguments)
        if isinstance(x, Stored) and x._node is not before
    }
    for item in flat:
        if is_number(item):
            argument = next((number for number, x in changed.items() if x is item), None)
            results.leaves.append(
                ("value", results.add(trace, item)) if argument is None else ("argument", argument)
            )
        else:
            check_static_result(item)
            results.leaves.append(("static", item))
    for number, x in changed.items():
        if derivative:
            raise changed_by_transformed(x)
        results.lines[number] = x._node.loc
        results.written[number] = results.add(trace, x)
        results.orders.pop(results.written[number], None)
        results.nodes[results.written[number]] = x._node
    return results


def changed_by_transformed(x: Tracer, what: str = "") -> GraphjitError:
    """The error for a write to an argument of a differentiated function, or of one under another
    transformation, ``what``.
    """
    if what == "vmap":
        return TraceError(
            f"vmap: the function changes an argument of type {x._node.type} in place at {x._node.loc}: it stands for one element of a batch. "
            "Work on a copy: x = x.copy(), and return it"
        )
    return DerivativeError(
        f"the function changes an argument of type {x._node.type} in place at {x._node.loc}: a derivative belongs to the values that were passed. "
        "Work on a copy: x = x.copy()"
    )


def check_writable(results: Results, leaves: Sequence[Any], others: Sequence[np.ndarray], name: str) -> None:
    """Look, before anything is computed, whether the arguments that will be written can be.

    Raises:
        ValueError: an array is read-only, or overlaps with another array of the call (NumPy's result would
        depend on which is read first).
    """
    for argument in results.written:
        target, where = leaves[argument], results.lines[argument]
        if not target.flags.writeable:
            raise ValueError(
                f"assignment destination is read-only: argument {argument} of {name}, which changes it at {where}"
            )
        for i, other in enumerate((*leaves, *others)):
            if i != argument and isinstance(other, np.ndarray) and _overlap(target, other):
                raise ValueError(
                    f"{name} changes its argument {argument} in place at {where}, and that array overlaps with another array of the call; pass a copy "
                    "of one of them"
                )


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def check_static_result(item: Any) -> None:
    """A result that is no array and no number is returned as it is: it must not hold anything traced.

    Raises:
        TraceError: iterators, and objects of unregistered classes that hold traced values.
    """
    kind = type(item).__name__
    if declares(item, "__next__"):
        raise TraceError(
            f"the traced function returned an iterator ({kind}), which nobody could read twice; return a list or a tuple"
        )
    parts = (
        item
        if isinstance(item, set | frozenset)
        else attribute(item, "__dict__", {}).values()
        if not isinstance(item, type)
        else ()
    )
    if any(map(any_tracer, parts)):
        raise TraceError(
            f"the traced function returned an object of type {kind} that holds traced values; return a tuple, list or dict, or register "
            "the class with graphjit.register_dataclass or graphjit.register_pytree_node"
        )


def same_objects(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two sequences hold the very same objects."""
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _grew_by_reading(spec: TreeSpec, now: TreeSpec) -> bool:
    """Whether two structures with the same leaves are equal, but for empty values that a ``defaultdict`` made
    when it was asked for them.
    """
    if spec == now:
        return True
    if spec.type is not now.type or spec.is_leaf() or now.is_leaf():
        return False
    before, after = (dict(zip(tree.entries(), tree.children(), strict=True)) for tree in (spec, now))
    if spec.type is collections.defaultdict:
        same = before.keys() <= after.keys()
    else:
        same = spec.one_level() == now.one_level()
    return same and all(_grew_by_reading(child, after[key]) for key, child in before.items())


def refuse_changed_containers(
    name: str,
    leaf_names: Callable[[], Sequence[str]],
    before: tuple[list[Any], TreeSpec],
    after: tuple[list[Any], TreeSpec],
) -> None:
    """Refuse a function that put something else into a list, dict or object among its arguments: only arrays
    are changed in place.

    Raises:
        TraceError: an item or field is another one after the function ran, or there are more or fewer of
        them.
    """
    (leaves, spec), (now, spec_now) = before, after
    if same_objects(leaves, now) and _grew_by_reading(spec, spec_now):
        return
    changed = (
        next((text for text, a, b in zip(leaf_names(), leaves, now, strict=False) if a is not b), "")
        if spec == spec_now
        else ""
    )
    what = f"assigns to {changed}" if changed else "adds or removes items of a list or dict"
    raise TraceError(
        f"{name} {what} among its arguments: the caller's containers would stay as they are, since compiled code changes arrays in place only "
        "(p['w'] -= step, p['w'][...] = w). Make a new container, for example {**p, 'w': w}, and return it"
    )
