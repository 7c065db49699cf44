"""Notebook 11 in JupyterLab: points, text, a change from the view, and scrubbing back.

The tests share one notebook and one run, in this order.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from workbench.tracking import RunFolder

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "11_live_sample_weights.ipynb"
EDITS = {
    'profile = "demo"': 'profile = "ci"',
    # Long enough that only Stop ends it.
    "batch_rows=rows,": "batch_rows=rows, total_steps=200000, evaluate_every_steps=1000,",
}
SETTLE_MS = 15000
PAINTED = """canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  .data.some(value => value > 0)"""


@pytest.fixture(scope="module")
def view(lab, page):
    """The view of a live run, in a copy of the notebook that ends with its cell."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = [i for i, cell in enumerate(notebook.cells) if "sample_weights(run)" in cell.source]
    sources = [cell.source for cell in notebook.cells[: shown[0] + 1] if cell.cell_type == "code"]
    for before, after in EDITS.items():
        assert sum(before in source for source in sources) == 1, before
        sources = [source.replace(before, after) for source in sources]
    lab.write("samples.ipynb", *sources)
    lab.open(page, "samples.ipynb")
    lab.command(page, "notebook:run-all-cells")
    page.wait_for_selector(".wb-panel[data-shown]", timeout=60000)
    yield page.locator(".wb-panel")
    lab.execute(page, "run.stop(); run.wait()")


@pytest.fixture
def folder(lab, view) -> RunFolder:
    return RunFolder.open(lab.folder / "runs" / "live_weights" / "live")


def number(view, name: str) -> int:
    return int(view.get_attribute(f"data-{name}"))


def until(view, condition: str, argument=None) -> None:
    """Wait for a condition on `data`, the dataset of the view, and `argument`."""
    view.page.wait_for_function(
        f"argument => {{ const data = document.querySelector('.wb-panel').dataset; "
        f"return {condition}; }}",
        arg=argument,
        timeout=SETTLE_MS,
    )


def test_the_rows_of_the_newest_step_appear_and_follow(view):
    assert number(view, "rows") == 32
    assert view.locator(".wb-cloud").evaluate(PAINTED)
    assert view.locator(".wb-bin").count() > 4
    until(view, "+data.shown > argument", number(view, "shown"))


def test_heaviest_and_lightest_rows_show_their_text(view):
    for title in ("Heaviest rows", "Lightest rows"):
        texts = view.get_by_role("list", name=title).locator(".wb-text").all_inner_texts()
        assert len(texts) == 4 and all(text.strip() for text in texts)


def test_a_change_of_temperature_is_an_event_and_a_mark_in_every_curve(view, folder):
    view.get_by_label("Temperature").fill("0.15")
    view.get_by_role("button", name="Apply").click()
    for title in ("Effective rows", "Implied mixture"):
        chart = view.locator(".wb-chart", has_text=title)
        mark = chart.locator(".wb-mark-text", has_text="temperature 0.15")
        mark.wait_for(state="attached", timeout=SETTLE_MS)
    assert folder.events("set")[-1]["changes"] == {"reweighter.temperature": 0.15}
    view.locator(".wb-facts", has_text="0.15").wait_for(timeout=SETTLE_MS)


def test_the_slider_goes_back_through_the_steps_and_live_returns(view, folder):
    view.get_by_role("button", name="Pause").click()
    view.page.wait_for_selector(".wb-panel[data-status='paused']", timeout=SETTLE_MS)
    newest = folder.ledger.steps()[1]
    until(view, "+data.shown === argument", newest)
    slider = view.get_by_label("Step shown")
    for _ in range(3):
        slider.press("ArrowLeft")
    until(view, "+data.shown === argument && data.follows === 'false'", newest - 3)
    slider.press("Home")
    until(view, "data.shown === '0'")
    view.get_by_role("button", name="Live", exact=True).click()
    until(view, "+data.shown === argument && data.follows === 'true'", newest)


def test_keys_and_pointer_read_the_text_of_a_point(view, folder):
    rows = folder.ledger.step(number(view, "shown")).sort_values("loss", kind="stable")
    cloud, tip = view.locator(".wb-cloud"), view.locator(".wb-sample-tip")
    cloud.press("ArrowRight")
    tip.get_by_text(f"sample {rows['sample_id'].iloc[0]}").wait_for(timeout=SETTLE_MS)
    view.page.wait_for_function(
        "() => document.querySelector('.wb-excerpt')?.textContent.length > 5", timeout=SETTLE_MS
    )
    assert rows["domain"].iloc[0] in tip.inner_text()
    cloud.press("Escape")
    assert tip.is_hidden()
    card = view.get_by_role("list", name="Heaviest rows").locator("li").first
    card.hover()
    cloud.hover(position={"x": 5, "y": 5})
    assert tip.is_hidden()
