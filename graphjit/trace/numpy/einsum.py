"""einsum: subscripts to diagonals, sums and pairwise contractions.

Job: any einsum (both argument styles, ellipsis, repeated labels, implicit output) as graph nodes.
Input: subscripts and operands.  Output: one node with the labels in the asked order.
Invariants: three or more operands are contracted in pairs, in the order that NumPy's path search finds; a
pair that shares no summed label is a broadcast multiplication, so that it fuses; every other pair is one
`contract`.
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


def _sum_out(trace: Trace, x: Node, labels: str, keep: set[str]) -> tuple[Node, str]:
    """Sum over the labels that nobody else needs."""
    axes = tuple(i for i, label in enumerate(labels) if label not in keep)
    return (trace.emit("sum", x, axes=axes), "".join(c for c in labels if c in keep)) if axes else (x, labels)


def _single(trace: Trace, x: Node, labels: str, sizes: dict[str, int]) -> tuple[Node, str]:
    """Each label once: diagonals taken, axes of length 1 that broadcast dropped."""
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


def _multiplied(trace: Trace, x: Node, x_labels: str, y: Node, y_labels: str) -> tuple[Node, str]:
    """Product of two operands without a summed label."""
    labels = x_labels + "".join(label for label in y_labels if label not in x_labels)
    shape = tuple(x.shape[x_labels.index(c)] if c in x_labels else y.shape[y_labels.index(c)] for c in labels)
    sides = []
    for node, own in ((x, x_labels), (y, y_labels)):
        node = _arranged(trace, node, own, "".join(c for c in labels if c in own))
        node = trace.emit(
            "reshape", node, shape=tuple(n if c in own else 1 for c, n in zip(labels, shape, strict=True))
        )
        sides.append(trace.broadcast(node, shape))
    return trace.emit("mul", *sides), labels


def _pair(trace: Trace, x: Node, x_labels: str, y: Node, y_labels: str, keep: set[str]) -> tuple[Node, str]:
    """One operand from two."""
    x, x_labels = _sum_out(trace, x, x_labels, keep | set(y_labels))
    y, y_labels = _sum_out(trace, y, y_labels, keep | set(x_labels))
    shared = [label for label in x_labels if label in y_labels]
    summed, batch = [c for c in shared if c not in keep], [c for c in shared if c in keep]
    if not summed:
        return _multiplied(trace, x, x_labels, y, y_labels)

    def places(labels: str, wanted: list[str]) -> tuple[int, ...]:
        return tuple(labels.index(label) for label in wanted)

    whole = trace.emit(
        "contract",
        x,
        y,
        contract=(places(x_labels, summed), places(y_labels, summed)),
        batch=(places(x_labels, batch), places(y_labels, batch)),
    )
    free = [label for labels in (x_labels, y_labels) for label in labels if label not in shared]
    return whole, "".join([*batch, *free])


def contract_subscripts(
    trace: Trace, nodes: Sequence[Node], labels: Sequence[str], out: str, optimize: Any = True
) -> Node:
    """The einsum of nodes of one dtype whose axes carry ``labels``, as axes ``out``."""
    dtype = nodes[0].dtype
    if dtype.kind == "b":
        nodes = [trace.convert(node, I64) for node in nodes]
    sizes: dict[str, int] = {}
    for node, own in zip(nodes, labels, strict=True):
        for label, size in zip(own, node.shape, strict=True):
            known = sizes.get(label, 1)
            if size != known and 1 not in (size, known):
                raise ValueError(
                    f"einsum: axis {label!r} has the sizes {known} and {size} (at {user_location()}): operands could not be broadcast together"
                )
            sizes[label] = size if known == 1 else known
    terms = [_single(trace, node, own, sizes) for node, own in zip(nodes, labels, strict=True)]
    for step in _path(nodes, labels, out, optimize):
        chosen = [terms[i] for i in step]
        terms = [term for i, term in enumerate(terms) if i not in step]
        x, x_labels = chosen[0]
        for position, (y, y_labels) in enumerate(chosen[1:], start=2):
            keep = set(out).union(*(own for _, own in terms), *(own for _, own in chosen[position:]))
            x, x_labels = _pair(trace, x, x_labels, y, y_labels, keep)
        terms.append((x, x_labels))
    (x, x_labels), *rest = terms
    assert not rest
    x, x_labels = _sum_out(trace, x, x_labels, set(out))
    for (
        label
    ) in out:  # a label whose every axis had length 1 was dropped nowhere; all labels of the output exist
        assert label in x_labels
    result = _arranged(trace, x, x_labels, out)
    return trace.convert(result, BOOL) if dtype.kind == "b" else result


def _path(nodes: Sequence[Node], labels: Sequence[str], out: str, optimize: Any) -> list[tuple[int, ...]]:
    """The order of pairwise contractions."""
    if len(nodes) < 3:
        return [tuple(range(len(nodes)))]
    shapes = [np.broadcast_to(np.zeros(()), node.shape) for node in nodes]
    wanted = "greedy" if optimize in (False, True, None) else optimize
    return list(np.einsum_path(",".join(labels) + "->" + out, *shapes, optimize=wanted)[0][1:])


# ------------------------------------------------------------------------------------------------- subscripts


def _interleaved(operands: Sequence[Any]) -> tuple[list[Any], list[str], str | None]:
    """``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""
    values, lists = list(operands[: len(operands) // 2 * 2 : 2]), list(operands[1::2])
    out = operands[-1] if len(operands) % 2 else None

    def text(axes: Any) -> str:
        return "".join("..." if axis is Ellipsis else string.ascii_letters[int(axis)] for axis in axes)

    return values, [text(axes) for axes in lists], None if out is None else text(out)


def parsed(operands: Sequence[Any]) -> tuple[list[Any], list[str], str | None]:
    """Values, labels of each, labels of the output or None when implicit."""
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
    """Ellipses spelled out with unused letters, implicit output made explicit."""
    used = set("".join(labels) + (out or ""))
    free = [c for c in string.ascii_letters if c not in used]
    widths = [
        len(node.shape) - len(own.replace("...", "")) if "..." in own else 0
        for node, own in zip(nodes, labels, strict=True)
    ]
    widest = max(widths, default=0)
    hidden = "".join(free[:widest])
    result = []
    for node, own, width in zip(nodes, labels, widths, strict=True):
        spelled = own.replace("...", hidden[widest - width :] if width > 0 else "")
        if len(spelled) != len(node.shape):
            raise ValueError(
                f"einsum: subscripts {own!r} do not fit an operand of shape {node.shape} (at {user_location()})"
            )
        result.append(spelled)
    if out is None:
        counts = Counter("".join(own.replace("...", "") for own in labels))
        return result, hidden + "".join(sorted(c for c, count in counts.items() if count == 1))
    if "..." not in out and widest:
        raise ValueError("einsum: the output subscripts must contain an ellipsis too")
    out = out.replace("...", hidden)
    for label in out:
        if not any(label in own for own in result):
            raise ValueError(f"Output character {label} did not appear in the input")
        if out.count(label) > 1:
            raise ValueError(f"Output character {label} appeared more than once in the output.")
    return result, out


def einsum(
    *operands: Any, out: Any = None, optimize: Any = False, dtype: Any = None, **kwargs: Any
) -> Tracer:
    """np.einsum."""
    refuse("einsum", out=out)
    refuse("einsum", **{name: value for name, value in kwargs.items() if name not in ("order", "casting")})
    trace = tracing()
    values, labels, result = parsed(operands)
    nodes = promoted(trace, *(node_of_value(trace, value) for value in values))
    if given(dtype):
        nodes = [trace.convert(node, np.dtype(dtype)) for node in nodes]
    spelled, wanted = _expanded(nodes, labels, result)
    make = wrap_array if optimize else wrap  # by np.tensordot, which returns arrays
    return make(trace, contract_subscripts(trace, nodes, spelled, wanted, optimize))


def node_of_value(trace: Trace, value: Any) -> Tracer:
    """An operand as a tracer (Python numbers are strong in einsum)."""
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
