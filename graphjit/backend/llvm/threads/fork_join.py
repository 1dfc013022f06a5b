"""The text of the thread pool: fork and join of blocks, in native code made from LLVM text alone.

``gj_parallel_for(fn, context, blocks, estimate_ns)`` runs ``fn(context, block)`` for every block of a
parallel kernel, on the caller and on idle workers. Every block has run once when it returns.

A caller never waits for a worker that has claimed nothing, so an absent or descheduled worker costs nothing.
At most one job is open at a time, and a nested or concurrent call runs its own blocks serially. Results
cannot depend on the number of threads because blocks do not.

How it works. One 64-bit word, the ticket, holds (generation, blocks left). A block is claimed by
compare-and-swap of the whole word, so a worker that fell asleep between reading the job and claiming a block
can never take a block of another job: the generation differs. The fields of the job are written only while no
block is left. Idle workers poll the ticket for some tens of microseconds and then sleep on a futex. A worker
that was woken soon after it had run out of work polls for twice that gap from then on, so that a loop of
calls with some work of the user's between them does not pay for a wake-up each time.

A scheduler that packs threads wakes a worker on its waker's own core, where it waits until the caller is
done: no help at all. Workers are therefore kept off the core their caller runs on, by an affinity that
changes when the caller is seen on another core.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from typing import Any

from graphjit.backend.llvm.threads.waiting import (
    FUTEX_NUMBER,
    IMPATIENT,
    MISSED_NS,
    PATIENCE_NS,
    PER_WORKER_NS,
    STRAYED,
    SYMBOL,
    WATCHED,
    WORTH_SPINNING_NS,
    WORTH_WAKING_NS,
    has_workers,
)
from graphjit.backend.llvm.writing import clock
from graphjit.backend.llvm.writing.fields import WORD
from graphjit.backend.llvm.writing.native import Body, Label, Operand, Source, Value

_PAUSE: dict[str, tuple[str, tuple[int, ...]]] = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
    "arm64": ("llvm.aarch64.hint", (1,)),
}
"""What tells the processor that a loop waits: intrinsic and arguments."""
_FAULTS = (4, 5, 7, 8, 11, 31)
"""Linux numbers of SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: faults of a worker itself must stay
deliverable to it.
"""

_EXTERNALS = {
    **clock.EXTERNALS,
    "getpid": "i32 ()",
    "llvm.aarch64.hint": "void (i32)",
    "llvm.umax.i64": "i64 (i64, i64)",
    "llvm.umin.i64": "i64 (i64, i64)",
    "llvm.x86.sse2.pause": "void ()",
    "pthread_create": "i32 (i64[], ptr, ptr, ptr)",
    "pthread_detach": "i32 (i64)",
    "pthread_setaffinity_np": "i32 (i64, i64, i64[])",
    "pthread_sigmask": "i32 (i32, i64[], i64[])",
    "sched_getaffinity": "i32 (i32, i64, i64[])",
    "sched_getcpu": "i32 ()",
    "sched_yield": "i32 ()",
    "syscall": "i64 (i64, ...)",
}

_LEFT = (1 << 32) - 1
"""The bits of the ticket that count the blocks left."""
_KEPT = 1024
"""Workers whose thread numbers are kept."""
_MASK_WORDS = 16
"""Words of a set of signals, and of a set of cores."""
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # both private to the process
_SIG_SETMASK = 2
_EVERYBODY = (1 << 31) - 1
_PAUSES = 500
"""Turns of a caller's wait until it yields its core."""
_COLD = "nounwind optnone noinline"


class _Shared:
    """A variable that all threads share, accessed with an ordering."""

    def __init__(self, name: str, type: str, initial: str, align: int) -> None:
        self.name = name
        self.type = type
        self.initial = initial
        self.align = align

    def at(self, w: Body) -> Value:
        """Its address."""
        return w.symbol(self.name, f"{self.type}[]")

    def read(self, w: Body, order: str) -> Value:
        """What it holds."""
        return w.load(self.type, self.at(w), order)

    def write(self, w: Body, value: Operand, order: str) -> None:
        """Let it hold something else."""
        w.store(self.type, value, self.at(w), order)

    def add(self, w: Body, value: Operand, order: str = "seq_cst") -> Value:
        """Add to it in one step: what it held before."""
        return w.fetch("add", self.at(w), value, order)


_LINE = "{ i64, [15 x i64] } zeroinitializer"  # nothing else on the cache lines that all threads write
_TICKET = _Shared("ticket", "i64", _LINE, 128)  # generation << 32 | blocks left
_FINISHED = _Shared("finished", "i64", _LINE, 128)  # blocks finished by workers
_AWAKE = _Shared("awake", "i64", _LINE, 128)  # workers that poll or run
_BUSY = _Shared("busy", "i64", _LINE, 128)  # 1 while a caller owns the pool
_FN = _Shared("fn", "ptr", "ptr null", 128)  # the job: written only while no block is left
_CONTEXT = _Shared("context", "ptr", "ptr null", 8)
_BLOCKS = _Shared("blocks", "i64", "i64 0", 8)
_MISSED = _Shared("missed", "i64", "i64 0", 128)  # nanoseconds run alone because everybody slept
_WANTED = _Shared("wanted", "i64", "i64 0", 8)  # workers asked for (threads - 1)
_RUNNING = _Shared("running", "i64", "i64 0", 8)  # workers started in this process
_SPIN = _Shared("spin", "i64", "i64 0", 8)
_AVOIDED = _Shared("avoided", "i32", "i32 -1", 8)  # core that workers are kept off, -1: none
_STRAYED = _Shared("strayed", "i64", "i64 0", 8)  # jobs of callers elsewhere since workers were moved
_THREADS = _Shared("threads", "i64", f"[{_KEPT} x i64] zeroinitializer", 8)  # pthread_t of workers
_PROCESS = _Shared("process", "i32", "i32 0", 8)
_EPOCH = _Shared("epoch", "i32", "i32 0", 128)  # futex of idle workers
_PARKED = _Shared("parked", "i32", "i32 0", 128)  # futex of workers beyond `wanted`
_STATE = (
    _TICKET, _FINISHED, _AWAKE, _BUSY, _FN, _CONTEXT, _BLOCKS, _MISSED, _WANTED, _RUNNING, _SPIN, _AVOIDED,
    _STRAYED, _THREADS, _PROCESS, _EPOCH, _PARKED,
)  # fmt: skip


def source() -> str:
    """LLVM text of the pool for this platform; where there is no futex, of a loop over the blocks."""
    text = Source("threads", _EXTERNALS, clock.STRUCTS)
    _add_serial(text)
    if has_workers():
        for shared in _STATE:
            text.add_global(shared.name, f"internal global {shared.initial}, align {shared.align}")
        mask = [~sum(1 << (number - 1) for number in _FAULTS)] + [-1] * (_MASK_WORDS - 1)
        listed = ", ".join(f"i64 {word}" for word in mask)
        text.add_global("mask", f"internal constant [{_MASK_WORDS} x i64] [{listed}]")
        _add_sleep(text)
        _add_keep_off(text)
        _add_work(text)
        _add_poll(text)
        _add_worker(text)
        _add_start(text)
        _add_control(text)
        _add_parallel_for(text)
    else:
        with _job(text, SYMBOL, estimate="i64") as (w, fn, context, blocks, _):
            w.call("serial", fn, context, blocks)
        with _job(text, WATCHED, estimate="i64", look="ptr") as (w, fn, context, blocks, _, _):
            w.call("serial", fn, context, blocks)
    return text.render()


def _job(text: Source, name: str, **more: str) -> AbstractContextManager[tuple[Any, ...]]:
    """A function that runs ``fn(context, block)`` for a number of blocks."""
    linkage = "" if name in (SYMBOL, WATCHED) else "internal"
    return text.function(name, "void", _COLD, linkage, fn="ptr", context="ptr", blocks="i64", **more)


def _inner(
    text: Source, name: str, result: str, **parameters: str
) -> AbstractContextManager[tuple[Any, ...]]:
    """A function that only this module calls."""
    return text.function(name, result, _COLD, "internal", **parameters)


def _run_block(w: Body, fn: Value, context: Value, block: Value) -> None:
    w.call_at(fn, "void (ptr, i64)", context, block)


def _pause(w: Body) -> None:
    """Tell the processor that this loop waits."""
    if platform.machine() in _PAUSE:
        name, arguments = _PAUSE[platform.machine()]
        w.call(name, *arguments)


def _futex(w: Body, word: Value, operation: int, value: Value) -> None:
    number, what = FUTEX_NUMBER[platform.machine()], w.constant(operation, "i64")
    w.call("syscall", number, word, what, value, w.constant(None, "ptr"))


def _add_serial(text: Source) -> None:
    """``serial``: run all blocks here."""
    with _job(text, "serial") as (w, fn, context, blocks), w.loop(0, blocks) as block:
        _run_block(w, fn, context, block)


def _add_sleep(text: Source) -> None:
    """``sleep_on``: sleep while a word holds a value; ``wake``: change it and wake so many sleepers."""
    with _inner(text, "sleep_on", "void", word="i32[]", value="i32") as (w, word, value):
        _futex(w, word, _FUTEX_WAIT, value)
    with _inner(text, "wake", "void", word="i32[]", count="i64") as (w, word, count):
        w.fetch("add", word, 1, "seq_cst")
        _futex(w, word, _FUTEX_WAKE, count)


def _add_keep_off(text: Source) -> None:
    """``keep_off``: keep workers off a core (off none for -1), within what the caller itself may use.

    Only the owner of `_BUSY` calls this.
    """
    size = _MASK_WORDS * WORD
    with _inner(text, "keep_off", "void", core="i32") as (w, core):
        _AVOIDED.write(w, core, "monotonic")
        _STRAYED.write(w, 0, "monotonic")
        cores = w.local("i64", _MASK_WORDS)
        with w.if_(w.call("sched_getaffinity", 0, size, cores) < 0):
            w.ret()
        with w.if_((core >= 0) & (core < 8 * size)):
            _remove_core(w, cores, core.to("i64"))
        useful = w.call("llvm.umin.i64", w.load("i64", _RUNNING.at(w)), _WANTED.read(w, "seq_cst"))
        with w.loop(0, w.call("llvm.umin.i64", useful, _KEPT)) as worker:
            w.call("pthread_setaffinity_np", _THREADS.at(w)[worker], size, cores)


def _remove_core(w: Body, cores: Value, core: Value) -> None:
    """Take a core out of a set of cores, unless it is the only one."""
    word = cores.address(core >> 6)
    before = word[0]
    word[0] = before & ~(w.constant(1, "i64") << (core & 63))
    others = w.variable("others", "i64", 0)
    with w.loop(0, _MASK_WORDS) as i:
        others.set(others | cores[i])
    with w.if_(others == 0):
        word[0] = before


def _add_work(text: Source) -> None:
    """``work``: claim and run blocks until none is left; ``counter`` counts those finished."""
    with _inner(text, "work", "void", counter="i64[]") as (w, counter), w.forever():
        ticket = _TICKET.read(w, "acquire")
        left = ticket & _LEFT
        w.break_if(left == 0)
        fn, context, blocks = (one.read(w, "acquire") for one in (_FN, _CONTEXT, _BLOCKS))
        with w.if_(w.swap_if(_TICKET.at(w), ticket, ticket - 1)):
            _run_block(w, fn, context, blocks - left)
            w.fetch("add", counter, 1, "acq_rel")


def _add_poll(text: Source) -> None:
    """``poll``: wait for a job until the deadline: whether there is one."""
    with _inner(text, "poll", "i1", deadline="i64") as (w, deadline):
        turn = w.variable("turn", "i64", 1)
        with w.forever():
            with w.if_((_TICKET.read(w, "acquire") & _LEFT) != 0):
                w.ret(True)
            _pause(w)
            turn.set(turn + 1)
            with w.if_((turn & 31) == 0), w.if_(clock.nanoseconds(w) >= deadline):
                w.ret(False)


def _add_worker(text: Source) -> None:
    """``worker``: what a worker does as long as the process lives; the argument is its number."""
    with _inner(text, "worker", "ptr", argument="ptr") as (w, argument):
        index, patience = argument.to("i64"), w.variable("patience", "i64", 0)
        with w.forever():
            with w.if_(index >= _WANTED.read(w, "seq_cst")):
                _park(w, index)
                w.continue_()
            start, shortest = clock.nanoseconds(w), _SPIN.read(w, "monotonic")
            longest = w.call("llvm.umax.i64", shortest, patience)
            span = w.choose(shortest == 0, w.constant(0, "i64"), longest)
            with w.if_(w.call("poll", start + span)):
                w.call("work", _FINISHED.at(w))
                w.continue_()
            # The caller opens the ticket and then reads `awake`; we lower `awake` and then read the ticket:
            # one of the two sees the other.
            epoch = _EPOCH.read(w, "seq_cst")
            _AWAKE.add(w, -1)
            with w.if_((_TICKET.read(w, "seq_cst") & _LEFT) == 0):
                w.call("sleep_on", _EPOCH.at(w), epoch)
                twice = (clock.nanoseconds(w) - start) << 1
                soon = (twice <= PATIENCE_NS) & (shortest != 0)
                patience.set(w.choose(soon, twice, 0))
            _AWAKE.add(w, 1)


def _park(w: Body, index: Value) -> None:
    """A worker that is not wanted sleeps until their number changes."""
    parked = _PARKED.read(w, "seq_cst")
    _AWAKE.add(w, -1)
    with w.if_(index >= _WANTED.read(w, "seq_cst")):
        w.call("sleep_on", _PARKED.at(w), parked)
    _AWAKE.add(w, 1)


def _add_start(text: Source) -> None:
    """``start``: start the workers that are wanted and not there. Only the owner of `_BUSY` calls this."""
    with _inner(text, "start", "void") as (w,):
        thread, saved = w.local("i64"), w.local("i64", _MASK_WORDS)
        # Signals belong to the interpreter's own threads.
        w.call("pthread_sigmask", _SIG_SETMASK, w.symbol("mask"), saved)
        with w.forever():
            running = w.load("i64", _RUNNING.at(w))
            w.break_if(running >= _WANTED.read(w, "seq_cst"))
            _AWAKE.add(w, 1)
            status = w.call("pthread_create", thread, None, w.symbol("worker"), running.to("ptr"))
            with w.if_(status != 0):  # no more threads to be had
                _AWAKE.add(w, -1)
                _WANTED.write(w, running, "seq_cst")
                w.break_()
            _RUNNING.write(w, running + 1, "seq_cst")
            with w.if_(running < _KEPT):
                _THREADS.at(w)[running] = thread[0]
            _AVOIDED.write(w, -1, "monotonic")
            w.call("pthread_detach", thread[0])
        w.call("pthread_sigmask", _SIG_SETMASK, saved, None)


def _add_control(text: Source) -> None:
    """What Python calls: to forget workers and any job in flight after a fork, which leaves the calling
    thread only; to say how many workers are wanted and how long they poll; to count them.
    """
    with text.function("gj_threads_forget", "void", _COLD, process="i32") as (w, process):
        for shared in (_TICKET, _FINISHED, _AWAKE, _RUNNING, _MISSED, _BUSY):
            shared.write(w, 0, "seq_cst")
        _PROCESS.write(w, process, "seq_cst")
    with text.function("gj_threads_configure", "void", _COLD, workers="i64", spin="i64") as (
        w,
        workers,
        spin,
    ):
        _WANTED.write(w, workers, "seq_cst")
        _SPIN.write(w, spin, "seq_cst")
        w.call("wake", _EPOCH.at(w), _EVERYBODY)
        w.call("wake", _PARKED.at(w), _EVERYBODY)
    for name, counter in (("gj_threads_running", _RUNNING), ("gj_threads_awake", _AWAKE)):
        with text.function(name, "i64", _COLD) as (w,):
            w.ret(counter.read(w, "seq_cst"))


def _add_parallel_for(text: Source) -> None:
    """``gj_parallel_for``: share the blocks with idle workers where that is worth it, else run them alone.
    ``gj_parallel_watched`` calls ``look(context, next)`` besides, now and then while it waits for workers.
    """
    with _job(text, "share", estimate="i64", look="ptr") as (w, fn, context, blocks, estimate, look):
        alone, lonely = w.label("alone"), _WANTED.read(w, "monotonic") < 1
        small = (blocks < 2) | (estimate < WORTH_SPINNING_NS)
        w.goto_if(small | (blocks > _EVERYBODY) | lonely, alone)
        rouse = _worth_help(w, estimate, alone)
        _check_process(w, alone)
        w.goto_unless(w.swap_if(_BUSY.at(w), 0, 1), alone)

        _MISSED.write(w, 0, "monotonic")
        wanted = _WANTED.read(w, "monotonic")
        with w.if_(_RUNNING.read(w, "monotonic") < wanted):
            w.call("start")
        _make_room(w, estimate)
        _publish(w, fn, context, blocks)
        with w.if_(rouse):
            _rouse(w, blocks, estimate, wanted)
        finished_here = w.local("i64")
        finished_here[0] = 0
        w.call("work", finished_here)
        _join(w, blocks - finished_here[0], context, look)
        _BUSY.write(w, 0, "release")
        w.ret()

        w.place(alone)
        w.call("serial", fn, context, blocks)
    with _job(text, SYMBOL, estimate="i64") as (w, fn, context, blocks, estimate):
        w.call("share", fn, context, blocks, estimate, None)
    with _job(text, WATCHED, estimate="i64", look="ptr") as (w, fn, context, blocks, estimate, look):
        w.call("share", fn, context, blocks, estimate, look)


def _worth_help(w: Body, estimate: Value, alone: Label) -> Value:
    """Whether sleeping workers are woken; the job is run alone if none is awake and it is too small."""
    large = estimate >= WORTH_WAKING_NS
    rouse = w.variable("rouse", "i1", large)
    with w.if_(~((_AWAKE.read(w, "monotonic") > 0) | large)):
        missed = _MISSED.add(w, estimate, "monotonic") + estimate
        w.goto_if(missed < MISSED_NS, alone)
        rouse.set(True)
    return rouse


def _check_process(w: Body, alone: Label) -> None:
    """A fork by C code runs no hook of Python: the process number tells; one thread forgets the workers."""
    process, known = w.call("getpid"), _PROCESS.read(w, "acquire")
    with w.if_(process != known):
        w.goto_if(known == -1, alone)
        w.goto_unless(w.swap_if(_PROCESS.at(w), known, -1), alone)
        w.call("gj_threads_forget", process)


def _make_room(w: Body, estimate: Value) -> None:
    """Keep workers off the core that the caller runs on, if it has been on another often enough."""
    core, avoided = w.call("sched_getcpu"), _AVOIDED.read(w, "monotonic")
    with w.if_(core != avoided):
        strayed = _STRAYED.read(w, "monotonic") + 1
        _STRAYED.write(w, strayed, "monotonic")
        pays = estimate >= WORTH_WAKING_NS
        with w.if_((strayed >= STRAYED) | pays | (avoided == -1)):
            w.call("keep_off", core)


def _publish(w: Body, fn: Value, context: Value, blocks: Value) -> None:
    """Write the job and open the ticket of the next generation."""
    _FINISHED.write(w, 0, "monotonic")
    _FN.write(w, fn, "release")
    _CONTEXT.write(w, context, "release")
    _BLOCKS.write(w, blocks, "release")
    generation = (_TICKET.read(w, "monotonic") >> 32) + 1
    w.fetch("xchg", _TICKET.at(w), (generation << 32) | blocks, "seq_cst")


def _rouse(w: Body, blocks: Value, estimate: Value, wanted: Value) -> None:
    """Wake as many workers as the job has use for and are not awake."""
    by_work = w.call("llvm.umax.i64", estimate.to("u64") // PER_WORKER_NS, 1)
    useful = w.call("llvm.umin.i64", w.call("llvm.umin.i64", blocks - 1, wanted), by_work)
    missing = useful - _AWAKE.read(w, "seq_cst")
    with w.if_(missing > 0):
        w.call("wake", _EPOCH.at(w), missing)


def _join(w: Body, elsewhere: Value, context: Value, look: Value) -> None:
    """Wait until workers have finished so many blocks; look for signals meanwhile, if that is asked for."""
    turn, next = w.variable("turn", "i64", 0), w.local("i64")
    next[0] = 0
    with w.forever():
        w.break_if(_FINISHED.read(w, "acquire") == elsewhere)
        turn.set(turn + 1)
        with w.if_(turn <= _PAUSES):
            _pause(w)
        with w.else_():
            # Others may be waiting for this very core, and after a while whoever holds a block may take it.
            w.call("sched_yield")
            with w.if_(~look.is_null()):
                w.call_at(look, "void (ptr, ptr)", context, next)
            with w.if_(turn == IMPATIENT):
                w.call("keep_off", -1)
