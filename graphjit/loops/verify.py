"""Is a loop kernel well formed?

Job: check every rule of the loop IR that the back ends rely on.
Input: a kernel.  Output: nothing.
Invariant: code printed from a kernel that passes defines what it reads, stays inside its buffers, and gives
the same result for every order in which the blocks of its parallel loops run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, get_args

import numpy as np

from graphjit.errors import IRError
from graphjit.ir.affine import UNBOUNDED, Affine, divided
from graphjit.ir.buffers import Buffer
from graphjit.ir.types import BOOL, DTYPES, I64
from graphjit.loops.elements import as_loops
from graphjit.loops.ir import (
    EXPRESSIONS,
    STATEMENTS,
    Accumulate,
    Address,
    Axis,
    Bound,
    Check,
    Choose,
    Const,
    For,
    Index,
    Init,
    Let,
    Load,
    LoopKernel,
    LoopKind,
    Peek,
    Push,
    Ref,
    Repeat,
    Scalar,
    Statement,
    Store,
    free_refs,
    open_accumulators,
    uses,
)
from graphjit.loops.lanes import varying
from graphjit.loops.printer import statement_text

COMBINERS = frozenset({"add", "mul", "max", "min", "and", "or"})

Interval = tuple[int, int]
Dynamic = tuple[tuple[Ref, int], ...]


def verify_kernel(kernel: LoopKernel, errors: int | None = None) -> None:
    """Check ``kernel``.

    Args:
        kernel: the kernel.
        errors: how many error codes the program has; codes beyond it are refused.  None: any positive code.

    Raises:
        IRError: what is wrong, with the statement.
    """
    kernel = as_loops(kernel)
    _Verifier(kernel, errors).body(kernel.body, _Scope())


@dataclass(frozen=True)
class _Scope:
    """What is known at one point: loops that are open, values and accumulators that are defined."""

    extents: Mapping[Axis, int] = field(default_factory=dict)
    bounds: tuple[tuple[Axis, Bound], ...] = ()
    loops: tuple[For, ...] = ()
    lets: dict[Ref, Let] = field(default_factory=dict)
    open: dict[Ref, str] = field(default_factory=dict)
    checked: set[Ref] = field(default_factory=set)

    def inside(self, loop: For) -> _Scope:
        """The scope at the head of a loop's body; a parallel loop starts anew, since its body becomes a
        function. What was checked before it stays so: it computes the same values again.
        """
        extents = {**self.extents, loop.axis: loop.extent}
        bounds = self.bounds if loop.bound is None else (*self.bounds, (loop.axis, loop.bound))
        known = _Scope() if loop.kind == "parallel" else self
        start = _Scope(lets=dict(known.lets), open=dict(known.open), checked=set(self.checked))
        return replace(start, extents=extents, bounds=bounds, loops=(*self.loops, loop))

    def apart(self, extents: Mapping[Axis, int]) -> _Scope:
        """The scope of statements of which nothing is known outside."""
        inner = replace(self, extents={**self.extents, **extents}, lets=dict(self.lets))
        return replace(inner, open=dict(self.open), checked=set(self.checked))

    @property
    def runs(self) -> bool:
        """Whether this point is reached at all."""
        return all(self.extents.values())


class _Verifier:
    def __init__(self, kernel: LoopKernel, errors: int | None) -> None:
        self.kernel = kernel
        self.errors = errors

    def fail(self, statement: Statement, what: str) -> NoReturn:
        raise IRError(f"kernel {self.kernel.name}: {what}\n  in: {statement_text(statement)}")

    # --------------------------------------------------------------------------------------------- statements

    def body(self, statements: tuple[Statement, ...], scope: _Scope) -> None:
        for statement in statements:
            if not isinstance(statement, STATEMENTS):
                raise IRError(f"kernel {self.kernel.name}: {statement!r} is no statement")
            for ref in uses(statement):
                self.known(statement, ref, scope)
            if isinstance(statement, Let):
                self.let(statement, scope)
            elif isinstance(statement, Init):
                self.init(statement, scope)
            elif isinstance(statement, Accumulate):
                self.accumulate(statement, scope)
            elif isinstance(statement, Store):
                self.store(statement, scope)
            elif isinstance(statement, Check):
                if statement.ok.dtype != BOOL:
                    self.fail(statement, "a condition must be bool")
                self.code(statement, statement.code)
                scope.checked.add(statement.ok)
            elif isinstance(statement, For):
                self.loop(statement, scope)
            elif isinstance(statement, Repeat):
                self.repeat(statement, scope)
            elif isinstance(statement, Choose):
                self.choose(statement, scope)
            elif isinstance(statement, Push):
                self.push(statement, scope)

    def init(self, statement: Init, scope: _Scope) -> None:
        """An accumulator is opened."""
        if statement.ref in scope.lets or statement.ref in scope.open:
            self.fail(statement, f"{statement.ref!r} is defined twice")
        if statement.combine not in COMBINERS:
            self.fail(statement, f"there is no combiner {statement.combine!r}")
        scope.open[statement.ref] = statement.combine

    def push(self, statement: Push, scope: _Scope) -> None:
        """Something is written on tapes."""
        for write in statement.writes:
            self.define(statement, write.ref, scope)
            if {write.ref.dtype, write.before.dtype} != {I64} or not write.values:
                self.fail(statement, "tapes are i64, and something is written on them")

    def let(self, statement: Let, scope: _Scope) -> None:
        ref, value = statement.ref, statement.value
        if not isinstance(value, EXPRESSIONS):
            raise IRError(f"kernel {self.kernel.name}: {value!r} is no expression")
        known = scope.lets.get(ref)
        # A block may compute again what was computed before it, under the same name: the value is the same.
        if ref in scope.open or (known is not None and known != statement):
            self.fail(statement, f"{ref!r} is defined twice")
        if ref.dtype not in DTYPES.values() and not ref.dtype.names:  # or a tape
            raise IRError(
                f"kernel {self.kernel.name}: {ref!r} has dtype {ref.dtype}, which the loop IR does not know"
            )
        if isinstance(value, Const):
            if value.value.dtype != ref.dtype:
                self.fail(statement, f"the constant has dtype {value.value.dtype}")
        elif isinstance(value, Load):
            if value.buffer.dtype != ref.dtype:
                self.fail(statement, f"the buffer holds {value.buffer.dtype}")
            self.place(statement, value.buffer, value.address, value.dynamic, scope, value.guard)
        elif isinstance(value, Index):
            if ref.dtype != I64:
                self.fail(statement, "an index is an i64")
            self.axes(statement, value.value, scope)
        elif isinstance(value, Peek):
            if value.tape.dtype != I64:
                self.fail(statement, "tapes are i64")
        elif value.check:
            self.code(statement, value.check)
        scope.lets[ref] = statement

    def accumulate(self, statement: Accumulate, scope: _Scope) -> None:
        if statement.ref not in scope.open:
            self.fail(statement, f"{statement.ref!r} is no open accumulator")
        if scope.open[statement.ref] != statement.combine:
            self.fail(statement, f"{statement.ref!r} was opened with {scope.open[statement.ref]!r}")
        if statement.value.dtype != statement.ref.dtype:
            self.fail(statement, f"{statement.value!r} has another dtype than the accumulator")
        if statement.factor is not None and (
            statement.combine != "add" or statement.factor.dtype != statement.ref.dtype
        ):
            self.fail(statement, "a factor belongs to a sum of its own dtype")

    def store(self, statement: Store, scope: _Scope) -> None:
        buffer = statement.buffer
        if buffer.kind in ("input", "const"):
            self.fail(statement, f"{buffer.name} must not be written")
        if statement.value.dtype != buffer.dtype:
            self.fail(statement, f"the buffer holds {buffer.dtype}")
        if statement.combine not in (*COMBINERS, ""):
            self.fail(statement, f"there is no combiner {statement.combine!r}")
        self.place(statement, buffer, statement.address, statement.dynamic, scope)
        if statement.streamed and not _is_row(statement, scope):
            self.fail(statement, "only neighbours in a simd loop go past the caches")
        for loop in scope.loops:
            if loop.kind == "parallel" and scope.runs and buffer.kind != "scratch":
                if not _disjoint(statement.address, statement.dynamic, loop.axis, scope):
                    self.fail(statement, f"blocks of {loop.axis!r} may write to the same place")
            if loop.kind == "simd" and statement.combine and not statement.address[loop.axis]:
                self.fail(statement, f"lanes of {loop.axis!r} may add to the same place")

    def loop(self, loop: For, scope: _Scope) -> None:
        if loop.kind not in get_args(LoopKind):
            self.fail(loop, f"there is no loop kind {loop.kind!r}")
        if loop.extent < 0 or loop.unroll < 1 or loop.lanes < 1:
            self.fail(loop, "extent must not be negative, unroll and lanes must be positive")
        if loop.kind != "simd" and (loop.lanes > 1 or loop.fetch or loop.tail != "masked"):
            self.fail(loop, "lanes, what is fetched and tails are those of a simd loop")
        if loop.axis in scope.extents:
            self.fail(loop, f"{loop.axis!r} runs already")
        if loop.bound is not None:
            self.axes(loop, loop.bound.start, scope)
        kinds = [outer.kind for outer in scope.loops]
        if loop.when is not None:
            self.condition(loop, scope, kinds)
        if loop.kind == "simd" and "simd" in kinds:
            self.fail(loop, "a simd loop runs inside another")
        if loop.kind == "parallel":
            self.parallel(loop, kinds)
        self.body(loop.body, scope.inside(loop))

    def repeat(self, loop: Repeat, scope: _Scope) -> None:
        """Steps that hand values on."""
        if loop.axis in scope.extents:
            self.fail(loop, f"{loop.axis!r} runs already")
        if self.differs(loop.holds, scope):
            self.fail(loop, "lanes cannot have numbers of steps of their own")
        if (loop.holds is None and loop.extent < 1) or (loop.holds is not None and loop.holds.dtype != BOOL):
            self.fail(loop, "a loop has a number of steps, or a test that is a bool")
        extent = loop.extent if loop.holds is None else 2**31
        inner = scope.apart({loop.axis: extent})
        for carried in loop.carried:
            self.define(loop, carried.ref, scope)
            inner.lets[carried.ref] = scope.lets[carried.ref]
            if not carried.ref.dtype == carried.start.dtype == carried.after.dtype:
                self.fail(loop, f"{carried.ref!r} changes its dtype")
        self.body(loop.test, inner)
        if loop.holds is not None:
            self.known(loop, loop.holds, inner)
        self.body(loop.body, inner)
        for carried in loop.carried:
            self.known(loop, carried.after, inner)

    def choose(self, statement: Choose, scope: _Scope) -> None:
        """One of several branches."""
        if statement.which.dtype != I64 or not statement.branches:
            self.fail(statement, "a branch is chosen by an i64")
        if self.differs(statement.which, scope):
            self.fail(statement, "lanes cannot take branches of their own")
        for number, branch in enumerate(statement.branches):
            inner = scope.apart({})
            self.body(branch, inner)
            for ref, values in statement.results:
                self.known(statement, values[number], inner)
                if values[number].dtype != ref.dtype:
                    self.fail(statement, f"branch {number} leaves another dtype in {ref!r}")
        for ref, _ in statement.results:
            self.define(statement, ref, scope)

    def differs(self, ref: Ref | None, scope: _Scope) -> bool:
        """Whether a value is another one in each lane of a loop around."""
        return any(outer.kind == "simd" and ref in varying(outer) for outer in scope.loops)

    def known(self, statement: Statement, ref: Ref, scope: _Scope) -> None:
        """A ref must be defined."""
        if ref not in scope.lets and ref not in scope.open:
            self.fail(statement, f"{ref!r} is read before it is defined")

    def define(self, statement: Statement, ref: Ref, scope: _Scope) -> None:
        """A value of which nothing is known."""
        if ref in scope.lets or ref in scope.open:
            self.fail(statement, f"{ref!r} is defined twice")
        scope.lets[ref] = Let(ref, Scalar("handed on", ()))

    def condition(self, loop: For, scope: _Scope, kinds: list[LoopKind]) -> None:
        """A loop that runs only where ``when`` holds."""
        if loop.when is not None and loop.when.dtype != BOOL:
            self.fail(loop, "a condition must be bool")
        if not scope.open.keys().isdisjoint({*open_accumulators(loop), *free_refs(loop)}):
            self.fail(loop, "a loop under a condition touches accumulators from outside")
        if "simd" in kinds:
            self.fail(loop, "a loop under a condition runs inside a simd loop")

    def parallel(self, loop: For, kinds: list[LoopKind]) -> None:
        """A loop whose iterations are tasks."""
        if kinds:
            self.fail(loop, "a parallel loop must be outermost")
        if loop.bound is not None or loop.when is not None:
            self.fail(loop, "a parallel loop has no bound and no condition")
        free = free_refs(loop)
        if free:
            self.fail(loop, f"a parallel loop must compute what it needs, it takes {sorted(map(repr, free))}")

    def code(self, statement: Statement, code: int) -> None:
        if code < 1 or (self.errors is not None and code > self.errors):
            self.fail(statement, f"the program has no error {code}")

    # ---------------------------------------------------------------------------------------------- addresses

    def axes(self, statement: Statement, address: Address, scope: _Scope) -> None:
        for axis in address.terms:
            if axis not in scope.extents:
                self.fail(statement, f"no loop over {axis!r} is open")

    def place(
        self,
        statement: Statement,
        buffer: Buffer,
        address: Address,
        dynamic: Dynamic,
        scope: _Scope,
        guard: Ref | None = None,
    ) -> None:
        self.axes(statement, address, scope)
        if buffer.kind in ("local", "scratch") and buffer not in self.kernel.locals:
            self.fail(statement, f"the local {buffer.name} is not declared")
        if not scope.runs:
            return
        if guard is not None and guard.dtype != BOOL:
            self.fail(statement, "a guard must be bool")
        for ref, factor in dynamic:
            if ref.dtype != I64:
                self.fail(statement, f"the position {ref!r} is no i64")
            address = address + _linear(ref, scope) * factor
        limits = _limits(guard, scope) if guard is not None else {}
        low, high = _confined(address, limits, scope)
        if low < 0 or high >= buffer.size:
            reach = "an unchecked position" if max(-low, high) >= 2**62 else f"{low}..{high}"
            self.fail(statement, f"{buffer.name} has {buffer.size} elements and is accessed at {reach}")


def interval(
    address: Address, extents: Mapping[Axis, int], bounds: tuple[tuple[Axis, Bound], ...] = ()
) -> Interval:
    """Smallest and largest value of ``address`` while every loop runs (extents are positive)."""
    low, high = address.span(extents)
    for i, (axis, bound) in enumerate(bounds):
        factor = address[axis]
        if factor:
            # address = factor * (start + axis) + rest, and start + axis <= stop - 1 wherever the loop runs.
            rest = address - (bound.start + Affine(0, {axis: 1})) * factor
            below, above = interval(rest, extents, bounds[:i] + bounds[i + 1 :])
            last = factor * (bound.stop - 1)
            low, high = (max(low, below + last), high) if factor < 0 else (low, min(high, above + last))
    return low, high


Limits = Mapping[Address, Interval]
"""What is known of index expressions without their constants."""


def _linear(ref: Ref, scope: _Scope) -> Affine[Any]:
    """A number as a sum of loop variables and of refs that are none."""
    let = scope.lets.get(ref)
    known = _constant(ref, scope)
    if known is not None:
        return Affine(known)
    if let is not None and isinstance(let.value, Index):
        return let.value.value
    if let is not None and isinstance(let.value, Scalar) and let.value.op in ("add", "mul"):
        first, second = (_linear(arg, scope) for arg in let.value.args)
        if let.value.op == "add":
            return first + second
        if not second.terms:
            return first * second.offset
    return Affine(0, {ref: 1})


def _comparison(ref: Ref, scope: _Scope) -> tuple[Affine[Any], Interval, Interval] | None:
    """An index expression without its constant that is compared with a number, and its ranges where that
    holds and where it does not.
    """
    let = scope.lets.get(ref)
    if let is None or not isinstance(let.value, Scalar) or let.value.op not in ("ge", "lt"):
        return None
    index, limit = _linear(let.value.args[0], scope), _constant(let.value.args[1], scope)
    if limit is None or not index.terms:
        return None
    moving, factor = index.direction()
    above = divided(limit - index.offset, UNBOUNDED[1], factor)
    below = divided(UNBOUNDED[0], limit - index.offset - 1, factor)
    return (moving, above, below) if let.value.op == "ge" else (moving, below, above)


def _limits(condition: Ref, scope: _Scope) -> dict[Address, Interval]:
    """What is known where a conjunction of comparisons holds."""
    limits: dict[Address, Interval] = {}
    pending = [condition]
    while pending:
        ref = pending.pop()
        let = scope.lets.get(ref)
        if let is not None and isinstance(let.value, Scalar) and let.value.op == "and":
            pending += let.value.args
        found = _comparison(ref, scope)
        if found is not None:
            limits[found[0]] = _both(limits.get(found[0], UNBOUNDED), found[1])
    return limits


def _both(first: Interval, second: Interval) -> Interval:
    return max(first[0], second[0]), min(first[1], second[1])


def _confined(address: Address, limits: Limits, scope: _Scope) -> Interval:
    """Smallest and largest value of ``address`` under ``limits``: whole multiples of what these are about are
    taken out, sums of axes before single ones, which say how far the rest reaches.
    """
    low = high = 0
    for expression, limit in sorted(limits.items(), key=lambda item: -len(item[0].terms)):
        axis = next(iter(expression.terms))
        factor, odd = divmod(address[axis], expression[axis])
        if factor and not odd:
            address = address - expression * factor
            ends = sorted(factor * end for end in _both(limit, _reach(expression, limits, scope)))
            low, high = low + ends[0], high + ends[1]
    least, most = _reach(address, limits, scope)
    return low + least, high + most


def _reach(address: Address, limits: Limits, scope: _Scope) -> Interval:
    """Smallest and largest value of a sum of loop variables and refs, of which ``limits`` say more."""
    axes = {term: factor for term, factor in address.terms.items() if isinstance(term, Axis)}
    low, high = interval(Affine(address.offset, axes), scope.extents, scope.bounds)
    for term, factor in address.terms.items():
        if isinstance(term, Ref):
            ends = sorted(factor * end for end in _positions(term, limits, scope))
            low, high = low + ends[0], high + ends[1]
    return low, high


def _disjoint(address: Address, dynamic: Dynamic, axis: Axis, scope: _Scope) -> bool:
    """Whether different ``axis`` give different addresses: from its own stride upwards, each steps over all
    smaller.

    A data-dependent position is one more digit of that number, of unknown value in a known range.
    """
    below: Address = Affine(0)
    around = 0  # how far the data-dependent digits below reach
    found = False
    digits: list[tuple[int, Axis | Ref]] = []
    for ref, factor in dynamic:
        modulus, rest = _owned(ref, scope)
        if modulus:  # position = modulus * quotient + rest
            address = address + rest * factor
        digits.append((factor * (modulus or 1), ref))
    digits += [(factor, term) for term, factor in address.terms.items()]
    for factor, digit in sorted(digits, key=lambda item: (abs(item[0]), item[1] is axis)):
        found = found or digit is axis
        if found:
            low, high = interval(below, scope.extents, scope.bounds)
            if high - low + around >= abs(factor):
                return False
        if isinstance(digit, Ref):
            least, most = _positions(digit, {}, scope)
            around += (most - least) * abs(factor)
        else:
            below = below + Affine(0, {digit: factor})
    return found


def _owned(ref: Ref, scope: _Scope) -> tuple[int, Address]:
    """A modulus and what a position is by it, where a loop that runs under that condition alone is open; a
    modulus of 0: nothing is known.
    """
    for loop in scope.loops:
        test = scope.lets.get(loop.when) if loop.when is not None else None
        if test is None or not isinstance(test.value, Scalar) or test.value.op != "eq":
            continue
        low, owner = (scope.lets.get(arg) for arg in test.value.args)
        if (
            low is None
            or owner is None
            or not isinstance(low.value, Scalar)
            or not isinstance(owner.value, Index)
            or low.value.op != "and"
        ):
            continue
        mask = _constant(low.value.args[1], scope)
        if low.value.args[0] is ref and mask is not None and mask > 0 and mask & mask + 1 == 0:
            return mask + 1, owner.value.value
    return 0, Affine(0)


def _positions(ref: Ref, limits: Limits, scope: _Scope) -> Interval:
    """What is known of a position under ``limits``.

    It is a constant, a loop index, a choice between such by a comparison of a loop index, or
    ``ok ? at : safe`` where ``ok`` is a checked range of ``at``.
    """
    index = _linear(ref, scope)
    if ref not in index.terms:
        return _confined(index, limits, scope)
    let = scope.lets.get(ref)
    if let is None or not isinstance(let.value, Scalar) or let.value.op != "select":
        return UNBOUNDED
    ok, at, otherwise = let.value.args
    test = _comparison(ok, scope)
    if test is not None and at not in test[0].terms:
        moving, *ranges = test
        parts = []
        for chosen, found in zip((at, otherwise), ranges, strict=True):
            within = _both(_both(limits.get(moving, UNBOUNDED), found), _reach(moving, limits, scope))
            if within[0] <= within[1]:
                parts.append(_positions(chosen, {**limits, moving: within}, scope))
        return min((low for low, _ in parts), default=0), max((high for _, high in parts), default=0)
    safe = _constant(otherwise, scope)
    if ok not in scope.checked or safe is None:
        return UNBOUNDED
    low, high = _range(ok, at, scope)
    return min(low, safe), max(high, safe)


def _range(ok: Ref, at: Ref, scope: _Scope) -> Interval:
    """The range of ``at`` where ``ok`` holds, as far as that is a conjunction of comparisons with
    constants.
    """
    low, high = UNBOUNDED
    pending = [ok]
    while pending:
        let = scope.lets.get(pending.pop())
        if let is None or not isinstance(let.value, Scalar):
            continue
        op, args = let.value.op, let.value.args
        if op == "and":
            pending += args
        elif op in ("ge", "lt") and args[0] is at:
            limit = _constant(args[1], scope)
            if limit is not None:
                low, high = (max(low, limit), high) if op == "ge" else (low, min(high, limit - 1))
    return low, high


def _constant(ref: Ref, scope: _Scope) -> int | None:
    let = scope.lets.get(ref)
    if let is None or not isinstance(let.value, Const) or not np.isfinite(let.value.value):
        return None
    return int(let.value.value)


def _is_row(store: Store, scope: _Scope) -> bool:
    """Whether the lanes of the innermost loop write neighbouring elements, and only write."""
    if not scope.loops or scope.loops[-1].kind != "simd" or store.dynamic or store.combine:
        return False
    return store.address[scope.loops[-1].axis] == 1
