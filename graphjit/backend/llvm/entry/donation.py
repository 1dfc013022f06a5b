"""Native code that decides whether donated arrays may hold the results of a call.

Job: ``gj_apart(entries, count, frame)``: whether no other array of the call touches the memory of a donated
one.
Input: a table with an entry per array of a signature: offset of its input slot in the frame, bytes, whether
it is donated.
Invariants: runs under the GIL, calls nothing and allocates nothing; the table belongs to one specialisation
and stays sorted by the addresses of its last call, so that the usual call (the same arrays, or arrays in the
same order) takes one pass.
"""

from __future__ import annotations

from graphjit.backend.llvm.entry.cpython import WORD
from graphjit.backend.llvm.entry.layout import get

ENTRY_WORDS = 3
_ENTRY = ENTRY_WORDS * WORD


def _fields(prefix: str, entry: str) -> str:
    """Load the entry's three words and the address that its array has now."""
    return f"""{get(f"{prefix}.slot", "i64", entry, 0)}
  {get(f"{prefix}.bytes", "i64", entry, WORD)}
  {get(f"{prefix}.donated", "i64", entry, 2 * WORD)}
  %{prefix}.place = getelementptr i8, ptr %frame, i64 %{prefix}.slot
  %{prefix}.start = load i64, ptr %{prefix}.place"""


def _put(prefix: str, entry: str, name: str) -> str:
    words = enumerate(("slot", "bytes", "donated"))
    return "\n  ".join(
        f"%{name}.{word} = getelementptr i8, ptr {entry}, i64 {i * WORD}\n  store i64 %{prefix}.{word}, ptr %{name}.{word}"
        for i, word in words
    )


APART = f"""define i1 @gj_apart(ptr %entries, i64 %count, ptr %frame) nounwind {{
entry:
  br label %sort
sort:
  %k = phi i64 [ 1, %entry ], [ %k.next, %put ]
  %sorted = icmp uge i64 %k, %count
  br i1 %sorted, label %sweep, label %take
take:
  %k.offset = mul i64 %k, {_ENTRY}
  %taken = getelementptr i8, ptr %entries, i64 %k.offset
  {_fields("new", "%taken")}
  br label %shift
shift:
  %hole = phi ptr [ %taken, %take ], [ %before, %move ]
  %first = icmp eq ptr %hole, %entries
  br i1 %first, label %put, label %compare
compare:
  %before = getelementptr i8, ptr %hole, i64 -{_ENTRY}
  {_fields("old", "%before")}
  %later = icmp ugt i64 %old.start, %new.start
  br i1 %later, label %move, label %put
move:
  {_put("old", "%hole", "moved")}
  br label %shift
put:
  {_put("new", "%hole", "placed")}
  %k.next = add i64 %k, 1
  br label %sort

sweep:
  %i = phi i64 [ 0, %sort ], [ %i.next, %clear ]
  %reach = phi i64 [ 0, %sort ], [ %reach.next, %clear ]
  %reach.donated = phi i64 [ 0, %sort ], [ %reach.donated.next, %clear ]
  %done = icmp uge i64 %i, %count
  br i1 %done, label %yes, label %look
look:
  %i.offset = mul i64 %i, {_ENTRY}
  %here = getelementptr i8, ptr %entries, i64 %i.offset
  {_fields("at", "%here")}
  %given.up = icmp ne i64 %at.donated, 0
  %limit = select i1 %given.up, i64 %reach, i64 %reach.donated
  %overlaps = icmp ult i64 %at.start, %limit
  br i1 %overlaps, label %no, label %clear
clear:
  %end = add i64 %at.start, %at.bytes
  %further = icmp ugt i64 %end, %reach
  %reach.next = select i1 %further, i64 %end, i64 %reach
  %further.donated = icmp ugt i64 %end, %reach.donated
  %grows = and i1 %further.donated, %given.up
  %reach.donated.next = select i1 %grows, i64 %end, i64 %reach.donated
  %i.next = add i64 %i, 1
  br label %sweep
yes:
  ret i1 true
no:
  ret i1 false
}}"""
