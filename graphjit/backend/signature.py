"""What one compiled specialisation accepts and returns, as data.

An `EntrySpec` describes a call (its arguments, the captured values it depends on, its result) completely
enough that a native entry point can be made from it alone. The tracer makes it from one real call. It is
plain immutable data and knows nothing of LLVM or CPython. One that was constructed is consistent: lengths
agree, output slots are a permutation.

Input slots of the program are numbered in tree order: the leaves of the positional arguments, then of the
keyword arguments (`StaticIn` takes no slot), then the hidden arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import CellType
from typing import Any

import numpy as np

DTYPES = frozenset(
    np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64",
    )
)  # fmt: skip
PYTHON_SCALARS = frozenset((np.dtype("float64"), np.dtype("int64")))


class _Missing:
    """Type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
"""Expected "value" of a global name that must not exist (the name was found among the builtins)."""


def _check_dtype(dtype: np.dtype) -> None:
    if dtype not in DTYPES or not dtype.isnative:
        raise ValueError(f"{dtype!r} is not a dtype of compiled programs")


@dataclass(frozen=True, slots=True)
class Tuple:
    """An exact ``tuple``, or as an argument a named tuple of a class, whose items lie as those of tuples."""

    children: tuple[Any, ...]
    kind: type = tuple


@dataclass(frozen=True, slots=True)
class List:
    """An exact ``list``."""

    children: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Dict:
    """An exact ``dict``.

    ``keys`` stand in insertion order and another order does not match: a function may iterate over its
    argument, so the order can change what it computes.
    """

    keys: tuple[Any, ...]
    children: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.children):
            raise ValueError(f"{len(self.keys)} keys for {len(self.children)} children")


@dataclass(frozen=True, slots=True)
class ArrayIn:
    """An exact ``numpy.ndarray``: native byte order, C-contiguous, aligned, of this dtype and shape."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class ScalarIn:
    """A dynamic scalar: a NumPy scalar of exactly this type, or an exact Python float / int.

    A Python int is passed as int64; one that does not fit does not match.
    """

    dtype: np.dtype
    python: bool

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        if self.python and self.dtype not in PYTHON_SCALARS:
            raise ValueError(f"a Python scalar is float64 or int64, not {self.dtype}")


@dataclass(frozen=True, slots=True)
class StaticIn:
    """A value that was compiled in.

    The same object matches, and so does an equal one of the same exact type if that type is ``str``,
    ``bytes``, ``int``, ``float`` or ``complex`` (bit for bit), or a ``tuple`` of such. No other type is
    compared by value: that would run foreign code in the middle of the argument check.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class HiddenArray:
    """A captured ndarray, read by reference at each call; its type is checked like an argument's."""

    array: np.ndarray
    dtype: np.dtype
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class CellGuard:
    """Closure cell ``cell`` must contain this very object."""

    cell: CellType
    expected: Any


@dataclass(frozen=True, slots=True)
class GlobalGuard:
    """``items[name]`` must be this very object (or absent, for `MISSING`); ``items`` are the names of a
    module, an object or a class.
    """

    items: dict[Any, Any]
    name: Any
    expected: Any


@dataclass(frozen=True, slots=True)
class SequenceGuard:
    """A list (or a subclass of it) must hold these very objects."""

    items: list[Any]
    snapshot: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class MappingGuard:
    """A dict (or a subclass of it) must hold these very keys and values, in this order."""

    items: dict[Any, Any]
    keys: tuple[Any, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class MemoryGuard:
    """Whole words of an object's memory at ``address`` must be ``expected``: a slot, the fields of a
    function, the class or the dict of an object.

    ``kept`` are the objects that the words point to; ``what`` says for people what stands there.
    """

    owner: Any
    address: int
    expected: bytes
    kept: Any
    what: str


@dataclass(frozen=True, slots=True)
class ClassGuard:
    """A class must have these entries in itself and its bases.

    CPython gives a class another version whenever it or a base changes: as long as that is the same, the
    entries need not be looked at. ``version`` is its address (0: there is none).
    """

    kind: type
    version: int
    entries: tuple[GlobalGuard, ...]


@dataclass(frozen=True, slots=True)
class ContentGuard:
    """An array must have this dtype, this shape and, element by element, these bytes: numbers in it were
    compiled in.
    """

    array: np.ndarray
    dtype: np.dtype
    shape: tuple[int, ...]
    expected: bytes
    kept: Any = None


@dataclass(frozen=True, slots=True)
class BlockGuard:
    """Blocks of memory that belong to an object, (address, expected bytes), to be compared after a
    `MemoryGuard` of the words that point to them.

    The table of a set, the items of a deque; ``kept`` are the objects that they hold.
    """

    owner: Any
    blocks: tuple[tuple[int, bytes], ...]
    kept: Any


@dataclass(frozen=True, slots=True)
class ContextGuard:
    """A `contextvars.ContextVar` must have this very value (`MISSING`: none) in the context of the call."""

    variable: ContextVar[Any]
    expected: Any


@dataclass(frozen=True, slots=True)
class ForeignGuard:
    """``read(owner)`` must give these very objects: for what native code cannot look into, so that calls take
    the slow path.
    """

    owner: Any
    read: Callable[[Any], tuple[Any, ...]]
    expected: tuple[Any, ...]


Guard = (
    CellGuard
    | GlobalGuard
    | SequenceGuard
    | MappingGuard
    | MemoryGuard
    | ClassGuard
    | ContentGuard
    | BlockGuard
    | ContextGuard
    | ForeignGuard
)


@dataclass(frozen=True, slots=True)
class ArrayOut:
    """A C-contiguous ndarray that the program fills through its output slot ``source``: a fresh one, or its
    donor.

    ``donor`` is the input slot of a donated `ArrayIn` of the same type that the program may overwrite with
    this output. Its array itself is the result when it owns writable memory and no array of the call overlaps
    with a donor.

    ``order`` names the axes of the result from the slowest to the fastest where it is not row-major:
    ``shape`` is that of the memory then, so axis ``order[i]`` of the result is axis ``i`` of ``shape``.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    source: int
    donor: int | None = None
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        if self.order is not None and sorted(self.order) != list(range(len(self.shape))):
            raise ValueError(f"{self.order} is no order of the axes of {self.shape}")


@dataclass(frozen=True, slots=True)
class ScalarOut:
    """A NumPy scalar whose value the program writes through its output slot ``source``."""

    dtype: np.dtype
    source: int

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class StaticOut:
    """This object itself."""

    value: Any


Node = Tuple | List | Dict
InTree = Node | ArrayIn | ScalarIn | StaticIn
OutTree = Node | ArrayOut | ScalarOut | StaticOut


def leaves(tree: InTree | OutTree) -> Iterator[Any]:
    """The leaves of a tree, left to right, without recursion."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Node):
            pending.extend(reversed(node.children))
        else:
            yield node


@dataclass(frozen=True, slots=True)
class EntrySpec:
    """One specialisation.

    ``inputs`` has one tree per argument: ``positional`` of them, then one per name in ``keywords``, in
    the order of the call. ``wrap``, if given, receives the flat tuple of output leaves and returns the
    result (for named tuples, dataclasses ...). ``on_error(status)`` returns the exception to raise when
    the program returns a status other than 0. ``release_gil`` lets other threads run meanwhile.
    """

    positional: int
    keywords: tuple[str, ...]
    inputs: tuple[InTree, ...]
    hidden: tuple[HiddenArray, ...]
    guards: tuple[Guard, ...]
    outputs: OutTree
    on_error: Callable[[int], BaseException]
    wrap: Callable[[tuple[Any, ...]], Any] | None = None
    release_gil: bool = False

    def __post_init__(self) -> None:
        if self.positional + len(self.keywords) != len(self.inputs):
            raise ValueError(
                f"{len(self.inputs)} inputs for {self.positional} positional and {len(self.keywords)} keyword arguments"
            )
        sources = sorted(leaf.source for leaf in leaves(self.outputs) if not isinstance(leaf, StaticOut))
        if sources != list(range(len(sources))):
            raise ValueError(f"every program output needs exactly one leaf, got slots {sources}")
        donated = [
            leaf for leaf in leaves(self.outputs) if isinstance(leaf, ArrayOut) and leaf.donor is not None
        ]
        if donated:
            arguments = [
                leaf for tree in self.inputs for leaf in leaves(tree) if not isinstance(leaf, StaticIn)
            ]
            if len({leaf.donor for leaf in donated}) < len(donated):
                raise ValueError("two results want the memory of one argument")
            for leaf in donated:
                if (
                    leaf.donor is None
                    or leaf.order is not None
                    or ArrayIn(leaf.dtype, leaf.shape) not in arguments[leaf.donor : leaf.donor + 1]
                ):
                    raise ValueError(f"input slot {leaf.donor} is no argument of the type of {leaf}")

    @property
    def input_slots(self) -> int:
        """Number of pointers in the program's ``inputs`` array."""
        visible = (leaf for tree in self.inputs for leaf in leaves(tree))
        return sum(not isinstance(leaf, StaticIn) for leaf in visible) + len(self.hidden)

    @property
    def output_slots(self) -> int:
        """Number of pointers in the program's ``outputs`` array."""
        return sum(not isinstance(leaf, StaticOut) for leaf in leaves(self.outputs))
