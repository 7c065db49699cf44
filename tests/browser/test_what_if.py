"""The what-if explorer in JupyterLab: keys on a slider move the others and the chart."""

from __future__ import annotations

import pytest

from tests.mixture_runs import write_trials

pytestmark = pytest.mark.browser

PLACES = (
    "[...document.querySelectorAll('.wb-intervals .wb-symbol')]"
    ".map(e => e.getAttribute('transform')).join()"
)
SHARES = (
    "[...document.querySelectorAll('.widget-slider ~ .widget-label')]"
    ".map(e => parseFloat(e.textContent))"
)


@pytest.fixture(scope="module")
def explorer(lab, page):
    write_trials(lab.folder / "trials")
    lab.write("what_if.ipynb", "import workbench as wb\nwb.widgets.what_if('trials')")
    lab.open(page, "what_if.ipynb")
    lab.command(page, "notebook:run-all-cells")
    page.wait_for_selector(".wb-intervals .wb-symbol", state="attached", timeout=60000)
    return page


def test_keys_move_a_share_and_the_others_make_room(explorer):
    handles = explorer.locator(".widget-slider .noUi-handle")
    assert handles.count() == 3
    for slider in range(3):
        before, shares = explorer.evaluate(PLACES), explorer.evaluate(SHARES)
        for _ in range(4):
            handles.nth(slider).press("ArrowRight")
        explorer.wait_for_function(
            f"before => {PLACES} !== before && !{PLACES}.includes('NaN')", arg=before, timeout=9000
        )
        explorer.wait_for_function(
            f"([slider, before]) => {SHARES}.every((share, i) => "
            "i === slider ? share > before[i] + 2.5 : share < before[i])"
            f" && Math.abs({SHARES}.reduce((a, b) => a + b) - 100) < 0.3",
            arg=[slider, shares],
            timeout=9000,
        )


def test_the_best_mixture_is_reached_by_the_keyboard(explorer):
    explorer.locator(".widget-slider .noUi-handle").nth(2).press("End")
    explorer.get_by_text("Outside the sampled mixtures by").wait_for(timeout=9000)
    button = explorer.get_by_role("button", name="Best predicted mixture")
    button.focus()
    explorer.keyboard.press("Enter")
    explorer.get_by_text("Lowest predicted mean of domains").wait_for(timeout=9000)
    explorer.get_by_text("Inside the sampled mixtures.").wait_for(timeout=9000)
    explorer.wait_for_function(f"{SHARES}[2] < 50", timeout=9000)


def test_a_corner_is_said_to_be_a_guess_and_can_be_recorded(explorer, lab):
    explorer.locator(".widget-slider .noUi-handle").nth(2).press("End")
    explorer.get_by_text("Outside the sampled mixtures by").wait_for(timeout=9000)
    assert explorer.locator(".wb-whisker[stroke-dasharray]").count() == 4
    explorer.get_by_role("button", name="Record prediction").click()
    explorer.get_by_text("Recorded in trials: code 0.0%").wait_for(timeout=9000)
    assert (lab.folder / "trials" / "predictions.jsonl").read_text().count("\n") == 1
    explorer.get_by_role("button", name="Score").click()
    explorer.get_by_text("waiting for a run of code 0.0%").wait_for(timeout=9000)
