"""What an installed graphjit must do outside of its checkout: `.ci/run` runs this where only the wheel is.

Values, derivatives, threads, control flow and the command line, each once. A file that is missing from the
wheel, or a dependency from its list, shows here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import graphjit
from graphjit.view.page import SCRIPTS

CHECKOUT = Path(__file__).resolve().parents[1]

PROGRAM = """
import numpy as np


def loss(w, x):
    return np.sum(np.tanh(x @ w) ** 2)


loss.example = (np.ones(3), np.ones((4, 3)))
"""


def derivatives() -> None:
    """The gradient of the bias agrees with a difference."""

    @graphjit.value_and_grad
    def loss(w: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.mean(np.logaddexp(0.0, x @ w["w"] + w["b"]))

    rng = np.random.default_rng(0)
    w, x, h = {"w": rng.normal(size=5), "b": 0.5}, rng.normal(size=(100, 5)), 1e-6
    value, gradient = loss(w, x)
    moved = (loss(w | {"b": 0.5 + h}, x)[0] - loss(w | {"b": 0.5 - h}, x)[0]) / (2 * h)
    assert isinstance(value, np.float64)
    assert np.isclose(gradient["b"], moved)


def threads() -> None:
    """Products and long loops give the same bits on one thread and two."""
    f = graphjit.jit(lambda a: np.sum(np.sin(a @ a)))
    a = np.random.default_rng(1).normal(size=(300, 300))
    results = []
    for count in (1, 2):
        graphjit.set_num_threads(count)
        results.append(f(a))
    assert results[0] == results[1]


def control_flow() -> None:
    """A loop of unknown length is converted, by a library that nobody has imported yet."""

    @graphjit.value_and_grad
    def root(a: float) -> float:
        x = a
        while abs(x * x - a) > 1e-12 * a:
            x = 0.5 * (x + a / x)
        return x

    value, slope = root(2.0)
    assert np.isclose(value, np.sqrt(2.0))
    assert np.isclose(slope, 0.5 / np.sqrt(2.0))


def notebooks() -> None:
    """The files of the page are there; without the library that places boxes, a notebook says what to do."""
    assets = files("graphjit.view").joinpath("assets")
    assert all(assets.joinpath(name).is_file() for name in (*SCRIPTS, "page.html", "style.css"))
    shown = graphjit.jit(np.sin).lower(1.0)._repr_html_()
    assert "<iframe" in shown if find_spec("igraph") else "pip install" in shown


def commands() -> None:
    """The program graphjit is installed and prints."""
    graphjit_command = Path(sys.executable).with_name("graphjit")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.py"
        file.write_text(PROGRAM)
        for arguments, wanted in (
            (["--version"], f"graphjit {graphjit.__version__}"),
            (["inspect", f"{file}:loss", "--grad", "--stage", "program"], "kernel over"),
            (["inspect", f"{file}:loss", "--grad", "--compare-each"], "graph loss"),
            (["ops", "tanh"], "tanh: Hyperbolic tangent."),
            (["flags"], "GRAPHJIT_NUM_THREADS"),
            (["machine"], "cores"),
        ):
            done = subprocess.run([graphjit_command, *arguments], capture_output=True, text=True, cwd=folder)
            assert done.returncode == 0, done.stderr
            assert wanted in done.stdout, done.stdout


if __name__ == "__main__":
    assert CHECKOUT not in Path(graphjit.__file__).resolve().parents, "this is the checkout, not the wheel"
    derivatives()
    threads()
    control_flow()
    notebooks()
    commands()
    print(f"graphjit {graphjit.__version__} works from {Path(graphjit.__file__).parent}")
