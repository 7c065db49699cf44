"""The view of a policy: what it sends of a run and of a step, and what it says is missing."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from workbench.plots.mixing import corners
from workbench.tracking import RunFolder
from workbench.training import Run, start
from workbench.widgets.curves import ByDomain
from workbench.widgets.policy import PolicyTwin, policy
from workbench.widgets.policy_curves import PolicyCurves, mixture_at, path, policy_charts

DOMAINS = ("code", "noise <b>", "prose")
FRAME_MS = 50


def mixture(step: int) -> dict[str, float]:
    share = 0.3 * min(step, 40) / 40
    return dict(zip(DOMAINS, (1 / 3 + share, 1 / 3 - share, 1 / 3), strict=True))


def said(step: int, *, ratio: bool = True) -> dict:
    told = {"reward_average": dict(zip(DOMAINS, (1.0, -1.5, 0.1 * step), strict=True))}
    if ratio:
        told["signal_to_noise"] = dict.fromkeys(DOMAINS, 1e6 if step < 2 else 10.0)
        told["phase"] = "warmup" if step < 10 else "learning"
        told["critic_loss"] = 0.01 * step
    return told


@pytest.fixture
def make(tmp_path, nano_config, step):
    """make(steps, mixer, tell): a recorded run; `tell(step)` is what its mixer said."""

    def create(steps: int = 40, mixer: str = "acodm", tell=said) -> RunFolder:
        config = nano_config.change(name=mixer).replace(mixer=mixer)
        folder = RunFolder.create(tmp_path / mixer, config=config.to_dict(), environment={})
        with folder.lock():
            folder.append("started", 0)
            folder.append_many([event(i, tell) for i in range(steps)])
        return folder

    def event(i: int, tell) -> dict:
        used = {name: 0.5 * p + 0.5 / 3 for name, p in mixture(i).items()}
        return step(i, mixture=mixture(i), effective_mixture=used, mixer=tell(i) if tell else {})

    create.event = event
    return create


@pytest.fixture
def curves(make):
    def read(*arguments, **options) -> PolicyCurves:
        found = PolicyCurves(make(*arguments, **options))
        found.refresh()
        return found

    return read


class Browser:
    """Plays the browser's half."""

    def __init__(self, run: Run, monkeypatch):
        self.view, self.frames = policy(run, live=True), []
        send = lambda _, frame: self.frames.append(frame)  # noqa: E731
        monkeypatch.setattr(type(self.view.widget), "send", send)

    def send(self, kind: str = "next", **content) -> dict:
        content = {"kind": kind, "view": "v", "have": -1, "step": None, "key": None, **content}
        self.view._on_message(self.view.widget, content, [])
        assert self.frames[-1]["answers"] == kind
        return self.frames[-1]


@pytest.fixture
def browse(monkeypatch):
    return lambda folder: Browser(Run(folder), monkeypatch)


def test_the_newest_step_is_sent_once_and_an_older_one_when_asked(browse, make):
    browser = browse(make())
    newest = browser.send()
    assert newest["recorded"] == (0, 39) and newest["mixture"]["step"] == 39
    assert "mixture" not in browser.send(key=newest["mixture"]["key"])
    older = browser.send(key=newest["mixture"]["key"], step=7)["mixture"]
    assert older["asked"] == pytest.approx(list(mixture(7).values()), abs=1e-4)
    assert older["used"] == pytest.approx([0.5 * p + 0.5 / 3 for p in older["asked"]], abs=1e-4)
    assert older["reward"] == pytest.approx([1.0, -1.5, 0.7]) and older["ratio"] == [10.0] * 3
    assert browser.send(step=10**9)["mixture"]["step"] == 39
    first = browser.send(step=-3)["mixture"]
    assert first["step"] == 0 and first["ratio"] == [None] * 3


def test_the_path_is_sent_again_only_when_there_is_more(browse, make):
    folder = make()
    browser = browse(folder)
    frame = browser.send()
    assert "path" in frame
    assert "path" not in browser.send(have=frame["revision"])
    with folder.lock():
        folder.append_many([make.event(40, said)])
    longer = browser.send(have=frame["revision"])
    assert longer["path"]["x"][-1] == 40 and longer["mixture"]["step"] == 40


def test_the_path_ends_where_the_mixture_ends_and_has_few_points(curves):
    drawn = path(curves(4000, tell=None))
    assert len(drawn["points"]) == len(drawn["x"]) <= 240
    end = np.array(list(mixture(3999).values())) @ corners(3)
    assert np.array(drawn["points"][-1]) == pytest.approx(end, abs=1e-3)
    assert [each["name"] for each in drawn["domains"]] == list(DOMAINS)


def test_bars_reach_to_the_largest_share_of_the_run(curves):
    assert path(curves())["top"] == pytest.approx(0.7)


def test_rewards_and_signal_have_a_line_a_domain_and_ratios_without_spread_are_gaps(curves):
    reward, ratio = policy_charts(curves())
    assert [line["name"] for line in reward["lines"]] == list(DOMAINS)
    assert reward["lines"][1]["y"] == pytest.approx([-1.5] * 40)
    assert ratio["log"] and ratio["lines"][0]["y"] == [None, None, *[1.0] * 38]


def test_a_bandit_shows_its_rewards_and_says_that_it_has_no_signal(browse, make):
    browser = browse(make(mixer="exp3", tell=lambda i: said(i, ratio=False)))
    frame = browser.send()
    reward, ratio = frame["charts"]
    assert len(reward["lines"]) == 3 and ratio["lines"] == []
    assert "nothing of this" in ratio["empty"]
    assert frame["mixture"]["ratio"] == [None] * 3
    assert frame["mixture"]["missing"] == "The mixer 'exp3' has recorded no signal-to-noise."


def test_a_static_mixture_is_shown_alone_and_the_view_says_so(browse, make):
    told = browse(make(mixer="static", tell=None)).send()["mixture"]
    assert told["missing"] == "The mixer 'static' has recorded no reward and no signal-to-noise."
    assert told["facts"][0] == ("Mixer", "static") and "Phase" not in dict(told["facts"])


def test_before_the_first_step_there_is_a_frame_without_a_mixture(browse, make):
    frame = browse(make(steps=0)).send()
    assert frame["recorded"] is None and "mixture" not in frame and "path" not in frame
    assert "first recorded" in frame["charts"][0]["empty"]


def test_facts_are_those_of_the_step(curves):
    run = curves()
    early, late = (dict(mixture_at(run, step)["facts"]) for step in (0, 30))
    assert early["Phase"] == "warmup" and late["Phase"] == "learning"
    assert early["Entropy"] == f"{math.log(3):.2f} of {math.log(3):.2f} nats"
    assert early["Critic loss"] == "0" and late["Critic loss"] == "0.3"
    assert "Actor loss" not in late


def test_a_number_that_is_not_finite_reaches_the_browser_as_none(browse, make):
    broken = lambda i: {"reward_average": {"code": None, "prose": float("nan")}}  # noqa: E731
    frame = browse(make(tell=broken)).send()
    assert frame["mixture"]["reward"] == [None] * 3
    json.dumps(frame, allow_nan=False)


def test_a_domain_first_seen_later_lacks_its_numbers_before():
    columns = ByDomain(missing=math.nan)
    columns.append({"a": {"x": 1.0}})
    columns.append({"a": {"y": 2.0}})
    assert np.array_equal(columns.column("a", "y"), [math.nan, 2.0], equal_nan=True)
    assert np.array_equal(columns.column("a", "x"), [1.0, math.nan], equal_nan=True)
    assert np.isnan(columns.column("b", "x")).tolist() == [True, True]


def test_a_live_run_is_followed_and_paused_from_the_view(
    nano_config, nano_corpus, cache_dir, tmp_path, monkeypatch
):
    config = nano_config.change(total_steps=100000).replace(mixer="exp3")
    run = start(config, tmp_path, cache_dir=cache_dir)
    browser = Browser(run, monkeypatch)
    try:
        first = until(browser, lambda frame: "mixture" in frame)["mixture"]
        until(browser, lambda frame: frame.get("mixture", first)["step"] > first["step"])
        browser.send("pause")
        until(browser, lambda frame: frame["runs"][0]["status"] == "paused")
    finally:
        run.stop()
        run.wait()
    assert sum(first["asked"]) == pytest.approx(1, abs=1e-3)


def until(browser: Browser, reached) -> dict:
    deadline = time.monotonic() + 20
    while not reached(frame := browser.send()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return frame


def test_without_a_front_end_the_run_is_waited_for_and_shown_as_figures(
    nano_config, cache_dir, nano_corpus, tmp_path, monkeypatch, capsys
):
    shown = []
    monkeypatch.setattr("workbench.plots.show", shown.append)
    twin = policy(start(nano_config, tmp_path, cache_dir=cache_dir))
    assert isinstance(twin, PolicyTwin)
    assert repr(twin) == "PolicyTwin(nano: finished after 40 steps)"
    twin._ipython_display_()
    assert [figure.layout.title.text for figure in shown] == [
        "Path of the mixture",
        "Requested mixture",
        "Reward of each domain",
    ]
    assert repr(policy(Run(twin._run.folder), live=True)) == "PolicyPanel(nano: finished)"


def test_a_frame_of_a_long_run_stays_small(browse, make):
    assert len(json.dumps(browse(make(20000)).send())) < 60_000
