"""How a pass rebuilds a graph: node by node through a fresh builder, until a step changes nothing more.

Input: a graph and ``step(b, node) -> Node | None``, which says what replaces a node. Output: a graph with the
same inputs.
Invariants: a replacement has the type of what it replaces; order of evaluation is kept; every node that a
step makes goes through the step itself; a graph that does not change is returned as it is; work is linear in
the number of nodes and replacements, and nothing recurses.
"""

from __future__ import annotations

from collections.abc import Callable

from graphjit.errors import IRError
from graphjit.ir.builder import Builder
from graphjit.ir.node import Graph, Node

Step = Callable[[Builder, Node], Node | None]

FIRINGS_PER_NODE = 50
"""Firings after which a rewrite is taken for endless: far above what any terminating set of rules needs."""


class Rewriter:
    """Rebuilds graphs with one step to a fixed point."""

    def __init__(self, step: Step, settled: Callable[[Node, Node], None] | None = None) -> None:
        """``settled(old, new)`` is called once for every node of the graph, in order, when its replacement is
        known.
        """
        self.step = step
        self.settled = settled
        self.builder = Builder()
        self._final: dict[Node, Node] = {}
        self._forward: dict[Node, Node] = {}
        self._firings = 0

    def run(self, graph: Graph) -> Graph:
        """The rewritten graph; ``graph`` itself when nothing changed."""
        nodes = graph.nodes()
        self._firings = FIRINGS_PER_NODE * (len(nodes) + 20)
        replaced: dict[Node, Node] = {}
        b, step, final, settled = self.builder, self.step, self._final, self.settled
        intact = True  # nodes before the first change are kept, not copied: they are older than every copy, so order stays
        for node in nodes:
            args = node.args
            if intact:
                b.adopt(node)
            else:
                args = tuple([replaced[arg] for arg in args])
            new = b.copy(node, args)
            found = final.get(new)
            if found is None:
                # the common case without the stack of _settle: arguments final, the step has nothing to say
                if all(map(final.__contains__, new.args)):
                    made = step(b, new)
                    if made is None or made is new:
                        found = final[new] = new
                    else:
                        self._fired(new, made)
                if found is None:
                    found = self._settle(new)
                    if found.type != node.type:
                        raise IRError(f"a rewrite turned {node!r} into {found!r}")
            intact = intact and found is node
            replaced[node] = found
            if settled is not None:
                settled(node, found)
        return (
            graph if intact else Graph(graph.name, graph.inputs, [replaced[node] for node in graph.outputs])
        )

    def _settle(self, start: Node) -> Node:
        """The final form of a node whose arguments may themselves be unfinished."""
        final, forward, b = self._final, self._forward, self.builder
        found = final.get(start)
        if found is not None:
            return found
        stack = [start]
        while stack:
            node = stack[-1]
            if node in final:
                stack.pop()
                continue
            target = forward.get(node)
            if target is not None:
                if target in final:
                    final[node] = final[target]
                    del forward[node]
                    stack.pop()
                else:
                    stack.append(target)
                continue
            pending = [arg for arg in node.args if arg not in final]
            if pending:
                if any(arg in forward for arg in pending):
                    raise IRError(f"a rewrite made {node!r} depend on the node it replaces")
                stack.extend(pending)
                continue
            args = tuple([final[arg] for arg in node.args])
            made = b.copy(node, args) if args != node.args else self.step(b.like(node), node)
            if made is None or made is node or made in forward:
                final[node] = node
                stack.pop()
                continue
            self._fired(node, made)
        return final[start]

    def _fired(self, node: Node, made: Node) -> None:
        self._forward[node] = made
        self._firings -= 1
        if self._firings < 0:
            raise IRError(f"a rewrite does not come to an end (last: {node!r} into {made!r})")


def rewrite(graph: Graph, step: Step) -> Graph:
    """``graph`` with ``step`` applied to every node until it returns None."""
    return Rewriter(step).run(graph)
