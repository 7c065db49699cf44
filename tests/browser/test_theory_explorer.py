"""The theory explorer in JupyterLab: a key on a slider moves the lines and the text."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

LINES = "[...document.querySelectorAll('.wb-charts .wb-line')].map(e => e.getAttribute('d')).join()"


@pytest.fixture(scope="module")
def explorer(lab, page):
    lab.write("explorer.ipynb", "import workbench as wb\nwb.widgets.theory_explorer()")
    lab.open(page, "explorer.ipynb")
    lab.command(page, "notebook:run-all-cells")
    page.wait_for_selector(".wb-charts .wb-line", state="attached", timeout=60000)
    return page


def test_a_slider_moves_the_lines(explorer):
    handles = explorer.locator(".widget-slider .noUi-handle")
    assert handles.count() == 4
    for slider, keys in ((0, 3), (1, 2), (2, 4), (3, 2)):
        before = explorer.evaluate(LINES)
        for _ in range(keys):
            handles.nth(slider).press("ArrowRight")
        explorer.wait_for_function(
            f"before => {LINES} !== before && !{LINES}.includes('NaN')", arg=before, timeout=5000
        )
    explorer.get_by_text("so no bound is promised").wait_for(timeout=5000)
