"""``graphjit inspect``: a function at every stage of its compilation."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from graphjit.cli.report import UsageError, one_line_errors, table
from graphjit.cli.stages import STAGES, Stages
from graphjit.cli.target import arguments, load_target
from graphjit.ir.export import to_dot, to_json
from graphjit.ir.node import Node
from graphjit.ir.printer import number_nodes
from graphjit.runner import Compare, Dump, Instrument, Verify
from graphjit.schedule.fuse import why_not_fused
from graphjit.schedule.printer import print_memory


def inspect(
    target: Annotated[
        str, typer.Argument(metavar="FILE.py:FUNCTION", help="The function, written with NumPy.")
    ],
    nodes: Annotated[
        list[int] | None, typer.Argument(metavar="[A B]", help="Node numbers for --why-not-fused.")
    ] = None,
    grad: Annotated[bool, typer.Option("--grad", help="Show its gradient.")] = False,
    value_and_grad: Annotated[
        bool, typer.Option("--value-and-grad", help="Show value and gradient.")
    ] = False,
    jvp: Annotated[bool, typer.Option("--jvp", help="Show value and directional derivative.")] = False,
    argnums: Annotated[
        str, typer.Option(help="Positions of the arguments to differentiate: 0 or 0,2.")
    ] = "0",
    stage: Annotated[str, typer.Option(help=f"One of {', '.join(STAGES)}.")] = "optimized",
    arg: Annotated[
        list[str] | None,
        typer.Option(help="An argument instead of the declared example: 'f64[256,784]' or 2.0; repeat."),
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(metavar="STAGE STAGE", help="Compare two stages.")
    ] = None,
    why: Annotated[
        bool,
        typer.Option(
            "--why-not-fused", help="Why optimized nodes A and B, or neighbouring steps, run apart."
        ),
    ] = False,
    dot: Annotated[bool, typer.Option("--dot", help="A graph stage as Graphviz text.")] = False,
    json: Annotated[bool, typer.Option("--json", help="A graph stage as JSON.")] = False,
    timings: Annotated[bool, typer.Option("--time-passes", help="Time of every stage and pass.")] = False,
    verify: Annotated[bool, typer.Option("--verify-each", help="Check what every pass makes.")] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare-each",
            help="Run what each pass makes on random inputs and name the first that changed a value.",
        ),
    ] = False,
    dump: Annotated[
        Path | None,
        typer.Option("--dump-passes", metavar="DIR", help="Write what every pass made into numbered files."),
    ] = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory", help="The arena over time: what lies where, how long, and where the peak is."
        ),
    ] = False,
) -> None:
    """Show a function at one stage of its compilation.

    Its arguments come from FUNCTION.example = (...), from EXAMPLES = {"FUNCTION": (...)} in its file, or from
    --arg.
    """
    with one_line_errors():
        for name in diff or (stage,):
            if name not in STAGES:
                raise UsageError(f"there is no stage {name!r}; choose one of {', '.join(STAGES)}")
        chosen = [
            name for name, on in (("grad", grad), ("value_and_grad", value_and_grad), ("jvp", jvp)) if on
        ]
        if len(chosen) > 1:
            raise UsageError("--grad, --value-and-grad and --jvp exclude each other")
        if nodes and not why:
            raise UsageError("node numbers are for --why-not-fused A B")
        function, module = load_target(target)
        args = arguments(function, module, arg or ())
        stages = Stages(function, args, chosen[0] if chosen else "", _positions(argnums))
        watching: list[tuple[bool, Callable[[], Instrument]]] = [
            (verify, Verify),
            (compare, Compare),
            (dump is not None, lambda: Dump(dump or Path())),
        ]
        stages.instruments = [make() for wanted, make in watching if wanted]
        if stages.instruments:
            _ = stages.kernels  # all passes
        typer.echo(_shown(stages, stage, nodes or [], diff, why, dot, json, timings, memory).rstrip("\n"))


def _shown(
    stages: Stages,
    stage: str,
    nodes: list[int],
    diff: tuple[str, str] | None,
    why: bool,
    dot: bool,
    json: bool,
    timings: bool,
    memory: bool,
) -> str:
    if diff is not None:
        before, after = (stages.text(name).splitlines() for name in diff)
        return "\n".join(difflib.unified_diff(before, after, *diff, lineterm=""))
    if why:
        return _fusion(stages, nodes)
    if dot:
        return to_dot(stages.graph(stage))
    if json:
        return to_json(stages.graph(stage))
    if timings:
        return _timings(stages)
    if memory:
        return print_memory(stages.program, stages.fusion)
    return stages.text(stage)


def _positions(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--argnums takes positions such as 0 or 0,2, not {text!r}") from None


def _fusion(stages: Stages, nodes: list[int]) -> str:
    """Reasons for the kernel boundaries, by the numbers that the stage optimized prints."""
    numbers = number_nodes(stages.optimized)
    fusion = stages.fusion
    if nodes:
        if len(nodes) != 2:
            raise UsageError("--why-not-fused takes two node numbers, or none")
        by_number = {number: node for node, number in numbers.items()}
        missing = [number for number in nodes if number not in by_number]
        if missing:
            raise UsageError(
                f"the optimized graph has no node %{missing[0]}; it has %0 to %{len(numbers) - 1}"
            )
        first, second = (by_number[number] for number in nodes)
        return _reason(stages, numbers, first, second)
    steps = stages.program.steps
    if len(steps) < 2:
        return f"everything runs in {len(steps)} step"
    return "\n".join(_reason(stages, numbers, a.nodes[-1], b.nodes[0]) for a, b in pairwise(steps)) or str(
        fusion
    )


def _reason(stages: Stages, numbers: dict[Node, int], first: Node, second: Node) -> str:
    position = stages.fusion.position
    names = " and ".join(f"%{numbers[node]} {node.op.name}{_step(stages, node)}" for node in (first, second))
    why = why_not_fused(stages.fusion, first, second)
    if why:
        return f"{names}: {why}"
    if first in position and second in position:
        return f"{names}: they share a kernel"
    return f"{names}: one of them is no step of its own: it is computed, or read, where it is used"


def _step(stages: Stages, node: Node) -> str:
    at = stages.fusion.position.get(node)
    return "" if at is None else f" ({stages.program.steps[at].name})"


def _timings(stages: Stages) -> str:
    rows = [(stage, step, f"{ms:9.3f}") for stage, step, ms in stages.timings()]
    total = sum(ms for _, _, ms in stages.times)
    return table(("stage", "step", "       ms"), [*rows, ("total", "", f"{total:9.3f}")])
