"""Runs of every combination become effects: repeats on request, and never runs of other text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.batch import at_equal_compute, factorial
from workbench.config import RunConfig
from workbench.core import ConfigError, RunError


@pytest.fixture
def make(write_run):
    def run(name, seed, nats, **options):
        losses = {"clean": nats, "noise": 9.0}
        folder = write_run(name, seed=seed, final=losses, **options)
        return SimpleNamespace(folder=folder, path=folder.path, config=RunConfig(**folder.config))

    return run


@pytest.fixture
def equal(make):
    """{quad} × {acodm}; what has no quad is as long as the operations of its twin allow."""
    dear = {
        label: [make(f"{label}{seed}", seed, 5.0) for seed in range(2)]
        for label in ("quad", "quad + acodm")
    }

    def longer(label, twin, steps):
        return [
            make(f"{label}{seed}", seed, 4.0, steps=steps + seed, match_run=str(own.path))
            for seed, own in enumerate(dear[twin])
        ]

    return {
        "none": longer("none", "quad", 9),
        "acodm": longer("acodm", "quad + acodm", 7),
        **dear,
    }


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


def test_lengths_at_equal_compute_are_those_of_the_twins(equal):
    acodm, quad, both = factorial(equal, without=["noise"])
    assert quad.mean_difference == pytest.approx(1.0) and quad.n == 2
    assert acodm.mean_difference == both.mean_difference == pytest.approx(0.0)


def test_a_run_of_another_length_is_refused(make, equal):
    runs = {"none": [make("a", 0, 5.0)], "quad": [make("q", 0, 4.0, steps=9)]}
    with pytest.raises(RunError, match=r"a was last evaluated at step 4, .*q at 9"):
        factorial(runs)
    longer = [make(f"longer{seed}", seed, 5.0, steps=6) for seed in range(2)]
    with pytest.raises(RunError, match="last evaluated at step"):
        factorial({**equal, "quad + acodm": longer})


def test_a_run_at_equal_steps_does_not_pass_among_those_at_equal_compute(make, equal):
    plain = [make(f"plain{seed}", seed, 5.0) for seed in range(2)]
    with pytest.raises(RunError, match="plain0 was not given the operations"):
        factorial({**equal, "acodm": plain})


def test_at_equal_compute_matches_every_cheaper_run_to_its_twin(equal):
    study = {label: [run.config for run in own] for label, own in equal.items()}
    longer = at_equal_compute(study, equal, "quad")
    assert {label: [c.training.match_run for c in own] for label, own in longer.items()} == {
        "none": [str(run.path) for run in equal["quad"]],
        "acodm": [str(run.path) for run in equal["quad + acodm"]],
    }


def test_at_equal_compute_refuses_what_has_no_twin(equal):
    study = {label: [run.config for run in own] for label, own in equal.items()}
    with pytest.raises(ConfigError, match="did you mean 'quad'"):
        at_equal_compute(study, equal, "quat")
    with pytest.raises(RunError, match="'acodm' has no twin with 'quad' on among none, quad"):
        at_equal_compute(study, {label: equal[label] for label in ("none", "quad")}, "quad")
    with pytest.raises(RunError, match="'quad' has no run with seed 1, which 'none' has"):
        at_equal_compute(study, {**equal, "quad": equal["quad"][:1]}, "quad")
