"""The what-if explorer: shares stay on the simplex, the figure follows, buttons write and score."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest

from tests.mixture_runs import DOMAINS, true_nats, write_run, write_trials
from workbench import widgets
from workbench.batch import fit_runs
from workbench.batch.notebook import execute
from workbench.batch.predictions import read_predictions
from workbench.batch.what_if import MEAN
from workbench.core import ConfigError
from workbench.widgets.simplex import Shares


@pytest.fixture
def trials(tmp_path):
    return write_trials(tmp_path / "trials")


@pytest.fixture
def explorer(trials, tmp_path):
    return widgets.what_if(trials, out_dir=tmp_path / "tests", live=True)


def test_others_scale_with_the_one_that_moves():
    shares = Shares({"a": 0.5, "b": 0.3, "c": 0.2})
    assert shares.move("a", 0.8) == pytest.approx({"a": 0.8, "b": 0.12, "c": 0.08})
    assert shares.move("a", 0.9, held={"c"}) == pytest.approx({"a": 0.9, "b": 0.02, "c": 0.08})


def test_a_share_takes_no_more_than_is_not_held():
    shares = Shares({"a": 0.5, "b": 0.3, "c": 0.2})
    assert shares.move("a", 1.0, held={"c"}) == pytest.approx({"a": 0.8, "b": 0.0, "c": 0.2})
    assert shares.move("a", 0.1, held={"b", "c"}) == pytest.approx({"a": 0.8, "b": 0, "c": 0.2})
    assert shares.move("b", -1, held={"b"}) == pytest.approx({"a": 0.8, "b": 0.0, "c": 0.2})


def test_what_was_squeezed_to_nothing_comes_back_as_it_was():
    shares = Shares({"a": 0.5, "b": 0.3, "c": 0.2})
    assert shares.move("a", 1.0) == pytest.approx({"a": 1.0, "b": 0.0, "c": 0.0})
    assert shares.move("a", 0.5) == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})
    assert Shares({"a": 1.0, "b": 0.0, "c": 0.0}).move("a", 0.5) == pytest.approx(
        {"a": 0.5, "b": 0.25, "c": 0.25}
    )


def test_any_sequence_of_moves_stays_on_the_simplex():
    rng = np.random.default_rng(0)
    shares = Shares(dict(zip("abcd", rng.dirichlet(np.ones(4)).tolist(), strict=True)))
    for _ in range(500):
        held = {name for name in "abcd" if rng.random() < 0.3}
        before = dict(shares.now)
        moved = "abcd"[rng.integers(4)]
        now = shares.move(moved, rng.choice([0.0, 1.0, rng.random()]), held=held)
        assert sum(now.values()) == pytest.approx(1) and min(now.values()) >= 0
        assert all(now[name] == before[name] for name in held - {moved})


def test_a_slider_moves_the_others_and_the_figure(explorer, trials):
    fitted = fit_runs(trials)
    explorer.sliders["code"].value = 0.7
    values = {name: slider.value for name, slider in explorer.sliders.items()}
    assert values == pytest.approx(explorer.mixture, abs=0.005) and values["code"] == 0.7
    assert sum(explorer.mixture.values()) == pytest.approx(1) and explorer.mixture["code"] == 0.7
    told = {name: label.value for name, label in explorer.readings.items()}
    assert told == {name: f"{share:.1%}" for name, share in explorer.mixture.items()}
    expected = fitted.predict(explorer.mixture)
    assert explorer.prediction.nats == pytest.approx(expected.nats)
    rows = {row["name"]: row for row in explorer.view.chart["rows"]}
    assert list(rows) == [*DOMAINS, MEAN]
    for d, (name, row) in enumerate(rows.items()):
        mean = fitted.measured_ND[:, d].mean()
        assert row["at"] + mean == pytest.approx(expected.nats[name])
        assert row["low"] + mean == pytest.approx(expected.low[name])
        assert row["told"].startswith(f"{expected.nats[name]:.3f} (")
        assert len(row["seen"]) == 14 and np.mean(row["seen"]) == pytest.approx(0, abs=1e-9)
    low, high = explorer.view.chart["range"]
    assert all(low < row["low"] and row["high"] < high for row in rows.values())


def test_a_slider_that_the_browser_rounds_and_sends_back_moves_nothing(explorer):
    explorer.sliders["code"].value = 0.33
    before = explorer.mixture
    for name, slider in explorer.sliders.items():
        slider.value = before[name] + 0.004
        slider.value = round(before[name], 2)
    assert explorer.mixture == before
    explorer.sliders["prose"].value = round(before["prose"], 2) + 0.01
    assert explorer.mixture["prose"] > before["prose"]


def test_a_held_slider_stays(explorer):
    before = explorer.mixture["noise"]
    explorer.holds["noise"].value = True
    explorer.sliders["code"].value = 1.0
    assert explorer.mixture["noise"] == before
    assert explorer.mixture["code"] == pytest.approx(1 - before)
    assert explorer.sliders["prose"].value == 0


def test_outside_the_sampled_mixtures_is_said_and_drawn(explorer):
    assert "Inside the sampled mixtures" in explorer.text and explorer.view.chart["dash"] is None
    inside = explorer.view.chart
    explorer.sliders["noise"].value = 1.0
    assert "Outside the sampled mixtures by" in explorer.text
    outside = explorer.view.chart
    assert outside["dash"] and outside["colour"] != inside["colour"]
    assert outside["marker"] != inside["marker"]


def test_the_best_predicted_mixture_takes_every_slider_there(explorer, trials):
    explorer.sliders["noise"].value = 0.9
    explorer.holds["code"].value = True
    button = explorer.buttons["Best predicted mixture"]
    assert not button.disabled
    button.click()
    best = fit_runs(trials).best()
    assert explorer.mixture == pytest.approx(best.mixture)
    standing = {name: slider.value for name, slider in explorer.sliders.items()}
    assert standing == pytest.approx(best.mixture, abs=0.005)
    assert explorer.prediction.nats == pytest.approx(best.nats)
    assert f"{best.nats[MEAN]:.4f} nats" in explorer.said and "interval" in explorer.said
    assert f"{best.low[MEAN]:.4f} to {best.high[MEAN]:.4f}" in explorer.said
    explorer.sliders["code"].value = 0.1
    assert explorer.mixture["code"] == pytest.approx(0.1)


def test_chance_is_called_chance(trials, tmp_path):
    rng = np.random.default_rng(3)
    runs = [
        write_run(
            tmp_path,
            f"chance_{i}",
            run.events("step")[0]["effective_mixture"],
            nats=dict(zip(DOMAINS, (3 + rng.normal(size=3)).tolist(), strict=True)),
        )
        for i, run in enumerate(trials)
    ]
    explorer = widgets.what_if(runs, live=True)
    assert "no better than by their mean: what is predicted is chance" in explorer.text


def test_record_writes_what_is_shown_and_score_finds_its_run(explorer, tmp_path):
    explorer.sliders["code"].value = 0.5
    explorer.buttons["Record prediction"].click()
    (line,) = read_predictions(tmp_path / "tests")
    assert line["mixture"] == pytest.approx(explorer.mixture) and "code 50.0%" in explorer.said
    assert line["nats"] == pytest.approx(explorer.prediction.nats)
    explorer.buttons["Score"].click()
    assert "waiting for a run of code 50.0%" in explorer.said
    write_run(tmp_path / "tests", "after", explorer.mixture, nats=true_nats(explorer.mixture))
    explorer.buttons["Score"].click()
    assert "4 of 4 predicted losses fell inside their 90% intervals" in explorer.said


def test_record_and_train_starts_the_fitted_run_with_that_mixture(explorer, tmp_path, monkeypatch):
    asked = []

    def start(config, out_dir):
        asked.append((config, out_dir, len(read_predictions(out_dir))))
        raise ConfigError("no <room>", remedy="make some")

    monkeypatch.setitem(widgets.WhatIfExplorer.train.__globals__, "start", start)
    explorer.buttons["Record and train"].click()
    ((config, out_dir, recorded),) = asked
    assert recorded == 1 and out_dir == tmp_path / "tests"
    assert config.mixer.name == "static" and config.mixer.options["mixture"] == explorer.mixture
    assert config.training.total_steps == 4 and config.corpus.name == "planted"
    assert explorer.said == "no <room> — make some" and "<room>" not in explorer._said.value


def test_domains_are_text_and_not_markup(explorer):
    explorer._say("<b>a</b>\nb")
    assert explorer._said.value == "&lt;b&gt;a&lt;/b&gt;<br>b" and explorer.said == "<b>a</b>\nb"


def test_papermill_stores_one_figure_and_no_widget(trials, tmp_path):
    source = (
        "import workbench as wb\n"
        f"wb.widgets.what_if({str(trials[0].path.parent)!r}, mixture={{'noise': 1}})"
    )
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
    text = "".join(output.get("text", "") for output in outputs)
    assert "noise 100.0%" in text and "Outside the sampled mixtures" in text
