"""Random NumPy programs, as source text, and the check that all derivatives of each agree.

Job: cover the front end and the derivative rules in combinations that nobody writes down by hand:
broadcasting, reductions, indexing, assignment, `where`, products, norms and special functions.
Input: a seed. Output: source of ``program(x, y)`` with a scalar result, arguments for it, and the verdict on
its derivatives.
Invariants: deterministic in the seed; every value stays of moderate size, every argument inside the domain
where a function is smooth; programs run in plain NumPy, which says whether an attempted line is legal.

``python tests/harness/random_programs.py 20000 --seed 0`` checks that many programs and prints those that
disagree.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special as sp

import graphjit

UNARY = (
    "np.sin({a})",
    "np.cos({a})",
    "np.tanh({a})",
    "np.arctan({a})",
    "np.arcsinh({a})",
    "np.exp(-{a} ** 2)",
    "np.exp(np.sin({a}))",
    "np.expm1(np.tanh({a}))",
    "np.sqrt({a} ** 2 + 0.5)",
    "np.log({a} ** 2 + 0.5)",
    "np.log1p({a} ** 2)",
    "np.cbrt({a} ** 2 + 1.0)",
    "({a} ** 2 + 0.3) ** 1.7",
    "1.0 / (1.0 + {a} ** 2)",
    "sp.expit({a})",
    "sp.log_expit({a})",
    "sp.erf({a})",
    "sp.erfc({a})",
    "sp.ndtr({a})",
    "sp.log_ndtr({a})",
    "sp.gammaln({a} ** 2 + 0.5)",
    "np.logaddexp({a}, 0.3)",
    "np.logaddexp2({a}, 0.3)",
    "-{a}",
    "2.0 * {a} - 1.0",
    "{a} ** 3",
    "np.abs({a})",
    "np.where({a} > 0.1, {a}, np.sin({a}))",
    "np.where({a} > 0.0, np.sqrt(np.maximum({a}, 0.0)), 0.0)",
    "np.maximum({a}, 0.2)",
    "np.minimum({a}, 0.4)",
    "np.clip({a}, -0.7, 0.9)",
)
BINARY = (
    "{a} + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "{a} / ({b} ** 2 + 0.7)",
    "np.maximum({a}, {b})",
    "np.minimum({a}, {b})",
    "np.hypot({a}, {b})",
    "np.arctan2({a}, {b} ** 2 + 0.4)",
    "np.logaddexp({a}, {b})",
    "np.where({a} > {b}, {a} * {b}, {b})",
    "({a} ** 2 + 0.5) ** {b}",
    "{a} @ {b}",
    "{a} @ {b}.T",
    "np.outer({a}, {b})",
    "np.dot({a}, {b})",
)
ALONG = (
    "np.sum({a}, axis={axis})",
    "np.mean({a}, axis={axis})",
    "np.var({a}, axis={axis})",
    "np.std({a}, axis={axis})",
    "np.max({a}, axis={axis})",
    "np.min({a}, axis={axis})",
    "np.prod(np.tanh({a}), axis={axis})",
    "np.linalg.norm({a}, axis={axis})",
    "np.linalg.norm({a}, 3, axis={axis})",
    "np.cumsum({a}, axis={axis})",
    "np.cumprod(np.cos({a}), axis={axis})",
    "sp.logsumexp({a}, axis={axis})",
    "sp.softmax({a}, axis={axis})",
    "sp.log_softmax({a}, axis={axis})",
    "np.flip({a}, axis={axis})",
    "np.roll({a}, 1, axis={axis})",
    "np.concatenate([{a}, np.sin({a})], axis={axis})",
    "np.stack([{a}, {a} ** 2], axis={axis})",
    "({a} - {a}.mean(axis={axis}, keepdims=True)) / ({a}.std(axis={axis}, keepdims=True) + 0.1)",
    "np.diff({a}, axis={axis})",
)
SHAPES = (
    "{a}.T",
    "{a}.reshape(-1)",
    "{a}[0]",
    "{a}[..., -1]",
    "{a}[::2]",
    "{a}[..., ::-1]",
    "{a}[None]",
    "{a}[[0, -1, 0]]",
    "{a}[..., 1:]",
    "np.triu({a})",
    "np.tril({a}, -1)",
    "np.sqrt(np.triu({a} ** 2 + 0.1, 1))",
    "np.diagonal({a})",
    "np.pad({a}, 1)",
    "np.sqrt(np.pad({a} ** 2 + 0.2, 1))",
)
STATEMENTS = (
    "{t} = {a}.copy(); {t}[0] = {b}",
    "{t} = {a} * 1.0; {t}[..., 0] *= 0.5",
    "{t} = {a} + 0.0; {t}[::2] += 0.3 * {a}[::2]",
    "{t} = np.zeros({a}.shape); {t}[0] = {a}[0] ** 2 + 0.1; {t} = np.sqrt({t})",
)
SIZES = ((), (3,), (4,), (3, 4), (4, 3), (3, 3), (1, 4), (2, 3, 4))
LARGEST = 30.0
STEP = 1e-5


def random_program(seed: int, length: int = 8) -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    """Source of ``program(x, y)`` with up to ``length`` lines, and its arguments."""
    rng = np.random.default_rng([seed, 9])
    x, y = (np.asarray(rng.uniform(-1.5, 1.5, SIZES[rng.integers(len(SIZES))])) for _ in range(2))
    values: dict[str, np.ndarray] = {"x": x, "y": y}
    lines: list[str] = []
    for _ in range(20 * length):
        names = list(values)
        target = f"t{len(lines)}"
        line = _line(rng, target, names)
        if "axis=" in line and any(
            not values[name].ndim for name in names if f"({name}" in line or f"[{name}" in line
        ):
            continue  # an axis of a number: NumPy takes 0 and -1, graphjit refuses them with NumPy's own error
        scope = {"np": np, "sp": sp, **values}
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("error")
                exec(line, scope)
        except Exception:  # shapes that do not fit: NumPy has said no, another line is drawn
            continue
        made = np.asarray(scope[target])
        if made.size and made.size <= 200 and made.dtype == np.float64 and np.all(np.abs(made) < LARGEST):
            lines.append(line)
            values[target] = made
        if len(lines) == length:
            break
    last = list(values)[-3:]
    total = " + ".join(f"np.sum(np.cos({name}) * {name})" for name in last)
    body = "".join(f"    {line}\n" for line in lines)
    return f"def program(x, y):\n{body}    return {total}\n", (x, y)


def _line(rng: np.random.Generator, target: str, names: list[str]) -> str:
    """One line over recent names."""
    a, b = (names[max(0, len(names) - 1 - int(rng.geometric(0.4) - 1))] for _ in range(2))
    forms = (UNARY, BINARY, ALONG, SHAPES, STATEMENTS)[int(rng.choice(5, p=(0.33, 0.25, 0.22, 0.12, 0.08)))]
    form = forms[int(rng.integers(len(forms)))]
    text = form.format(a=a, b=b, t=target, axis=int(rng.choice([0, -1])))
    return text if forms is STATEMENTS else f"{target} = {text}"


def function_of(source: str) -> Callable[..., np.ndarray]:
    """The program as a function."""
    scope = {"np": np, "sp": sp}
    exec(source, scope)
    return scope["program"]  # type: ignore[return-value]


@dataclass(frozen=True)
class Verdict:
    """What the check of one program found."""

    why: str = ""  # how the derivatives disagree; empty if they do not
    unjudged: str = ""  # why no finite difference could say whether the derivative is right


def verdict(source: str, args: tuple[np.ndarray, np.ndarray], seed: int) -> Verdict:
    """Compare value with NumPy's, grad with vjp, with jvp along all elements and along one, and with finite
    differences.
    """
    program = function_of(source)
    rng = np.random.default_rng([seed, 10])
    along = tuple(np.asarray(rng.normal(size=arg.shape)) for arg in args)
    value, gradient = graphjit.value_and_grad(program, argnums=(0, 1))(*args)
    plain = program(*args)
    if not np.allclose(value, plain, rtol=1e-9, atol=1e-11):
        return Verdict(f"value {value} is not NumPy's {plain}")
    _, pull = graphjit.vjp(program, *args)
    back = pull(np.float64(1.0))
    if not all(np.allclose(g, v, rtol=1e-10, atol=1e-12) for g, v in zip(gradient, back, strict=True)):
        return Verdict(f"grad {gradient} is not vjp {back}")
    for direction in (
        along,
        _one_element(args, rng),
    ):  # zeros in a tangent must stay zeros, whatever slopes they meet
        _, tangent = graphjit.jvp(program, args, direction)
        directional = sum(float(np.sum(g * d)) for g, d in zip(gradient, direction, strict=True))
        size = 1e-9 * (1.0 + sum(float(np.sum(np.abs(g * d))) for g, d in zip(gradient, along, strict=True)))
        if not abs(directional - float(tangent)) <= size:
            return Verdict(f"grad {directional} is not jvp {tangent} along {direction}")
    # at a kink (ties, |x| at 0) no difference converges: it is judged only where two steps agree
    directional = sum(float(np.sum(g * d)) for g, d in zip(gradient, along, strict=True))
    coarse, fine = (_difference(program, args, along, step) for step in (4 * STEP, STEP))
    if not abs(coarse - fine) <= 1e-5 * (1 + abs(fine)):
        return Verdict(unjudged="differences do not converge")
    if abs(fine - directional) <= 1e-4 * (1 + abs(fine)):
        return Verdict()
    return (
        Verdict(unjudged="a kink")
        if _kinked(program, args, along)
        else Verdict(f"grad {directional} is not the difference {fine}")
    )


def _one_element(args: tuple[np.ndarray, ...], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A tangent that is 1 at one element and 0 at all others."""
    tangents = tuple(np.zeros(arg.shape) for arg in args)
    chosen = tangents[rng.integers(len(args))]
    chosen[np.unravel_index(rng.integers(chosen.size), chosen.shape)] = 1.0
    return tangents


def _difference(
    program: Callable[..., np.ndarray],
    args: tuple[np.ndarray, ...],
    along: tuple[np.ndarray, ...],
    step: float,
) -> float:
    up, down = (float(program(*(a + s * d for a, d in zip(args, along, strict=True)))) for s in (step, -step))
    return (up - down) / (2 * step)


def _kinked(
    program: Callable[..., np.ndarray], args: tuple[np.ndarray, ...], along: tuple[np.ndarray, ...]
) -> bool:
    """Whether the one-sided differences are those of a kink: they stay apart as the step shrinks."""
    here = float(program(*args))
    apart = []
    for step in (4 * STEP, STEP):
        up, down = (
            float(program(*(a + s * d for a, d in zip(args, along, strict=True)))) for s in (step, -step)
        )
        apart.append(abs(up - 2 * here + down) / step)
    return apart[1] > 1e-3 and apart[1] > 0.5 * apart[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = refused = 0
    unjudged: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.count):
        source, args = random_program(seed)
        try:
            found = verdict(source, args, seed)
        except Exception as error:  # whatever stops one program is printed, and the others go on
            refused += 1
            print(f"seed {seed}: {type(error).__name__}: {error}\n{source}", flush=True)
            continue
        if found.unjudged:
            unjudged[found.unjudged] += 1
        if found.why:
            wrong += 1
            print(f"seed {seed}: {found.why}\n{source}", flush=True)
    reasons = ", ".join(f"{reason}: {number}" for reason, number in unjudged.items())
    print(
        f"{options.count} programs, {wrong} wrong, {refused} refused, {unjudged.total()} without a difference to judge by ({reasons or 'none'})"
    )
    return 1 if wrong or refused else 0


if __name__ == "__main__":
    sys.exit(main())
