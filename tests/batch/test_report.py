"""The report is one file that works offline, says what was found, and escapes what it is given."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from workbench.batch import report
from workbench.core import ConfigError, RunError

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Tags that open and close, headings, captions, and everything a browser would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.unlabelled_figures = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        fields = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.fetched += [fields[name] for name in ("src", "href") if name in fields]
        if fields.get("role") == "img" and not fields.get("aria-label"):
            self.unlabelled_figures += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


@pytest.fixture
def runs(write_run):
    made = []
    for seed in range(3):
        base = {"clean": 3.0 + 0.1 * seed, "noise": 5.0}
        made.append(write_run(f"u{seed}", seed=seed, final=base))
        better = {"clean": 2.8 + 0.101 * seed, "noise": 5.0}
        made.append(write_run(f"l{seed}", seed=seed, final=better, reweighter="linupper"))
    return made


def test_the_report_is_whole_and_fetches_nothing(runs, tmp_path):
    text = report(runs, tmp_path / "deep" / "report.html", title="Tour").read_text()
    outline = Outline(text)
    assert outline.open == []
    assert outline.fetched == []
    assert outline.headings[0] == "Tour"
    assert {"Verdicts", "Runs", "Settings", "Corpus", "Events", "Environment"} <= set(
        outline.headings
    )
    assert text.count("plotly.js v") == 1
    assert outline.unlabelled_figures == 0
    assert outline.tags.count("table") == outline.tags.count("caption") > 5
    assert outline.tags.count("figure") == outline.tags.count("figcaption") >= 4
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_the_report_says_what_was_found_where_and_under_which_settings(runs, tmp_path):
    text = report(runs, tmp_path / "report.html").read_text()
    assert "linupper is better than uniform: −0.0" in text
    assert "linupper on clean" in text
    assert "<td>reweighter.name</td><td>uniform</td><td>linupper</td>" in text
    assert "0123456789ab" in text and "abc123" in text
    assert "nothing failed" in text


def test_a_warning_is_reported_once_with_its_first_step_and_how_often(write_run, tmp_path):
    run = write_run("w", end=None)
    with run.lock():
        for step, message in ((1, "the pool is <small>"), (2, "lone"), (3, "the pool is <small>")):
            run.append("warning", step, message=message)
        run.append("finished", 4)
    text = report([run], tmp_path / "report.html").read_text()
    assert "nothing failed" not in text
    row = "<td>warning</td><td>the pool is &lt;small&gt; (2 times)</td>"
    assert text.count(row) == 1
    assert "<td>warning</td><td>lone</td>" in text
    assert re.search(rf"<td[^>]*>1</td>{re.escape(row)}", text)


def test_text_from_outside_is_escaped_everywhere(write_run, tmp_path):
    losses = {HOSTILE: 3.0, "clean": 4.0}
    runs = {HOSTILE: write_run("a", final=losses), "other": write_run("b", final=losses)}
    row = {
        "documents": 1,
        "megabytes": 0.1,
        "held_out_rows": 1,
        "tokens": 9,
        "train_rows": 3,
        "exact_duplicates": 0,
    }
    overview = [{"domain": HOSTILE, **row, "near_duplicates": 0}]
    text = report(
        runs, tmp_path / "report.html", title=HOSTILE, corpus_overview=overview
    ).read_text()
    assert "<img" not in text
    outline = Outline(text)
    assert outline.open == [] and "img" not in outline.tags


def test_failures_and_changes_are_events_of_the_report(write_run, tmp_path):
    failed = write_run("f", end="failed")
    with failed.lock():
        failed.append("set", 2, changes={"temperature": 0.4})
    text = report([failed], tmp_path / "report.html").read_text()
    assert "loss of &lt;b&gt;row 3&lt;/b&gt; is NaN — lower it" in text
    assert "temperature = 0.4" in text
    assert "nothing to compare it to" in text


def test_runs_that_cannot_be_compared_say_why_in_place_of_a_verdict(write_run, tmp_path):
    groups = {"uniform": write_run("a"), "other": write_run("b", content_hash="def")}
    text = report(groups, tmp_path / "report.html").read_text()
    assert re.search(r"No verdict: .* were trained on different text", text)


def test_the_verdict_table_has_every_column_and_repeats_their_noise_floor(
    runs, write_run, tmp_path
):
    text = report(runs, tmp_path / "report.html").read_text()
    for heading in ("bootstrap low", "bootstrap high", "noise floor", "seeds needed"):
        assert f">{heading}</th>" in text
    again = write_run("u0b", seed=0, final={"clean": 3.5, "noise": 5.0})
    refused = report([*runs, again], tmp_path / "report.html").read_text()
    assert "No verdict" in refused and "give repeated=True" in refused
    text = report([*runs, again], tmp_path / "report.html", repeated=True).read_text()
    assert "No verdict" not in text
    assert re.search(r"linupper against uniform is within noise.*repeats alone differ by", text)


def test_a_live_change_stands_among_the_settings(runs, write_run, tmp_path):
    changed = write_run("c0", live={2: {"reweighter": "linupper"}})
    text = report([*runs, changed], tmp_path / "report.html").read_text()
    row = "<td>changed while training</td><td></td><td></td><td>step 2: reweighter=linupper</td>"
    assert row in text
    assert '<th scope="col">uniform, changed at step 2: reweighter=linupper</th>' in text


def test_a_setting_that_cannot_be_compared_leaves_the_verdicts_on_the_others(
    runs, write_run, tmp_path
):
    other = write_run("q0", reweighter="quadratic", content_hash="def")
    text = report([*runs, other], tmp_path / "report.html").read_text()
    assert "linupper is better than uniform" in text
    assert re.search(r"No verdict: .*q0 were trained on different text", text)


def test_weight_figures_are_drawn_only_where_weights_differ(write_run, tmp_path):
    text = report([write_run("a")], tmp_path / "report.html").read_text()
    assert "Effective sample size" in text
    flat = write_run("b")
    events = (flat.path / "events.jsonl").read_text().replace('"max_weight":1.5', '"max_weight":1')
    (flat.path / "events.jsonl").write_text(events)
    assert 'max_weight":1,' in events
    text = report([flat], tmp_path / "report.html").read_text()
    assert "Effective sample size" not in text


def test_rows_seen_come_from_the_ledger(write_run, tmp_path):
    run = write_run("a", steps=2, end=None)
    columns = {
        "step": np.array([0, 0, 1], dtype=np.int32),
        "sample_id": np.array([7, 8, 7]),
        "domain": np.array(["clean", "noise", "clean"], dtype=object),
        "probability": np.full(3, 0.5, dtype=np.float32),
        "loss": np.array([3, 5, 2], dtype=np.float32),
        "weight": np.ones(3, dtype=np.float32),
    }
    run.write_ledger(columns, 0, 1)
    text = report([run], tmp_path / "report.html").read_text()
    cells = re.sub(r' class="number"', "", text)
    assert "<td>a</td><td>clean</td><td>2</td><td>1</td><td>2.5</td><td>1</td>" in cells


def test_the_numbers_of_a_figure_stand_beside_it(runs, tmp_path):
    text = re.sub(r' class="number"', "", report(runs, tmp_path / "report.html").read_text())
    assert re.search(r"<td>uniform</td><td>clean</td><td>1</td><td>3.1</td>", text)


def test_bad_requests_are_named(runs, tmp_path):
    with pytest.raises(RunError, match="no runs to report on"):
        report([], tmp_path / "report.html")
    with pytest.raises(ConfigError, match=r"did you mean 'uniform'\?"):
        report(runs, tmp_path / "report.html", baseline="uniforn")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        report(runs, tmp_path / "file" / "report.html")
