"""The theory explorer: sliders move the lines; without a front end a figure stands in."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest

from workbench import widgets
from workbench.batch.notebook import execute
from workbench.theory import explore


@pytest.fixture(scope="module")
def explorer():
    return widgets.theory_explorer(live=True, steps=60)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.5), ("noise", 0.5), ("outliers", 0.02), ("redundancy", 0.9)],
)
def test_moving_a_slider_redraws_all_paths_with_its_value(explorer, name, value):
    before = explorer.charts.charts[0]["lines"][1]["y"]
    explorer.sliders[name].value = value
    loss, total = (chart["lines"] for chart in explorer.charts.charts)
    expected = explore(**explorer.settings, seed=0, steps=60)
    assert explorer.settings[name] == pytest.approx(value) and loss[1]["y"] != before
    paths = (expected.uniform, expected.weighted, expected.norm_matched)
    for line, path in zip(loss, paths, strict=True):
        assert line["y"] == pytest.approx(np.log10(path.test_loss_S), abs=1e-4)
    for line, path in zip(total, paths, strict=True):
        assert line["y"][-1] == pytest.approx(path.covariance_S.sum(), abs=1e-4)
    assert f"{expected.test_ratio:.2f}" in explorer.text


def test_the_text_promises_a_bound_only_where_one_holds():
    clean = widgets.theory_explorer(live=True, steps=20)
    assert "the bound holds, and the weights lower it" in clean.text
    clean.sliders["strategy"].value = "extremes"
    assert "the weights raise it" in clean.text
    clean.sliders["outliers"].value = 0.02
    assert "no bound is promised" in clean.text


def test_papermill_stores_one_figure_and_no_widget(tmp_path):
    source = "import workbench as wb\nwb.widgets.theory_explorer(steps=20, outliers=0.02)"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    executed = execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb")
    outputs = nbformat.read(executed, as_version=4).cells[0].outputs
    kinds = [set(output.data) for output in outputs if "data" in output]
    assert sum("image/png" in kind for kind in kinds) == 1
    assert not any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)
    assert any("outliers = 0.02" in output.get("text", "") for output in outputs)
