"""The house rules that a machine can check: imports, sizes, names, lightness, notebooks."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "workbench"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# The table of the design.  `core` is open to every room: it is the shared vocabulary.
MAY_IMPORT = {
    "core": set(),
    "config": set(),
    "tracking": {"config"},
    "kernels": set(),
    "data": {"config"},
    "models": {"config", "kernels"},
    "reweighting": {"config", "kernels"},
    "mixing": {"config", "kernels", "models"},
    "influence": {"config", "kernels", "models"},
    "selection": {
        *("config", "tracking", "kernels", "data", "models"),
        *("reweighting", "mixing", "influence"),
    },
    "theory": {"reweighting"},
    "evaluation": {"config", "data", "models"},
    "training": {
        *("config", "tracking", "kernels", "data", "models", "reweighting", "mixing"),
        *("influence", "selection", "theory", "evaluation"),
    },
    "replay": {"reweighting", "mixing", "influence", "selection", "tracking"},
    "plots": {"tracking"},
    "widgets": {"batch", "config", "plots", "theory", "tracking", "training"},
    "integration": {
        *("config", "kernels", "reweighting", "mixing", "selection"),
        *("data", "influence", "models"),
    },
    "batch": {"config", "data", "mixing", "plots", "tracking", "training", "evaluation"},
}
FRONT_DOORS = {"__init__", "__main__", "cli", "console", "doctor"}
HEAVY = ("torch", "transformers", "datasets", "sklearn", "umap", "plotly")
NOT_ON_A_GPU_MACHINE = ("datasets", "plotly", "duckdb", "sklearn", "umap", "ipywidgets")
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py"}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute names of what a module of `package` imports anywhere in its text.

    Reads imports inside functions and under TYPE_CHECKING, relative ones, and literal names given
    to `import_module` or `__import__`.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(_from_import(node, package))
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                found.add(str(first.value))
    return found


def _from_import(node: ast.ImportFrom, package: str) -> set[str]:
    base = node.module or ""
    if node.level:
        above = package.split(".")
        above = above[: len(above) - node.level + 1]
        base = ".".join([*above, base]) if base else ".".join(above)
    return {f"{base}.{alias.name}" for alias in node.names}


def rooms_imported(path: Path) -> set[str]:
    """Rooms (or front doors) of ours that a module imports, its own room left out."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    names = imported_modules(path.read_text(), package)
    # `import workbench` alone reaches every room through its lazy names: counted as "workbench".
    ours = {
        (name + ".workbench").split(".")[1] for name in names if name.split(".")[0] == PACKAGE.name
    }
    return ours - {room_of(path), "__version__"}


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def code_lines(cell: dict) -> list[str]:
    return [line for line in "".join(cell["source"]).splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    import workbench.plots.theme", "workbench.plots.theme"),
        ("from ..core import nearest", "workbench.core.nearest"),
        ("from . import part", "workbench.room.part"),
        ("import importlib\nimportlib.import_module('workbench.data')", "workbench.data"),
        ("if TYPE_CHECKING:\n    from workbench.models import Decoder", "workbench.models.Decoder"),
        ("from workbench import training", "workbench.training"),
        ("import workbench as wb", "workbench"),
    ],
)
def test_every_way_to_import_is_seen(source, expected):
    assert expected in imported_modules(source, "workbench.room")


def test_every_room_of_the_package_is_in_the_table():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    doors = {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms <= set(MAY_IMPORT)
    assert doors <= FRONT_DOORS


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_table_allows(path):
    room = room_of(path)
    if room in FRONT_DOORS:
        return
    allowed = MAY_IMPORT[room] | ({"core"} if room != "core" else set())
    assert rooms_imported(path) <= allowed, f"{room}/ may import only {sorted(allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small_and_say_what_they_are(path):
    source = path.read_text()
    tree = ast.parse(source)
    assert path.name not in FORBIDDEN_NAMES
    assert len(source.splitlines()) <= 400
    assert ast.get_docstring(tree), "open the module with its purpose"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("room", ["tracking", "plots"])
def test_records_and_figures_need_no_torch(room):
    for path in (PACKAGE / room).rglob("*.py"):
        package = f"workbench.{room}"
        names = {name.split(".")[0] for name in imported_modules(path.read_text(), package)}
        assert not names & {"torch", "transformers"}, path.name


def test_import_workbench_is_light():
    program = f"import workbench, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = run_python(program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["tracking", "plots"])
def test_importing_records_and_figures_loads_no_torch(room):
    result = run_python(f"import workbench.{room}, sys; print('torch' in sys.modules)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("room", ["kernels", "models", "influence", "training"])
def test_the_training_side_imports_where_only_torch_and_transformers_are_installed(room):
    program = f"""
import importlib, importlib.abc, pkgutil, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOT_ON_A_GPU_MACHINE!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Blocker())
room = importlib.import_module("workbench.{room}")
for module in pkgutil.walk_packages(room.__path__, "workbench.{room}."):
    importlib.import_module(module.name)
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_call_and_the_package_defines(path):
    assert re.fullmatch(r"\d\d(_[a-z]+)+\.ipynb", path.name)
    cells = code_cells(path)
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert sum(len(code_lines(cell)) for cell in cells) <= 90
    for cell in cells:
        assert len(code_lines(cell)) <= 12, "".join(cell["source"])
        source = "\n".join(line for line in code_lines(cell) if line.lstrip()[0] not in "%!")
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_have_one_parameters_cell_of_literals(path):
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    names = {}
    for node in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        names[node.targets[0].id] = ast.literal_eval(node.value)
    assert {"profile", "seed", "out_dir"} <= set(names)
    assert len(names) <= 10
    assert names["profile"] in ("ci", "demo", "full")
