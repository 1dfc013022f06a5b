"""Compiled functions travel to other processes as their Python function and options."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphjit

cloudpickle = pytest.importorskip("cloudpickle", reason="dask brings it")


@graphjit.value_and_grad(argnums=1)
def decorated(x: np.ndarray, w: np.ndarray) -> float:
    return np.mean((x @ w) ** 2)


SCRIPT = """
import pickle, sys
import numpy as np
import graphjit

@graphjit.jit
def doubled(w):
    return w * 2

@graphjit.value_and_grad
def loss(w, x):
    return np.mean((x @ doubled(w)) ** 2) + 0 * len(loss.__name__)

assert pickle.loads(pickle.dumps(loss)) is loss
import cloudpickle
first, again = cloudpickle.dumps(loss), cloudpickle.dumps({"all": [loss, doubled]})
assert pickle.loads(pickle.dumps(loss)) is loss
sys.stdout.buffer.write(pickle.dumps((first, again)))
"""


def run(*command: str, text: bytes = b"") -> bytes:
    where = str(Path(graphjit.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *command], input=text, capture_output=True, env=os.environ | {"PYTHONPATH": where}
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_functions_of_a_script_are_read_by_another_program() -> None:
    """cloudpickle sends them by value, and plain pickle still by name."""
    for data in pickle.loads(run("-c", SCRIPT)):
        loaded = cloudpickle.loads(data)
        loss = loaded if callable(loaded) else loaded["all"][0]
        value, gradient = loss(np.array([1.0, 2.0]), np.eye(2))
        assert value == 10.0
        np.testing.assert_array_equal(gradient, [4.0, 8.0])
        assert "value_and_grad of loss" in repr(loss)


def test_functions_of_modules_are_sent_by_name() -> None:
    cloudpickle.dumps(graphjit.jit(np.sin))  # now cloudpickle knows compiled functions
    for library in (pickle, cloudpickle):
        assert pickle.loads(library.dumps(decorated)) is decorated


def test_options_travel_along() -> None:
    made = graphjit.grad(lambda scale, x: (np.sum(x**3) * scale, x), argnums=(1,), has_aux=True)
    again = cloudpickle.loads(cloudpickle.dumps(made))
    (gradient,), aux = again(2.0, np.ones(3))
    np.testing.assert_array_equal(gradient, np.full(3, 6.0))
    np.testing.assert_array_equal(aux, np.ones(3))
