"""The panel without a front end: plain figures, no widget in the stored notebook."""

from __future__ import annotations

import nbformat

from workbench.batch.notebook import execute


def test_papermill_stores_figures_and_no_widget(make_folder, tmp_path):
    path = make_folder().path
    source = f"import workbench as wb\nwb.widgets.panel(wb.open_run({str(path)!r}))"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    executed = execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    outputs = nbformat.read(executed, as_version=4).cells[0].outputs
    kinds = [set(output.data) for output in outputs if "data" in output]
    assert sum("image/png" in kind for kind in kinds) == 2
    assert not any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)
