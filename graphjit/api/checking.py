"""`check_grads`: derivatives of a function against differences of its values.

Job: along random directions compare forward mode with central differences, and reverse mode with both by the
adjoint identity ``<ct, J v> = <J^T ct, v>``; then do the same with the derivatives themselves, order by
order.
Input: a function, arguments. Output: nothing, or an AssertionError with mode, order, leaf and numbers.
Invariant: at the first order the function itself is called, in plain NumPy; so values and derivatives come
from different roads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.api.derivatives import jvp, vjp
from graphjit.api.options import require_callable
from graphjit.errors import DerivativeError
from graphjit.trace.marks import attribute, name_of
from graphjit.trace.parameters import leaf_names
from graphjit.trace.pytree import flatten, texts, unflatten
from graphjit.trace.recording.active import active_trace
from graphjit.trace.recording.tracer import Tracer

MODES = ("fwd", "rev")
TOLERANCE = {4: 2e-3, 8: 1e-6}
"""Relative and absolute error that central differences explain, by bytes of a number."""
ADJOINT = {4: 1e-4, 8: 1e-9}
"""Relative error of the adjoint identity, in which there are no differences."""
ROUNDING = 16
"""Units in the last place by which a value may be off."""

Values = list[np.ndarray]


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int,
    modes: str | Sequence[str] = MODES,
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Check the derivatives of a function against central differences, up to some order.

    Use it for functions with rules of their own (`custom_jvp`, `custom_vjp`), and to find out whether a
    function is smooth where it is used. The directions are random, the same ones at each call.

    Parameters
    ----------
    f : callable
        The function, written with NumPy.
    args : sequence
        Its arguments, in any containers. Floating-point arrays and numbers among them vary; everything else,
        such as integers and strings, stays as it is.
    order : int
        1 checks first derivatives, 2 also those of the derivatives, and so on.
    modes : {"fwd", "rev"} or sequence of them, optional
        Forward mode, reverse mode; above the first order every sequence of them.
    atol, rtol : float, optional
        Absolute and relative error that is allowed besides the rounding of differences: 1e-6 for float64,
        2e-3 where float32 takes part.
    eps : float, optional
        Length of the steps, in units of the largest element of each array: 6e-6 for float64, 5e-3 for
        float32. Take a smaller one near a kink.

    Returns
    -------
    None
        There is no fault.

    Raises
    ------
    AssertionError
        A derivative is off. The message says in which mode, at which order, of which part of the result, in
        which argument, and how far.
    DerivativeError
        No argument is floating point, or an operation has no derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.check_grads(lambda x: np.sum(np.sin(x) ** 2), (np.array([0.3, 0.7]),), order=2)
    >>> @graphjit.custom_jvp
    ... def cube(x):
    ...     return x**3
    >>> cube.defjvps(lambda dx, out, x: 2.0 * x**2 * dx)
    >>> try:
    ...     graphjit.check_grads(cube, (1.0,), order=1)
    ... except AssertionError as error:
    ...     print(str(error).split(":")[0])
    check_grads of cube, mode fwd, order 1
    """
    require_callable(f, "check_grads")
    chosen = _modes(modes)
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 1:
        raise ValueError(f"check_grads: order is an integer of at least 1, not {order!r}")
    if eps is not None and not eps > 0:
        raise ValueError(f"check_grads: eps is the length of a step, not {eps!r}")
    subject, point = _subject(f, tuple(args))
    bytes_ = min(4 if x.dtype.itemsize < 8 else 8 for x in (*point, *subject.values(point)))
    unit = float(np.finfo(f"f{bytes_}").eps)
    limits = Limits(
        absolute=TOLERANCE[bytes_] if atol is None else atol,
        relative=TOLERANCE[bytes_] if rtol is None else rtol,
        unit=unit,
        step=unit ** (1 / 3) if eps is None else float(eps),
        adjoint=max(ADJOINT[bytes_], rtol or 0.0),
    )
    _check(subject, point, int(order), chosen, limits, np.random.default_rng(0))


def _modes(modes: str | Sequence[str]) -> tuple[str, ...]:
    chosen = (modes,) if isinstance(modes, str) else tuple(modes)
    if not chosen or not set(chosen) <= set(MODES):
        raise ValueError(f'check_grads: modes are "fwd" and "rev", not {modes!r}')
    return chosen


@dataclass(frozen=True)
class Limits:
    """How far a derivative may be off."""

    absolute: float
    relative: float
    unit: float
    """A unit in the last place of 1."""
    step: float
    """Length of the steps of differences, in units of the direction."""
    adjoint: float
    """Relative error of what is compared without differences."""


@dataclass
class Subject:
    """A function from floating-point leaves to floating-point leaves, and what people call them."""

    name: str
    function: Callable[..., tuple[Any, ...]]
    arguments: list[str]
    results: list[str]
    numbers: list[bool]
    """Which arguments are Python numbers."""
    modes: tuple[str, ...] = ()
    """The derivatives that it is made of, the innermost first."""

    def given(self, point: Values) -> list[Any]:
        """Arguments of a call, which may be overwritten."""
        return [
            float(x) if number else x.copy() if x.shape else x[()]
            for x, number in zip(point, self.numbers, strict=True)
        ]

    def values(self, point: Values) -> Values:
        """The results."""
        with np.errstate(all="ignore"):
            return [np.asarray(value) for value in self.function(*self.given(point))]


def _subject(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Subject, Values]:
    """``f`` as a function of its floating-point leaves, and those of ``args``."""
    leaves, spec = flatten(args)
    varying = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    if not varying:
        raise DerivativeError(f"check_grads: no argument of {name_of(f)} is floating point")
    names = leaf_names(f, flatten((args, {}))[1])

    def given(values: Sequence[Any]) -> Any:
        replaced = dict(zip(varying, values, strict=True))
        return unflatten(spec, [replaced.get(i, leaf) for i, leaf in enumerate(leaves)])

    def function(*values: Any) -> tuple[Any, ...]:
        trace = active_trace()
        inner = f if trace is None else trace.user(f)
        return tuple(filter(_is_float, flatten(inner(*given(values)))[0]))

    function.__module__ = attribute(f, "__module__", __name__)  # what `f` reads from outside is watched
    function.__qualname__ = function.__name__ = name_of(f)
    point = [np.asarray(leaves[i]) for i in varying]
    numbers = [type(leaves[i]) is float for i in varying]
    subject = Subject(name_of(f), function, [names[i] for i in varying], [], numbers)
    with np.errstate(all="ignore"):
        made, made_spec = flatten(f(*given(subject.given(point))))
    subject.results = [
        name for name, leaf in zip(texts(made_spec, "the result"), made, strict=True) if _is_float(leaf)
    ]
    if not subject.results:
        raise DerivativeError(f"check_grads: {name_of(f)} returns nothing that is floating point")
    return subject, point


def _is_float(leaf: Any) -> bool:
    """Whether a leaf is a floating-point array or number."""
    if isinstance(leaf, Tracer | np.ndarray | np.generic):
        return bool(leaf.dtype.kind == "f")
    return isinstance(leaf, float)


# ----------------------------------------------------------------------------------------------- one order


def _check(
    subject: Subject,
    point: Values,
    order: int,
    modes: tuple[str, ...],
    limits: Limits,
    rng: np.random.Generator,
) -> None:
    """All modes of one order, then the orders above."""
    tangents = [_direction(rng, x) for x in point]
    outs = subject.values(point)
    cts = [rng.normal(size=out.shape).astype(out.dtype) for out in outs]
    measured = _differences(subject, point, tangents, limits)
    direction = measured.direction
    pushed = pulled = None
    if "fwd" in modes:
        value, pushed = jvp(subject.function, tuple(subject.given(point)), tuple(direction))
        _compare_values(subject, "fwd", value, outs, limits)
        _compare_tangents(subject, point, pushed, measured, limits)
    if "rev" in modes:
        value, pullback = vjp(subject.function, *subject.given(point))
        _compare_values(subject, "rev", value, outs, limits)
        pulled = pullback(tuple(cts))
        _compare_cotangents(subject, point, pulled, cts, measured, limits)
    if pushed is not None and pulled is not None:
        _compare_modes(subject, pushed, pulled, cts, direction, limits)
    if order > 1:
        for mode in modes:
            derived = _pushed(subject, direction) if mode == "fwd" else _pulled(subject, cts)
            _check(derived, point, order - 1, modes, limits, rng)


def _direction(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """A random direction whose length is that of the array's largest element."""
    size = float(np.max(np.abs(x), initial=0.0))
    return rng.normal(size=x.shape) * (size if 0.0 < size < np.inf else 1.0)


def _pushed(subject: Subject, tangents: list[Any]) -> Subject:
    """The derivative along a direction, as a function of the point."""

    def along(*values: Any) -> tuple[Any, ...]:
        return tuple(jvp(subject.function, values, tuple(tangents))[1])

    results = [f"the derivative of {name}" for name in subject.results]
    return _derived(subject, along, results, "fwd")


def _pulled(subject: Subject, cts: Values) -> Subject:
    """The gradient of a weighted sum of the results, as a function of the point."""

    def gradient(*values: Any) -> tuple[Any, ...]:
        return tuple(vjp(subject.function, *values)[1](tuple(cts)))

    results = [f"the cotangent of {name}" for name in subject.arguments]
    return _derived(subject, gradient, results, "rev")


def _derived(subject: Subject, function: Callable[..., Any], results: list[str], mode: str) -> Subject:
    function.__module__ = subject.function.__module__
    function.__qualname__ = function.__name__ = subject.name
    modes = (*subject.modes, mode)
    return Subject(subject.name, function, subject.arguments, results, subject.numbers, modes)


# ----------------------------------------------------------------------------------------------- differences


@dataclass
class Differences:
    """Central differences along a direction, taken with two steps: together they are exact to the fourth
    order, and how far they are apart says how far the rest may be off.
    """

    derivative: Values
    """Of each result."""
    noise: Values
    """How far rounding and what is left of the steps may put it off."""
    direction: list[Any]
    """What was really taken: arguments are rounded too."""


def _differences(subject: Subject, point: Values, tangents: Values, limits: Limits) -> Differences:
    """Those along ``tangents``."""
    step = limits.step
    ahead, behind = _moved(point, tangents, step), _moved(point, tangents, -step)
    used = [
        ((a.astype(np.float64) - b) / (2 * step)).astype(a.dtype) for a, b in zip(ahead, behind, strict=True)
    ]
    further = _moved(point, used, 2 * step), _moved(point, used, -2 * step)
    derivative, noise = [], []
    with np.errstate(all="ignore"):
        four = [subject.values(there) for there in (ahead, behind, *further)]
        for values in zip(*four, strict=True):
            a, b, c, d = (value.astype(np.float64) for value in values)
            near, far = (a - b) / (2 * step), (c - d) / (4 * step)
            derivative.append((4.0 * near - far) / 3.0)
            rounding = ROUNDING * limits.unit / step * np.maximum(np.abs(a), np.abs(b))
            noise.append(rounding + np.abs(near - far) / 10.0)
    direction = [float(t) if n else t for t, n in zip(used, subject.numbers, strict=True)]
    return Differences(derivative, noise, direction)


def _moved(point: Values, tangents: Values, step: float) -> Values:
    """The point a step further."""
    return [(x + step * t).astype(x.dtype) for x, t in zip(point, tangents, strict=True)]


def _along_one(
    subject: Subject, point: Values, whole: Differences, number: int, limits: Limits
) -> Differences:
    """The differences along one argument alone."""
    tangents = [np.asarray(t) if i == number else np.zeros_like(t) for i, t in enumerate(whole.direction)]
    return _differences(subject, point, tangents, limits)


# ------------------------------------------------------------------------------------------------ comparisons


Worst = tuple[str, float, float, float]
"""Where two arrays differ most, both values, and how far they may be apart there."""


def _head(subject: Subject, mode: str) -> str:
    """How messages begin: ``check_grads of loss, mode rev of fwd, order 2``."""
    modes = " of ".join((mode, *reversed(subject.modes)))
    return f"check_grads of {subject.name}, mode {modes}, order {len(subject.modes) + 1}"


def _compare_values(subject: Subject, mode: str, value: Any, outs: Values, limits: Limits) -> None:
    """The value that comes with a derivative is that of the function."""
    for name, found, out in zip(subject.results, value, outs, strict=True):
        worst = _worst(np.asarray(found), out, limits.adjoint * (1.0 + np.abs(out)))
        if worst is not None:
            place, a, b, _ = worst
            raise AssertionError(
                f"{_head(subject, mode)}: {name}{place} is {a!r} where the derivative is taken, and {b!r} where the function is called"
            )


def _compare_tangents(
    subject: Subject, point: Values, pushed: Any, measured: Differences, limits: Limits
) -> None:
    """Forward mode against differences."""
    for k, name in enumerate(subject.results):
        worst = _worst_tangent(pushed, measured, k, limits)
        if worst is None:
            continue
        place, a, b, allowed = worst
        where = ""
        for i, argument in enumerate(subject.arguments):
            alone = _along_one(subject, point, measured, i, limits)
            _, tangents = jvp(subject.function, tuple(subject.given(point)), tuple(alone.direction))
            if _worst_tangent(tangents, alone, k, limits) is not None:
                where = f" in argument {argument}"
                break
        raise AssertionError(
            f"{_head(subject, 'fwd')}: the derivative of {name}{place}{where} along a random direction is {a!r}, and {b!r} by central "
            f"differences: {_off(a, b, allowed)}"
        )


def _worst_tangent(pushed: Any, measured: Differences, k: int, limits: Limits) -> Worst | None:
    """Where a tangent is off."""
    expected = measured.derivative[k]
    allowed = limits.absolute + limits.relative * np.abs(expected) + measured.noise[k]
    return _worst(np.asarray(pushed[k]), expected, np.asarray(allowed))


def _compare_cotangents(
    subject: Subject, point: Values, pulled: Any, cts: Values, measured: Differences, limits: Limits
) -> None:
    """Reverse mode against differences: both are the derivative of the same number along the same
    direction.
    """
    found = _products(pulled, cts, measured, limits)
    if _close(*found):
        return
    where = ""
    for i, argument in enumerate(subject.arguments):
        alone = _along_one(subject, point, measured, i, limits)
        own = _products(pulled, cts, alone, limits)
        if not _close(*own):
            where, found = f" of argument {argument}", own
            break
    a, b, allowed = found
    raise AssertionError(
        f"{_head(subject, 'rev')}: the cotangent{where} times a random direction is {a!r}, and {b!r} by central differences: "
        f"{_off(a, b, allowed)}; cotangents are those of {', '.join(subject.results)}"
    )


def _products(pulled: Any, cts: Values, measured: Differences, limits: Limits) -> tuple[float, float, float]:
    """``<J^T ct, v>``, ``<ct, J v>`` by differences, and how far they may be apart."""
    scale = _inner(cts, measured.derivative, np.abs)
    allowed = limits.absolute + limits.relative * scale + _inner(cts, measured.noise, np.abs)
    return _inner(pulled, measured.direction), _inner(cts, measured.derivative), allowed


def _compare_modes(
    subject: Subject, pushed: Any, pulled: Any, cts: Values, direction: list[Any], limits: Limits
) -> None:
    """Forward against reverse mode, without differences."""
    a, b = _inner(cts, pushed), _inner(pulled, direction)
    allowed = limits.adjoint * (_inner(cts, pushed, np.abs) + _inner(pulled, direction, np.abs)) + limits.unit
    if not _close(a, b, allowed):
        raise AssertionError(
            f"{_head(subject, 'fwd against rev')}: <ct, J v> is {a!r} and <J^T ct, v> is {b!r}: {_off(a, b, allowed)}"
        )


def _inner(
    xs: Sequence[Any], ys: Sequence[Any], part: Callable[[Any], Any] = lambda product: product
) -> float:
    """The inner product of two lists of arrays."""
    pairs = zip(xs, ys, strict=True)
    return float(sum(np.sum(part(np.asarray(x, np.float64) * np.asarray(y, np.float64))) for x, y in pairs))


def _close(a: float, b: float, allowed: float) -> bool:
    return bool(abs(a - b) <= allowed)  # a NaN is never close


def _off(a: float, b: float, allowed: float) -> str:
    if not (np.isfinite(a) and np.isfinite(b)):
        return "not finite; choose another point, or a smaller eps"
    return f"off by {abs(a - b):.3g}, more than {allowed:.3g}"


def _worst(found: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> Worst | None:
    """Where two arrays differ beyond what is allowed; None where they do not."""
    with np.errstate(all="ignore"):
        error = np.abs(found.astype(np.float64) - expected)
        excess = np.where(np.isnan(error), np.inf, error / allowed)
        excess = np.where((error <= allowed) | (found == expected), 0.0, excess)
    if not np.any(excess):
        return None
    index = np.unravel_index(int(np.argmax(excess)), excess.shape)
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return place, float(found[index]), float(expected[index]), float(allowed[index])
