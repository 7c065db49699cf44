"""The bandit against the specification's vectors and a slow twin that recomputes everything."""

import json
import math
import statistics

import numpy as np
import pytest

from workbench.core import ConfigError, PolicyError
from workbench.selection.bandit import PRIOR_SAMPLES, Bandit, paper_scores

ALPHA = 1e-4


def some_rewards(seed: int, arms: int = 6, samples: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(rng.normal(), 0.5, samples) for _ in range(arms)]


def slow_robust(rows, rewards, *, alpha, confidence, credit=None):
    """Mean, low and optimistic score of every arm, one number at a time, from all rewards."""
    arms = len(rows)
    credit = credit or {}
    count = [
        len(r) + sum(w * len(rewards[j]) for j, w in credit.get(i, [])) for i, r in own(rewards)
    ]
    total = [
        sum(r) + sum(w * sum(rewards[j]) for j, w in credit.get(i, [])) for i, r in own(rewards)
    ]
    mean = [total[i] / count[i] for i in range(arms)]
    squares = [sum((x - statistics.fmean(r)) ** 2 for x in r) for r in rewards]
    pooled = sum(squares) / sum(len(r) - 1 for r in rewards)
    variance = [
        (squares[i] + PRIOR_SAMPLES * pooled) / (len(r) - 1 + PRIOR_SAMPLES)
        for i, r in own(rewards)
    ]
    error = [variance[i] / count[i] for i in range(arms)]
    between = max(statistics.pvariance(mean) - statistics.fmean(error), 0)
    centre = sum(n * m for n, m in zip(rows, mean, strict=True)) / sum(rows)
    found = []
    for i, r in own(rewards):
        weight = between / (between + error[i])
        predicted = weight * mean[i] + (1 - weight) * centre
        seen = len(r) / rows[i]
        estimate = seen * statistics.fmean(r) + (1 - seen) * predicted
        spread = math.sqrt(error[i] * (1 - seen))
        bonus = alpha * spread * math.sqrt(2 * math.log(sum(count)))
        found.append((estimate, estimate - confidence * spread, estimate + bonus))
    return found


def own(rewards):
    return list(enumerate(rewards))


def test_arm_scores_of_the_paper():
    mean_C, pulls_C = np.array([0.004, 0.001, np.nan, 0.003]), np.array([2, 1, 0, 5])
    score_C = paper_scores(mean_C, pulls_C, ALPHA)
    assert score_C[[0, 1, 3]] == pytest.approx(
        [0.0041442027, 0.0012039334, 0.0030912018], abs=1e-10
    )
    assert score_C[2] == np.inf


def test_the_paper_variant_reproduces_those_scores_from_its_pulls():
    bandit = Bandit(np.full(4, 100), variant="paper", alpha=ALPHA)
    for arm, pull_means in {
        0: [0.003, 0.005],
        1: [0.001],
        3: [0.001, 0.002, 0.003, 0.004, 0.005],
    }.items():
        for mean in pull_means:
            bandit.observe(arm, np.array([mean - 0.01, mean + 0.01]))
    optimistic_C = bandit.estimate().optimistic_C
    assert optimistic_C[[0, 1, 3]] == pytest.approx(
        [0.0041442027, 0.0012039334, 0.0030912018], abs=1e-10
    )
    assert optimistic_C[2] == np.inf


@pytest.mark.parametrize("variant", ["paper", "robust"])
def test_an_unpulled_arm_has_an_infinite_score_not_one_that_equals_the_threshold(variant):
    bandit = Bandit(np.array([50, 50, 50]), variant=variant, tau=0.002)
    for arm in (0, 2):
        bandit.observe(arm, np.array([0.5, 0.6, 0.7]))
    assert bandit.estimate().optimistic_C[1] == np.inf
    assert bandit.choose(1, np.ones(3, dtype=bool)).tolist() == [1]
    assert not bandit.accepts(-np.inf)[1], "an arm nobody looked at is accepted"


@pytest.mark.parametrize("seed", range(5))
def test_the_robust_estimate_equals_its_slow_twin(seed):
    rows_C = np.array([20, 4, 50, 8, 1000, 5])
    rewards = some_rewards(seed)
    bandit = Bandit(rows_C, alpha=0.7, confidence=1.3)
    for arm, reward_n in enumerate(rewards):
        bandit.observe(arm, reward_n[:1])
        bandit.observe(arm, reward_n[1:])
    slow = np.array(
        slow_robust(rows_C.tolist(), [r.tolist() for r in rewards], alpha=0.7, confidence=1.3)
    )
    estimate = bandit.estimate()
    fast = np.stack([estimate.mean_C, estimate.low_C, estimate.optimistic_C], axis=1)
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


def test_credit_of_neighbours_enters_sum_and_count_and_equals_the_slow_twin():
    rows_C, rewards = np.full(6, 40), some_rewards(9)
    near = {0: [(1, 0.75)], 1: [(0, 0.75), (2, 0.25)], 2: [(1, 0.25)]}
    neighbours = [
        (
            np.array([j for j, _ in near.get(i, [])], dtype=int),
            np.array([w for _, w in near.get(i, [])]),
        )
        for i in range(6)
    ]
    bandit = Bandit(rows_C, alpha=0.5, neighbours=neighbours)
    for arm, reward_n in enumerate(rewards):
        bandit.observe(arm, reward_n)
    slow = slow_robust(
        [40] * 6, [r.tolist() for r in rewards], alpha=0.5, confidence=1.0, credit=near
    )
    np.testing.assert_allclose(bandit.estimate().mean_C, [row[0] for row in slow], rtol=1e-12)


def test_constant_rewards_of_a_neighbour_do_not_move_a_mean_they_agree_with():
    """Credit in the sum alone would raise the mean of every arm with neighbours."""
    neighbours = [(np.array([1]), np.array([0.5])), (np.array([0]), np.array([0.5]))]
    bandit = Bandit(np.full(2, 100), variant="paper", neighbours=neighbours)
    for arm in (0, 1, 1, 0):
        bandit.observe(arm, np.full(10, 0.003))
    np.testing.assert_allclose(bandit.estimate().mean_C, 0.003, rtol=1e-12)


def test_neighbours_speak_for_an_arm_but_do_not_get_it_accepted():
    neighbours = [(np.array([1]), np.array([1.0])), (np.array([0]), np.array([1.0]))]
    bandit = Bandit(np.full(2, 100), variant="paper", tau=0.001, neighbours=neighbours)
    bandit.observe(0, np.full(10, 0.5))
    assert bandit.estimate().mean_C[1] == pytest.approx(0.5)
    assert bandit.accepts(bandit.threshold(0.5, np.full(2, 100))).tolist() == [True, False]


def test_an_arm_seen_in_full_is_its_own_mean_without_any_doubt():
    bandit = Bandit(np.array([4, 400]), alpha=5, confidence=5)
    bandit.observe(0, np.array([1.0, 2.0, 3.0, 4.0]))
    bandit.observe(1, np.array([1.0, 2.0, 3.0, 4.0]))
    estimate = bandit.estimate()
    assert estimate.mean_C[0] == estimate.low_C[0] == estimate.optimistic_C[0] == 2.5
    assert estimate.low_C[1] < 2.5 < estimate.optimistic_C[1]


def test_means_of_a_single_reward_are_drawn_to_the_mean_of_all():
    rng = np.random.default_rng(3)
    bandit = Bandit(np.full(40, 1000), cold_samples=2)
    truth_C = rng.normal(0, 0.3, 40)
    raw_C = []
    for arm in range(40):
        reward_n = rng.normal(truth_C[arm], 2, 2)
        raw_C.append(reward_n.mean())
        bandit.observe(arm, reward_n)
    mean_C = bandit.estimate().mean_C
    assert np.mean((mean_C - truth_C) ** 2) < 0.5 * np.mean((np.array(raw_C) - truth_C) ** 2)


def test_the_bonus_is_larger_for_the_arm_that_varies_more():
    bandit = Bandit(np.full(2, 100))
    bandit.observe(0, np.array([-1.0, 0, 1]) * 5)
    bandit.observe(1, np.array([-1.0, 0, 1]))
    estimate = bandit.estimate()
    bonus_C = estimate.optimistic_C - estimate.mean_C
    assert bonus_C[0] > 1.5 * bonus_C[1]


def test_the_threshold_is_the_quantile_that_the_budget_needs():
    bandit = Bandit(np.full(4, 4))
    for arm, level in enumerate([3.0, 1.0, 2.0, 0.0]):
        bandit.observe(arm, np.full(4, level))
    tokens_C = np.array([100, 100, 100, 700])
    assert bandit.threshold(0.1, tokens_C) == 2.5
    assert bandit.threshold(0.2, tokens_C) == 1.5
    assert bandit.threshold(0.25, tokens_C) == 0.5
    assert bandit.threshold(1.0, tokens_C) == bandit.threshold(7.0, tokens_C) == -np.inf
    assert bandit.threshold(0.1, np.array([0, 100, 100, 100])) == 1.5
    assert bandit.accepts(2.0).tolist() == [True, False, True, False]


def test_every_arm_that_the_budget_needs_can_pass_on_a_lower_bound():
    """A bar at the mean of the last arm needed is never passed by that arm."""
    bandit = Bandit(np.full(4, 1000))
    rng = np.random.default_rng(0)
    for arm, level in enumerate([30.0, 20.0, 10.0, 0.0]):
        bandit.observe(arm, rng.normal(level, 1, 4))
    assert bandit.accepts(bandit.threshold(0.4, np.full(4, 100))).tolist() == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("by_mean", [True, False])
def test_the_first_arm_that_the_budget_does_not_need_does_not_pass(by_mean):
    bandit = Bandit(np.full(4, 1000))
    rng = np.random.default_rng(0)
    for arm, level in enumerate([30.0, 20.0, 10.0, 0.0]):
        bandit.observe(arm, rng.normal(level, 1, 4))
    bar = bandit.threshold(0.4, np.full(4, 100))
    assert bandit.accepts(bar, by_mean=by_mean).tolist() == [True, True, False, False]


def test_a_given_tau_is_kept_whatever_the_budget():
    for variant in ("paper", "robust"):
        bandit = Bandit(np.full(2, 9), variant=variant, tau=0.5)
        assert bandit.threshold(0.1, np.full(2, 9)) == 0.5
    assert Bandit(np.full(2, 9), variant="paper").threshold(0.1, np.full(2, 9)) == 0.0020


def test_a_lower_bound_asks_for_more_than_a_mean():
    rng = np.random.default_rng(0)
    bandit = Bandit(np.full(3, 1000))
    for arm, level in enumerate([0.0, 1.0, 10.0]):
        bandit.observe(arm, rng.normal(level, 1, 3))
    mean = float(bandit.estimate().mean_C[1])
    assert not bandit.accepts(mean)[1]
    assert bandit.accepts(mean, by_mean=True)[1]
    bandit.observe(1, rng.normal(1 + 3, 0.1, 400))
    assert bandit.accepts(mean)[1]


def test_only_open_arms_are_chosen_and_equal_ones_by_size():
    bandit = Bandit(np.array([3, 9, 0, 9]))
    assert bandit.choose(3, np.array([True, True, False, True])).tolist() == [1, 3, 0]
    assert bandit.choose(3, np.zeros(4, dtype=bool)).tolist() == []


def test_rows_lost_without_a_reward_close_the_bound():
    bandit = Bandit(np.array([10, 10]))
    bandit.observe(0, np.array([1.0, 2.0, 3.0, 4.0]))
    bandit.observe(1, np.array([0.0, 1.0]))
    bandit.lose(0, 6)
    assert bandit.estimate().low_C[0] == 2.5


@pytest.mark.parametrize("variant", ["paper", "robust"])
def test_a_bandit_continues_from_its_state_to_the_bit(variant):
    neighbours = [(np.array([(i + 1) % 5]), np.array([0.3])) for i in range(5)]
    make = lambda: Bandit(np.full(5, 60), variant=variant, neighbours=neighbours)  # noqa: E731
    straight, resumed = make(), make()
    rewards = some_rewards(1, arms=5, samples=20)
    for arm in range(5):
        straight.observe(arm, rewards[arm][:7])
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    for bandit in (straight, resumed):
        for arm in (3, 1, 3):
            bandit.observe(arm, rewards[arm][7:11])
        bandit.lose(2, 4)
    assert straight.state_dict() == resumed.state_dict()
    for name in ("mean_C", "low_C", "high_C", "optimistic_C"):
        first, second = getattr(straight.estimate(), name), getattr(resumed.estimate(), name)
        assert first.tobytes() == second.tobytes()


def test_another_model_finds_what_was_learned_as_credit_or_nothing():
    bandit = Bandit(np.full(3, 50))
    for arm, level in enumerate([0.0, 1.0, 2.0]):
        bandit.observe(arm, level + np.array([-0.1, 0.0, 0.1]))
    before_C = bandit.estimate().mean_C
    bandit.renew(np.full(3, 30), memory=0.5)
    assert np.argsort(bandit.estimate().mean_C).tolist() == np.argsort(before_C).tolist()
    assert bandit.cold_C.all() and not bandit.accepts(-np.inf).any()
    bandit.renew(np.full(3, 30), memory=0)
    assert np.isnan(bandit.estimate().mean_C).all()


def test_rewards_that_cannot_be_are_refused():
    bandit = Bandit(np.array([3, 3]))
    with pytest.raises(PolicyError, match="cluster 1: an influence score is not finite"):
        bandit.observe(1, np.array([0.1, np.nan]))
    with pytest.raises(PolicyError, match="cluster 0: 4 rewards of 3 rows"):
        bandit.observe(0, np.zeros(4))
    with pytest.raises(ConfigError, match="variant = 'papr'"):
        Bandit(np.array([3]), variant="papr")
    with pytest.raises(ConfigError, match="alpha = -1"):
        Bandit(np.array([3]), alpha=-1)
