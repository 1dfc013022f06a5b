"""Elements of buffers that are in registers already.

Job: in code without loops, where every address is a number, read what was stored or loaded before from the
register that has it. A store and a load of the same place cost the time of several operations, and far more
where single elements are stored and read as a vector.
Input: places of lanes. Output: the names of values, as LLVM text builds them.
Invariants: only what every run of the function has stored or loaded before is known; a store at a place that
is no number forgets its buffer. (Two buffers that are needed at the same time never share memory.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphjit.backend.llvm.kernels.scalar import kind, vector
from graphjit.backend.llvm.writing.text import Function
from graphjit.ir.buffers import Buffer


class Source(NamedTuple):
    """Lane ``lane`` of a value of so many ``lanes``."""

    name: str
    lanes: int
    lane: int


class Elements:
    """What is known of the buffers of one function."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self._known: dict[Buffer, dict[int, Source]] = {}
        self._single: dict[Source, str] = {}

    def forget(self, buffer: Buffer) -> None:
        """Something was stored, who knows where."""
        self._known.pop(buffer, None)

    def note(self, buffer: Buffer, places: Sequence[int], name: str, lanes: int) -> None:
        """The first lanes of a value are the elements at ``places``."""
        known = self._known.setdefault(buffer, {})
        known.update((place, Source(name, lanes, lane)) for lane, place in enumerate(places))

    def single(self, buffer: Buffer, place: int) -> str | None:
        """The element at a place."""
        source = self._known.get(buffer, {}).get(place)
        return None if source is None else self._extracted(source, buffer.dtype)

    def row(self, buffer: Buffer, places: Sequence[int], lanes: int) -> str | None:
        """A vector of the elements at ``places``; further lanes hold one of these. None where memory is as
        fast: a shuffle takes two vectors.
        """
        known = self._known.get(buffer, {})
        if not places or not all(place in known for place in places):
            return None
        sources = [known[place] for place in places]
        if all(source.lanes == lanes and source.lane == i for i, source in enumerate(sources)):
            if len({source.name for source in sources}) == 1:
                return sources[0].name
        sources += [sources[0]] * (lanes - len(sources))
        if all(source.lanes == 1 for source in sources):
            return self._collected(sources, buffer.dtype)
        return self._shuffled(sources, buffer.dtype)

    def _shuffled(self, sources: Sequence[Source], dtype: np.dtype) -> str | None:
        """A vector of lanes of at most two other ones of one length."""
        names = list(dict.fromkeys(source.name for source in sources))
        width = sources[0].lanes
        if len(names) > 2 or any(source.lanes != width for source in sources):
            return None
        of = vector(kind(dtype), width)
        order = ", ".join(f"i32 {source.lane + width * names.index(source.name)}" for source in sources)
        second = names[1] if len(names) == 2 else "poison"
        return self.fn.op(f"shufflevector {of} {names[0]}, {of} {second}, <{len(sources)} x i32> <{order}>")

    def _extracted(self, source: Source, dtype: np.dtype) -> str:
        if source.lanes == 1:
            return source.name
        if source not in self._single:
            of = vector(kind(dtype), source.lanes)
            self._single[source] = self.fn.op(f"extractelement {of} {source.name}, i32 {source.lane}")
        return self._single[source]

    def _collected(self, sources: Sequence[Source], dtype: np.dtype) -> str:
        """A vector of single numbers."""
        of, found = vector(kind(dtype), len(sources)), "poison"
        for lane, source in enumerate(sources):
            found = self.fn.op(f"insertelement {of} {found}, {kind(dtype)} {source.name}, i32 {lane}")
        return found
