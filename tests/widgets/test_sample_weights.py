"""The view of sample weights: what it sends, how it scrubs, how it reads, how fast it is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from workbench.core import RunError
from workbench.tracking import RunFolder
from workbench.training import Run, open_run, prepared_corpus, start, train
from workbench.widgets.sample_frames import Texts, drawn, extremes, step_samples, table
from workbench.widgets.sample_weights import SampleTwin, SampleWeights, sample_weights
from workbench.widgets.weight_curves import WeightCurves, weight_charts

SCRIPT = "<script>alert(1)</script>"
FRAME_MS = 50
LOOKUP_MS = 100


class Corpus:
    """Text that must be escaped, by sample id."""

    def text(self, sample_id: int) -> str:
        return f"{SCRIPT} row {sample_id}\n" + 2000 * "x"

    def provenance(self, sample_id: int) -> list[dict]:
        return [{"origin": f"file_{part}"} for part in range(5)]


def ledger_rows(first: int, last: int, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = (last - first + 1) * rows
    return {
        "step": np.repeat(np.arange(first, last + 1), rows),
        "sample_id": np.arange(count) + (1 << 40),
        "domain": rng.choice(["clean", "noise"], count),
        "probability": np.full(count, 0.5),
        "loss": rng.normal(5, 1, count),
        "weight": rng.uniform(0, 2, count),
    }


@pytest.fixture
def recorded(make_folder):
    """A finished run of 40 steps of 16 rows."""
    folder = make_folder(steps=40)
    with folder.lock():
        folder.write_ledger(ledger_rows(0, 39, 16), 0, 39)
    return Run(folder)


@pytest.fixture
def empty(tmp_path, nano_config):
    """A folder without events."""
    config = nano_config.change(reweighter="linupper")
    return RunFolder.create(tmp_path / "empty", config=config.to_dict(), environment={})


class Browser:
    """Plays the browser's half."""

    def __init__(self, view: SampleWeights, monkeypatch):
        self.view, self.frames = view, []
        monkeypatch.setattr(type(view.widget), "send", lambda _, frame: self.frames.append(frame))

    def send(self, kind: str = "next", **content) -> dict:
        content = {"kind": kind, "view": "v", "have": -1, "step": None, "key": None, **content}
        self.view._on_message(self.view.widget, content, [])
        assert self.frames[-1]["answers"] == kind
        return self.frames[-1]


@pytest.fixture
def browse(monkeypatch):
    return lambda run, corpus=None: Browser(
        sample_weights(run, corpus=corpus or Corpus(), live=True), monkeypatch
    )


def test_the_newest_step_is_sent_once_and_an_older_one_when_asked(browse, recorded):
    browser = browse(recorded)
    newest = browser.send()
    assert newest["recorded"] == (0, 39) and newest["samples"]["step"] == 39
    assert "samples" not in browser.send(key=newest["samples"]["key"])
    older = browser.send(key=newest["samples"]["key"], step=7)["samples"]
    rows = recorded.ledger.step(7)
    assert older["step"] == 7 and older["rows"] == 16
    assert older["loss"] == pytest.approx(rows["loss"].tolist(), abs=1e-4)
    assert older["sample"] == [str(i) for i in rows["sample_id"]]
    assert browser.send(step=10**9)["samples"]["step"] == 39


def test_a_new_part_of_the_ledger_is_followed(browse, recorded):
    browser = browse(recorded)
    key = browser.send()["samples"]["key"]
    with recorded.folder.lock():
        recorded.folder.write_ledger(ledger_rows(40, 44, 16), 40, 44)
    assert browser.send(key=key)["samples"]["step"] == 44


def test_before_the_first_rows_there_is_a_frame_without_samples(browse, make_folder):
    frame = browse(Run(make_folder(steps=3))).send()
    assert frame["recorded"] is None and "samples" not in frame and len(frame["charts"]) == 2


def test_reading_a_row_keeps_the_notice_of_the_last_request(browse, recorded):
    browser = browse(recorded)
    assert browser.send("pause")["notice"]
    told = browser.send("read", sample=str((1 << 40) + 3))
    assert told["read"]["text"].startswith(f"{SCRIPT} row {(1 << 40) + 3}")
    assert len(told["read"]["text"]) < 1300
    assert told["read"]["origin"] == "file_0, file_1, file_2 and 2 more"
    assert told["notice"]


def test_without_its_text_the_view_says_why_and_shows_the_rest(recorded, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    browser = Browser(sample_weights(recorded, live=True), monkeypatch)
    samples = browser.send()["samples"]
    assert "is not in" in samples["missing"]["problem"] and samples["missing"]["remedy"]
    assert samples["heaviest"][0]["text"] is None and samples["rows"] == 16


def test_heaviest_and_lightest_do_not_overlap_and_ties_go_to_the_more_extreme_loss():
    rows = step_rows(loss=[1.0, 2.0, 3.0, 4.0, 5.0], weight=[0.5, 0.5, 1.0, 1.5, 1.5])
    found = extremes(step_samples(rows, 0, []), Texts(Corpus()), top=4)
    assert [row["loss"] for row in found["heaviest"]] == [5.0, 4.0]
    assert [row["loss"] for row in found["lightest"]] == [1.0, 2.0]


def test_rows_without_a_finite_loss_are_counted_and_left_out():
    rows = step_rows(loss=[1.0, np.nan, 3.0], weight=[1.0, 1.0, 1.0])
    frame = drawn(step_samples(rows, 0, ["clean"]), Texts(None))
    assert frame["rows"] == 2 and frame["left_out"] == 1
    assert sum(map(sum, frame["histograms"][0]["counts"])) == 2
    assert frame["correlation"] is None and frame["effective_rows"] == pytest.approx(2)


def step_rows(loss, weight):
    import pandas as pd

    rows = {"sample_id": range(len(loss)), "domain": "clean", "loss": loss, "weight": weight}
    return pd.DataFrame({"step": 0, **rows})


def test_the_table_for_papermill_escapes_text(recorded):
    shown = table(step_samples(recorded.ledger.step(3), 3, []), Texts(Corpus()))
    assert len(shown) == 8 and SCRIPT in shown["text"][0]
    assert SCRIPT not in shown.to_html() and len(shown["text"][0]) < 250


def test_effective_rows_and_shares_follow_the_events_and_carry_the_marks(empty, step):
    share = {"clean": 0.25, "noise": 0.75}
    empty.append_many([step(i, ess_fraction=0.8, weight_share=share) for i in range(600)])
    empty.append("set", 300, changes={"reweighter.temperature": 0.2})
    curves = WeightCurves(empty)
    curves.refresh()
    effective, mixture = weight_charts(curves)
    assert [mark["text"] for mark in mixture["marks"]] == ["temperature 0.2"]
    assert effective["marks"] == mixture["marks"]
    bold = {each["name"]: each for each in mixture["lines"] if not each["faint"]}
    assert bold["noise"]["y"] == pytest.approx([0.75] * len(bold["noise"]["x"]), abs=1e-3)
    assert len(bold["noise"]["x"]) == 200
    assert effective["lines"][1]["y"][0] == pytest.approx(0.8, abs=1e-3)
    assert curves.policy_at(299)[1] != 0.2 and curves.policy_at(300)[1] == 0.2


def test_a_domain_first_seen_later_has_no_share_before(empty, step):
    empty.append_many([step(0), step(1, weight_share={"late": 1.0})])
    curves = WeightCurves(empty)
    curves.refresh()
    assert curves.share("weight_share", "late").tolist() == [0.0, 1.0]
    assert curves.share("weight_share", "clean").tolist() == [0.5, 0.0]


def test_temperature_and_strategy_change_from_the_view(
    browse, nano_config, nano_corpus, cache_dir, tmp_path
):
    config = nano_config.change(total_steps=100000, reweighter="linupper")
    run = start(config, tmp_path, cache_dir=cache_dir)
    browser = browse(run, nano_corpus)
    try:
        browser.send("set", changes={"reweighter": "quadratic"})
        browser.send("set", changes={"reweighter.temperature": "0.7"})
        deadline = time.monotonic() + 20
        while browser.send().get("samples", {}).get("temperature") != 0.7:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        samples = browser.frames[-1]["samples"]
    finally:
        run.stop()
        run.wait()
    assert samples["policy"] == "quadratic"
    assert all(row["text"] for row in samples["heaviest"])
    changes = [event["changes"] for event in run.events("set")]
    assert changes == [{"reweighter": "quadratic"}, {"reweighter.temperature": 0.7}]


def test_the_text_comes_from_the_preparation_the_run_was_started_on(
    nano_config, nano_corpus, cache_dir, tmp_path
):
    run = train(nano_config.change(total_steps=2), tmp_path, cache_dir=cache_dir)
    found = prepared_corpus(open_run(run.path), cache_dir=cache_dir)
    assert found.content_hash == nano_corpus.content_hash
    with pytest.raises(RunError, match="is not in"):
        prepared_corpus(run, cache_dir=tmp_path)


def test_without_a_front_end_the_run_is_waited_for(nano_config, cache_dir, nano_corpus, tmp_path):
    twin = sample_weights(start(nano_config, tmp_path, cache_dir=cache_dir), corpus=nano_corpus)
    assert isinstance(twin, SampleTwin)
    assert repr(twin) == "SampleTwin(nano: finished, steps 0 to 39 in the ledger)"


def test_frames_are_quick_at_512_rows_and_a_million_ledger_rows(browse, make_folder):
    folder = make_folder(steps=2000)
    with folder.lock():
        for first in range(0, 2000, 50):
            folder.write_ledger(ledger_rows(first, first + 49, 512, first), first, first + 49)
    run = Run(folder)
    browser = browse(run)
    newest = browser.send()
    lookup, frame = [], []
    for step in range(100, 1900, 100):
        began = time.perf_counter()
        run.ledger.step(step)
        lookup.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        samples = browser.send(step=step, have=newest["revision"])["samples"]
        frame.append(1000 * (time.perf_counter() - began))
        assert samples["rows"] == 512
    print(f"step lookup {np.median(lookup):.1f} ms, whole frame {np.median(frame):.1f} ms")
    assert np.median(lookup) < LOOKUP_MS
    assert np.median(frame) - np.median(lookup) < FRAME_MS
