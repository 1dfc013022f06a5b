"""What an op is: one record with its type rule, reference, derivative, batching, lowering and test samples.

`op` declares one; the files of `graphjit/ops` do nothing else. The kinds of derivative (`Partials`, `Linear`,
...) and of lowering (`Scalar`, `View`, `Reduce`, ...) are defined here too.

Input: keyword arguments of `op`. Output: an `OpDef` in `REGISTRY`.
Invariant: a declaration that is incomplete or contradicts itself is refused at import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from graphjit.errors import IRError
from graphjit.ir import scalars
from graphjit.ir.batching import BatchRule, same_op
from graphjit.ir.names import WORD
from graphjit.ir.types import Type

Node = Any
"""A node of a graph (`ir.node.Node`), which is defined on top of this: each node has an op."""

Partial = Callable[..., Node | None] | int | None


@dataclass(frozen=True)
class Partials:
    """Elementwise op: one local partial derivative for each argument.

    Each is a function ``(b, out, *args) -> Node`` of the result's shape (``out`` is the op's own node: its
    value and its attributes), the number 1 or -1, or None where the derivative is zero. Forward and reverse
    mode both come from it.
    """

    formulas: tuple[Partial, ...]

    def __init__(self, *formulas: Partial) -> None:
        object.__setattr__(self, "formulas", formulas)


@dataclass(frozen=True)
class Linear:
    """Op that is linear in ``args`` taken together (default: its first argument).

    ``transpose(b, cotangent, out, *args)`` returns one cotangent (or None) per argument, in order, for all
    arguments. Forward mode applies the op itself to the tangents.
    """

    transpose: Callable[..., Sequence[Node | None]]
    args: tuple[int, ...] | None = (0,)  # None: every argument


@dataclass(frozen=True)
class Bilinear:
    """Op linear in each of its two arguments: ``lhs(b, cotangent, out, x, y)`` gives x's cotangent, ``rhs``
    gives y's.
    """

    lhs: Callable[..., Node]
    rhs: Callable[..., Node]


@dataclass(frozen=True)
class Custom:
    """Both rules by hand, where one cannot be derived from the other.

    ``jvp(b, out, args, tangents) -> Node | None`` (a tangent is None where it is zero);
    ``vjp(b, cotangent, out, args) -> Sequence[Node | None]``.
    """

    jvp: Callable[..., Node | None]
    vjp: Callable[..., Sequence[Node | None]]


@dataclass(frozen=True)
class ZeroDerivative:
    """The derivative is zero wherever it exists (``floor``, comparisons, ``argmax``)."""

    reason: str


@dataclass(frozen=True)
class NonDifferentiable:
    """A derivative asked of this op is an error with this reason."""

    reason: str


@dataclass(frozen=True)
class ByRule:
    """The node's attribute ``rule`` says (`ir.rule.Rule`); without one, its body is differentiated."""


@dataclass(frozen=True)
class Part:
    """One of several results: its derivative is that part of the derivative of its argument."""


Derivative = Partials | Linear | Bilinear | Custom | ByRule | Part | ZeroDerivative | NonDifferentiable


@dataclass(frozen=True)
class Scalar:
    """Elementwise: one operation ``name`` of the loop IR's scalar vocabulary (`ir.scalars`) per element."""

    name: str

    @property
    def cost(self) -> int:
        """Units that one element costs."""
        return scalars.cost(self.name)


@dataclass(frozen=True)
class Decompose:
    """Rewritten into other ops after differentiation: ``expand(b, out, *args) -> Node``."""

    expand: Callable[..., Node]


@dataclass(frozen=True)
class View:
    """The result's element at ``index`` is the first argument's element at ``index_map(node, index)``;
    affine, nothing is computed. Other arguments only say what is computed before (`recompute`).
    """

    index_map: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Reduce:
    """Reduction over the axes in attribute ``axes`` with combiner ``add|mul|max|min|and|or``."""

    combine: str


@dataclass(frozen=True)
class Scan:
    """A running value along the attribute ``axis`` (from the end if ``reverse``) with combiner ``add|mul``;
    its result is every stage of it.

    With two arguments the running value is multiplied by the first before the second joins it, but for the
    first element of a row.
    """

    combine: str


@dataclass(frozen=True)
class Special:
    """Lowered by a named rule of its own in ``schedule``/``loops`` (input, const, contract, gather ...)."""

    kind: str


@dataclass(frozen=True)
class OverBody:
    """Batching of a node with a body: the body over the batch, and its rule too."""


Lowering = Scalar | Decompose | View | Reduce | Scan | Special
LocalRule = Callable[..., Node | None]


@dataclass(frozen=True, eq=False)
class OpDef:
    """One op. Equality is identity; the name is unique.

    Attributes:
        name: its name in the IR.
        doc: one line for ``graphjit ops``.
        attrs: names of its attributes in order; `Builder.emit` takes all of them by keyword.
        arity: number of arguments; None where any number is taken.
        infer: ``(*types, **attrs) -> Type``, the type of the result; raises ShapeError on misuse.
        impl: the reference in NumPy, ``(*arrays, **attrs) -> ndarray`` of the inferred dtype.
        derivative: how it is differentiated.
        lower: how it becomes loops.
        batch: the op over a batch (`ir.batching`). That of elementwise ops, reductions, running values and
            ops that are rewritten into those is derived: the op itself on one more axis. Others declare
            theirs. None: it has no arguments.
        numpy: the ufuncs of NumPy and SciPy that are this op.
        simplify: exact rules ``(b, *args, **attrs) -> Node | None``, tried when a node is built.
        samples: what tests feed it: the interval ``(low, high)`` in which it is differentiable, or
            ``(rng, dtype) -> list of argument lists``.
        special: values that tests feed besides (signed zeros, infinities, NaN).
        accuracy: bound of the compiled result, such as ``"1 ULP"``; empty where it is exact or correctly
            rounded.
        file: where it is declared.
        line: the line there.
    """

    name: str
    doc: str
    attrs: tuple[str, ...]
    arity: int | None
    infer: Callable[..., Type]
    impl: Callable[..., Any]
    derivative: Derivative
    lower: Lowering
    batch: BatchRule | OverBody | None
    numpy: tuple[Any, ...]
    simplify: tuple[LocalRule, ...]
    samples: Any
    special: tuple[float, ...]
    accuracy: str
    file: str
    line: int

    def __repr__(self) -> str:
        return f"<op {self.name}>"


REGISTRY: dict[str, OpDef] = {}
"""Every op by its name."""


def op(
    name: str,
    *,
    doc: str,
    infer: Callable[..., Type],
    impl: Callable[..., Any],
    grad: Derivative,
    lower: Lowering,
    batch: BatchRule | OverBody | None = None,
    arity: int | None = 1,
    attrs: Sequence[str] = (),
    numpy: Sequence[Any] = (),
    simplify: Sequence[LocalRule] = (),
    samples: Any = None,
    special: Sequence[float] = (),
    accuracy: str = "",
) -> OpDef:
    """Declare an op; the arguments are the fields of `OpDef` (``grad`` is its ``derivative``).

    Raises:
        IRError: the declaration is incomplete, contradicts itself or takes a name twice.
    """
    file, line = _declared_at(sys._getframe(1))
    declared = OpDef(
        name=name,
        doc=doc.strip(),
        attrs=tuple(attrs),
        arity=arity,
        infer=infer,
        impl=impl,
        derivative=grad,
        lower=lower,
        batch=batch or _derived_batch(arity, lower),
        numpy=tuple(numpy),
        simplify=tuple(simplify),
        samples=samples,
        special=tuple(special),
        accuracy=accuracy,
        file=file,
        line=line,
    )
    fault = _naming_fault(declared) or _derivative_fault(declared) or _lowering_fault(declared)
    if fault:
        raise IRError(f"op {name!r} ({file}:{line}) refused: {fault}")
    REGISTRY[name] = declared
    return declared


def _derived_batch(arity: int | None, lower: Lowering) -> BatchRule | None:
    """The batching rule that follows from the lowering; None where one has to be declared."""
    derived = isinstance(lower, Scalar | Reduce | Scan | Decompose) and arity != 0
    return same_op if derived else None


def _declared_at(frame: FrameType) -> tuple[str, int]:
    """The file of ``frame`` and its outermost line there: a module may declare a family of ops through a
    shorthand of its own, and the declaration is where the module uses it.
    """
    file = frame.f_code.co_filename
    while frame.f_back is not None and frame.f_back.f_code.co_filename == file:
        frame = frame.f_back
    return file, frame.f_lineno


def _naming_fault(op: OpDef) -> str:
    """What is wrong with how an op is named and described; empty when nothing is."""
    if op.name in REGISTRY:
        return f"the name is taken by {REGISTRY[op.name].file}:{REGISTRY[op.name].line}"
    if not all(WORD.fullmatch(word) for word in (op.name, *op.attrs)):
        return "its name and attributes must be words: they stand in printed and in generated text"
    return "" if op.doc else "it has no doc"


def _derivative_fault(op: OpDef) -> str:
    """How the derivative of an op contradicts the rest of it; empty when it does not."""
    rule = op.derivative
    if isinstance(rule, Partials) and op.arity is not None and len(rule.formulas) != op.arity:
        return f"{len(rule.formulas)} partials for {op.arity} arguments"
    if isinstance(rule, Bilinear) and op.arity != 2:
        return "bilinear ops take two arguments"
    if isinstance(rule, ZeroDerivative | NonDifferentiable) and not rule.reason:
        return "a missing derivative needs its reason"
    return ""


def _lowering_fault(op: OpDef) -> str:
    """What the lowering of an op needs and does not find; empty when nothing is missing."""
    if isinstance(op.lower, Reduce) and "axes" not in op.attrs:
        return "a reduction needs the attribute axes"
    if isinstance(op.lower, Scan) and not {"axis", "reverse"} <= set(op.attrs):
        return "a running value needs the attributes axis and reverse"
    if isinstance(op.lower, View) and not op.arity:
        return "a view shows its first argument"
    if op.batch is None and op.arity != 0:
        return "it has no batching rule, and none follows from its lowering"
    if op.samples is None and not isinstance(op.lower, Special):
        return "it has no samples for the op matrix"
    return ""
