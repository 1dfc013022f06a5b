"""The op matrix: every op x dtype x shape group x {forward, jvp, vjp, batch} x order 1 and 2."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from op_matrix import (
    NO_SAMPLES,
    batch_graph,
    check_derivative,
    choices,
    jacobians,
    jvp_graph,
    op_graph,
    rng_for,
    samples_for,
    special_samples_for,
    stack_of_calls,
    stacked,
    vjp_graph,
)

from graphjit.errors import IRError, ShapeError
from graphjit.interpret import interpret
from graphjit.ir.builder import Builder
from graphjit.ir.opdef import REGISTRY, Decompose, NonDifferentiable, Partials, Scalar, Special, op
from graphjit.ir.types import DTYPES, F64, I64, Type
from graphjit.ops.infer import elementwise
from graphjit.ops.samples import uniform
from graphjit.passes.decompose import decompose

OPS = sorted(REGISTRY)
CHECKS: Counter[str] = Counter()
SKIPS: dict[tuple[str, str], str] = {}


def skipped(name: str, check: str, reason: str) -> None:
    """Count a check that an op does not have."""
    assert reason
    SKIPS[(name, check)] = reason


@pytest.mark.parametrize("name", OPS)
def test_forward(name: str) -> None:
    """The reference gives what the rule infers, for ordinary and special values."""
    declared = REGISTRY[name]
    if name in NO_SAMPLES:
        skipped(name, "forward", NO_SAMPLES[name])
        return
    for samples in (samples_for(declared), special_samples_for(declared)):
        for _, arrays, attrs in samples:
            graph = op_graph(declared, arrays, attrs)
            (got,) = interpret(graph, *arrays)
            with np.errstate(all="ignore"):
                want = declared.impl(*arrays, **attrs)
            np.testing.assert_array_equal(got, want)
            CHECKS[name] += 1
    assert CHECKS[name]


def close(got: np.ndarray, want: np.ndarray, name: str) -> None:
    """Equal for integers and bool; a few units in the last place for floats, NaN and infinities in place."""
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    eps = np.finfo(got.dtype).eps
    scale = 64 if name in LOOSE else 8
    atol = scale * np.finfo(got.dtype).tiny
    if name in MATRICES and want.size:
        scale, atol = 64, 64 * eps * np.max(np.abs(want))
    np.testing.assert_allclose(got, want, rtol=scale * eps, atol=atol, err_msg=name)


LOOSE = {
    "ndtr": "rounding of x/sqrt(2) is amplified by x*x in the tail, in SciPy as in ours",
    "log_ndtr": "the same",
    "polygamma": "sum of powers; reflection cancels near its zeros",
    "logit": "SciPy evaluates float32 in another order",
}
MATRICES = {"solve", "triangular_solve", "inverse", "det", "cofactors", "logabsdet", "cholesky"}
"""Ops whose errors grow with the condition of a matrix, and whose elements share them."""


@pytest.mark.parametrize("name", [n for n in OPS if isinstance(REGISTRY[n].lower, Decompose)])
def test_expansion(name: str) -> None:
    """A composite op's expansion gives the values of its reference."""
    declared = REGISTRY[name]
    for samples in (samples_for(declared), special_samples_for(declared)):
        for _, arrays, attrs in samples:
            graph = op_graph(declared, arrays, attrs)
            expanded = decompose(graph)
            assert all(not isinstance(node.op.lower, Decompose) for node in expanded.nodes())
            for got, want in zip(interpret(expanded, *arrays), interpret(graph, *arrays), strict=True):
                close(got, want, name)
                CHECKS[name] += 1


EXACT = (
    "float_remainder",
    "float_floor_divide",
    "sign",
    "heaviside",
    "square",
    "reciprocal",
    "isinf",
    "isfinite",
)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_expansion_is_exact(name: str, dtype: str) -> None:
    """Bitwise NumPy's value, on numbers of very different sizes and on ties."""
    declared = REGISTRY[name]
    rng = rng_for(declared)
    arity = declared.arity or 1
    arrays = [
        (rng.standard_normal(4000) * 10.0 ** rng.integers(-12, 12, 4000)).astype(DTYPES[dtype]),
        (rng.standard_normal(4000) * 10.0 ** rng.integers(-6, 6, 4000)).astype(DTYPES[dtype]),
    ][:arity]
    arrays[0][:500] = rng.integers(-20, 20, 500)
    if arity == 2:
        arrays[1][:500] = rng.integers(-5, 5, 500)
        arrays[1][500:900] = 0.1
        arrays[0][500:900] = np.round(arrays[0][500:900], 1)
    graph = op_graph(declared, arrays, {})
    (got,), (want,) = interpret(decompose(graph), *arrays), interpret(graph, *arrays)
    nan = np.isnan(want) if want.dtype.kind == "f" else np.zeros(want.shape, bool)
    np.testing.assert_array_equal(nan, np.isnan(got) if got.dtype.kind == "f" else nan)
    assert got[~nan].tobytes() == want[~nan].tobytes()


def differentiable(name: str, check: str) -> bool:
    """Whether the op takes part in derivative checks; a skip is recorded."""
    rule = REGISTRY[name].derivative
    if name == "stop_gradient":
        skipped(name, check, "its derivative is zero on purpose")
        return False
    if name in NO_SAMPLES:
        skipped(name, check, NO_SAMPLES[name])
    elif isinstance(rule, NonDifferentiable):
        skipped(name, check, rule.reason)
    elif not {"f64", "f32"} & set(REGISTRY[name].samples.dtypes):
        skipped(name, check, "takes integers or bool only")
    else:
        return True
    return False


@pytest.mark.parametrize("name", OPS)
def test_first_order(name: str) -> None:
    """jvp and vjp against a complex step or differences, and against each other."""
    if not differentiable(name, "order 1"):
        return
    declared = REGISTRY[name]
    rng = rng_for(declared)
    for dtype, arrays, attrs in samples_for(declared):
        if dtype in ("f64", "f32"):
            CHECKS[name] += check_derivative(op_graph(declared, arrays, attrs), arrays, rng)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", OPS)
def test_second_order(name: str) -> None:
    """The same checks on the derived graphs: forward and reverse over forward and over reverse."""
    if not differentiable(name, "order 2"):
        return
    declared = REGISTRY[name]
    rng = rng_for(declared)
    for dtype, arrays, attrs in samples_for(declared):
        if dtype not in ("f64", "f32") or max((a.size for a in arrays), default=0) > 40:
            continue
        graph = op_graph(declared, arrays, attrs)
        for derived in (jvp_graph(graph), vjp_graph(graph)):
            extra = [
                np.asarray(rng.uniform(-1, 1, node.shape)).astype(node.dtype)
                for node in derived.inputs[len(arrays) :]
            ]
            CHECKS[name] += check_derivative(derived, [*arrays, *extra], rng)


def varying(name: str, check: str) -> bool:
    """Whether the op takes part in checks of batches; a skip is recorded."""
    if name in NO_SAMPLES:
        skipped(name, check, NO_SAMPLES[name])
    elif REGISTRY[name].arity == 0:
        skipped(name, check, "has no arguments, so it cannot vary")
    else:
        return True
    return False


def near(got: np.ndarray, want: np.ndarray, name: str) -> None:
    """Equal but for the order in which terms are added."""
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    scale = float(np.max(np.abs(want), initial=1.0, where=np.isfinite(want)))
    eps = 64 * float(np.finfo(got.dtype).eps)
    np.testing.assert_allclose(got, want, rtol=eps, atol=eps * scale, err_msg=name)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", OPS)
def test_batches(name: str) -> None:
    """A batch is the stack of the calls, whichever of the arguments vary."""
    if not varying(name, "batch"):
        return
    for _, arrays, attrs in samples_for(REGISTRY[name]):
        graph = op_graph(REGISTRY[name], arrays, attrs)
        for flags in choices(len(arrays)):
            for size in (3, 1):
                given = [stacked(x, size, name) if flag else x for x, flag in zip(arrays, flags, strict=True)]
                (got,) = interpret(batch_graph(graph, flags, size), *given)
                (want,) = stack_of_calls(graph, given, flags, size)
                near(got, want, name)
                CHECKS[name] += 1
            empty = [stacked(x, 0, name) if flag else x for x, flag in zip(arrays, flags, strict=True)]
            (got,) = interpret(batch_graph(graph, flags, 0), *empty)
            assert got.shape == (0, *graph.outputs[0].shape)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", OPS)
def test_batches_of_batches(name: str) -> None:
    """Nested twice, for every two choices of arguments."""
    if not varying(name, "batch of batches"):
        return
    for dtype, arrays, attrs in samples_for(REGISTRY[name]):
        if dtype not in ("f64", "i64", "bool") or max((a.size for a in arrays), default=0) > 40:
            continue
        graph = op_graph(REGISTRY[name], arrays, attrs)
        for inner in choices(len(arrays)):
            once = batch_graph(graph, inner, 2)
            rows = [stacked(x, 2, name) if flag else x for x, flag in zip(arrays, inner, strict=True)]
            for outer in choices(len(arrays)):
                given = [stacked(x, 3, name) if flag else x for x, flag in zip(rows, outer, strict=True)]
                (got,) = interpret(batch_graph(once, outer, 3), *given)
                want = [
                    stack_of_calls(
                        graph, [x[i] if f else x for x, f in zip(given, outer, strict=True)], inner, 2
                    )[0]
                    for i in range(3)
                ]
                near(got, np.stack(want), name)
                CHECKS[name] += 1


@pytest.mark.parametrize("name", OPS)
def test_derivatives_of_batches(name: str) -> None:
    """Derivatives of a batch of all arguments, and batches of derivatives."""
    if not varying(name, "derivatives of batches") or not differentiable(name, "derivatives of batches"):
        return
    rng = rng_for(REGISTRY[name])
    for dtype, arrays, attrs in samples_for(REGISTRY[name]):
        if dtype != "f64" or max((a.size for a in arrays), default=0) > 40:
            continue
        graph = op_graph(REGISTRY[name], arrays, attrs)
        flags = [True] * len(arrays)
        given = [stacked(x, 2, name) for x in arrays]
        CHECKS[name] += check_derivative(batch_graph(graph, flags, 2), given, rng)
        for derived in (jvp_graph(graph), vjp_graph(graph)):
            more = [
                np.asarray(rng.uniform(-1, 1, (2, *node.shape))).astype(node.dtype)
                for node in derived.inputs[len(arrays) :]
            ]
            every = [True] * len(derived.inputs)
            got = interpret(batch_graph(derived, every, 2), *given, *more)
            for found, wanted in zip(got, stack_of_calls(derived, [*given, *more], every, 2), strict=True):
                near(found, wanted, name)


@pytest.mark.parametrize("name", [n for n in OPS if REGISTRY[n].special])
def test_special_values_agree(name: str) -> None:
    """At special values forward and reverse mode give the same Jacobian, NaN for NaN; second order runs."""
    if not differentiable(name, "special values"):
        return
    declared = REGISTRY[name]
    if op_graph(declared, *next(samples_for(declared))[1:]).outputs[0].dtype.kind != "f":
        skipped(name, "special values", "the result is not floating point: nothing to differentiate")
        return
    elementwise_op = isinstance(declared.derivative, Partials)
    for dtype, arrays, attrs in special_samples_for(declared):
        if dtype == "f32" and not elementwise_op:
            continue  # float64 already walks every branch; f32 differs in rounding only
        graph = op_graph(declared, arrays, attrs)
        if elementwise_op:
            ones = np.ones(arrays[0].shape, arrays[0].dtype)
            for i, got in enumerate(interpret(vjp_graph(graph), *arrays, ones)):
                # NaN * 0 of the other arguments' partials would hide this one: seed one argument only
                want = interpret(jvp_graph(graph, only=i), *arrays, ones)[0]
                np.testing.assert_array_equal(got, want, err_msg=f"{name}, argument {i}")
                CHECKS[name] += 1
        else:
            forward, reverse = jacobians(graph, arrays)
            both = ~np.isnan(forward) & ~np.isnan(
                reverse
            )  # a basis vector's zeros times NaN are NaN elsewhere
            np.testing.assert_allclose(forward[both], reverse[both], rtol=1e-12, atol=1e-300, err_msg=name)
            finite = np.isfinite(np.ravel(interpret(graph, *arrays)[0]))
            assert not np.isnan(forward[finite]).any(), name
            CHECKS[name] += 1
        for derived in (jvp_graph(graph), vjp_graph(graph)):
            extra = [np.ones(node.shape, node.dtype) for node in derived.inputs[len(arrays) :]]
            again = vjp_graph(derived)
            cts = [np.ones(node.shape, node.dtype) for node in again.inputs[len(derived.inputs) :]]
            interpret(again, *arrays, *extra, *cts)
            CHECKS[name] += 1


# ------------------------------------------------------------------------------------------- the declarations


def test_incomplete_declarations_are_refused() -> None:
    """A record that contradicts itself never enters the registry."""
    complete = {
        "doc": "nothing",
        "infer": elementwise,
        "impl": np.copy,
        "grad": Partials(1),
        "lower": Scalar("copy"),
        "samples": uniform((0, 1)),
    }
    for change in (
        {"doc": " "},
        {"grad": Partials(1, 1)},
        {"grad": NonDifferentiable("")},
        {"samples": None},
        {"lower": Special("never")},
    ):
        with pytest.raises(IRError, match="refused"):
            op("never", **(complete | change))  # type: ignore[arg-type]
        assert "never" not in REGISTRY
    with pytest.raises(IRError, match="taken"):
        op("add", **complete)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda b, x, i: b.logsumexp(i, axes=(0,)), "int64"),
        (lambda b, x, i: b.gather(x, x, axes=(0,)), "int64"),
        (lambda b, x, i: b.gather(x, i, axes=(2,)), "axes"),
        (lambda b, x, i: b.gather(x, i, axes=()), "0 axes|index arrays"),
        (lambda b, x, i: b.scatter_add(x, i, shape=(4, 5), axes=(0,)), "updates"),
        (lambda b, x, i: b.scatter_set(x, i, i, axes=(0,)), "updates|dtypes"),
        (lambda b, x, i: b.cumsum(x, axis=2, reverse=False), "axis 2"),
        (lambda b, x, i: b.polygamma(x, n=1), "trigamma"),
        (lambda b, x, i: b.sin(i), "int64"),
        (lambda b, x, i: b.left_shift(x, x), "float64"),
        (lambda b, x, i: b.argmax(b.full(0.0, Type(F64, (0, 2))), axes=(0,)), "argmax"),
    ],
)
def test_misuse_is_a_shape_error(build, message: str) -> None:  # type: ignore[no-untyped-def]
    """Wrong dtypes and axes are told at the node."""
    b = Builder()
    with pytest.raises(ShapeError, match=message):
        build(b, b.input(Type(F64, (2, 3)), "x"), b.input(Type(I64, (2,)), "i"))


@pytest.mark.parametrize(
    ("name", "arrays", "attrs", "error", "message"),
    [
        ("floor_divide", [[1, 2], [1, 0]], {}, ZeroDivisionError, "integer division by zero"),
        ("remainder", [[1, 2], [1, 0]], {}, ZeroDivisionError, "integer modulo by zero"),
        ("fmod", [[1, 2], [1, 0]], {}, ZeroDivisionError, "integer modulo by zero"),
        ("pow", [[1, 2], [1, -1]], {}, ValueError, "negative integer powers"),
        (
            "gather",
            [[1, 2], [2]],
            {"axes": (0,)},
            IndexError,
            "index 2 is out of bounds for axis 0 with size 2",
        ),
        (
            "gather",
            [[1, 2], [-3]],
            {"axes": (0,)},
            IndexError,
            "index -3 is out of bounds for axis 0 with size 2",
        ),
        ("scatter_add", [[1], [5]], {"shape": (2,), "axes": (0,)}, IndexError, "out of bounds"),
        ("scatter_set", [[1, 2], [7], [5]], {"axes": (0,)}, IndexError, "out of bounds"),
    ],
)
def test_run_time_errors(name: str, arrays, attrs, error, message: str) -> None:  # type: ignore[no-untyped-def]
    """The reference raises what compiled code raises."""
    given = [np.array(a) for a in arrays]
    graph = op_graph(REGISTRY[name], given, attrs)
    with pytest.raises(error, match=message):
        interpret(graph, *given)


def test_every_numpy_ufunc_of_the_families_is_bound() -> None:
    """The elementwise functions that the front end binds one to one."""
    bound = {
        f.__name__ if isinstance(f, np.ufunc) else f for declared in REGISTRY.values() for f in declared.numpy
    }
    wanted = """
    add subtract multiply divide negative absolute fabs sqrt maximum minimum fmax fmin equal not_equal less
    less_equal greater greater_equal bitwise_and bitwise_or bitwise_xor invert isnan isinf isfinite sign copysign signbit
    heaviside floor ceil trunc rint floor_divide remainder fmod left_shift right_shift power square reciprocal cbrt hypot exp
    exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh logaddexp
    logaddexp2
    """
    scipy = "erf erfc erfcx expit log_expit logit xlogy xlog1py ndtr log_ndtr gammaln psi"
    assert set(wanted.split()) <= bound
    assert {f"scipy.special.{name}" for name in scipy.split()} <= bound


VOCABULARY = """
    add sub mul div neg abs sqrt maximum minimum fmax fmin eq ne lt le gt ge select convert copy and or xor not shl shr floor
    ceil trunc rint copysign isnan signbit exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan arctan2 sinh cosh
    tanh arcsinh arccosh arctanh pow cbrt hypot erf erfc erfcx log_expit lgamma digamma trigamma fmod logaddexp
    floor_divide remainder bell half_bell
"""


def test_scalar_lowerings_stay_in_the_vocabulary() -> None:
    """What the loop IR does not know must be decomposed."""
    used = {declared.lower.name for declared in REGISTRY.values() if isinstance(declared.lower, Scalar)}
    assert used <= set(VOCABULARY.split())


def test_float32_stays_float32() -> None:
    """No formula brings a float64 constant into a float32 derivative, in either mode or order."""
    for name in OPS:
        declared = REGISTRY[name]
        if name in NO_SAMPLES or name == "convert" or "f32" not in declared.samples.dtypes:
            continue
        for dtype, arrays, attrs in samples_for(declared):
            if dtype != "f32":
                continue
            graph = op_graph(declared, arrays, attrs)
            for derived in (jvp_graph(graph), vjp_graph(graph), vjp_graph(vjp_graph(graph))):
                assert all(node.dtype != np.float64 for node in decompose(derived).nodes()), name
            break


def test_declarations_do_not_load_scipy() -> None:
    """SciPy costs more than the rest of the import together; only reference evaluations need it."""
    code = "import sys, graphjit.ops; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_summary(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Every op that was asked for was checked or has a reason why not."""
    ran = {
        item.callspec.params["name"]
        for item in request.session.items
        if "test_ops.py::test_first_order[" in item.nodeid
    }  # type: ignore[attr-defined]
    unchecked = {name for name in ran if not CHECKS[name] and not any(n == name for n, _ in SKIPS)}
    assert not unchecked
    with capsys.disabled():
        print(f"\nop matrix: {sum(CHECKS.values())} checks, {len(SKIPS)} skipped")
        for reason, count in Counter(SKIPS.values()).most_common():
            print(f"  {count:3d} skipped: {reason}")
