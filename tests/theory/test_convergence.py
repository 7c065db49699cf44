"""The statements about reweighted gradient descent, at every step, and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.core import ConfigError
from workbench.theory import check, descend, linear_regression

TABLE = {
    ("uniform", 1.0): 1.1480e-1,
    ("linupper", 1.0): 8.6678e-2,
    ("linupper", 0.4): 6.8464e-2,
    ("quadratic", 1.0): 9.3490e-2,
    ("extremes", 1.0): 1.3413e-1,
}


@pytest.fixture(scope="module")
def problem():
    return linear_regression()


@pytest.fixture(scope="module")
def paths(problem):
    step = {"step_size": 1 / problem.smoothness, "steps": 300}
    return {key: descend(problem, key[0], temperature=key[1], **step) for key in TABLE}


@pytest.mark.parametrize(("key", "mean_loss"), TABLE.items(), ids=str)
def test_mean_loss_of_the_specified_problem_to_five_digits(paths, key, mean_loss):
    assert f"{paths[key].mean_loss_S.mean():.4e}" == f"{mean_loss:.4e}"


def test_mean_covariance_has_the_opposite_order_of_mean_loss(paths):
    by_loss = sorted(paths, key=lambda key: paths[key].mean_loss_S.mean())
    by_covariance = sorted(paths, key=lambda key: -paths[key].covariance_S.mean())
    assert by_loss == by_covariance
    assert f"{paths['linupper', 1.0].covariance_S.mean():.4e}" == "3.6088e-02"
    assert (
        paths["uniform", 1.0].covariance_S.mean() == 0 > paths["extremes", 1.0].covariance_S.max()
    )


@pytest.mark.parametrize("key", TABLE, ids=str)
def test_no_step_breaks_the_one_step_inequality_nor_any_horizon_the_bound(paths, key):
    path = paths[key]
    assert path.violations == 0 and (path.slack_S > 0).all()
    assert (path.average_excess_S <= path.bound_S).all()


def test_the_bound_is_the_formula(paths):
    path = paths["linupper", 0.4]
    eta, distance = path.step_size_S[0], (path.optimum_D**2).sum()
    by_hand = distance / (2 * eta * 300) - path.covariance_S.mean()
    assert path.bound_S[-1] == pytest.approx(by_hand, rel=1e-12)
    assert path.average_excess_S[-1] == pytest.approx(path.mean_loss_S.mean(), rel=1e-12)


@pytest.mark.parametrize("strategy", ["linupper", "upper"])
@pytest.mark.parametrize("normalise", ["range", "rank", "quantile"])
def test_weights_that_follow_the_loss_have_covariance_of_at_least_zero(strategy, normalise):
    for seed in range(3):
        problem = linear_regression(rows=64, width=80, seed=seed)
        step = {"step_size": 1 / problem.smoothness, "steps": 60}
        path = descend(problem, strategy, temperature=0.3, normalise=normalise, **step)
        # Where all losses but rounding are equal, so are the weights: zero up to rounding.
        assert (path.covariance_S >= -1e-12).all()


def test_capped_weights_keep_their_own_inequality_at_a_quarter_of_the_step(problem):
    eta = 1 / (4 * problem.smoothness)
    for temperature in (1.0, 0.2):
        path = descend(
            problem, "linupper", temperature=temperature, max_weight=2.0, step_size=eta, steps=300
        )
        assert path.max_weight <= 2 + 1e-6
        assert path.capped_violations == 0 and (path.capped_slack_S > 0).all()
        assert (path.average_excess_S <= path.capped_bound_S).all()


def test_moving_weight_to_a_larger_excess_loss_lowers_the_capped_bound(problem):
    rng = np.random.default_rng(0)
    excess_M = problem.losses(rng.standard_normal(200)) - problem.optimum_losses
    for _ in range(50):
        low, high = sorted(rng.choice(128, 2, replace=False), key=lambda i: excess_M[i])
        weight_M = np.full(128, 1 / 128)
        before = ((weight_M - 1 / 128) * excess_M).sum()
        weight_M[low] -= 1 / 256
        weight_M[high] += 1 / 256
        assert ((weight_M - 1 / 128) * excess_M).sum() > before


def test_far_too_long_a_step_breaks_the_inequality(problem):
    longer = descend(problem, "linupper", step_size=80 / problem.smoothness, steps=20)
    assert longer.violations > 0 and (longer.slack_S < 0).any()


@pytest.mark.parametrize("data", [{"noise": 1.0}, {"outliers": 0.02}], ids=str)
def test_without_interpolation_following_the_loss_turns_covariance_negative(data):
    problem = linear_regression(width=50, **data)
    assert not problem.interpolates
    step = {"step_size": 1 / problem.smoothness, "steps": 200}
    path = descend(problem, "linupper", **step)
    assert path.covariance_S.min() < -1e-3 and path.covariance_S[-1] < 0
    assert path.test_loss_S[-1] > 1.2 * descend(problem, **step).test_loss_S[-1]


def test_norm_matched_steps_are_as_long_as_uniform_ones(problem):
    eta = 1 / problem.smoothness
    path = descend(problem, "linupper", control="norm_matched", step_size=eta, steps=30)
    for step in (0, 29):
        gradient_D = problem.gradients(path.theta_SD[step]).mean(axis=0)
        taken = np.linalg.norm(path.theta_SD[step + 1] - path.theta_SD[step])
        assert taken == pytest.approx(eta * np.linalg.norm(gradient_D), rel=1e-9)
    assert path.violations == 0 and (path.average_excess_S <= path.bound_S).all()


def test_shuffled_weights_are_the_same_weights_and_gain_nothing(problem):
    step = {"step_size": 1 / problem.smoothness, "steps": 300}
    uniform = descend(problem, **step).mean_loss_S.mean()
    shuffled = descend(problem, "linupper", control="shuffled", **step)
    weighted = descend(problem, "linupper", **step)
    assert np.allclose(np.sort(shuffled.weight_SM[0]), np.sort(weighted.weight_SM[0]))
    assert shuffled.mean_loss_S.mean() == pytest.approx(uniform, rel=0.02)
    assert weighted.mean_loss_S.mean() < 0.8 * uniform


def test_the_summary_of_paths_repeats_what_they_hold(paths):
    rows = check({f"{name} {r}": path for (name, r), path in paths.items()})
    assert [row["mean F(θ_t)"] for row in rows] == pytest.approx(list(TABLE.values()), rel=1e-4)
    assert {row["broken steps"] for row in rows} == {0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": "norm_match"}, "did you mean 'norm_matched'"),
        ({"strategy": "linuper"}, "did you mean 'linupper'"),
        ({"step_size": 0.0}, "above 0"),
        ({"steps": 0}, "1 or more"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_an_error_with_its_remedy(problem, changes, message):
    settings = {"strategy": "linupper", "step_size": 0.01, "steps": 2, **changes}
    with pytest.raises(ConfigError, match=message):
        descend(problem, **settings)
