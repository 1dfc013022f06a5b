"""``graphjit inspect``: a function at every stage of its compilation, and what one asks about it.

Input: options. Output: one text: a stage, the difference of two, times, the memory plan, or why steps are not
fused; or files: a page, figures.
Invariant: the stages themselves are those of ``f.lower(*args)``, by way of `graphjit.cli.stages`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from graphjit.cli.pictures import write_pictures
from graphjit.cli.report import UsageError, one_line_errors, table
from graphjit.cli.stages import STAGES, Stages
from graphjit.cli.target import arguments, load_target
from graphjit.ir.export import to_dot, to_json
from graphjit.ir.node import Node
from graphjit.ir.printer import number_nodes
from graphjit.passes.fission import why_inside
from graphjit.pipeline import split_loops
from graphjit.running.instruments import Compare, Dump, Verify
from graphjit.running.runner import Instrument
from graphjit.schedule.fuse import why_not_fused
from graphjit.schedule.printer import print_memory

Target = Annotated[str, typer.Argument(metavar="FILE.py:FUNCTION", help="The function, written with NumPy.")]
Nodes = Annotated[list[int] | None, typer.Argument(metavar="[A B]", help="Node numbers for --why-not-fused.")]
Grad = Annotated[bool, typer.Option("--grad", help="Show its gradient.")]
ValueAndGrad = Annotated[bool, typer.Option("--value-and-grad", help="Show value and gradient.")]
Jvp = Annotated[bool, typer.Option("--jvp", help="Show value and directional derivative.")]
Argnums = Annotated[str, typer.Option(help="Positions of the arguments to differentiate: 0 or 0,2.")]
StageName = Annotated[str, typer.Option(help=f"One of {', '.join(STAGES)}.")]
Arg = Annotated[
    list[str] | None,
    typer.Option(help="An argument instead of the declared example: 'f64[256,784]' or 2.0; repeat."),
]
Diff = Annotated[tuple[str, str] | None, typer.Option(metavar="STAGE STAGE", help="Compare two stages.")]
WhyNotFused = Annotated[
    bool,
    typer.Option("--why-not-fused", help="Why optimized nodes A and B, or neighbouring steps, run apart."),
]
AsDot = Annotated[bool, typer.Option("--dot", help="A graph stage as Graphviz text.")]
AsJson = Annotated[bool, typer.Option("--json", help="A graph stage as JSON.")]
TimePasses = Annotated[bool, typer.Option("--time-passes", help="Time of every stage and pass.")]
VerifyEach = Annotated[bool, typer.Option("--verify-each", help="Check what every pass makes.")]
CompareEach = Annotated[
    bool,
    typer.Option(
        "--compare-each",
        help="Run what each pass makes on random inputs and name the first that changed a value.",
    ),
]
DumpPasses = Annotated[
    Path | None,
    typer.Option("--dump-passes", metavar="DIR", help="Write what every pass made into numbered files."),
]
Memory = Annotated[
    bool,
    typer.Option("--memory", help="The arena over time: what lies where, how long, and where the peak is."),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write all stages, costs and memory as one page to look at."),
]
PlotMemory = Annotated[
    Path | None,
    typer.Option("--plot-memory", metavar="FILE", help="Draw the arena over time (PNG, SVG or PDF)."),
]
PlotCost = Annotated[
    Path | None,
    typer.Option("--plot-cost", metavar="FILE", help="Draw the time by line and by step (PNG, SVG or PDF)."),
]


def inspect(
    target: Target,
    nodes: Nodes = None,
    grad: Grad = False,
    value_and_grad: ValueAndGrad = False,
    jvp: Jvp = False,
    argnums: Argnums = "0",
    stage: StageName = "optimized",
    arg: Arg = None,
    diff: Diff = None,
    why: WhyNotFused = False,
    dot: AsDot = False,
    json: AsJson = False,
    timings: TimePasses = False,
    verify: VerifyEach = False,
    compare: CompareEach = False,
    dump: DumpPasses = None,
    memory: Memory = False,
    html: Html = None,
    plot_memory: PlotMemory = None,
    plot_cost: PlotCost = None,
) -> None:
    """Show a function at one stage of its compilation.

    Its arguments come from FUNCTION.example = (...), from EXAMPLES = {"FUNCTION": (...)} in its file, or from
    --arg.
    """
    with one_line_errors():
        _require_stages(diff or (stage,))
        derivative = _derivative(grad, value_and_grad, jvp)
        if nodes and not why:
            raise UsageError("node numbers are for --why-not-fused A B")
        function, module = load_target(target)
        stages = Stages(function, arguments(function, module, arg or ()), derivative, _positions(argnums))
        stages.instruments = _instruments(verify, compare, dump)
        _watch(stages, ["verified"] * verify + ["compared"] * compare)
        answers: tuple[tuple[Any, Callable[[], str]], ...] = (
            (html or plot_memory or plot_cost, lambda: write_pictures(stages, html, plot_memory, plot_cost)),
            (diff, lambda: _difference(stages, *diff or ("", ""))),
            (why, lambda: _reasons(stages, nodes or [])),
            (dot, lambda: to_dot(stages.graph(stage))),
            (json, lambda: to_json(stages.graph(stage))),
            (timings, lambda: _timings(stages)),
            (memory, lambda: print_memory(stages.whole.program, stages.whole.fusion)),
            (True, lambda: stages.text(stage)),
        )
        text = next(answer for asked, answer in answers if asked)()
        typer.echo(text.rstrip("\n"))


def _watch(stages: Stages, done: Sequence[str]) -> None:
    """Run all passes if something watches them."""
    if stages.instruments:
        _ = stages.whole.loops
        if done:
            typer.echo(f"every pass {' and '.join(done)}: no fault", err=True)


def _require_stages(names: Sequence[str]) -> None:
    for name in names:
        if name not in STAGES:
            raise UsageError(f"there is no stage {name!r}; choose one of {', '.join(STAGES)}")


def _derivative(grad: bool, value_and_grad: bool, jvp: bool) -> str:
    """The derivative asked for, as `Stages` names it; empty for the function itself."""
    asked = {"grad": grad, "value_and_grad": value_and_grad, "jvp": jvp}
    chosen = [name for name, on in asked.items() if on]
    if len(chosen) > 1:
        raise UsageError("--grad, --value-and-grad and --jvp exclude each other")
    return chosen[0] if chosen else ""


def _instruments(verify: bool, compare: bool, dump: Path | None) -> list[Instrument]:
    """What watches the passes."""
    found: list[Instrument] = []
    if verify:
        found.append(Verify())
    if compare:
        found.append(Compare())
    if dump is not None:
        found.append(Dump(dump))
    return found


def _difference(stages: Stages, before: str, after: str) -> str:
    """Two stages as `diff -u` compares them. The lines of the user's code are left out: they stand only where
    they change, so equal nodes would not be equal lines.
    """
    old, new = (stages.text(name, locations=False).splitlines() for name in (before, after))
    return "\n".join(difflib.unified_diff(old, new, before, after, lineterm=""))


def _positions(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--argnums takes positions such as 0 or 0,2, not {text!r}") from None


def _reasons(stages: Stages, nodes: list[int]) -> str:
    """Why two nodes, or all neighbouring steps, run apart; nodes by the numbers that the stage optimized
    prints.
    """
    numbers = number_nodes(stages.whole.optimized)
    if nodes:
        return _reason(stages, numbers, *_two_nodes(numbers, nodes))
    steps = stages.whole.program.steps
    inside = [_inside(*found) for found in why_inside(split_loops(stages.whole.simplified))]
    if len(steps) < 2:
        return "\n".join([f"everything runs in {len(steps)} step", *inside])
    return "\n".join(
        [*(_reason(stages, numbers, a.nodes[-1], b.nodes[0]) for a, b in pairwise(steps)), *inside]
    )


def _inside(loop: Node, product: Node, why: str) -> str:
    """Why a product stays in a loop."""
    at = product.loc or loop.loc
    place = f" at {os.path.basename(at.file)}:{at.line}" if at else ""
    return f"{product.op.name} {product.type} in the {loop.op.name}{place}: {why}"


def _two_nodes(numbers: dict[Node, int], wanted: list[int]) -> tuple[Node, Node]:
    """The nodes with these numbers."""
    if len(wanted) != 2:
        raise UsageError("--why-not-fused takes two node numbers, or none")
    by_number = {number: node for node, number in numbers.items()}
    missing = [number for number in wanted if number not in by_number]
    if missing:
        raise UsageError(f"the optimized graph has no node %{missing[0]}; it has %0 to %{len(numbers) - 1}")
    return by_number[wanted[0]], by_number[wanted[1]]


def _reason(stages: Stages, numbers: dict[Node, int], first: Node, second: Node) -> str:
    position = stages.whole.fusion.position
    names = " and ".join(f"%{numbers[node]} {node.op.name}{_step(stages, node)}" for node in (first, second))
    why = why_not_fused(stages.whole.fusion, first, second)
    if why:
        return f"{names}: {why}"
    if first in position and second in position:
        return f"{names}: they share a kernel"
    return f"{names}: one of them is no step of its own: it is computed, or read, where it is used"


def _step(stages: Stages, node: Node) -> str:
    at = stages.whole.fusion.position.get(node)
    return "" if at is None else f" ({stages.whole.program.steps[at].name})"


def _timings(stages: Stages) -> str:
    rows = [(stage, step, f"{ms:9.3f}") for stage, step, ms in stages.timings()]
    total = sum(ms for _, _, ms in stages.times)
    return table(("stage", "step", "       ms"), [*rows, ("total", "", f"{total:9.3f}")])
