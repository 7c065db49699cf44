"""The picture of the live panel in the README, from a real run in JupyterLab.

python tests/browser/screenshot.py docs/images/live_panel.png
python tests/browser/screenshot.py /tmp/dark.png --theme "JupyterLab Dark" --corpus planted
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from conftest import Lab, browse, find_chromium, serve

START = """
import workbench as wb
config = wb.RunConfig(name="linupper", reweighter="linupper", corpus={corpus!r}).change(
    total_steps=240, evaluate_every_steps=20)
run = wb.start(config, "runs")
"""
PREPARE_SECONDS = 300
WAIT_SECONDS = 300


def take(target: Path, *, theme: str, corpus: str, width: int) -> None:
    """Train `tiny`, change the temperature a third of the way, picture the panel at two thirds."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium found: install chromium")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder), Path(home)) as lab,
        browse(chromium, width=width) as page,
    ):
        lab.write("panel.ipynb", START.format(corpus=corpus), "wb.widgets.panel(run)")
        lab.open(page, "panel.ipynb")
        lab.command(page, "apputils:change-theme", theme=theme)
        lab.command(page, "notebook:run-all-cells")
        page.wait_for_selector(".wb-panel[data-status]", timeout=PREPARE_SECONDS * 1000)
        reach_step(page, 80)
        page.get_by_label("Temperature").fill("1")
        page.get_by_role("button", name="Apply").click()
        reach_step(page, 160)
        page.locator(".wb-panel").screenshot(path=target)
        Lab.execute(page, "run.stop(); run.wait()")
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def reach_step(page, step: int) -> None:
    page.wait_for_function(
        f"() => document.querySelector('.wb-panel').dataset.step >= {step}",
        timeout=WAIT_SECONDS * 1000,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--theme", default="JupyterLab Light")
    parser.add_argument("--corpus", default="installed")
    parser.add_argument("--width", type=int, default=1180)
    options = parser.parse_args()
    take(options.target, theme=options.theme, corpus=options.corpus, width=options.width)
