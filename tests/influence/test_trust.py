"""Gates that scores must pass, on a healthy and on an over-confident checkpoint."""

import copy
import json

import numpy as np
import pytest
import torch

from tests.influence import toy
from workbench.core import DataError, NumericsError, PolicyError
from workbench.influence.agreement import mean_ranks, outranks, spearman
from workbench.influence.direction import Direction, reference_direction
from workbench.influence.lds import Estimate
from workbench.influence.oracle import one_step_oracle
from workbench.influence.preconditioners import Identity
from workbench.influence.scores import score_rows
from workbench.influence.trust import (
    assess_trust,
    control_check,
    lds_check,
    lds_gain_check,
    planted_controls,
    stability_check,
)
from workbench.models.linear_maps import linear_maps

REFERENCE, POOL = toy.chain_rows(32, seed=5), toy.chain_rows(100, seed=6)


@pytest.fixture(scope="module")
def healthy():
    return toy.trained(toy.chain_rows(600))


@pytest.fixture(scope="module")
def over_confident():
    """Trained where the next token is nearly certain, judged where it is not, and sharpened."""
    model = toy.trained(toy.chain_rows(600, likelihood=0.95))
    with torch.no_grad():
        model.model.model.norm.weight.mul_(4)
    return model


def direction_of(model) -> Direction:
    return reference_direction(model, REFERENCE, Identity(), linear_maps(model))


def test_a_healthy_checkpoint_passes_and_says_so(healthy):
    report = assess_trust(healthy, POOL, REFERENCE, direction_of(healthy), control_rows=100)
    assert report.passed and report.require() is report
    names = [check.name for check in report.checks]
    assert names == ["one-step oracle", "control: uniform noise", "control: shuffled tokens"]
    assert report.checks[0].value >= 0.99
    assert report.verdict == "influence scores pass all 3 checks"
    assert "score above uniform noise in" in str(report)


def test_the_gate_catches_an_over_confident_checkpoint_that_prefers_noise(over_confident):
    direction = direction_of(over_confident)
    report = assess_trust(over_confident, POOL, REFERENCE, direction, control_rows=100)
    oracle, noise, shuffled = report.checks
    assert oracle.passed, "the scores are computed right: the checkpoint is at fault"
    assert not noise.passed and not shuffled.passed and not report.passed
    with pytest.raises(PolicyError, match="not to be trusted: uniform noise scores above") as error:
        report.require()
    assert "earlier checkpoint" in error.value.remedy
    assert report.require(despite_failures=True) is report
    assert json.loads(json.dumps(report.to_dict()))["passed"] is False


def test_the_oracle_itself_prefers_noise_on_an_over_confident_checkpoint(over_confident):
    maps = linear_maps(over_confident)
    noise = planted_controls(POOL[:30], toy.V)["uniform noise"]
    decrease = one_step_oracle(over_confident, np.concatenate([POOL[:30], noise]), REFERENCE, maps)
    assert outranks(decrease[:30], decrease[30:]) < 0.5


def test_the_oracle_is_the_identity_score_and_leaves_the_model_alone(healthy):
    before = copy.deepcopy(healthy.state_dict())
    rows = np.concatenate([POOL[:8], toy.random_rows(4)])
    decrease_N = one_step_oracle(healthy, rows, REFERENCE, linear_maps(healthy))
    score_N = score_rows(healthy, rows, direction_of(healthy)).score_N
    np.testing.assert_allclose(decrease_N, score_N, atol=0.01 * np.abs(score_N).max())
    torch.testing.assert_close(healthy.state_dict(), before, atol=0, rtol=0)


def test_scores_that_are_not_those_of_the_model_fail_the_oracle(healthy, monkeypatch):
    from workbench.influence import trust

    def mistaken(model, rows, direction, **options):
        found = score_rows(model, rows, direction, **options)
        return type(found)(found.score_N[::-1], found.way, found.reason)

    monkeypatch.setattr(trust, "score_rows", mistaken)
    direction = direction_of(healthy)
    report = assess_trust(healthy, POOL, REFERENCE, direction, oracle_rows=20, control_rows=0)
    assert [check.passed for check in report.checks] == [False]
    with pytest.raises(PolicyError, match="rank correlation"):
        report.require()


def test_a_model_without_finite_losses_is_named(healthy):
    broken = copy.deepcopy(healthy)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(NumericsError, match="longest gradient of a row is nan"):
        one_step_oracle(broken, POOL[:2], REFERENCE, linear_maps(broken))


def test_controls_are_noise_and_the_rows_own_tokens_and_follow_the_seed():
    controls = planted_controls(POOL, toy.V, seed=1)
    np.testing.assert_array_equal(np.sort(controls["shuffled tokens"]), np.sort(POOL))
    assert (controls["shuffled tokens"] != POOL).any(axis=1).mean() > 0.9
    assert np.unique(controls["uniform noise"]).size == toy.V
    again = planted_controls(POOL, toy.V, seed=1)
    np.testing.assert_array_equal(again["uniform noise"], controls["uniform noise"])
    assert (planted_controls(POOL, toy.V, seed=2)["uniform noise"] != again["uniform noise"]).any()


def test_a_control_fails_once_it_is_ahead_in_most_pairs():
    clean = np.array([0.0, 1, 2, 3])
    assert control_check("noise", clean, clean - 1).passed
    check = control_check("noise", clean, clean + 1)
    assert not check.passed and check.sentence.startswith("noise scores above rows of the pool")
    assert check.value == outranks(clean, clean + 1) == 4.5 / 16


def test_lds_must_beat_chance_and_curvature_must_beat_identity():
    def estimate(value, low, high):
        return Estimate(value, low, high, subsets=60, queries=8)

    assert lds_check(estimate(0.3, 0.2, 0.4)).passed
    assert not lds_check(estimate(0.1, -0.1, 0.3)).passed
    assert lds_gain_check(estimate(0.1, 0.05, 0.2)).passed
    assert "within noise" in lds_gain_check(estimate(0.1, -0.05, 0.2)).sentence
    assert not lds_gain_check(estimate(-0.1, -0.2, -0.05)).passed


def test_stability_names_the_worst_pair():
    rng = np.random.default_rng(0)
    a = rng.normal(size=100)
    near, other = a + 0.1 * rng.normal(size=100), rng.normal(size=100)
    assert stability_check({"a": a, "b": near}).passed
    check = stability_check({"a": a, "b": near, "c": -other})
    assert not check.passed and "'c'" in check.sentence
    with pytest.raises(PolicyError, match="stability cannot be judged from"):
        stability_check({"a": a})
    with pytest.raises(PolicyError, match="stability cannot be judged from"):
        stability_check({"a": a, "b": a[:3]})


def test_extra_evidence_joins_the_report_and_nothing_to_check_is_refused(healthy):
    direction = direction_of(healthy)
    none = {"oracle_rows": 0, "control_rows": 0}
    scores = {"seed 0": np.arange(30.0), "seed 1": np.arange(30.0)}
    estimate = Estimate(0.3, 0.2, 0.4, 60, 8)
    report = assess_trust(
        healthy,
        POOL,
        REFERENCE,
        direction,
        lds=estimate,
        lds_gain=estimate,
        repeats=scores,
        **none,
    )
    assert [c.name for c in report.checks] == ["LDS", "LDS gain over identity", "stability"]
    with pytest.raises(PolicyError, match="no check"):
        assess_trust(healthy, POOL, REFERENCE, direction, **none)
    with pytest.raises(DataError, match="no rows of the pool"):
        assess_trust(healthy, POOL[:0], REFERENCE, direction)


def test_rank_statistics_agree_with_scipy():
    from scipy.stats import mannwhitneyu, rankdata, spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 40).astype(float)
    np.testing.assert_array_equal(mean_ranks(a), rankdata(a))
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert outranks(a, b[:25]) == pytest.approx(mannwhitneyu(a, b[:25]).statistic / (40 * 25))
    assert spearman(a, np.ones(40)) == 0
