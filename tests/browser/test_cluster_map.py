"""The cluster map in JupyterLab: points, text, lasso, arms, rounds, and a hundred thousand rows.

The tests share one notebook and one recorded run, in this order.
"""

from __future__ import annotations

import json

import pytest

from tests.selection_folder import DOMAINS, FIRST_ID, new_folder, write_choice

pytestmark = pytest.mark.browser

SETTLE_MS = 15000
ROWS, ARMS, ROUNDS = 600, 12, 20
MANY, MANY_ARMS = 100_000, 80
START = """
import workbench as wb
class Written:
    def text(self, sample_id): return f"text of {sample_id}"
    def provenance(self, sample_id): return [{"origin": "made up"}]
few, many = (wb.open_run(f"runs/{name}") for name in ("few", "many"))
"""
INKED = """canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let inked = 0;
  for (let i = 3; i < data.length; i += 4) inked += data[i] > 0;
  return inked;
}"""
PICTURE = "canvas => canvas.toDataURL()"


@pytest.fixture(scope="module")
def errors() -> list[str]:
    """What the page complained about since the view was opened."""
    return []


@pytest.fixture(scope="module")
def view(lab, page, errors, nano_config):
    """The map of a run with a choice of twenty rounds before step 0."""
    for name, sizes in {"few": (ROWS, ARMS, ROUNDS), "many": (MANY, MANY_ARMS, 50)}.items():
        rows, clusters, count = sizes
        folder = new_folder(lab.folder / "runs" / name, nano_config.to_dict())
        write_choice(folder, rows=rows, clusters=clusters, count=count)
        with folder.lock():
            folder.append("finished", 0)
    lab.write("map.ipynb", START, "wb.widgets.cluster_map(few, corpus=Written())")
    lab.open(page, "map.ipynb")
    page.on("console", lambda said: said.type == "error" and errors.append(said.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    lab.command(page, "notebook:run-all-cells")
    page.wait_for_selector(".wb-panel[data-shown]", timeout=60000)
    return page.locator(".wb-panel")


def until(view, condition: str, argument=None) -> None:
    """Wait for a condition on `data`, the dataset of the view, and `argument`."""
    view.page.wait_for_function(
        f"argument => {{ const data = document.querySelector('.wb-panel').dataset; "
        f"return {condition}; }}",
        arg=argument,
        timeout=SETTLE_MS,
    )


def data(view) -> dict[str, str]:
    return view.evaluate("view => ({...view.dataset, ...view.querySelector('.wb-map').dataset})")


def arms(view) -> list[str]:
    names = view.locator(".wb-arms tbody th").all_inner_texts()
    return [name.removeprefix("◉ ") for name in names]


def lasso(view, *, part: float) -> None:
    """Shift and drag around the left `part` of the map."""
    box, page = view.locator(".wb-over").bounding_box(), view.page
    left, right = box["x"] + 2, box["x"] + part * box["width"]
    top, bottom = box["y"] + 2, box["y"] + box["height"] - 2
    page.keyboard.down("Shift")
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")


def test_every_row_is_drawn_and_the_domains_are_named(view):
    assert int(data(view)["drawn"]) == ROWS == int(data(view)["rows"])
    assert view.locator(".wb-points").first.evaluate(INKED) > 2 * ROWS
    assert view.locator(".wb-map-key .wb-key").all_inner_texts() == list(DOMAINS)
    assert "NaN" not in view.evaluate("view => view.innerHTML")


@pytest.mark.parametrize("way", ["cluster", "influence", "pulls", "accepted", "domain"])
def test_each_colouring_is_another_picture_with_a_key(view, way):
    canvas = view.locator(".wb-points").first
    before = canvas.evaluate(PICTURE)
    view.get_by_label("Colour of the points").select_option(way)
    until(view, "data.way === argument", way)
    assert canvas.evaluate(PICTURE) != before
    assert view.locator(".wb-map-key").inner_text()


def test_a_domain_can_be_hidden(view):
    key = view.locator(".wb-map-key .wb-key").first
    key.click()
    assert int(data(view)["drawn"]) == ROWS // 3
    key.click()
    assert int(data(view)["drawn"]) == ROWS


def test_keys_move_zoom_and_read_the_row_in_the_middle(view):
    area = view.locator(".wb-over")
    area.focus()
    area.press("+")
    view.page.wait_for_function("() => document.querySelector('.wb-map').dataset.zoom === '1.500'")
    for _ in range(6):
        area.press("ArrowLeft")
        if view.locator(".wb-sample-tip").is_visible():
            break
    view.get_by_text(f"text of {FIRST_ID // 1000}").first.wait_for(timeout=SETTLE_MS)
    assert "arm" in view.locator(".wb-sample-tip").inner_text()
    area.press("0")
    view.page.wait_for_function("() => document.querySelector('.wb-map').dataset.zoom === '1.000'")


def test_pointing_at_a_row_shows_its_text(view):
    view.get_by_label("Colour of the points").focus()
    box = view.locator(".wb-over").bounding_box()
    tip = view.locator(".wb-sample-tip")
    for part in range(20, 80, 2):
        view.page.mouse.move(box["x"] + part * box["width"] / 100, box["y"] + box["height"] / 2)
        if tip.is_visible():
            break
    tip.get_by_text("text of 1000000").wait_for(timeout=SETTLE_MS)
    assert any(domain in tip.inner_text() for domain in DOMAINS)


def test_the_lasso_counts_its_rows_and_leaves_their_arms_in_the_table(view):
    assert len(arms(view)) == ARMS
    lasso(view, part=0.5)
    until(view, "+data.picked > 0 && +data.picked < +data.rows")
    told = view.locator(".wb-picked").inner_text()
    assert f"{data(view)['picked']} rows in the lasso" in told
    inside = view.locator(".wb-arms tbody td:last-child").all_inner_texts()
    assert 0 < len(inside) == len(arms(view)) < ARMS
    assert sum(map(int, inside)) == int(data(view)["picked"])
    view.locator(".wb-card").first.get_by_text("text of 1000000").wait_for(timeout=SETTLE_MS)
    view.get_by_role("button", name="Clear").click()
    until(view, "data.picked === '0'")
    assert len(arms(view)) == ARMS


def test_choosing_an_arm_highlights_its_rows_by_click_and_by_key(view):
    view.locator(".wb-arms tbody tr").first.click()
    until(view, "+data.picked === argument", ROWS // ARMS)
    second = view.locator(".wb-arm").nth(1)
    second.focus()
    second.press("Enter")
    until(view, "+data.picked === argument", 2 * ROWS // ARMS)
    assert view.locator(".wb-arm[aria-pressed='true']").count() == 2
    view.get_by_role("button", name="Clear").click()
    until(view, "data.picked === '0'")


def test_heads_sort_the_arms_by_click_and_by_key(view):
    assert arms(view)[0] == str(ARMS - 1)
    head = view.get_by_role("button", name="Arm", exact=True)
    head.click()
    assert arms(view) == [str(c) for c in range(ARMS)]
    head.press("Enter")
    assert arms(view) == [str(c) for c in reversed(range(ARMS))]
    assert view.locator("th[aria-sort='descending']").inner_text() == "Arm"


def test_the_slider_goes_through_the_rounds_and_lights_the_arms_pulled(lab, view):
    slider = view.get_by_label("Round shown")
    slider.press("Home")
    until(view, "data.shown === '0' && +data.lit > 0")
    lit = view.locator(".wb-lit th").all_inner_texts()
    assert len(lit) == int(data(view)["lit"]) and "◉ 0" in lit
    pulls = view.locator(".wb-arms tbody td:nth-child(4)").all_inner_texts()
    assert sum(map(int, pulls)) == len(lit)
    slider.press("ArrowRight")
    until(view, "data.shown === '1'")
    accepted = lambda: sum(  # noqa: E731
        int(text) for text in view.locator(".wb-arms tbody td:nth-child(5)").all_inner_texts()
    )
    early = accepted()
    view.get_by_label("Colour of the points").select_option("accepted")
    until(view, "data.way === 'accepted'")
    assert "up to the round shown" in view.locator(".wb-map-key").inner_text()
    view.get_by_label("Colour of the points").select_option("domain")
    view.get_by_role("button", name="Play").click()
    until(
        view, "data.follows === 'true' && +data.shown === argument && data.lit === '0'", ROUNDS - 1
    )
    assert accepted() > early


def test_a_hundred_thousand_rows_are_drawn_and_zoom(lab, view, errors):
    page = view.page
    Frame = "wb.widgets.cluster_map(many, corpus=Written())"
    lab.write("many.ipynb", START, Frame)
    lab.open(page, "many.ipynb")
    lab.command(page, "notebook:run-all-cells")
    page.wait_for_selector(".wb-panel[data-shown]", timeout=60000)
    assert int(data(view)["drawn"]) == MANY
    canvas = view.locator(".wb-points").first
    assert canvas.evaluate(INKED) > 10_000
    box = view.locator(".wb-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -1500)
    page.wait_for_function("() => +document.querySelector('.wb-map').dataset.zoom > 2")
    assert 0 < int(data(view)["drawn"]) < MANY
    assert view.locator(".wb-arms tbody tr").count() == MANY_ARMS
    # 1,250 rows an arm: counts are shown in full.
    assert view.locator(".wb-arms tbody td:nth-child(5)").first.inner_text() == "1\u202f250"
    assert json.dumps(errors) == "[]"
