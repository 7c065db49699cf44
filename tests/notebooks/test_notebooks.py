"""Every notebook runs to its end through papermill."""

from pathlib import Path

import nbformat
import pytest

from workbench.batch import attach, execute, read_parameters

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
TEMPLATE = FOLDER / "80_pretrain.ipynb"


def each_of(notebooks):
    return pytest.mark.parametrize("notebook", notebooks, ids=lambda path: path.stem)


def test_there_are_notebooks_to_run():
    assert "00_tour" in {path.stem for path in NOTEBOOKS}


@each_of(NOTEBOOKS)
def test_notebook_runs_through_papermill_and_keeps_its_figures(notebook, tmp_path, cache):
    out_dir = tmp_path / "out"
    executed = execute(notebook, out_dir / notebook.name, {"profile": "ci", "out_dir": out_dir})
    require_figures(executed)


def test_two_ranks_train_all_three_policies_from_a_parameter_file(tmp_path, cache):
    values = read_parameters(FOLDER / "params" / "ci.yaml", TEMPLATE)
    values.update(out_dir=str(tmp_path), devices=2)
    executed = execute(TEMPLATE, tmp_path / "out.ipynb", values)
    require_figures(executed)
    shown = executed.read_text()
    assert "M parameters on 2 × " in shown and "together: finished, held-out loss" in shown
    run = attach(tmp_path / "together").run
    assert run.status() == "finished" and len(run.events("step")) == 30
    assert run.folder.selections() and (tmp_path / "report.html").exists()


def require_figures(executed):
    """Figures as pictures too, no live widgets, and a file of moderate size."""
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    figures = [o for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert figures
    assert all("image/png" in figure["data"] for figure in figures)
    assert not any("jupyter.widget-view" in key for o in outputs for key in o.get("data", {}))
    assert executed.stat().st_size < 10_000_000
