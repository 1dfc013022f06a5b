"""Random programs of assignments, views and reductions, run on ndarrays and on traced values.

Job: find a write that is lost, or one that reaches an array that NumPy leaves alone.
Input: a seed. Output: what differs, or None; ``python tests/harness/random_views.py 1000 --seed 7`` runs many
and prints the steps of what fails.

A program is a list of steps; each reads variables by number and adds variables or writes to one. Steps are
drawn while NumPy runs them, so that shapes fit; the same steps are then recorded with traced arguments.
Compared are the values of all variables at the end, their dtypes, classes, memory order, which of them share
memory, and errors. Values are small multiples of a quarter, so that sums are exact in every order.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphjit.trace.numpy.registry  # noqa: F401 (fills the tables)
from graphjit.errors import GraphjitError
from graphjit.interpret import interpret
from graphjit.ir.node import Graph
from graphjit.ir.types import SHORT, Type
from graphjit.trace.numpy.patches import recording
from graphjit.trace.outside.captured_class import lent
from graphjit.trace.recording.tracer import Trace, any_tracer, assemble

DTYPES = [np.dtype(name) for name in SHORT]
Random = np.random.Generator


@dataclass(frozen=True)
class Step:
    """One statement: ``apply(variables, *args)`` returns new variables (a list) or None after a write."""

    name: str
    apply: Callable[..., Any]
    args: tuple[Any, ...]

    def run(self, variables: list[Any]) -> None:
        found = self.apply(variables, *self.args)
        variables.extend(found if isinstance(found, list) else [] if found is None else [found])


# ---------------------------------------------------------------------------------------------------- drawing


def _key(rng: Random, shape: tuple[int, ...], advanced: bool) -> Any:
    """A key that fits mostly."""
    parts: list[Any] = []
    for size in shape[: rng.integers(0, len(shape) + 1)]:
        kind = rng.integers(0, 8 if advanced and size else 5)
        if kind == 0 and size:
            parts.append(int(rng.integers(-size, size)))
        elif kind == 5:
            parts.append([int(i) for i in rng.integers(-size, size, rng.integers(1, 4))])
        elif kind == 6:
            mask = rng.random(size) < 0.6
            mask.flags.writeable = False
            parts.append(mask)
        elif kind == 7:
            parts.append(np.array(rng.integers(0, size, (2, 1))))
        else:
            a, b = rng.integers(-1, size + 2, 2)
            parts.append(
                slice(
                    None if rng.random() < 0.3 else int(a),
                    None if rng.random() < 0.5 else int(b),
                    int(rng.choice([1, 1, 2, -1, -2])),
                )
            )
    if rng.random() < 0.25:
        parts.insert(int(rng.integers(0, len(parts) + 1)), None)
    if rng.random() < 0.3:
        parts.insert(int(rng.integers(0, len(parts) + 1)), ...)
    return parts[0] if len(parts) == 1 and rng.random() < 0.7 else tuple(parts)


def _shape(rng: Random, size: int) -> tuple[int, ...]:
    """A shape of so many elements."""
    shape = []
    rest = size
    while rest > 1 and rng.random() < 0.7:
        divisors = [d for d in range(2, rest + 1) if rest % d == 0]
        d = int(rng.choice(divisors))
        shape.append(d)
        rest //= d
    shape.append(rest)
    if rng.random() < 0.2:
        shape.insert(0, 1)
    return tuple(shape)


VIEWS: list[tuple[str, Callable[[Random, Any], tuple[Any, ...] | None], Callable[..., Any]]] = [
    ("index", lambda r, x: (_key(r, x.shape, False),), lambda x, key: x[key]),
    ("index", lambda r, x: (_key(r, x.shape, False),), lambda x, key: x[key]),
    ("advanced", lambda r, x: (_key(r, x.shape, True),), lambda x, key: x[key]),
    ("T", lambda r, x: (), lambda x: x.T),
    (
        "reshape",
        lambda r, x: (_shape(r, x.size), str(r.choice(["C", "F", "A"]))),
        lambda x, s, o: x.reshape(s, order=o),
    ),
    ("ravel", lambda r, x: (str(r.choice(["C", "F", "A", "K"])),), lambda x, o: x.ravel(o)),
    ("flatten", lambda r, x: (str(r.choice(["C", "F", "A", "K"])),), lambda x, o: x.flatten(o)),
    (
        "transpose",
        lambda r, x: (tuple(int(i) for i in r.permutation(x.ndim)),),
        lambda x, p: np.transpose(x, p),
    ),
    (
        "swapaxes",
        lambda r, x: (int(r.integers(x.ndim)), int(r.integers(x.ndim))) if x.ndim else None,
        lambda x, a, b: x.swapaxes(a, b),
    ),
    (
        "moveaxis",
        lambda r, x: (int(r.integers(x.ndim)), int(r.integers(x.ndim))) if x.ndim else None,
        np.moveaxis,
    ),
    ("squeeze", lambda r, x: (), lambda x: np.squeeze(x)),
    ("expand", lambda r, x: (int(r.integers(x.ndim + 1)),), np.expand_dims),
    ("flip", lambda r, x: (int(r.integers(x.ndim)),) if x.ndim else None, np.flip),
    ("rot90", lambda r, x: (int(r.integers(4)),) if x.ndim > 1 else None, np.rot90),
    ("diagonal", lambda r, x: (int(r.integers(-1, 2)),) if x.ndim > 1 else None, np.diagonal),
    (
        "einsum",
        lambda r, x: () if x.ndim == 2 and x.shape[0] == x.shape[1] else None,
        lambda x: np.einsum("ii->i", x),
    ),
    (
        "split",
        lambda r, x: (int(r.integers(1, 4)),) if x.ndim else None,
        lambda x, n: list(np.array_split(x, n)),
    ),
    (
        "unstack",
        lambda r, x: (int(r.integers(x.ndim)),) if x.ndim > 0 and x.size < 12 else None,
        lambda x, a: list(np.unstack(x, axis=a)),
    ),
    ("broadcast_to", lambda r, x: ((2, *x.shape),), np.broadcast_to),
    ("atleast_2d", lambda r, x: (), np.atleast_2d),
    ("asarray", lambda r, x: (str(r.choice(["K", "C", "F"])),), lambda x, o: np.asarray(x, order=o)),
    ("ascontiguousarray", lambda r, x: (), np.ascontiguousarray),
    ("view", lambda r, x: (), lambda x: x.view() if isinstance(x, np.ndarray) else x),
    ("real", lambda r, x: (), lambda x: x.real),
    ("same", lambda r, x: (), lambda x: x),
]
COPIES: list[tuple[str, Callable[[Random, Any], tuple[Any, ...] | None], Callable[..., Any]]] = [
    ("copy", lambda r, x: (str(r.choice(["K", "C", "F"])),), lambda x, o: np.copy(x, o)),
    ("copy.copy", lambda r, x: (), copy.copy),
    ("positive", lambda r, x: () if x.dtype.kind != "b" else None, lambda x: +x),
    ("astype", lambda r, x: (r.choice(DTYPES), bool(r.random() < 0.5)), lambda x, d, c: x.astype(d, copy=c)),
    (
        "sum",
        lambda r, x: (int(r.integers(x.ndim)), bool(r.random() < 0.3)) if x.ndim else None,
        lambda x, a, k: np.sum(x, axis=a, keepdims=k),
    ),
    (
        "max",
        lambda r, x: (int(r.integers(x.ndim)),) if x.size and x.ndim else None,
        lambda x, a: np.max(x, axis=a),
    ),
    (
        "cumsum",
        lambda r, x: (int(r.integers(x.ndim)),) if x.ndim else None,
        lambda x, a: np.cumsum(x, axis=a),
    ),
    ("maximum", lambda r, x: (), lambda x: np.maximum(x, x.dtype.type(1))),
    ("zeros_like", lambda r, x: (), np.zeros_like),
    ("roll", lambda r, x: (int(r.integers(-2, 3)),), np.roll),
    ("tile", lambda r, x: (2,) if x.size < 20 else None, np.tile),
    ("clip", lambda r, x: () if x.dtype.kind != "b" else None, lambda x: np.clip(x, 0, 3)),
    ("where", lambda r, x: (), lambda x: np.where(x > x.dtype.type(0), x, x.dtype.type(1))),
    ("zeros", lambda r, x: (), lambda x: np.zeros(x.shape, x.dtype)),
    (
        "arange",
        lambda r, x: (),
        lambda x: (
            np.arange(x.size, dtype=x.dtype).reshape(x.shape)
            if x.dtype.kind != "b"
            else np.ones(x.shape, bool)
        ),
    ),
]


def _combined(variables: list[Any], i: int, j: int, ufunc: np.ufunc) -> Any:
    return ufunc(variables[i], variables[j])


def _concatenated(variables: list[Any], i: int, j: int) -> Any:
    return np.concatenate([variables[i], variables[j]])


def _set(variables: list[Any], i: int, key: Any, value: Any) -> None:
    variables[i][key] = value


def _set_from(variables: list[Any], i: int, key: Any, j: int) -> None:
    variables[i][key] = variables[j]


def _augment(variables: list[Any], i: int, name: str, value: Any) -> None:
    x = variables[i]
    variables[i] = getattr(x, name)(value) if isinstance(x, np.ndarray) else x


def _augment_part(variables: list[Any], i: int, key: Any, value: Any) -> None:
    variables[i][key] += value


def _augment_with(variables: list[Any], i: int, j: int) -> None:
    x = variables[i]
    if isinstance(x, np.ndarray):
        x += variables[j]


def _fill(variables: list[Any], i: int, value: Any) -> None:
    variables[i].fill(value)


def _copyto(variables: list[Any], i: int, j: int) -> None:
    np.copyto(variables[i], variables[j], casting="unsafe")


def _out(variables: list[Any], i: int, j: int) -> None:
    np.add(variables[i], variables[j], out=variables[i], casting="unsafe")


def _flat(variables: list[Any], i: int, key: Any, value: Any) -> None:
    variables[i].flat[key] = value


def _add_at(variables: list[Any], i: int, key: Any, value: Any) -> None:
    np.add.at(variables[i], key, value)


def _fill_diagonal(variables: list[Any], i: int, value: Any) -> None:
    np.fill_diagonal(variables[i], value)


@dataclass
class Program:
    """Arguments and steps."""

    arguments: list[np.ndarray]
    steps: list[Step] = field(default_factory=list)
    error: type[BaseException] | None = None


def draw(seed: int, length: int = 12) -> Program:
    """A program, and what NumPy makes of it up to its first error."""
    rng = np.random.default_rng(seed)
    arguments = []
    for _ in range(rng.integers(1, 3)):
        shape = tuple(
            int(n) for n in rng.choice([0, 1, 2, 3, 4], rng.integers(0, 4), p=[0.04, 0.16, 0.3, 0.3, 0.2])
        )
        dtype = rng.choice(DTYPES) if rng.random() < 0.6 else np.dtype(float)
        values = rng.integers(-6, 7, shape) / (4 if dtype.kind == "f" else 1)
        arguments.append(
            np.abs(values).astype(dtype) if dtype.kind == "u" else np.asarray(values).astype(dtype)
        )
    program = Program(arguments)
    variables: list[Any] = [np.array(a) for a in arguments]
    for _ in range(length):
        step = _draw_step(rng, variables)
        if step is None:
            continue
        program.steps.append(step)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                step.run(variables)
        except Exception as error:
            program.error = type(error)
            break
    return program


def _value(rng: Random, dtype: np.dtype) -> Any:
    number = int(rng.integers(0, 4))
    return (
        number > 1
        if dtype.kind == "b"
        else number
        if dtype.kind in "iu" or rng.random() < 0.5
        else number / 4
    )


def _draw_step(rng: Random, variables: list[Any]) -> Step | None:
    i, j = (int(n) for n in rng.integers(0, len(variables), 2))
    x, y = variables[i], variables[j]
    if x.size > 200 or y.size > 200:
        return None
    kind = rng.integers(0, 10)
    if kind < 4:
        name, choose, apply = VIEWS[rng.integers(len(VIEWS))]
    elif kind == 4:
        name, choose, apply = COPIES[rng.integers(len(COPIES))]
    else:
        return _draw_write(rng, i, j, x, y)
    args = choose(rng, x)
    if args is None:
        return None
    return Step(name, lambda variables, *args: apply(variables[i], *args), args)


def _draw_write(rng: Random, i: int, j: int, x: Any, y: Any) -> Step | None:
    value = _value(rng, x.dtype)
    choice = int(rng.integers(0, 12))
    key = _key(rng, x.shape, bool(rng.random() < 0.4))
    if choice in (4, 5, 6) and x.dtype.kind != "b":
        return _draw_augmented(rng, choice, i, j, key, value)
    match choice:
        case 0 | 1 | 2:
            return Step("set", _set, (i, key, value))
        case 3:
            return Step("set from", _set_from, (i, key, j))
        case 7:
            return Step("fill", _fill, (i, value)) if isinstance(x, np.ndarray) else None
        case 8:
            return Step("copyto", _copyto, (i, j))
        case 9:
            plain = x.dtype.kind != "b"
            return Step("out", _out, (i, j)) if plain else Step("concatenate", _concatenated, (i, j))
        case 10:
            flat = _key(rng, (x.size,), False)
            return Step("flat", _flat, (i, flat, value)) if not isinstance(flat, tuple) else None
    return _draw_rare_write(rng, i, j, x, key, value)


def _draw_augmented(rng: Random, choice: int, i: int, j: int, key: Any, value: Any) -> Step:
    """An in-place operator: on a variable, on a part of it, or with another variable."""
    if choice == 4:
        return Step("augment", _augment, (i, str(rng.choice(["__iadd__", "__isub__", "__imul__"])), value))
    if choice == 5:
        return Step("augment part", _augment_part, (i, key, value))
    return Step("augment with", _augment_with, (i, j))


def _draw_rare_write(rng: Random, i: int, j: int, x: Any, key: Any, value: Any) -> Step | None:
    # NumPy's add.at writes to read-only diagonals, and takes a Python int beside uint64 through float64.
    added = x.dtype.kind != "b" and x.flags.writeable
    options = [
        Step("add at", _add_at, (i, key, x.dtype.type(value))) if added else None,
        Step("fill diagonal", _fill_diagonal, (i, value)),
        Step("combine", _combined, (i, j, rng.choice([np.add, np.maximum, np.multiply]))),
    ]
    return options[rng.integers(3)]


# -------------------------------------------------------------------------------------------------- comparing


def _seen(variables: Sequence[Any]) -> list[Any]:
    arrays = [x for x in variables if isinstance(x, np.ndarray)]
    return [
        [x.__class__.__name__ for x in variables],
        [x.dtype for x in variables],
        [
            [step for step, n in zip(x.strides, x.shape, strict=True) if n > 1] if x.size else []
            for x in arrays
        ],
        [bool(x.flags.writeable) for x in arrays],
        [[bool(np.shares_memory(x, y)) for y in arrays] for x in arrays],
        [[x is y for y in arrays] for x in arrays],
    ]


WHAT = ("classes", "dtypes", "strides", "writeable", "shared memory", "identity")


def compare(program: Program) -> str | None:
    """What differs; None where nothing does.  "refused: ..." where the traced program is a clear error."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted: list[Any] = [np.array(a) for a in program.arguments]
        steps = program.steps[:-1] if program.error else program.steps
        for step in steps:
            step.run(wanted)
        with recording(), Trace() as trace, lent([]) as trace.lend:
            inputs = [trace.input(Type(a.dtype, a.shape), f"x{i}") for i, a in enumerate(program.arguments)]
            nodes = [x._node for x in inputs]
            variables: list[Any] = [np.copy(x) for x in inputs]
            differs = _run_traced(steps, variables) or _seen_differently(variables, wanted)
            if differs:
                return differs
            outputs = [trace.node(assemble(trace, x) if any_tracer(x) else x) for x in variables]
            captured = list(trace.captured.values())
            differs = _expected_error(program, variables)
            if differs:
                return differs
        graph = Graph("f", [*nodes, *(node for _, node in captured)], outputs)
        found = interpret(graph, *program.arguments, *[array for array, _ in captured])
    for i, (got, want) in enumerate(zip(found, wanted, strict=True)):
        if not np.array_equal(got, want, equal_nan=got.dtype.kind == "f"):
            return f"values of variable {i}: traced {got.tolist()}, NumPy {np.asarray(want).tolist()}"
    return None


def _run_traced(steps: Sequence[Step], variables: list[Any]) -> str | None:
    """Run the steps on traced values; the error, where there is one."""
    try:
        for step in steps:
            step.run(variables)
    except GraphjitError as error:
        return f"refused: {str(error).split(' at ')[0][:60]}"
    except Exception as error:
        return f"{type(error).__name__} where NumPy has none: {error}"
    return None


def _seen_differently(variables: list[Any], wanted: list[Any]) -> str | None:
    """What a program sees of its arrays without their values: the first of `WHAT` that differs."""
    for what, got, want in zip(WHAT, _seen(variables), _seen(wanted), strict=True):
        if got != want:
            return f"{what}: traced {got}, NumPy {want}"
    return None


def _expected_error(program: Program, variables: list[Any]) -> str | None:
    """Whether the last step fails where it fails in NumPy, and in a way that fits."""
    if not program.error:
        return None
    try:
        program.steps[-1].run(variables)
    except (program.error, ValueError, TypeError, IndexError, GraphjitError):
        return None
    except Exception as error:
        return f"{type(error).__name__} where NumPy has {program.error.__name__}: {error}"
    return f"no error where NumPy has {program.error.__name__}"


def shortened(program: Program, same: Callable[[str | None], bool]) -> Program:
    """The program without steps that the difference does not need."""
    steps = list(program.steps)
    for position in range(len(steps) - 1, -1, -1):
        rest = Program(program.arguments, steps[:position] + steps[position + 1 :], None)
        try:
            if same(compare(rest)):
                steps = rest.steps
        except Exception:
            continue
    return Program(program.arguments, steps, None)


def main() -> None:
    """Run programs and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=10)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    shown = 0
    for seed in range(options.seed, options.seed + options.count):
        program = draw(seed)
        found = compare(program)
        kind = "same" if found is None else "refused" if found.startswith("refused") else "different"
        counts[kind if kind != "refused" else f"refused: {found[9:60]}"] += 1  # type: ignore[index]
        if kind == "different" and shown < options.show:
            shown += 1
            short = (
                program
                if program.error
                else shortened(program, lambda text: text is not None and not text.startswith("refused"))
            )
            print(
                f"seed {seed}: {(found or '')[:300]}\n  "
                + "; ".join(f"{a.dtype}{list(a.shape)}" for a in program.arguments)
            )
            for step in short.steps:
                inside = [
                    cell.cell_contents
                    for cell in step.apply.__closure__ or ()
                    if isinstance(cell.cell_contents, int)
                ]
                print(f"    {step.name} {inside} {step.args}")
    for kind, count in counts.most_common():
        print(f"{count:7d} {kind}")
    sys.exit(1 if counts["different"] else 0)


if __name__ == "__main__":
    main()
