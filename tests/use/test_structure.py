"""The shape of the source tree: layers, no circles of imports, file sizes, one reader of the environment, a
documented public API.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import graphjit

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "graphjit"
LINE_LIMIT = 600

LAYERS: tuple[tuple[str, ...], ...] = (
    ("supported", "errors", "config", "machine", "limits", "effects", "mincut"),
    ("ir",),
    ("interpret",),
    ("ops", "progress"),
    ("passes", "transforms"),
    ("schedule",),
    ("loops",),
    ("backend",),
    ("running",),
    ("pipeline",),
    ("compilation", "lowered"),
    ("trace", "dispatch", "api", "debug"),
    ("nn", "optim", "random", "data"),
    ("distributed", "dask", "view"),
    ("cli", "__main__"),
)
"""Parts of the package from the lowest to the highest layer (design: "the road that data travels"). A part
imports its own and lower layers; the top layer may also import the package itself.
"""

LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def sources(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(module: str) -> str:
    """``graphjit.ir.node`` -> ``ir``; the package itself -> ``""``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


def module_name(path: Path) -> str:
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def is_module(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).with_suffix(".py").exists()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of graphjit, those inside functions and ``if TYPE_CHECKING``
    included.
    """
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(parsed(path)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # "from graphjit import config" names the module in the list
            found = [
                f"{module}.{alias.name}"
                if module == "graphjit" or is_module(f"{module}.{alias.name}")
                else module
                for alias in node.names
            ]
        for name in found:
            if name.split(".")[0] == "graphjit":
                yield node.lineno, name


@pytest.mark.parametrize("part", [part for parts in LAYERS for part in parts])
def test_imports_point_downwards(part: str) -> None:
    wrong = []
    for path in sources(PACKAGE):
        if part_of(module_name(path)) == part:
            for line, module in imports(path):
                target = part_of(module)
                if LEVEL.get(target, len(LAYERS) - 1) > LEVEL[part]:
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that lead back to the first of them, if there are such."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    """Imports in functions and under TYPE_CHECKING count: that is where a circle would hide."""
    modules = {module_name(path): {name for _, name in imports(path)} for path in sources(PACKAGE)}
    assert sum(map(len, modules.values())) > 500
    assert circle(modules) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": []}) == []
    assert set(circle({"a": ["b"], "b": ["c"], "c": ["b"]})) == {"b", "c"}


def named_by(node: ast.AST) -> list[str]:
    """Modules that an import statement names, or a call that imports by name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""] if not node.level else []
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        return [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
    return []


def test_the_package_imports_nothing_of_the_checkout() -> None:
    """Neither benchmarks nor tests nor examples are installed with it."""
    above = {"benchmarks", "tests", "examples"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        for path in sources(PACKAGE)
        for node in ast.walk(parsed(path))
        for name in named_by(node)
        if name.split(".")[0] in above
    ]
    assert not wrong


def test_every_part_has_a_layer() -> None:
    parts = {part_of(module_name(path)) for path in sources(PACKAGE)}
    assert parts - {""} <= set(LEVEL)


def test_import_finder_sees_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layering test itself can fail: imports in functions, relative ones and those of submodules by name
    are found.
    """
    path = tmp_path / "graphjit" / "ir" / "bad.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import numpy\nfrom ..passes import cse\ndef f():\n    from graphjit import api\n    import graphjit.trace.recording.tracer\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graphjit.loops.ir import For\nfrom .node import Node\n"
    )
    monkeypatch.setattr("test_structure.ROOT", tmp_path)
    assert sorted(imports(path)) == [
        (2, "graphjit.passes"),
        (4, "graphjit.api"),
        (5, "graphjit.trace.recording.tracer"),
        (8, "graphjit.loops.ir"),
        (9, "graphjit.ir.node"),
    ]


@pytest.mark.parametrize("folder", ["graphjit", "tests", "benchmarks", "examples"])
def test_no_file_is_too_long(folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(ROOT / folder)}
    assert lengths
    long = [
        f"{path.relative_to(ROOT)}: {length} lines" for path, length in lengths.items() if length > LINE_LIMIT
    ]
    assert not long, "\n".join(long)


MOST_LINES = 60
MOST_BRANCHES = 15
FLAT_TABLES: dict[str, str] = {}
"""Functions that may be longer, as ``path:name``, each with its reason: a flat table has one line a case, and
no case depends on another.
"""

BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.comprehension,
    ast.match_case,
    ast.Assert,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(function: Function) -> int:
    """From ``def`` to the end, the docstring too, unless it is a whole page of the reference (a numpydoc);
    decorators do not count.
    """
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    doc = function.body[0]
    if "\nParameters\n---" not in (ast.get_docstring(function) or "") or doc.end_lineno is None:
        return lines
    return lines - (doc.end_lineno - doc.lineno + 1)


def branches_of(function: Function) -> int:
    """Conditions, loops, handlers, cases, and each ``and`` or ``or``; those of functions inside it too."""
    nodes = list(ast.walk(function))
    joined = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return joined + sum(isinstance(node, BRANCHES) for node in nodes)


def too_long(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Name and size of every function above a limit."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            lines, branches = lines_of(node), branches_of(node)
            if lines > MOST_LINES or branches > MOST_BRANCHES:
                yield node.name, f"{lines} lines, {branches} branches"


@pytest.mark.parametrize("folder", ["graphjit", "benchmarks", "examples", "tests/harness"])
def test_no_function_is_too_long(folder: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{name}": size
        for path in sources(ROOT / folder)
        for name, size in too_long(parsed(path))
    }
    assert not {where: size for where, size in found.items() if where not in FLAT_TABLES}


def test_flat_tables_are_there_and_long() -> None:
    """A name stays in the list only as long as it is needed."""
    for where in FLAT_TABLES:
        path, _, name = where.partition(":")
        assert name in dict(too_long(parsed(ROOT / path))), where


def test_sizes_of_functions_are_counted() -> None:
    branching = """
def f(x):
    if x and not x or x:
        for i in [y for y in x]:
            assert i
    try:
        return 1 if x else 2
    except ValueError:
        while x:
            match x:
                case 1: pass
    def inner():
        if x: pass
"""
    (function,) = ast.parse(branching).body
    assert isinstance(function, Function)
    assert lines_of(function) == 12
    assert branches_of(function) == 11
    long = "def g():\n" + "    pass\n" * MOST_LINES
    assert dict(too_long(ast.parse(long))) == {"g": f"{MOST_LINES + 1} lines, 0 branches"}
    wide = "def h(x):\n    return " + " or ".join(["x"] * (MOST_BRANCHES + 2))
    assert dict(too_long(ast.parse(wide))) == {"h": f"2 lines, {MOST_BRANCHES + 1} branches"}
    assert not dict(too_long(ast.parse(long.replace("    pass\n", "", 1))))
    documented = long.replace("    pass\n", '    """Do.\n\n    Parameters\n    ----------\n    """\n', 1)
    assert not dict(too_long(ast.parse(documented)))


def test_names_of_files_say_something() -> None:
    vague = {"utils.py", "helpers.py", "misc.py", "common.py"}
    assert not [path for path in sources(PACKAGE) if path.name in vague]


def test_only_config_reads_the_environment() -> None:
    readers = []
    for path in sources(PACKAGE):
        if path == PACKAGE / "config.py":
            continue
        for node in ast.walk(parsed(path)):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.ImportFrom) and node.module == "os"
                else []
            )
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                names.append(node.attr)
            if {"environ", "getenv", "environb", "putenv"} & set(names):
                readers.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not readers


def test_every_module_says_what_it_does() -> None:
    silent = []
    for path in sources(PACKAGE):
        tree = parsed(path)
        if tree.body and not ast.get_docstring(tree):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent


def test_public_api_is_listed_and_documented() -> None:
    assert sorted(set(graphjit.__all__)) == sorted(graphjit.__all__), "a name is listed twice"
    undocumented = []
    for name in graphjit.__all__:
        value = getattr(graphjit, name)
        if (
            inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value)
        ) and not inspect.getdoc(value):
            undocumented.append(name)
    assert not undocumented


def test_public_functions_say_what_they_take_and_give() -> None:
    short = []
    for name in graphjit.__all__:
        value = getattr(graphjit, name)
        if inspect.isfunction(value) and len((inspect.getdoc(value) or "").split()) < 8:
            short.append(name)
    assert not short


def test_type_checkers_read_the_package() -> None:
    """Without this file they ignore the annotations of an installed package; see signatures.py."""
    assert (PACKAGE / "py.typed").is_file()


MOST_FILES = 15
WIDE = {"graphjit/ops", "graphjit/trace/numpy", "benchmarks/workloads", "examples"}
"""Folders whose files are alike: one family of operations, functions or workloads, one program each."""


@pytest.mark.parametrize("folder", ["graphjit", "tests", "benchmarks", "examples"])
def test_no_folder_is_too_wide(folder: str) -> None:
    count = Counter(
        str(path.parent.relative_to(ROOT)) for path in sources(ROOT / folder) if path.name != "__init__.py"
    )
    assert not {name: files for name, files in count.items() if files > MOST_FILES and name not in WIDE}


def test_no_test_file_imports_another() -> None:
    for path in sources(ROOT / "tests"):
        for node in ast.walk(parsed(path)):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            assert not [name for name in names if name.startswith("test_")], path


def test_every_module_of_the_package_is_imported_by_another() -> None:
    """What only tests import belongs to the tests."""
    reached = {"graphjit", "graphjit.__main__", "graphjit.cli.main"}
    for path in sources(PACKAGE):
        reached |= {name for _, name in imports(path)}
    reached |= {
        "graphjit.ir.parser",
    }  # for people who look for a fault: dumps are read back, passes are watched
    alone = [
        module_name(path)
        for path in sources(PACKAGE)
        if path.name != "__init__.py" and module_name(path) not in reached
    ]
    assert not alone
