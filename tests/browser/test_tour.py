"""The tour in JupyterLab: it runs to its end, and its panel pauses and stops the live run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from workbench.tracking import RunFolder

pytestmark = pytest.mark.browser

TOUR = Path(__file__).parents[2] / "notebooks" / "00_tour.ipynb"
CELLS = "window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
ERRORS = f"""() => {CELLS}.flatMap(cell => cell.outputs ?? [])
  .filter(output => output.output_type === 'error')
  .map(output => output.ename + ': ' + output.evalue)"""
TRAIN_MS = 300000  # sixteen runs, beside whatever else the machine does
STATUS = ".wb-panel[data-status='{}']"
EDITS = {
    'profile = "demo"': 'profile = "ci"',
    # Long enough that only Stop ends it; the cell behind the panel waits for that.
    '.replace(name="live")': '.replace(name="live").change(total_steps=200000)',
}


@pytest.fixture(scope="module")
def tour(lab, page):
    """The tour with all its cells under way."""
    notebook = nbformat.read(TOUR, as_version=4)
    for before, after in EDITS.items():
        cells = [cell for cell in notebook.cells if before in cell.source]
        assert len(cells) == 1, f"{before} is in {len(cells)} cells"
        cells[0].source = cells[0].source.replace(before, after)
    nbformat.write(notebook, lab.folder / TOUR.name)
    lab.open(page, TOUR.name)
    page.evaluate(
        "() => { window.ran = window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
    )
    page.wait_for_function(
        f"() => document.querySelector(`{STATUS.format('running')}`) || ({ERRORS})().length",
        timeout=90000,
    )
    assert not page.evaluate(ERRORS)
    return page


def test_the_tour_pauses_resumes_stops_and_runs_to_its_end(lab, tour):
    for button, status in (("Pause", "paused"), ("Resume", "running"), ("Stop", "stopped")):
        tour.get_by_role("button", name=button, exact=True).click()
        tour.wait_for_selector(STATUS.format(status), timeout=15000)
    live = RunFolder.open(lab.folder / "runs" / "tour" / "live")
    kinds = [event["kind"] for event in live.events() if event["kind"] in ("paused", "unpaused")]
    assert kinds == ["paused", "unpaused"]
    assert live.status() == "stopped" and live.checkpoints()

    tour.wait_for_function("() => window.ran.then(() => true)", timeout=TRAIN_MS)
    assert not tour.evaluate(ERRORS)
    counts = tour.evaluate(
        f"() => {CELLS}.filter(cell => cell.cell_type === 'code').map(cell => cell.execution_count)"
    )
    assert counts == list(range(1, len(counts) + 1))
