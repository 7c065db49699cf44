"""The surrogate and the hull: on a known law with noise, intervals keep what they promise."""

import numpy as np
import pytest

from workbench.core import ConfigError
from workbench.mixing.hull import outside_hull
from workbench.mixing.surrogate import MOST_FITS, fewest_mixtures, fit_surrogate, regression

GAIN_KD = np.array([[0.5, 0.1], [0.3, 0.0], [0.05, 0.4], [0.0, 0.2]])
NOISE_NATS = 0.03


def law(mixture_NK):
    """Two losses that fall with the shares, with diminishing returns that no feature has."""
    return 4.0 - 2 * np.sqrt(mixture_NK) @ GAIN_KD


def drawn(rng, runs, noise=NOISE_NATS):
    mixture_NK = rng.dirichlet(np.ones(4), runs)
    return mixture_NK, law(mixture_NK) + noise * rng.normal(size=(runs, 2))


def coverage(level, *, runs, trials, repeats=1):
    rng, inside, width = np.random.default_rng(0), [], []
    for _ in range(trials):
        mixture_NK, _ = drawn(rng, runs)
        mixture_NK = np.repeat(mixture_NK, repeats, axis=0)
        loss_ND = law(mixture_NK) + NOISE_NATS * rng.normal(size=(len(mixture_NK), 2))
        surrogate = fit_surrogate(mixture_NK, loss_ND)
        asked_MK, measured_MD = drawn(rng, 50)
        low_MD, high_MD = surrogate.interval(asked_MK, level=level)
        inside.append((low_MD <= measured_MD) & (measured_MD <= high_MD))
        width.append(high_MD - low_MD)
    return float(np.mean(inside)), float(np.mean(width))


@pytest.mark.parametrize(("level", "runs"), [(0.9, 12), (0.8, 12), (0.9, 30)])
def test_intervals_hold_as_often_as_they_say(level, runs):
    share, width = coverage(level, runs=runs, trials=40)
    assert level - 0.05 < share < level + 0.09
    assert width < 0.34, "no narrower than a guess"


def test_repeats_of_a_mixture_do_not_vouch_for_other_mixtures():
    """Left out alone, a run is predicted by its own repeat, and the interval comes out short."""
    share, _ = coverage(0.9, runs=10, trials=40, repeats=3)
    assert share > 0.85
    mixture_NK = np.repeat(np.random.default_rng(1).dirichlet(np.ones(4), 10), 3, axis=0)
    apart = fit_surrogate(mixture_NK, law(mixture_NK), group_N=list(range(30)))
    together = fit_surrogate(mixture_NK, law(mixture_NK))
    assert apart.explained_D[0] > together.explained_D[0] and together.mixtures == 10


def test_more_mixtures_than_fits_are_left_out_several_at_a_time():
    rng = np.random.default_rng(2)
    mixture_NK, loss_ND = drawn(rng, MOST_FITS + 25)
    surrogate = fit_surrogate(mixture_NK, loss_ND)
    assert len(surrogate._without_F) == MOST_FITS and surrogate.mixtures == MOST_FITS + 25
    asked_MK, measured_MD = drawn(rng, 400)
    low_MD, high_MD = surrogate.interval(asked_MK, level=0.9)
    assert 0.85 < np.mean((low_MD <= measured_MD) & (measured_MD <= high_MD)) < 0.97


def test_without_noise_a_law_of_the_features_is_found():
    mixture_NK, _ = drawn(np.random.default_rng(3), 40)
    loss_ND = 3 - np.log(mixture_NK + 0.01) @ GAIN_KD + mixture_NK @ GAIN_KD
    surrogate = fit_surrogate(mixture_NK, loss_ND)
    asked_MK, _ = drawn(np.random.default_rng(4), 20)
    truth_MD = 3 - np.log(asked_MK + 0.01) @ GAIN_KD + asked_MK @ GAIN_KD
    assert surrogate.predict(asked_MK) == pytest.approx(truth_MD, abs=0.02)
    assert (surrogate.explained_D > 0.99).all()


def test_pure_chance_explains_nothing():
    rng = np.random.default_rng(0)
    surrogate = fit_surrogate(rng.dirichlet(np.ones(4), 20), rng.normal(size=(20, 1)))
    assert surrogate.explained_D[0] < 0.2


@pytest.mark.parametrize(("level", "needed"), [(0.5, 4), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_an_interval_names_the_mixtures_it_needs(level, needed):
    assert fewest_mixtures(level) == needed
    mixture_NK, loss_ND = drawn(np.random.default_rng(0), 40)
    fit_surrogate(mixture_NK[:needed], loss_ND[:needed]).interval(mixture_NK, level=level)
    if needed > 4:
        with pytest.raises(ConfigError, match=f"needs {needed} different mixtures, there are"):
            short = fit_surrogate(mixture_NK[: needed - 1], loss_ND[: needed - 1])
            short.interval(mixture_NK, level=level)


@pytest.mark.parametrize("level", [0, 1, 90])
def test_a_level_that_is_no_probability_is_refused(level):
    with pytest.raises(ConfigError, match="no probability"):
        fewest_mixtures(level)


@pytest.mark.parametrize(
    ("mixtures", "losses", "says"),
    [
        (np.eye(3), np.ones((3, 1)), "too few"),
        (np.eye(4)[[0, 0, 1, 2]], np.ones((4, 1)), "4 runs of 3 mixtures are too few"),
        (np.eye(4), np.array([[1.0], [2], [3], [np.nan]]), "not finite"),
    ],
)
def test_runs_that_cannot_be_regressed_are_refused(mixtures, losses, says):
    with pytest.raises(ConfigError, match=says):
        fit_surrogate(mixtures, losses)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ridge'"):
        regression("rigde")


def test_boosted_trees_follow_the_law_too():
    pytest.importorskip("lightgbm")
    mixture_NK, loss_ND = drawn(np.random.default_rng(5), 24)
    surrogate = fit_surrogate(mixture_NK, loss_ND[:, :1], method="lightgbm")
    asked_MK, measured_MD = drawn(np.random.default_rng(6), 100)
    assert np.corrcoef(surrogate.predict(asked_MK)[:, 0], measured_MD[:, 0])[0, 1] > 0.8
    assert surrogate.settings["method"] == "lightgbm" and surrogate.settings["n_estimators"] == 1000


def test_lightgbm_that_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", None)
    with pytest.raises(ConfigError, match="pip install lightgbm"):
        regression("lightgbm")


TRIANGLE = np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])


def test_mixtures_between_the_sampled_ones_are_inside():
    for weights in np.random.default_rng(0).dirichlet(np.ones(3), 20):
        assert outside_hull(weights @ TRIANGLE, TRIANGLE).inside


@pytest.mark.parametrize(
    ("mixture", "share"),
    [([1.0, 0, 0], 0.4), ([0.7, 0.15, 0.15], 0.1), ([0.5, 0.5, 0.0], 0.2), ([0.4, 0.4, 0.2], 0.0)],
)
def test_the_distance_is_the_share_that_would_have_to_move(mixture, share):
    outside = outside_hull(np.array(mixture), TRIANGLE)
    assert outside.share == pytest.approx(share, abs=1e-9)
    assert outside.inside == (share == 0)
    moved = 0.5 * np.abs(outside.nearest_K - mixture).sum()
    assert moved == pytest.approx(share, abs=1e-9) and outside.nearest_K.sum() == pytest.approx(1)


def test_the_hull_of_one_mixture_is_that_mixture():
    outside = outside_hull(np.array([0.5, 0.5]), np.array([[0.25, 0.75]]))
    assert outside.share == pytest.approx(0.25) and outside.nearest_K == pytest.approx([0.25, 0.75])
