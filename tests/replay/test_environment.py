"""The synthetic environment: its optimum, and which policies find it."""

import functools

import numpy as np
import pytest
import torch

import workbench.mixing  # noqa: F401
from workbench.core import MIXERS, ConfigError, Mixture, PolicyError, Signal
from workbench.mixing.descent import gradient_moments
from workbench.replay import Environment, play, race

STEPS = 3000
SEEDS = range(4)
DEGENERATE = {
    "official bug": {"actor_step": "critics"},
    "mean of a vector critic": {"critic": "vector", "scalarise": "mean"},
    "importance": {"reward": "importance"},
    "no entropy": {"entropy": 0.0},
}


def passes(trace, uniform, rivals):
    """The criteria of the specification for one seed."""
    clean = [trace.share(f"clean_{i}") for i in range(4)]
    return (
        trace.share("noise") <= 0.10
        and trace.steps_to(0.1) <= 0.93 * uniform.steps_to(0.1)
        and trace.final_score <= 0.80 * uniform.final_score
        and all(trace.steps_to(0.1) < rival.steps_to(0.1) for rival in rivals)
        and min(clean) >= 0.05
    )


@functools.cache
def references(seed):
    """The uniform mixture and both forms of ODM."""
    torch.set_num_threads(1)
    forms = [race("exp3", seed=seed, variant=variant) for variant in ("paper", "official")]
    return race("static", seed=seed), forms


def test_gradients_have_the_expectation_and_the_noise_they_are_said_to_have():
    environment = Environment(seed=1)
    environment.theta_D = np.arange(64.0) / 64
    counts = np.array([4, 4, 4, 4, 16])
    draws = np.array(
        [environment._gradients(np.random.default_rng(i), counts) for i in range(4000)]
    )
    expected = environment._mask_KD * environment.theta_D
    assert np.abs(draws[:, :4].mean(axis=0) - expected).max() < 0.02
    assert draws[:, 0, :32].std() == pytest.approx(
        np.sqrt(0.15**2 + environment.theta_D[:32].var()), rel=0.02
    )
    assert draws[:, 4].std() == pytest.approx(1.0, rel=0.02)
    assert not draws[:, 0, 32:].any() and draws[:, 3, :16].any()


def test_only_what_is_asked_for_is_given_and_every_domain_has_a_row():
    environment = Environment(seed=0)
    share = Mixture(environment.task.names, np.array([1.0, 0, 0, 0, 0]))
    outcome = environment.step(0, share, frozenset())
    assert outcome.signals == {} and np.bincount(outcome.domain_B).tolist() == [28, 1, 1, 1, 1]
    outcome = environment.step(1, share, frozenset(Signal))
    assert set(outcome.signals) == set(Signal)


def test_signals_beside_the_gradients_have_their_closed_forms():
    environment = Environment(seed=1)
    theta_D = environment.theta_D = np.linspace(-1, 1, 64)
    share = Mixture.uniform(environment.task.names)
    outcome = environment.step(0, share, frozenset(Signal))
    count_K = np.bincount(outcome.domain_B)
    excess_B = outcome.signals[Signal.EXCESS_LOSS]
    assert (excess_B[outcome.domain_B == 4] == 0).all()
    expected = 0.5 * (theta_D[16:48] ** 2).sum()
    assert excess_B[outcome.domain_B == 1] == pytest.approx(expected)
    torch.testing.assert_close(
        outcome.loss_B[outcome.domain_B == 1].float() - 1, excess_B[outcome.domain_B == 1]
    )
    own_K = np.diag(outcome.signals[Signal.DOMAIN_GRADIENTS].gram_KK)
    variance_K, _ = gradient_moments(own_K, outcome.signals[Signal.ROW_GRADIENTS], count_K)
    assert variance_K == pytest.approx([0.09 * 32] * 4 + [16 * 64])


@pytest.mark.parametrize("name", [name for name in MIXERS.names() if name != "regmix"])
def test_every_mixer_can_be_raced(name):
    trace = race(name, steps=60, **({"reference": "none is read"} if name == "doremi" else {}))
    assert np.isfinite(trace.score_N).all()


def test_doremi_sees_that_noise_cannot_be_learned():
    assert race("doremi", steps=300, reference="none is read").share("noise", 0.9, 1.0) < 0.05


def test_a_signal_the_environment_does_not_give_is_refused():
    class Curious:
        needs = frozenset({"hessian"})

    with pytest.raises(PolicyError, match="'Curious' needs hessian"):
        play(Curious(), Environment(), steps=1)


def test_settings_that_do_not_fit_the_environment_name_the_field():
    with pytest.raises(ConfigError, match="micro_batches = 4 for 5 domains") as error:
        Environment(micro_batches=4)
    assert "5 or more" in error.value.remedy
    with pytest.raises(ConfigError, match="tracked_layers = 2"):
        race("acodm", steps=1, tracked_layers=2)


def test_the_known_optimum_is_the_fastest():
    optimum = {name: 1 for name in Environment().optimum.domains if name != "noise"}
    best, uniform = race("static", mixture=optimum), race("static")
    assert 1000 < best.steps_to(0.1) < 1100 < 1230 < uniform.steps_to(0.1) < 1340
    assert best.final_score < 0.003 < uniform.final_score


def test_both_forms_of_odm_favour_noise():
    for seed in (0, 3):
        uniform, (paper, official) = references(seed)
        assert 0.22 < paper.share("noise") < 0.27 and official.share("noise") > 0.7
        assert official.steps_to(0.1) == float("inf")
        assert paper.steps_to(0.1) > uniform.steps_to(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_agent_finds_the_clean_domains(seed):
    assert passes(race("acodm", seed=seed, warmup_steps=200), *references(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_forms_fail_the_same_test(name, seed):
    """Which gives it its power."""
    trace = race("acodm", seed=seed, warmup_steps=200, **DEGENERATE[name])
    assert not passes(trace, *references(seed))


def test_a_trace_counts_steps_and_shares():
    trace = race("static", steps=10, mixture={"noise": 1, "clean_0": 3})
    assert trace.share("noise") == 0.25 and trace.steps_to(1e9) == 1
    assert trace.steps_to(0.0) == float("inf") and "10 steps over 5 domains" in repr(trace)
