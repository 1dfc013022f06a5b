"""The machine that code is made for: what is read, what replaces it, and that code for other processors is
right.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphjit
from graphjit.machine import cores, machine

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np, scipy.special, graphjit
from graphjit.machine import machine
rng = np.random.default_rng(0)

def check(f, *args, rtol=1e-11):
    np.testing.assert_allclose(graphjit.jit(f)(*args), f(*args), rtol=rtol, atol=rtol)

for dtype, rtol in ((np.float64, 1e-11), (np.float32, 2e-4)):
    x, w = rng.normal(size=(37, 50)).astype(dtype), rng.normal(size=(50, 9)).astype(dtype)
    check(lambda x, w: np.tanh(x @ w), x, w, rtol=rtol)
    check(lambda x: np.exp(np.sin(x)) + np.log1p(x * x) + scipy.special.erf(x) ** 3, x, rtol=rtol)
    check(lambda x: np.cumsum(x, axis=1) + np.sum(x), x, rtol=rtol)
    check(lambda a, b: a @ b, rng.normal(size=(64, 4, 4)).astype(dtype), rng.normal(size=(64, 4, 4)).astype(dtype), rtol=rtol)
    check(lambda a: a @ a, rng.normal(size=(200, 200)).astype(dtype), rtol=1e-10 if dtype is np.float64 else 1e-2)
    check(lambda a: np.sum(a, axis=0), rng.normal(size=(3000, 70)).astype(dtype), rtol=1e-10 if dtype is np.float64 else 1e-2)

def loss(w, x, y):
    logits = np.tanh(x @ w["a"]) @ w["b"]
    return np.mean(scipy.special.logsumexp(logits, axis=1) - np.sum(y * logits, axis=1))

w = {"a": rng.normal(size=(50, 16)), "b": rng.normal(size=(16, 4))}
x, y = rng.normal(size=(300, 50)), np.eye(4)[rng.integers(0, 4, 300)]
value, gradient = graphjit.value_and_grad(loss)(w, x, y)
step = {k: rng.normal(size=v.shape) for k, v in w.items()}
near = [loss({k: w[k] + e * step[k] for k in w}, x, y) for e in (1e-6, -1e-6)]
np.testing.assert_allclose(sum(np.sum(gradient[k] * step[k]) for k in w), (near[0] - near[1]) / 2e-6, rtol=1e-6)
assert (graphjit.jit(lambda v: np.arange(10) * v)(3) == np.arange(10) * 3).all()
print(machine().vector_bytes)
"""


def run(wanted: str, script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GRAPHJIT_MACHINE": wanted}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.mark.parametrize(("wanted", "nbytes"), [("avx2", 32), ("baseline", 16)])
def test_code_for_other_processors_is_right(wanted: str, nbytes: int) -> None:
    if not machine().has("avx2" if wanted == "avx2" else "sse2"):
        pytest.skip(f"this processor cannot run code for {wanted}")
    done = run(wanted)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(nbytes), "")


def test_bytes_of_vectors_are_mixed_by_instructions_for_vectors() -> None:
    """SSE4a has others, which processors of AMD do one by one."""
    assert not machine().has("sse4a")
    columns = [np.arange(100, dtype=np.uint64) * k for k in (3, 5, 7, 11)]
    records = graphjit.jit(lambda *columns: np.stack([(c >> 2).astype(np.uint8) for c in columns], axis=-1))
    code = records.lower(*columns).as_text("asm")
    assert "insertq" not in code
    assert "extrq\t$" not in code.replace("vpextrq", "")
    want = np.stack([(c >> np.uint64(2)).astype(np.uint8) for c in columns], axis=-1)
    np.testing.assert_array_equal(records(*columns), want)


def test_a_file_replaces_fields(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps({"caches": [1024, 2048, 4096]}))
    done = run(str(file), "from graphjit.machine import machine\nprint(machine().caches, machine().name)")
    assert done.stdout.strip() == f"(1024, 2048, 4096) {machine().name}"


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "text",
    ["nonsense", '{"colour": 1}', "[]", '{"features": "avx2"}', '{"features": ["avx2"]}', '{"caches": [1]}'],
)
def test_what_means_nothing_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(text)
    done = run(str(file), "import numpy as np, graphjit\ngraphjit.jit(np.tanh)(np.ones(3))")
    assert "GRAPHJIT_MACHINE" in done.stderr
    assert "ConfigError" in done.stderr


def test_what_was_read_makes_sense() -> None:
    here = machine()
    assert here.vector_bytes in (16, 32, 64)
    assert here.vector_registers in (16, 32)
    assert 1 << 13 <= here.caches[0] <= here.caches[1] <= here.caches[2]
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert np.all([feature[0] in "+-" for feature in here.features])
