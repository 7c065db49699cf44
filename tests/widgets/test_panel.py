"""The panel answers every message of a view once, obeys, and shows failures with their remedy."""

from __future__ import annotations

import re
import sys
import time

import pytest

from workbench.core import ConfigError, DataError
from workbench.training import Run, open_run, start, train
from workbench.widgets.panel import Panel, panel

WAIT_SECONDS = 20


class Browser:
    """Plays the view: sends messages to a panel and keeps what it is sent."""

    def __init__(self, shown: Panel, monkeypatch):
        self.panel = shown
        self.frames: list[dict] = []
        monkeypatch.setattr(type(shown.widget), "send", lambda _, frame: self.frames.append(frame))

    def send(self, kind: str = "next", **content) -> dict:
        before = len(self.frames)
        content = {"kind": kind, "view": "v", "have": -1, **content}
        self.panel._on_message(self.panel.widget, content, [])
        assert len(self.frames) == before + 1
        assert (self.frames[-1]["to"], self.frames[-1]["answers"]) == ("v", kind)
        return self.frames[-1]

    def until(self, holds) -> dict:
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds(frame := self.send()):
            assert time.monotonic() < deadline, frame
            time.sleep(0.02)
        return frame


@pytest.fixture
def browse(monkeypatch):
    return lambda runs, title="run": Browser(Panel(runs, title), monkeypatch)


@pytest.fixture
def live_run(nano_config, cache_dir, nano_corpus, tmp_path):
    config = nano_config.change(total_steps=100000, reweighter="linupper")
    run = start(config, tmp_path, cache_dir=cache_dir)
    yield run
    if run.live:
        run.stop()
    run.wait()


def status(frame: dict) -> str:
    return frame["runs"][0]["status"]


def test_curves_are_sent_once_and_again_only_when_there_is_more(browse, make_folder):
    folder = make_folder()
    view = browse({"run": Run(folder)})
    first = view.send()
    assert len(first["charts"]) == 2 and first["over"]
    assert "charts" not in view.send(have=first["revision"])
    folder.append("checkpoint", 100)
    assert "charts" in view.send(have=first["revision"])


def test_the_buttons_reach_the_run(browse, live_run):
    view = browse({"run": live_run})
    view.until(lambda frame: frame["runs"][0]["step"] > 0)
    assert view.send("pause")["asked"] in ("pause", None)
    paused = view.until(lambda frame: status(frame) == "paused")
    time.sleep(0.2)
    assert view.send()["runs"][0]["step"] == paused["runs"][0]["step"]
    view.send("resume")
    view.until(lambda frame: status(frame) == "running")
    view.send("stop")
    stopped = view.until(lambda frame: frame["over"])
    assert status(stopped) == "stopped" and "resume" in stopped["said"]
    assert max(live_run.folder.checkpoints()) == stopped["runs"][0]["step"]


def test_a_change_is_applied_and_a_bad_one_shows_its_remedy(browse, live_run):
    view = browse({"run": live_run})
    view.send()
    bad = view.send("set", changes={"reweighter.temperature": "-1"})
    assert "above 0" in bad["notice"]["problem"] and bad["notice"]["remedy"]
    assert view.send()["notice"] == bad["notice"]
    assert view.send("set", changes={"reweighter.temperature": "0.9"})["notice"] is None
    view.until(lambda frame: frame["charts"][0]["marks"])
    values = {control["name"]: control["value"] for control in view.send()["controls"]}
    assert values["reweighter.temperature"] == 0.9
    assert [e["changes"] for e in live_run.events("set")] == [{"reweighter.temperature": 0.9}]


def test_a_run_on_disk_is_shown_whole_and_its_buttons_say_why_they_do_nothing(browse, make_folder):
    view = browse({"run": open_run(make_folder(end="stopped").path)})
    frame = view.send()
    assert frame["runs"][0]["step"] == 100 and not frame["runs"][0]["live"]
    assert "workbench.resume" in view.send("pause")["notice"]["remedy"]


def test_a_failure_of_the_training_thread_is_shown_with_its_remedy(browse, make_folder):
    folder = make_folder(end=None)
    folder.append("failed", 100, problem="the loss is not finite", remedy="lower the rate")
    frame = browse({"run": Run(folder)}).send()
    assert frame["notice"] == {"problem": "the loss is not finite", "remedy": "lower the rate"}


def test_a_failure_that_could_not_even_be_written_is_shown(browse, make_folder):
    run = Run(make_folder(end=None))
    run._error = DataError("disk full", remedy="free some space")
    frame = browse({"run": run}).send()
    assert frame["notice"] == {"problem": "disk full", "remedy": "free some space"}


def test_a_damaged_record_is_an_answer_and_not_silence(browse, make_folder):
    folder = make_folder()
    view = browse({"run": Run(folder)})
    with (folder.path / "events.jsonl").open("a") as file:
        file.write("not json\n")
    assert "damaged" in view.send()["notice"]["problem"]


def test_controls_act_on_the_live_run_of_several(browse, live_run, make_folder):
    view = browse({"old": Run(make_folder("old")), "new": live_run})
    assert view.send("pause")["shown"] == "new"
    view.until(lambda frame: frame["runs"][1]["status"] == "paused")
    assert view.send()["runs"][0]["status"] == "finished"


def test_without_a_front_end_the_run_is_waited_for(nano_config, cache_dir, nano_corpus, tmp_path):
    run = start(nano_config, tmp_path, cache_dir=cache_dir)
    twin = panel(run)
    assert run.status() == "finished"
    assert repr(twin) == "Twin(nano: finished after 40 steps)"


def test_waiting_says_how_far_the_run_is(
    nano_config, cache_dir, nano_corpus, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys.modules[Panel.__module__], "TELL_SECONDS", 0.05)
    config = nano_config.change(total_steps=300)
    panel(start(config, tmp_path, cache_dir=cache_dir))
    assert re.search(r"nano: step \d+, loss \d\.\d{3} nats", capsys.readouterr().out)


def test_a_panel_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no runs"):
        panel({})


def test_forks_of_a_run_are_listed_under_it(browse, nano_config, cache_dir, tmp_path):
    run = train(nano_config.change(name="base", total_steps=12), tmp_path, cache_dir=cache_dir)
    assert browse({"run": run}).send()["forks"] == []
    fork = run.fork(10, mixer="exp3", background=False)
    first, second = browse({"run": run}).send()["forks"]
    assert (first["name"], first["depth"], first["left"], first["shown"]) == ("base", 0, "", True)
    assert (second["name"], second["depth"]) == (fork.path.name, 1)
    assert second["left"] == "from step 10: mixer = exp3" and not second["shown"]
    assert second["held_out_nats"] == fork.summary()["held_out_mean_nats"]


def test_warnings_of_a_run_are_shown_with_their_step(browse, make_folder):
    folder = make_folder()
    view = browse({"run": Run(folder)})
    assert view.send()["warnings"] == []
    folder.append("warning", 40, message="domain 'a': the mixer raised its share")
    assert view.send()["warnings"] == [
        {"step": 40, "text": "domain 'a': the mixer raised its share"}
    ]
