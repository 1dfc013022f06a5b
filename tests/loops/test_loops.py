"""The loop IR's printer and verifier: text of known kernels, a bad kernel for every rule, good kernels of
every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphjit import pipeline
from graphjit.errors import IRError
from graphjit.ir.affine import Affine
from graphjit.ir.buffers import Buffer
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node
from graphjit.ir.types import BOOL, F32, F64, I64, Type
from graphjit.loops.ir import (
    Accumulate,
    Axis,
    Bound,
    Check,
    Const,
    For,
    Index,
    Init,
    Let,
    Load,
    LoopKernel,
    Ref,
    Scalar,
    Statement,
    Store,
    walk,
)
from graphjit.loops.printer import print_kernel
from graphjit.loops.verify import interval, verify_kernel

A, J, B = Axis("i"), Axis("j"), Axis("b")
X, Y = Buffer("x", F64, 24, "input"), Buffer("y", F64, 24, "output")
P, L = Buffer("p", I64, 4, "input", 1), Buffer("l", F64, 4, "local")
T = [Ref(n, F64) for n in range(6)]
N = [Ref(n, I64) for n in range(10, 16)]
M = Ref(16, I64)
OK = [Ref(n, BOOL) for n in range(20, 24)]


def at(offset: int = 0, **terms: int) -> Affine[Axis]:
    return Affine(offset, {{"i": A, "j": J, "b": B}[name]: c for name, c in terms.items()})


def kernel(*body: Statement, locals: tuple[Buffer, ...] = ()) -> LoopKernel:
    return LoopKernel("k", body, locals=locals)


def copying(extent: int = 24, **loop: object) -> For:
    """y[i] = x[i]."""
    return replace(For(A, extent, (Let(T[0], Load(X, at(i=1))), Store(Y, at(i=1), T[0]))), **loop)


def taking(*guard: Statement, position: Ref) -> LoopKernel:
    """y[0] = x[p[0]], with whatever stands between."""
    return kernel(
        Let(N[0], Load(P, at())),
        Let(N[1], Const(np.int64(0))),
        Let(N[2], Const(np.int64(24))),
        *guard,
        Let(T[0], Load(X, at(), ((position, 1),))),
        Store(Y, at(), T[0]),
    )


RANGE = (
    Let(OK[0], Scalar("ge", (N[0], N[1]))),
    Let(OK[1], Scalar("lt", (N[0], N[2]))),
    Let(OK[2], Scalar("and", (OK[0], OK[1]))),
)
SAFE = Let(N[3], Scalar("select", (OK[2], N[0], N[1])))

BLOCK = For(
    A,
    10,
    (Let(T[0], Load(X, at(i=1, b=10))), Store(Y, at(i=1, b=10), T[0])),
    "simd",
    Bound(at(b=10), 24),
)
"""The last of three blocks of ten has four elements."""

GOOD = {
    "serial loop": kernel(copying()),
    "unrolled simd loop": kernel(copying(kind="simd", unroll=4)),
    "two loops over one axis": kernel(copying(2), Let(T[1], Const(np.float64(1))), copying(3)),
    "loop that never runs": kernel(For(J, 0, (Let(T[0], Load(X, at(99, j=1))), Store(Y, at(), T[0])))),
    "backwards": kernel(For(A, 24, (Let(T[0], Load(X, at(23, i=-1))), Store(Y, at(i=1), T[0])))),
    "ragged blocks": kernel(For(B, 3, (BLOCK,), "parallel")),
    "checked position": taking(*RANGE, Check(OK[2], 1), SAFE, position=N[3]),
    "constant position": taking(position=N[1]),
    "position that is an index": kernel(
        For(
            A,
            4,
            (Let(N[0], Index(at(i=6))), Let(T[0], Load(X, at(5), ((N[0], 1),))), Store(Y, at(i=1), T[0])),
        )
    ),
    "partial sums in a local": kernel(
        For(B, 4, (Init(T[0], "add"), Store(L, at(b=1), T[0])), "parallel"),
        Init(T[1], "add"),
        For(A, 4, (Let(T[2], Load(L, at(i=1))), Accumulate(T[1], "add", T[2]))),
        Store(Y, at(), T[1]),
        locals=(L,),
    ),
    "a block computes a value again": kernel(
        Let(T[0], Const(np.float64(2))),
        Store(Y, at(23), T[0]),
        For(B, 4, (Let(T[0], Const(np.float64(2))), Store(Y, at(b=1), T[0])), "parallel"),
    ),
    "blocks of columns": kernel(
        Let(T[1], Const(np.float64(2))),
        For(
            B,
            2,
            (Let(T[0], Const(np.float64(2))), For(J, 4, (For(A, 3, (Store(Y, at(i=1, b=3, j=6), T[0]),)),))),
            "parallel",
        ),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_kernels_pass(name):
    verify_kernel(GOOD[name], errors=1)


LET = Let(T[0], Const(np.float64(1)))
BAD: dict[str, tuple[LoopKernel, str]] = {
    "no statement": (kernel("t0 = 1"), "is no statement"),  # type: ignore[arg-type]
    "no expression": (kernel(Let(T[0], 1.0)), "is no expression"),  # type: ignore[arg-type]
    "undefined": (kernel(Store(Y, at(), T[0])), "t0 is read before it is defined"),
    "defined later": (kernel(Let(T[1], Scalar("neg", (T[0],))), LET), "t0 is read before it is defined"),
    "defined in a loop that is over": (
        kernel(For(A, 2, (LET,)), Store(Y, at(), T[0])),
        "read before it is defined",
    ),
    "undefined position": (kernel(Let(T[0], Load(X, at(), ((N[0], 1),)))), "t10 is read before"),
    "defined twice": (kernel(LET, Let(T[0], Const(np.float64(2)))), "t0 is defined twice"),
    "accumulator over a value": (kernel(LET, Init(T[0], "add")), "t0 is defined twice"),
    "value over an accumulator": (kernel(Init(T[0], "add"), LET), "t0 is defined twice"),
    "wrong constant": (kernel(Let(T[0], Const(np.float32(1)))), "constant has dtype float32"),
    "wrong load": (kernel(Let(Ref(0, F32), Load(X, at()))), "holds float64"),
    "wrong store": (kernel(Let(N[0], Const(np.int64(1))), Store(Y, at(), N[0])), "holds float64"),
    "wrong index": (kernel(Let(T[0], Index(at()))), "an index is an i64"),
    "unknown dtype": (
        kernel(Let(Ref(0, np.dtype("c16")), Const(np.complex128(1)))),
        "t0 has dtype complex128",
    ),
    "no accumulator": (kernel(LET, Accumulate(T[1], "add", T[0])), "t1 is no open accumulator"),
    "other combiner": (kernel(LET, Init(T[1], "add"), Accumulate(T[1], "mul", T[0])), "opened with 'add'"),
    "unknown combiner": (kernel(Init(T[1], "xor")), "no combiner 'xor'"),
    "unknown store combiner": (kernel(LET, Store(Y, at(), T[0], combine="xor")), "no combiner 'xor'"),
    "accumulated dtype": (
        kernel(Let(N[0], Const(np.int64(1))), Init(T[1], "add"), Accumulate(T[1], "add", N[0])),
        "another dtype",
    ),
    "written input": (kernel(LET, Store(X, at(), T[0])), "x must not be written"),
    "undeclared local": (kernel(LET, Store(L, at(), T[0])), "local l is not declared"),
    "no loop open": (kernel(Let(T[0], Load(X, at(i=1)))), "no loop over i is open"),
    "index without a loop": (kernel(Let(N[0], Index(at(j=1)))), "no loop over j is open"),
    "bound without a loop": (kernel(copying(bound=Bound(at(b=1), 24))), "no loop over b is open"),
    "loop in itself": (kernel(For(A, 2, (copying(2),))), "i runs already"),
    "unknown loop kind": (kernel(copying(kind="gpu")), "no loop kind 'gpu'"),
    "negative extent": (kernel(copying(-1)), "must not be negative"),
    "past the end": (kernel(copying(25)), "24 elements and is accessed at 0..24"),
    "before the start": (kernel(For(A, 3, (Let(T[0], Load(X, at(1, i=-1))),))), "accessed at -1..1"),
    "ragged block without a bound": (
        kernel(For(B, 3, (replace(BLOCK, bound=None),), "parallel")),
        "at 0..29",
    ),
    "ragged block with a wrong bound": (
        kernel(For(B, 3, (replace(BLOCK, bound=Bound(at(b=10), 25)),), "parallel")),
        "at 0..24",
    ),
    "unchecked position": (taking(position=N[0]), "accessed at an unchecked position"),
    "range without a check": (taking(*RANGE, SAFE, position=N[3]), "accessed at an unchecked position"),
    "checked on one side only": (
        taking(*RANGE[:2], Check(OK[1], 1), Let(N[3], Scalar("select", (OK[1], N[0], N[1]))), position=N[3]),
        "unchecked position",
    ),
    "position beyond the end": (
        kernel(Let(N[0], Const(np.int64(24))), Let(T[0], Load(X, at(), ((N[0], 1),)))),
        "accessed at 24..24",
    ),
    "position that is no integer": (kernel(LET, Let(T[1], Load(X, at(), ((T[0], 1),)))), "t0 is no i64"),
    "check of a number": (kernel(LET, Check(T[0], 1)), "condition must be bool"),
    "unknown error": (kernel(Let(OK[0], Const(np.True_)), Check(OK[0], 2)), "no error 2"),
    "unknown error of an operation": (
        kernel(Let(N[0], Const(np.int64(1))), Let(N[1], Scalar("remainder", (N[0], N[0]), 3))),
        "no error 3",
    ),
    "simd in simd": (kernel(For(J, 2, (copying(kind="simd"),), "simd")), "simd loop runs inside another"),
    "parallel inside": (kernel(For(J, 2, (For(B, 2, (), "parallel"),))), "must be outermost"),
    "parallel with a bound": (kernel(For(B, 2, (), "parallel", Bound(at(), 1))), "has no bound"),
    "parallel that takes a value": (
        kernel(LET, For(B, 4, (Store(Y, at(b=1), T[0]),), "parallel")),
        "must compute what it needs",
    ),
    "parallel that feeds an accumulator": (
        kernel(Init(T[1], "add"), For(B, 4, (LET, Accumulate(T[1], "add", T[0])), "parallel")),
        "t1 is no open accumulator",
    ),
    "blocks write to one place": (
        kernel(For(B, 4, (LET, Store(Y, at(), T[0])), "parallel")),
        "may write to the same",
    ),
    "blocks overlap": (
        kernel(For(B, 3, (LET, For(A, 8, (Store(Y, at(i=1, b=7), T[0]),))), "parallel")),
        "may write to the same place",
    ),
    "blocks overlap in a later row": (
        kernel(For(B, 3, (LET, For(J, 2, (Store(Y, at(b=4, j=8), T[0]),))), "parallel")),
        "may write to the same place",
    ),
    "blocks scatter": (
        kernel(For(B, 4, (LET, Let(N[0], Index(at(b=1))), Store(Y, at(), T[0], ((N[0], 1),))), "parallel")),
        "may write to the same place",
    ),
    "lanes add to one place": (
        kernel(LET, For(A, 4, (Store(Y, at(), T[0], combine="add"),), "simd")),
        "may add to the same place",
    ),
    "past the caches outside of lanes": (
        kernel(LET, For(A, 4, (Store(Y, at(i=1), T[0], streamed=True),))),
        "only neighbours in a simd loop",
    ),
    "past the caches with gaps": (
        kernel(LET, For(A, 4, (Store(Y, at(i=2), T[0], streamed=True),), "simd")),
        "only neighbours in a simd loop",
    ),
    "lanes of a serial loop": (kernel(For(J, 2, (), lanes=4)), "those of a simd loop"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_kernels_are_refused(name):
    bad, why = BAD[name]
    with pytest.raises(IRError, match=why):
        verify_kernel(bad, errors=1)


def test_without_a_count_any_error_code_passes():
    verify_kernel(kernel(Let(OK[0], Const(np.True_)), Check(OK[0], 7)))


def test_interval_uses_the_bound():
    extents = {A: 10, B: 3}
    bounds = ((A, Bound(at(b=10), 24)),)
    assert interval(at(2, i=1, b=10), extents) == (2, 31)
    assert interval(at(2, i=1, b=10), extents, bounds) == (2, 25)
    assert interval(at(23, i=-1, b=-10), extents, bounds) == (0, 23)
    assert interval(at(0, i=3, b=30), extents, bounds) == (0, 69)


def test_printed_kernel():
    """Every form of statement once."""
    body = (
        Let(N[0], Load(P, at(3))),
        Let(N[1], Const(np.int64(0))),
        Let(OK[0], Scalar("ge", (N[0], N[1]))),
        Check(OK[0], 1),
        Init(T[0], "max"),
        For(
            B,
            3,
            (
                Let(N[2], Index(at(1, b=8))),
                replace(
                    BLOCK,
                    unroll=2,
                    body=(Let(T[1], Load(X, at(i=1, b=10), ((N[0], 2),))), Accumulate(T[0], "max", T[1])),
                ),
            ),
            "parallel",
            nanoseconds=12_300,
        ),
        Let(N[3], Scalar("remainder", (N[0], N[2]), 2)),
        For(J, 4, (Store(Y, at(2, j=-1), T[0], ((N[3], 1),), "add"),)),
        Store(Y, at(), T[0]),
    )
    assert print_kernel(LoopKernel("k7", body, "max", (L,))) == (
        """\
kernel k7  # max
  local l : f64[4]
  t10 = load p[3] : i64
  t11 = 0 : i64
  t20 = ge t10 t11 : bool
  check t20 else error 1
  t0 = accumulator max : f64
  parallel b in 0..3:  # about 12.3 us
    t12 = index 8*b + 1 : i64
    simd i in 0..10 lanes 1 unroll 2 while 10*b + i < 24:
      t1 = load x[i + 10*b + 2*t10] : f64
      accumulate t0 max t1
  t13 = remainder t10 t12 : i64 else error 2
  for j in 0..4:
    store y[-1*j + 2 + t13] add= t0
  store y[0] = t0
"""
    )


def sharing(
    mask: int = 3,
    tasks: int = 4,
    owner: Statement | None = None,
    tested: Ref = N[0],
    when: Ref | None = OK[0],
    rows: int = 1,
) -> LoopKernel:
    """Tasks that read the same position, checked to be below 8, and of which one is to write its row of three
    elements.
    """
    safe = (
        Let(N[1], Const(np.int64(0))),
        Let(N[2], Const(np.int64(8))),
        Let(N[3], Load(P, at())),
        Let(OK[1], Scalar("ge", (N[3], N[1]))),
        Let(OK[2], Scalar("lt", (N[3], N[2]))),
        Let(OK[3], Scalar("and", (OK[1], OK[2]))),
        Check(OK[3], 1),
        Let(N[0], Scalar("select", (OK[3], N[3], N[1]))),
    )
    own = (
        Let(N[4], Const(np.int64(mask))),
        Let(N[5], Scalar("and", (tested, N[4]))),
        owner or Let(M, Index(at(b=1))),
    )
    body = (*safe, *own, Let(OK[0], Scalar("eq", (N[5], M))), Let(T[0], Load(X, at())))
    store = Store(Y, at(i=1), T[0], ((N[0], 3),), "add")
    return kernel(For(B, tasks, (*body, For(A, 3 * rows, (store,), when=when)), "parallel"))


def test_tasks_that_own_positions():
    verify_kernel(sharing())
    verify_kernel(sharing(tasks=2))
    for wrong in (
        sharing(when=None),  # nobody owns anything
        sharing(when=OK[3]),  # another condition
        sharing(mask=2),  # no remainder
        sharing(mask=1),  # more tasks than remainders
        sharing(owner=Let(M, Index(at(1)))),  # the same owner for all
        sharing(tested=N[3]),  # another position
    ):
        with pytest.raises(IRError, match="may write to the same place"):
            verify_kernel(wrong)
    with pytest.raises(IRError, match="accessed at"):
        verify_kernel(sharing(rows=2))


def test_conditions_of_loops():
    loop = replace(copying(), when=OK[0])
    yes = Let(OK[0], Const(np.True_))
    verify_kernel(kernel(yes, loop))
    assert "when t20:" in print_kernel(kernel(yes, loop))
    total = For(A, 24, (Let(T[0], Load(X, at(i=1))), Accumulate(T[1], "add", T[0])), when=OK[0])
    for bad, why in [
        (kernel(loop), "read before it is defined"),
        (kernel(Let(N[0], Const(np.int64(1))), replace(loop, when=N[0])), "must be bool"),
        (kernel(yes, replace(loop, kind="parallel")), "no condition"),
        (kernel(yes, Init(T[1], "add"), total, Store(Y, at(), T[1])), "accumulators from outside"),
        (kernel(yes, For(J, 4, (replace(loop, when=OK[0]),), "simd")), "inside a simd loop"),
    ]:
        with pytest.raises(IRError, match=why):
            verify_kernel(bad)


# ------------------------------------------------------------------------------------ kernels of the pipeline


def lowered(make: Callable[..., Node], *types: Type) -> tuple[list[LoopKernel], int]:
    b = Builder()
    inputs = [b.input(type, f"x{i}") for i, type in enumerate(types)]
    _, program = pipeline.schedule(pipeline.optimize(Graph("g", inputs, [make(b, *inputs)])))
    return list(pipeline.lower(program).values()), len(program.errors)


BIG = Type(F64, (300, 500))
LARGE: dict[str, tuple[Callable[..., Node], tuple[Type, ...]]] = {
    "elementwise": (lambda b, x: b.tanh(x), (BIG,)),
    "transposed": (lambda b, x: b.tanh(b.transpose(x, perm=(1, 0))), (BIG,)),
    "sum": (lambda b, x: b.sum(x, axes=(0, 1)), (BIG,)),
    "short sum": (lambda b, x: b.sum(x, axes=(0,)), (Type(F64, (9000,)),)),
    "rows": (lambda b, x: b.sum(b.exp(x), axes=(1,)), (BIG,)),
    "columns": (lambda b, x: b.max(x, axes=(0,)), (BIG,)),
    "ragged": (lambda b, x: b.exp(x), (Type(F64, (99_991,)),)),
    "gather": (lambda b, x, i: b.exp(b.gather(x, i, axes=(0,))), (BIG, Type(I64, (7000,)))),
    "argmax": (lambda b, x: b.argmax(x, axes=(1,)), (BIG,)),
    "concatenate": (lambda b, x: b.concatenate(x, b.exp(x), axis=1), (BIG,)),
    "cumsum of rows": (lambda b, x: b.cumsum(x, axis=1, reverse=True), (BIG,)),
}


def test_long_running_sum_passes():
    for made in lowered(lambda b, x: b.cumsum(x, axis=0, reverse=False), Type(F64, (20_000,)))[0]:
        verify_kernel(made)


@pytest.mark.parametrize("shape", [(2000, 17), (500, 64)])
def test_few_columns_are_not_cut_into_a_single_block(shape):
    b = Builder()
    x = b.input(Type(F64, shape), "x")
    y = b.tanh(x)
    _, program = pipeline.schedule(pipeline.optimize(Graph("g", [x], [y, b.sum(y, axes=(0,))])))
    (made,) = pipeline.lower(program).values()
    verify_kernel(made)
    assert not [s for s in walk(made.body) if isinstance(s, For) and s.kind == "parallel" and s.extent == 1]


def test_long_scatter_passes():
    shape = (9, 300)
    types = (Type(F64, (8000, 300)), Type(I64, (8000,)))
    for made in lowered(lambda b, x, i: b.scatter_add(x, i, axes=(0,), shape=shape), *types)[0]:
        verify_kernel(made)


@pytest.mark.parametrize("name", LARGE)
def test_large_kernels_pass(name):
    make, types = LARGE[name]
    kernels, errors = lowered(make, *types)
    for made in kernels:
        verify_kernel(made, errors)
        assert print_kernel(made).count("\n") >= len(walk(made.body))
    if name not in ("short sum", "columns"):
        assert any(isinstance(s, For) and s.kind == "parallel" for made in kernels for s in made.body)
