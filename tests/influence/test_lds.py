"""LDS on problems whose retraining has a closed form."""

import numpy as np
import pytest

from workbench.core import NumericsError, PolicyError
from workbench.influence.lds import lds, lds_gain, retrain

N, D, Q = 80, 6, 5


def additive(effect_QN, noise=0.0):
    """A training whose losses are sums of the rows' effects, plus noise of the seed."""

    def train(chosen, seed):
        rng = np.random.default_rng([seed, *chosen])
        return -effect_QN[:, chosen].sum(axis=1) + noise * rng.normal(size=len(effect_QN))

    return train


def test_sums_of_the_true_effects_score_one_and_random_scores_nothing():
    effect_QN = np.random.default_rng(0).normal(size=(Q, N))
    retrained = retrain(additive(effect_QN), rows=N, subsets=40, seeds=1)
    assert lds(effect_QN, retrained).value == pytest.approx(1)
    assert lds(-effect_QN, retrained).value == pytest.approx(-1)
    unrelated = lds(np.random.default_rng(1).normal(size=(Q, N)), retrained)
    assert unrelated.low < 0 < unrelated.high and abs(unrelated.value) < 0.25
    assert lds(effect_QN.mean(axis=0), retrained).value == pytest.approx(1)


def ridge(features_ND, target_N):
    return np.linalg.solve(features_ND.T @ features_ND + 1e-3 * np.eye(D), features_ND.T @ target_N)


def test_the_inverse_hessian_beats_the_plain_gradient_on_ridge_regression():
    """Features of very different scale: without the curvature the largest decides alone."""
    rng = np.random.default_rng(0)
    scale_D = 3.0 ** -np.arange(D)
    x_ND, query_QD = rng.normal(size=(N, D)) * scale_D, rng.normal(size=(Q, D)) * scale_D
    truth_D = rng.normal(size=D) / scale_D
    y_N, query_y_Q = x_ND @ truth_D + rng.normal(size=N), query_QD @ truth_D + rng.normal(size=Q)

    def train(chosen, _seed):
        return (query_QD @ ridge(x_ND[chosen], y_N[chosen]) - query_y_Q) ** 2 / 2

    retrained = retrain(train, rows=N, subsets=60, seeds=1)
    solution_D = ridge(x_ND, y_N)
    gradient_ND = (x_ND @ solution_D - y_N)[:, None] * x_ND
    query_QD_gradient = (query_QD @ solution_D - query_y_Q)[:, None] * query_QD
    hessian_DD = x_ND.T @ x_ND + 1e-3 * np.eye(D)
    exact_QN = query_QD_gradient @ np.linalg.solve(hessian_DD, gradient_ND.T)
    identity_QN = query_QD_gradient @ gradient_ND.T
    assert lds(exact_QN, retrained).value > 0.6
    gain = lds_gain(exact_QN, identity_QN, retrained)
    assert gain.low > 0
    difference = lds(exact_QN, retrained).value - lds(identity_QN, retrained).value
    assert gain.value == pytest.approx(difference)


def test_seeds_are_averaged_and_everything_follows_the_seed():
    effect_QN = np.random.default_rng(0).normal(size=(Q, N))
    calls = []

    def train(chosen, seed):
        calls.append((len(chosen), seed))
        return additive(effect_QN, noise=30.0)(chosen, seed)

    events = []
    many = retrain(train, rows=N, subsets=10, seeds=16, share=0.25, progress=events.append)
    assert calls[:17] == [(20, seed) for seed in range(16)] + [(20, 0)]
    assert events[-1] == {"stage": "retraining", "done": 10, "total": 10}
    assert (many.member_SN.sum(axis=1) == 20).all()
    few = retrain(additive(effect_QN, noise=30.0), rows=N, subsets=10, seeds=1, share=0.25)
    np.testing.assert_array_equal(few.member_SN, many.member_SN)
    assert lds(effect_QN, few).value < lds(effect_QN, many).value
    assert lds(effect_QN, many) == lds(effect_QN, many)


def test_what_cannot_be_ranked_is_refused():
    train = additive(np.ones((Q, N)))
    with pytest.raises(PolicyError, match="2 subsets"):
        retrain(train, rows=N, subsets=2)
    with pytest.raises(PolicyError, match="80 of 80 rows"):
        retrain(train, rows=N, share=1.0)
    with pytest.raises(NumericsError, match="subset 0 ended with losses that are not finite"):
        retrain(lambda chosen, seed: np.array([np.nan]), rows=N)
    retrained = retrain(train, rows=N, subsets=3, seeds=1)
    with pytest.raises(PolicyError, match=r"\(5, 79\)"):
        lds(np.ones((Q, N - 1)), retrained)
