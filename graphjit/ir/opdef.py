"""Op declarations: everything about one op in one record.

Job: the record, its derivative kinds, its lowering kinds, and the registry.
Input: keyword arguments of `op`.  Output: an `OpDef` in `REGISTRY`.
Invariant: an incomplete or inconsistent declaration is refused at import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphjit.errors import IRError
from graphjit.ir import scalars
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


Derivative = Partials | Linear | Bilinear | Custom | ZeroDerivative | NonDifferentiable


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
    """The result's element at ``index`` is the argument's element at ``index_map(node, index)``; affine,
    nothing is computed.
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


Lowering = Scalar | Decompose | View | Reduce | Scan | Special
LocalRule = Callable[..., Node | None]


@dataclass(frozen=True, eq=False)
class OpDef:
    """One op.  Equality is identity; the name is unique."""

    name: str
    doc: str
    attrs: tuple[str, ...]
    arity: int | None
    infer: Callable[..., Type]
    impl: Callable[..., Any]
    derivative: Derivative
    lower: Lowering
    numpy: tuple[Any, ...]
    simplify: tuple[LocalRule, ...]
    samples: Any
    special: tuple[float, ...]
    accuracy: str
    file: str
    line: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


REGISTRY: dict[str, OpDef] = {}


def op(
    name: str,
    *,
    doc: str,
    infer: Callable[..., Type],
    impl: Callable[..., Any],
    grad: Derivative,
    lower: Lowering,
    arity: int | None = 1,
    attrs: Sequence[str] = (),
    numpy: Sequence[Any] = (),
    simplify: Sequence[LocalRule] = (),
    samples: Any = None,
    special: Sequence[float] = (),
    accuracy: str = "",
) -> OpDef:
    """Declare an op.

    Args:
        name: unique name in the IR. doc: one line for `graphjit ops`. infer: ``(*types, **attrs) -> Type``;
        raises ShapeError on misuse. impl: NumPy reference, ``(*arrays, **attrs) -> ndarray``; the result's
        dtype must be the inferred one. grad: its derivative kind. lower: its lowering kind. arity: number of
        arguments, None for variadic. attrs: names of its attributes in order; all are given to `Builder.emit`
        by keyword. numpy: the NumPy/SciPy functions that bind to it one to one (ufuncs). simplify: exact
        local rules ``(b, *args, **attrs) -> Node | None`` tried when a node is built. samples: how tests draw
        arguments (see tests/op_samples.py); a pair ``(low, high)`` of the differentiable domain per op
            or a callable ``(rng, dtype) -> list of argument lists``.
        special: extra values that tests feed (signed zeros, infinities, NaN).
        accuracy: bound of the compiled result, such as ``"1 ULP"``; empty means exact or correctly rounded.

    Raises:
        IRError: the declaration is incomplete, contradicts itself or takes a name twice.
    """
    frame = sys._getframe(1)
    # A family may have a shorthand of its own: the declaration is where the module uses it.
    while frame.f_back is not None and frame.f_back.f_code.co_filename == frame.f_code.co_filename:
        frame = frame.f_back

    def refuse(why: str) -> None:
        raise IRError(f"op {name!r} ({frame.f_code.co_filename}:{frame.f_lineno}) refused: {why}")

    if name in REGISTRY:
        refuse(f"the name is taken by {REGISTRY[name].file}:{REGISTRY[name].line}")
    if not all(WORD.fullmatch(word) for word in (name, *attrs)):
        refuse("its name and attributes must be words: they stand in printed and in generated text")
    if not doc.strip():
        refuse("it has no doc")
    if isinstance(grad, Partials) and arity is not None and len(grad.formulas) != arity:
        refuse(f"{len(grad.formulas)} partials for {arity} arguments")
    if isinstance(grad, Bilinear) and arity != 2:
        refuse("bilinear ops take two arguments")
    if isinstance(grad, ZeroDerivative | NonDifferentiable) and not grad.reason:
        refuse("a missing derivative needs its reason")
    if isinstance(lower, Reduce) and "axes" not in attrs:
        refuse("a reduction needs the attribute axes")
    if isinstance(lower, Scan) and not {"axis", "reverse"} <= set(attrs):
        refuse("a running value needs the attributes axis and reverse")
    if isinstance(lower, View) and arity != 1:
        refuse("a view has one argument")
    if samples is None and not isinstance(lower, Special):
        refuse("it has no samples for the op matrix")
    declared = OpDef(
        name=name,
        doc=doc.strip(),
        attrs=tuple(attrs),
        arity=arity,
        infer=infer,
        impl=impl,
        derivative=grad,
        lower=lower,
        numpy=tuple(numpy),
        simplify=tuple(simplify),
        samples=samples,
        special=tuple(special),
        accuracy=accuracy,
        file=frame.f_code.co_filename,
        line=frame.f_lineno,
    )
    REGISTRY[name] = declared
    return declared
