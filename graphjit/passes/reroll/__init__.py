"""Python loops rolled up again.

Tracing runs a Python loop, so the graph holds every step of it: a thousand steps of a recurrent network are
fifty thousand nodes, and compiling takes as long as they are many. This pass finds the repetition and puts a
``scan`` in its place, before derivatives are taken: they too are then loops.

- `recording` writes the graph as numbers: a label for each node, and where its arguments come from.
- `periods` finds stretches in which labels repeat.
- `steps` looks at the arguments there: the same in each step, handed on, or another in each step.
- `places` and `growing` give slices that grow one size, so that steps with them are equal.
- `stacks` makes one array of values that differ from step to step.
- `bodies` makes the ``scan``.
- `rolling` does all of it on a graph, inner loops first.

Input: a builder and the nodes that are wanted. Output: nodes with the same values in their place.
Invariants: values are those of the unrolled graph, operation by operation (sums over slices that grow may
differ in the last bits); nothing is computed in a loop that could fail and was not computed before; work is
linear in the number of nodes.
"""

from graphjit.passes.reroll.rolling import reroll

__all__ = ["reroll"]
