"""How fast the cluster map follows the wheel: pictures a second in a headless Chromium.

    python -m benchmarks.cluster_map --rows 100000

The map's own scripts on a page without a notebook, and a Plotly scatter of the same rows beside
it.  A picture is a turn of the wheel (for Plotly, a change of both ranges) and the wait until it
is drawn; `draw_ms` is what the map's code takes of it.  The wheel turns to and fro around the whole
map, where nearly every row is in sight: nothing is slower.  No graphics card is used, and a browser
draws 60 pictures a second at most.
Shapes: N rows.
"""

from __future__ import annotations

import argparse
import shutil
from importlib.resources import files
from typing import Any

import numpy as np

from benchmarks.measure import record
from workbench.core import ConfigError

SCRIPTS = ("chart.js", "sample_plots.js", "colouring.js", "point_map.js")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
CLUSTERS = 200
WIDTH, HEIGHT = 1180, 900
BUILD = """([x, y, cluster]) => {
  window.map = new PointMap(document.getElementById('map'), {point() {}, brush() {}});
  const rows = x.length, columns = {
    x: new Float32Array(x), y: new Float32Array(y), cluster: new Int32Array(cluster),
    domain: new Uint16Array(rows),
  };
  const pool = {rows, columns};
  map.set(pool);
  const level = new Uint8Array(rows).fill(PLAIN);
  map.dress({...looksOf('cluster', pool, null), level, hidden: new Set(), labels: []});
}"""
WHEEL = """async pictures => {
  const draw = map.draw.bind(map), took = [];
  map.draw = () => { const t = performance.now(); draw(); took.push(performance.now() - t); };
  const next = () => new Promise(resolve => requestAnimationFrame(resolve));
  const {width, height} = map.over.getBoundingClientRect(), began = performance.now();
  for (let i = 0; i < pictures; i++) {
    const turn = i % 2 ? 60 : -60;
    map.over.dispatchEvent(new WheelEvent('wheel', {
      deltaY: turn, clientX: width / 2, clientY: height / 2, bubbles: true, cancelable: true}));
    await next();
  }
  const seconds = (performance.now() - began) / 1000;
  map.draw = draw;
  return {seconds, took};
}"""
PLOT = """([x, y]) => Plotly.newPlot('plot', [{x, y, mode: 'markers', type: 'scatter',
  marker: {size: 3}}], {width: 1100, height: 440})"""
RELAYOUT = """async ([pictures, span]) => {
  const next = () => new Promise(resolve => requestAnimationFrame(resolve));
  const began = performance.now();
  for (let i = 1; i <= pictures; i++) {
    const half = span * (1 - 0.05 * i);
    await Plotly.relayout('plot', {'xaxis.range': [-half, half], 'yaxis.range': [-half, half]});
    await next();
  }
  return (performance.now() - began) / 1000;
}"""


def pool(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Places, float32 (N, 2), in round clouds on a spiral, and the cloud of each."""
    rng = np.random.default_rng(0)
    cluster_N = np.sort(np.arange(rows) % CLUSTERS)
    angle_N, distance_N = 2.4 * cluster_N, np.sqrt(cluster_N + 1)
    centre_N2 = distance_N[:, None] * np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    return (centre_N2 + 0.5 * rng.standard_normal((rows, 2))).astype(np.float32), cluster_N


def measured(page: Any, place_N2: np.ndarray, cluster_N: np.ndarray, options: Any) -> dict:
    """The map and the Plotly scatter in turns, so that what else the machine does falls on both."""
    x, y = (place_N2[:, axis].round(3).tolist() for axis in (0, 1))
    page.evaluate(BUILD, [x, y, cluster_N.tolist()])
    page.evaluate(PLOT, [x, y])
    page.evaluate(WHEEL, 4)
    ours, took, theirs = [], [], []
    for _ in range(options.rounds):
        found = page.evaluate(WHEEL, options.pictures)
        ours.append(options.pictures / found["seconds"])
        took += found["took"]
        seconds = page.evaluate(RELAYOUT, [options.plotly_pictures, float(np.abs(place_N2).max())])
        theirs.append(options.plotly_pictures / seconds)
    return {
        "map": {
            "pictures_per_second": float(np.median(ours)),
            "draw_ms": dict(
                zip(("50 %", "95 %"), np.quantile(took, [0.5, 0.95]).tolist(), strict=True)
            ),
        },
        "plotly": {"pictures_per_second": float(np.median(theirs))},
        "ratio_by_round": (np.array(ours) / theirs).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--plotly-pictures", type=int, default=1)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ConfigError("no Chromium found", remedy="install chromium")
    static = files("workbench.widgets") / "static"
    script = "\n".join((static / name).read_text() for name in SCRIPTS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_content("<div id='map' style='width: 1100px'></div><div id='plot'></div>")
        # A classic script, so that what it declares can be called from `evaluate`.
        for content in (script, get_plotlyjs()):
            page.add_script_tag(content=content)
        found = measured(page, *pool(options.rows), options)
        version = opened.version
        opened.close()
    for name in ("map", "plotly"):
        print(f"{name}: {found[name]['pictures_per_second']:.2f} pictures a second")
    print("map: milliseconds a picture", found["map"]["draw_ms"])
    payload = {"rows": options.rows, "size": [WIDTH, HEIGHT], "chromium": version, **found}
    command = f"python -m benchmarks.cluster_map --rows {options.rows}"
    print("written:", record("cluster_map", payload, command=command).name)


if __name__ == "__main__":
    main()
