"""What this machine can do at most: memory bandwidth by a triad, arithmetic by fused multiply-adds.

Input: numbers of threads. Output: `Limits`. The probes are written as LLVM text and compiled as graphjit's
own code is, so that no C compiler is needed. Invariant: figures are the best of several repetitions, since a
limit is what the machine reaches undisturbed; the triad's arrays together are at least four times the last
cache, and its traffic is counted as STREAM counts it (J. D. McCalpin, 1995): two reads and one write, nothing
for the line that a write fetches.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy

from graphjit.backend.llvm.objects.jit import NativeModule
from graphjit.machine import machine

BYTES = {"float64": 8, "float32": 4}
LLVM_TYPE = {"float64": ("double", "f64"), "float32": ("float", "f32")}
ACCUMULATORS = 12
"""Independent chains: two units of latency four or five need ten, and sixteen registers must hold them."""


@dataclass
class Limits:
    """Bytes a second by number of threads; operations a second by dtype and number of threads."""

    bandwidth: dict[int, float] = field(default_factory=dict)
    arithmetic: dict[str, dict[int, float]] = field(default_factory=dict)

    def raise_to(self, other: Limits) -> None:
        """Take over what `other` found to be more: a disturbed probe shows less than there is."""
        for threads, found in other.bandwidth.items():
            self.bandwidth[threads] = max(found, self.bandwidth.get(threads, 0.0))
        for dtype, by_threads in other.arithmetic.items():
            mine = self.arithmetic.setdefault(dtype, {})
            for threads, found in by_threads.items():
                mine[threads] = max(found, mine.get(threads, 0.0))

    def best_bandwidth(self) -> float:
        """With as many threads as serve best."""
        return max(self.bandwidth.values())

    def best_arithmetic(self, dtype: str) -> float:
        """With as many threads as serve best."""
        return max(self.arithmetic[dtype].values())

    def seconds(self, moved_bytes: float, flops: float, dtype: str) -> float:
        """Least time for that much traffic and arithmetic, overlapped."""
        return max(moved_bytes / self.best_bandwidth(), flops / self.best_arithmetic(dtype))


def _function(name: str, parameters: str, blocks: str) -> str:
    bits = 8 * machine().vector_bytes
    # Without the attribute the code generator would split the widest vectors in two.
    width = f'"prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}"'
    return f"define void @{name}({parameters}) {width} {{\n{blocks}\n}}\n"


def triad_text() -> str:
    """a[i] = b[i] + s * c[i] over n doubles, n a multiple of the vector."""
    lanes = machine().vector_bytes // BYTES["float64"]
    vector = f"<{lanes} x double>"
    return _function(
        "triad",
        "ptr noalias %a, ptr noalias %b, ptr noalias %c, i64 %n",
        f"""entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %pb = getelementptr double, ptr %b, i64 %i
  %pc = getelementptr double, ptr %c, i64 %i
  %pa = getelementptr double, ptr %a, i64 %i
  %vb = load {vector}, ptr %pb, align 8
  %vc = load {vector}, ptr %pc, align 8
  %scaled = fmul {vector} %vc, splat (double 3.0)
  %sum = fadd {vector} %vb, %scaled
  store {vector} %sum, ptr %pa, align 8
  %next = add i64 %i, {lanes}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void""",
    )


def fma_text(dtype: str) -> str:
    """n rounds of ACCUMULATORS independent multiply-adds on registers; the sums are stored, so that they are
    computed.
    """
    name, suffix = LLVM_TYPE[dtype]
    lanes = machine().vector_bytes // BYTES[dtype]
    vector, numbers = f"<{lanes} x {name}>", range(ACCUMULATORS)
    call = f"call {vector} @llvm.fma.v{lanes}{suffix}"
    phis = "\n".join(f"  %x{k} = phi {vector} [ %start, %entry ], [ %y{k}, %loop ]" for k in numbers)
    steps = "\n".join(f"  %y{k} = {call}({vector} %x{k}, {vector} %start, {vector} %start)" for k in numbers)
    sums = "\n".join(f"  %s{k} = fadd {vector} {f'%s{k - 1}' if k else '%start'}, %y{k}" for k in numbers)
    return f"declare {vector} @llvm.fma.v{lanes}{suffix}({vector}, {vector}, {vector})\n" + _function(
        f"fma_{dtype}",
        "ptr %out, i64 %n",
        f"""entry:
  %start = load {vector}, ptr %out, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{sums}
  store {vector} %s{ACCUMULATORS - 1}, ptr %out, align 4
  ret void""",
    )


def together(works: Sequence[Callable[[], None]]) -> float:
    """Seconds from the first start to the last end of all `works`, each in a thread of its own, begun
    together.
    """
    times: list[tuple[float, float]] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        barrier.wait()
        begin = time.perf_counter()
        work()
        times.append((begin, time.perf_counter()))

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in times) - min(begin for begin, _ in times)


def measure(threads: Sequence[int], repetitions: int = 10, triad_bytes: int | None = None) -> Limits:
    """Both probes with each number of threads, in about 0.3 seconds a repetition and number."""
    module = NativeModule(triad_text() + "".join(fma_text(dtype) for dtype in BYTES))
    try:
        limits = Limits()
        for count in threads:
            limits.bandwidth[count] = _bandwidth(
                module, count, repetitions, triad_bytes or 4 * machine().caches[-1]
            )
            for dtype in BYTES:
                limits.arithmetic.setdefault(dtype, {})[count] = _arithmetic(
                    module, dtype, count, repetitions
                )
        return limits
    finally:
        module.close()


def _bandwidth(module: NativeModule, threads: int, repetitions: int, total_bytes: int) -> float:
    triad = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
        module.address("triad")
    )
    # A whole number of vectors and pages for each thread.
    size = max(4096, total_bytes // (3 * 8 * threads) // 4096 * 4096)
    arrays = numpy.ones((3, threads, size))

    def work(thread: int) -> Callable[[], None]:
        a, b, c = (arrays[which, thread].ctypes.data for which in range(3))
        return lambda: triad(a, b, c, size)

    works = [work(thread) for thread in range(threads)]
    return arrays.nbytes / min(together(works) for _ in range(repetitions))


def _arithmetic(module: NativeModule, dtype: str, threads: int, repetitions: int) -> float:
    fma = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(module.address(f"fma_{dtype}"))
    lanes = machine().vector_bytes // BYTES[dtype]
    rounds = 1_000_000
    # x <- x / 2 + 1 / 2 converges to one: no number overflows or becomes subnormal, which some processors are
    # slow at.
    outs = [numpy.full(lanes, 0.5, dtype) for _ in range(threads)]

    def work(out: numpy.ndarray) -> Callable[[], None]:
        return lambda: fma(out.ctypes.data, rounds)

    best = min(together([work(out) for out in outs]) for _ in range(repetitions))
    return 2.0 * lanes * ACCUMULATORS * rounds * threads / best
