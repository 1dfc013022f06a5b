"""Examples of how networks learn: they keep what they promise, in short runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import PNG, load, needs

import graphjit


@pytest.fixture(scope="module")
def textbook() -> ModuleType:
    return load("textbook")


@pytest.fixture(scope="module")
def cases(textbook: ModuleType) -> dict[str, Any]:
    return textbook.cases()


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-15)


def test_layers_learn_from_their_own_activities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("sklearn", "tqdm", "matplotlib")
    example, picture = load("forward_forward"), tmp_path / "forward_forward.png"
    result = example.main(["--quick", "--no-progress", "--plot", str(picture)])
    ours, theirs = (result["accuracy"][name] for name in (example.FORWARD, example.BACK))
    assert 0.88 < ours < theirs
    assert theirs > 0.97
    assert result["gradient_difference"] <= 1e-12
    # The right label is the livelier one: a wrong one seldom reaches what nine of ten right ones have.
    goodness = result["goodness"]
    assert np.mean(goodness["wrong"] > np.quantile(goodness["right"], 0.1)) < 0.05
    # Each layer more costs back-propagation what it keeps of it, and forward-forward nothing.
    flat, growing = (np.array(result["arena"][name]) for name in (example.FORWARD, example.BACK))
    kept = result["memory_batch"] * example.WIDTH * 4
    assert np.all(np.diff(flat) < 0.01 * kept)
    np.testing.assert_allclose(np.diff(growing), kept * np.diff(result["depths"]), rtol=0.01)
    assert flat[-1] < growing[-1]
    assert picture.read_bytes().startswith(PNG)
    assert "reading 360 test digits" in capsys.readouterr().out


def test_no_gradient_passes_through_layers() -> None:
    """What a training step does to a layer is the same whatever lies above it."""
    needs("sklearn", "tqdm", "matplotlib")
    example = load("forward_forward")
    (images, labels), _ = example.load(0)
    batch = images[:64], labels[:64], example.random.key(0)
    found = []
    for depth in (1, 3):
        method = example.Method(example.FORWARD, depth, 0.01)
        found.append(method.step(method.layers, method.state, *batch)[0][0])
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


@pytest.mark.slow
def test_forward_forward_comes_close() -> None:
    needs("sklearn", "tqdm", "matplotlib")
    example = load("forward_forward")
    result = example.main(["--no-progress"])
    assert result["accuracy"][example.FORWARD] > 0.945
    assert result["accuracy"][example.BACK] > 0.98


def test_every_number_of_the_perceptron(textbook: ModuleType) -> None:
    _, w2, _, y, _ = textbook.PERCEPTRON
    z, h, o, error, penalty, value, d_o, _, d_h, d_z, _ = textbook.perceptron_by_hand(
        *textbook.PERCEPTRON
    ).values()
    close(z, [0.0, 0.625, -0.25])
    close(h, [0.0, 0.55459972234938223, -0.24491866240370913])
    close(o, [-0.33852952677561839, 0.52221852357840024])
    close(penalty, 0.259375)
    close(error + penalty, value)
    close(value, textbook.regularised(*textbook.PERCEPTRON))
    close(d_o, graphjit.grad(lambda o: 0.5 * np.sum((o - y) ** 2))(o))
    close(d_h, graphjit.grad(lambda h: 0.5 * np.sum((w2 @ h - y) ** 2))(h))
    close(d_z, graphjit.grad(lambda z: 0.5 * np.sum((w2 @ np.tanh(z) - y) ** 2))(z))


def test_dead_relu_learns_nothing(textbook: ModuleType, cases: dict[str, Any]) -> None:
    assert cases["relu_on_data"] == (7.5, (0.0, 0.0))
    value, (d_w, d_b) = cases["leaky_relu_on_data"]
    close(value, 7.85575)
    close([d_w, d_b], [-0.1535, -0.0515])


def test_convolution_by_hand(textbook: ModuleType, cases: dict[str, Any]) -> None:
    y, d_image, d_kernel = textbook.convolution_by_hand(*textbook.EXAMPLES["convolution"])
    np.testing.assert_array_equal(y, [[3.0, 7.0], [0.0, 2.0]])
    np.testing.assert_array_equal(d_kernel, [[6.0, 4.0], [1.0, 7.0]])
    np.testing.assert_array_equal(d_image, [[1.0, 2.0, 0.0], [-2.0, 1.0, 4.0], [1.0, -3.0, 2.0]])
    close(cases["convolution"][0], d_image)
    close(cases["convolution"][1], d_kernel)


def test_pooling_by_hand(textbook: ModuleType, cases: dict[str, Any]) -> None:
    d_max, d_mean = textbook.pooling_by_hand(*textbook.EXAMPLES["max_pooling"])
    expected = np.zeros((4, 4))
    expected[[1, 0, 2, 2, 3], [0, 2, 0, 1, 3]] = [1.0, 2.0, -0.5, -0.5, 1.0]
    np.testing.assert_array_equal(d_max, expected)
    np.testing.assert_array_equal(d_mean, np.kron(textbook.COTANGENT, np.full((2, 2), 0.25)))
    close(cases["max_pooling"], d_max)
    close(cases["mean_pooling"], d_mean)


def test_recurrent_network_by_hand(textbook: ModuleType, cases: dict[str, Any]) -> None:
    hand = textbook.recurrent_by_hand(*textbook.SEQUENCE)
    value, gradients = cases["recurrent"]
    close(hand["h"], [0.53704956699803529, 0.6524998278634717, 0.12139816368477719])
    close(value, hand["L"])
    for ours, theirs in zip(gradients, hand["gradient"], strict=True):
        close(ours, theirs)
    close(hand["dL/dh"], [-0.13709167548461721, -0.29841774911744962, -0.37860183631522281])


def test_step_of_an_lstm_by_hand(textbook: ModuleType, cases: dict[str, Any]) -> None:
    arguments = textbook.EXAMPLES["lstm_step"]
    values, gradients = textbook.lstm_by_hand(*arguments)
    value, found = cases["lstm_step"]
    close(value, values["h'"])
    for ours, theirs in zip(found, gradients, strict=True):
        close(ours, theirs)
    # The layer of the library has the same gates in the same order.
    w, u, b, x, h, c = (np.atleast_1d(each) for each in arguments)
    output, cell = graphjit.nn.lstm_cell(x, (h, c), w[:, None], u[:, None], b)
    close([values["h'"], values["c'"]], [output[0], cell[0]])


def test_three_steps_of_adam_by_hand(textbook: ModuleType, cases: dict[str, Any]) -> None:
    hand = textbook.adam_by_hand(3)
    for ours, theirs in zip(cases["adam"], hand, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-12)
    close([found["p"] for found in hand], [0.9000000005, 0.80041222869179215, 0.70158627294602955])


def test_two_modes_and_differences(textbook: ModuleType, cases: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the examples extra")
    compared = cases["compare"]
    assert set(compared) == set(textbook.EXAMPLES)
    for found in compared.values():
        assert found["modes"] <= 1e-14
        assert np.min(found["numerical"]) <= 1e-9
    # Parabolas have no error of a large step; other curves have a best one, with an error on either side.
    for name in ("loss", "convolution"):
        assert compared[name]["numerical"][0] <= 1e-13
    for name in ("cross_entropy", "regularised", "recurrent", "lstm_step"):
        errors = compared[name]["numerical"]
        assert 1e-13 < np.min(errors) < 1e-4 * min(errors[0], errors[-1])
    textbook.plot(cases, tmp_path / "textbook.png")
    assert (tmp_path / "textbook.png").read_bytes().startswith(PNG)
