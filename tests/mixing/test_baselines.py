"""Baselines against the formulas of their papers."""

import numpy as np
import pytest
import torch

from workbench.core import MIXERS, ConfigError, DomainGradients, MixingTask, Signal, StepOutcome
from workbench.mixing.descent import doge_scores, gradient_moments
from workbench.mixing.exp3 import Exp3, exploration_rate, paper_policy
from workbench.mixing.signals import alignment

TASK = MixingTask(("a", "b", "c"), np.full(3, 100))


def outcome(step, domain_B, loss_B, **signals):
    loss_B = torch.tensor(loss_B)
    return StepOutcome(
        step=step,
        domain_B=np.array(domain_B),
        sample_id_B=np.arange(len(loss_B)),
        loss_B=loss_B,
        weight_B=torch.ones_like(loss_B),
        valid_B=torch.ones(len(loss_B), dtype=torch.bool),
        signals={Signal(name): value for name, value in signals.items()},
    )


def test_exp3_of_the_paper_follows_its_vector():
    """K = 3, pi_0 = (.5, .3, .2), alpha = .5."""
    reward = 0.5 * np.array([3, 2, 4]) / [0.5, 0.3, 0.2]
    first = paper_policy(reward, 1)
    assert first.tolist() == pytest.approx([1 / 3] * 3)
    reward = 0.5 * reward + 0.5 * np.array([2.8, 2.1, 3.9]) / first
    expected = [0.24962101, 0.23476244, 0.51561655]
    assert paper_policy(reward, 10, previous_step=1).tolist() == pytest.approx(expected, abs=1e-8)


def test_exploration_falls_with_the_root_of_the_step():
    assert exploration_rate(3, 0) == exploration_rate(3, 1) == pytest.approx(1 / 3)
    assert exploration_rate(3, 400) == pytest.approx(exploration_rate(3, 100) / 2)
    assert exploration_rate(1, 10) == 1


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_credit_goes_to_the_sampled_domain(variant):
    mixer = Exp3(TASK, variant=variant, smoothing=0.5)
    before = np.array(mixer.state_dict()["reward"])
    pi = mixer.propose(0).probability_K
    mixer.observe(outcome(0, [1, 1], [2.0, 4.0]))
    after = np.array(mixer.state_dict()["reward"])
    gain = 3 / pi[1] if variant == "paper" else np.exp(3)
    assert after[1] == pytest.approx(0.5 * before[1] + 0.5 * gain)
    assert after[[0, 2]].tolist() == before[[0, 2]].tolist()


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_exp3_pays_for_a_loss_that_never_falls(variant):
    mixer = Exp3(TASK, variant=variant)
    for step in range(300):
        mixer.propose(step)
        mixer.observe(outcome(step, [0, 1, 2], [1.0, 1.0, 6.0]))
    share = mixer.propose(300).as_dict()
    assert share["c"] > 1.2 * share["a"]


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_exp3_drops_and_counts_losses_that_are_not_finite(variant):
    mixer = Exp3(TASK, variant=variant)
    mixer.propose(0)
    before = mixer.state_dict()["reward"]
    mixer.observe(outcome(0, [0, 1], [float("nan"), 2.0]))
    after = mixer.state_dict()["reward"]
    assert after[0] == before[0] and after[1] != before[1] and after[2] == before[2]
    assert mixer.diagnostics()["dropped"] == 1
    assert any("not finite" in warning for warning in mixer.warnings())
    mixer.observe(outcome(1, [1], [2.0]))
    assert mixer.diagnostics()["dropped"] == 1, "a domain without rows is no loss that is lost"


def test_the_official_form_of_exp3_outlives_losses_that_its_exponential_does_not():
    mixer = Exp3(TASK, variant="official", smoothing=0.0)
    mixer.propose(0)
    mixer.observe(outcome(0, [0, 1, 2], [1.0, 709.0, 709.5]))
    share = mixer.propose(400).probability_K
    assert np.isfinite(share).all() and share.sum() == pytest.approx(1)
    assert share[2] > share[1] > share[0]
    mixer.observe(outcome(1, [0, 1, 2], [1.0, 2.0, 711.0]))
    assert mixer.diagnostics()["dropped"] == 1
    assert np.isfinite(mixer.propose(401).probability_K).all()


STRONG = np.outer([3.0, 3.0, -3.0], [3.0, 3.0, -3.0])
PUSHES = {
    "exp3": ({"variant": "official"}, {}),
    "alignment": ({"step_size": 1.0}, {"domain_gradients": STRONG}),
    "doge": ({"target": "a", "regularisation": 0.1}, {"domain_gradients": STRONG}),
    "pike": (
        {"period_steps": 1, "signal": 1e-3, "noise": 10.0},
        {"domain_gradients": STRONG, "row_gradients": np.array([9.0, 9.0, 900.0])},
    ),
    "doremi": ({"reference": "r"}, {"excess_loss": torch.tensor([3.0, 3.0, 0.0])}),
}


@pytest.mark.parametrize("name", PUSHES)
def test_a_domain_at_its_floor_is_told_of_with_a_remedy(name):
    options, signals = PUSHES[name]
    if "domain_gradients" in signals:
        gram = DomainGradients(signals["domain_gradients"], np.array([4, 4, 4]))
        signals = {**signals, "domain_gradients": gram}
    mixer = MIXERS.build(name, TASK, **options)
    mixer.propose(0)
    assert not any("floor" in warning for warning in mixer.warnings())
    for step in range(1000, 1040):
        mixer.propose(step)
        mixer.observe(outcome(step, [0, 1, 2], [9.0, 9.0, 0.0], **signals))
    assert mixer.propose(10**6).probability_K[2] == pytest.approx(0.05 / 3, rel=0.1)
    told = [warning for warning in mixer.warnings() if "floor" in warning]
    assert len(told) == 1 and "'c' sits at its floor: raise floor" in told[0]
    unfloored = MIXERS.build(name, TASK, floor=0.0, **options)
    unfloored.load_state_dict(mixer.state_dict())
    assert not any("floor" in warning for warning in unfloored.warnings())


def test_doremi_follows_its_vector():
    """w = (.5, .3, .2), excess (.2, -.1, .5), step 1, smoothing 1e-4; what is negative is 0."""
    mixer = MIXERS.build("doremi", TASK, reference="r", floor=0.0)
    mixer.load_state_dict({**mixer.state_dict(), "weight": [0.5, 0.3, 0.2]})
    excess = torch.tensor([0.1, 0.3, -0.1, 0.5])
    mixer.propose(0)
    mixer.observe(outcome(0, [0, 0, 1, 2], [1.0] * 4, excess_loss=excess))
    expected = [0.49230828, 0.24185772, 0.26583400]
    assert mixer.propose(1).probability_K.tolist() == pytest.approx(expected, abs=1e-7)
    assert mixer.average_mixture().tolist() == pytest.approx(expected, abs=1e-7)


def test_doremi_keeps_the_excess_of_a_domain_without_rows():
    mixer = MIXERS.build("doremi", TASK, reference="r")
    mixer.propose(0)
    mixer.observe(outcome(0, [0, 1, 2], [1.0] * 3, excess_loss=torch.tensor([0.0, 0.0, 1.0])))
    first = mixer.propose(1).as_dict()["c"]
    mixer.observe(outcome(1, [0, 1], [1.0] * 2, excess_loss=torch.tensor([0.0, 0.0])))
    assert mixer.propose(2).as_dict()["c"] > first


def test_doge_scores_are_products_with_the_target_clipped_below():
    gram = np.array([[4.0, -1.0, 1.0], [-1.0, 1.0, 0.0], [1.0, 0.0, 0.25]])
    present = np.ones(3, dtype=bool)
    mean_norm = (2 + 1 + 0.5) / 3 + 1e-6
    scores = doge_scores(gram, present, 0, rate=0.1)
    assert scores.tolist() == pytest.approx([0.4 / mean_norm, 0, 0.1 / mean_norm])
    everyone = doge_scores(gram, present, None, rate=1.0)
    assert everyone.tolist() == pytest.approx([4 / mean_norm, 0, 1.25 / mean_norm])
    assert doge_scores(100 * gram, present, 0, rate=0.1).max() == pytest.approx(0.5)


def test_doge_favours_the_domain_that_agrees_with_its_target():
    mixer = MIXERS.build("doge", TASK, target="a", regularisation=5)
    gradients = np.array([(1.0, 0.0), (0.9, 0.1), (-1.0, 0.0)])
    for step in range(30):
        mixer.propose(step)
        signal = DomainGradients(gradients @ gradients.T, np.array([2, 2, 2]))
        mixer.observe(outcome(step, [0, 1, 2], [1.0, 1.0, 1.0], domain_gradients=signal))
    share = mixer.propose(30).as_dict()
    assert share["a"] > share["b"] > 10 * share["c"]
    assert np.sum(mixer.average_mixture()) == pytest.approx(1)
    with pytest.raises(ConfigError, match="'d' as target"):
        MIXERS.build("doge", TASK, target="d")


def test_direct_is_paid_z_of_the_step_and_acodm_its_running_mean():
    steps = [
        np.array([(1.0, 0.0), (0.9, 0.1), (-1.0, 0.0)]),
        np.array([(0.0, 1.0), (1, 0), (1, 1)]),
    ]
    rewards = {}
    for label, name, options in (
        ("direct", "direct", {}),
        ("mean", "direct", {"reward": "alignment"}),
        ("acodm", "acodm", {}),
    ):
        mixer = MIXERS.build(name, TASK, warmup_steps=9, **options)
        for step, gradients in enumerate(steps):
            mixer.propose(step)
            signal = DomainGradients(gradients @ gradients.T, np.array([2, 2, 2]))
            mixer.observe(outcome(step, [0, 1, 2], [1.0, 1.0, 1.0], domain_gradients=signal))
        rewards[label] = mixer.replay.sample(64, np.random.default_rng(0)).reward_NK
    z = np.array([alignment(gradients @ gradients.T).reward_K for gradients in steps])
    assert rows_of(rewards["direct"]) == rows_of(z)
    assert rows_of(rewards["mean"]) == rows_of(rewards["acodm"])
    assert rows_of(rewards["acodm"]) == rows_of([z[0], z.mean(axis=0)])


def rows_of(values):
    return {tuple(row) for row in np.round(np.asarray(values, dtype=float), 5).tolist()}


def test_moments_of_the_gradient_are_unbiased():
    """Over many draws of n rows: the variance and the squared norm of the true mean."""
    rng = np.random.default_rng(0)
    mean, rows = np.array([1.0, 2.0]), 4
    draws = mean + rng.normal(size=(20_000, rows, 2)) * 3
    squares = (draws.mean(axis=1) ** 2).sum(axis=1)
    row_squares = (draws**2).sum(axis=2).mean(axis=1)
    counts = np.full(len(draws), rows)
    variance = np.maximum(row_squares - squares, 0) * rows / (rows - 1)
    found, norm = gradient_moments(squares, row_squares, counts)
    assert found.tolist() == pytest.approx(variance.tolist())
    assert found.mean() == pytest.approx(18, rel=0.03)
    assert (squares - found / rows).mean() == pytest.approx(5, rel=0.05)
    assert (norm >= 0).all()
    assert gradient_moments(np.ones(1), np.ones(1) * 3, np.array([1])) == (0, 0)


def test_pike_gives_more_to_strong_gradients_and_less_to_noisy_ones():
    mixer = MIXERS.build("pike", TASK, signal=0.2, noise=0.2, period_steps=5)
    gram = np.diag([4.0, 1.0, 1.0])
    signal = DomainGradients(gram, np.array([8, 8, 8]))
    rows = np.array([4.5, 1.5, 60.0])
    for step in range(10):
        mixer.propose(step)
        mixer.observe(
            outcome(step, [0, 1, 2], [1.0, 1.0, 1.0], domain_gradients=signal, row_gradients=rows)
        )
    share = mixer.propose(10).as_dict()
    assert share["a"] > share["b"] > share["c"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("exp3", {"variant": "other"}, "variant"),
        ("exp3", {"smoothing": 1.0}, "smoothing"),
        ("alignment", {"decay": 1.0}, "decay"),
        ("pike", {"period_steps": 0}, "period_steps"),
        ("acodm", {"batch_size": 0}, "batch_size"),
        ("acodm", {"mode": "thaw"}, "mode"),
        ("acodm", {"mode": "continue"}, "no agent"),
    ],
)
def test_options_out_of_range_are_refused(name, options, says):
    with pytest.raises(ConfigError, match=says):
        MIXERS.build(name, TASK, **options)
