"""The text of the thread pool: fork and join of blocks, in native code made from LLVM text alone.

Job: run ``fn(context, block)`` for every block of a parallel kernel, on the caller and on idle workers. Input
of the code: the native call ``gj_parallel_for(fn, context, blocks, estimate_ns)``. Output: every block has
run once when it returns.
Invariants: a caller never waits for a worker that has claimed nothing, so an absent or descheduled worker
costs nothing; at most one job is open at a time, and a nested or concurrent call runs its own blocks
serially; results cannot depend on the number of threads because blocks do not.

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
import sys

SYMBOL = "gj_parallel_for"
WORTH_SPINNING_NS = 1_300
"""Estimated work from which awake workers are asked to help."""
WORTH_WAKING_NS = 60_000
"""Estimated work from which sleeping workers are woken."""
MISSED_NS = 200_000
"""Work run alone because everybody slept, after which workers are woken all the same: many middle-sized
kernels in a row then get help.
"""
PER_WORKER_NS = 30_000
"""Estimated work for which one more sleeping worker is woken."""
SPIN_NS = 50_000
"""Time an idle worker polls before it sleeps."""
PATIENCE_NS = 1_000_000
"""Longest time it polls, reached where the last jobs came that soon after it had run out of work."""
STRAYED = 16
"""Small jobs of callers on other cores after which workers make room for such a caller; for a job worth a
wake-up they do so at once.
"""
IMPATIENT = 2_000
"""Turns of a caller's wait, most of them yields, after which workers may run anywhere: the one it waits for
may find its own core taken.
"""

_FUTEX_NUMBER = {
    "x86_64": 202,
    "aarch64": 98,
    "arm64": 98,
    "riscv64": 98,
    "loongarch64": 98,
    "ppc64le": 221,
    "s390x": 238,
}
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}
# Linux numbers of SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: faults of a worker itself must stay
# deliverable to it.
_FAULTS = (4, 5, 7, 8, 11, 31)

_STATE = """
%line = type { i64, [15 x i64] }
@ticket = internal global %line zeroinitializer, align 128   ; generation << 32 | blocks left
@finished = internal global %line zeroinitializer, align 128 ; blocks finished by workers
@awake = internal global %line zeroinitializer, align 128    ; workers that poll or run
@busy = internal global %line zeroinitializer, align 128     ; 1 while a caller owns the pool
@fn = internal global ptr null, align 128                    ; the job: written only while no block is left
@context = internal global ptr null, align 8
@blocks = internal global i64 0, align 8
@missed = internal global i64 0, align 128
@wanted = internal global i64 0, align 8                     ; workers asked for (threads - 1)
@running = internal global i64 0, align 8                    ; workers started in this process
@spin = internal global i64 0, align 8
@avoided = internal global i32 -1, align 8                   ; core that workers are kept off, -1: none
@strayed = internal global i64 0, align 8                    ; jobs of callers elsewhere since workers were moved
@threads = internal global [KEPT x i64] zeroinitializer, align 8 ; pthread_t of workers
@process = internal global i32 0, align 8
@epoch = internal global i32 0, align 128                    ; futex of idle workers
@parked = internal global i32 0, align 128                   ; futex of workers beyond @wanted
@mask = internal constant [16 x i64] [i64 MASK, FULL]
"""

_DECLARATIONS = """
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sched_yield()
declare i32 @sched_getcpu()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare i32 @getpid()
declare i32 @clock_gettime(i32, ptr)
declare i64 @syscall(i64, ...)
"""

_CLOCK = """
define internal i64 @clock() nounwind optnone noinline {
  %now = alloca [2 x i64], align 16
  %ignored = call i32 @clock_gettime(i32 1, ptr %now)
  %seconds = load i64, ptr %now
  %rest = getelementptr i64, ptr %now, i64 1
  %nanoseconds = load i64, ptr %rest
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %nanoseconds
  ret i64 %sum
}

define internal void @sleep_on(ptr %word, i32 %value) nounwind optnone noinline {
  %ignored = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 128, i32 %value, ptr null)
  ret void
}

define internal void @wake(ptr %word, i64 %count) nounwind optnone noinline {
  %old = atomicrmw add ptr %word, i32 1 seq_cst
  %ignored = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i64 129, i64 %count)
  ret void
}
"""

_AFFINITY = """
; Keep workers off a core (off none for -1), within what the caller itself may use.  Only the owner of @busy calls this.
define internal void @keep_off(i32 %core) nounwind optnone noinline {
entry:
  %mask = alloca [16 x i64], align 16
  store atomic i32 %core, ptr @avoided monotonic, align 4
  store atomic i64 0, ptr @strayed monotonic, align 8
  %status = call i32 @sched_getaffinity(i32 0, i64 128, ptr %mask)
  %known = icmp sge i32 %status, 0
  br i1 %known, label %look, label %done
look:
  %small = icmp ult i32 %core, 1024
  br i1 %small, label %clear, label %chosen
clear:
  %wide = zext i32 %core to i64
  %word = lshr i64 %wide, 6
  %bit = and i64 %wide, 63
  %slot = getelementptr i64, ptr %mask, i64 %word
  %old = load i64, ptr %slot
  %one = shl i64 1, %bit
  %others = xor i64 %one, -1
  %less = and i64 %old, %others
  store i64 %less, ptr %slot
  br label %count
count:
  %i = phi i64 [ 0, %clear ], [ %i1, %count ]
  %seen = phi i64 [ 0, %clear ], [ %seen1, %count ]
  %place = getelementptr i64, ptr %mask, i64 %i
  %cores = load i64, ptr %place
  %seen1 = or i64 %seen, %cores
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, 16
  br i1 %more, label %count, label %counted
counted:
  %free = icmp ne i64 %seen1, 0
  br i1 %free, label %chosen, label %restore
restore:
  store i64 %old, ptr %slot
  br label %chosen
chosen:
  %running = load i64, ptr @running
  %wanted = load atomic i64, ptr @wanted seq_cst, align 8
  %useful = call i64 @llvm.umin.i64(i64 %running, i64 %wanted)
  %last = call i64 @llvm.umin.i64(i64 %useful, i64 KEPT)
  %any = icmp sgt i64 %last, 0
  br i1 %any, label %move, label %done
move:
  %w = phi i64 [ 0, %chosen ], [ %w1, %move ]
  %entryptr = getelementptr [KEPT x i64], ptr @threads, i64 0, i64 %w
  %id = load i64, ptr %entryptr
  %ignored = call i32 @pthread_setaffinity_np(i64 %id, i64 128, ptr %mask)
  %w1 = add i64 %w, 1
  %again = icmp slt i64 %w1, %last
  br i1 %again, label %move, label %done
done:
  ret void
}
"""

_WORK = """
; Claim and run blocks until none is left; %counter counts those finished.
define internal void @work(ptr %counter) nounwind optnone noinline {
entry:
  br label %look
look:
  %ticket = load atomic i64, ptr @ticket acquire, align 8
  %left = and i64 %ticket, 4294967295
  %none = icmp eq i64 %left, 0
  br i1 %none, label %done, label %read
read:
  %fn = load atomic ptr, ptr @fn acquire, align 8
  %context = load atomic ptr, ptr @context acquire, align 8
  %blocks = load atomic i64, ptr @blocks acquire, align 8
  %less = sub i64 %ticket, 1
  %pair = cmpxchg ptr @ticket, i64 %ticket, i64 %less seq_cst seq_cst
  %claimed = extractvalue { i64, i1 } %pair, 1
  br i1 %claimed, label %run, label %look
run:
  %block = sub i64 %blocks, %left
  call void %fn(ptr %context, i64 %block)
  %old = atomicrmw add ptr %counter, i64 1 acq_rel
  br label %look
done:
  ret void
}
"""

_WORKER = """
define internal ptr @worker(ptr %argument) nounwind optnone noinline {
entry:
  %index = ptrtoint ptr %argument to i64
  %patience = alloca i64, align 8
  store i64 0, ptr %patience
  br label %top
top:
  %wanted = load atomic i64, ptr @wanted seq_cst, align 8
  %member = icmp slt i64 %index, %wanted
  br i1 %member, label %begin, label %park
park:
  %parked = load atomic i32, ptr @parked seq_cst, align 4
  %o1 = atomicrmw sub ptr @awake, i64 1 seq_cst
  %wanted2 = load atomic i64, ptr @wanted seq_cst, align 8
  %member2 = icmp slt i64 %index, %wanted2
  br i1 %member2, label %rise, label %lie
lie:
  call void @sleep_on(ptr @parked, i32 %parked)
  br label %rise
rise:
  %o2 = atomicrmw add ptr @awake, i64 1 seq_cst
  br label %top
begin:
  %start = call i64 @clock()
  %floor = load atomic i64, ptr @spin monotonic, align 8
  %learned = load i64, ptr %patience
  %longer = call i64 @llvm.umax.i64(i64 %floor, i64 %learned)
  %never = icmp eq i64 %floor, 0
  %span = select i1 %never, i64 0, i64 %longer
  %deadline = add i64 %start, %span
  br label %poll
poll:
  %turn = phi i64 [ 1, %begin ], [ %next, %again ]
  %ticket = load atomic i64, ptr @ticket acquire, align 8
  %left = and i64 %ticket, 4294967295
  %open = icmp ne i64 %left, 0
  br i1 %open, label %help, label %idle
help:
  call void @work(ptr @finished)
  br label %top
idle:
  PAUSE
  %next = add i64 %turn, 1
  %phase = and i64 %next, 31
  %look = icmp eq i64 %phase, 0
  br i1 %look, label %time, label %again
time:
  %now = call i64 @clock()
  %early = icmp slt i64 %now, %deadline
  br i1 %early, label %again, label %rest
again:
  br label %poll
rest:
  ; The caller opens the ticket and then reads @awake; we lower @awake and then read the ticket: one of the two sees the other.
  %epoch = load atomic i32, ptr @epoch seq_cst, align 4
  %o3 = atomicrmw sub ptr @awake, i64 1 seq_cst
  %ticket2 = load atomic i64, ptr @ticket seq_cst, align 8
  %left2 = and i64 %ticket2, 4294967295
  %open2 = icmp ne i64 %left2, 0
  br i1 %open2, label %rise, label %sleep
sleep:
  call void @sleep_on(ptr @epoch, i32 %epoch)
  %woken = call i64 @clock()
  %gap = sub i64 %woken, %start
  %twice = shl i64 %gap, 1
  %soon = icmp sle i64 %twice, PATIENCE
  %spinning = icmp ne i64 %floor, 0
  %learn = and i1 %soon, %spinning
  %lesson = select i1 %learn, i64 %twice, i64 0
  store i64 %lesson, ptr %patience
  br label %rise
}

; Start the workers that are wanted and not yet there.  Only the owner of @busy calls this.
define internal void @start() nounwind optnone noinline {
entry:
  %thread = alloca i64, align 8
  %saved = alloca [16 x i64], align 16
  ; Signals belong to the interpreter's own threads.
  %o1 = call i32 @pthread_sigmask(i32 2, ptr @mask, ptr %saved)
  br label %look
look:
  %running = load i64, ptr @running
  %wanted = load atomic i64, ptr @wanted seq_cst, align 8
  %short = icmp slt i64 %running, %wanted
  br i1 %short, label %create, label %done
create:
  %o2 = atomicrmw add ptr @awake, i64 1 seq_cst
  %argument = inttoptr i64 %running to ptr
  %status = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %argument)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %created, label %failed
created:
  %more = add i64 %running, 1
  store atomic i64 %more, ptr @running seq_cst, align 8
  %id = load i64, ptr %thread
  %kept = icmp slt i64 %running, KEPT
  br i1 %kept, label %keep, label %detach
keep:
  %entryptr = getelementptr [KEPT x i64], ptr @threads, i64 0, i64 %running
  store i64 %id, ptr %entryptr
  br label %detach
detach:
  store atomic i32 -1, ptr @avoided monotonic, align 4
  %o3 = call i32 @pthread_detach(i64 %id)
  br label %look
failed:
  %o4 = atomicrmw sub ptr @awake, i64 1 seq_cst
  store atomic i64 %running, ptr @wanted seq_cst, align 8
  br label %done
done:
  %o5 = call i32 @pthread_sigmask(i32 2, ptr %saved, ptr null)
  ret void
}
"""

_CALL = """
define internal void @serial(ptr %fn, ptr %context, i64 %blocks) nounwind optnone noinline {
entry:
  %any = icmp sgt i64 %blocks, 0
  br i1 %any, label %loop, label %done
loop:
  %block = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void %fn(ptr %context, i64 %block)
  %next = add i64 %block, 1
  %more = icmp slt i64 %next, %blocks
  br i1 %more, label %loop, label %done
done:
  ret void
}

; After fork only the calling thread is left: forget workers and any job in flight.
define void @gj_threads_forget(i32 %process) nounwind optnone noinline {
  store atomic i64 0, ptr @ticket seq_cst, align 8
  store atomic i64 0, ptr @finished seq_cst, align 8
  store atomic i64 0, ptr @awake seq_cst, align 8
  store atomic i64 0, ptr @running seq_cst, align 8
  store atomic i64 0, ptr @missed seq_cst, align 8
  store atomic i64 0, ptr @busy seq_cst, align 8
  store atomic i32 %process, ptr @process seq_cst, align 8
  ret void
}

define void @gj_threads_configure(i64 %workers, i64 %spin) nounwind optnone noinline {
  store atomic i64 %workers, ptr @wanted seq_cst, align 8
  store atomic i64 %spin, ptr @spin seq_cst, align 8
  call void @wake(ptr @epoch, i64 2147483647)
  call void @wake(ptr @parked, i64 2147483647)
  ret void
}

define i64 @gj_threads_running() nounwind optnone noinline {
  %running = load atomic i64, ptr @running seq_cst, align 8
  ret i64 %running
}

define i64 @gj_threads_awake() nounwind optnone noinline {
  %awake = load atomic i64, ptr @awake seq_cst, align 8
  ret i64 %awake
}

define void @gj_parallel_for(ptr %fn, ptr %context, i64 %blocks, i64 %estimate) nounwind optnone noinline {
entry:
  %finishedhere = alloca i64, align 8
  %few = icmp slt i64 %blocks, 2
  %small = icmp slt i64 %estimate, WORTH_SPINNING
  %many = icmp sgt i64 %blocks, 2147483647
  %w0 = load atomic i64, ptr @wanted monotonic, align 8
  %lonely = icmp slt i64 %w0, 1
  %b0 = or i1 %few, %small
  %b1 = or i1 %b0, %many
  %b2 = or i1 %b1, %lonely
  br i1 %b2, label %alone, label %worth
alone:
  call void @serial(ptr %fn, ptr %context, i64 %blocks)
  ret void
worth:
  %a0 = load atomic i64, ptr @awake monotonic, align 8
  %company = icmp sgt i64 %a0, 0
  %large = icmp sge i64 %estimate, WORTH_WAKING
  %go = or i1 %company, %large
  br i1 %go, label %check, label %lonesome
lonesome:
  %m0 = atomicrmw add ptr @missed, i64 %estimate monotonic
  %m1 = add i64 %m0, %estimate
  %patient = icmp slt i64 %m1, MISSED
  br i1 %patient, label %alone, label %check
check:
  %rouse = phi i1 [ %large, %worth ], [ true, %lonesome ]
  ; A fork by C code runs no hook of Python: the process number tells.
  %pid = call i32 @getpid()
  %known = load atomic i32, ptr @process acquire, align 4
  %same = icmp eq i32 %pid, %known
  br i1 %same, label %acquire, label %stranger
stranger:
  %forgetting = icmp eq i32 %known, -1
  br i1 %forgetting, label %alone, label %child
child:
  %swap = cmpxchg ptr @process, i32 %known, i32 -1 seq_cst seq_cst
  %first = extractvalue { i32, i1 } %swap, 1
  br i1 %first, label %forget, label %alone
forget:
  call void @gj_threads_forget(i32 %pid)
  br label %acquire
acquire:
  %take = cmpxchg ptr @busy, i64 0, i64 1 seq_cst seq_cst
  %mine = extractvalue { i64, i1 } %take, 1
  br i1 %mine, label %own, label %alone
own:
  store atomic i64 0, ptr @missed monotonic, align 8
  %running = load atomic i64, ptr @running monotonic, align 8
  %wanted = load atomic i64, ptr @wanted monotonic, align 8
  %short = icmp slt i64 %running, %wanted
  br i1 %short, label %begin, label %place
begin:
  call void @start()
  br label %place
place:
  %core = call i32 @sched_getcpu()
  %avoided = load atomic i32, ptr @avoided monotonic, align 4
  %stays = icmp eq i32 %core, %avoided
  br i1 %stays, label %publish, label %stray
stray:
  %s0 = load atomic i64, ptr @strayed monotonic, align 8
  %s1 = add i64 %s0, 1
  store atomic i64 %s1, ptr @strayed monotonic, align 8
  %often = icmp sge i64 %s1, STRAYED
  %pays = icmp sge i64 %estimate, WORTH_WAKING
  %new = icmp eq i32 %avoided, -1
  %m0b = or i1 %often, %pays
  %moves = or i1 %m0b, %new
  br i1 %moves, label %leave, label %publish
leave:
  call void @keep_off(i32 %core)
  br label %publish
publish:
  store atomic i64 0, ptr @finished monotonic, align 8
  store atomic ptr %fn, ptr @fn release, align 8
  store atomic ptr %context, ptr @context release, align 8
  store atomic i64 %blocks, ptr @blocks release, align 8
  %old = load atomic i64, ptr @ticket monotonic, align 8
  %generation = lshr i64 %old, 32
  %newer = add i64 %generation, 1
  %high = shl i64 %newer, 32
  %ticket = or i64 %high, %blocks
  %swapped = atomicrmw xchg ptr @ticket, i64 %ticket seq_cst
  br i1 %rouse, label %count, label %run
count:
  %byblocks = sub i64 %blocks, 1
  %bywork = udiv i64 %estimate, PER_WORKER
  %l0 = call i64 @llvm.umin.i64(i64 %byblocks, i64 %wanted)
  %l1 = call i64 @llvm.umax.i64(i64 %bywork, i64 1)
  %useful = call i64 @llvm.umin.i64(i64 %l0, i64 %l1)
  %awake = load atomic i64, ptr @awake seq_cst, align 8
  %missing = sub i64 %useful, %awake
  %some = icmp sgt i64 %missing, 0
  br i1 %some, label %rouseworkers, label %run
rouseworkers:
  call void @wake(ptr @epoch, i64 %missing)
  br label %run
run:
  store i64 0, ptr %finishedhere
  call void @work(ptr %finishedhere)
  %here = load i64, ptr %finishedhere
  %elsewhere = sub i64 %blocks, %here
  br label %join
join:
  %turn = phi i64 [ 0, %run ], [ %next, %soon ], [ %next, %late ], [ %next, %anywhere ]
  %finished = load atomic i64, ptr @finished acquire, align 8
  %complete = icmp eq i64 %finished, %elsewhere
  br i1 %complete, label %release, label %wait
wait:
  %next = add i64 %turn, 1
  %long = icmp sgt i64 %next, 500
  br i1 %long, label %late, label %soon
soon:
  PAUSE
  br label %join
late:
  ; Others may be waiting for this very core, and after a while whoever holds a block may take it.
  %ignored = call i32 @sched_yield()
  %patience = icmp eq i64 %next, IMPATIENT
  br i1 %patience, label %anywhere, label %join
anywhere:
  call void @keep_off(i32 -1)
  br label %join
release:
  store atomic i64 0, ptr @busy release, align 8
  ret void
}
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
"""

_SERIAL_ONLY = """
define void @gj_parallel_for(ptr %fn, ptr %context, i64 %blocks, i64 %estimate) nounwind optnone noinline {
  call void @serial(ptr %fn, ptr %context, i64 %blocks)
  ret void
}
"""


def source() -> str:
    """LLVM text of the pool for this platform; where there is no futex, of a loop over the blocks."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _FUTEX_NUMBER:
        return _CALL[: _CALL.index("; After fork")] + _SERIAL_ONLY
    declaration, pause = _PAUSE.get(machine.replace("arm64", "aarch64"), ("", ""))
    mask = ~sum(1 << (number - 1) for number in _FAULTS)
    text = _STATE + _DECLARATIONS + declaration + _CLOCK + _AFFINITY + _WORK + _WORKER + _CALL
    values = {
        "FUTEX": _FUTEX_NUMBER[machine],
        "PAUSE": pause,
        "MASK": mask,
        "FULL": ", ".join(["i64 -1"] * 15),
        "WORTH_SPINNING": WORTH_SPINNING_NS,
        "WORTH_WAKING": WORTH_WAKING_NS,
        "MISSED": MISSED_NS,
        "PER_WORKER": PER_WORKER_NS,
        "PATIENCE": PATIENCE_NS,
        "KEPT": 1024,
        "STRAYED": STRAYED,
        "IMPATIENT": IMPATIENT,
    }
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text
