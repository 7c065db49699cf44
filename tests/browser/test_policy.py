"""The view of a policy in JupyterLab: it follows a live run, scrubs with the keys, and replays.

The tests share one notebook and one run, in this order.
"""

from __future__ import annotations

import pytest

from workbench.tracking import RunFolder

pytestmark = pytest.mark.browser

SETTLE_MS = 15000
START = """
import workbench as wb
config = wb.RunConfig(**{fields!r})
run = wb.start(config, "runs", cache_dir={cache!r})
"""
POINTS = "view => view.querySelector('.wb-drawing .wb-line:not(.wb-faint)').getAttribute('d')"


@pytest.fixture(scope="module")
def errors() -> list[str]:
    """What the page complained about since the view was opened."""
    return []


@pytest.fixture(scope="module")
def view(lab, page, errors, nano_config, nano_corpus, cache_dir):
    """The view of a run that would train for many minutes."""
    mixer = {"name": "acodm", "warmup_steps": 10, "batch_size": 8, "tracked_layers": 1}
    config = nano_config.change(total_steps=200000).replace(name="policy", mixer=mixer)
    source = START.format(fields=config.to_dict(), cache=str(cache_dir))
    lab.write("policy.ipynb", source, "wb.widgets.policy(run)")
    lab.open(page, "policy.ipynb")
    page.on("console", lambda said: said.type == "error" and errors.append(said.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    lab.command(page, "notebook:run-all-cells")
    page.wait_for_selector(".wb-panel[data-shown]", timeout=60000)
    yield page.locator(".wb-panel")
    lab.execute(page, "run.stop(); run.wait()")


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


def test_the_newest_step_is_followed_with_path_mixture_and_rewards(view):
    until(view, "+data.shown > argument", max(20, number(view, "shown")))
    names = view.locator(".wb-domains tbody th").all_inner_texts()
    assert len(names) == 6 and view.locator(".wb-corner").all_text_contents() == names
    for title in ("Reward", "Signal / noise"):
        chart = view.locator(".wb-chart", has_text=title).last
        chart.locator(".wb-drawing path").last.wait_for(state="attached", timeout=SETTLE_MS)
    assert "NaN" not in view.evaluate("view => view.innerHTML")


def test_arrow_keys_move_the_slider_and_what_is_shown(lab, view):
    view.get_by_role("button", name="Pause").click()
    view.page.wait_for_selector(".wb-panel[data-status='paused']", timeout=SETTLE_MS)
    newest = number(view, "step") - 1
    until(view, "+data.shown === argument", newest)
    slider, whole = view.get_by_label("Step shown"), view.evaluate(POINTS)
    for _ in range(3):
        slider.press("ArrowLeft")
    until(view, "+data.shown === argument && data.follows === 'false'", newest - 3)
    slider.press("Home")
    until(view, "data.shown === '0'")
    assert len(view.evaluate(POINTS)) < len(whole)
    folder = RunFolder.open(lab.folder / "runs" / "policy")
    asked = list(folder.events("step")[0]["mixture"].values())
    drawn = view.locator(".wb-domains tbody td:nth-child(4)").all_inner_texts()
    assert [float(text.split()[0]) for text in drawn] == pytest.approx(
        [100 * share for share in asked], abs=0.051
    )


def test_play_goes_through_the_steps_and_hold_stops_it(view):
    view.get_by_label("Step shown").press("Home")
    until(view, "data.shown === '0'")
    view.get_by_role("button", name="Play").click()
    until(view, "+data.shown > 3 && data.plays === 'true'")
    view.get_by_role("button", name="Hold").click()
    until(view, "data.plays === 'false'")
    held = view.get_by_label("Step shown").input_value()
    until(view, "data.shown === argument", held)
    view.get_by_label("Step shown").press(" ")
    until(view, "+data.shown > argument && data.plays === 'true'", int(held))
    view.get_by_label("Step shown").press("End")
    until(view, "data.plays === 'false'")


def test_live_returns_to_the_newest_step(view):
    view.get_by_label("Step shown").press("Home")
    until(view, "data.shown === '0'")
    view.get_by_role("button", name="Live", exact=True).click()
    until(view, "+data.shown === +data.step - 1 && data.follows === 'true'")
    view.get_by_role("button", name="Resume").click()
    until(view, "+data.shown > argument", number(view, "shown"))


def test_zoom_enlarges_the_middle_and_keeps_the_names(view):
    view.get_by_role("button", name="Zoom").click()
    view.get_by_text("times enlarged").wait_for(timeout=SETTLE_MS)
    assert view.locator(".wb-corner").count() == 6


def test_nothing_was_complained_about(view, errors):
    assert errors == []
