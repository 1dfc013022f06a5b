"""Examples of how networks learn: they keep what they promise, in short runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scripts import PNG, load


def test_layers_learn_from_their_own_activities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("sklearn", "tqdm", "matplotlib"):
        pytest.importorskip(library, reason="the example needs the examples extra")
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
    for library in ("sklearn", "tqdm", "matplotlib"):
        pytest.importorskip(library, reason="the example needs the examples extra")
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
    for library in ("sklearn", "tqdm", "matplotlib"):
        pytest.importorskip(library, reason="the example needs the examples extra")
    example = load("forward_forward")
    result = example.main(["--no-progress"])
    assert result["accuracy"][example.FORWARD] > 0.945
    assert result["accuracy"][example.BACK] > 0.98
