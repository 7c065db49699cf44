"""Effects of a factorial experiment against values made of known effects."""

from itertools import combinations

import numpy as np
import pytest

from workbench.core import DataError
from workbench.evaluation.factorial import effects

FACTORS = ("quad", "acodm", "linupper")
CELLS = [cell for size in range(4) for cell in combinations(FACTORS, size)]


def made(rng=None, seeds=4, **true):
    """Values whose effects are `true`: for `a`, on minus off; for pairs, half the difference."""

    def value(cell, seed):
        total = 5.0 + 0.3 * seed
        for name, size in true.items():
            sign = np.prod([1 if factor in cell else -1 for factor in name.split("_x_")])
            total += size / 2 * sign
        return total + (0 if rng is None else rng.normal() * 0.01)

    return {cell: {seed: value(cell, seed) for seed in range(seeds)} for cell in CELLS}


def test_known_effects_are_found_apart():
    found = effects(made(quad=-0.2, acodm=0.1, quad_x_linupper=0.05))
    assert [each.name for each in found] == [
        "quad",
        "acodm",
        "linupper",
        "quad × acodm",
        "quad × linupper",
        "acodm × linupper",
        "quad × acodm × linupper",
    ]
    sizes = {each.name: each.mean_difference for each in found}
    expected = dict.fromkeys(sizes, 0.0) | {"quad": -0.2, "acodm": 0.1, "quad × linupper": 0.05}
    assert sizes == pytest.approx(expected, abs=1e-12)
    outcomes = {each.name: each.outcome for each in found}
    assert outcomes["quad"] == "better" and outcomes["acodm"] == "worse"


def test_an_interaction_is_half_the_difference_of_an_effect():
    values = made(np.random.default_rng(0))
    found = {each.name: each.mean_difference for each in effects(values)}

    def mean(*cells):
        return np.mean([list(values[cell].values()) for cell in cells])

    with_acodm = mean(("quad", "acodm"), FACTORS) - mean(("acodm",), ("acodm", "linupper"))
    without = mean(("quad",), ("quad", "linupper")) - mean((), ("linupper",))
    assert found["quad × acodm"] == pytest.approx((with_acodm - without) / 2)
    assert found["quad"] == pytest.approx((with_acodm + without) / 2)


def test_what_differs_between_seeds_alone_cancels():
    assert all(each.outcome == "within noise" for each in effects(made()))


def test_missing_combinations_and_seeds_are_named():
    values = made()
    del values["quad", "acodm"]
    with pytest.raises(DataError, match=r"\['acodm', 'quad'\]"):
        effects(values)
    values = made() | {(): {9: 1.0}}
    with pytest.raises(DataError, match="share no seed"):
        effects(values)


def test_repeats_set_one_noise_floor_of_all_effects():
    rng = np.random.default_rng(0)
    noise, above, trials = 0.05, 0, 150
    for _ in range(trials):
        values = {
            cell: {seed: (5.0 + rng.normal(size=2) * noise).tolist() for seed in range(2)}
            for cell in [(), ("a",), ("b",), ("a", "b")]
        }
        found = effects(values)
        assert len({each.noise_floor for each in found}) == 1
        above += abs(found[0].mean_difference) > found[0].noise_floor
    assert 0 < above / trials < 0.1
    assert effects(made())[0].noise_floor == 0


def test_an_effect_below_what_repeats_show_is_noise():
    values = made(quad=-0.01)
    assert effects(values)[0].outcome == "better"
    apart = {
        cell: {seed: [value - 0.1, value + 0.1] for seed, value in own.items()}
        for cell, own in values.items()
    }
    [quad, *_] = effects(apart)
    assert quad.outcome == "within noise" and quad.mean_difference == pytest.approx(-0.01)
