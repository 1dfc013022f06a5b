"""A `scan` in the place of the steps of a loop.

What is the same in each step becomes a constant of the scan, what is handed on a carry (what comes from two
steps back is handed on twice), what varies an array whose elements the steps read. Of results that others
read, those of the last step are carries, and all others are stacked.

Input: a `Loop`, the nodes that stand for what was recorded before it, the nodes by which others read its
results. Output: `Rolled`, which gives these results.
Invariant: nothing of the graph is changed. A loop that cannot be rolled raises `NotRolled`, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.ir.builder import Builder
from graphjit.ir.node import Body, Graph, Node
from graphjit.ir.types import BOOL, I64, Type
from graphjit.passes.reroll.recording import VIEWS
from graphjit.passes.reroll.stacks import stack, stripped, window_of
from graphjit.passes.reroll.steps import HANDED_ON, INVARIANT, Loop

Now = Callable[[Node], Node]
"""What stands for a recorded node."""


class NotRolled(Exception):
    """Why a loop stays as it is."""


def result_of(node: Node) -> Node:
    """What a view shows: the operation, or of one with several results that result."""
    while node.op.name in VIEWS:
        (below,) = node.args
        if below.is_bundle:
            return node
        node = below
    return node


def _views(node: Node, whole: bool = False) -> list[Node]:
    """The views by which a node shows a result, the last first; ``whole``: the operation."""
    views = []
    while node.op.name in VIEWS and (whole or not node.args[0].is_bundle):
        views.append(node)
        node = node.args[0]
    return views


class Rolled:
    """A loop as a `scan`."""

    def __init__(self, b: Builder, loop: Loop, now: Now, read: Iterable[Node]) -> None:
        """``read`` are the nodes that show results of the loop and are arguments of others."""
        self.b, self.loop, self.now = b, loop, now
        flat = loop.positions.ravel()
        numbers = np.arange(len(flat))[flat >= 0].tolist()
        self.at = {
            position: divmod(k, loop.size)
            for k, position in zip(numbers, flat[flat >= 0].tolist(), strict=True)
        }
        """Step and operation of each position."""
        self.pattern = [loop.row.nodes[i] for i in loop.positions[self._whole_step()].tolist()]
        self.constants: dict[Node, Node] = {}
        self.arrays: dict[bytes, tuple[Node, Node, list[Node]]] = {}
        """Stacks of what varies, by the numbers of their elements: the stack, the input that stands for an
        element, views of that.
        """
        self.windows: dict[bytes, Node] = {}
        """Known truth values, by the numbers of those in each step: what is compared in the body instead."""
        self.carries: dict[Any, tuple[Node, Node, Any]] = {}
        """Inputs of carries, first values, and what comes after: the key of another carry, or an operation
        with a node that shows it.
        """
        self.stacked: dict[tuple[int, int], Node] = {}
        """Results that are stacked, by the operation and which of its results it is (-1: it has one): a node
        that is one.
        """
        self.values: dict[int, Node] = {}
        self.shown: dict[tuple[int, int], Node] = {}
        self._build(list(read))

    def _whole_step(self) -> int:
        """A step in which nothing is missing."""
        return int(np.argmax((self.loop.positions >= 0).all(1)))

    def _argument(self, number: int, step: int) -> Node:
        """What was recorded as an argument of the body in a step."""
        return self.loop.row.argument(int(self.loop.number[step, number]))

    # ------------------------------------------------------------------------------------------- the body

    def _build(self, read: list[Node]) -> None:
        b, first = self.b, self.pattern[0]
        counts = np.bincount(self.loop.place, minlength=self.loop.size).tolist()
        number = 0
        for place, (node, count) in enumerate(zip(self.pattern, counts, strict=True)):
            args = [self._value(number + k) for k in range(count)]
            self.values[place] = b.copy(node, tuple(args))
            number += count
        self._collect(read)
        carried = list(self.carries)
        after = [self._after(key) for key in carried]
        if self.loop.family is not None:
            after = self._counted(after)
        made = [self._shown(place, node) for (place, _), node in self.stacked.items()]
        arrays = list(self.arrays.values())
        carries = list(self.carries.values())
        inputs = [*self.constants.values(), *(x for x, _, _ in carries), *(x for _, x, _ in arrays)]
        b.like(first)
        scan = b.emit(
            "scan",
            *self.constants,
            *(initial for _, initial, _ in carries),
            *(array for array, _, _ in arrays),
            body=Body(Graph("step", inputs, [*after, *made])),
            carried=len(after),
            sliced=len(arrays),
            length=self.loop.length if self.loop.family is None else self.loop.family.length,
            reverse=False,
        )
        items = [b.item(scan, index=k) for k in range(len(scan.parts))]
        self.final = {key[:2]: item for key, item in zip(carried, items, strict=False) if key[2] == 1}
        self.rows = dict(zip(self.stacked, items[len(after) :], strict=True))

    def _value(self, number: int) -> Node:
        """An argument of the body, in terms of its inputs."""
        loop, kind = self.loop, self.loop.kind[number]
        if kind == INVARIANT:
            return self._constant(self.now(self._argument(number, 0)))
        if kind != HANDED_ON:
            return self._element(number)
        back, place = int(loop.back[number]), int(loop.origin[number])
        if back:
            return self._carry(number, place, int(loop.view[number]), back)
        return self._shown(place, self._argument(number, self._whole_step()))

    def _constant(self, node: Node) -> Node:
        base = node
        while base.op.name in VIEWS:
            base = base.args[0]
        if base.is_const and base.type.size == 1:
            return node  # a known number stands in the body
        if node not in self.constants:
            self.constants[node] = self.b.input(node.type, "same")
        return self.constants[node]

    def _element(self, number: int) -> Node:
        """What varies from step to step."""
        b, column = self.b, self.loop.number[:, number]
        key = self.loop.row.value[column].tobytes()
        if key not in self.arrays:
            nodes = [self.now(self.loop.row.argument(i)) for i in column.tolist()]
            if self.loop.family is not None:
                return self._growing(number, key, nodes)
            below, views = stripped(nodes)
            if all(node is below[0] for node in below):
                return self._constant(nodes[0])
            window = self.windows.get(key) or self._window(below)
            if window is not None:
                self.windows[key] = window
                return self._seen(window, views)
            array = stack(b, below)
            if array is None:
                raise NotRolled(_why_varying(self.pattern[self.loop.place[number]], nodes[0]))
            self.arrays[key] = array, b.input(below[0].type, "element"), views
        _, x, views = self.arrays[key]
        return self._seen(x, views)

    def _window(self, nodes: Sequence[Node]) -> Node | None:
        """Known truth values of which one stretch is true: compared in the body with where that begins and
        ends, so that no table of all of them is kept.
        """
        ends = [window_of(node) for node in nodes]
        if None in ends:
            return None
        b, (size,) = self.b, nodes[0].shape
        number = b.iota(dtype=I64, shape=(size,), axis=0)
        found: Node | None = None
        for name, compare in (("first", b.ge), ("behind", b.lt)):
            column = [end[name == "behind"] for end in ends]  # type: ignore[index]
            if len(set(column)) > 1:
                known = np.array(column, np.int64)
                entry = b.const(known, I64), b.input(Type(I64, ()), name), list[Node]()
                _, place, _ = self.arrays.setdefault(name.encode() + known.tobytes(), entry)
            elif column[0] == (size if name == "behind" else 0):
                continue
            else:
                place = b.const(column[0], I64)
            one = compare(number, b.broadcast_to(place, shape=(size,)))
            found = one if found is None else b.emit("and", found, one)
        return found

    def _growing(self, number: int, key: bytes, nodes: list[Node]) -> Node:
        """What varies from step to step of a loop that grows."""
        array, views = self.loop.family.array(self.b, number, nodes)
        if array is None:
            raise NotRolled(_why_varying(self.pattern[self.loop.place[number]], nodes[0]))
        element = self.b.input(array.type.with_shape(array.shape[1:]), "element")
        self.arrays[key] = array, element, views
        return self._seen(element, views)

    def _counted(self, after: Sequence[Node]) -> list[Node]:
        """What a step makes of the carries, which are handed on as they are where it does not count."""
        b = self.b
        counts = b.input(Type(BOOL, ()), "counts")
        self.arrays[b""] = self.loop.family.counts(b, self.loop.length), counts, []
        before = [x for x, _, _ in self.carries.values()]
        return [
            b.select(b.broadcast_to(counts, shape=x.shape), new, x)
            for x, new in zip(before, after, strict=True)
        ]

    def _carry(self, number: int, place: int, view: int, back: int) -> Node:
        """What operation ``place`` computed ``back`` steps before."""
        recorded = [self._argument(number, step) for step in range(back)]
        whole = self.loop if self.loop.family is None else self.loop.family.longest
        shown = self.loop.row.argument(int(whole.number[whole.length - 2, number]))
        views: list[Node] = []
        if view and all(self.loop.row.place(node)[1] == view for node in recorded):
            # Seen in the same way from the first step on: the whole is handed on, once for all its views.
            views = _views(shown)
            shown, recorded = result_of(shown), [result_of(node) for node in recorded]
            view = self.loop.row.place(shown)[1]
        initial = [self.now(node) for node in recorded]
        after: Any = (place, shown)
        for k in range(1, back + 1):
            # The value of one step back is, at the first step, the last of these.
            key = (place, view, k, tuple(initial[back - k :]))
            if key not in self.carries:
                value = initial[back - k]
                self.carries[key] = self.b.input(value.type, "carry"), value, after
            after = key
        return self._seen(self.carries[after][0], views)

    def _seen(self, x: Node, views: Sequence[Node]) -> Node:
        """What shows ``x`` as ``views`` do, the last first."""
        for view in reversed(views):
            x = self.b.copy(view, (x,))
        return x

    def _after(self, key: Any) -> Node:
        """What a step makes of a carry."""
        after = self.carries[key][2]
        return self.carries[after][0] if after in self.carries else self._shown(*after)

    def _shown(self, place: int, node: Node) -> Node:
        """The result of an operation as a recorded ``node`` shows it."""
        view = self.loop.row.place(node)[1]
        found = self.shown.get((place, view))
        if found is None:
            found = self.shown[place, view] = self._seen(self.values[place], _views(node, whole=True))
        return found

    # --------------------------------------------------------------------------------------- what is read

    def _collect(self, read: Sequence[Node]) -> None:
        """See to it that all that is read is there."""
        row, last = self.loop.row, self.loop.length - 1
        late: dict[Node, Node] = {}
        for node in read:
            result = result_of(node)
            if self.at[row.place(node)[0]][0] == last:
                late[node] = result
            else:
                self.stacked.setdefault(self._key(result), result)
        kept = {key[:2] for key in self.carries if key[2] == 1}
        for node, result in late.items():
            (source, view), (_, whole) = row.place(node), row.place(result)
            place = self.at[source][1]
            if (place, view) in kept or (place, whole) in kept or self._key(result) in self.stacked:
                continue
            initial = self.b.full(0, result.type)
            self.carries[place, whole, 1, (initial,)] = (
                self.b.input(result.type, "last"),
                initial,
                (place, result),
            )
            kept.add((place, whole))

    def _key(self, result: Node) -> tuple[int, int]:
        number: Any = result.attrs["index"] if result.op.name in VIEWS else -1
        return self.at[self.loop.row.place(result)[0]][1], number

    def read(self, node: Node) -> Node | None:
        """What stands for a recorded node that shows a result of the loop; None for a view of what stands for
        its argument.
        """
        source, view = self.loop.row.place(node)
        step, place = self.at[source]
        if step == self.loop.length - 1 and (place, view) in self.final:
            return self.final[place, view]
        if result_of(node) is not node:
            return None
        array = self.rows[self._key(node)]
        rest = array.shape[1:]
        row = self.b.like(node).slice(
            array,
            starts=(step, *(0 for _ in rest)),
            limits=(step + 1, *rest),
            steps=tuple(1 for _ in array.shape),
        )
        return self.b.reshape(row, shape=rest)


def _why_varying(node: Node, argument: Node) -> str:
    """Why what varies is no array's element."""
    return f"an argument of {node.op.name}, of type {argument.type}, is another array in each step"
