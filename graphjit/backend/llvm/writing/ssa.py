"""Which value a variable has where control flow meets: blocks of a function, and phi nodes that join values.

Text that is written from top to bottom assigns variables; LLVM wants each name assigned once. The way from
one to the other is that of "Simple and Efficient Construction of Static Single Assignment Form" (Braun and
others, 2013). A block notes what each variable holds at its end. Asked for a variable that it does not
assign, it asks the blocks before it; if there are several, a phi node joins their answers. The head of a loop
is asked before all that lead to it are known, so its phi node is filled when the loop ends: when the head is
*sealed*. Phi nodes that turn out to join one value only are that value.
"""

from __future__ import annotations

import re
from typing import Protocol

_JOINED = re.compile(r"%\w+\.\d+")
"""What names of phi nodes look like."""


class Assigned(Protocol):
    """What `Blocks` must know of a variable."""

    hint: str
    """A word for its names in the text."""
    kind: str
    """Its type in LLVM."""

    def __hash__(self) -> int: ...


class _Phi:
    """What joins the values that a variable has at the ends of several blocks."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.incoming: list[tuple[str, str]] = []

    def __str__(self) -> str:
        pairs = ", ".join(f"[ {value}, %{block} ]" for value, block in self.incoming)
        return f"  {self.name} = phi {self.kind} {pairs}"


class Block:
    """A stretch of instructions with one entry.

    ``before`` are the blocks that lead to it; ``sealed`` says that no others will.
    """

    def __init__(self, name: str, sealed: bool) -> None:
        self.name = name
        self.sealed = sealed
        self.entered = False
        self.before: list[Block] = []
        self.values: dict[Assigned, str] = {}
        """What variables hold at its end."""
        self.phis: dict[Assigned, _Phi] = {}

    def __str__(self) -> str:
        return "\n".join([f"{self.name}:", *map(str, self.phis.values())]) if self.phis else f"{self.name}:"


class Branch:
    """A conditional branch from a block; its other end may still change: an ``else`` may follow."""

    def __init__(self, here: Block, condition: str, then: Block, otherwise: Block) -> None:
        self.here = here
        self.condition = condition
        self.then = then
        self.otherwise = otherwise

    def __str__(self) -> str:
        return f"  br i1 {self.condition}, label %{self.then.name}, label %{self.otherwise.name}"


def _lead(here: Block, block: Block) -> None:
    """Note that one block leads to another, whose phis are not made yet."""
    assert not (block.entered and block.sealed), "a jump backwards, to a block that is no loop"
    block.before.append(here)


class Blocks:
    """The lines and blocks of a function under construction."""

    def __init__(self) -> None:
        self._count = 0
        self._phis: list[_Phi] = []
        self._slots: list[str] = []
        self._lines: list[str | Block | Branch] = []
        self._entry = Block("entry", sealed=True)
        self._here: Block | None = self._entry

    @property
    def open(self) -> bool:
        """Whether control can get here."""
        return self._here is not None

    @property
    def length(self) -> int:
        """Number of lines so far."""
        return len(self._lines)

    def fresh(self, hint: str) -> str:
        """A new name."""
        self._count += 1
        return f"%{hint}{self._count}"

    def do(self, text: str) -> None:
        """Write an instruction."""
        assert self._here is not None, f"no way leads to: {text}"
        self._lines.append(f"  {text}")

    def insert(self, place: int, text: str) -> None:
        """Write an instruction above what has been written since there were ``place`` lines."""
        self._lines.insert(place, f"  {text}")

    def slot(self, text: str) -> str:
        """The name of memory on the stack; ``text`` is its type and alignment."""
        name = self.fresh("local")
        self._slots.append(f"  {name} = alloca {text}")
        return name

    def block(self, hint: str, sealed: bool = True) -> Block:
        """A new block, to be entered later."""
        return Block(self.fresh(hint)[1:], sealed)

    def enter(self, block: Block) -> None:
        """Go on with a block, if anything leads there."""
        self._here = block if block.before else None
        block.entered = True
        if block.before:
            self._lines.append(block)

    def leave(self) -> Block:
        """End this block, whose last instruction is written otherwise."""
        assert self._here is not None, "no way leads here"
        here, self._here = self._here, None
        return here

    def jump(self, block: Block) -> None:
        """Go to a block, if control can get here at all."""
        if self._here is not None:
            self.do(f"br label %{block.name}")
            _lead(self.leave(), block)

    def split(self, condition: str, then: Block, otherwise: Block) -> Branch:
        """Go to one of two blocks."""
        here = self.leave()
        branch = Branch(here, condition, then, otherwise)
        self._lines.append(branch)
        _lead(here, then)
        _lead(here, otherwise)
        return branch

    def redirect(self, branch: Branch, old: Block, new: Block) -> None:
        """Let a branch lead to ``new`` instead of ``old``, which was entered just now and holds nothing."""
        assert not old.values, "a variable was assigned between `if_` and `else_`"
        self._lines.pop()
        old.before.remove(branch.here)
        old.entered = False
        branch.otherwise = new
        new.before.append(branch.here)

    def place_block(self, block: Block) -> None:
        """Fall through into a block; all else that leads there has been written."""
        self.jump(block)
        self.seal(block)
        self.enter(block)

    def seal(self, block: Block) -> None:
        """All that lead to a block are known now."""
        block.sealed = True
        for variable in [*block.phis]:
            self._join(variable, block)

    def hold(self, variable: Assigned, name: str) -> None:
        """Note what a variable holds from here on."""
        assert self._here is not None
        self._here.values[variable] = name

    def held(self, variable: Assigned) -> str:
        """What a variable holds here."""
        assert self._here is not None, f"no way leads to where {variable.hint} is read"
        return self._held(variable, self._here)

    def _held(self, variable: Assigned, start: Block) -> str:
        block = start
        while variable not in block.values and block.sealed and len(block.before) == 1:
            block = block.before[0]
        if variable not in block.values:
            assert block is not self._entry, f"{variable.hint} has no value yet"
            phi = _Phi(self.fresh(f"{variable.hint}."), variable.kind)
            self._phis.append(phi)
            block.values[variable] = phi.name  # before the others are asked, since loops come back here
            block.phis[variable] = phi
            if block.sealed:
                self._join(variable, block)
        name = start.values[variable] = block.values[variable]
        return name

    def _join(self, variable: Assigned, block: Block) -> None:
        block.phis[variable].incoming = [(self._held(variable, one), one.name) for one in block.before]

    def text(self) -> str:
        """The finished lines."""
        assert self._here is None, "control reaches the end without a return"
        same = self._needless()
        for line in self._lines:
            if isinstance(line, Block) and line.phis:
                line.phis = {variable: phi for variable, phi in line.phis.items() if phi.name not in same}
        text = "\n".join(["entry:", *self._slots, *map(str, self._lines)])
        return _JOINED.sub(lambda found: same.get(found[0], found[0]), text) if same else text

    def _needless(self) -> dict[str, str]:
        """Phi nodes that join one value only, and that value."""
        same: dict[str, str] = {}

        def final(value: str) -> str:
            while value in same:
                value = same[value]
            return value

        left = self._phis
        while True:
            rest = []
            for phi in left:
                values = {final(value) for value, _ in phi.incoming} - {phi.name}
                if len(values) == 1:
                    same[phi.name] = values.pop()
                else:
                    rest.append(phi)
            if len(rest) == len(left):
                return {name: final(name) for name in same}
            left = rest
