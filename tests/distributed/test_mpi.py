"""Gradients over MPI: the same bits for any number of processes, errors in all of them, an end to waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import HUNG
from processes.model import arguments, digest, loss

import graphjit

pytest.importorskip("mpi4py", reason="the mpi extra brings it")
MPIEXEC = Path(sys.executable).parent / "mpiexec"
if not MPIEXEC.exists():
    pytest.skip("the mpi extra brings mpiexec", allow_module_level=True)

HARNESS = Path(__file__).resolve().parents[1] / "harness"


def run(scenario: str, processes: int, folder: Path, code: int = 0) -> list[dict[str, str]]:
    """What each process found, in the order of ranks; ``{}`` for those that ended otherwise."""
    where = os.pathsep.join((str(Path(graphjit.__file__).parents[1]), str(HARNESS)))
    command = [MPIEXEC, "-n", str(processes), sys.executable, "-W", "error", "-m", "mpi4py"]
    done = subprocess.run(
        [*map(str, command), str(HARNESS / "processes" / "program.py"), scenario, str(folder)],
        capture_output=True,
        text=True,
        timeout=HUNG,
        env=os.environ | {"PYTHONPATH": where, "GRAPHJIT_NUM_THREADS": "1", "GRAPHJIT_VERIFY": "0"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    files = [folder / f"{rank}.json" for rank in range(processes)]
    return [json.loads(file.read_text()) if file.exists() else {} for file in files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of one process."""
    return run("bits", 1, tmp_path_factory.mktemp("alone"))[0]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "processes", [2, 4, pytest.param(3, marks=pytest.mark.slow), pytest.param(11, marks=pytest.mark.slow)]
)
def test_any_number_of_processes_gives_the_same_bits(
    processes: int, alone: dict[str, str], tmp_path: Path
) -> None:
    found = run("bits", processes, tmp_path)
    assert found == [alone] * processes


def test_how_rows_lie_changes_nothing(alone: dict[str, str]) -> None:
    assert alone["mean blocks"] == alone["mean anyhow"] == alone["mean last"] == alone["columns first"]
    assert len(set(alone.values())) == 3


def test_bits_are_those_of_this_process_and_values_those_of_one_program(alone: dict[str, str]) -> None:
    params, x, y = arguments(203)
    ours = graphjit.distributed.value_and_grad(loss, has_aux=True)(params, x, y)
    assert digest(ours) == alone["mean blocks"]
    (value, aux), gradient = graphjit.value_and_grad(loss, has_aux=True)(params, x, y)
    np.testing.assert_allclose(ours[0][0], value, rtol=1e-14)
    np.testing.assert_allclose(ours[0][1]["columns"], aux["columns"], rtol=1e-12)
    np.testing.assert_allclose(ours[1].hidden["w"], gradient.hidden["w"], rtol=1e-12)
    np.testing.assert_allclose(ours[1].out[0], gradient.out[0], rtol=1e-5)
    assert type(ours[1]) is type(params)
    assert ours[1].activation == gradient.activation


def test_one_block_is_the_program_itself() -> None:
    params, x, y = arguments(50)
    ours = graphjit.distributed.value_and_grad(loss, has_aux=True, blocks=1)(params, x, y)
    assert digest(ours) == digest(graphjit.value_and_grad(loss, has_aux=True)(params, x, y))


def test_errors_are_raised_in_all_processes(alone: dict[str, str], tmp_path: Path) -> None:
    first, last = run("errors", 2, tmp_path)
    same = {
        "blocks": "rank 0 called with blocks=8 and rank 1 with blocks=9",
        "structure": "(*, *)",
        "dtype": "args[1] float64 rows of shape (5,) and rank 1 with args[1] float32",
        "no rows": "no rows at all",
        "lengths": "in_axes None",
    }
    for name, text in same.items():
        for found in (first, last):
            assert found[name].startswith("ShapeError"), found[name]
            assert text in found[name]
    assert first["no array"].startswith("RuntimeError: rank 1 raised TypeError: args[2][0]")
    assert last["no array"].startswith("TypeError: args[2][0] is of type float")
    assert first["own"] == "RuntimeError: rank 1 raised KeyError: 'my own'"
    assert last["own"] == "KeyError: 'my own'"
    assert first["rows in aux"].startswith("ShapeError: the results of two blocks")
    assert last["rows in aux"].startswith("RuntimeError: rank 0 raised ShapeError")
    assert first["progress"] == "ValueError: cannot show"
    assert first["after"] == last["after"] == alone["mean blocks"]


@pytest.mark.parametrize("scenario", ["frozen", "absent"])
def test_nobody_waits_for_a_process_that_does_not_come(scenario: str, tmp_path: Path) -> None:
    first, last = run(scenario, 2, tmp_path, code=3)
    assert last == {}
    assert first["error"].startswith("TimeoutError: rank 0 of 2 waited 1 s for")
    assert 1.0 <= float(first["seconds"]) < 30.0
    assert first["again"].startswith("RuntimeError: an earlier call")


def call(**options: Any) -> Any:
    return graphjit.distributed.value_and_grad(loss, has_aux=True, **options)(*arguments(20))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"blocks": 0}, ValueError, "one or more"),
        ({"blocks": 2.5}, TypeError, "an integer"),
        ({"reduction": "max"}, ValueError, "'mean' or 'sum'"),
        ({"in_axes": 0}, TypeError, "one entry for each positional argument"),
        ({"in_axes": (None, 0)}, ValueError, "2 entries"),
        ({"in_axes": (None, 1, 0)}, ValueError, "axis 0"),
        ({"in_axes": (0, 0, 0)}, graphjit.DerivativeError, "is differentiated"),
        ({"in_axes": (None, None, None)}, graphjit.ShapeError, "without data"),
        ({"argnums": 5}, graphjit.DerivativeError, "argnums=5"),
        ({"comm": 3}, TypeError, "communicator of mpi4py"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(**options)


def test_aux_that_cannot_be_averaged() -> None:
    params, x, y = arguments(20)

    def counted(p: Any, x: Any, y: Any) -> Any:
        return loss(p, x, y)[0], {"positive": np.sum(y > 0)}

    make = graphjit.distributed.value_and_grad
    with pytest.raises(graphjit.DerivativeError, match=r"result\[0\]\[1\]\['positive'\] is int64"):
        make(counted, has_aux=True)(params, x, y)
    (_, aux), _ = make(counted, has_aux=True, reduction="sum")(params, x, y)
    assert aux == {"positive": np.sum(y > 0)}


def test_several_arguments_keywords_and_texts_among_data() -> None:
    @graphjit.distributed.value_and_grad(argnums=(0, 2), blocks=3)
    def fit(w: Any, data: Any, b: Any, *, scale: float) -> Any:
        """Text."""
        return scale * np.mean((data["x"] * w + b - data["y"]) ** 2)

    assert fit.__name__ == "fit"
    data = {"x": np.arange(7.0), "y": np.ones(7), "unit": "metre", "more": None}
    value, (dw, db) = fit(2.0, data, 1.0, scale=0.5)
    assert value == 0.5 * np.mean((2 * data["x"]) ** 2)
    np.testing.assert_allclose([dw, db], [np.mean(2 * data["x"] ** 2), np.mean(2 * data["x"])])


def test_progress_counts_blocks() -> None:
    seen: list[tuple[int, int]] = []
    call(blocks=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_progress_of_long_calls_is_written_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patience = "graphjit.distributed.progress.PATIENCE"
    monkeypatch.setattr(patience, 1e9)  # on a busy machine this short call may take two seconds
    call()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(patience, 0.0)
    call()
    assert "gradient of loss: 1 of 8 blocks" in capsys.readouterr().err
    call(progress=False)
    assert capsys.readouterr().err == ""


def test_it_is_not_traced() -> None:
    inner = graphjit.distributed.value_and_grad(loss, has_aux=True)
    with pytest.raises(graphjit.TraceError, match="while another function is traced"):
        graphjit.jit(lambda x: inner(arguments(20)[0], x, x[:, 0]))(np.ones((20, 5)))


def test_without_mpi4py_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"pip install 'graphjit\[mpi\]'"):
        graphjit.distributed.value_and_grad(loss)
    with pytest.raises(ImportError, match=r"pip install 'graphjit\[mpi\]'"):
        graphjit.distributed.rows(5)


def test_importing_the_module_loads_no_mpi() -> None:
    code = "import sys, graphjit.distributed; sys.exit('mpi4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
