"""Native code that decides whether donated arrays may hold the results of a call.

``gj_apart(arrays, count, frame)`` says whether no other array of the call touches the memory of a donated
one. The table has an entry for each array of a signature: the offset of its input slot in the frame, its
bytes, whether it is donated.

The code runs under the GIL, calls nothing and allocates nothing. The table belongs to one specialisation and
stays sorted by the addresses of its last call, so that the usual call (the same arrays, or arrays in the same
order) takes one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphjit.backend.llvm.entry.layout import STRUCTS
from graphjit.backend.llvm.writing.fields import WORD

if TYPE_CHECKING:  # writes code, which importing graphjit does not need
    from graphjit.backend.llvm.writing.native import Body, Source, Value

ENTRY_WORDS = len(STRUCTS["argument"])
_ENTRY = ENTRY_WORDS * WORD


def add_apart(source: Source) -> None:
    """Define ``gj_apart``."""
    parameters = {"arrays": "argument", "count": "i64", "frame": "ptr"}
    with source.function("gj_apart", "i1", **parameters) as (w, arrays, count, frame):
        _sort(w, arrays, count, frame)
        # Of what lies before: where all of it ends, and where what is donated ends.
        end, donated_end = w.variable("end", "u64", 0), w.variable("donated_end", "u64", 0)
        with w.loop(0, count) as i:
            array = arrays.offset(i * _ENTRY)
            start, donated = _start(array, frame), array["donated"] != 0
            with w.if_(start < w.choose(donated, end, donated_end)):
                w.ret(False)
            here = start + array["bytes"]
            end.set(w.choose(here > end, here, end))
            donated_end.set(w.choose((here > donated_end) & donated, here, donated_end))
        w.ret(True)


def _start(array: Value, frame: Value) -> Value:
    """The address that an array has in this call."""
    return frame.offset(array["slot"]).to("u64[]")[0]


def _sort(w: Body, arrays: Value, count: Value, frame: Value) -> None:
    """Sort the table by address, by insertion: usually it is sorted already."""
    with w.loop(1, count) as k:
        hole = w.variable("hole", "argument", arrays.offset(k * _ENTRY))
        taken = {name: hole[name] for name in STRUCTS["argument"]}
        start = _start(hole, frame)
        with w.forever():
            w.break_if(hole == arrays)
            before = hole.offset(-_ENTRY)
            w.break_if(_start(before, frame) <= start)
            for name in taken:
                hole[name] = before[name]
            hole.set(before)
        for name, value in taken.items():
            hole[name] = value
