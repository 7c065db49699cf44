"""The problems: their optima, gradients, and what each kind of dirt does to the rows."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.core import ConfigError
from workbench.theory import linear_regression, stream


def test_rows_are_drawn_in_the_order_of_the_specification():
    problem = linear_regression()
    rng = np.random.default_rng(0)
    x_MD = rng.standard_normal((128, 200))
    planted_D = rng.standard_normal(200) / np.sqrt(200)
    assert np.array_equal(problem.x_MD, x_MD) and np.array_equal(problem.optimum_D, planted_D)
    assert np.array_equal(problem.y_M, x_MD @ planted_D)
    assert problem.smoothness == pytest.approx(max(x @ x for x in x_MD))
    assert problem.interpolates


def test_gradients_are_finite_differences_of_the_losses():
    problem = linear_regression(rows=6, width=4, noise=0.3)
    theta_D, step = np.array([0.3, -1.0, 0.2, 0.7]), 1e-6
    for column in range(4):
        ahead = theta_D + step * np.eye(4)[column]
        behind = theta_D - step * np.eye(4)[column]
        slope_M = (problem.losses(ahead) - problem.losses(behind)) / (2 * step)
        assert problem.gradients(theta_D)[:, column] == pytest.approx(slope_M, abs=1e-8)


@pytest.mark.parametrize("data", [{"noise": 0.5}, {"outliers": 0.1}], ids=str)
def test_the_optimum_of_rows_that_do_not_fit_has_no_slope(data):
    problem = linear_regression(rows=128, width=50, **data)
    assert abs(problem.gradients(problem.optimum_D).mean(axis=0)).max() < 1e-12
    assert not problem.interpolates and not np.allclose(problem.optimum_D, problem.planted_D)


def test_errors_change_labels_and_leave_the_rows():
    clean, dirty = linear_regression(width=50), linear_regression(width=50, outliers=0.02)
    assert np.array_equal(clean.x_MD, dirty.x_MD)
    off_M = dirty.y_M - clean.y_M
    assert set(np.abs(off_M).round(9)) == {0.0, 10.0} and 0 < (off_M != 0).sum() < 10


def test_more_noise_is_the_same_noise_scaled():
    clean, half, full = (linear_regression(width=50, noise=n).y_M for n in (0.0, 0.5, 1.0))
    assert full - clean == pytest.approx(2 * (half - clean))
    assert np.std(full - clean) == pytest.approx(1, rel=0.2)


def test_redundant_rows_fill_a_subspace_and_are_as_long_as_others():
    problem = linear_regression(rows=2000, width=50, redundancy=0.95)
    redundant, rest = problem.x_MD[:1900], problem.x_MD[1900:]
    assert np.linalg.matrix_rank(redundant) == 5 and np.linalg.matrix_rank(rest) == 50
    lengths = [(part**2).sum(axis=1).mean() for part in (redundant, rest)]
    assert lengths == pytest.approx([50, 50], rel=0.05)
    assert (problem.x_MD**2).mean(axis=0) == pytest.approx(problem.second_moment_D, rel=0.5)


def test_a_stream_has_fresh_rows_and_ends_with_a_remedy():
    source = stream(steps=3, rows=8, width=4, noise=0.1)
    first, second = source.batch(0), source.batch(1)
    assert first.x_MD.shape == (8, 4) and not np.allclose(first.x_MD, second.x_MD)
    assert first.optimum_losses.mean() == pytest.approx(0.5 * 0.1**2, rel=1)
    with pytest.raises(ConfigError, match="3 steps — draw a longer one"):
        source.batch(3)


def test_problems_say_what_they_are_in_a_line():
    assert repr(linear_regression(noise=1.0, width=50)) == (
        "LinearRegression(128 rows, 50 parameters, no optimum fits every row)"
    )
    assert repr(stream(steps=2)) == "Stream(2 steps of 128 rows, 50 parameters)"


def test_level_sets_have_equal_mean_loss():
    plane = linear_regression(rows=64, width=2, redundancy=0.8, subspace=1, noise=0.2)
    base = plane.losses(plane.optimum_D).mean()
    heights = [plane.losses(point).mean() - base for point in plane.level_set(0.3)]
    assert heights == pytest.approx([0.3] * len(heights))
    with pytest.raises(ConfigError, match="width=2"):
        linear_regression().level_set(0.3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"outliers": 1.5}, "outliers = 1.5"),
        ({"redundancy": -0.1}, "redundancy = -0.1"),
        ({"noise": -1.0}, "noise = -1.0"),
        ({"redundancy": 0.5, "subspace": 300}, "subspace of 300"),
    ],
    ids=str,
)
def test_impossible_rows_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        linear_regression(**data)
    with pytest.raises(ConfigError, match=message):
        stream(steps=2, **data)
