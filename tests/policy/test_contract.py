"""The contract every registered policy passes: valid, stateful, deterministic, tolerant, strict."""

import io
import json

import numpy as np
import pytest
import torch

import workbench.mixing
import workbench.reweighting  # noqa: F401
from workbench.core import (
    MIXERS,
    REWEIGHTERS,
    ConfigError,
    DomainGradients,
    Mixer,
    MixingTask,
    Reweighter,
    Signal,
    StepOutcome,
    TrackedNorms,
    TrackingMixer,
)

TASK = MixingTask(("a", "b", "c", "empty"), np.array([400, 300, 200, 100]))


def losses(seed: int, rows: int = 16) -> torch.Tensor:
    return 2 + 3 * torch.rand(rows, generator=torch.Generator().manual_seed(seed))


def outcome(step: int, *, broken: bool = False) -> StepOutcome:
    """A step in which the domain `empty` has no sample; `broken` has a loss that is not finite."""
    rng = np.random.default_rng(step)
    domain_B = rng.integers(0, 3, size=16)
    loss_B = losses(step)
    gradient_KD = (rng.normal(size=(4, 20)) + 1) / 10
    gradient_KD[3] = 0
    if broken:
        loss_B[int(np.flatnonzero(domain_B == 0)[0])] = torch.inf
        gradient_KD[0, 0] = np.nan
    excess_B = torch.from_numpy(rng.random(16)).float() + (torch.inf if broken else 0)
    signals = {
        Signal.DOMAIN_GRADIENTS: DomainGradients(
            gradient_KD @ gradient_KD.T, np.bincount(domain_B, minlength=4)
        ),
        Signal.ROW_GRADIENTS: (gradient_KD**2).sum(axis=1) + 5,
        Signal.TRACKED_NORMS: TrackedNorms(rng.random(3) + 1, rng.random(3)),
        Signal.EXCESS_LOSS: excess_B,
    }
    return StepOutcome(
        step=step,
        domain_B=domain_B,
        sample_id_B=domain_B << 40,
        loss_B=loss_B,
        weight_B=torch.ones(16),
        valid_B=torch.ones(16, dtype=torch.bool),
        signals=signals,
    )


def through_a_checkpoint(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


reweighters = pytest.mark.parametrize("name", REWEIGHTERS.names())
mixers = pytest.mark.parametrize("name", MIXERS.names())
adaptive = pytest.mark.parametrize("name", [n for n in MIXERS.names() if n != "static"])
SOON = {
    "acodm": {"warmup_steps": 4},
    "direct": {"warmup_steps": 4},
    "pike": {"period_steps": 4},
    "doremi": {"reference": "runs/reference"},
}
"""Options with which a short test reaches every phase."""


@reweighters
def test_weights_are_valid_and_have_mean_one_over_the_valid_rows(name):
    reweighter = REWEIGHTERS.build(name)
    assert isinstance(reweighter, Reweighter)
    valid_B = torch.arange(16) % 5 != 0
    for step in (0, 1, 10_000):
        weight_B = reweighter.weigh(losses(step), valid_B, step)
        assert weight_B.shape == (16,) and weight_B.dtype == torch.float32
        assert torch.isfinite(weight_B).all() and (weight_B >= 0).all()
        assert (weight_B[~valid_B] == 0).all()
        assert weight_B[valid_B].mean().item() == pytest.approx(1, abs=1e-5)


@reweighters
def test_a_batch_without_valid_rows_gets_no_weight(name):
    weight_B = REWEIGHTERS.build(name).weigh(losses(0), torch.zeros(16, dtype=torch.bool), 0)
    assert weight_B.tolist() == [0] * 16


@reweighters
def test_mismatched_rows_are_refused(name):
    with pytest.raises(Exception, match="one loss and one flag per row"):
        REWEIGHTERS.build(name).weigh(losses(0), torch.ones(3, dtype=torch.bool), 0)


@reweighters
def test_reweighter_continues_from_its_state(name):
    first, second = REWEIGHTERS.build(name), REWEIGHTERS.build(name)
    valid_B = torch.ones(16, dtype=torch.bool)
    for step in range(5):
        first.weigh(losses(step), valid_B, step)
    second.load_state_dict(through_a_checkpoint(first.state_dict()))
    for step in range(5, 8):
        ours = first.weigh(losses(step), valid_B, step)
        assert torch.equal(ours, second.weigh(losses(step), valid_B, step))


@mixers
def test_mixture_is_valid_and_tolerates_a_domain_without_samples(name):
    mixer = MIXERS.build(name, TASK, **SOON.get(name, {}))
    assert isinstance(mixer, Mixer)
    for step in range(20):
        mixture = mixer.propose(step)
        assert mixture.domains == TASK.names
        assert mixture.probability_K.sum() == pytest.approx(1)
        assert (mixture.probability_K >= 0).all()
        mixer.observe(outcome(step))
        json.dumps(mixer.diagnostics())
        assert all(isinstance(message, str) for message in mixer.warnings())
    if isinstance(mixer, TrackingMixer):
        assert mixer.tracking.layers >= 1


@adaptive
def test_every_adaptive_mixer_keeps_the_same_floor_and_moves(name):
    mixer = MIXERS.build(name, TASK, floor=0.2, guaranteed_rows=2, **SOON.get(name, {}))
    mixtures = []
    for step in range(40):
        mixture = mixer.propose(step)
        assert mixture.guaranteed_rows == 2
        assert (mixture.probability_K >= 0.05 - 1e-12).all()
        mixtures.append(mixture.probability_K)
        mixer.observe(outcome(step))
    assert np.abs(mixtures[-1] - mixtures[0]).max() > 1e-4
    with pytest.raises(ConfigError, match="floor = 2"):
        MIXERS.build(name, TASK, floor=2, **SOON.get(name, {}))
    with pytest.raises(ConfigError, match="do not fit a batch of 16 rows"):
        MIXERS.build(name, TASK, guaranteed_rows=5, **SOON.get(name, {}))


@adaptive
def test_what_is_not_finite_is_dropped_and_told(name):
    mixer = MIXERS.build(name, TASK, **SOON.get(name, {}))
    for step in range(40):
        mixer.propose(step)
        mixer.observe(outcome(step, broken=step == 30))
    assert np.isfinite(mixer.propose(40).probability_K).all()
    if name != "frozen_random":
        assert mixer.diagnostics()["dropped"] == 1
        assert any("not finite" in message for message in mixer.warnings())


@mixers
def test_mixer_is_deterministic_and_continues_from_its_state(name):
    first, second = (MIXERS.build(name, TASK, **SOON.get(name, {})) for _ in range(2))
    for step in range(40):
        first.propose(step)
        first.observe(outcome(step))
    second.load_state_dict(through_a_checkpoint(first.state_dict()))
    for step in range(40, 48):
        ours, theirs = first.propose(step), second.propose(step)
        assert np.array_equal(ours.probability_K, theirs.probability_K)
        first.observe(outcome(step))
        second.observe(outcome(step))


@pytest.mark.parametrize("registry", [REWEIGHTERS, MIXERS], ids=lambda r: r.kind)
def test_an_unknown_policy_or_option_names_the_nearest(registry):
    known = registry.names()[0]
    with pytest.raises(ConfigError, match=f"did you mean '{known}'"):
        registry.check(known + "x", {})
    for name in registry.names():
        with pytest.raises(ConfigError, match="unknown option"):
            registry.check(name, {"no_such_option": 1})


@reweighters
def test_options_out_of_range_are_refused(name):
    options = REWEIGHTERS.options(name)
    for option, bad in (("temperature", 0.0), ("delta", -1), ("warmup_steps", -1), ("floor", 0.0)):
        if option in options:
            with pytest.raises(ConfigError, match=option):
                REWEIGHTERS.build(name, **{option: bad})
