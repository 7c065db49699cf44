"""Every notebook runs to its end: through papermill, and cell by cell under nbval."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from workbench.batch import execute

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))
notebooks = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks_to_run():
    assert "00_tour" in {path.stem for path in NOTEBOOKS}


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "notebook-cache"))


@notebooks
def test_notebook_runs_through_papermill_and_keeps_its_figures(notebook, tmp_path, cache):
    out_dir = tmp_path / "out"
    executed = execute(notebook, out_dir / notebook.name, {"profile": "ci", "out_dir": out_dir})
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    figures = [o for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert figures
    assert all("image/png" in figure["data"] for figure in figures)
    assert not any("jupyter.widget-view" in key for o in outputs for key in o.get("data", {}))
    assert executed.stat().st_size < 10_000_000


@notebooks
def test_notebook_passes_nbval(notebook, tmp_path, cache):
    copy = tmp_path / notebook.name
    parameters = {"profile": "ci", "out_dir": str(tmp_path / "out")}
    papermill.execute_notebook(notebook, copy, parameters, prepare_only=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", copy.name],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
