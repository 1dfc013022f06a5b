"""The thread pool: every block runs exactly once, whoever calls, and the pool survives forks and the end of
the process.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

import graphjit
from graphjit.backend.llvm.objects import jit
from graphjit.backend.llvm.threads import fork_join, pool, waiting

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

LARGE = 10_000_000  # an estimate (ns) that always asks for help
FEW = 64

PROBE = """
declare void @gj_parallel_for(ptr, ptr, i64, i64)
declare i64 @pthread_self()
declare i32 @usleep(i32)

define void @count(ptr %context, i64 %block) {
  %cell = getelementptr i64, ptr %context, i64 %block
  %old = atomicrmw add ptr %cell, i64 1 seq_cst
  ret void
}

define void @who(ptr %context, i64 %block) {
  %ignored = call i32 @usleep(i32 300)
  %cell = getelementptr i64, ptr %context, i64 %block
  %self = call i64 @pthread_self()
  store i64 %self, ptr %cell
  ret void
}

; Cells: arrived, expected, one for each block.  A block waits until as many threads as expected are inside a block at the same time.
define void @meet(ptr %context, i64 %block) {
entry:
  %slot = add i64 %block, 2
  %cell = getelementptr i64, ptr %context, i64 %slot
  %self = call i64 @pthread_self()
  store i64 %self, ptr %cell
  %expectation = getelementptr i64, ptr %context, i64 1
  %expected = load i64, ptr %expectation
  %before = atomicrmw add ptr %context, i64 1 seq_cst
  br label %look
look:
  %turn = phi i32 [ 0, %entry ], [ %next, %wait ]
  %arrived = load atomic i64, ptr %context seq_cst, align 8
  %all = icmp sge i64 %arrived, %expected
  %late = icmp sgt i32 %turn, 100000
  %leave = or i1 %all, %late
  br i1 %leave, label %done, label %wait
wait:
  %ignored = call i32 @usleep(i32 100)
  %next = add i32 %turn, 1
  br label %look
done:
  ret void
}

define void @nest(ptr %context, i64 %block) {
  %start = mul i64 %block, 16
  %row = getelementptr i64, ptr %context, i64 %start
  call void @gj_parallel_for(ptr @count, ptr %row, i64 16, i64 10000000)
  ret void
}

define void @repeat(ptr %fn, ptr %context, i64 %blocks, i64 %estimate, i64 %times) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void @gj_parallel_for(ptr %fn, ptr %context, i64 %blocks, i64 %estimate)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""


@cache
def probe() -> jit.NativeModule:
    pool.ensure()
    return jit.NativeModule(PROBE)


def run(fn: str, cells: np.ndarray, blocks: int, estimate: int = LARGE, times: int = 1) -> None:
    module = probe()
    repeat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3)(
        module.address("repeat")
    )
    repeat(module.address(fn), cells.ctypes.data, blocks, estimate, times)


def counts(blocks: int, estimate: int = LARGE, times: int = 1) -> np.ndarray:
    cells = np.zeros(blocks, np.int64)
    run("count", cells, blocks, estimate, times)
    return cells


def meeting(expected: int, estimate: int = LARGE) -> int:
    """Number of threads that took part in a job whose blocks wait for ``expected`` threads, however late the
    machine schedules them.
    """
    cells = np.zeros(2 + FEW, np.int64)
    cells[1] = expected
    run("meet", cells, FEW, estimate)
    return len(set(cells[2:]))


def rest() -> None:
    """Wait until no worker polls or runs, nor does one that was woken but has not come to run yet: all sleep,
    surplus ones for good.
    """
    start = quiet = time.monotonic()
    while time.monotonic() - quiet < 0.05:
        if pool.awake_workers():
            quiet = time.monotonic()
            assert quiet - start < 30
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = pool.num_threads()
    yield
    pool.configure(before)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_block_runs_once(count: int) -> None:
    pool.configure(count)
    for blocks in (1, 2, 3, 7, 64, 1000):
        for estimate in (0, waiting.WORTH_SPINNING_NS, waiting.WORTH_WAKING_NS):
            np.testing.assert_array_equal(counts(blocks, estimate, times=20), 20)


def test_no_block_is_no_call() -> None:
    run("count", np.zeros(0, np.int64), 0)


def test_workers_take_part_and_small_work_stays_with_the_caller() -> None:
    pool.configure(3)
    assert meeting(3) == 3
    cells = np.zeros(FEW, np.int64)
    run("who", cells, 4, estimate=waiting.WORTH_SPINNING_NS - 1)
    assert set(cells[:4]) == {threading.get_ident()}
    pool.configure(1)
    run("who", cells, FEW)
    assert set(cells) == {threading.get_ident()}


def test_middle_sized_jobs_in_a_row_wake_the_workers() -> None:
    pool.configure(2)
    middle = waiting.MISSED_NS // 4
    assert waiting.WORTH_SPINNING_NS < middle < waiting.WORTH_WAKING_NS
    counts(4)  # a large job: what was missed before is forgotten
    rest()
    counts(4, middle, times=3)
    assert meeting(2, middle) == 2


@pytest.mark.skipif(pool.cores() < 2, reason="one core leaves workers no other")
def test_workers_keep_off_their_callers_core() -> None:
    pool.configure(3)
    allowed = os.sched_getaffinity(0)
    deadline = time.monotonic() + 30  # of trials: a caller that waits long lets its workers go anywhere
    while time.monotonic() < deadline:
        assert meeting(3) == 3
        masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
        kept_off = [mask for mask in masks if mask < allowed]
        assert all(len(mask) == len(allowed) - 1 for mask in kept_off)
        assert os.sched_getaffinity(0) == allowed  # the caller may still run anywhere
        if len(kept_off) >= 2:  # the other threads are the caller's own
            return
    pytest.fail("workers run where their caller runs")


@pytest.mark.skipif(pool.cores() < 2, reason="one core leaves workers no other")
def test_workers_follow_a_caller_whose_cores_change() -> None:
    pool.configure(2)
    allowed = os.sched_getaffinity(0)
    assert meeting(2) == 2
    workers = [
        int(task) for task in os.listdir("/proc/self/task") if os.sched_getaffinity(int(task)) < allowed
    ]
    try:
        for core in (min(allowed), max(allowed)):
            os.sched_setaffinity(0, {core})
            counts(FEW)
            assert all(os.sched_getaffinity(worker) in ({core}, allowed - {core}) for worker in workers)
    finally:
        os.sched_setaffinity(0, allowed)
    assert meeting(2) == 2


def test_a_pinned_caller_still_gets_its_blocks_done() -> None:
    pool.configure(3)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        np.testing.assert_array_equal(counts(FEW, times=20), 20)
    finally:
        os.sched_setaffinity(0, allowed)


def test_workers_wait_longer_for_a_caller_that_comes_back_soon() -> None:
    pool.configure(2)
    pause = 4 * waiting.SPIN_NS / 1e9
    assert 2 * pause < waiting.PATIENCE_NS / 1e9
    deadline = time.monotonic() + 30  # of trials: others may hold the cores
    while time.monotonic() < deadline:
        counts(8, times=1)
        end = time.perf_counter() + pause
        while time.perf_counter() < end:
            pass
        if pool.awake_workers():
            return
    pytest.fail("every worker fell asleep in every gap")


def test_nested_call_runs_serially() -> None:
    pool.configure(3)
    cells = np.zeros((50, 16), np.int64)
    run("nest", cells, 50, times=20)
    np.testing.assert_array_equal(cells, 20)


def test_calls_from_several_python_threads() -> None:
    pool.configure(2)
    results: list[np.ndarray] = [np.zeros(0)] * 4

    def work(slot: int) -> None:
        results[slot] = counts(37, times=300)

    callers = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for result in results:
        np.testing.assert_array_equal(result, 300)


def test_number_of_threads_may_change_at_any_time() -> None:
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for count in (1, 4, 2, 3):
                pool.configure(count)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(50):
            np.testing.assert_array_equal(counts(9, times=40), 40)
    finally:
        done.set()
        changer.join()


def test_surplus_workers_rest() -> None:
    pool.configure(4)
    assert meeting(4) == 4
    pool.configure(2)
    rest()
    for _ in range(5):
        assert meeting(2) == 2


def _in_child() -> None:
    assert pool.active_workers() == 0
    np.testing.assert_array_equal(counts(50, times=10), 10)
    assert meeting(2) == 2
    assert pool.active_workers() == 1


def test_child_after_fork_has_its_own_pool() -> None:
    pool.configure(2)
    counts(8)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _in_child()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(counts(8), 1)


def test_fork_behind_the_back_of_python() -> None:
    pool.configure(2)
    counts(8)
    child = ctypes.CDLL(None).fork()
    if child == 0:
        os._exit(0 if (counts(50, times=10) == 10).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_multiprocessing_with_fork() -> None:
    pool.configure(2)
    counts(8)
    process = multiprocessing.get_context("fork").Process(target=_in_child)
    process.start()
    process.join(30)
    assert process.exitcode == 0


@pytest.mark.parametrize("ending", ["", "import os; os._exit(0)", "raise SystemExit(0)"])
def test_process_ends_with_a_live_pool(ending: str) -> None:
    script = (
        f"import sys; sys.path[:0] = {[os.path.dirname(__file__), *sys.path]!r}\n"
        "import test_threads as t\n"
        "t.pool.configure(4)\n"
        "assert (t.counts(100, times=50) == 50).all() and t.pool.active_workers() == 3\n" + ending
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_idle_workers_sleep() -> None:
    pool.configure(2)
    counts(8, times=10)
    rest()
    start = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - start < 0.05


def test_many_calls_leave_nothing_behind() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    pool.configure(2)
    counts(4, times=1000)
    before, workers = resident(), pool.active_workers()
    np.testing.assert_array_equal(counts(4, times=100_000), 100_000)
    assert resident() - before < 64  # pages
    assert pool.active_workers() == workers


def test_signals_reach_the_interpreter_only() -> None:
    pool.configure(3)
    cells = np.zeros(FEW, np.int64)
    run("who", cells, FEW)
    native = [int(task) for task in os.listdir("/proc/self/task")]
    python = {thread.native_id for thread in threading.enumerate()}
    workers = [task for task in native if task not in python]
    blocked = []
    for task in workers:
        with open(f"/proc/self/task/{task}/status") as status:
            blocked.append(next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk")))
    interrupt, segmentation = 1 << 1, 1 << 10
    assert sum(bool(mask & interrupt) and not mask & segmentation for mask in blocked) >= 2


def test_at_least_one_thread() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pool.configure(0)


def test_other_platforms_run_blocks_serially(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(waiting.platform, "machine", lambda: "z80")
        text = fork_join.source()
    assert "pthread_create" not in text
    module = jit.NativeModule(text)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        module.address(waiting.SYMBOL)
    )
    cells = np.zeros(5, np.int64)
    call(probe().address("count"), cells.ctypes.data, 5, LARGE)
    np.testing.assert_array_equal(cells, 1)


def test_the_public_number_of_threads() -> None:
    before = graphjit.get_num_threads()
    try:
        graphjit.set_num_threads(3)
        assert graphjit.get_num_threads() == 3 == pool.num_threads()
        graphjit.set_num_threads(np.int64(1))
        assert graphjit.get_num_threads() == 1
        with pytest.raises(ValueError, match="at least 1"):
            graphjit.set_num_threads(0)
        for wrong in (2.0, "2", True):
            with pytest.raises(TypeError, match="integer"):
                graphjit.set_num_threads(wrong)  # type: ignore[arg-type]
    finally:
        graphjit.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [("GRAPHJIT_NUM_THREADS", "3", 3), ("OMP_NUM_THREADS", "1", 1), ("", "", pool.cores())],
)
def test_the_number_of_threads_from_the_environment(name: str, value: str, wanted: int) -> None:
    kept = {key: word for key, word in os.environ.items() if not key.endswith("NUM_THREADS")}
    code = "import graphjit; print(graphjit.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | ({name: value} if name else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == wanted
