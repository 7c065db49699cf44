"""The contract every registered policy passes: valid, stateful, deterministic, tolerant, strict."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench.mixing
import workbench.reweighting
import workbench.selection  # noqa: F401
from workbench.core import (
    MIXERS,
    REWEIGHTERS,
    SELECTORS,
    ConfigError,
    DomainGradients,
    Mixer,
    MixingTask,
    PolicyError,
    Pool,
    Reweighter,
    SelectionTask,
    Selector,
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
adaptive = pytest.mark.parametrize(
    "name", [n for n in MIXERS.names() if n not in ("regmix", "static")]
)
SOON: dict[str, dict] = {
    "regmix": {"trials": str(Path(__file__).with_name("regmix_trials.json"))},
    "acodm": {"warmup_steps": 4},
    "direct": {"warmup_steps": 4},
    "pike": {"period_steps": 4},
    "doremi": {"reference": "runs/reference"},
}
"""Options with which a short test reaches every phase."""
selectors = pytest.mark.parametrize("name", SELECTORS.names())
CLUSTERED = {"clusters": 6, "embedder": {"name": "tfidf", "width": 8, "features": 1024}}
# The control rows of a model that has learned nothing pass as well as any others.
INFLUENCE = {"factor_rows": 16, "control_rows": 8, "trust": "off"}
FEW = {
    "cluster_uniform": CLUSTERED,
    "top_influence": INFLUENCE,
    "quad": {**CLUSTERED, **INFLUENCE},
}
"""Options with which a selector suits a pool of a hundred rows."""


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


@pytest.fixture(scope="module")
def judged_by(nano_config, nano_corpus):
    """A model of the corpus that has learned nothing."""
    from workbench.models import build_model

    return build_model(
        nano_config.model,
        vocab_size=nano_corpus.vocab_size,
        context_tokens=nano_corpus.context_tokens,
        seed=0,
    )


@pytest.fixture(scope="module")
def reference_MT(nano_corpus):
    return nano_corpus.held_out("clean_prose", 8)


@pytest.fixture(scope="module")
def candidates(nano_corpus):
    """A hundred rows of four of the six domains, with active tokens that differ."""
    pool = nano_corpus.pool()
    rows = np.concatenate([np.flatnonzero(pool.domain_N == k)[:25] for k in (0, 1, 3, 5)])
    return Pool(pool.sample_id_N[rows], pool.domain_N[rows], 20 + np.arange(100) % 13)


def part_of(pool: Pool, keep_N: np.ndarray) -> Pool:
    return Pool(pool.sample_id_N[keep_N], pool.domain_N[keep_N], pool.tokens_N[keep_N])


def without(pool: Pool, sample_id_n: np.ndarray) -> Pool:
    return part_of(pool, ~np.isin(pool.sample_id_N, sample_id_n))


@pytest.fixture
def selector_of(nano_corpus, reference_MT):
    def build(name: str, seed: int = 0, **options):
        task = SelectionTask(nano_corpus, reference_MT, seed=seed)
        return SELECTORS.build(name, task, **FEW.get(name, {}), **options)

    return build


@selectors
def test_selection_is_valid_and_fills_the_budget(name, selector_of, candidates, judged_by):
    selector, budget = selector_of(name), 1000
    assert isinstance(selector, Selector)
    assert not selector.tables()
    before = {key: tensor.clone() for key, tensor in judged_by.state_dict().items()}
    selection = selector.select(candidates, budget, judged_by)
    chosen_N = np.isin(candidates.sample_id_N, selection.sample_id_N)
    assert chosen_N.sum() == len(np.unique(selection.sample_id_N)) == len(selection)
    tokens = candidates.tokens_N[chosen_N].sum()
    assert budget - candidates.tokens_N.max() < tokens <= budget
    assert all(isinstance(reason, str) and reason for reason in selection.reason_N)

    samples = selector.tables()["samples"]
    assert {len(column) for column in samples.values()} == {len(candidates)}
    accepted = samples["sample_id"][samples["accepted"]]
    assert sorted(accepted.tolist()) == sorted(selection.sample_id_N.tolist())
    for table in selector.tables().values():
        assert all(isinstance(column, np.ndarray) for column in table.values())
    json.dumps(selector.diagnostics())

    assert judged_by.training and all(p.grad is None for p in judged_by.parameters())
    after = judged_by.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


@selectors
def test_selector_is_deterministic_and_leaves_global_randomness_alone(
    name, selector_of, candidates, judged_by
):
    first = selector_of(name).select(candidates, 1000, judged_by)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = selector_of(name).select(candidates, 1000, judged_by)
    assert np.array_equal(first.sample_id_N, second.sample_id_N)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@selectors
def test_selector_continues_from_its_state(name, selector_of, candidates, judged_by):
    first, second = selector_of(name), selector_of(name)
    later = without(candidates, first.select(candidates, 700, judged_by).sample_id_N)
    second.load_state_dict(through_a_checkpoint(first.state_dict()))
    ours, theirs = (each.select(later, 700, judged_by) for each in (first, second))
    assert np.array_equal(ours.sample_id_N, theirs.sample_id_N)
    assert list(ours.reason_N) == list(theirs.reason_N)
    assert set(ours.sample_id_N.tolist()) <= set(later.sample_id_N.tolist())
    ours, theirs = (through_a_checkpoint(each.state_dict()) for each in (first, second))
    assert str(ours) == str(theirs)


@selectors
def test_selector_tolerates_a_domain_or_cluster_that_ran_out(
    name, selector_of, candidates, judged_by
):
    selector = selector_of(name)
    selector.select(candidates, 500, judged_by)
    later = part_of(candidates, candidates.domain_N == 1)
    selection = selector.select(later, 200, judged_by)
    chosen_N = np.isin(later.sample_id_N, selection.sample_id_N)
    assert chosen_N.sum() == len(selection)
    assert 200 - later.tokens_N.max() < later.tokens_N[chosen_N].sum() <= 200


@selectors
def test_a_budget_that_the_pool_cannot_fill_is_refused(name, selector_of, candidates, judged_by):
    tokens = int(candidates.tokens_N.sum())
    for budget in (tokens + 1, 0):
        with pytest.raises(PolicyError, match=f"budget of {budget} tokens for a pool of {tokens}"):
            selector_of(name).select(candidates, budget, judged_by)


@pytest.mark.parametrize("registry", [REWEIGHTERS, MIXERS, SELECTORS], ids=lambda r: r.kind)
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
