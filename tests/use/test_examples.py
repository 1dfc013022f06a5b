"""The examples run headless and give the numbers they promise; textbook values hold to rounding."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import EXAMPLES, PNG, load


@pytest.fixture(scope="module")
def textbook() -> ModuleType:
    return load("textbook")


@pytest.fixture(scope="module")
def cases(textbook: ModuleType) -> dict[str, Any]:
    return textbook.cases()


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=1e-16)


def test_squared_error_of_a_neuron(cases: dict[str, Any]) -> None:
    value, gradients = cases["loss"]
    assert value == 1.0
    assert gradients == (-6.0, -4.0, -2.0, 2.0)


def test_relu_that_is_off_passes_no_cotangent(cases: dict[str, Any]) -> None:
    value, cotangents = cases["relu_neuron"]
    assert value == 0.0
    assert cotangents == (0.0, 0.0, 0.0)


def test_relu_that_is_on_passes_the_cotangent(textbook: ModuleType) -> None:
    value, pullback = textbook.graphjit.vjp(textbook.relu_neuron, 3.0, 2.0, -4.0)
    assert value == 2.0
    assert pullback(5.0) == (10.0, 15.0, 5.0)


def test_parameter_on_several_paths_gets_the_sum(cases: dict[str, Any]) -> None:
    assert cases["several_paths"] == (20.0, 12.0)


def test_network_with_squared_error(textbook: ModuleType, cases: dict[str, Any]) -> None:
    step = cases["squared_error"]
    slope = -0.27674159476431712
    close(textbook.network(textbook.NETWORK, textbook.POINT), [0.4378234991142019])
    close(step["value"], 0.31604241814819976)
    close(step["gradient"]["w2"], [[-0.13837079738215856, -0.3459269934553964, 0.0]])
    close(step["gradient"]["b2"], [slope])
    close(step["gradient"]["b1"], [slope, -slope, 0.0])
    close(step["gradient"]["w1"], [[slope, slope], [-slope, -slope], [0.0, 0.0]])
    close(step["updated"]["b2"], [0.5 - 0.5 * slope])
    close(step["updated"]["w1"][0], [0.5 - 0.5 * slope, -0.5 - 0.5 * slope])
    close(step["value_after"], 0.080470546496357111)


def test_network_with_cross_entropy(cases: dict[str, Any]) -> None:
    step = cases["cross_entropy"]
    slope = 0.4378234991142019 - 1.0  # sigmoid and cross-entropy together: p - y
    close(step["value"], 0.82593941987884356)
    close(step["gradient"]["w2"], [[-0.28108825044289905, -0.70272062610724763, 0.0]])
    close(step["gradient"]["b2"], [slope])
    close(step["gradient"]["b1"], [slope, -slope, 0.0])
    close(step["gradient"]["w1"], [[slope, slope], [-slope, -slope], [0.0, 0.0]])
    close(step["value_after"], 0.12117544709855855)


def test_regularised_perceptron(textbook: ModuleType, cases: dict[str, Any]) -> None:
    value, (d_w1, d_w2) = cases["regularised"]
    close(value, 0.90910160771607346)
    close(
        d_w1,
        [
            [-0.40242026498641829, -0.32621013249320915],
            [0.58265639631022454, 0.35382819815511227],
            [-0.972954430269951, -0.4114772151349755],
        ],
    )
    close(
        d_w2,
        [
            [0.1, -0.51504824273151691, 0.23037153008389967],
            [0.05, 0.47827217876963072, -0.28913072787818892],
        ],
    )
    by_hand = textbook.perceptron_by_hand(*textbook.PERCEPTRON)
    close(d_w1, by_hand["dJ/dW1 = dJ/dz x^T + lambda W1"])
    close(d_w2, by_hand["dJ/dW2 = dJ/do h^T + lambda W2"])


def test_textbook_declares_arguments_of_every_function(textbook: ModuleType) -> None:
    for name, arguments in textbook.EXAMPLES.items():
        assert np.all(np.isfinite(getattr(textbook, name)(*arguments)))


def test_textbook_prints_its_numbers(textbook: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    textbook.main([])
    printed = capsys.readouterr().out
    for line in ("L = 1.", "dL/d(a, w, b, y) = (-6., -4., -2., 2.)", "(0., 0., 0.)", "0.316042", "0.825939"):
        assert line in printed


def test_digits_reach_the_promised_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="the digits example needs the examples extra")
    pytest.importorskip("tqdm", reason="the digits example needs the examples extra")
    target = tmp_path / "digits.json"
    result = load("digits").main(["--epochs", "30", "--no-progress", "--json", str(target)])
    assert result["test_accuracy"] > 0.96
    assert result["value_difference"] <= 1e-12
    assert result["gradient_difference"] <= 1e-10
    # Training multiplies rounding differences, but not out of sight: both runs reach the same network.
    assert result["parameter_difference"] <= 1e-6
    assert json.loads(target.read_text()) == result
    assert "test accuracy" in capsys.readouterr().out


def test_cost_of_the_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the examples extra")
    target = tmp_path / "modes.png"
    results = load("forward_vs_reverse").main(["--quick", "--plot", str(target)])
    assert target.read_bytes().startswith(PNG)
    for key in ("inputs", "outputs"):
        assert max(results[key]["seconds"]["disagreement"]) <= 1e-12
        for method in ("forward", "reverse", "numerical"):
            assert all(second > 0.0 for second in results[key]["seconds"][method])
    # 64 products against one: a factor that no noise reaches.
    wide, tall = results["inputs"]["seconds"], results["outputs"]["seconds"]
    assert wide["forward"][-1] > 4.0 * wide["reverse"][-1]
    assert tall["reverse"][-1] > 4.0 * tall["forward"][-1]
    errors = results["errors"]
    assert errors["compiled"] <= 1e-14
    assert 1e-11 < errors["one-sided"].min() < 1e-6
    assert 1e-14 < errors["central"].min() < 1e-8
    assert 1e-10 < errors["steps"][int(np.argmin(errors["one-sided"]))] < 1e-6
    turns, symbolic, graph = (results["swell"][key] for key in ("turns", "symbolic", "graph"))
    assert symbolic[-1] > 20 * graph[-1]
    assert graph[-1] - graph[-2] <= 12 * (turns[-1] - turns[-2])
    assert "numerical" in capsys.readouterr().out


@pytest.fixture(scope="module")
def memory() -> dict[tuple[int, int], dict[str, int]]:
    pytest.importorskip("matplotlib", reason="the example imports it from the examples extra")
    rows = load("forward_vs_reverse").memory((2, 8), (16, 64), 32)
    return {(row["depth"], row["batch"]): row for row in rows}


def test_reverse_mode_keeps_every_layer(memory: dict[tuple[int, int], dict[str, int]]) -> None:
    layer = 64 * 32 * 8
    assert memory[8, 64]["reverse"] - memory[2, 64]["reverse"] >= 5 * layer
    assert memory[8, 64]["reverse"] >= 3 * memory[8, 16]["reverse"]


def test_forward_mode_keeps_no_layer(memory: dict[tuple[int, int], dict[str, int]]) -> None:
    assert memory[8, 64]["forward"] <= 1.5 * memory[2, 64]["forward"]


def test_newton_fits_what_others_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="the example needs the examples extra")
    target = tmp_path / "newton.json"
    example = load("newton")
    results = example.main(["--json", str(target)])
    for result in results.values():
        assert result["hessian_difference"] <= 1e-12
        assert result["gradient"] <= 1e-6
        # Quadratic convergence: the decrement is of second order in the distance.
        assert result["decrements"][-1] <= 1e-9 <= 1e-5 <= result["decrements"][-3]
    tumours, wines, chinups = example.problems()
    theirs = linear.LogisticRegression(C=1.0, tol=1e-12, solver="newton-cholesky")
    theirs.fit(tumours.x[:, 1:], tumours.y[:, 0])
    ours = results[tumours.name]["weights"][:, 0]
    np.testing.assert_allclose(ours, [*theirs.intercept_, *theirs.coef_[0]], rtol=1e-5, atol=1e-6)
    theirs = linear.PoissonRegressor(alpha=0.0, tol=1e-10, solver="newton-cholesky")
    theirs.fit(chinups.x[:, 1:], chinups.y[:, 0])
    ours = results[chinups.name]["weights"][:, 0]
    np.testing.assert_allclose(ours, [theirs.intercept_, *theirs.coef_], rtol=1e-6)
    guesses = np.column_stack([wines.x @ results[wines.name]["weights"], np.zeros(len(wines.x))])
    labels = np.where(np.sum(wines.y, axis=1) == 1.0, np.argmax(wines.y, axis=1), 2)
    assert np.mean(np.argmax(guesses, axis=1) == labels) > 0.98
    assert set(json.loads(target.read_text())) == set(results)
    assert "Newton decrements" in capsys.readouterr().out


def test_gradients_of_each_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="the example needs the examples extra")
    pytest.importorskip("tqdm", reason="the example needs the examples extra")
    target = tmp_path / "gradients.json"
    result = load("per_example_gradients").main(["--epochs", "8", "--no-progress", "--json", str(target)])
    assert result["difference"] <= 1e-12
    assert result["accuracy"] > 0.95
    assert result["norm_of_wrong"] > 3.0 * result["norm_of_right"]
    assert list(result["epochs"]) == [0, 1, 2, 4, 8]
    for found in result["epochs"].values():
        assert found["quantiles"] == sorted(found["quantiles"])
    # Once most examples are learnt, their gradients agree on less and less.
    assert result["epochs"][8]["noise_scale"] > 3.0 * result["epochs"][0]["noise_scale"]
    assert result["epochs"][8]["quantiles"][1] < 0.5 * result["epochs"][0]["quantiles"][1]
    assert json.loads(target.read_text())["hardest"] == result["hardest"]
    assert "largest gradients" in capsys.readouterr().out


def test_norms_are_those_of_the_gradients() -> None:
    pytest.importorskip("sklearn", reason="the example needs the examples extra")
    pytest.importorskip("tqdm", reason="the example needs the examples extra")
    example = load("per_example_gradients")
    images, labels = example.load(0)
    batch = example.initial_parameters(0), images[:9], np.eye(example.CLASSES)[labels[:9]]
    norms, mean = example.norms_and_mean(*batch)
    each = example.one_after_another(*batch)
    flat = np.concatenate([g.reshape(9, -1) for g in each.values()], axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(flat, axis=1), rtol=1e-12)
    for name, gradient in example.batch_gradient(*batch).items():
        np.testing.assert_allclose(mean[name], gradient, rtol=1e-10, atol=1e-14)


def test_orbit_is_found_through_the_solver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "kepler.json"
    example = load("kepler")
    result = example.main(["--json", str(target)])
    true = np.array(list(example.ELEMENTS.values()))
    assert np.all(np.abs(result["elements"] - true) <= 4.0 * result["errors"])
    # 200 observations, six elements: each residual is about one.
    assert 60.0 < result["values"][-1] < 140.0
    found = result["derivatives"]
    assert found["to_differences"] <= 1e-6
    assert found["to_unrolled"] <= 1e-10
    assert found["implicit"]["nodes"] < found["unrolled"]["nodes"]
    assert json.loads(target.read_text())["values"] == result["values"]
    assert "eccentricity" in capsys.readouterr().out


def test_keplers_equation_is_solved() -> None:
    example = load("kepler")
    anomaly = np.linspace(0.01, 2.0 * np.pi - 0.01, 301)
    for eccentricity in (0.0, 0.3, 0.68, 0.89):
        e = example.eccentric_anomaly(anomaly, eccentricity)
        np.testing.assert_allclose(e - eccentricity * np.sin(e), anomaly, rtol=1e-14)


def test_a_differential_equation_is_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the examples extra")
    target, picture = tmp_path / "populations.json", tmp_path / "populations.png"
    result = load("populations").main(["--json", str(target), "--plot", str(picture)])
    # The means and deviations of the posterior that B. Carpenter's case study gives for the same data.
    theirs = np.array([0.55, 0.028, 0.80, 0.024, 33.96, 5.95])
    deviations = np.array([0.06, 0.004, 0.09, 0.004, 2.9, 0.5])
    assert np.all(np.abs(np.array(result["values"]) - theirs) <= 0.5 * deviations)
    np.testing.assert_allclose(result["errors"], deviations, rtol=0.2)
    assert 0.2 < result["noise"] < 0.3
    assert result["difference"] <= 1e-8
    assert result["to_theirs"] <= 1e-6
    assert json.loads(target.read_text()) == result
    assert picture.read_bytes().startswith(PNG)
    assert "hunting" in capsys.readouterr().out


@pytest.mark.slow
def test_noise_of_a_kalman_filter_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the examples extra")
    target, picture = tmp_path / "nile.json", tmp_path / "nile.png"
    results = load("nile").main(["--json", str(target), "--plot", str(picture)])
    level, trend, gaps = results.values()
    # J. Durbin and S. J. Koopman, who know nothing of the first level at all: here its variance is 1e7.
    np.testing.assert_allclose(level["variances"], [15099.0, 1469.1], rtol=1e-3)
    assert level["log_likelihood"] == pytest.approx(-632.54, abs=0.01)
    # The slope of the Nile does not change: its variance has gone to the bound, or nearly so.
    assert trend["variances"][2] < 1.0
    assert trend["errors"][2] is None
    # Less was seen, so less is known of what is seen.
    assert gaps["errors"][0] > level["errors"][0]
    assert all(result["difference"] <= 1e-7 for result in results.values())
    assert json.loads(target.read_text()) == results
    assert picture.read_bytes().startswith(PNG)
    assert "variance of the level" in capsys.readouterr().out


def test_filter_over_a_gap_knows_less(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the example imports it from the examples extra")
    example = load("nile")
    flow = example.FLOW.copy()
    flow[20:40] = np.nan
    noise = np.log([15099.0, 1469.1])
    _, levels, variances = example.filtered(noise, flow)
    np.testing.assert_array_equal(levels[20:40], levels[19])
    np.testing.assert_allclose(np.diff(variances[19:40]), 1469.1, rtol=1e-12)
    for ours, theirs in zip(example.kalman(noise, flow), example.filtered(noise, flow), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_recurrent_network_learns_to_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("sklearn", "tqdm", "matplotlib"):
        pytest.importorskip(library, reason="the example needs the examples extra")
    target, picture = tmp_path / "pixels.json", tmp_path / "pixels.png"
    files = ["--json", str(target), "--plot", str(picture)]
    result = load("pixels").main(["--quick", "--no-progress", *files])
    assert result["test_accuracy"] > 0.75
    assert result["value_difference"] <= 1e-12
    assert result["gradient_difference"] <= 1e-12
    assert len(result["history"]["loss"]) == 6
    assert result["history"]["loss"][-1] < 0.5 * result["history"]["loss"][0]
    assert json.loads(target.read_text()) == result
    assert picture.read_bytes().startswith(PNG)
    assert "test accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_accidents_change_nothing() -> None:
    """As a script, since workers read its functions by value where it is one."""
    pytest.importorskip("distributed", reason="the example needs the dask extra")
    pytest.importorskip("tqdm", reason="the example needs the examples extra")
    script = EXAMPLES / "beyond_one_machine.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--no-progress"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = (float(loss) for loss in re.findall(r"loss ([0-9.]+)", done.stdout))
    assert first < second < 0.6
    assert float(re.findall(r"largest slope (\S+)", done.stdout)[0]) < 1e-5
    assert "workers killed 2" in done.stdout
    assert "AdamW gives the same bits as a run without accidents" in done.stdout
