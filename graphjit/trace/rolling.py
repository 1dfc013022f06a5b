"""Python loops of a traced function, rolled up again before anything is done with them.

Job: wherever nodes that a function returned are about to be compiled, differentiated or batched, put loops in
the place of repetition (`passes.reroll`); say what came of it to who asks by ``GRAPHJIT_LOG=reroll``.
Input: a trace, nodes, the inputs that the function was called with. Output: nodes with the same values.
Invariant: effects since then speak of the new nodes too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from graphjit import config
from graphjit.ir.node import Node
from graphjit.passes.reroll import reroll
from graphjit.trace.recording.tracer import Trace


def rolled(trace: Trace, nodes: Sequence[Node], inputs: Sequence[Node] = (), told: int = 0) -> list[Node]:
    """``nodes`` with loops in the place of what was recorded since ``inputs`` were made, and so the effects
    from number ``told`` on.
    """
    if not trace.rolls or trace.values is not None:
        return list(nodes)
    since = min((node.serial for node in inputs), default=0)
    effects = trace.builder.told.effects[told:]
    roots = [*nodes, *(node for effect in effects for node in effect.nodes)]
    said, logged = Counter[str](), "reroll" in config.log_topics
    found = reroll(trace.builder, roots, since, (lambda text: said.update([text])) if logged else None)
    for text, times in said.items():
        print(f"graphjit: {text}{f', {times} times' if times > 1 else ''}", file=sys.stderr)
    if found == roots:
        return list(nodes)
    rest = iter(found[len(nodes) :])
    for effect in trace.builder.told.take(told):
        trace.builder.told.tell(effect.at([next(rest) for _ in effect.nodes]))
    return found[: len(nodes)]
