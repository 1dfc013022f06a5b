"""`vmap` of a Python function inside a trace: which leaves of its arguments vary, and along which axis.

Job: call the function on placeholders for one element, carry the axis of the batch through the nodes that it
returned (`graphjit.transforms.batch`), and move it to where the user wants it.
Input: the active trace, a function, its arguments, axes. Output: the results, traced.
Invariants: the result is the stack of the calls; what does not vary is computed once. A trace that computes
while it records (`disable_jit`) calls the function for each element, so that prints and debuggers see
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from graphjit.errors import TraceError
from graphjit.ir.batching import from_front, to_front
from graphjit.ir.node import Node
from graphjit.trace.marks import name_of
from graphjit.trace.pytree import TreeSpec, flatten, prefix_leaves, texts, unflatten
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, is_number
from graphjit.trace.rolling import rolled
from graphjit.trace.transformed.placeholders import unchanging
from graphjit.transforms.batch import batch, repeated
from graphjit.transforms.effects import told_for_each


def vmap(
    trace: Trace,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    in_axes: Any,
    out_axes: Any,
    axis_size: int | None,
) -> Any:
    """The results of ``function`` for each element of a batch, stacked."""
    leaves, spec = flatten((args, kwargs))
    names = _leaf_names(spec)
    axes = _axes_of_arguments(function, args, kwargs, in_axes)
    nodes: list[Node | None] = []
    for i, (leaf, axis) in enumerate(zip(leaves, axes, strict=True)):
        vary = axis is not None and is_number(leaf)
        nodes.append(_batch_first(trace, leaf, axis, names[i]) if vary else None)
    size = _size(names, nodes, axis_size)
    trace.fresh = False
    if trace.values is not None and size:
        return _stack_of_calls(trace, function, leaves, spec, nodes, size, out_axes)
    placeholders: dict[Node, Node] = {}
    given = list(leaves)
    for i, node in enumerate(nodes):
        if node is not None:
            one = trace.builder.input(node.type.with_shape(node.shape[1:]), f"element of {names[i]}")
            if trace.values is not None:
                trace.values.arrays[one] = np.zeros(one.shape, one.dtype)
            placeholders[one] = node
            given[i] = Tracer(trace, one)
    new_args, new_kwargs = unflatten(spec, given)
    told = trace.builder.told
    start = len(told)
    with told.silence() if trace.values is not None else nullcontext():  # there is no element to tell of
        result = unchanging(function, new_args, new_kwargs, "vmap")
    returned, tree = flatten(result)
    axes = prefix_leaves(out_axes, result, "vmap: out_axes")
    given = [_output(trace, function, leaf) for leaf in returned if leaf is not None]
    outputs = iter(rolled(trace, given, list(placeholders), start))
    told_for_each(trace.builder, told.take(start), placeholders, size)
    found = [None if leaf is None else next(outputs) for leaf in returned]
    return unflatten(tree, _results(trace, found, axes, placeholders, size))


def _leaf_names(spec: TreeSpec) -> list[str]:
    """The leaves of (args, kwargs) for people: ``argument 0['w']``, ``argument 'scale'``."""
    args, kwargs = spec.children()
    found: list[str] = []
    for i, child in enumerate(args.children()):
        found += texts(child, f"argument {i}")
    for name, child in zip(kwargs.entries(), kwargs.children(), strict=True):
        found += texts(child, f"argument {name!r}")
    return found


def _axes_of_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], in_axes: Any
) -> list[Any]:
    """The axis of each leaf of the positional arguments, then of the keyword arguments (which is 0).

    Raises:
        ValueError: ``in_axes`` does not fit the arguments.
    """
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    if isinstance(in_axes, tuple) and len(in_axes) != len(args):
        raise ValueError(
            f"vmap: in_axes has {len(in_axes)} entries, but {name_of(function)} was called with {len(args)} positional "
            f"arguments (at {user_location()}); give one entry for each, or one number for all"
        )
    axes = prefix_leaves(in_axes, args, "vmap: in_axes")
    for axis in axes:
        _check_axis(axis, "in_axes")
    return [*axes, *(0 for _ in flatten(kwargs)[0])]


def _check_axis(axis: Any, what: str) -> None:
    if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int | np.integer)):
        raise TypeError(f"vmap: {what} holds integers and None, not {axis!r} (at {user_location()})")


def _batch_first(trace: Trace, leaf: Any, axis: int, name: str) -> Node:
    """A leaf with the axis of the batch in front.

    Raises:
        ValueError: it has no such axis.
    """
    node = trace.node(leaf)
    if not -len(node.shape) <= axis < len(node.shape):
        raise ValueError(
            f"vmap: {name} has shape {node.shape}, which has no axis {axis} to map over (at {user_location()}); "
            "in_axes=None passes a value whole"
        )
    return to_front(trace.builder.like(node), node, axis % len(node.shape))


def _size(names: Sequence[str], nodes: Sequence[Node | None], axis_size: int | None) -> int:
    """The number of elements of the batch.

    Raises:
        ValueError: nothing says it, or two arguments disagree.
    """
    sizes = {name: node.shape[0] for name, node in zip(names, nodes, strict=True) if node is not None}
    if axis_size is not None:
        if isinstance(axis_size, bool) or not isinstance(axis_size, int | np.integer) or axis_size < 0:
            raise TypeError(
                f"vmap: axis_size is a number of elements, not {axis_size!r} (at {user_location()})"
            )
        sizes = {"axis_size": int(axis_size), **sizes}
    if not sizes:
        raise ValueError(
            f"vmap: no argument varies, and axis_size is not given (at {user_location()}): how many elements the batch has is "
            "not known"
        )
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"vmap: sizes of the batch differ: {shown} (at {user_location()})")
    return next(iter(sizes.values()))


def _results(
    trace: Trace,
    nodes: Sequence[Node | None],
    axes: Sequence[Any],
    placeholders: dict[Node, Node],
    size: int,
) -> list[Any]:
    """What the function returned for one element, over the batch."""
    wide = iter(batch(trace.builder, [node for node in nodes if node is not None], placeholders))
    found: list[Any] = []
    for node, axis in zip(nodes, axes, strict=True):
        _check_axis(axis, "out_axes")
        if node is None:
            found.append(None)
            continue
        over = next(wide)
        if axis is None:
            if over is not None:
                raise _varies(node)
            found.append(Tracer(trace, node))
            continue
        if over is None:
            over = repeated(trace.builder, node, size)
        found.append(Tracer(trace, from_front(trace.builder, over, _out_axis(axis, node))))
    return found


def _varies(node: Node) -> ValueError:
    return ValueError(
        f"vmap: out_axes is None for a result of type {node.type} that varies from element to element (at {user_location()})"
    )


def _out_axis(axis: int, node: Node) -> int:
    """A position for the axis of the batch, counted from the front.

    Raises:
        ValueError: the result has no such axis.
    """
    count = len(node.shape) + 1
    if not -count <= axis < count:
        raise ValueError(
            f"vmap: a result with the axis of the batch has {count} axes, so out_axes cannot be {axis} (at {user_location()})"
        )
    return axis % count


def _output(trace: Trace, function: Callable[..., Any], leaf: Any) -> Node:
    """The node of a result for one element.

    Raises:
        TraceError: it is no array and no number.
    """
    if not isinstance(leaf, Tracer | np.ndarray | np.generic | int | float | list):
        raise TraceError(
            f"vmap: {name_of(function)} returned {leaf!r}, which is not an array: nothing can be stacked"
        )
    return trace.node(leaf)


def _stack_of_calls(
    trace: Trace,
    function: Callable[..., Any],
    leaves: Sequence[Any],
    spec: TreeSpec,
    nodes: Sequence[Node | None],
    size: int,
    out_axes: Any,
) -> Any:
    """The function called for each element, where nothing is compiled."""
    wide = [leaf if node is None else Tracer(trace, node) for leaf, node in zip(leaves, nodes, strict=True)]
    calls = []
    for i in range(size):
        given = [x if node is None else x[i] for x, node in zip(wide, nodes, strict=True)]
        args, kwargs = unflatten(spec, given)
        calls.append(unchanging(function, args, kwargs, "vmap"))
    tree = flatten(calls[0])[1]
    axes = prefix_leaves(out_axes, calls[0], "vmap: out_axes")
    found: list[Any] = []
    for values, axis in zip(zip(*(flatten(call)[0] for call in calls), strict=True), axes, strict=True):
        _check_axis(axis, "out_axes")
        if values[0] is None:
            found.append(None)
        elif axis is None:
            first = _output(trace, function, values[0])
            if any(_output(trace, function, value) is not first for value in values[1:]):
                raise _varies(first)
            found.append(Tracer(trace, first))
        else:
            rows = [Tracer(trace, _output(trace, function, value)) for value in values]
            found.append(np.stack(rows, _out_axis(axis, rows[0]._node)))  # type: ignore[call-overload]
    return unflatten(tree, found)
