"""The gate of a selection: controls against rows of the pool and against every threshold."""

import json

import numpy as np
import pytest

from tests.selection.test_quad import MadeUp, quad
from tests.selection.test_rounds import TOKENS, made_up
from workbench.selection.gate import ControlGate, Controls, Untrusted
from workbench.selection.rounds import RoundSettings, pull_rounds
from workbench.selection.top_influence import TopInfluence


def test_noise_that_outranks_the_pool_is_refused_though_it_would_not_be_accepted(topics):
    """The threshold is set by the one good topic; most rows teach less than noise."""
    judge = MadeUp(level={0: 0.0, 1: 5.0, 2: 0.0, 3: 0.5}, noise=2.0)
    said = r"^the influence .*: noise scores above rows of the pool in \d\d% of pairs — "
    for selector in (quad(topics, judge), TopInfluence(topics.task(), judge)):
        with pytest.raises(Untrusted, match=said):
            selector.select(topics.pool(), 10 * 16, None)


@pytest.mark.parametrize(("noise", "passed"), [(-1.0, True), (2.0, False)])
def test_the_report_of_the_controls_is_in_the_record_passed_or_not(topics, noise, passed):
    level = {0: 0.0, 1: 5.0, 2: 0.0, 3: 0.5}
    selector = quad(topics, MadeUp(level=level, noise=noise), trust="warn")
    selector.select(topics.pool(), 10 * 16, None)
    gate = selector.diagnostics()["gate"]
    checks = {check["name"]: check for check in gate["report"]["checks"]}
    assert set(checks) == {
        f"{what}: {kind}" for what in ("control", "threshold") for kind in ("noise", "shuffled")
    }
    assert gate["report"]["passed"] == checks["control: noise"]["passed"] == passed
    assert checks["threshold: noise"]["passed"]
    assert checks["threshold: noise"]["threshold"] == gate["threshold"]
    json.dumps(gate, allow_nan=False)


def test_controls_are_scored_once_and_judged_by_every_threshold():
    asked, told = [], []

    def controls():
        asked.append(1)
        return Controls(np.arange(10.0), {"noise": np.zeros(4)})

    gate = ControlGate("warn", controls, told.append)
    assert gate(-np.inf) == "" and not asked, "a budget that needs every row is not judged"
    doubts = [gate(threshold) for threshold in (2.0, 1.0, -0.5)]
    assert [bool(doubt) for doubt in doubts] == [False, False, True]
    assert len(asked) == 1 and [event["failed"] != "" for event in told] == [False, True]
    with pytest.raises(Untrusted, match=r"noise scores 0 and would be accepted at -0\.5"):
        ControlGate("refuse", controls)(-0.5)


class Disappointing:
    """Scores of three clusters: 3, then 2.5 at first and 1 later, and 0."""

    def __init__(self, arms):
        self.arms, self.asked = arms, 0

    def __call__(self, row_n):
        score_n = np.array([3.0, 1.0, 0.0])[self.arms.cluster_N[row_n]]
        second_n = np.flatnonzero(score_n == 1.0)
        score_n[second_n[: max(0, 3 - self.asked)]] = 2.5
        self.asked += len(second_n)
        return score_n


@pytest.mark.parametrize("trust", ["refuse", "warn"])
def test_noise_that_passes_a_later_threshold_ends_the_choice_or_marks_the_rows(trust):
    bandit, arms, _, _ = made_up([30, 30, 30])
    controls = Controls(np.array([3.0, 1.0, 0.0]), {"noise": np.full(4, 0.9)})
    gate = ControlGate(trust, lambda: controls)
    record = pull_rounds(
        bandit,
        arms,
        Disappointing(arms),
        RoundSettings(arms_per_round=2, chunk_rows=6, breadth=1.0),
        budget_tokens=40 * TOKENS,
        gate=gate,
    )
    doubted = sum("noise scores 0.9 and would be accepted" in why for why in record.reason_n)
    if trust == "refuse":
        assert "noise scores 0.9 and would be accepted" in record.stopped
        assert record.row_n and not doubted and record.accepted_tokens < 40 * TOKENS
    else:
        assert record.stopped == "the budget is filled" and 0 < doubted < 40
