"""Pages are whole, self-contained and safe, and say what the stages say."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import CASES, Reader, boxes_of, data_of, items_of, lowered, page_of
from typer.testing import CliRunner

import graphjit
from graphjit.cli.main import app
from graphjit.ir.node import with_bodies
from graphjit.ir.printer import number_nodes
from graphjit.loops.printer import print_kernel
from graphjit.schedule.fuse import why_not_fused
from graphjit.schedule.printer import arena_intervals
from graphjit.view import encode
from graphjit.view.board import Board, Item
from graphjit.view.encode import graph_board
from graphjit.view.figures import plot_cost, plot_memory
from graphjit.view.groups import group
from graphjit.view.layout import place
from graphjit.view.libraries import MissingLibrary
from graphjit.view.page import page
from graphjit.view.work import node_costs, step_work

NAMES = list(CASES)
SMALL = [name for name in NAMES if name != "long"]


# --------------------------------------------------------------------------------------------------- the file


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", NAMES)
def test_pages_are_well_formed(name):
    reader = Reader(page_of(name))
    tags = Counter(tag for tag, _ in reader.tags)
    assert tags["script"] == 2
    assert tags["html"] == tags["head"] == tags["body"] == tags["title"] == 1
    assert "".join(reader.texts["title"]) == f"{CASES[name][1].__name__} - graphjit"


def test_broken_pages_are_noticed():
    with pytest.raises(AssertionError):
        Reader("<p><b></p></b>")
    with pytest.raises(AssertionError):
        Reader("<div>")


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", NAMES)
def test_pages_make_no_request(name):
    reader = Reader(page_of(name))
    for tag, attributes in reader.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not {"src", "href", "srcset", "action", "poster"} & set(attributes), (tag, attributes)
    policy = [found["content"] for _, found in reader.tags if found.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_style_and_script_name_no_address():
    for asset in files("graphjit.view").joinpath("assets").iterdir():
        text = asset.read_text(encoding="utf-8")
        found = re.findall(
            r"https?:|//\w+\.\w+|\bfetch\b|XMLHttpRequest|WebSocket|EventSource|sendBeacon|\bimport\b|url\(|\beval\b|innerHTML",
            text,
        )
        assert not found, (asset.name, found)


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_small_besides_the_graph(name):
    text = page_of(name)
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert len(text.encode()) - len(data[1].encode()) < 100_000
    nodes = len(items_of(data_of(text), "optimized"))
    assert len(data[1]) < 100_000 + 400 * nodes


@pytest.mark.parametrize("name", SMALL)
def test_pages_of_one_call_are_equal(name):
    """Who keeps a page beside a result can compare it with a later one."""
    assert page(*lowered.__wrapped__(name)) == page_of(name)


def test_what_users_write_stays_text():
    def hostile(x):
        return np.sin(x) + 2.0  # </script><script>document.title = "</title>"</script><!-- /* the data */

    hostile.__name__ = '"><img src=x onerror=alert(1)></title>'
    text = page(graphjit.jit(hostile).lower(np.ones(3)))
    reader = Reader(text)
    assert Counter(tag for tag, _ in reader.tags)["script"] == 2
    assert "img" not in dict(reader.tags)
    assert "".join(reader.texts["title"]) == f"{hostile.__name__} - graphjit"
    data = data_of(text)
    assert data["name"] == hostile.__name__
    lines = [line for _, line in data["files"][0]["lines"]]
    assert any(line.endswith("</script><!-- /* the data */") for line in lines)


def test_names_of_arguments_are_data():
    def named(tree):
        return tree["</script>'\""] * 2.0

    text = page(graphjit.jit(named).lower({"</script>'\"": np.ones(3)}))
    Reader(text)
    labels = [item["label"] for item in items_of(data_of(text), "trace")]
    assert any("</script>" in label for label in labels)


# ------------------------------------------------------------------------------------------------- the stages


@pytest.mark.parametrize("name", SMALL)
def test_graph_stages_are_those_of_the_call(name):
    found, own = lowered(name)
    graphs = {"optimized": found.optimized, "gradient" if own else "trace": found.graph}
    if own is not None:
        graphs["trace"] = own
    for key, graph in graphs.items():
        items = items_of(data_of(page_of(name)), key)
        operations = [item for item in items if item["number"] >= 0]
        assert len(operations) == len(list(with_bodies(graph)))
        outside = {item["number"]: item for item in operations if item["parent"] == -1}
        for node, number in number_nodes(graph).items():
            item = outside[number]
            assert item["type"] == str(node.type)
            assert item["origin"] == node.origin
            args = [items[arg]["number"] for arg in item["args"]]
            assert args == [number_nodes(graph)[arg] for arg in node.args]
        results = [item for item in items if item["kind"] == "output" and item["parent"] == -1]
        assert [items[item["args"][0]]["number"] for item in results] == [
            number_nodes(graph)[node] for node in graph.outputs
        ]


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_the_program(name):
    found, _ = lowered(name)
    data = data_of(page_of(name))
    items = {item["label"]: item for item in items_of(data, "program") if "moves" in (item["facts"] or {})}
    each = found.cost().steps
    assert set(each) <= set(items)
    for step, cost in each.items():
        facts = items[step]["facts"]
        assert facts["moves"] == f"{cost.nbytes} B"
        assert facts["computes"] == f"{cost.flops} flops"
        assert facts["takes about"] == f"{cost.nanoseconds} ns"
        assert items[step]["ns"] == cost.nanoseconds
    total = found.cost().total
    assert data["total"] == {"bytes": total.nbytes, "flops": total.flops, "ns": total.nanoseconds}
    assert data["memory"]["arena"] == found.program.arena
    assert data["arena"]["steps"] == [step.name for step in found.program.steps]
    assert [loop for loop, _ in data["loops"]] == list(found.loops)


def test_loops_that_do_not_fit_leave_room_for_others(monkeypatch):
    found, _ = lowered("network")
    sizes = {name: len(print_kernel(kernel)) for name, kernel in found.loops.items()}
    assert len(sizes) > 1
    assert next(iter(sizes.values())) > min(sizes.values())
    monkeypatch.setattr(encode, "LOOPS", min(sizes.values()))
    shown = dict(encode.as_data(found)["loops"])
    assert set(shown) == set(sizes)
    assert [sizes[name] for name, text in shown.items() if "too large" not in text] == [min(sizes.values())]


@pytest.mark.parametrize("name", NAMES)
def test_steps_read_what_fusion_says(name):
    """What is found by following a step's expressions is what the scheduler loads."""
    found, _ = lowered(name)
    for i, step in enumerate(found.program.steps):
        loaded = {node for node in found.fusion.from_outside(i) if node in found.program.buffers}
        assert set(step_work(found.program, step).reads) == loaded, step.name


@pytest.mark.parametrize("name", NAMES)
def test_edges_say_why_steps_are_two(name):
    found, _ = lowered(name)
    data = data_of(page_of(name))
    items, strings = items_of(data, "program"), data["strings"]
    steps = {step.name: step for step in found.program.steps}
    fusion, asked = found.fusion, 0
    for source, target, *rest in (
        edge for box in boxes_of(data, "program").values() for edge in box["edges"]
    ):
        first, second = steps.get(items[source]["label"]), steps.get(items[target]["label"])
        why = strings[rest[2]] if len(rest) > 2 else ""
        if first is None or second is None or not first.nodes or not second.nodes:
            assert not why
            continue
        reasons = {
            why_not_fused(fusion, a, b) for a in step_work(found.program, second).reads for b in second.nodes
        }
        assert set(why.split("; ")) <= {part for reason in reasons for part in reason.split("; ")} | {""}
        asked += bool(why)
    assert asked or len(steps) < 2


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_lines_sum_up(name):
    data = data_of(page_of(name))
    total = sum(line[2] for line in data["lines"]) + data["other"]
    assert total == pytest.approx(data["total"]["ns"], rel=1e-3, abs=0.2)
    assert all(0 <= back <= ns + 0.01 for _, _, ns, back in data["lines"])


@pytest.mark.parametrize("name", SMALL)
def test_shares_of_nodes_are_those_of_their_steps(name):
    found, _ = lowered(name)
    shares = node_costs(found.program, found.loops)
    items = items_of(data_of(page_of(name)), "optimized")
    assert sum(shares.values()) == pytest.approx(found.cost().total.nanoseconds)
    shown = sum(item["ns"] for item in items if item["parent"] == -1)
    assert shown == pytest.approx(sum(shares.values()), rel=1e-3, abs=0.2)


def test_the_dearest_line_is_the_one_with_most_work():
    def uneven(x, w):
        y = x + 1.0
        z = y @ w @ w
        return z - 2.0

    data = data_of(page(graphjit.jit(uneven).lower(np.ones((300, 300)), np.ones((300, 300)))))
    best = max(data["lines"], key=lambda line: line[2])
    text = dict(data["files"][0]["lines"])[best[1]]
    assert text.strip() == "z = y @ w @ w"
    assert best[2] > 0.9 * data["total"]["ns"]


# --------------------------------------------------------------------------------------------- there and back


def answers_of(function: Any, *args: Any) -> dict[str, list[str]]:
    """For each operation of the way back: the operations that it answers, as ``name number``."""
    items = items_of(data_of(page(function.lower(*args))), "gradient")
    text = lambda item: f"{item['label']} {item['number']}"
    return {
        text(item): [text(items[at]) for at in item["answers"]]
        for item in items
        if item["phase"] == "backward"
    }


def test_each_operation_of_the_way_back_answers_one():
    def f(x):
        return np.sum(np.sin(x) * np.cos(x * 2.0) * np.exp(x))

    found = answers_of(graphjit.value_and_grad(f), np.ones(3))
    assert found
    assert all(len(answered) == 1 for answered in found.values()), found
    assert {answered[0].split()[0] for answered in found.values()} == {
        "sin",
        "cos",
        "mul",
    }  # others fold away


def test_equal_operations_of_one_line_are_told_apart():
    def f(x, y):
        return np.sum(np.sin(np.sin(x) + y))

    found = answers_of(graphjit.value_and_grad(f), np.ones(3), np.ones(3))
    assert {name.split()[0]: answered for name, answered in found.items() if answered[0] == "sin 2"} == {
        "cos": ["sin 2"],
        "mul": ["sin 2"],
    }
    assert {name.split()[0] for name, answered in found.items() if answered == ["sin 4"]} >= {"cos"}


def test_what_nobody_needs_is_not_answered_by_another():
    """The outer sine is not in the graph of the gradient, where only its cosine is needed."""

    def f(x, y):
        return np.sum(np.sin(np.sin(x) + y))

    found = answers_of(graphjit.grad(f), np.ones(3), np.ones(3))
    cosines = [answered for name, answered in found.items() if name.startswith("cos")]
    assert sorted(cosines) == [[], ["sin 2"]]


def test_passes_replace_what_is_answered():
    def f(w, x):
        return np.sum((x @ w) * w)

    items = items_of(data_of(page(graphjit.grad(f).lower(np.ones(3), np.ones((3, 3))))), "optimized")
    back = [item for item in items if item["origin"] == "vjp of contract"]
    assert back
    labels = {items[at]["label"] for item in back for at in item["answers"]}
    assert "contract" not in labels


@pytest.mark.parametrize("name", ["recurrent", "newton"])
def test_bodies_of_the_way_back_answer_bodies_of_the_way_there(name):
    items = items_of(data_of(page_of(name)), "gradient")
    inside = [
        item for item in items if item["parent"] != -1 and item["phase"] == "backward" and item["answers"]
    ]
    assert inside
    for item in inside:
        assert all(items[at]["phase"] == "" for at in item["answers"])
        rule = item["origin"].removeprefix("vjp of ")
        assert {(items[at]["label"], items[at]["line"]) for at in item["answers"]} == {(rule, item["line"])}


def test_what_the_way_back_keeps():
    """Of a recurrence: its states, stacked, which the loop back reads, and the matrix."""
    data = data_of(page_of("recurrent"))
    kept = {(kind, op): (nbytes, type) for _, kind, nbytes, type, op, *_ in data["arena"]["kept"]}
    assert kept["kept", "scan"] == (30 * 40 * 8, "f64[30,40]")
    assert kept["argument", "w"] == (40 * 40 * 8, "f64[40,40]")
    (scan,) = [row for row in data["arena"]["kept"] if row[4] == "scan"]
    lives = {life[0]: life for life in data["arena"]["lives"]}
    assert lives[scan[0]][7] == 1
    steps = data["arena"]["steps"]
    assert scan[7] == [step for step in scan[7] if steps.index(step) > steps.index(scan[6])]
    assert data["arena"]["border"] == steps.index(scan[7][0])


def test_what_nobody_derives_keeps_nothing():
    arena = data_of(page_of("plain"))["arena"]
    assert arena["kept"] == []
    assert arena["border"] is None


@pytest.mark.parametrize("name", NAMES)
def test_the_arena_is_the_memory_plan(name):
    found, _ = lowered(name)
    arena = data_of(page_of(name))["arena"]
    planned = {
        (i.buffer.name, i.offset, i.nbytes, i.first, i.last)
        for i in arena_intervals(found.program, found.fusion)
    }
    shown = {tuple(life[:5]) for life in arena["lives"] if not life[0].startswith("inside ")}
    assert shown == planned
    assert all(life[1] + life[2] <= arena["bytes"] for life in arena["lives"])


# ------------------------------------------------------------------------------------------ groups and places


@pytest.mark.parametrize("name", NAMES)
def test_every_box_has_a_place_and_none_too_many(name):
    data = data_of(page_of(name))
    for key in [stage["key"] for stage in data["stages"]]:
        items, boxes = items_of(data, key), boxes_of(data, key)
        placed: list[int] = []
        for parent, box in boxes.items():
            members = [number for row in box["rows"] for number in row[1::2] if number >= 0]
            points = [number for row in box["rows"] for number in row[1::2] if number < 0]
            assert len(members) <= 400
            assert all(items[number]["parent"] == int(parent) for number in members)
            used = [point for edge in box["edges"] if edge[3] != 0 for point in edge[3]]
            assert sorted(points) == sorted(used)
            placed += members
        assert sorted(placed) == [number for number, item in enumerate(items) if not item["hidden"]]


def test_many_boxes_are_grouped_by_line():
    items = items_of(data_of(page_of("long")), "gradient")
    tops = [item for item in items if item["parent"] == -1 and not item["hidden"]]
    assert len(tops) < 20
    groups = [item["label"] for item in tops if item["kind"] == "group"]
    assert any(label.endswith(", way back") for label in groups)
    assert all(label.startswith("__init__.py:") for label in groups)


def test_long_lists_become_parts():
    board = Board("key", "title", "")
    for _ in range(1000):
        board.add(Item("mul", "scalar"))
    group(board, most=30, part=10)
    children = board.children()
    assert max(map(len, children.values())) <= 30
    assert len(children[-1]) == 10
    leaves = [number for number, item in enumerate(board.items) if item.kind == "scalar"]
    assert len(leaves) == 1000


def test_rows_lead_downwards_and_inputs_stand_near_their_readers():
    edges = [(0, 2), (2, 3), (3, 4), (0, 4), (1, 4)]
    placed = place(5, edges, inputs={0, 1})
    row = {number: at for at, entries in enumerate(placed.rows) for _, number in entries}
    assert all(row[a] < row[b] for a, b in edges)
    assert row[1] == row[4] - 1
    assert [len(path or ()) for path in placed.paths] == [0, 0, 0, 2, 0]
    for entries in placed.rows:
        columns = [column for column, _ in entries]
        assert columns == sorted(set(columns))


def test_circles_of_groups_have_places():
    placed = place(2, [(0, 1), (1, 0)])
    assert [[number for _, number in row] for row in placed.rows] == [[0], [1]]
    assert placed.paths == [[], []]


def test_edges_beyond_the_limit_are_not_drawn():
    count = 200
    edges = [(i, i + 1) for i in range(count - 1)] + [(0, i) for i in range(2, count)]
    placed = place(count, edges, {0})
    assert None in placed.paths
    assert all(path is not None for path in placed.paths[: count - 1])


def test_bodies_lie_in_their_loop():
    board = graph_board("trace", "", "", lowered("recurrent")[1], {})
    (loop,) = [number for number, item in enumerate(board.items) if item.kind == "loop"]
    inside = [item.label for item in board.items if item.parent == loop]
    assert {"contract", "add", "tanh", "mul", "sum", "result 0"} <= set(inside)
    choices = graph_board("trace", "", "", lowered("choice")[1], {})
    assert [item.label for item in choices.items if item.kind == "body"] == ["branches 0", "branches 1"]


# ----------------------------------------------------------------------------------------- command, notebooks


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.py").write_text(
        "import numpy as np\n\n\ndef loss(w, x):\n    return np.mean(np.tanh(x @ w) ** 2)\n\n\n"
        "loss.example = (np.ones(20), np.ones((100, 20)))\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_files(model):
    wanted = ["--html", "page.html", "--plot-memory", "memory.svg", "--plot-cost", "cost.png"]
    result = CliRunner().invoke(app, ["inspect", "model.py:loss", "--grad", *wanted])
    assert result.exit_code == 0, result.output
    sizes = [(model / name).stat().st_size for name in wanted[1::2]]
    assert result.output.splitlines() == [
        f"wrote {name}, {size} bytes" for name, size in zip(wanted[1::2], sizes, strict=True)
    ]
    text = (model / "page.html").read_text()
    Reader(text)
    assert [stage["key"] for stage in data_of(text)["stages"]] == [
        "trace",
        "gradient",
        "optimized",
        "program",
    ]
    assert "model.py" in json.dumps(data_of(text)["files"])
    assert (model / "memory.svg").read_text().startswith("<?xml")
    assert (model / "cost.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "nowhere/page.html"], "cannot be written"),
        (["--plot-cost", "cost.txt"], "ends with .png, .svg, .pdf"),
        (["--plot-memory", "memory"], "ends with .png, .svg, .pdf"),
    ],
)
def test_mistakes_are_one_line(model, options, message):
    result = CliRunner().invoke(app, ["inspect", "model.py:loss", *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_mistakes_of_the_function_are_no_fault_of_the_file(model):
    (model / "wrong.py").write_text(
        "import graphjit\n\n\ndef last(x):\n    return graphjit.scan(lambda c, _: (c * x, None), x, None)[0]\n"
        "\n\nlast.example = (1.0,)\n"
    )
    told = [
        CliRunner().invoke(app, ["inspect", "wrong.py:last", *options]).stderr
        for options in ([], ["--html", "page.html"])
    ]
    assert "length is not given" in told[0]
    assert told[1] == told[0]


@pytest.mark.parametrize(
    ("library", "options"),
    [("igraph", ["--html", "p.html"]), ("matplotlib.figure", ["--plot-cost", "c.png"])],
)
def test_a_missing_library_is_named(model, monkeypatch, library, options):
    monkeypatch.setitem(sys.modules, library, None)
    result = CliRunner().invoke(app, ["inspect", "model.py:loss", *options])
    assert result.exit_code == 2
    assert f"the view needs {library.partition('.')[0]}" in result.stderr
    assert "pip install 'graphjit[view]'" in result.stderr
    with pytest.raises(MissingLibrary):
        (plot_cost if library != "igraph" else lambda _, low: page(low))(Path("c.png"), lowered("plain")[0])


def test_nothing_of_it_is_loaded_with_the_package():
    code = "import sys, graphjit; print([m for m in ('igraph', 'matplotlib', 'graphjit.view.page', 'graphjit.lowered') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_notebooks_show_the_page(monkeypatch):
    @graphjit.jit
    def doubled(x):
        return x * 2.0

    assert "nothing is compiled yet" in doubled._repr_html_()
    doubled(np.ones(3))
    doubled(np.ones((4, 5)))
    lower = doubled.lower(np.ones(3))
    for shown, type in ((doubled, "f64[4,5]"), (lower, "f64[3]"), (lower.compile(), "f64[3]")):
        frame = Reader(shown._repr_html_())
        ((tag, attributes),) = frame.tags
        assert (tag, attributes["sandbox"]) == ("iframe", "allow-scripts")
        inside = attributes["srcdoc"]
        Reader(inside)
        assert items_of(data_of(inside), "trace")[0]["type"] == type
    monkeypatch.setitem(sys.modules, "igraph", None)
    for shown in (doubled, lower):
        note = html.unescape(shown._repr_html_())
        assert note.startswith(f"<code>{shown!r}</code>")
        assert "pip install" in note
        assert "<iframe" not in note


def test_notebooks_show_which_arguments_are_given_up():
    def doubled(x):
        return x * 2.0

    given_up = graphjit.jit(doubled, donate_argnums=0)
    given_up(np.ones(3))
    assert given_up._repr_html_() == given_up.lower(np.ones(3))._repr_html_()
    kept = graphjit.jit(doubled).lower(np.ones(3))
    assert given_up.lower(np.ones(3)).memory().total < kept.memory().total


@pytest.mark.parametrize("name", ["network", "plain", "long"])
def test_figures_are_drawn(name, tmp_path):
    found, _ = lowered(name)
    for draw in (plot_memory, plot_cost):
        path = tmp_path / f"{draw.__name__}.svg"
        draw(path, found)
        text = path.read_text()
        assert "</svg>" in text
        assert text.count("<path") > 5


def test_figures_have_the_numbers_of_the_page(tmp_path, monkeypatch):
    """The bars are the lines and steps of the page, longest first."""
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(
        Axes, "barh", lambda self, y, width, left=None, **_: drawn.append((list(width), left))
    )
    found, _ = lowered("network")
    plot_cost(tmp_path / "cost.svg", found)
    data = data_of(page_of("network"))
    shown = sorted([*(line[2] for line in data["lines"]), data["other"]], reverse=True)
    bars = [round(there + back, 2) for there, back in zip(drawn[0][0], drawn[1][0], strict=True)]
    assert [bar for bar in bars if bar] == pytest.approx([ns for ns in shown if ns], abs=0.05)
    assert drawn[2][0] == sorted(
        (float(cost.nanoseconds) for cost in found.cost().steps.values()), reverse=True
    )
