"""Figures leave as PNG, notebook output and HTML."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace

from workbench import plots
from workbench.evaluation import verdict
from workbench.plots.lettering import fitted


def pixels(content: bytes):
    import io

    from matplotlib.image import imread

    return imread(io.BytesIO(content))


def test_the_png_is_drawn_at_double_size_and_written(make, tmp_path):
    figure = plots.loss(make("a"))
    content = plots.png(figure, tmp_path / "loss.png", width=800)
    assert (tmp_path / "loss.png").read_bytes() == content
    image = pixels(content)
    assert image.shape[:2] == (2 * figure.layout.height, 1600)
    blue = (image[..., 2] > 0.6) & (image[..., 0] < 0.2)
    assert blue.sum() > 500, "the line is in the picture"


def test_every_figure_has_a_picture(make):
    run = make("a")
    run.append("set", 31, changes={"temperature": 0.4})
    for name in ("loss", "held_out", "ess", "weights", "implied_mixture", "mixture"):
        image = pixels(plots.png(getattr(plots, name)(run)))
        assert (image[..., :3].min(axis=2) < 0.8).sum() > 1000, name


def test_names_of_250_letters_are_broken_into_lines_and_leave_room_for_the_figure(make):
    long = ", ".join(f"mixture.domain_{i}=0.{i}646313043" for i in range(9))[:250]
    assert len(long) == 250
    run = make("a")
    other = verdict({0: 3.0, 1: 3.1}, {0: 2.9, 1: 3.05}, name=long, baseline_name="uniform")
    same = replace(other, name=long + "2", outcome="better")
    for figure in (
        plots.loss({long: run, "uniform": run}),
        plots.held_out({long: run, "uniform": run}),
        plots.verdicts([other, same]),
    ):
        image = pixels(plots.png(figure))
        assert image.shape[1] == 1800
        coloured = image[..., :3].max(axis=2) - image[..., :3].min(axis=2) > 0.3
        assert coloured[:, 720:1080].any(), "something is drawn between the names"
    lines = fitted(f"{long} against uniform", 40).split("\n")
    assert len(lines) <= 3 and all(len(line) <= 40 for line in lines)
    assert lines[0].startswith("mixture.domain_0=") and lines[-1].endswith("against uniform")
    assert fitted("short", 40) == "short"


def test_a_notebook_gets_the_figure_and_its_picture(make):
    shown = plots.bundle(plots.loss(make("a")))
    live = shown["application/vnd.plotly.v1+json"]
    assert live["data"] and live["layout"]["title"]["text"] == "Training loss"
    assert live["config"]["showSendToCloud"] is False and not live["config"]["displaylogo"]
    assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG")
    assert "Training loss" in shown["text/plain"]
    json.dumps(shown, allow_nan=False)


def test_show_displays_the_bundle(make, monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: displayed.append((data, raw)))
    plots.show(plots.loss(make("a")))
    ((data, raw),) = displayed
    assert raw and {"image/png", "application/vnd.plotly.v1+json"} <= set(data)


def test_a_browser_gets_the_live_figure_and_not_the_png_that_would_hide_it(make, monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: displayed.append(data))
    monkeypatch.setattr("workbench.plots.display.has_front_end", lambda: True)
    plots.show(plots.loss(make("a")))
    assert set(displayed[0]) == {"application/vnd.plotly.v1+json", "text/plain"}


def test_a_page_holds_the_library_once_and_loads_nothing(make):
    run = make("a")
    page = plots.html({"Loss <1>": plots.loss(run), "ESS": plots.ess(run)}, title="Run a & b")
    assert page.count("plotly.js v") == 1 and "Loss &lt;1&gt;" in page and "Run a &amp; b" in page
    assert "<script src=" not in page and page.count('class="plotly-graph-div"') == 2
    assert "plotly.js v" not in plots.fragment(plots.ess(run))


def test_importing_plots_imports_no_torch_and_no_plotly():
    code = (
        "import sys, workbench.plots\n"
        "assert not {'torch', 'plotly', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "workbench.plots.loss\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
