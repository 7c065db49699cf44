"""Verdicts: the interval covers what it says, pairs are pairs, and outcomes are honest."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core import ConfigError, DataError, NumericsError
from workbench.evaluation import table, verdict


def compare(baseline, treatment, **options):
    return verdict(baseline, treatment, name="linupper", baseline_name="uniform", **options)


def by_seed(values):
    return dict(enumerate(map(float, values)))


@pytest.mark.parametrize("n", [3, 5])
def test_interval_covers_the_truth_as_often_as_it_says(n):
    rng = np.random.default_rng(0)
    trials, covered, bootstrap_covered = 800, 0, 0
    for difference in rng.normal(-0.02, 0.01, size=(trials, n)):
        v = compare(by_seed(np.full(n, 5.0)), by_seed(5.0 + difference))
        covered += v.low <= -0.02 <= v.high
        means = rng.choice(difference, size=(400, n)).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        bootstrap_covered += low <= -0.02 <= high
    assert abs(covered / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials)
    assert bootstrap_covered / trials < 0.90


def test_no_effect_is_rarely_called_one():
    rng = np.random.default_rng(1)
    outcomes = [
        compare(by_seed(rng.normal(size=4)), by_seed(rng.normal(size=4))).outcome
        for _ in range(500)
    ]
    assert 0.02 < 1 - outcomes.count("within noise") / 500 < 0.08


def test_pairing_removes_the_spread_between_seeds():
    seeds = by_seed([5.0, 6.0, 7.0, 8.0])
    treatment = {seed: value - 0.02 + 0.001 * (-1) ** seed for seed, value in seeds.items()}
    assert compare(seeds, treatment).outcome == "better"
    shifted = {seed: treatment[(seed + 1) % 4] for seed in treatment}
    assert compare(seeds, shifted).outcome == "within noise"


def test_only_common_seeds_are_compared():
    v = compare({0: 1.0, 1: 2.0, 2: 3.0}, {2: 2.5, 1: 1.0, 9: math.nan})
    assert v.n == 2
    assert v.mean_difference == pytest.approx(-0.75)


def test_no_common_seed_is_an_error_naming_both():
    with pytest.raises(DataError, match=r"seeds \[3\].*seeds \[0, 1\].*same seeds"):
        compare({0: 1.0, 1: 1.0}, {3: 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(NumericsError, match=r"linupper has the value .* at seed 1"):
        compare({0: 1.0, 1: 1.0}, {0: 1.0, 1: value})
    with pytest.raises(NumericsError, match="uniform has the value"):
        compare({0: 1.0, 1: value}, {0: 1.0, 1: 1.0})


finite = st.floats(-10, 10, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=8), st.booleans())
def test_swapping_the_two_turns_the_verdict_around(pairs, lower_is_better):
    a, b = by_seed(p[0] for p in pairs), by_seed(p[1] for p in pairs)
    forth = compare(a, b, lower_is_better=lower_is_better)
    back = compare(b, a, lower_is_better=lower_is_better)
    opposite = {"better": "worse", "worse": "better"}
    assert back.outcome == opposite.get(forth.outcome, forth.outcome)
    assert back.mean_difference == -forth.mean_difference
    assert (back.low, back.high) == (-forth.high, -forth.low)
    assert back.seeds_needed == forth.seeds_needed


@pytest.mark.parametrize(("lower_is_better", "outcome"), [(True, "worse"), (False, "better")])
def test_direction_decides_between_better_and_worse(lower_is_better, outcome):
    v = compare(
        by_seed([1.0, 1.1, 1.2]), by_seed([2.0, 2.11, 2.19]), lower_is_better=lower_is_better
    )
    assert v.outcome == outcome


def test_one_pair_is_undecided_not_within_noise():
    v = compare({0: 5.0}, {0: 4.0})
    assert (v.outcome, v.low, v.high, v.seeds_needed) == ("undecided", -math.inf, math.inf, None)
    assert str(v) == (
        "linupper against uniform is undecided: −1.000 nats per token "
        "(1 seed; an interval needs at least 2)"
    )


def test_a_verdict_is_one_plain_sentence():
    v = compare(by_seed([5.31, 5.28, 5.30]), by_seed([5.28, 5.259, 5.28]))
    assert str(v) == (
        "linupper is better than uniform: −0.024 nats per token "
        "(95 % interval −0.037 to −0.010, 3 seeds)"
    )


def test_noise_is_said_to_be_noise():
    v = compare(by_seed([5.0, 5.0, 5.0]), by_seed([5.1, 4.9, 5.02]))
    assert str(v).startswith("linupper against uniform is within noise: +0.007 nats per token")


def test_higher_confidence_widens_the_interval():
    a, b = by_seed([1.0, 1.0, 1.0]), by_seed([1.1, 1.2, 1.3])
    narrow, wide = compare(a, b, confidence=0.8), compare(a, b, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ConfigError, match="confidence = 95"):
        compare(a, b, confidence=95)


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 10), (0.5, 34), (0.2, 199)])
def test_seeds_needed_agrees_with_tables_of_power(effect, seeds):
    """Cohen 1988 and G*Power: paired t test, two-sided, α = 0.05, power 0.80."""
    unit_spread = np.array([-1.0, 1.0]) / math.sqrt(2)
    v = compare(by_seed([0.0, 0.0]), by_seed(unit_spread + effect))
    assert v.seeds_needed == seeds


def test_identical_settings_need_no_number_of_seeds():
    v = compare(by_seed([1.0, 2.0]), by_seed([1.0, 2.0]))
    assert (v.outcome, v.seeds_needed) == ("within noise", None)


def test_table_keeps_order_and_missing_seeds_needed():
    a = by_seed([1.0, 2.0, 3.0])
    verdicts = [compare(a, a), compare(a, by_seed([0.5, 1.52, 2.51]))]
    frame = table(verdicts)
    assert frame["outcome"].tolist() == ["within noise", "better"]
    assert frame["seeds needed"].isna().tolist() == [True, False]
    assert table([]).empty


def test_differences_of_rounding_are_no_difference_however_regular():
    a = by_seed([6.0, 6.5, 5.5])
    assert compare(a, by_seed([v - 3e-7 for v in a.values()])).outcome == "within noise"
    assert compare(a, by_seed([v - 3e-5 for v in a.values()])).outcome == "better"


def test_the_bootstrap_interval_is_that_of_all_resamples():
    values = [0.1, -0.2, 0.4]
    v = compare(by_seed([0.0] * 3), by_seed(values))
    means = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=3)])
    assert v.bootstrap_low == pytest.approx(np.quantile(means, 0.025, method="inverted_cdf"))
    assert v.bootstrap_high == pytest.approx(np.quantile(means, 0.975, method="inverted_cdf"))
    assert v.low < v.bootstrap_low < v.mean_difference < v.bootstrap_high < v.high
    assert compare({0: 1.0}, {0: 2.0}).bootstrap_high == math.inf


def test_a_difference_that_repeats_alone_show_is_noise():
    rng = np.random.default_rng(0)
    truth, found = {"same": 0.0, "far": -0.5}, {}
    for label, shift in truth.items():
        baseline = {seed: list(5 + seed + 0.1 * rng.normal(size=3)) for seed in range(3)}
        treatment = {
            # A spread between seeds so small that the interval leaves out zero.
            seed: [np.mean(values) + shift - 0.02 + 1e-4 * seed]
            for seed, values in baseline.items()
        }
        found[label] = compare(baseline, treatment)
    assert found["same"].high < 0 and found["same"].outcome == "within noise"
    assert "repeats alone differ by" in str(found["same"])
    assert found["far"].outcome == "better"


def test_the_noise_floor_covers_what_repeats_do():
    rng = np.random.default_rng(1)
    above, trials = 0, 400
    for _ in range(trials):
        a, b = ({s: list(rng.normal(size=2)) for s in range(3)} for _ in range(2))
        v = compare(a, b)
        above += abs(v.mean_difference) > v.noise_floor
    assert above / trials == pytest.approx(0.05, abs=0.035)
    assert compare(by_seed([1.0, 2.0]), by_seed([1.5, 2.5])).noise_floor == 0


def test_equal_values_say_nothing_of_repeats():
    a = by_seed([1.0, 2.0])
    assert "repeats" not in str(compare(a, a))
