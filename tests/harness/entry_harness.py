"""Small handwritten programs and the functions made of them, for the tests of the native entry point."""

from __future__ import annotations

import contextlib
import functools
import sys

import numpy as np

from graphjit.backend.llvm.entry import callable as native
from graphjit.backend.llvm.entry.specialise import Specialisation
from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.backend.signature import EntrySpec

F64, I64 = np.dtype("float64"), np.dtype("int64")

_COPY = """
define i64 @copy{count}x{size}(ptr %inputs, ptr %outputs) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %done = icmp eq i64 %i, {count}
  br i1 %done, label %end, label %body
body:
  %from.at = getelementptr ptr, ptr %inputs, i64 %i
  %to.at = getelementptr ptr, ptr %outputs, i64 %i
  %from = load ptr, ptr %from.at
  %to = load ptr, ptr %to.at
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 {size}, i1 false)
  %next = add i64 %i, 1
  br label %loop
end:
  ret i64 0
}}
"""
FIXED = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i32 @usleep(i32)
define i64 @nothing(ptr %inputs, ptr %outputs) {
  ret i64 0
}
define i64 @status(ptr %inputs, ptr %outputs) {
  %from = load ptr, ptr %inputs
  %status = load i64, ptr %from
  ret i64 %status
}
define i64 @sleep_copy(ptr %inputs, ptr %outputs) {
  %slept = call i32 @usleep(i32 2000)
  %from = load ptr, ptr %inputs
  %to = load ptr, ptr %outputs
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 64, i1 false)
  ret i64 0
}
"""

# A program that tells when it has begun and goes on (to copy 64 bytes) when it is let.
GATED = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i32 @usleep(i32)
@begun = internal global i64 0
@let = internal global i64 0
define i64 @has_begun() {
  %begun = load atomic i64, ptr @begun seq_cst, align 8
  ret i64 %begun
}
define i64 @go_on() {
  %old = atomicrmw xchg ptr @let, i64 1 seq_cst
  ret i64 %old
}
define i64 @gated_copy(ptr %inputs, ptr %outputs) {
entry:
  %old = atomicrmw xchg ptr @begun, i64 1 seq_cst
  br label %wait
wait:
  %turn = phi i64 [ 0, %entry ], [ %next, %wait ]
  %next = add i64 %turn, 1
  %slept = call i32 @usleep(i32 200)
  %let = load atomic i64, ptr @let seq_cst, align 8
  %open = icmp ne i64 %let, 0
  %late = icmp sgt i64 %turn, 100000
  %leave = or i1 %open, %late
  br i1 %leave, label %copy, label %wait
copy:
  %from = load ptr, ptr %inputs
  %to = load ptr, ptr %outputs
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 64, i1 false)
  ret i64 0
}
"""


@functools.cache
def program(count: int = 0, size: int = 0, name: str = "") -> tuple[int, NativeModule]:
    """A program that copies ``size`` bytes from each of ``count`` inputs to the output of the same number, or
    a fixed one.
    """
    if name:
        return (fixed := _fixed()).address(name), fixed
    module = NativeModule(
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n" + _COPY.format(count=count, size=size)
    )
    return module.address(f"copy{count}x{size}"), module


@functools.cache
def _fixed() -> NativeModule:
    return NativeModule(FIXED)


class MissError(Exception):
    """No specialisation matched."""


def missed(*args, **kwargs):
    assert sys.exc_info() == (None, None, None)
    raise MissError


def specialise(
    inputs,
    outputs,
    code=None,
    *,
    keywords=(),
    hidden=(),
    guards=(),
    on_error=RuntimeError,
    wrap=None,
    release_gil=False,
):
    positional = len(inputs) - len(keywords)
    spec = EntrySpec(
        positional,
        tuple(keywords),
        tuple(inputs),
        tuple(hidden),
        tuple(guards),
        outputs,
        on_error,
        wrap,
        release_gil,
    )
    return Specialisation(spec, *(code or program(name="nothing")))


def function(*args, **options):
    fn = native.NativeFunction(missed)
    native.install(fn, specialise(*args, **options))
    return fn


def misses(fn, *args, **kwargs) -> bool:
    """Whether the call reaches the fallback, which must happen with nothing raised or lost on the way."""
    counted = [
        arg for arg in args if not isinstance(arg, int | None)
    ]  # the interpreter itself uses small ints and None
    before = [sys.getrefcount(arg) for arg in counted]
    matched = False
    with contextlib.suppress(MissError):
        fn(*args, **kwargs)
        matched = True
    assert before == [sys.getrefcount(arg) for arg in counted]
    return not matched
