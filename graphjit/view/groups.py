"""Boxes that are too many: those of one line of the user's go into one box, long lists into parts.

Input: a `Board`. Output: the same with groups as parents.
Invariant: no box has more than `MOST` others directly in it, and order is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphjit.view.board import BACKWARD, FORWARD, MIXED, Board, Item
from graphjit.view.sources import key_of, short_name

MOST = 400
"""Boxes directly in one box."""
PART = 100
"""Boxes in a part of a long list."""
WORDS = {FORWARD: "", BACKWARD: ", way back", MIXED: ", both ways"}


def group(board: Board, most: int = MOST, part: int = PART) -> None:
    """Put boxes into boxes until none has more than ``most`` directly in it."""
    for parent, members in list(board.children().items()):
        if len(members) > most:
            _spread(board, parent, members, most, part)


def _spread(board: Board, parent: int, members: list[int], most: int, part: int) -> None:
    """Groups by line, then parts of what is still too long; then the same with the groups."""
    ends = [n for n in members if board.items[n].kind in ("input", "output")]
    lines: dict[tuple[object, str], list[int]] = {}
    apart = set(ends) if len(ends) <= most // 4 else set()
    for number in members:
        item = board.items[number]
        if number not in apart:
            lines.setdefault((key_of(item.loc), item.phase), []).append(number)
    tops = list(apart)
    for (_, phase), found in lines.items():
        if len(found) == 1:
            tops += found
        elif len(lines) == 1:
            tops += _parts(board, parent, found, most, part)
        else:
            first = board.items[found[0]]
            where = f"{short_name(first.loc.file)}:{first.loc.line}" if first.loc else "no line"
            box = _box(board, parent, f"{where}{WORDS.get(phase, '')}", found)
            _parts(board, box, found, most, part)
            tops.append(box)
    if len(tops) > most:
        _parts(board, parent, sorted(tops), most, part)


def _parts(board: Board, parent: int, members: list[int], most: int, part: int) -> list[int]:
    """Boxes of at most ``part`` neighbours each, as long as there are too many."""
    while len(members) > most:
        slices = [members[at : at + part] for at in range(0, len(members), part)]
        members = [_box(board, parent, f"part {i + 1} of {len(slices)}", s) for i, s in enumerate(slices)]
    return members


def _box(board: Board, parent: int, label: str, members: Iterable[int]) -> int:
    """A box around items."""
    inside = [board.items[number] for number in members]
    lines = {key_of(item.loc) for item in inside}
    phases = {item.phase for item in inside}
    box = board.add(
        Item(
            label=label,
            kind="group",
            text=f"{len(inside)} boxes",
            loc=inside[0].loc if len(lines) == 1 else None,
            phase=phases.pop() if len(phases) == 1 else MIXED,
            parent=parent,
            nanoseconds=sum(item.nanoseconds for item in inside),
        )
    )
    for item in inside:
        item.parent = box
    return box
