"""Runs of every combination become effects: repeats on request, and never runs of other text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.batch import factorial
from workbench.core import RunError


@pytest.fixture
def make(write_run):
    def run(name, seed, nats, **options):
        losses = {"clean": nats, "noise": 9.0}
        return SimpleNamespace(folder=write_run(name, seed=seed, final=losses, **options))

    return run


def test_repeats_reach_the_effects_and_are_refused_unasked(make):
    runs = {
        "none": [make("a0", 0, 5.0), make("a0b", 0, 5.4), make("a1", 1, 5.1)],
        "quad": [make("q0", 0, 4.9), make("q1", 1, 5.0)],
    }
    with pytest.raises(RunError, match=r"a0 and .*a0b are both 'none' with seed 0"):
        factorial(runs, without=["noise"])
    [quad] = factorial(runs, without=["noise"], repeated=True)
    assert quad.mean_difference == pytest.approx((4.9 + 5.0 - 5.2 - 5.1) / 2)
    assert quad.noise_floor > 0.2


def test_a_run_of_other_text_is_refused(make):
    runs = {"none": [make("a", 0, 5.0)], "quad": [make("q", 0, 4.0, content_hash="else")]}
    with pytest.raises(RunError, match="trained on different text"):
        factorial(runs)
