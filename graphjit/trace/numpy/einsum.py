"""np.einsum: how subscripts become diagonals, sums, multiplications and contractions.

All of einsum is accepted: both styles of arguments, ellipses, repeated labels, an implicit output. The words:
a *label* is one letter of the subscripts and names an axis; a *term* is an operand with the labels of its
axes.

A label that occurs twice in one operand takes a diagonal. A label that only one term has, and the output has
not, is summed at once. Three or more operands are contracted in pairs, in the order that NumPy's path search
finds. A pair without a label to sum over is a broadcast multiplication, so that it can be fused with its
neighbours; every other pair is one `contract` node. For example ``"ij,jk->ik"`` is one `contract`, and
``"ij,ij->i"`` is one too, with ``i`` as its batch axis.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.ir.node import Node
from graphjit.ir.types import BOOL, I64
from graphjit.trace.numpy.arguments import given, node_of, promoted, refuse, tracing, wrap, wrap_array
from graphjit.trace.numpy.diagonals import diagonal_node
from graphjit.trace.recording.location import user_location
from graphjit.trace.recording.tracer import Trace, Tracer, implements

Term = tuple[Node, str]
"""A node and the labels of its axes, one letter each."""


def _sum_out(trace: Trace, x: Node, labels: str, keep: set[str]) -> Term:
    """Sum over the labels that are not in ``keep``."""
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    return (trace.emit("sum", x, axes=axes), "".join(c for c in labels if c in keep)) if axes else (x, labels)


def _single(trace: Trace, x: Node, labels: str, sizes: dict[str, int]) -> Term:
    """Each label once: diagonals are taken, axes of length 1 that broadcast are dropped."""
    gone = {i for i, label in enumerate(labels) if x.shape[i] == 1 and sizes[label] != 1}
    if gone:
        x = trace.emit("reshape", x, shape=tuple(n for i, n in enumerate(x.shape) if i not in gone))
        labels = "".join(label for i, label in enumerate(labels) if i not in gone)
    while len(set(labels)) < len(labels):
        label = next(c for c, count in Counter(labels).items() if count > 1)
        first, second = [i for i, c in enumerate(labels) if c == label][:2]
        x = diagonal_node(trace, x, 0, first, second)
        labels = "".join(c for i, c in enumerate(labels) if i not in (first, second)) + label
    return x, labels


def _arranged(trace: Trace, x: Node, labels: str, wanted: str) -> Node:
    """Axes in the order of ``wanted`` (the same labels)."""
    return trace.emit("transpose", x, perm=tuple(labels.index(label) for label in wanted))


def _multiplied(trace: Trace, x: Node, x_labels: str, y: Node, y_labels: str) -> Term:
    """Product of two terms without a label to sum over: a broadcast multiplication."""
    labels = x_labels + "".join(label for label in y_labels if label not in x_labels)
    shape = tuple(x.shape[x_labels.index(c)] if c in x_labels else y.shape[y_labels.index(c)] for c in labels)
    sides = []
    for node, node_labels in ((x, x_labels), (y, y_labels)):
        node = _arranged(trace, node, node_labels, "".join(c for c in labels if c in node_labels))
        node = trace.emit(
            "reshape",
            node,
            shape=tuple(n if c in node_labels else 1 for c, n in zip(labels, shape, strict=True)),
        )
        sides.append(trace.broadcast(node, shape))
    return trace.emit("mul", *sides), labels


def _pair(trace: Trace, x: Node, x_labels: str, y: Node, y_labels: str, keep: set[str]) -> Term:
    """One term from two; ``keep`` are the labels that the output or another term still needs."""
    x, x_labels = _sum_out(trace, x, x_labels, keep | set(y_labels))
    y, y_labels = _sum_out(trace, y, y_labels, keep | set(x_labels))
    shared = [label for label in x_labels if label in y_labels]
    summed, batch = [c for c in shared if c not in keep], [c for c in shared if c in keep]
    if not summed:
        return _multiplied(trace, x, x_labels, y, y_labels)

    def axes(labels: str, wanted: list[str]) -> tuple[int, ...]:
        return tuple(labels.index(label) for label in wanted)

    product = trace.emit(
        "contract",
        x,
        y,
        contract=(axes(x_labels, summed), axes(y_labels, summed)),
        batch=(axes(x_labels, batch), axes(y_labels, batch)),
    )
    free = [label for labels in (x_labels, y_labels) for label in labels if label not in shared]
    return product, "".join([*batch, *free])


def contract_subscripts(
    trace: Trace, nodes: Sequence[Node], labels: Sequence[str], out: str, optimize: Any = True
) -> Node:
    """The einsum of nodes of one dtype whose axes carry ``labels``; its result has the axes ``out``."""
    dtype = nodes[0].dtype
    if dtype.kind == "b":
        nodes = [trace.convert(node, I64) for node in nodes]
    sizes = _label_sizes(nodes, labels)
    terms = [
        _single(trace, node, node_labels, sizes) for node, node_labels in zip(nodes, labels, strict=True)
    ]
    for step in _path(nodes, labels, out, optimize):
        chosen = [terms[i] for i in step]
        terms = [term for i, term in enumerate(terms) if i not in step]
        needed = set(out).union(*(term_labels for _, term_labels in terms))
        terms.append(_contracted(trace, chosen, needed))
    ((x, x_labels),) = terms
    x, x_labels = _sum_out(trace, x, x_labels, set(out))
    # `_single` drops an axis only where another operand has the label with a greater size.
    assert set(out) <= set(x_labels)
    result = _arranged(trace, x, x_labels, out)
    return trace.convert(result, BOOL) if dtype.kind == "b" else result


def _label_sizes(nodes: Sequence[Node], labels: Sequence[str]) -> dict[str, int]:
    """The size of each label after broadcasting.

    Raises:
        ValueError: two axes of one label differ, and neither has length 1.
    """
    sizes: dict[str, int] = {}
    for node, node_labels in zip(nodes, labels, strict=True):
        for label, size in zip(node_labels, node.shape, strict=True):
            before = sizes.get(label, 1)
            if size != before and 1 not in (size, before):
                raise ValueError(
                    f"einsum: axis {label!r} has the sizes {before} and {size} (at {user_location()}): operands could not be broadcast together"
                )
            sizes[label] = size if before == 1 else before
    return sizes


def _contracted(trace: Trace, chosen: Sequence[Term], needed: set[str]) -> Term:
    """One term from several, from left to right; ``needed`` are the labels of the output and other terms."""
    x, x_labels = chosen[0]
    for position, (y, y_labels) in enumerate(chosen[1:], start=2):
        keep = needed.union(*(labels for _, labels in chosen[position:]))
        x, x_labels = _pair(trace, x, x_labels, y, y_labels, keep)
    return x, x_labels


def _path(nodes: Sequence[Node], labels: Sequence[str], out: str, optimize: Any) -> list[tuple[int, ...]]:
    """Which terms each step contracts, by position; the result of a step goes to the end."""
    if len(nodes) < 3:
        return [tuple(range(len(nodes)))]
    stand_ins = [np.broadcast_to(np.zeros(()), node.shape) for node in nodes]
    wanted = "greedy" if optimize in (False, True, None) else optimize
    return list(np.einsum_path(",".join(labels) + "->" + out, *stand_ins, optimize=wanted)[0][1:])


# ------------------------------------------------------------------------------------------------- subscripts


def _interleaved(operands: Sequence[Any]) -> tuple[list[Any], list[str], str | None]:
    """`parsed` for the style ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""
    values, lists = list(operands[: len(operands) // 2 * 2 : 2]), list(operands[1::2])
    out = operands[-1] if len(operands) % 2 else None

    def text(axes: Any) -> str:
        return "".join("..." if axis is Ellipsis else string.ascii_letters[int(axis)] for axis in axes)

    return values, [text(axes) for axes in lists], None if out is None else text(out)


def parsed(operands: Sequence[Any]) -> tuple[list[Any], list[str], str | None]:
    """Operands, subscripts of each, subscripts of the output (None: implicit)."""
    if not isinstance(operands[0], str):
        return _interleaved(operands)
    text = operands[0].replace(" ", "")
    left, arrow, right = text.partition("->")
    for char in text.replace("...", "").replace("->", ""):
        if char not in string.ascii_letters + ",":
            raise ValueError(f"Character {char} is not a valid symbol.")
    labels = left.split(",")
    values = list(operands[1:])
    if len(labels) != len(values):
        raise ValueError("Number of einsum subscripts must be equal to the number of operands.")
    return values, labels, right if arrow else None


def _expanded(nodes: Sequence[Node], labels: list[str], out: str | None) -> tuple[list[str], str]:
    """Ellipses spelled out with unused letters, an implicit output made explicit."""
    used = set("".join(labels) + (out or ""))
    unused = [c for c in string.ascii_letters if c not in used]
    widths = [
        len(node.shape) - len(subscripts.replace("...", "")) if "..." in subscripts else 0
        for node, subscripts in zip(nodes, labels, strict=True)
    ]
    widest = max(widths, default=0)
    ellipsis = "".join(unused[:widest])
    spelled = []
    for node, subscripts, width in zip(nodes, labels, widths, strict=True):
        node_labels = subscripts.replace("...", ellipsis[widest - width :] if width > 0 else "")
        if len(node_labels) != len(node.shape):
            raise ValueError(
                f"einsum: subscripts {subscripts!r} do not fit an operand of shape {node.shape} (at {user_location()})"
            )
        spelled.append(node_labels)
    if out is None:
        return spelled, ellipsis + _implicit_output(labels)
    if "..." not in out and widest:
        raise ValueError("einsum: the output subscripts must contain an ellipsis too")
    out = out.replace("...", ellipsis)
    _check_output(out, spelled)
    return spelled, out


def _implicit_output(labels: Sequence[str]) -> str:
    """The labels that occur once, in alphabetical order; those of the ellipsis stand before them."""
    counts = Counter("".join(subscripts.replace("...", "") for subscripts in labels))
    return "".join(sorted(c for c, count in counts.items() if count == 1))


def _check_output(out: str, labels: Sequence[str]) -> None:
    """Each label of the output must occur in an input, and once in the output.

    Raises:
        ValueError: NumPy's.
    """
    for label in out:
        if not any(label in node_labels for node_labels in labels):
            raise ValueError(f"Output character {label} did not appear in the input")
        if out.count(label) > 1:
            raise ValueError(f"Output character {label} appeared more than once in the output.")


def einsum(
    *operands: Any, out: Any = None, optimize: Any = False, dtype: Any = None, **kwargs: Any
) -> Tracer:
    """np.einsum."""
    refuse("einsum", out=out)
    refuse("einsum", **{name: value for name, value in kwargs.items() if name not in ("order", "casting")})
    trace = tracing()
    values, labels, result = parsed(operands)
    nodes = promoted(trace, *(_operand(trace, value) for value in values))
    if given(dtype):
        nodes = [trace.convert(node, np.dtype(dtype)) for node in nodes]
    spelled, wanted = _expanded(nodes, labels, result)
    make = wrap_array if optimize else wrap  # by np.tensordot, which returns arrays
    return make(trace, contract_subscripts(trace, nodes, spelled, wanted, optimize))


def _operand(trace: Trace, value: Any) -> Tracer:
    """An operand as a tracer (Python numbers take part in promotion like arrays here)."""
    return wrap(trace, node_of(trace, value))


@implements(np.einsum_path)
def einsum_path(*operands: Any, optimize: Any = "greedy", einsum_call: bool = False) -> Any:
    """np.einsum_path: shapes alone decide."""
    texts = isinstance(operands[0], str)
    stand_ins = [
        value
        if isinstance(value, str) or (not texts and i % 2) or isinstance(value, list)
        else np.broadcast_to(0.0, np.shape(value))
        for i, value in enumerate(operands)
    ]
    return np.einsum_path(*stand_ins, optimize=optimize)
