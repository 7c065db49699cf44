"""The streaming toy, and what its controls show of the gain of LinUpper."""

from __future__ import annotations

import pytest

from workbench.core import ConfigError
from workbench.theory import (
    CONDITIONS,
    descend,
    explore,
    run_condition,
    run_conditions,
    stream,
    summarise,
    tuned,
)


@pytest.fixture(scope="module")
def ratios():
    """Condition -> mean test loss over the steps, against uniform's, on two seeds."""
    rows = summarise(run_conditions(seeds=range(2), strategies=("uniform", "linupper")))
    return {row["condition"]: row["linupper / uniform"] for row in rows}


def test_the_streaming_toy_has_the_order_of_the_paper():
    paths = run_condition(CONDITIONS["one step size for all"], seeds=range(3))
    for seed in range(3):
        last = {name: own[seed].test_loss_S[-1] for name, own in paths.items()}
        assert last["linupper"] < last["quadratic"] < last["uniform"] < last["extremes"]


def test_matched_gradient_norms_take_the_gain_away(ratios):
    assert ratios["one step size for all"] < 0.75
    assert ratios["gradient norms matched"] == pytest.approx(1, abs=0.03)


def test_a_tuned_step_size_takes_the_gain_away(ratios):
    assert ratios["step size tuned for each"] == pytest.approx(1, abs=0.06)


def test_outliers_make_linupper_worse_than_uniform(ratios):
    assert ratios["2 % outliers"] > 1.15


def test_redundant_data_is_where_a_gain_survives_tuning(ratios):
    assert ratios["redundant data"] < 0.85
    assert ratios["redundant data, tuned"] < 0.85


def test_tuning_takes_the_best_of_all_step_sizes_and_stops_at_divergence():
    problem = stream(steps=30)
    best = tuned(problem, "uniform", steps=30, step_sizes=(5.0, 0.02, 0.1, 50.0))
    by_hand = [descend(problem, step_size=eta, steps=30) for eta in (0.02, 0.1)]
    assert best.mean_test_loss == min(path.mean_test_loss for path in by_hand)
    with pytest.raises(ConfigError, match="no step size"):
        tuned(problem, "uniform", steps=30, step_sizes=())


def test_a_diverging_path_ends_and_says_so():
    path = descend(stream(steps=100), step_size=50.0, steps=100)
    assert path.diverged and len(path.step_size_S) < 100
    assert path.mean_test_loss == float("inf")


def test_exploring_compares_three_paths_on_the_same_rows():
    clean, dirty = explore(), explore(outliers=0.02)
    assert clean.test_ratio < 0.8 < 0.9 < clean.matched_ratio < 1.02
    assert dirty.test_ratio > 1.5 and not dirty.problem.interpolates
    assert clean.norm_matched.control == "norm_matched" and clean.uniform.strategy == "uniform"
