"""The cluster map: rows as bytes, rounds as told, text when asked, and what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.selection_folder import DOMAINS, FIRST_ID, new_folder, pool, rounds, write_choice
from workbench.core import RunError
from workbench.training import Run
from workbench.widgets.cluster_map import ClusterTwin, cluster_map
from workbench.widgets.curves import told_stage
from workbench.widgets.pool_frames import ChoiceCurves, known
from workbench.widgets.sample_frames import Texts

TYPES = ("f4", "f4", "f4", "i4", "i4", "u2", "u1")
NAMES = ("x", "y", "influence", "cluster", "scored", "domain", "accepted")


class Written:
    """A corpus that gives every row a text."""

    def text(self, sample_id: int) -> str:
        return f"text of {sample_id}"

    def provenance(self, sample_id: int) -> list[dict]:
        return [{"origin": "made up"}]


class Browser:
    """Plays the browser's half; `buffers` are those of the last frame."""

    def __init__(self, folder, monkeypatch, corpus=None):
        self.view, self.frames = cluster_map(Run(folder), corpus=corpus, live=True), []
        send = lambda _, frame, buffers=None: self.frames.append((frame, buffers))  # noqa: E731
        monkeypatch.setattr(type(self.view.widget), "send", send)

    def send(self, kind: str = "next", **content) -> dict:
        wants = {"have": -1, "step": None, "key": None, "choice": None, "pool": None}
        self.view._on_message(self.view.widget, {"kind": kind, "view": "v", **wants, **content}, [])
        frame, self.buffers = self.frames[-1]
        assert frame["answers"] == kind
        json.dumps(frame, allow_nan=False)
        return frame

    def columns(self) -> dict[str, np.ndarray]:
        return {
            name: np.frombuffer(buffer, dtype)
            for name, dtype, buffer in zip(NAMES, TYPES, self.buffers, strict=True)
        }


@pytest.fixture
def folder(tmp_path, nano_config):
    return new_folder(tmp_path / "run", nano_config.to_dict())


@pytest.fixture
def browse(monkeypatch):
    return lambda folder, corpus=None: Browser(folder, monkeypatch, corpus)


def test_rows_travel_once_as_the_bytes_of_the_table(browse, folder):
    browser = browse(write_choice(folder))
    told = browser.send()["pool"]
    columns, table = browser.columns(), folder.selection().frame("samples")
    for name in ("x", "y", "influence", "cluster", "accepted"):
        assert np.array_equal(columns[name], table[name].to_numpy(), equal_nan=name == "influence")
    names = np.array([domain["name"] for domain in told["domains"]])
    assert list(names[columns["domain"]]) == list(table["domain"])
    again = browser.send(pool=told["key"])
    assert "pool" not in again and browser.buffers is None


def test_rows_know_the_round_in_which_they_were_scored(browse, folder):
    browser = browse(write_choice(folder))
    browser.send()
    columns, pulls = browser.columns(), folder.selection().frame("pulls")
    place = pulls["sample_id"].to_numpy() - FIRST_ID
    assert np.array_equal(columns["scored"][place], pulls["round"])
    assert (columns["scored"] >= 0).sum() == len(pulls) == np.isfinite(columns["influence"]).sum()


def test_arms_and_the_last_round_are_those_of_the_tables(browse, folder):
    frame = browse(write_choice(folder)).send()
    arms, round_, table = frame["pool"]["arms"], frame["round"], folder.selection().frame("arms")
    assert frame["recorded"] == (0, 19) and round_["step"] == 19 and round_["last"]
    assert round_["pulls"] == table["pulls"].tolist() == arms["pulls"]
    for name in ("rows", "low", "high", "accepted"):
        assert arms[name] == pytest.approx(table[name].tolist(), rel=1e-4)


def test_an_earlier_round_counts_only_what_was_pulled_until_then(browse, folder):
    round_ = browse(write_choice(folder)).send(step=2)["round"]
    events = folder.events("selecting")[:3]
    assert round_["clusters"] == events[2]["clusters"] and not round_["last"]
    assert sum(round_["pulls"]) == sum(len(event["clusters"]) for event in events)
    unpulled = [mean for mean, n in zip(round_["means"], round_["pulls"], strict=True) if n == 0]
    assert unpulled and set(unpulled) == {None}


def test_acceptance_grows_over_the_rounds_and_never_shrinks(browse, folder):
    write_choice(folder)
    browser = browse(folder)
    told = [browser.send(step=step)["round"] for step in range(20)]
    accepted_RC = np.array([round_["accepted"] for round_ in told])
    assert (np.diff(accepted_RC, axis=0) >= 0).all() and accepted_RC[-1].sum() > accepted_RC[
        0
    ].sum()
    for event, accepted_C in zip(folder.events("selecting")[-20:], accepted_RC, strict=True):
        assert accepted_C[event["clusters"]].tolist() == event["accepted"]
    assert ("Rows accepted", f"{accepted_RC[7].sum()}") in told[7]["facts"]


def test_rounds_recorded_without_acceptance_say_nothing_of_it(browse, folder):
    with folder.lock():
        folder.write_pool({"samples": pool(600, 12)})
        folder.append_many(
            [{"kind": "selecting", "step": 4, "stage": "map", "done": 1, "total": 1}]
        )
        events = [{k: v for k, v in e.items() if k != "accepted"} for e in rounds(3, 12)]
        folder.append_many([{**event, "step": 4} for event in events])
    round_ = browse(folder).send()["round"]
    assert round_["accepted"] is None and "Rows accepted" not in dict(round_["facts"])


def test_while_a_selector_works_its_pool_and_rounds_are_shown_without_scores(browse, folder):
    browser = browse(folder)
    assert browser.send()["recorded"] is None and browser.frames[-1][0]["choice"] is None
    with folder.lock():
        folder.write_pool({"samples": pool(600, 12)})
        done = {"stage": "map", "done": 600, "total": 600}
        folder.append_many([{"kind": "selecting", "step": 4, **done}])
    frame = browser.send()
    assert frame["stage"] == "The map is drawn" and frame["recorded"] is None
    assert np.isnan(browser.columns()["influence"]).all() and not frame["pool"]["accepted"]
    with folder.lock():
        folder.append_many([{**event, "step": 4} for event in rounds(3, 12)])
    at_work = browser.send(pool=frame["pool"]["key"])
    assert at_work["recorded"] == (0, 2) and not at_work["round"]["last"]
    assert at_work["stage"] == "Pulling arms: round 2" and "pool" not in at_work
    write_choice(folder, step=4)
    made = browser.send(pool=frame["pool"]["key"], key=at_work["round"]["key"])
    assert made["stage"] == "" and made["pool"]["key"] != frame["pool"]["key"]
    assert made["pool"]["accepted"] > 0


def test_an_earlier_choice_is_shown_when_asked_for(browse, folder):
    write_choice(folder, step=0, count=5)
    write_choice(folder, step=8, count=9)
    browser = browse(folder)
    newest = browser.send()
    assert newest["choices"] == [0, 8] and newest["choice"] == 8
    assert newest["recorded"] == (0, 8)
    earlier = browser.send(choice=0, pool=newest["pool"]["key"], key=newest["round"]["key"])
    assert earlier["recorded"] == (0, 4) and earlier["round"]["choice"] == 0 and "pool" in earlier


def test_text_comes_by_the_place_of_a_row_and_only_when_asked(browse, folder):
    browser = browse(write_choice(folder), Written())
    assert "read" not in browser.send()
    (told,) = browser.send("read", rows=[7])["read"]
    assert told["text"] == f"text of {told['sample']}" == f"text of {FIRST_ID + 7}"
    (beyond,) = browser.send("read", rows=[10**6])["read"]
    assert beyond["text"] is None


def test_without_the_corpus_there_is_a_map_without_text(browse, folder):
    browser = browse(write_choice(folder))
    assert browser.send()["pool"]["rows"] == 600
    assert browser.send("read", rows=[0])["read"][0]["text"] is None
    assert isinstance(browser.view._texts, Texts) and isinstance(
        browser.view._texts.missing, RunError
    )


def test_a_selector_without_a_map_is_a_frame_without_rows(browse, folder):
    with folder.lock():
        folder.write_selection(0, {"selected": {"sample_id": np.arange(3)}}, {})
        fields = {"rows": 3, "tokens": 9, "budget_tokens": 9, "seconds": 0.1, "domains": {}}
        folder.append("selected", 0, **fields)
    frame = browse(folder).send()
    assert frame["pool"]["rows"] == 0 and frame["recorded"] is None and "notice" in frame


def test_a_choice_begun_again_starts_its_rounds_again(folder):
    curves = ChoiceCurves(folder)
    with folder.lock():
        folder.append_many([{**event, "step": 0} for event in rounds(5, 12) + rounds(2, 12)])
    curves.refresh()
    assert [event["round"] for event in curves.rounds(0)] == [0, 1]


def test_stages_are_told_in_words():
    assert told_stage(None) == ""
    stage = {"stage": "embedding", "done": 1000, "total": 4000}
    assert told_stage(stage) == "Embedding rows: 1,000 of 4,000"
    assert told_stage({"stage": "a new one", "done": None, "total": None}) == "A new one"
    assert known([1.0, float("nan"), None, 0.123456789]) == [1, None, None, 0.12346]
    assert known([1234567.0, 123456.7]) == [1234567, 123460.0], "counts are not rounded"


def test_without_a_front_end_there_are_figures(folder, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("workbench.plots.show", shown.append)
    twin = cluster_map(Run(write_choice(folder)), live=False)
    assert isinstance(twin, ClusterTwin)
    twin._ipython_display_()
    assert "1 choice)" in capsys.readouterr().out and len(shown) == 3
    assert {trace.name for trace in shown[0].data} == {
        name.replace("<", "&lt;").replace(">", "&gt;") for name in DOMAINS
    }
