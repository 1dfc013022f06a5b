"""Makes the record that native calls follow from the description of a specialisation.

An `EntrySpec` and the address of ``i64 program(ptr inputs, ptr outputs)`` become the tables of `layout.py`: a
`Specialisation`. Nothing is compiled here: a new signature, another guard or another captured array of an
already compiled program costs tens of microseconds.

Everything that the tables point to is referenced by the `Specialisation`, and a running call holds the
`Specialisation`: dropping it anywhere, at any time, is safe.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.backend.llvm.entry import cpython
from graphjit.backend.llvm.entry.donation import ENTRY_WORDS
from graphjit.backend.llvm.entry.large_results import SMALLEST
from graphjit.backend.llvm.entry.layout import (
    OP_BYTES,
    RECORD,
    WORDS_AT_ONCE,
    Build,
    Prepare,
    Walk,
    operation_words,
)
from graphjit.backend.llvm.writing.fields import WORD
from graphjit.backend.signature import (
    MISSING,
    ArrayIn,
    ArrayOut,
    BlockGuard,
    CellGuard,
    ClassGuard,
    ContentGuard,
    ContextGuard,
    Dict,
    EntrySpec,
    GlobalGuard,
    Guard,
    HiddenArray,
    InTree,
    List,
    MappingGuard,
    MemoryGuard,
    Node,
    OutTree,
    ScalarIn,
    ScalarOut,
    SequenceGuard,
    StaticIn,
    StaticOut,
    Tuple,
    leaves,
)

SPARE_BYTES = 1 << 13
SPARES_BYTES = 1 << 17
"""Results up to so many bytes are handed out again, while a specialisation keeps no more in all: making a
small NumPy array and freeing it costs more than most calls compute; of larger ones `large_results.py`
keeps the memory.
"""

_DICT_VERSION = -1
_CLASS_VERSION = (1 << 32) - 1
"""The bits of a word that hold the version of a dict, of a class."""


class Specialisation:
    """One signature of a compiled function, with all it needs to run.

    ``keep`` is any object that must live as long as the program's code (its `NativeModule`).
    """

    __slots__ = ("__weakref__", "_kept", "_record", "spec")

    def __init__(self, spec: EntrySpec, program: int, keep: object) -> None:
        tables = _Tables(spec)
        self.spec = spec
        self._record = tables.record(program, id(self))
        self._kept: tuple[Any, ...] = (keep, *tables.kept)

    @property
    def address(self) -> int:
        """Address of the record."""
        return self._record.buffer_info()[0]


class _Tables:
    """Operations of one specialisation under construction."""

    def __init__(self, spec: EntrySpec) -> None:
        self.kept: list[Any] = []
        self._walk = array("q")
        self._prepare = array("q")
        self._build = array("q")
        self._held = array("q")
        self._shapes: dict[tuple[int, ...], int] = {}
        self._spec = spec

        inputs, outputs = spec.input_slots, spec.output_slots
        self._registers = len(spec.inputs) + sum(_items(tree) for tree in spec.inputs)
        self._inputs = self._registers * WORD
        self._scalars = self._inputs + inputs * WORD
        self._outputs = self._scalars + inputs * WORD
        self._leaves = self._outputs + outputs * WORD
        self._stack = self._leaves + outputs * WORD
        self._slot = self._spared = 0
        self._free = len(spec.inputs)
        self._donors = {
            leaf.donor
            for leaf in leaves(spec.outputs)
            if isinstance(leaf, ArrayOut) and leaf.donor is not None
        }
        self._arrays = array("q")  # the table of `donation.py`
        self._sources: dict[int, int] = {}  # register of each argument that is an array, by input slot

        self._emit_arguments(spec)
        for hidden in spec.hidden:
            self._emit_array(Walk.HIDDEN, hidden, array=self._address(hidden.array))
        self._emit_guards(spec.guards)
        self._op(Walk.END)
        if self._donors:
            count = len(self._arrays) // ENTRY_WORDS
            self._op(Prepare.APART, arrays=self._table(self._arrays), count=count)
        tree = spec.outputs if spec.wrap is None else Tuple(tuple(leaves(spec.outputs)))
        depth = self._emit_outputs(tree)
        self._frame = self._stack + max(depth, 1) * WORD

    def record(self, program: int, owner: int) -> array[int]:
        """The finished record."""
        spec = self._spec
        values = {
            "program": program,
            "owner": owner,
            "positional": spec.positional,
            "keywords": len(spec.keywords),
            "names": self._address(spec.keywords) if spec.keywords else 0,
            "frame_bytes": self._frame,
            "walk": self._table(self._walk),
            "prepare": self._table(self._prepare),
            "build": self._table(self._build),
            "inputs": self._inputs,
            "outputs": self._outputs,
            "stack": self._stack,
            "held": self._table(self._held),
            "held_count": len(self._held),
            "release_gil": int(spec.release_gil),
            "on_error": self._address(spec.on_error),
            "wrap": 0 if spec.wrap is None else self._address(spec.wrap),
        }
        return array("q", [values[name] for name in RECORD])

    def _address(self, value: Any) -> int:
        self.kept.append(value)
        return id(value)

    def _table(self, words: array[int]) -> int:
        self.kept.append(words)
        return words.buffer_info()[0]

    def _shape(self, shape: tuple[int, ...]) -> int:
        if shape not in self._shapes:
            self._shapes[shape] = self._table(array("q", shape or (0,)))
        return self._shapes[shape]

    def _keys(self, keys: Iterable[Any]) -> int:
        return self._table(array("q", [self._address(key) for key in keys] or [0]))

    def _op(self, code: Walk | Prepare | Build, **fields: int) -> None:
        """Add an operation to its table."""
        table = {Walk: self._walk, Prepare: self._prepare, Build: self._build}[type(code)]
        table.extend(operation_words(code, fields))

    def _next_slot(self) -> int:
        self._slot += 1
        return self._slot - 1

    def _emit_arguments(self, spec: EntrySpec) -> None:
        """The walk over the arguments: depth first, so that input slots follow the order of the leaves."""
        roots = [(tree, i, False) for i, tree in enumerate(spec.inputs)]
        pending: list[tuple[InTree, int, bool]] = roots[::-1]
        while pending:
            tree, register, mutable = pending.pop()
            if not isinstance(tree, Node):
                # What stands in a list or a dict can be dropped by another thread while the program runs
                # without the GIL: it is held.
                self._emit_leaf(tree, register, hold=mutable and spec.release_gil)
                continue
            first = self._emit_node(tree, register)
            inside = mutable or not isinstance(tree, Tuple)
            pending.extend((child, first + i, inside) for i, child in reversed([*enumerate(tree.children)]))

    def _emit_node(self, node: Tuple | List | Dict, register: int) -> int:
        """Take a container apart; return the register of its first item."""
        first, count = self._free, len(node.children)
        self._free += count
        fields = {"register": register * WORD, "items": first * WORD, "length": count}
        if isinstance(node, Dict):
            self._op(Walk.DICT, **fields, keys=self._keys(node.keys))
        elif isinstance(node, Tuple):
            self._op(Walk.TUPLE, **fields, type=self._address(node.kind))
        else:
            self._op(Walk.LIST, **fields)
        return first

    def _emit_guards(self, guards: Sequence[Guard]) -> None:
        """What a call depends on besides its arguments; what is cheapest to compare stands first."""
        self._emit_words([guard for guard in guards if isinstance(guard, CellGuard | MemoryGuard)])
        of_dicts: dict[int, list[GlobalGuard | MappingGuard]] = {}
        for guard in guards:
            if isinstance(guard, GlobalGuard | MappingGuard):
                of_dicts.setdefault(id(guard.items), []).append(guard)
        version = cpython.layout().dict_version
        for same_dict in of_dicts.values():
            self._emit_versioned(id(same_dict[0].items) + version if version else 0, _DICT_VERSION, same_dict)
        for guard in guards:
            if not isinstance(guard, CellGuard | MemoryGuard | GlobalGuard | MappingGuard):
                self._emit_guard(guard)

    def _emit_words(self, guards: Sequence[CellGuard | MemoryGuard]) -> None:
        """One table of all words of memory that must be what they were."""
        words = array("q")
        for guard in guards:
            if isinstance(guard, CellGuard):
                words.extend((id(guard.cell) + cpython.layout().cell_contents, self._address(guard.expected)))
            else:
                for i, expected in enumerate(array("q", guard.expected)):
                    words.extend((guard.address + i * WORD, expected))
            self.kept.append(guard)
        while len(words) % (2 * WORDS_AT_ONCE):
            words.extend(words[-2:])
        if words:
            first = self._table(words)
            self._op(Walk.WORDS, pairs=first, end=first + len(words) * WORD)

    def _emit_versioned(self, address: int, bits: int, guards: Sequence[Guard]) -> None:
        """Guards that need no look as long as the version at ``address`` is what it was when they held last
        (address 0: there is none).
        """
        before, self._walk = self._walk, array("q")
        for guard in guards:
            self._emit_guard(guard)
        inside, self._walk = self._walk, before
        if not address:
            self._walk.extend(inside)
            return
        between = OP_BYTES + len(inside) * WORD
        self._op(Walk.VERSION, place=address, expected=0, bits=bits, skip=between + OP_BYTES)
        self._walk.extend(inside)
        self._op(Walk.RENEW, back=-between)

    def _emit_guard(self, guard: Guard) -> None:
        match guard:
            case GlobalGuard():
                names, name = self._address(guard.items), self._address(guard.name)
                expected = 0 if guard.expected is MISSING else self._address(guard.expected)
                self._op(Walk.GLOBAL, names=names, name=name, expected=expected)
            case SequenceGuard():
                items, count = self._address(guard.items), len(guard.snapshot)
                expected = self._keys(guard.snapshot)
                self._op(Walk.SEQUENCE, list=items, length=count, expected=expected, bytes=count * WORD)
            case MappingGuard():
                keys, values = self._keys(guard.keys), self._keys(guard.values)
                items = self._address(guard.items)
                self._op(Walk.MAPPING, dict=items, length=len(guard.keys), keys=keys, values=values)
            case ClassGuard():
                self.kept.append(guard)
                self._emit_versioned(guard.version, _CLASS_VERSION, guard.entries)
            case ContentGuard():
                self._emit_content(guard)
            case BlockGuard():
                self.kept.append(guard)
                for address, held in guard.blocks:
                    self._op(Walk.BLOCK, place=address, expected=self._bytes(held), bytes=len(held))
            case ContextGuard():
                variable, expected = self._address(guard.variable), self._address(guard.expected)
                self._op(Walk.CONTEXT, variable=variable, expected=expected, missing=id(MISSING))
            case _:
                raise AssertionError(f"calls that depend on {guard!r} have no native entry")

    def _emit_content(self, guard: ContentGuard) -> None:
        self.kept.append(guard)
        self._op(
            Walk.CONTENT,
            array=id(guard.array),
            expected=self._bytes(guard.expected),
            descr=id(guard.dtype),
            rank=len(guard.shape),
            shape=self._shape(guard.shape),
            bytes=len(guard.expected),
        )

    def _bytes(self, content: bytes) -> int:
        return self._table(array("b", content or b"\0"))

    def _emit_leaf(self, leaf: ArrayIn | ScalarIn | StaticIn, register: int, hold: bool) -> None:
        source = register * WORD
        match leaf:
            case StaticIn(value):
                self._op(Walk.STATIC, register=source, expected=self._address(value))
            case ArrayIn():
                self._sources[self._slot] = source
                self._emit_array(Walk.ARRAY, leaf, register=source)
                if hold:
                    self._held.append(source)
            case ScalarIn(dtype, python):
                slot = self._next_slot() * WORD
                places = {"slot": self._inputs + slot, "scalar": self._scalars + slot}
                if python and dtype.kind == "i":
                    self._op(Walk.INT, register=source, **places)
                    return
                facts = cpython.dtype_facts(dtype.name)
                type, twin = (id(float), id(float)) if python else (facts.scalar, facts.scalar_twin)
                self._op(Walk.VALUE, register=source, type=type, twin=twin, **places)

    def _emit_array(self, code: Walk, leaf: ArrayIn | HiddenArray, **where: int) -> None:
        facts = cpython.dtype_facts(leaf.dtype.name)
        number = self._next_slot()
        slot = self._inputs + number * WORD
        nbytes = _nbytes(leaf)
        if self._donors and nbytes:
            self._arrays.extend((slot, nbytes, int(number in self._donors)))
        self._op(
            code,
            **where,
            slot=slot,
            descr=facts.descr,
            rank=len(leaf.shape),
            shape=self._shape(leaf.shape),
            numbers=facts.number | facts.number_twin << 32,
        )

    def _emit_outputs(self, tree: OutTree) -> int:
        """Emit preparation and construction; return the greatest depth of the stack."""
        depth = deepest = 0
        pending: list[tuple[OutTree, bool]] = [(tree, False)]
        while pending:
            node, ready = pending.pop()
            if not isinstance(node, Node):
                self._emit_result(node)
                depth += 1
            elif not ready:
                pending.append((node, True))
                pending.extend((child, False) for child in reversed(node.children))
            else:
                self._emit_container(node)
                depth += 1 - len(node.children)
            deepest = max(deepest, depth)
        self._op(Prepare.END)
        self._op(Build.END)
        return deepest

    def _emit_container(self, node: Tuple | List | Dict) -> None:
        count = len(node.children)
        if isinstance(node, Dict):
            # Copying a dict with the right keys is cheaper than growing an empty one.
            template = self._address(dict.fromkeys(node.keys))
            self._op(Build.DICT, length=count, keys=self._keys(node.keys), template=template)
        else:
            self._op(Build.TUPLE if isinstance(node, Tuple) else Build.LIST, length=count)

    def _emit_result(self, leaf: ArrayOut | ScalarOut | StaticOut) -> None:
        match leaf:
            case StaticOut(value):
                self._op(Build.STATIC, value=self._address(value))
            case ArrayOut():
                place = self._leaves + leaf.source * WORD
                self._emit_array_result(leaf, self._outputs + leaf.source * WORD, place)
                self._op(Build.ARRAY, leaf=place)
            case ScalarOut(dtype, source):
                place = self._leaves + source * WORD
                self._op(Prepare.SCALAR, slot=self._outputs + source * WORD, scalar=place)
                self._emit_scalar_result(dtype, place)

    def _emit_array_result(self, leaf: ArrayOut, slot: int, place: int) -> None:
        """How the array is made: in the order asked for, in memory of a donor, from spare ones, or fresh."""
        shown = leaf.shape
        if leaf.order is not None:
            lies = np.empty(leaf.shape, leaf.dtype.name).transpose(np.argsort(leaf.order))
            shown = lies.shape
        fields = {
            "slot": slot,
            "leaf": place,
            "descr": cpython.dtype_facts(leaf.dtype.name).descr,
            "rank": len(leaf.shape),
            "shape": self._shape(shown),
        }
        large = _nbytes(leaf) >= SMALLEST
        if leaf.order is not None:
            self._op(Prepare.ORDERED, **fields, strides=self._shape(lies.strides))
        elif leaf.donor is not None:
            self._op(Prepare.DONOR, **fields, register=self._sources[leaf.donor], large=int(large))
        elif spares := self._spare_arrays(leaf):
            self._op(Prepare.SPARE, **fields, one=id(spares[0]), two=id(spares[1]))
        else:
            self._op(Prepare.BLOCK if large else Prepare.ARRAY, **fields)

    def _emit_scalar_result(self, dtype: np.dtype, place: int) -> None:
        if dtype.kind == "b":
            self._op(Build.BOOL, scalar=place)
            return
        facts = cpython.dtype_facts(dtype.name)
        one, two = spares = [np.dtype(dtype.name).type(0) for _ in range(2)]
        self.kept.append(spares)
        kind = {"type": facts.scalar, "allocate": facts.allocate}
        self._op(Build.SCALAR, scalar=place, **kind, one=id(one), two=id(two))

    def _spare_arrays(self, leaf: ArrayOut) -> list[np.ndarray]:
        """Two arrays: a caller that keeps the last result while it asks for the next gets them in turn."""
        nbytes = _nbytes(leaf)
        if nbytes > SPARE_BYTES or self._spared + 2 * nbytes > SPARES_BYTES:
            return []
        self._spared += 2 * nbytes
        spares = [np.empty(leaf.shape, leaf.dtype.name) for _ in range(2)]
        self.kept.append(spares)
        return spares


def _nbytes(leaf: ArrayIn | HiddenArray | ArrayOut) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _items(tree: InTree) -> int:
    """Number of nodes below the root of a tree."""
    count, pending = 0, [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Node):
            count += len(node.children)
            pending.extend(node.children)
    return count
