"""The command line: every stage, comparison, question and mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graphjit import pipeline
from graphjit.cli.main import app
from graphjit.cli.stages import STAGES, Stages
from graphjit.config import SETTINGS
from graphjit.interpret import interpret
from graphjit.ir.opdef import REGISTRY
from graphjit.ir.parser import parse_graph
from graphjit.loops.estimate import product_ns
from graphjit.machine import machine

ROOT = Path(__file__).parents[2]
SOURCE = """\
import numpy as np

import graphjit


def softmax_loss(w, x):
    z = np.tanh(x @ w)
    e = np.exp(z - np.max(z, axis=1, keepdims=True))
    p = e / np.sum(e, axis=1, keepdims=True)
    return -np.mean(np.log(p[:, 0]))


EXAMPLES = {"softmax_loss": (np.ones((12, 16)), np.ones((20, 12)))}


def pick(x, i):
    return np.sum(x[i] * 2.0)


pick.example = (np.ones((5, 3)), np.array([0, 2]))


def nothing():
    return np.zeros(3)


def shifted(x, by=1.0):
    return x + by


def badly_declared(x):
    return x


badly_declared.example = [1.0]


def branching(x):
    return x if float(x) > 0 else -x


branching.example = (1.0,)


def failing(x):
    return {}["key"]


failing.example = (1.0,)


@graphjit.value_and_grad
def decorated(x):
    return x * x


decorated.example = (3.0,)


class Model:
    def square(x):
        return x * x
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small file to inspect, in the current directory."""
    (tmp_path / "model.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return "model.py:"


def run(*args: str) -> str:
    done = CliRunner().invoke(app, list(args))
    assert done.exit_code == 0, (args, done.output, done.exception)
    return done.stdout.rstrip("\n")


def refused(*args: str) -> str:
    """The one line that a mistake prints."""
    done = CliRunner().invoke(app, list(args))
    assert done.exit_code == 2, (args, done.output, done.exception)
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    return line


# ---------------------------------------------------------------------------------------------------- inspect


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("llvm", "asm")])
def test_golden_stages(model, stage, golden):
    if stage in ("program", "loops") and machine().vector_bytes != 64:
        pytest.skip("lanes and estimates in the files are those of 64-byte vectors")
    text = run("inspect", model + "softmax_loss", "--grad", "--stage", stage)
    golden(f"softmax_loss.{stage}.txt", text + "\n")


def test_native_stages(model):
    llvm = run("inspect", model + "softmax_loss", "--grad", "--stage", "llvm")
    assert "define i64 @program(ptr %inputs, ptr %outputs)" in llvm
    asm = run("inspect", model + "softmax_loss", "--grad", "--stage", "asm")
    assert "program:" in asm
    assert "define" not in asm


@pytest.mark.parametrize("stage", ["trace", "simplified", "gradient", "optimized"])
def test_printed_graphs_parse_back_and_show_the_source(model, stage):
    text = run("inspect", model + "softmax_loss", "--value-and-grad", "--stage", stage)
    assert "# model.py:8  e = np.exp(z - np.max(z, axis=1, keepdims=True))" in text
    graph = parse_graph(text)
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(12, 16)), rng.normal(size=(20, 12))
    z = np.tanh(x @ w)
    p = np.exp(z) / np.sum(np.exp(z), axis=1, keepdims=True)
    np.testing.assert_allclose(interpret(graph, w, x)[0], -np.mean(np.log(p[:, 0])), rtol=1e-12)


def test_stages_are_those_of_the_pipeline():
    stages = Stages(lambda x: np.sum(np.tanh(x) ** 2), (np.ones(5),), "grad")
    whole = stages.whole
    assert whole.optimized.key() == pipeline.optimize(stages.graph("gradient")).key()
    program = pipeline.schedule(whole.optimized)[1]
    assert [s.name for s in whole.program.steps] == [s.name for s in program.steps]
    assert whole.loops.keys() == pipeline.lower(program).keys()
    assert stages.text("llvm") == pipeline.compile_graph(stages.graph("gradient")).module.render()


def test_arguments_from_the_command_line(model):
    text = run(
        "inspect", model + "softmax_loss", "--stage", "trace", "--arg", "f32[3,4]", "--arg", "f32[5,3]"
    )
    assert "%0 = input name='w' : f32[3,4]" in text
    assert "return" in text
    assert ": f64[]" in run("inspect", model + "shifted", "--arg", "2.5", "--stage", "trace")
    assert ": i64[]" in run("inspect", model + "shifted", "--arg", "2", "--arg", "i64[]", "--stage", "trace")
    assert ": f64[]" in run("inspect", model + "Model.square", "--arg", "2.5", "--stage", "trace")
    assert "f64[3]" in run("inspect", model + "nothing", "--stage", "trace")


def test_gather_reads_its_example(model):
    text = run("inspect", model + "pick", "--grad", "--stage", "program")
    assert "IndexError: index is out of bounds for axis 0 with size 5" in text
    assert "check" in run("inspect", model + "pick", "--grad", "--stage", "loops")


def test_forward_mode(model):
    text = run("inspect", model + "shifted", "--jvp", "--arg", "f64[4]", "--stage", "gradient")
    assert parse_graph(text).inputs[1].type == parse_graph(text).inputs[0].type
    assert text.count("input name") == 2


def test_positions_to_differentiate(model):
    both = run("inspect", model + "softmax_loss", "--grad", "--argnums", "0,1")
    assert [str(n.type) for n in parse_graph(both).outputs] == ["f64[12,16]", "f64[20,12]"]
    second = run("inspect", model + "softmax_loss", "--grad", "--argnums", "1")
    assert [str(n.type) for n in parse_graph(second).outputs] == ["f64[20,12]"]


def test_decorated_functions_show_what_they_compile(model):
    outputs = parse_graph(run("inspect", model + "decorated")).outputs
    assert len(outputs) == 2


def test_diff(model):
    text = run("inspect", model + "softmax_loss", "--grad", "--diff", "gradient", "optimized")
    lines = text.splitlines()
    assert lines[:2] == ["--- gradient", "+++ optimized"]
    assert any(line.startswith("+") and "contract" in line for line in lines) or any(
        line.startswith("-") for line in lines
    )
    assert run("inspect", model + "softmax_loss", "--diff", "trace", "trace") == ""


def test_why_not_fused(model):
    lines = run("inspect", model + "softmax_loss", "--grad", "--why-not-fused").splitlines()
    steps = [
        s
        for s in run("inspect", model + "softmax_loss", "--grad", "--stage", "program").splitlines()
        if s.startswith("  k")
    ]
    assert len(lines) == len(steps) - 1
    assert "(k0) and" in lines[0]
    assert "runs as a call or loop nest of its own" in lines[0]
    optimized = run("inspect", model + "softmax_loss", "--grad")
    product = next(line.split()[0][1:] for line in optimized.splitlines() if "= contract" in line)
    tanh = next(line.split()[0][1:] for line in optimized.splitlines() if "= tanh" in line)
    assert run("inspect", model + "softmax_loss", "--grad", "--why-not-fused", product, tanh) == lines[0]
    assert "share a kernel" in run("inspect", model + "softmax_loss", "--grad", "--why-not-fused", tanh, tanh)
    assert "no step of its own" in run(
        "inspect", model + "softmax_loss", "--grad", "--why-not-fused", "0", tanh
    )
    assert run("inspect", model + "nothing", "--why-not-fused") == "everything runs in 1 step"


LOOPS = """
import numpy as np
import graphjit

def recurrent(w, u, x):
    h, ys = graphjit.scan(lambda h, row: (np.tanh(row @ w + h @ u), h @ w), np.zeros(16), x)
    return np.sum(ys ** 2)

def until(w, x):
    while np.sum(x * x) > 1e-3:
        x = np.tanh(x @ w) * 0.5
    return x
"""


def test_why_products_stay_in_loops(tmp_path, monkeypatch):
    (tmp_path / "loops.py").write_text(LOOPS)
    monkeypatch.chdir(tmp_path)
    shapes = ["--arg", "f64[16,16]", "--arg", "f64[16,16]", "--arg", "f64[50,16]"]
    lines = run("inspect", "loops.py:recurrent", "--why-not-fused", *shapes).splitlines()
    inside = [line for line in lines if line.startswith("contract")]
    assert inside == [
        "contract f64[16] in the scan at loops.py:6: a step hands on what depends on it, and it needs carry0, "
        "which the step before handed on"
    ]
    shapes = ["--arg", "f64[16,16]", "--arg", "f64[16]"]
    assert "contract f64[16] in the while at loops.py:11: a step hands on" in run(
        "inspect", "loops.py:until", "--why-not-fused", *shapes
    )


def test_graph_for_other_tools(model):
    dot = run("inspect", model + "softmax_loss", "--stage", "trace", "--dot")
    assert dot.startswith('digraph "softmax_loss" {')
    assert dot.endswith("}")
    data = json.loads(run("inspect", model + "softmax_loss", "--stage", "trace", "--json"))
    assert data["name"] == "softmax_loss"
    assert data["nodes"][0]["shape"] == [12, 16]


def test_timings(model):
    lines = run("inspect", model + "softmax_loss", "--grad", "--time-passes").splitlines()
    steps = [line.split()[:2] for line in lines[2:]]
    for wanted in (
        ["trace", "grad"],
        ["graph", "simplify"],
        ["schedule", "fuse"],
        ["loops", "vectorize"],
        ["llvm", "machine"],
    ):
        assert wanted in steps, wanted
    numbers = [float(line.split()[-1]) for line in lines[2:]]
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.1)


def test_program_tells_costs(model):
    lines = run("inspect", model + "softmax_loss", "--grad", "--stage", "program").splitlines()
    costs = [
        [int(word) for word in re.findall(r"\d+", line)]
        for line in lines
        if line.startswith(("    moves", "  total moves"))
    ]
    steps = [line for line in lines if line.startswith("  k")]
    assert len(costs) == len(steps) + 1
    assert [sum(column) for column in zip(*costs[:-1], strict=True)] == costs[-1]
    product = lines.index("  k0 product, (20, 12) by (12, 16), strides (12, 1) and (16, 1)")
    moved, flops = 8 * (20 * 12 + 12 * 16 + 20 * 16), 2 * 20 * 12 * 16
    took = product_ns(flops // 2)
    assert lines[product + 3] == f"    moves {moved} B, {flops} flops, about {took} ns"


def test_memory(model):
    lines = run("inspect", model + "softmax_loss", "--grad", "--memory").splitlines()
    assert lines[0].startswith("arena ")
    size, steps = int(lines[0].split()[1]), int(lines[0].split()[5])
    rows = [line.split() for line in lines[2:-2]]
    assert f" {len(rows)} values" in lines[0]
    for name, nbytes, place, life, *_ in rows:
        start, end = map(int, place.split(".."))
        assert name.startswith("a")
        assert end - start == int(nbytes)
        assert end <= size
        assert len(life) == steps
        assert re.fullmatch(r"\.*o#*\.*", life)
    assert len(lines[-2].split()[-1]) == steps
    peak = int(lines[-1].split()[1])
    assert max(sum(int(row[1]) for row in rows if row[3][i] != ".") for i in range(steps)) >= peak > 0
    assert run("inspect", model + "nothing", "--memory") == "arena 0 bytes, 0 values, 1 steps"


def test_memory_of_many_steps_shares_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = "import numpy as np\n\ndef deep(x, w):\n    for _ in range(60):\n        x = np.cumsum(x @ w, axis=0)\n    return x\n"
    Path("deep_model.py").write_text(body)
    lines = run(
        "inspect", "deep_model.py:deep", "--memory", "--arg", "f64[20,20]", "--arg", "f64[20,20]"
    ).splitlines()
    assert lines[0].endswith("120 steps")
    assert lines[1].endswith("(2 steps a column)")
    assert {len(line.split()[3]) for line in lines[2:-2]} == {60}


MISTAKES = {
    "nosuch.py:f": "there is no file nosuch.py",
    "model.py": "names no function; write FILE.py:FUNCTION",
    "model.py:nosuch": "model.py has no function 'nosuch'; it has softmax_loss, pick, nothing",
    "model.py:shifted": "shifted takes (x): pass --arg for each",
    "model.py:badly_declared": "the example of badly_declared is a list; declare a tuple",
    "model.py:softmax_loss --arg 1.0": "softmax_loss does not take 1 arguments",
    "model.py:shifted --arg f99[3]": "not a type: 'f99[3]'",
    "model.py:shifted --arg lambda": "a number or another Python literal",
    "model.py:softmax_loss --stage nosuch": "there is no stage 'nosuch'; choose one of trace, simplified",
    "model.py:softmax_loss --diff trace nosuch": "there is no stage 'nosuch'",
    "model.py:softmax_loss --stage gradient": "the stage gradient needs --grad",
    "model.py:softmax_loss --grad --jvp": "exclude each other",
    "model.py:softmax_loss --grad --argnums one": "--argnums takes positions such as 0 or 0,2",
    "model.py:softmax_loss --grad --argnums 7": "argnums=7",
    "model.py:softmax_loss --stage loops --dot": "the stage loops is no graph",
    "model.py:softmax_loss --stage llvm --json": "the stage llvm is no graph",
    "model.py:softmax_loss 3 4": "node numbers are for --why-not-fused",
    "model.py:softmax_loss --why-not-fused 3": "takes two node numbers",
    "model.py:softmax_loss --why-not-fused 3 999": "has no node %999",
    "model.py:branching": f"model.py:{SOURCE[: SOURCE.index('if float(x) > 0')].count(chr(10)) + 1}",
    "model.py:failing": "tracing failed: KeyError: 'key' (at ",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line(model, command):
    assert MISTAKES[command] in refused("inspect", *command.split())


def test_a_file_that_does_not_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken_model.py").write_text("import numpy as np\nraise RuntimeError('no licence')\n")
    assert "importing broken_model.py failed: RuntimeError: no licence" in refused(
        "inspect", "broken_model.py:f"
    )
    Path("unfinished_model.py").write_text("def f(:\n")
    assert "importing unfinished_model.py failed: SyntaxError" in refused("inspect", "unfinished_model.py:f")


def test_textbook_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = run("inspect", "examples/textbook.py:loss", "--grad", "--stage", "optimized")
    (gradient,) = interpret(parse_graph(text), *(np.float64(v) for v in (2, 3, 4, 11)))
    assert gradient == -6.0


def test_module_can_be_run():
    command = [sys.executable, "-m", "graphjit", "flags"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("variable")


# ---------------------------------------------------------------------------------------------- ops and flags


def test_ops_lists_everything():
    text = run("ops")
    listed = {line.split()[0] for line in text.split("\n\n")[0].splitlines()[2:]}
    assert listed == set(REGISTRY)
    assert "np.tanh" in text
    assert "scipy.special.erf" in text
    traced = text.split("traced into these ops:")[1]
    assert "np.var" in traced
    assert "np.linalg.svd" not in traced


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_op_can_be_shown(name):
    text = run("ops", name)
    op = REGISTRY[name]
    assert text.startswith(f"{name}: {op.doc}")
    assert f":{op.line}\n" in text
    assert type(op.derivative).__name__ in text


def test_an_op_is_shown_whole():
    text = run("ops", "mul")
    assert text.startswith("mul: x * y")
    assert "declared    graphjit/ops/arithmetic.py:" in text
    assert "takes       2 arguments" in text
    assert "NumPy       np.multiply" in text
    assert "d/d argument 0:\n      lambda b, out, x, y: y\n" in text
    assert "d/d argument 1:\n      lambda b, out, x, y: x" in text
    assert "def _pow_in_exponent(" in run("ops", "pow")
    assert "attributes axes" in run("ops", "sum")
    assert "expansion\n      lambda b, out, x: b.mul(x, x)" in run("ops", "square")


def test_ops_are_found_by_their_numpy_name():
    assert run("ops", "np.multiply") == run("ops", "multiply") == run("ops", "mul")
    assert run("ops", "scipy.special.erf") == run("ops", "erf")
    assert "np.var is traced into ops by graphjit/trace/numpy/" in run("ops", "np.var")
    assert "np.linalg.svd is refused by" in run("ops", "np.linalg.svd")
    assert "there is no op and no NumPy function 'nosuch'" in refused("ops", "nosuch")


def test_flags_lists_every_setting():
    text = run("flags")
    for setting in SETTINGS:
        assert setting.name in text
        assert setting.help in text
